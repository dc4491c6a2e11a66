"""What the server reads off the opened counts: the clients' mean answer, and how noisy it is.

    v = (A/C) E^T (counts / n - p_t),      noise covariance  (A/C)^2 E^T diag(p (1 - p)) E / n

v is the mean of the clients' answers plus that noise, up to (A/C) sqrt(m) 2^-24 (the bits' probabilities
round toward p_t) and where the box does not bind. As every entry of E is +-1/sqrt(m), each direction has the
same variance, (A/C)^2 mean(p (1 - p)) / n, and where p_t is one number the noise of different directions is
uncorrelated. It is post-processing of opened counts: nothing here costs epsilon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prism_privacy import _validate
from prism_privacy.errors import InvalidParameter
from prism_privacy.masks.fixed_point import SCALE
from prism_privacy.measured.public_round import MeasuredRound


@dataclass(frozen=True, eq=False)
class MeasuredMean:
    """The mean answer that one opened round shows, in units of the responses.

    Attributes:
        value: v, float64 (k,): an estimate of the mean of the clients' answers.
        variance: of the noise on each direction, at p = p_t: clients move p by little, and where p_t is 1/2
            this is the most that it can be.
    """

    value: NDArray[np.float64]
    variance: float


def measured_mean(asked: MeasuredRound, counts: ArrayLike, survivors: int) -> MeasuredMean:
    """Estimate the mean answer of a round's survivors from their opened counts.

    Args:
        asked: the round.
        counts: shape (m,), integers in [0, survivors], on the embedding's coordinates.
        survivors: n, how many clients the sum holds; never the cohort that epsilon assumes.

    Raises:
        InvalidParameter: counts that do not fit.
    """
    n = _validate.count("survivors", survivors)
    totals: NDArray[Any] = np.asarray(counts)
    size = asked.embedding.size
    if totals.dtype.kind not in "iu" or totals.shape != (size,):
        raise InvalidParameter(
            f"counts must be integers of the shape ({size},), got {totals.dtype} {totals.shape}"
        )
    if int(totals.min()) < 0 or int(totals.max()) > n:
        raise InvalidParameter(
            f"counts must lie in [0, {n}] (survivors), got [{int(totals.min())}, {int(totals.max())}]"
        )
    p = asked.public / SCALE
    back = asked.release.client_clip / asked.release.clip
    value = asked.embedding.project(totals / n - p) * back
    return MeasuredMean(value, float(np.mean(p * (1.0 - p))) * back * back / n)


def noise_covariance(asked: MeasuredRound, survivors: int) -> NDArray[np.float64]:
    """The covariance of the noise at p = p_t, float64 (k, k): worth computing where p_t is not one number.

    Its diagonal is :attr:`MeasuredMean.variance`. Takes 2 k^2 m operations.
    """
    n = _validate.count("survivors", survivors)
    p = asked.public / SCALE
    back = asked.release.client_clip / asked.release.clip
    spread = asked.embedding.project(asked.embedding.signs * (p * (1.0 - p)))
    return np.asarray(spread * (back * back / (n * np.sqrt(asked.embedding.size))), dtype=np.float64)
