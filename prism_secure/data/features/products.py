"""Features and the products of their leading coordinates: with these, second moments are means, too."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prism_secure.data.features.bounded import BoundedFeatures
from prism_secure.data.features.extractor import FeatureExtractor
from prism_secure.errors import FeatureError


class WithProducts(FeatureExtractor):
    """(φ, ψ)/√2: bounded features φ (N, D), and products ψ (N, r(r+1)/2) of r coordinates of them.

    z = Aφ are the coordinates along r orthonormal rows A, the principal directions of public images'
    features. ψ holds the entries of z zᵀ on and above its diagonal, those above it times √2. Means of ψ over
    a class are its second moments about 0 along A, and with the means of φ they are its covariance there.

    **An image's features have norm 1 at most**, so a release of their sums costs what one of φ alone does:
    ‖ψ‖ = ‖z zᵀ‖ (Frobenius) = ‖z‖² ≤ ‖φ‖² ≤ 1, hence ‖(φ, ψ)/√2‖² ≤ (1 + 1)/2 = 1. Rounding is no matter of
    ε: `prism_privacy.release_moments` shortens what is longer, in exact integers. The price is √2 times the
    noise on the means of φ, in units of φ.

    Args:
        bounded: φ.
        public: images (N, C, H, W) in [-1, 1] of no client, more than r.
        count: r, from 1 to D.

    Raises:
        FeatureError: r is not in this range, or public images' features lie in fewer directions.
    """

    axes: Tensor
    _scale: Tensor

    def __init__(self, bounded: BoundedFeatures, public: Tensor, count: int) -> None:
        super().__init__()
        self.bounded = bounded
        if not 1 <= count <= min(bounded.dimension, len(public) - 1):
            raise FeatureError(
                f"products are of 1 to {min(bounded.dimension, len(public) - 1)} coordinates, got {count}"
            )
        self.freeze()
        found = bounded.in_batches(public).double().numpy()
        self.register_buffer("axes", torch.from_numpy(_axes(found, count)).float(), persistent=False)
        self._rows, self._columns = torch.triu_indices(count, count)
        doubled = torch.where(self._rows == self._columns, 1.0, math.sqrt(2))
        self.register_buffer("_scale", doubled, persistent=False)
        self.dimension = bounded.dimension + len(doubled)

    def forward(self, images: Tensor) -> Tensor:
        features = self.bounded(images)
        z = features @ self.axes.T
        products = z[:, self._rows] * z[:, self._columns] * self._scale
        return torch.cat([features, products], dim=1) * math.sqrt(0.5)

    def coordinates(self, features: Tensor) -> Tensor:
        """z (N, r) of what `forward` gives (N, `dimension`); of means of it the mean of z."""
        return math.sqrt(2) * (features[:, : self.bounded.dimension] @ self.axes.T)

    def second_moments(self, features: Tensor) -> Tensor:
        """z zᵀ (N, r, r) of what `forward` gives; of means of it the second moments about 0."""
        upper = math.sqrt(2) * features[:, self.bounded.dimension :] / self._scale
        found = upper.new_zeros(len(features), len(self.axes), len(self.axes))
        found[:, self._rows, self._columns] = upper
        found[:, self._columns, self._rows] = upper
        return found


def _axes(found: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Principal directions (count, D) of features (N, D), the longest first.

    The sign is fixed, that of each one's largest entry: products of two coordinates depend on it, and clients
    with other libraries must mean the same.
    """
    _, sizes, rows = np.linalg.svd(found - found.mean(0), full_matrices=False)
    if not sizes[count - 1] > 1e-6 * sizes[0]:
        raise FeatureError(f"public images' features lie in fewer than {count} directions")
    rows = rows[:count]
    largest = np.take_along_axis(rows, np.abs(rows).argmax(1)[:, None], 1)
    signed: NDArray[np.float64] = rows * np.sign(largest)
    return signed
