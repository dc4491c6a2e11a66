"""Exact counts of clients at the two edges of the box: Bin(a, f) + Bin(b, 1−f), in floating point.

No transform is used anywhere: every number is a sum of products of positive numbers, so each probability has
a small *relative* error, in the tails as well (an FFT has a small absolute one, and tails are what matters).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["NEGLIGIBLE", "TAIL", "edge_counts"]

NEGLIGIBLE = 1e-290
"""Probabilities below this are cut off; everything kept is a normal double."""

TAIL = 1e-280
"""More than all the mass that one call of `edge_counts` cuts off, for up to 10^6 clients.

A binomial is unimodal, so each omitted term is below NEGLIGIBLE; there are at most 10^6 of them in each of
the two factors and as many in the product, and the products that underflow add at most 10^12 · 1e-308.
"""


def _binomial(trials: int, success: float) -> tuple[int, NDArray[np.float64]]:
    """The pmf of Bin(trials, success) from the mode outwards: (first count, probabilities).

    Neighbouring probabilities have the ratio (n−k)/(k+1)·s/(1−s); each step adds at most four roundings, so
    the relative error is at most 4·2⁻⁵³ times the distance from the mode, and normalising adds one sum.
    """
    if trials == 0:
        return 0, np.ones(1)
    odds = success / (1.0 - success)
    mode = min(int((trials + 1) * success), trials)
    up = np.arange(mode, trials, dtype=np.float64)
    down = np.arange(mode, 0, -1, dtype=np.float64)
    with np.errstate(under="ignore"):
        above = np.cumprod((trials - up) / (up + 1.0) * odds)
        below = np.cumprod(down / ((trials - down + 1.0) * odds))
    above = above[above > NEGLIGIBLE]
    below = below[below > NEGLIGIBLE]
    relative = np.concatenate((below[::-1], np.ones(1), above))
    return mode - below.size, relative / relative.sum()


def edge_counts(at_low: int, at_high: int, flip: float) -> NDArray[np.float64]:
    """The pmf of Bin(at_low, f) + Bin(at_high, 1−f), shape (K,), cut where it falls below NEGLIGIBLE.

    Only the shape matters to a divergence, so the first count is not returned. The values sum to one. They
    are those of the law less a part of it whose mass is below TAIL: what was cut off at both ends, and what
    the cut factors would have added to the last values.

    The relative error of each value of the kept part is at most 2⁻⁵³·(8K + 64): two binomials, each within
    4·2⁻⁵³ a step, and a sum of at most K positive products. (The binomials' windows are no longer than the
    product's.)
    """
    _, low = _binomial(at_low, flip)
    _, high = _binomial(at_high, flip)
    # Bin(b, 1−f) is Bin(b, f) read backwards: 1−f is never formed.
    counts = np.convolve(low, high[::-1])
    kept = np.flatnonzero(counts > NEGLIGIBLE)
    counts = counts[kept[0] : kept[-1] + 1]
    return np.asarray(counts / counts.sum(), dtype=np.float64)
