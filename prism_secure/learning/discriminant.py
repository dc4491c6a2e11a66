"""Fisher's linear discriminant from a noisy release: which class an image is of, as far as the release says.

A release of features and their products (`features.products`) holds each class's mean of the coordinates z
and, pooled over classes, their covariance W within a class. With them an image is of the class k for which

    w_kᵀ z − ½ w_kᵀ m_k,   w_k = (W + λ)⁻¹ m_k

is largest (Fisher, "The use of multiple measurements in taxonomic problems", 1936). All of it follows from
the release, so labels cost no epsilon.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prism_privacy import NoisySums, noisy_moments
from prism_secure.data.features import WithProducts
from prism_secure.errors import ConfigError

RIDGE = 0.25
"""λ, in units of 2√r times the noise's deviation in W: that is how long its noise is along some direction."""
LEAST_RIDGE = 1e-5
"""λ is at least so large, in squared units of features."""


@dataclass(frozen=True)
class Discriminant:
    """Labels images by a release.

    Attributes:
        extractor: the features that were released.
        weights: float64 (r, K), w.
        offsets: float64 (K,), −½ w_kᵀ m_k; −inf for a class that the release says is absent.
    """

    extractor: WithProducts
    weights: NDArray[np.float64]
    offsets: NDArray[np.float64]

    @classmethod
    def of(cls, sums: NoisySums, extractor: WithProducts) -> Discriminant:
        """From what opened, of one row a class (see `RecordRelease.as_opened`).

        Raises:
            ConfigError: noise leaves fewer than two classes, which tell no images apart.
        """
        found = noisy_moments(sums)
        present = np.asarray(found.present)
        if present.sum() < 2:
            raise ConfigError(
                "labels by a release need two classes that have images, and its noisy counts say so of "
                f"{present.sum()} of {len(present)}: a larger privacy.record_epsilon means less noise"
            )
        released = torch.from_numpy(np.asarray(found.mean, np.float64)[present])
        counts = np.asarray(found.counts, np.float64)[present]
        share = counts / counts.sum()
        means = extractor.coordinates(released.float()).double().numpy()
        second = extractor.second_moments(released.float()).double().numpy()
        within = np.einsum("k,kij->ij", share, second - means[:, :, None] * means[:, None, :])
        # Products off the diagonal weigh sqrt(2) in what was released, and all of it 1/sqrt(2).
        noise = sums.release.noise * math.sqrt(len(counts)) / counts.sum()
        ridge = max(LEAST_RIDGE, RIDGE * 2 * math.sqrt(len(within)) * noise)
        sizes, axes = np.linalg.eigh(within)
        inverse = (axes / (np.maximum(sizes, 0) + ridge)) @ axes.T
        weights = np.zeros((len(within), len(present)))
        offsets = np.full(len(present), -np.inf)
        weights[:, present] = inverse @ means.T
        offsets[present] = -0.5 * np.einsum("kr,rk->k", means, weights[:, present])
        return cls(extractor, weights, offsets)

    def __call__(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W), float32 in [-1, 1], to labels int64 (N,)."""
        z = self.extractor.coordinates(self.extractor.in_batches(images)).double().numpy()
        return torch.from_numpy((z @ self.weights + self.offsets).argmax(1))
