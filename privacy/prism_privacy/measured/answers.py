"""From clipped responses to a client's answer, and from the answer to the probabilities of its bits.

    S = sum of r_i, exact;   a = S / N, clipped to ||a|| <= A;   p = p_t + (C/A) E a -> box -> ball around p_t

Thousands of clients are one call. Every step is a function of one client's integers alone: exact products and
sums, or number by number; so the bits of the result do not depend on who else is in the call.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from prism_privacy.masks.clipping import shrink_until_within
from prism_privacy.masks.fixed_point import box, squared_limit, sum_of_squares
from prism_privacy.measured.embedding import HadamardEmbedding
from prism_privacy.measured.integers import ANSWER_BITS, clip_rows, sums_by
from prism_privacy.measured.release import MeasuredRelease

_CELLS: Final = 1 << 21
"""Numbers of one block of clients: 16 MiB in binary64."""
_SQUARES: Final = 1 << 14
"""Squares of at most 2^48 that an int64 can hold the sum of."""


def client_answers(
    release: MeasuredRelease, clipped: NDArray[np.int64], owners: NDArray[np.int64], clients: int
) -> NDArray[np.int64]:
    """The answers of ``clients`` clients, int64 (clients, k), units of A 2^-40.

    Args:
        release: the clips and N.
        clipped: rows in units of c 2^-30.
        owners: whose row each is, 0, ..., clients - 1.
        clients: how many; one without rows answers 0.
    """
    return clip_rows(sums_by(clipped, owners, clients), release.answer_gain, ANSWER_BITS)


def answer_probabilities(
    release: MeasuredRelease,
    embedding: HadamardEmbedding,
    public: NDArray[np.int64],
    answers: NDArray[np.int64],
) -> NDArray[np.uint32]:
    """The probabilities of each client's bits in units of 2^-24, uint32 (clients, m).

    ||k - public||_2 <= C 2^24 holds in integers for each row.

    Args:
        release: f, C and A.
        embedding: E.
        public: p_t on the chosen coordinates, int64 (m,), in the box, units of 2^-24.
        answers: int64 (clients, k), units of A 2^-40.
    """
    lo, hi = box(release.flip)
    limit, gain = squared_limit(release.clip), release.move_gain
    found = np.empty((len(answers), embedding.size), dtype=np.uint32)
    rows = max(1, _CELLS // embedding.size)
    for start in range(0, len(answers), rows):
        target = embedding.embed(answers[start : start + rows]) * gain
        np.clip(target, lo - public, hi - public, out=target)
        steps = target.astype(np.int64)  # toward zero
        for row, total in enumerate(_sums_of_squares(steps)):
            if total > limit:
                steps[row] = _retreat(target[row], limit)
        found[start : start + rows] = public + steps
    return found


def _retreat(target: NDArray[np.float64], limit: int) -> NDArray[np.int64]:
    """A move that float rounding left a hair outside the ball, shortened by 2^-39 until its integers fit."""

    def steps(scale: float) -> NDArray[np.int64]:
        return (scale * target).astype(np.int64)

    def excess(tried: NDArray[np.int64]) -> float:
        return 0.0 if sum_of_squares(tried) <= limit else 1.0

    return shrink_until_within(steps, excess, 1.0)


def _sums_of_squares(steps: NDArray[np.int64]) -> list[int]:
    """The exact sum of squares of each row, for integers of at most 2^24 and rows of any length."""
    parts = np.add.reduceat(np.square(steps), np.arange(0, steps.shape[1], _SQUARES), axis=1)
    return [sum(row) for row in parts.tolist()]
