"""Random Fourier features of pixels: seeded, without weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from prism_secure.data.features.extractor import FeatureExtractor
from prism_secure.errors import FeatureError


class RandomFourierFeatures(FeatureExtractor):
    """√(2/D)·cos(Wx + b) of pixels averaged to several sides (Rahimi and Recht 2007).

    The mean of these features is the kernel mean embedding of the images under a sum of Gaussian kernels,
    one per (side, bandwidth): matching it matches distributions, not just averages. Each image's features
    have norm at most √(number of kernels).

    Args:
        count: features per kernel.
        sides: pixel grids, e.g. (8, 16): fine grids see texture, coarse ones shape.
        bandwidths: Gaussian kernel widths, as multiples of √pixels (the size of typical distances).
        channels: image channels.
        seed: draws W and b; public.
    """

    def __init__(
        self, count: int = 200, *, sides: Sequence[int] = (8, 16), bandwidths: Sequence[float] = (0.25, 0.5),
        channels: int = 1, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        if count < 1 or not sides or not bandwidths or min(bandwidths) <= 0:
            raise FeatureError("random Fourier features need a count, sides, and positive bandwidths")
        draw = torch.Generator().manual_seed(seed)
        self.sides = tuple(sides)
        self.scale = math.sqrt(2.0 / count)
        for side in self.sides:
            pixels = side * side * channels
            frequencies = [
                torch.randn(pixels, count, generator=draw) / (width * math.sqrt(pixels))
                for width in bandwidths
            ]
            phases = torch.rand(count * len(bandwidths), generator=draw) * (2 * math.pi)
            self.register_buffer(f"frequencies_{side}", torch.cat(frequencies, dim=1), persistent=False)
            self.register_buffer(f"phases_{side}", phases, persistent=False)
        self.dimension = count * len(self.sides) * len(bandwidths)
        self.freeze()

    def forward(self, images: Tensor) -> Tensor:
        found = []
        for side in self.sides:
            x = images if side == images.shape[-1] else F.adaptive_avg_pool2d(images, side)
            angle = torch.addmm(
                getattr(self, f"phases_{side}"), x.flatten(1), getattr(self, f"frequencies_{side}")
            )
            found.append(torch.cos(angle) * self.scale)
        return torch.cat(found, dim=1)
