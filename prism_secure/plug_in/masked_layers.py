"""Layers that carry their own scores: supermasks for objectives that look at one example at a time.

`Supermask` runs any network under one flat mask, which is all that a loss over a whole batch needs. A
classifier's loss is a sum over examples, and whoever wants a gradient *per example* (DP-SGD, see
`prism_secure.plug_in.dp_scores`) needs it layer by layer. So here the scores live in the layers: `weight` is
frozen, `scores` of the same shape is what is trained, and a forward pass runs with the weights
that the mask keeps.

    network = mask_layers(nn.Sequential(nn.Conv2d(1, 16, 3, bias=False), ...), seed=0)
    optimizer = torch.optim.Adam(trainable(network), lr=0.1)

A Bernoulli mask is drawn once a forward pass, for the whole batch, from a generator that knows no data. So
an example's loss depends on the other examples nowhere, and its gradient is its own.

Sources: Zhou et al., "Deconstructing Lottery Tickets" (2019); Isik et al., FedPM (ICLR 2023).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from prism_secure.config.sections import MaskMode
from prism_secure.model.supermask import Supermask, initial_theta, scores_from_theta, training_mask

__all__ = ["MaskedConv2d", "MaskedLinear", "mask_layers", "trainable"]


class _Masked(nn.Module):
    """What both layers share; `weight` is frozen, `scores` (the shape of `weight`) is trained.

    Attributes:
        mode: how scores become a mask, see `training_mask`; `hard` and `bernoulli`.
        temperature: τ in θ = σ(s/τ).
        generator: draws Bernoulli masks; None draws from torch's global state.
    """

    weight: Tensor

    def _attach(self, mode: MaskMode, temperature: float, generator: torch.Generator | None) -> None:
        """Freeze the weight as it is and add scores of its shape, τ·N(0, 1) from torch's global state."""
        if mode not in ("bernoulli", "hard"):
            raise ValueError(f"a masked layer's mode is 'bernoulli' or 'hard', not {mode!r}")
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.mode: MaskMode = mode
        self.temperature = temperature
        self.generator = generator
        self.weight.requires_grad_(False)
        self.scores = nn.Parameter(temperature * torch.randn(self.weight.shape))

    def masked_weight(self) -> Tensor:
        """`mask * weight`, with a straight-through gradient to `scores`."""
        mask = training_mask(self.scores, self.mode, temperature=self.temperature, generator=self.generator)
        return mask * self.weight

    @torch.enable_grad()
    def slope(self) -> Tensor:
        """d(mask)/d(scores), the shape of `scores`: the straight-through derivative of `training_mask`.

        It is a function of the scores alone, so any draw shows it.
        """
        leaf = self.scores.detach().requires_grad_(True)
        draw = torch.Generator()
        mask = training_mask(leaf, self.mode, temperature=self.temperature, generator=draw)
        # Each mask entry depends on its own score, so the gradient of the sum is the diagonal.
        (slope,) = torch.autograd.grad(mask.sum(), leaf)
        return slope


class MaskedLinear(_Masked, nn.Linear):
    """`nn.Linear` without bias under a mask of its frozen weight.

    Args:
        in_features, out_features: as for `nn.Linear`.
        mode, temperature, generator: see `training_mask`.

    The weight is ±√(2/fan_in), the signs drawn from torch's global random state, as every torch layer is
    initialised; `mask_layers` draws them from a seed instead.

    >>> MaskedLinear(4, 3)(torch.zeros(5, 4)).shape
    torch.Size([5, 3])

    Raises:
        ValueError: an unknown mode, or a temperature that is not positive.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        mode: MaskMode = "bernoulli",
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        nn.Linear.__init__(self, in_features, out_features, bias=False)
        Supermask(self, seed=int(torch.randint(2**31, ())))
        self._attach(mode, temperature, generator)

    def forward(self, input: Tensor) -> Tensor:
        """(N, ..., in_features) to (N, ..., out_features)."""
        return functional.linear(input, self.masked_weight())


class MaskedConv2d(_Masked, nn.Conv2d):
    """`nn.Conv2d` without bias under a mask of its frozen weight.

    Args:
        in_channels, out_channels, kernel_size: as for `nn.Conv2d`.
        mode, temperature, generator: see `training_mask`.
        options: stride, padding, padding_mode, dilation and groups of `nn.Conv2d`.

    The weight is as in `MaskedLinear`.

    >>> MaskedConv2d(1, 3, 3, padding="same")(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 3, 8, 8])

    Raises:
        ValueError: an unknown mode, or a temperature that is not positive.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        mode: MaskMode = "bernoulli",
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> None:
        nn.Conv2d.__init__(self, in_channels, out_channels, kernel_size, bias=False, **options)
        Supermask(self, seed=int(torch.randint(2**31, ())))
        self._attach(mode, temperature, generator)

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H', W')."""
        convolved: Tensor = self._conv_forward(input, self.masked_weight(), None)
        return convolved

    def padded(self, input: Tensor) -> Tensor:
        """`input` with this layer's padding applied, so that an unpadded convolution of it is this layer."""
        if self.padding == "valid" or not any(self._reversed_padding_repeated_twice):
            return input
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        return functional.pad(input, self._reversed_padding_repeated_twice, mode=mode)


def mask_layers(
    network: nn.Module,
    *,
    seed: int,
    mode: MaskMode = "bernoulli",
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Replace every `nn.Linear` and `nn.Conv2d` of `network` by its masked counterpart, in place.

    The weights are those of `Supermask(network, seed=seed)`, and the scores, taken in the order of
    `parameters()`, are in the order of its flat mask: so a mask that is trained here runs there.

    Args:
        network: linear and 2-D convolution layers without bias, and whatever has no parameters.
        seed: draws the signs of the weights; seed + 1 the first scores, τ·N(0, 1) (`initial_theta`).
        mode, temperature, generator: see `training_mask`; one generator serves all layers.

    Returns:
        `network`.

    Raises:
        ValueError: parameters that are not the weight of an `nn.Linear` or `nn.Conv2d`, or none at all.

    >>> network = mask_layers(nn.Sequential(nn.Linear(4, 3, bias=False), nn.ReLU()), seed=0)
    >>> [tuple(each.shape) for each in trainable(network)]
    [(3, 4)]
    """
    for name, module in network.named_modules():
        if type(module) not in _MASKED and any(True for _ in module.parameters(recurse=False)):
            kind = type(module).__name__
            raise ValueError(f"layer {name!r} is a {kind}: only nn.Linear and nn.Conv2d can be masked")
    theta = initial_theta(Supermask(network, seed=seed).dimension, seed=seed + 1)
    with torch.random.fork_rng(devices=[]):
        for module in network.modules():
            if type(module) in _MASKED:
                # The same object stays where it is, whatever refers to it; it becomes one of our class.
                module.__class__ = _MASKED[type(module)]
                assert isinstance(module, _Masked)
                module._attach(mode, temperature, generator)
    nn.utils.vector_to_parameters(scores_from_theta(theta, temperature), trainable(network))
    return network


def trainable(network: nn.Module) -> list[nn.Parameter]:
    """The scores, in the order of the network's layers: what an optimizer of a masked network gets.

    `torch.nn.utils.parameters_to_vector(trainable(network))` is the flat vector of `Supermask`'s order.
    """
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


_MASKED: dict[type[nn.Module], type[_Masked]] = {nn.Linear: MaskedLinear, nn.Conv2d: MaskedConv2d}
