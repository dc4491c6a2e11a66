"""Exact counts of clients at the two edges of the box: Bin(a, f) + Bin(b, 1−f), in floating point.

No transform is used anywhere: every number is a sum of products of positive numbers, so each probability has
a small *relative* error, in the tails as well (an FFT has a small absolute one, and tails are what matters).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["NEGLIGIBLE", "TAIL", "edge_blocks", "edge_counts"]

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

    Bernstein's inequality puts what lies 500 + 40 standard deviations away below NEGLIGIBLE times the mode's
    (t²/2 ≥ 700·(σ² + t/3) holds for t ≥ 467 + 38σ), so no ratio is formed out there.
    """
    if trials == 0:
        return 0, np.ones(1)
    odds = success / (1.0 - success)
    mode = min(int((trials + 1) * success), trials)
    far = 500 + math.ceil(40.0 * math.sqrt(trials * success * (1.0 - success)))
    up = np.arange(mode, min(trials, mode + far), dtype=np.float64)
    down = np.arange(mode, max(0, mode - far), -1, dtype=np.float64)
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


def edge_blocks(
    at_low: int, at_high: int, flip: float, length: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The law of `edge_counts` on blocks of `length` neighbouring counts, without each count by itself.

    Returns, for blocks i = 0…N−1 of counts k_i ≤ k < k_i + length: their sums (N,), the probability of their
    first count (N,) and that of their last (N,). Sums of the blocks add up to one. What is left out, at both
    ends, has a mass below TAIL, as in `edge_counts`, and values have the same relative error.

    Counts k_i + r, for one r, are Σ_u Σ_s low[length·u + s]·high[length·(i−u) + r − s]: a matrix product
    over s and a sum along diagonals. That is 1/length of the work of all counts.
    """
    _, low = _binomial(at_low, flip)
    _, high = _binomial(at_high, flip)
    high = high[::-1]
    low = np.append(low, np.zeros(-low.size % length)).reshape(-1, length)
    behind = -high.size % length + length
    padded = np.concatenate((np.zeros(length), high, np.zeros(behind)))  # high[j] is padded[j + length]
    windows = np.lib.stride_tricks.sliding_window_view(padded, length)  # row j: high[j−length … j−1]
    rows = (high.size + behind) // length

    def products(shifted: NDArray[np.float64]) -> NDArray[np.float64]:
        """Σ_u Σ_s low[u, s]·shifted[i−u, s], shape (rows + U − 1,)."""
        total = np.zeros(rows + low.shape[0] - 1)
        shifted = np.ascontiguousarray(shifted)
        # Small products: for larger ones BLAS wakes threads, which on a busy machine wait for each other.
        step = max(1, 2**17 // shifted.size)
        for start in range(0, low.shape[0], step):
            for u, terms in enumerate(low[start : start + step] @ shifted.T, start):
                total[u : u + rows] += terms
        return total

    def at(r: int) -> NDArray[np.float64]:
        """The probabilities of the counts k_i + r, −1 ≤ r < length."""
        return products(windows[r + 1 :: length][:rows, ::-1])

    sums = windows.sum(axis=1)  # row j: Σ of high[j−length … j−1]
    whole = np.lib.stride_tricks.sliding_window_view(np.append(sums, 0.0), length)
    blocks = products(whole[1::length][:rows, ::-1])
    first, last = at(0), at(length - 1)
    # Values at both ends of every kept block are normal doubles.
    kept = np.flatnonzero((first > NEGLIGIBLE) & (last > NEGLIGIBLE))
    inside = slice(kept[0], kept[-1] + 1)
    whole_mass = blocks[inside].sum()
    return blocks[inside] / whole_mass, first[inside] / whole_mass, last[inside] / whole_mass
