"""The one public rule that turns a probability into an integer.

Every probability that decides a released bit is an integer k that stands for k / 2^24, and the bit is
drawn as ``u < k`` with u uniform on {0, ..., 2^24 - 1}. What is drawn is then exactly what is
accounted for: no float comparison and no rounding of a random float stands between the two (for what
goes wrong otherwise see Mironov, "On Significance of the Least Significant Bits for Differential
Privacy", 2012).

The public values are quantised first, by a rule that every party can repeat bit for bit:

* the box edge rounds inwards, ``lo = ceil(f * 2^24)`` and ``hi = 2^24 - lo``, so the box [lo, hi] lies
  inside [f, 1 - f] and a bound that holds on [f, 1 - f] holds for the bits;
* the public point p_t = f + (1 - 2f) theta_t rounds to the nearest integer (ties to even) and is then
  put into the box.

Private values are rounded last, towards the public point (:mod:`prism_privacy.masks.clipping`).
All arithmetic is binary64, whatever float came in; scaling by 2^24 is exact in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prism_privacy import _validate
from prism_privacy.errors import InvalidParameter

BITS = 24
SCALE = 1 << BITS

PIECE = 1 << 15
"""Coordinates that are worked on at a time: a few arrays of so many in binary64 stay in a core's second-level
cache, and beside them the overhead of a call is nothing."""

_BLOCK = 1 << 14
"""Squares of at most 2^48 are summed 2^14 at a time: 2^62 < 2^63, so an int64 never overflows."""


def box(flip: float) -> tuple[int, int]:
    """The edges (lo, hi) of the probability box in units of 2^-24, rounded inwards.

    >>> box(0.25)
    (4194304, 12582912)
    >>> box(0.1)[0] / SCALE >= 0.1
    True
    """
    lo = math.ceil(_validate.flip(flip) * SCALE)
    return lo, SCALE - lo


def as_float64(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """``values`` in binary64, from any float dtype; NaN and infinities are refused.

    Torch tensors of any float dtype are widened by torch itself, as NumPy has no bfloat16.

    Raises:
        InvalidParameter: not a float array, or values that are not finite: the message gives how many
            and where the first one is.
    """
    tensor: Any = values
    array = _float_array(tensor.detach().cpu().double() if _is_float_tensor(values) else values, name)
    with np.errstate(over="ignore"):
        wide = array.astype(np.float64)
    finite = np.isfinite(wide)
    if not finite.all():
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        where = first[0] if len(first) == 1 else first
        raise InvalidParameter(
            f"{name} must be finite: {int(np.count_nonzero(~finite))} of {wide.size} values are NaN or "
            f"infinite, the first at index {where} ({wide[first]})"
        )
    return wide


@dataclass(frozen=True)
class Computed:
    """A float vector of ``size`` coordinates that is computed a piece at a time, alike however often.

    >>> as_float64(Computed(3, lambda piece: np.full(piece.stop - piece.start, 0.5)), "values")
    array([0.5, 0.5, 0.5])
    """

    size: int
    piece: Callable[[slice], NDArray[np.floating[Any]]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.concatenate([np.zeros(0), *map(self.piece, pieces(self.size))]).astype(dtype or np.float64)


class Widened:
    """``values`` in binary64 a piece at a time, for what must not cost eight bytes a coordinate more.

    Raises:
        InvalidParameter: not a float array. NaN and infinities are for who reads the pieces to refuse.
    """

    def __init__(self, values: ArrayLike, name: str) -> None:
        tensor: Any = values
        self._is_tensor = _is_float_tensor(values)
        if isinstance(values, Computed):
            self._piece: Callable[[slice], Any] = values.piece
            self.shape: tuple[int, ...] = (values.size,)
        else:
            whole: Any = tensor.detach() if self._is_tensor else _float_array(values, name)
            self._piece = whole.reshape(-1).__getitem__
            self.shape = tuple(whole.shape)
        self.size = math.prod(self.shape)

    def read(self, piece: slice, room: NDArray[np.float64]) -> NDArray[np.float64]:
        """The values of ``piece``, in ``room``, which is at least as long."""
        source = self._piece(piece)
        if self._is_tensor:
            source = source.cpu().double().numpy()
        wide = room[: source.size]
        with np.errstate(over="ignore"):
            np.copyto(wide, source, casting="unsafe")
        return wide


def pieces(size: int) -> list[slice]:
    """``PIECE`` coordinates each, the last as many as are left.

    >>> [piece.stop for piece in pieces(PIECE + 2)] == [PIECE, PIECE + 2]
    True
    """
    return [slice(start, min(start + PIECE, size)) for start in range(0, size, PIECE)]


def _float_array(values: ArrayLike, name: str) -> NDArray[Any]:
    array: NDArray[Any] = np.asarray(values)
    if array.dtype.kind != "f":
        raise InvalidParameter(f"{name} must hold floats of any width, got dtype {array.dtype}")
    return array


def rounded_like(edge: float, values: ArrayLike | Computed) -> float:
    """``edge`` rounded to the float dtype of ``values``: where a clamp in that dtype puts its values."""
    tensor: Any = values
    if isinstance(values, Computed):
        return edge  # already binary64
    if _is_float_tensor(values):
        return float(tensor.new_tensor(edge).double())
    return float(np.asarray(edge).astype(np.asarray(values).dtype))


def _is_float_tensor(values: Any) -> bool:
    return hasattr(values, "is_floating_point") and bool(values.is_floating_point())


def check_range(values: NDArray[np.float64], low: float, high: float, name: str) -> None:
    """Refuse values outside [low, high], naming how many and the first one's place."""
    outside = (values < low) | (values > high)
    if outside.any():
        first = tuple(int(i) for i in np.argwhere(outside)[0])
        where = first[0] if len(first) == 1 else first
        raise InvalidParameter(
            f"{name} must lie in [{low}, {high}]: {int(np.count_nonzero(outside))} of {values.size} values "
            f"do not, the first at index {where} ({values[first]})"
        )


def squared_limit(radius: float) -> int:
    """floor((radius * 2^24)^2), exactly: the largest sum of squared units within ``radius``."""
    return math.floor((Fraction(radius) * SCALE) ** 2)


def sum_of_squares(units: NDArray[np.int64]) -> int:
    """The exact sum of squares of integers of magnitude at most 2^24, of any length.

    >>> sum_of_squares(np.full(1 << 17, 1 << 24, dtype=np.int64)) == 1 << 65
    True
    """
    squares = np.square(units.reshape(-1))
    if squares.size == 0:
        return 0
    return sum(np.add.reduceat(squares, np.arange(0, squares.size, _BLOCK)).tolist())
