"""Public rules: how long A and c are, how many steps the server makes, and how far.

Nothing here sees a client's value: the rules go by the round's number, and by what opened before.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from prism_secure.learning.measured.directions import AskedRows
from prism_secure.learning.measured.prior import Prior

Array = NDArray[np.float64]


def answer_clips(
    prior: Prior,
    variances: Array,
    asked: AskedRows,
    within: Array,
    *,
    records: int,
    margin: float,
    concentration: float | None = None,
) -> tuple[float, float]:
    """A and c: how long answers of a client and of an image should be.

    Root mean squares by the public model, times `margin`. An image lies around its class's mean with variance
    W = `within` (r,) along the basis's rows, and that mean around the posterior's with what is left of its
    variance, `variances` (K, r). For directions V in the basis, (k, K, r), which `asked` says:

        client   Σ_j  γ·mean_c V_cjᵀ P_cc V_cj + (1 − γ)·mean_{c≠d} V_cjᵀ P_cd V_dj
                      + (1/records)·mean_c V_cjᵀ W V_cj
        image    Σ_j  mean_c V_cjᵀ (P_cc + W) V_cj

    γ, `concentration`, is what is expected of the sum of squares of a client's class shares: 1/K if all hold
    all classes alike (the default), 1/records + (1 − 1/records)/K if images are dealt at random, ½ with two
    classes. It is public: one number for all clients.

    P is taken for diagonal in the basis's coordinates, and what the basis does not span is left out. The clip
    that falls with the rounds comes from here: what is known is no longer in the answers, because m_t is the
    posterior's mean.

    Returns:
        (A, c)
    """
    count = prior.classes
    squares = np.zeros((len(within), count))
    np.add.at(squares, asked.row_numbers, np.square(asked.by_class).T)
    squares = squares.T
    spread = float((squares * within).sum()) / count
    one_class = float((squares * (np.square(prior.class_axes).T @ variances)).sum()) / count
    along = np.square(prior.class_axes @ asked.by_class)
    all_alike = float((along * variances[:, asked.row_numbers]).sum()) / count**2
    gamma = 1 / count if concentration is None else concentration
    # all_alike = one_class/K + (1 − 1/K)·two_classes
    two_classes = (count * all_alike - one_class) / max(1, count - 1)
    signal = gamma * one_class + (1 - gamma) * two_classes
    return margin * math.sqrt(signal + spread / records), margin * math.sqrt(one_class + spread)


def rate(step: int, steps: int, *, start: float, end: float) -> float:
    """The learning rate of step 0, 1, ... of `steps`: half a cosine from `start` to `end`, where it stays.

    >>> [round(rate(step, 4, start=1.0, end=0.0), 3) for step in (0, 2, 4, 5)]
    [1.0, 0.5, 0.0, 0.0]
    """
    done = min(1.0, step / max(1, steps))
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))


def steps_after(answered: int, *, rounds: int, each: int, end: int) -> int:
    """How many steps the server makes after round 1, ..., `rounds`: `each`, and `end` more after the last.

    >>> [steps_after(t, rounds=3, each=50, end=400) for t in (1, 2, 3)]
    [50, 50, 450]
    """
    return each + (end if answered == rounds else 0)
