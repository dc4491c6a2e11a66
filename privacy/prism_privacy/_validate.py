"""Checks of arguments: each returns the value in its canonical type or raises `InvalidParameter`."""

from __future__ import annotations

import math
import operator
from enum import Enum
from typing import SupportsFloat, SupportsIndex, TypeVar

from prism_privacy.errors import InvalidParameter
from prism_privacy.units import Adjacency, View

MOST_COUNT = 10**100
"""The largest count: products of a few of them are still finite floats."""

_REAL, _WHOLE = (float, int, SupportsFloat, SupportsIndex), (int, SupportsIndex)
"""The usual types first: whether another one follows a protocol takes 14 µs to find out, at each release."""

_E = TypeVar("_E", bound=Enum)


def real(name: str, value: object) -> float:
    """A float that is not NaN; strings and booleans are refused."""
    if isinstance(value, (bool, str, bytes)) or not isinstance(value, _REAL):
        raise InvalidParameter(f"{name} must be a number, got {value!r}")
    number = float(value)
    if math.isnan(number):
        raise InvalidParameter(f"{name} must be a number, got NaN")
    return number


def positive(name: str, value: object) -> float:
    """A finite float > 0."""
    number = real(name, value)
    if not 0.0 < number < math.inf:
        raise InvalidParameter(f"{name} must be finite and > 0, got {value!r}")
    return number


def flip(value: object) -> float:
    """A flip probability: 0 (no protection at all) ≤ f < 1/2."""
    number = real("flip", value)
    if not 0.0 <= number < 0.5:
        raise InvalidParameter(f"flip must be in [0, 0.5), got {value!r}")
    return number


def delta(value: object) -> float:
    """A δ: 0 < δ < 1."""
    number = real("delta", value)
    if not 0.0 < number < 1.0:
        raise InvalidParameter(f"delta must be in (0, 1), got {value!r}")
    return number


def probability(name: str, value: object) -> float:
    """A float in [0, 1]."""
    number = real(name, value)
    if not 0.0 <= number <= 1.0:
        raise InvalidParameter(f"{name} must be in [0, 1], got {value!r}")
    return number


def order(value: object) -> float:
    """A Rényi order: finite and > 1."""
    number = real("order", value)
    if not 1.0 < number < math.inf:
        raise InvalidParameter(f"a Rényi order must be finite and > 1, got {value!r}")
    return number


def count(name: str, value: object, *, least: int = 1) -> int:
    """An integer from `least` to `MOST_COUNT`; floats are refused even when they are whole."""
    if isinstance(value, bool) or not isinstance(value, _WHOLE):
        raise InvalidParameter(f"{name} must be an integer ≥ {least}, got {value!r}")
    number = operator.index(value)
    if number < least:
        raise InvalidParameter(f"{name} must be an integer ≥ {least}, got {number}")
    if number > MOST_COUNT:
        raise InvalidParameter(f"{name} must be an integer ≤ 10^100, got one of {number.bit_length()} bits")
    return number


def member(name: str, kind: type[_E], value: object) -> _E:
    """A member of an enum, given as itself or as its word."""
    try:
        return kind(value)
    except ValueError:
        words = ", ".join(repr(item.value) for item in kind)
        raise InvalidParameter(f"{name} must be one of {words}, got {value!r}") from None


def view_and_adjacency(view: object, adjacency: object) -> tuple[View, Adjacency]:
    """A view and an adjacency, each given as itself or as its word."""
    return member("view", View, view), member("adjacency", Adjacency, adjacency)
