"""PRISM's generator: a residual upsampling network without a single learned constant.

A 4×4 transposed convolution of the latent, then residual blocks that double the side and halve the channels
down to `width`, then BatchNorm, ReLU, a 3×3 convolution and tanh (Santos et al., "Learning Implicit
Generative Models by Matching Perceptual Features", 2019; Seo, Han, Yoo, PRISM, 2025). No biases and no affine
normalisation, so that (architecture, seed, mask) is the whole model.

Batch normalisation always uses the statistics of the batch while training, and keeps none: evaluating can't
change what is trained. `prism_secure.model.deployed` computes fixed statistics for the deployed network.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prism_secure.config.sections import WeightLaw

_OWN = re.compile(r"[\w.]+:[\w.]+, sha256 [0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Everything about a generator but its seed and mask.

    Args:
        latent: length of the latent vector z.
        width: channels at full resolution; each halving of the side doubles them.
        image_size: side in pixels, a power of two, 8 or more.
        channels: 1 (grey) or 3 (colour).
        classes: 0 for an unconditional generator, else the number of labels it takes.
        max_channels: cap on the channels at low resolution; 0 for none.
        weights: how the frozen weights are drawn, see `prism_secure.model.supermask`.
        network: "" for `ResNetGenerator`, or "package.module:name, sha256 …" for one of the user's own, see
            `prism_secure.model.network`; the digest is of the file that its module is in.

    >>> Architecture(latent=8, width=4).stage_channels
    (32, 16, 8, 4)
    """

    latent: int = 64
    width: int = 16
    image_size: int = 32
    channels: int = 1
    classes: int = 0
    max_channels: int = 0
    weights: WeightLaw = "signed_constant"
    network: str = ""

    def __post_init__(self) -> None:
        if self.image_size < 8 or self.image_size & (self.image_size - 1):
            raise ValueError(f"image_size must be a power of two, 8 or more, not {self.image_size}")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, not {self.channels}")
        for name in ("latent", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if self.classes < 0 or self.max_channels < 0:
            raise ValueError("classes and max_channels can't be negative")
        if self.weights not in get_args(WeightLaw):
            raise ValueError(f"weights must be one of {', '.join(get_args(WeightLaw))}, not {self.weights!r}")
        if self.network and not _OWN.fullmatch(self.network):
            raise ValueError(
                "network must be empty or 'package.module:name, sha256 (64 hex digits)', not "
                f"{self.network!r}"
            )

    @property
    def own_reference(self) -> str:
        """What names a network of the user's own, without its digest."""
        return self.network.partition(",")[0]

    @property
    def stage_channels(self) -> tuple[int, ...]:
        """Channels at 4×4, 8×8, ... up to the full side."""
        doublings = self.image_size.bit_length() - 3
        sizes = [self.width << (doublings - i) for i in range(doublings + 1)]
        return tuple(min(c, self.max_channels) if self.max_channels else c for c in sizes)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a header; the usual weights and network are left out, as in older files."""
        values = asdict(self)
        if not self.network:
            del values["network"]
        if self.weights == "signed_constant":
            del values["weights"]
        return values


class UpBlock(nn.Module):
    """norm-ReLU-upsample-conv3-norm-ReLU-conv3, plus an upsampled 1×1 skip."""

    def __init__(self, fan_in: int, fan_out: int, *, running: bool) -> None:
        super().__init__()
        self.norm1 = _norm(fan_in, running)
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=False)
        self.norm2 = _norm(fan_out, running)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=False)
        self.skip = nn.Conv2d(fan_in, fan_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = _upsample_convolve(F.relu(self.norm1(x)), self.conv1.weight)
        h = self.conv2(F.relu(self.norm2(h)))
        # A 1×1 convolution commutes with nearest upsampling; before it is four times cheaper.
        total: Tensor = h + F.interpolate(self.skip(x), scale_factor=2.0, mode="nearest")
        return total


class ResNetGenerator(nn.Module):
    """z (B, latent), and labels (B,) int64 when conditional, to images (B, channels, side, side) in [-1, 1].

    Args:
        architecture: the sizes.
        running_statistics: keep BatchNorm statistics (for a deployed copy); training networks keep none.
    """

    def __init__(self, architecture: Architecture, *, running_statistics: bool = False) -> None:
        super().__init__()
        self.architecture = architecture
        sizes = architecture.stage_channels
        # A 4×4 transposed convolution of a 1×1 map is a matrix product; outputs ordered (4, 4, channels).
        self.stem = nn.Linear(architecture.latent + architecture.classes, 16 * sizes[0], bias=False)
        self.blocks = nn.Sequential(*(UpBlock(a, b, running=running_statistics) for a, b in pairwise(sizes)))
        self.norm = _norm(sizes[-1], running_statistics)
        self.head = nn.Conv2d(sizes[-1], architecture.channels, 3, padding=1, bias=False)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        code = latents
        if self.architecture.classes:
            if labels is None:
                raise ValueError("a class-conditional generator needs labels")
            # √latent gives the one label weight the variance of all latent weights together.
            one_hot = F.one_hot(labels, self.architecture.classes).to(latents.dtype)
            code = torch.cat([latents, one_hot * self.architecture.latent**0.5], dim=1)
        elif labels is not None:
            raise ValueError("an unconditional generator takes no labels")
        # Channels last throughout: on CPUs twice as fast, and four where channels are few.
        h = self.stem(code).unflatten(1, (4, 4, -1)).permute(0, 3, 1, 2)
        h = self.blocks(h)
        return torch.tanh(self.head(F.relu(self.norm(h))))


def _upsample_convolve(x: Tensor, weight: Tensor) -> Tensor:
    """`conv2d(upsample_nearest(x, 2), weight, padding=1)` for a 3×3 `weight`, at 4/9 of the multiplications.

    Three taps over doubled pixels are, for each parity, two sums of taps over the pixels themselves: a
    4×4 transposed convolution of stride two, whose kernel is the flipped weight box-summed 2×2.
    """
    kernel: Tensor = _BoxSum.apply(weight)  # type: ignore[no-untyped-call]
    return F.conv_transpose2d(x, kernel.flip(0, 1).permute(3, 2, 0, 1), stride=2, padding=1)


class _BoxSum(torch.autograd.Function):
    """Kernels (O, I, 3, 3) to (4, 4, O, I): sums of 2×2 taps, zeros around.

    An average pool in a seventh of its time (64 channels each way) and to its bits: that goes over kernels of
    few taps, this over all of a tap's kernels at once.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        return _box_sum(F.pad(weight.permute(2, 3, 0, 1).contiguous(), (0, 0, 0, 0, 1, 1, 1, 1)))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _box_sum(grads[0].contiguous()).permute(2, 3, 0, 1)  # its own adjoint, but for the zeros


def _box_sum(x: Tensor) -> Tensor:
    return x[:-1, :-1] + x[:-1, 1:] + x[1:, :-1] + x[1:, 1:]


def _norm(channels: int, running: bool) -> nn.BatchNorm2d:
    # momentum=None: a plain average over the calibration batches.
    return nn.BatchNorm2d(channels, affine=False, momentum=None, track_running_stats=running)


def draw_latents(
    count: int, architecture: Architecture, generator: torch.Generator, labels: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """`count` standard normal latents (count, latent), and balanced labels (count,) when conditional.

    Labels run 0, 1, ..., classes-1, 0, 1, ...: every batch holds every class, whatever a client has.
    """
    latents = torch.randn(count, architecture.latent, generator=generator)
    if architecture.classes and labels is None:
        labels = torch.arange(count) % architecture.classes
    return latents, labels
