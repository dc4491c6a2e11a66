"""Features in units that public images give, never longer than 1: what a release of their sums needs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from prism_secure.data.features.extractor import FeatureExtractor
from prism_secure.errors import FeatureError


class BoundedFeatures(FeatureExtractor):
    """Several extractors' features, standardised by public images and shortened to L2 norm 1 at most.

    Of each feature the mean over the public images is subtracted, and it is divided by its standard deviation
    over them: every feature counts in its own unit, times its part's weight, and what all images have in
    common takes little of the norm. One factor for all features then gives the public images' `quantile`
    length 1, and what is longer, of whatever images, is shortened to 1. So one image moves a sum of features
    by at most 2.

    Args:
        parts: side by side.
        public: images (N, C, H, W) in [-1, 1] of no client; see `prism_secure.data.public_images`.
        weights: of the parts, > 0; by default 1.
        quantile: share of the public images that is not shortened.

    Raises:
        FeatureError: no parts; weights that don't fit; only equal public images; a quantile outside (0, 1].
    """

    centre: Tensor
    gain: Tensor

    LEAST_SPREAD = 0.02
    """Least divisor, in root-mean-square spreads of a part, for features that public images hardly move."""

    def __init__(
        self, parts: Sequence[FeatureExtractor], public: Tensor, *, weights: Sequence[float] | None = None,
        quantile: float = 0.9,
    ) -> None:  # fmt: skip
        super().__init__()
        if not parts:
            raise FeatureError("no feature extractor given")
        given = (1.0,) * len(parts) if weights is None else tuple(weights)
        if len(given) != len(parts) or not min(given) > 0:
            raise FeatureError(f"{len(parts)} extractors need as many positive weights, got {given}")
        if not 0 < quantile <= 1:
            raise FeatureError(f"quantile must lie in (0, 1], got {quantile!r}")
        self.parts = nn.ModuleList(parts)
        self.dimension = sum(part.dimension for part in parts)
        self.freeze()
        with torch.no_grad():
            found = [part.in_batches(public).double() for part in parts]
            centre = torch.cat([part.mean(0) for part in found])
            spread = torch.cat(
                [_spread(part, self.LEAST_SPREAD) / w for part, w in zip(found, given, strict=True)]
            )
            lengths = ((torch.cat(found, dim=1) - centre) / spread).norm(dim=1)
            unit = float(torch.quantile(lengths, quantile))
        self.register_buffer("centre", centre.float(), persistent=False)
        self.register_buffer("gain", (1 / (spread * unit)).float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.cat([part(images) for part in self.parts], dim=1)
        x = (x - self.centre) * self.gain
        features: Tensor = x / x.norm(dim=1, keepdim=True).clamp(min=1)
        return features


def _spread(found: Tensor, least: float) -> Tensor:
    """Standard deviations (D,) of features (N, D), at least `least` of their root mean square."""
    deviation = found.std(0, unbiased=False)
    overall = float(deviation.square().mean().sqrt())
    if not overall > 1e-6 * float(found.abs().max()):
        raise FeatureError("bounded features need different public images to take their units from")
    return deviation.clamp(min=least * overall)
