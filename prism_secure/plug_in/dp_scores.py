"""DP-SGD on the scores of a supermask: one labelled example of one client is protected, through Opacus.

For objectives that are a sum over examples (classification with masks, as FedPM). Each step takes a Poisson
sample of the examples, clips the gradient of *each example with respect to the scores* to norm C, adds
N(0, (zC)²) to every coordinate of their sum, and divides by a public number (Abadi et al., "Deep Learning
with Differential Privacy", CCS 2016, algorithm 1). The scores, masks and models that follow are
post-processing.

    network = mask_layers(...)                                    # prism_secure.plug_in.masked_layers
    plan = DpSgd.calibrated(epsilon=8, delta=1e-5, records=1000, batch=50, steps=400, clip=1.0)
    optimizer, loader = make_private(network, optimizer, loader, plan, steps_per_pass=20)

What differs from Opacus' own `PrivacyEngine`, which works on these layers too: sampling and noise come from
AES-256 under operating-system entropy (torch's generator is a Mersenne twister with a 32-bit seed: whoever
guesses it takes the noise off), nothing depends on the true number of records, the plan's steps are all there
are, and batch normalisation is refused even where it has no parameters, which Opacus does not look at.

Importing this module registers the gradients of `MaskedLinear` and `MaskedConv2d` with Opacus.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import dp_accounting
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Sampler

from prism_privacy import BudgetExceeded, CoinSecret, CoinStream, RecordGuarantee, Unit, View
from prism_privacy.accounting.events import DpAccounted, Event, compose, loss_distributions
from prism_secure.errors import MissingPackage, pip_install
from prism_secure.plug_in.masked_layers import MaskedConv2d, MaskedLinear

try:
    from opacus import GradSampleModule
    from opacus.data_loader import dtype_safe, shape_safe, wrap_collate_with_empty
    from opacus.grad_sample import register_grad_sampler
    from opacus.optimizers import DPOptimizer
except ImportError:
    raise MissingPackage(f"Opacus is not installed: {pip_install('dp-sgd')}") from None

__all__ = ["DpSgd", "make_private"]


@register_grad_sampler(MaskedLinear)  # type: ignore[untyped-decorator]
def _linear(layer: MaskedLinear, activations: list[Tensor], gradient: Tensor) -> dict[nn.Parameter, Tensor]:
    """Per-example gradients (N, out, in) of the scores: ∂L/∂(m∘w) ∘ w ∘ ∂m/∂s."""
    dense = torch.einsum("n...o,n...i->noi", gradient, activations[0].to(gradient.dtype))
    return {layer.scores: dense.mul_(layer.weight * layer.slope())}


@register_grad_sampler(MaskedConv2d)  # type: ignore[untyped-decorator]
def _conv2d(layer: MaskedConv2d, activations: list[Tensor], gradient: Tensor) -> dict[nn.Parameter, Tensor]:
    """The same, (N, out, in/groups, kh, kw): a convolution is a linear layer on unfolded patches."""
    examples = len(gradient)
    shape = (examples, *layer.scores.shape)
    if not examples:
        return {layer.scores: gradient.new_zeros(shape)}
    patches = functional.unfold(
        layer.padded(activations[0].to(gradient.dtype)),
        layer.kernel_size,
        dilation=layer.dilation,
        stride=layer.stride,
    )
    groups, places = layer.groups, patches.shape[-1]
    dense = torch.einsum(
        "ngol,ngil->ngoi",
        gradient.reshape(examples, groups, -1, places),
        patches.reshape(examples, groups, -1, places),
    )
    return {layer.scores: dense.reshape(shape).mul_(layer.weight * layer.slope())}


@dataclass(frozen=True)
class DpSgd:
    """A plan for DP-SGD, fixed before the first step; every field is public.

    Attributes:
        records: examples a client is *said* to have. Only batch/records enters, so that nothing depends on
            how many it has: one record more or less changes neither the sampling nor the divisor.
        batch: the expected number of examples in a step's sample, and the divisor of the noisy sum.
        steps: steps over the whole run, all rounds together.
        clip: C, the largest L2 norm of one example's gradient with respect to all scores.
        noise: z; the sum of clipped gradients gets N(0, (zC)²) in every coordinate.

    >>> DpSgd(records=1000, batch=50, steps=400, clip=1.0, noise=1.0).sampling_rate
    0.05

    Raises:
        ValueError: a number is not positive, or batch exceeds records.
    """

    records: int
    batch: int
    steps: int
    clip: float
    noise: float

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value!r}")
        if self.batch > self.records:
            raise ValueError(
                f"batch {self.batch} exceeds records {self.records}: the sampling rate is at most 1"
            )

    @classmethod
    def calibrated(
        cls, *, epsilon: float, delta: float, records: int, batch: int, steps: int, clip: float
    ) -> Self:
        """The plan with the least noise, 0.3 or more, that keeps to `epsilon`; to 0.001, rounded up.

        Raises:
            ValueError: epsilon or delta out of range; see also the class.

        >>> plan = DpSgd.calibrated(epsilon=8, delta=1e-5, records=1000, batch=50, steps=400, clip=1.0)
        >>> plan.epsilon(1e-5) <= 8 < replace(plan, noise=plan.noise - 0.002).epsilon(1e-5)
        True
        """
        if not (epsilon > 0 and 0 < delta < 1):
            raise ValueError(f"expected epsilon > 0 and 0 < delta < 1, got {epsilon!r} and {delta!r}")
        least = cls(records, batch, steps, clip, noise=1.0)
        if least.epsilon(delta) <= epsilon:  # little noise takes long to account for: tried only where needed
            least = replace(least, noise=0.3)
            if least.epsilon(delta) <= epsilon:
                return least
        noise = dp_accounting.calibrate_dp_mechanism(
            loss_distributions,
            lambda noise: replace(least, noise=noise).event(),
            epsilon,
            delta,
            bracket_interval=dp_accounting.LowerEndpointAndGuess(least.noise, 2 * least.noise),
            tol=1e-3,
        )
        return replace(least, noise=float(noise))

    @property
    def sampling_rate(self) -> float:
        """Probability with which each example is in a step's sample, independently of the others."""
        return self.batch / self.records

    def event(self) -> dp_accounting.DpEvent:
        """The whole run as dp_accounting describes it.

        With releases of other kinds it adds up as a `prism_privacy.accounting.events.DpAccounted`.
        """
        step = dp_accounting.PoissonSampledDpEvent(
            self.sampling_rate, dp_accounting.GaussianDpEvent(self.noise)
        )
        return dp_accounting.SelfComposedDpEvent(step, self.steps)

    def epsilon(self, delta: float) -> float:
        """ε of the whole run for one labelled example, present or absent (add/remove adjacency).

        By numerical composition of privacy loss distributions, discretized pessimistically: an upper bound,
        about a tenth below the one that Opacus prints by default for Rényi accounting (`accountant="rdp"`).
        """
        events: dict[Event, int] = {DpAccounted(self.event()): 1}
        return compose(events, delta, Unit.RECORD, View.UPLOAD, "add_remove").epsilon

    def guarantee(self, delta: float) -> RecordGuarantee:
        """What a ledger's lines say beside the client-level ε: the same in every line, whatever the round.

        >>> plan = DpSgd(records=1000, batch=50, steps=400, clip=1.0, noise=1.0)
        >>> plan.guarantee(1e-5).adjacency, round(plan.guarantee(1e-5).epsilon, 2)
        ('add_remove', 6.7)
        """
        return RecordGuarantee("add_remove", self.epsilon(delta), delta, self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """The plan as JSON-safe values."""
        return {"mechanism": "dp-sgd", **asdict(self)}


def make_private(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: DataLoader[Any],
    plan: DpSgd,
    *,
    steps_per_pass: int | None = None,
    coins: CoinSecret | None = None,
) -> tuple[torch.optim.Optimizer, DataLoader[Any]]:
    """Make the training of one client private: use what is returned in place of `optimizer` and `loader`.

    `network` itself stays what it is; from here on its backward pass also finds gradients per example. The
    loss must be a mean over the batch, and each backward pass be followed by `step()` and `zero_grad()`.

    Args:
        network: its trainable parameters are what `optimizer` moves.
        optimizer: any of torch's; it sees noisy gradients only, so its own state is post-processing.
        loader: its data set and its collation are used, its sampling is replaced.
        plan: what is spent; the optimizer refuses the step after the plan's last.
        steps_per_pass: batches that one pass over the returned loader gives; by default records // batch.
        coins: known coins, for tests; by default noise and sampling come from new, secret ones.

    Call it once for the whole run, not once a round: what is returned counts the plan's steps, and in this
    process only. Whoever resumes gets the whole plan again, so whoever may be killed must keep `taken` of the
    returned optimizer on disk, before each step, and resume with a plan of the steps that are left.

    Raises:
        ValueError: the network mixes examples (batch normalisation) or keeps running statistics of them, the
            optimizer's parameters are not those that are trainable, or the coins are not test coins.
        BudgetExceeded: by the returned optimizer's `step`, with nothing changed.
    """
    _refuse_layers_that_mix(network)
    moved = {id(each) for group in optimizer.param_groups for each in group["params"] if each.requires_grad}
    if moved != {id(each) for each in network.parameters() if each.requires_grad}:
        raise ValueError("the optimizer moves other parameters than those that are trainable in the network")
    if coins is not None and not coins.is_test:
        raise ValueError("coins are for tests: noise from a secret that is used twice cancels")
    secret = coins or CoinSecret()
    # Images need no gradient, and torch warns that the first layer's backward hook sees none of them.
    warnings.filterwarnings("ignore", "Full backward hook is firing")
    hooked = GradSampleModule(network, loss_reduction="mean")
    hooked.forbid_grad_accumulation()
    data: Any = loader.dataset
    batches: DataLoader[Any] = DataLoader(
        data,
        batch_sampler=_PoissonSample(len(data), plan, steps_per_pass or plan.records // plan.batch, secret),
        collate_fn=wrap_collate_with_empty(
            collate_fn=loader.collate_fn,
            sample_empty_shapes=[(0, *shape_safe(each)) for each in data[0]],
            dtypes=[dtype_safe(each) for each in data[0]],
        ),
    )
    return _SecretNoise(optimizer, plan, secret), batches


def _refuse_layers_that_mix(network: nn.Module) -> None:
    """Opacus refuses such layers only where they have trainable parameters; here they seldom do."""
    for name, module in network.named_modules():
        fault = None
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            fault = "mixes examples, so that none has a gradient of its own"
        elif getattr(module, "track_running_stats", False):
            fault = "keeps statistics of the data"
        if fault:
            kind = type(module).__name__
            raise ValueError(
                f"layer {name!r} is a {kind}, which {fault}; nn.GroupNorm(affine=False) does not"
            )


class _PoissonSample(Sampler[list[int]]):
    """Batches in which each index is with probability q, by secret coins; some may be empty.

    A batch's coins are a stream of their own, numbered on over all passes.
    """

    def __init__(self, size: int, plan: DpSgd, steps: int, secret: CoinSecret) -> None:
        self._size = size
        # Rounded down: the true probability is at most 2^-64 below the plan's, never above.
        self._below = np.uint64(min(int(plan.sampling_rate * 2.0**64), 2**64 - 1))
        self._steps = steps
        self._secret = secret
        self._drawn = 0

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(self._steps):
            words = np.frombuffer(_stream(self._secret, self._drawn, "sample").bytes(8 * self._size), "<u8")
            self._drawn += 1
            yield np.flatnonzero(words < self._below).tolist()


class _SecretNoise(DPOptimizer):  # type: ignore[misc]
    """Opacus' optimizer, with noise from secret coins and an end."""

    def __init__(self, optimizer: torch.optim.Optimizer, plan: DpSgd, secret: CoinSecret) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=plan.noise,
            # A little less than the noise is for: norms and sums are of float32.
            max_grad_norm=plan.clip * (1 - 1e-5),
            expected_batch_size=plan.batch,
            loss_reduction="mean",
        )
        self.plan = plan
        self.taken = 0
        self._secret = secret

    def pre_step(self, closure: Any = None) -> bool | None:
        if self.taken == self.plan.steps:
            raise BudgetExceeded(
                f"all {self.plan.steps} steps of the plan are taken; another would cost more than its epsilon"
            )
        ready: bool | None = super().pre_step(closure)
        return ready

    def clip_and_accumulate(self) -> None:
        """Add up the examples' gradients, clipped; one that cannot be clipped counts as 0, without a word.

        A gradient that overflowed has a norm of infinity or NaN, and 0 · inf is NaN: one image of absurd
        pixels would show in every score, whatever the noise. C / norm must be a normal number of float32,
        too, or its rounding lets through more than C.
        """
        samples = self.grad_samples
        if len(samples[0]):
            norms = torch.stack([each.flatten(1).norm(2, dim=1) for each in samples], dim=1).norm(2, dim=1)
            broken = ~(norms < self.max_grad_norm / torch.finfo(torch.float32).tiny)
            for each in samples:
                each[broken] = 0.0
        super().clip_and_accumulate()
        assert all(torch.isfinite(parameter.summed_grad).all() for parameter in self.params)

    def add_noise(self) -> None:
        """Gaussian noise of standard deviation noise·clip to every coordinate of the clipped sums."""
        stream = _stream(self._secret, self.taken, "noise")
        self.taken += 1
        scale = self.plan.noise * self.plan.clip
        for parameter in self.params:
            noise = torch.from_numpy(scale * _normals(stream, parameter.numel()))
            # Added in double precision; what float32 then rounds is post-processing.
            total = parameter.summed_grad.double() + noise.view_as(parameter)
            parameter.grad = total.to(parameter.dtype)


def _stream(secret: CoinSecret, number: int, purpose: str) -> CoinStream:
    return secret.stream("dp-sgd", number, bytes(32), purpose)


def _normals(stream: CoinStream, count: int) -> NDArray[np.float64]:
    """Standard normal numbers (count,) by Box and Muller's transform (1958) of 53-bit uniforms."""
    half = (count + 1) // 2
    words = np.frombuffer(stream.bytes(16 * half), "<u8") >> np.uint64(11)
    uniform = (words.astype(np.float64) + 0.5) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log(uniform[:half]))
    angle = 2.0 * np.pi * uniform[half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
