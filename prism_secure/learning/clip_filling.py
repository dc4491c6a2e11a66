"""Using a clip fully: a client says a direction, at the length that everybody's clip allows.

In a large cohort a client's share of ε is spent whether its move reaches the clip or not, and the noise on
the sum is the same. So the move is made as long as the clip: what the sum of n clients then carries is n·C
times their agreement, against a noise of √(n·d·p(1−p)). The length depends on the client's data, which costs
nothing: the clip bounds what leaves, however it was chosen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

_HALVINGS = 40


def fill_clip(values: Vector, theta: Vector, *, flip: float, clip: float) -> Vector:
    """Move from θ through `values`, and as far beyond or short of them as the clip allows.

    Coordinates that reach 0 or 1 stay there and the others go on, until ‖(1−2f)(θ' − θ)‖₂ = C, or until every
    coordinate that moves at all is at an end.

    Args:
        values: the client's mask probabilities (d,) in [0, 1] after its local steps.
        theta: the broadcast θ_t (d,).
        flip: f of the randomized response.
        clip: C, on bit probabilities.

    Returns:
        θ' (d,) in [0, 1]; θ itself where `values` are θ.

    >>> fill_clip(np.array([0.51, 0.5]), np.array([0.5, 0.5]), flip=0.25, clip=0.125).round(9).tolist()
    [0.75, 0.5]
    >>> fill_clip(np.array([0.51, 0.51]), np.array([0.5, 0.9]), flip=0.0, clip=9.0).tolist()
    [1.0, 0.0]
    """
    move = values - theta
    largest = float(np.abs(move).max(initial=0.0))
    if largest == 0.0:
        return theta.copy()
    move /= largest
    radius = clip / (1 - 2 * flip)

    def moved(scale: float) -> Vector:
        end: Vector = np.clip(theta + scale * move, 0.0, 1.0)
        return end

    # The norm grows with the scale, up to the corner of the box that all coordinates head for.
    low, high = 0.0, 1.0
    while np.linalg.norm(moved(high) - theta) < radius and high < 1e12:
        low, high = high, 4 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if np.linalg.norm(moved(middle) - theta) < radius:
            low = middle
        else:
            high = middle
    return moved(high)
