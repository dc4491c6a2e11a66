"""What is summed, and how the fields of such values are checked."""

from __future__ import annotations

from typing import Any

import msgspec

from prism_crypto.errors import InputError
from prism_crypto.stage import Mode

__all__ = ["MAX_DIMENSION", "MAX_TOTAL", "CountSpec", "check_types", "coerce_mode"]

MAX_DIMENSION = 2**33 - 1
"""One AES-CTR stream of at most 2^36 bytes covers so many words of one digit each, and the sentinel."""

MAX_TOTAL = 2**63 - 1
"""The largest sum that a coordinate may reach: the opened counts are int64."""


def check_types(owner: msgspec.Struct, **fields: type) -> None:
    """Refuse fields of another type: msgspec checks types when it decodes, not when a struct is made.

    Raises:
        InputError: naming the field. A bool is no int here.
    """
    for name, kind in fields.items():
        value = getattr(owner, name)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise InputError(f"{name} must be {kind.__name__}, not {type(value).__name__}")


def coerce_mode(owner: msgspec.Struct) -> None:
    """Make the field ``mode`` a `Mode`, also where a caller wrote its name.

    Raises:
        InputError: there is no such mode.
    """
    mode: Any = getattr(owner, "mode", None)
    try:
        msgspec.structs.force_setattr(owner, "mode", Mode(mode))
    except ValueError:
        mode = None
    if mode is None:
        raise InputError(f"mode must be one of {', '.join(Mode)}")


class CountSpec(msgspec.Struct, frozen=True, kw_only=False):
    """The vectors that are summed: integers 0..bound in each of ``dimension`` coordinates.

    Args:
        dimension: number of coordinates d, 1 to 2^33 - 1.
        bound: the largest value that one client may put into one coordinate; 1 for bits.
        codec: how the application reads the integers; bound into the session's context, never interpreted.

    Raises:
        InputError: when a field is out of range.

    >>> CountSpec(1_000_000).largest_total(10)
    10
    """

    dimension: int
    bound: int = 1
    codec: str = "integers"

    def __post_init__(self) -> None:
        check_types(self, dimension=int, bound=int, codec=str)
        if not 1 <= self.dimension <= MAX_DIMENSION:
            raise InputError(f"dimension must be 1 to {MAX_DIMENSION}, not {self.dimension}")
        if not 1 <= self.bound <= MAX_TOTAL:
            raise InputError(f"bound must be 1 to {MAX_TOTAL}, not {self.bound}")
        if len(self.codec.encode()) > 64:
            raise InputError("codec is a name of at most 64 bytes")

    def largest_total(self, clients: int) -> int:
        """Largest sum M = clients · bound of one coordinate over ``clients`` *invited* clients.

        Raises:
            InputError: when it would reach 2^63.
        """
        total = clients * self.bound
        if total > MAX_TOTAL:
            raise InputError(f"{clients} clients of bound {self.bound} could sum to 2^63 or more")
        return total
