"""Supermasks: a frozen random network of which one learns only the weights to keep.

A model is (architecture, seed, mask). `Supermask` freezes the weights of any `nn.Module`, drawn from `seed`,
and runs the network with `mask * weights` in their place. Scores, masks and probabilities are flat vectors of
shape (d,), d the number of maskable weights, in the order of `module.named_parameters()`. The weights follow
one of four laws:

    "signed_constant"  ±√(2/fan_in), the usual one
    "kaiming_normal"   normal, with that standard deviation
    "wide_normal"      normal, with standard deviation 10
    "signed_e"         ±e/√fan_in

Scores and probabilities are tied by a temperature τ: θ = σ(s/τ) and s = τ·logit θ. A large τ with the same
optimizer step moves θ little; a small one saturates it.

Sources: Zhou et al., "Deconstructing Lottery Tickets" (2019), signed constants; Ramanujan et al., "What's
Hidden in a Randomly Weighted Neural Network?" (2020), straight-through top-k; Isik et al., FedPM (2023),
Bernoulli masks; Seo, Han, Yoo, PRISM (ICLR 2025), generative supermasks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call

from prism_secure.config.sections import InitialLaw, MaskMode, WeightLaw


class Supermask(nn.Module):
    """A frozen network that runs under a mask.

    Every parameter of two or more dimensions is maskable. One-dimensional parameters (biases, affine
    normalisation) would carry information beyond (architecture, seed, mask), so they are refused.

    Args:
        module: the architecture; its weights are overwritten, and frozen.
        seed: draws them. The same seed gives the same weights on every machine.
        law: how they are drawn, see above.

    Raises:
        ValueError: the module has one-dimensional parameters, or none at all.

    >>> net = Supermask(nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False)), seed=0)
    >>> net.dimension
    18
    >>> net(torch.ones(18), torch.zeros(5, 4)).shape
    torch.Size([5, 2])
    """

    weights: Tensor

    def __init__(self, module: nn.Module, *, seed: int, law: WeightLaw = "signed_constant") -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(seed)
        self._layout: list[tuple[str, torch.Size, int]] = []
        flat: list[Tensor] = []
        for name, parameter in module.named_parameters():
            if parameter.dim() < 2:
                raise ValueError(
                    f"parameter {name!r} has shape {tuple(parameter.shape)}: biases and affine normalisation "
                    "are not part of a mask; build the network without them"
                )
            flat.append(_draw(law, parameter.numel(), _fan_in(module, name, parameter), draws))
            self._layout.append((name, parameter.shape, parameter.numel()))
        if not flat:
            raise ValueError("the network has no weights to mask")
        weights = torch.cat(flat)
        self.register_buffer("weights", weights, persistent=False)
        self.module = module
        for (_, parameter), value in zip(module.named_parameters(), flat, strict=True):
            parameter.data = value.view(parameter.shape).clone()
            parameter.requires_grad_(False)

    @property
    def dimension(self) -> int:
        """d: how many weights the mask chooses from."""
        return int(self.weights.numel())

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """How many of the d weights each layer has, in their order."""
        return tuple(count for _, _, count in self._layout)

    def parameters_under(self, mask: Tensor) -> dict[str, Tensor]:
        """`mask * weights`, cut into the module's parameters by name; differentiable in `mask` (d,)."""
        if mask.shape != self.weights.shape:
            raise ValueError(
                f"a mask for this network has shape ({self.dimension},), not {tuple(mask.shape)}"
            )
        pieces = torch.split(mask.to(self.weights.dtype) * self.weights, [n for _, _, n in self._layout])
        return {name: piece.view(shape) for (name, shape, _), piece in zip(self._layout, pieces, strict=True)}

    def forward(self, mask: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run the network with the weights `mask` (d,) keeps; gradients flow to `mask`."""
        return functional_call(self.module, self.parameters_under(mask), args, kwargs)

    @torch.no_grad()
    def load_mask(self, mask: Tensor) -> nn.Module:
        """Write `mask * weights` into the wrapped module itself and return it: a plain dense network."""
        under: Mapping[str, Tensor] = self.parameters_under(mask)
        for name, parameter in self.module.named_parameters():
            parameter.copy_(under[name])
        return self.module


def _draw(law: WeightLaw, count: int, fan_in: int, draws: torch.Generator) -> Tensor:
    """`count` weights of a layer, float32."""
    if law in ("kaiming_normal", "wide_normal"):
        scale = 10.0 if law == "wide_normal" else math.sqrt(2.0 / fan_in)
        return torch.randn(count, generator=draws) * scale
    scale = math.sqrt(2.0 / fan_in) if law == "signed_constant" else math.e / math.sqrt(fan_in)
    signs = torch.randint(0, 2, (count,), generator=draws) * 2 - 1
    return signs.to(torch.float32) * scale


def _fan_in(module: nn.Module, name: str, parameter: Tensor) -> int:
    """Inputs that reach one output; a transposed convolution spreads each over kernel/stride outputs."""
    owner = module.get_submodule(name.rpartition(".")[0])
    if isinstance(owner, nn.modules.conv._ConvTransposeNd):
        taps = math.prod(max(1, k // s) for k, s in zip(owner.kernel_size, owner.stride, strict=True))
        # On a 1x1 input (a generator's first layer) each output sees one tap only, whatever the kernel.
        if all(s == 1 and p == 0 for s, p in zip(owner.stride, owner.padding, strict=True)):
            taps = 1
        return owner.in_channels // owner.groups * taps
    return int(parameter[0].numel())


class _StraightThrough(torch.autograd.Function):
    """A hard value forward, the identity backward (Bengio et al. 2013)."""

    @staticmethod
    def forward(ctx: Any, soft: Tensor, hard: Tensor) -> Tensor:
        return hard

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def training_mask(
    scores: Tensor,
    mode: MaskMode,
    *,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    density: float = 0.5,
    progress: float = 0.0,
) -> Tensor:
    """The mask (d,) of one training step, with a straight-through gradient to `scores` (d,).

    bernoulli  a draw from σ(s/τ) by `generator`, gradient through σ (PRISM, FedPM)
    annealed   a draw from σ(s/(τ(1 − p))), p = `progress` the share of the run that is done: Bernoulli at
               first, hard in the end; gradient as if the mask were s
    hard       1[s > 0], gradient as if the mask were s
    topk       the ⌊density·d⌋ largest scores, gradient as if the mask were s
    """
    if mode == "bernoulli":
        theta = torch.sigmoid(scores / temperature)
        hard = _draw_mask(theta.detach(), generator)
        return _StraightThrough.apply(theta, hard)  # type: ignore[no-any-return, no-untyped-call]
    if mode == "hard" or (mode == "annealed" and progress >= 1):
        hard = (scores.detach() > 0).to(scores.dtype)
    elif mode == "annealed":
        hard = _draw_mask(torch.sigmoid(scores.detach() / (temperature * (1 - progress))), generator)
    elif mode == "topk":
        hard = _top(scores.detach(), density).to(scores.dtype)
    else:
        raise ValueError(f"mask mode {mode!r} is not one of {', '.join(get_args(MaskMode))}")
    return _StraightThrough.apply(scores, hard)  # type: ignore[no-any-return, no-untyped-call]


def deployed_mask(theta: Tensor, mode: MaskMode, *, seed: int = 0, density: float = 0.5) -> Tensor:
    """ONE fixed mask, bool (d,), for probabilities θ (d,): the one that is evaluated and exported.

    bernoulli  one draw from Ber(θ) by `seed`
    hard       1[θ > ½]; "annealed", too, which ends there
    topk       the ⌊density·d⌋ largest θ

    >>> deployed_mask(torch.tensor([0.1, 0.5, 0.9]), "hard").tolist()
    [False, False, True]
    """
    theta = theta.detach()
    if mode == "bernoulli":
        coins = torch.rand(theta.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return coins < theta
    if mode in ("hard", "annealed"):
        return theta > 0.5
    if mode == "topk":
        return _top(theta, density)
    raise ValueError(f"mask mode {mode!r} is not one of {', '.join(get_args(MaskMode))}")


def _draw_mask(theta: Tensor, generator: torch.Generator | None) -> Tensor:
    """One draw from Ber(θ), (d,) of θ's type; by the CPU's generator wherever θ lies."""
    draw = torch.rand(theta.shape, generator=generator, dtype=theta.dtype).to(theta.device)
    return (draw < theta).to(theta.dtype)


def _top(values: Tensor, density: float) -> Tensor:
    if not 0.0 < density <= 1.0:
        raise ValueError(f"density must lie in (0, 1], not {density}")
    keep = int(density * values.numel())
    chosen = torch.zeros(values.shape, dtype=torch.bool, device=values.device)
    # A stable sort: ties (θ takes few values after a vote) fall the same way on every machine.
    chosen[torch.sort(values, descending=True, stable=True).indices[:keep]] = True
    return chosen


def initial_theta(dimension: int, *, seed: int, spread: float = 1.0, law: InitialLaw = "normal") -> Tensor:
    """θ_0 = σ(x), float64 (d,), from a public seed: x ~ N(0, spread²), or uniform in [−spread, spread].

    PRISM's scores start at N(0, 1). Never the constant ½: under `hard` every score would be zero and the
    network empty.
    """
    public = torch.Generator().manual_seed(seed)
    if law == "uniform":
        drawn = torch.rand(dimension, generator=public, dtype=torch.float64) * 2 - 1
    else:
        drawn = torch.randn(dimension, generator=public, dtype=torch.float64)
    return torch.sigmoid(spread * drawn)


def scores_from_theta(theta: Tensor, temperature: float) -> Tensor:
    """s = τ·logit θ, float32 (d,), from the broadcast θ (d,) in (0, 1)."""
    return (temperature * torch.logit(theta.to(torch.float64))).to(torch.float32)


def theta_from_scores(scores: Tensor, temperature: float) -> Tensor:
    """θ = σ(s/τ), float64 (d,)."""
    return torch.sigmoid(scores.to(torch.float64) / temperature)
