"""Public rules by which the clips of measured rounds change; they follow from settings alone."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal

import numpy as np
from numpy.typing import NDArray

__all__ = ["clip_shares", "rounded_down"]

Array = NDArray[np.float64]


def clip_shares(rounds: int, *, first: float = 0.3, growth: float = 1.0) -> Array:
    """Clips C_t (rounds,) up to a common factor, the sum of their squares 1.

    ε goes by that sum. The first round only has to find where the moments are, so its clip is `first` of what
    the rule would give; each later one is `growth` times the one before it.

    Raises:
        ValueError: no rounds, or a factor that is not positive.

    >>> clip_shares(3, first=0.5).round(3).tolist()
    [0.333, 0.667, 0.667]
    """
    if rounds < 1 or not first > 0 or not growth > 0:
        raise ValueError(
            f"clips are shared out over 1 round or more by positive factors, got {rounds}, {first}, {growth}"
        )
    shares = growth ** np.arange(rounds, dtype=np.float64)
    if rounds > 1:
        shares[0] *= first
    found: Array = shares / np.sqrt(np.sum(shares**2))
    return found


def rounded_down(value: float, digits: int) -> float:
    """To so many significant digits and never up, so that epsilon does not grow.

    >>> rounded_down(0.72598, 4), rounded_down(49.9, 4), rounded_down(0.03199, 2), rounded_down(12.9, 2)
    (0.7259, 49.9, 0.031, 12.0)
    """
    exact = Decimal(repr(value))
    return float(exact.quantize(Decimal(1).scaleb(exact.adjusted() + 1 - digits), rounding=ROUND_FLOOR))
