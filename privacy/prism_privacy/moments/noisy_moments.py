"""Means and variances from noisy sums: nothing here sees data, so nothing here costs privacy.

Sums are divided by *noisy* counts: a true count beside noisy sums would be a second, unaccounted release.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prism_privacy import _validate
from prism_privacy.moments.noisy_sums import NoisySums


@dataclass(frozen=True)
class NoisyMoments:
    """Per-class moments, with how noisy they are, in units of the features.

    Attributes:
        mean: (classes, D) float64.
        variance: (classes, D) float64, at least the floor; None without second moments.
        counts: (classes,) float64, what sums were divided by: noisy counts, at least ``least_count``.
        present: (classes,) bool: whether the noisy count says that the class has records at all.
        mean_noise: (classes,) float64, standard deviation of the noise on a coordinate of the mean.
        second_noise: (classes,) float64, the same for E[phi^2]; None without second moments.
    """

    mean: NDArray[np.float64]
    variance: NDArray[np.float64] | None
    counts: NDArray[np.float64]
    present: NDArray[np.bool_]
    mean_noise: NDArray[np.float64]
    second_noise: NDArray[np.float64] | None


def noisy_moments(
    sums: NoisySums, *, variance_floor: float | None = None, least_count: float | None = None
) -> NoisyMoments:
    """Divide, subtract, and keep away from what noise makes impossible.

    The variance is S2/n - mean^2 + (noise of the mean)^2: squaring a noisy mean adds its noise's variance,
    which is known and taken off again. What is left below ``variance_floor`` is raised to it.

    Args:
        sums: the release.
        variance_floor: the smallest variance, > 0; by default 1e-6 norm^2.
        least_count: the smallest divisor, > 0; by default 1, or twice the noise on a count if that is more.
            A class whose noisy count is at most 3 standard deviations of its noise is not ``present``.

    >>> from prism_privacy.moments.release import MomentRelease
    >>> from prism_privacy.moments.noisy_sums import release_moments
    >>> release = MomentRelease(records=2, norm=1.0, sigma=0.0)
    >>> moments = noisy_moments(release_moments([[0.25, 0.5], [0.75, 0.5]], None, release))
    >>> moments.mean, moments.variance.round(4)
    (array([[0.5, 0.5]]), array([[0.0625, 0.    ]]))
    """
    release = sums.release
    classes = sums.first.shape[0]
    floor = (
        1e-6 * release.norm**2
        if variance_floor is None
        else _validate.positive("variance_floor", variance_floor)
    )
    count_noise = release.noise / release.count_weight
    least = (
        max(1.0, 2.0 * count_noise) if least_count is None else _validate.positive("least_count", least_count)
    )
    if sums.counts is None:
        counts = np.full(classes, float(release.records))
        present = np.full(classes, True)
    else:
        counts = np.maximum(sums.counts, least)
        present = sums.counts > max(0.5, 3.0 * count_noise)
    mean = sums.first / counts[:, None]
    mean_noise = release.noise * release.norm / counts
    variance = second_noise = None
    if sums.second is not None:
        second_noise = release.noise / release.second_weight * release.norm**2 / counts
        raw = sums.second / counts[:, None] - np.square(mean) + np.square(mean_noise)[:, None]
        variance = np.maximum(raw, floor)
    return NoisyMoments(mean, variance, counts, present, mean_noise, second_noise)
