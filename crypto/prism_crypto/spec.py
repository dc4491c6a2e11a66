"""What is summed, and how the fields of such values are checked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import msgspec

from prism_crypto.errors import InputError
from prism_crypto.stage import Mode

__all__ = ["MAX_DIMENSION", "MAX_PARTS", "MAX_TOTAL", "CountSpec", "check_types", "coerce_mode"]

MAX_DIMENSION = 2**33 - 1
"""One AES-CTR stream of at most 2^36 bytes covers so many words of one digit each, and the sentinel."""

MAX_TOTAL = 2**63 - 1
"""The largest sum that a coordinate may reach: the opened counts are int64."""

MAX_PARTS = 256
"""An offer names the length and bound of each part."""


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
        parts: length and bound of consecutive parts of the vector, packed apart, so that a counter beside a
            million bits does not make each of them as wide as itself; see `of_parts`. Left out: one part.

    Raises:
        InputError: when a field is out of range, or the parts are not those of ``dimension`` and ``bound``.

    >>> CountSpec(1_000_000).largest_total(10)
    10
    """

    dimension: int
    bound: int = 1
    codec: str = "integers"
    # Unset and not empty, so that an offer without parts has the bytes that it has always had.
    parts: tuple[tuple[int, int], ...] | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        check_types(self, dimension=int, bound=int, codec=str)
        if not 1 <= self.dimension <= MAX_DIMENSION:
            raise InputError(f"dimension must be 1 to {MAX_DIMENSION}, not {self.dimension}")
        if not 1 <= self.bound <= MAX_TOTAL:
            raise InputError(f"bound must be 1 to {MAX_TOTAL}, not {self.bound}")
        if len(self.codec.encode()) > 64:
            raise InputError("codec is a name of at most 64 bytes")
        if self.parts is not msgspec.UNSET:
            self._check_parts(self.parts)

    def _check_parts(self, parts: tuple[tuple[int, int], ...]) -> None:
        if not isinstance(parts, tuple) or not 1 <= len(parts) <= MAX_PARTS:
            raise InputError(f"parts must be a tuple of 1 to {MAX_PARTS} pairs (length, bound)")
        for part in parts:
            CountSpec(*_pair(part))
        length, bound = sum(length for length, _ in parts), max(bound for _, bound in parts)
        if (length, bound) != (self.dimension, self.bound):
            raise InputError(
                f"the parts have {length} coordinates and a largest bound of {bound}, "
                f"the whole {self.dimension} and {self.bound}"
            )

    @classmethod
    def of_parts(cls, parts: Iterable[tuple[int, int]], codec: str = "integers") -> Self:
        """A vector of parts, each with its length and bound; neighbours of one bound become one part.

        Raises:
            InputError: there is none, too many are left, or one is out of range.

        >>> CountSpec.of_parts([(1000, 1), (200, 1), (1, 10_000)])
        CountSpec(dimension=1201, bound=10000, codec='integers', parts=((1200, 1), (1, 10000)))
        """
        merged: list[tuple[int, int]] = []
        for length, bound in map(_pair, parts):
            if merged and merged[-1][1] == bound:
                length += merged.pop()[0]
            merged.append((length, bound))
        if not merged:
            raise InputError(f"expected 1 to {MAX_PARTS} parts, not 0")
        dimension, largest = sum(length for length, _ in merged), max(bound for _, bound in merged)
        return cls(dimension, largest, codec, tuple(merged) if len(merged) > 1 else msgspec.UNSET)

    def largest_total(self, clients: int) -> int:
        """Largest sum M = clients · bound of one coordinate over ``clients`` *invited* clients.

        Raises:
            InputError: when it would reach 2^63.
        """
        total = clients * self.bound
        if total > MAX_TOTAL:
            raise InputError(f"{clients} clients of bound {self.bound} could sum to 2^63 or more")
        return total


def _pair(part: Any) -> tuple[int, int]:
    """Length and bound of a part.

    Raises:
        InputError: it is something else.
    """
    if isinstance(part, tuple | list) and len(part) == 2 and all(type(number) is int for number in part):
        return part[0], part[1]
    raise InputError(f"a part is (length, bound), two whole numbers, not {part!r}")
