"""Randomized response on mask bits: what a client's probability becomes before its bit is drawn.

A client whose mask says 1 with probability v sends a 1 with probability f + (1 - 2f) v: the bit is
drawn and then flipped with probability f, in one draw (Warner, "Randomized Response", 1965).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prism_privacy import _validate
from prism_privacy.errors import InvalidParameter
from prism_privacy.masks import fixed_point
from prism_privacy.masks.fixed_point import SCALE, as_float64, check_range


@dataclass(frozen=True)
class RandomizedResponse:
    """Randomized response with flip probability ``flip``, 0 <= flip < 1/2.

    With flip = 0 the bits carry no noise of their own and no finite epsilon comes from this step.

    >>> RandomizedResponse(0.25).box
    (4194304, 12582912)
    >>> RandomizedResponse(0.25).probabilities([0.0, 0.5, 1.0])
    array([0.25, 0.5 , 0.75])

    Raises:
        InvalidParameter: flip outside [0, 1/2).
    """

    flip: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "flip", _validate.flip(self.flip))

    @property
    def box(self) -> tuple[int, int]:
        """Edges (lo, hi) of the probabilities a bit may have, in units of 2^-24, inside [f, 1 - f]."""
        return fixed_point.box(self.flip)

    def probabilities(self, values: ArrayLike) -> NDArray[np.float64]:
        """p = f + (1 - 2f) v for mask probabilities ``values`` in [0, 1]; float64, same shape.

        Raises:
            InvalidParameter: values that are not floats, not finite, or outside [0, 1].
        """
        wide = as_float64(values, "values")
        check_range(wide, 0.0, 1.0, "values")
        return self.flip + (1.0 - 2.0 * self.flip) * wide

    def public_point(self, theta: ArrayLike) -> NDArray[np.uint32]:
        """p_t = f + (1 - 2f) theta_t in units of 2^-24: nearest integer, then into the box.

        Every party that knows theta_t and f computes the same integers; uint32, same shape.
        """
        lo, hi = self.box
        nearest = np.rint(self.probabilities(theta) * SCALE)
        return np.clip(nearest, lo, hi).astype(np.uint32)

    def debias(self, counts: ArrayLike, survivors: int, *, clip: bool = False) -> NDArray[np.float64]:
        """:func:`debias` with this flip."""
        return debias(counts, survivors, self.flip, clip=clip)


def debias(counts: ArrayLike, survivors: int, flip: float, *, clip: bool = False) -> NDArray[np.float64]:
    """The mean of the clients' probabilities, estimated from the opened counts.

    (counts / survivors - f) / (1 - 2f): unbiased, with variance mean(p (1 - p)) / (survivors (1 - 2f)^2),
    and for that very reason outside [0, 1] now and then. Divide by the clients that really are in the sum,
    never by the cohort that epsilon assumes.

    Args:
        counts: integers in [0, survivors], any shape.
        survivors: how many clients the sum holds, >= 1.
        flip: the flip probability the bits were drawn with.
        clip: put the result into [0, 1]. **This biases it**: an estimate is pulled inwards wherever the
            true mean is near 0 or 1, by up to about 0.4 standard deviations at the very edge, and an
            average over rounds does not remove it. Leave it off where estimates are averaged later.

    Raises:
        InvalidParameter: counts that are not integers in [0, survivors], survivors < 1, or flip.

    >>> debias([1, 2, 3], survivors=4, flip=0.25)
    array([0. , 0.5, 1. ])
    >>> debias([0, 4], survivors=4, flip=0.25)
    array([-0.5,  1.5])
    >>> debias([0, 4], survivors=4, flip=0.25, clip=True)
    array([0., 1.])
    """
    f = _validate.flip(flip)
    n = _validate.count("survivors", survivors)
    totals = np.asarray(counts)
    if totals.dtype.kind not in "iu":
        raise InvalidParameter(f"counts must be integers, got dtype {totals.dtype}")
    if totals.size and (int(totals.min()) < 0 or int(totals.max()) > n):
        raise InvalidParameter(
            f"counts must lie in [0, {n}] (survivors), got [{int(totals.min())}, {int(totals.max())}]"
        )
    estimate = (totals.astype(np.float64) / n - f) / (1.0 - 2.0 * f)
    return np.clip(estimate, 0.0, 1.0) if clip else estimate
