"""Using a clip fully: a client says a direction, at the length that everybody's clip allows.

In a large cohort a client's share of ε is spent whether its move reaches the clip or not, and the noise on
the sum is the same. So the move is made as long as the clip: what the sum of n clients then carries is n·C
times their agreement, against a noise of √(n·d·p(1−p)). The length depends on the client's data, which costs
nothing: the clip bounds what leaves, however it was chosen.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from prism_privacy.masks.fixed_point import Computed, pieces

Vector = NDArray[np.float64]

_LARGEST = 1e12
"""Scale of the move whose largest coordinate is 1: one that is so much shorter stays short of its end."""
_CLOSE = 1 + 2.0**-40
"""A scale that grows by less is taken."""
_MOST_PASSES = 60
"""Scales that are tried; the last one is short of the clip, too. Four to ten are usual."""


def fill_clip(values: Vector | Computed, theta: Vector, *, flip: float, clip: float) -> Computed:
    """Move from θ through `values`, and as far beyond or short of them as the clip allows.

    Coordinates that reach 0 or 1 stay there and the others go on, until ‖(1−2f)(θ' − θ)‖₂ = C, or until every
    coordinate that moves at all is at an end.

    Args:
        values: the client's mask probabilities (d,) in [0, 1] after its local steps; read a piece at a time.
        theta: the broadcast θ_t (d,).
        flip: f of the randomized response.
        clip: C, on bit probabilities.

    Returns:
        θ' (d,) in [0, 1]; θ itself where `values` are θ.

    >>> np.asarray(fill_clip(np.array([0.51, 0.5]), np.array([0.5, 0.5]), flip=0.25, clip=0.125)).tolist()
    [0.75, 0.5]
    >>> np.asarray(fill_clip(np.array([0.51, 0.51]), np.array([0.5, 0.9]), flip=0.0, clip=9.0)).tolist()
    [1.0, 0.0]
    """
    read, parts = values.piece if isinstance(values, Computed) else values.__getitem__, pieces(theta.size)
    largest = max((float(np.abs(read(part) - theta[part]).max()) for part in parts), default=0.0)
    if largest == 0.0:
        return Computed(theta.size, theta.__getitem__)

    def moved(part: slice, scale: float) -> tuple[Vector, Vector]:
        """The move in units of its largest coordinate, and where it ends."""
        move = (read(part) - theta[part]) / largest
        return move, np.clip(theta[part] + scale * move, 0.0, 1.0)

    # The squared norm, as a function of scale², is that of the moves on their way, times it, and that of the
    # moves at their ends. It is concave, so each step that counts on no further end is short of the clip.
    square, scale = (clip / (1 - 2 * flip)) * (clip / (1 - 2 * flip)), 0.0
    for _ in range(_MOST_PASSES):
        on_their_way, at_their_ends = [], []
        for part in parts:
            move, end = moved(part, scale)
            ended = ((end == 0.0) | (end == 1.0)) & (scale > 0.0)
            on_their_way.append(float(np.square(move[~ended]).sum()))
            at_their_ends.append(float(np.square((end - theta[part])[ended]).sum()))
        if not (rate := math.fsum(on_their_way)):
            break
        following = math.sqrt(max(square - math.fsum(at_their_ends), 0.0) / rate)
        if following <= scale * _CLOSE or scale == _LARGEST:
            break
        scale = min(following, _LARGEST)
    return Computed(theta.size, lambda part: moved(part, scale)[1])
