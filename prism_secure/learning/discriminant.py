"""A discriminant from a noisy release: which class an image is of, as far as the release says.

A release of features and their products (`features.products`) holds the mean m_k of the coordinates z in each
class k, and their covariance W_k there. An image is of the class for which

    −½ (z − m_k)ᵀ C_k⁻¹ (z − m_k) − ½ ln |C_k|,   C_k = (1 − γ_k) W + γ_k W_k + λ

is largest; W is the mean of all W_k, by counts (Friedman, "Regularized Discriminant Analysis", 1989; with
γ = 0 it is Fisher's linear one). A class of few images has a small γ_k: W_k is mostly noise there, and
makes C_k wide. All of it follows from the release, so labels cost no epsilon.
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

OWN = 0.1
"""γ_k of a class that has its share of the images; of a smaller one less, in proportion."""
RIDGE = 0.25
"""λ, in units of 2√r times the noise's deviation in W: that is how long its noise is along some direction."""
LEAST_RIDGE = 1e-5
"""λ is at least so large, in squared units of features."""


@dataclass(frozen=True)
class Discriminant:
    """Labels images by a release.

    Attributes:
        extractor: the features that were released.
        classes: int64 (K,), those that the release says are present.
        means: float64 (K, r), m.
        roots: float64 (K, r, r), R_k with R_k R_kᵀ = C_k⁻¹.
        offsets: float64 (K,), −½ ln |C_k|.
    """

    extractor: WithProducts
    classes: NDArray[np.int64]
    means: NDArray[np.float64]
    roots: NDArray[np.float64]
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
        within = second - means[:, :, None] * means[:, None, :]
        pooled = np.einsum("k,kij->ij", share, within)
        own = (OWN * np.minimum(1, len(counts) * share))[:, None, None]
        # Products off the diagonal weigh sqrt(2) in what was released, and all of it 1/sqrt(2).
        noise = sums.release.noise * math.sqrt(len(counts)) / counts.sum()
        ridge = max(LEAST_RIDGE, RIDGE * 2 * math.sqrt(len(pooled)) * noise)
        sizes, axes = np.linalg.eigh((1 - own) * pooled + own * within)
        sizes = np.maximum(sizes, 0) + ridge
        roots = axes / np.sqrt(sizes)[:, None, :]
        return cls(extractor, np.flatnonzero(present), means, roots, -0.5 * np.log(sizes).sum(1))

    def __call__(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W), float32 in [-1, 1], to labels int64 (N,)."""
        z = self.extractor.coordinates(self.extractor.in_batches(images)).double().numpy()
        far = [np.square((z - mean) @ root).sum(1) for mean, root in zip(self.means, self.roots, strict=True)]
        return torch.from_numpy(self.classes[(self.offsets - 0.5 * np.stack(far, 1)).argmax(1)])
