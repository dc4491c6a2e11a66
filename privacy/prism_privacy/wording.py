"""Epsilons in words, rounded up: what is read is never below what was computed."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Decimal

__all__ = [
    "CLIENT_UNIT",
    "RECORD_UNIT",
    "SUM_NOT_RUN_WORDS",
    "format_delta",
    "format_epsilon",
    "own_behaviour_words",
    "own_features_words",
    "record_unit",
]

CLIENT_UNIT = "everything one client contributes"
RECORD_UNIT = "one image of one client"
"""What an epsilon protects, in words."""
SUM_NOT_RUN_WORDS = "the secure sum was not run: epsilon(SUM) is what it would be with one"
"""Of a ledger whose header says so, in words."""


def own_behaviour_words(what: object) -> str:
    """Of a ledger whose header says that clients ran code of the run's own."""
    return (
        f"what clients answered comes from code of the run's own ({what}): clip and coins bound what left a "
        "client, and epsilon holds if what it kept for its next round follows from data and broadcasts alone"
    )


def own_features_words(what: object) -> str:
    """Of a ledger whose header says that images were seen through code of the run's own."""
    return (
        f"features of images come from code of the run's own ({what}): images went through it one at a time, "
        "and epsilon of one record holds if that code kept no memory of others"
    )


def record_unit(record: str = "image") -> str:
    """What a record-level epsilon protects, in words, where a record is an "image" or a "person".

    >>> record_unit("person"), record_unit() == RECORD_UNIT
    ('one person of one client', True)
    """
    return RECORD_UNIT.replace("image", record)


def format_epsilon(value: float) -> str:
    """Epsilon as it is, rounded up so that what is read is never below what was computed.

    >>> [format_epsilon(e) for e in (float("inf"), 105_432.1, 27.31, 6.7, 0.5, 0.01234, 0, 1e300)]
    ['inf', '105,433', '27.4', '6.70', '0.50', '0.0124', '0', '1.00e+300']
    """
    if math.isnan(value) or value < 0:
        raise ValueError(f"epsilon must be at least 0, got {value!r}")
    if math.isinf(value):
        return "inf"
    exact = Decimal(repr(float(value)))
    if exact == 0:
        return "0"
    if exact >= 10**12:
        return f"{_up(exact, exact.adjusted() - 2):.2e}"
    most = 2 if exact >= Decimal("0.1") else 2 - exact.adjusted()
    places = 0 if exact >= 100 else 1 if exact >= 10 else most
    return f"{_up(exact, -places):,f}"


def _up(value: Decimal, exponent: int) -> Decimal:
    """Rounded up to a multiple of 10^exponent."""
    return value.quantize(Decimal(1).scaleb(exponent), rounding=ROUND_CEILING)


def format_delta(value: float) -> str:
    """A delta without padding.

    >>> format_delta(1e-5), format_delta(0.001)
    ('1e-5', '0.001')
    """
    return f"{value:g}".replace("e-0", "e-")
