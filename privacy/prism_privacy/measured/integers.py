"""Exact integers between a client's features and its answer.

A client of floats is broken by a server that aims. Whoever knows the other records can choose directions in
which their residuals cancel, and make them huge: what is then left of the other records is the rounding of a
float product, it depends on the row's place in the batch, and the clip turns it into moves of full length
(46 times the bound in float32). So nothing is rounded together with anything of another record:

    features     by themselves, number by number, to units of 2^-20 (:func:`quantise_features`)
    products     of public integers with them, D max|phi - m| max|V| <= 2^53: every partial sum is an integer
                 that binary64 holds, so a matrix product is exact in any order, on any number of threads
    rows         of a basis (:class:`RowDirections`): that product goes toward zero to 2^-30, times its
                 class's integer it is at most 2^62 in int64, and it goes toward zero again
    norms        from sums of integers, which no order changes (:func:`squared_norms`)
    scaling      number by number and toward zero (:func:`clip_rows`)

What one record becomes is therefore a function of that record and of public values, bit for bit, whatever
stands beside it.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prism_privacy import _validate
from prism_privacy.errors import InvalidParameter

FEATURE_BITS: Final = 20
"""Features and the reference are integers in units of 2^-20."""
DIRECTION_BITS: Final = 20
"""So are directions."""
RESPONSE_BITS: Final = 30
"""Responses V^T (phi - m) are integers in units of 2^-30 before the record clip, of c 2^-30 after it."""
ANSWER_BITS: Final = 40
"""Answers are integers in units of A 2^-40."""

EXACT: Final = 1 << 53
"""Integers up to here are exact in binary64."""
MOST_DIRECTIONS: Final = 1 << 12

_LIMB: Final = 26
_LARGEST: Final = 1 << (2 * _LIMB)
_BLOCK: Final = 1 << 20
"""Features that are widened to binary64 at a time."""
_CELLS: Final = 1 << 16
"""Numbers that are clipped at a time: what is made of them stays in a processor's cache."""
_COLUMNS: Final = 1 << 10
"""Products of at most 2^52 that an int64 can hold the sum of."""
_HALF: Final = 32


def quantise_features(features: ArrayLike, limit: float = 1.0) -> NDArray[np.int32]:
    """Features in units of 2^-20, each number by itself, within a public range.

    No value raises, because an error that depends on data would tell of them: what is out of range goes to
    its edge, NaN to 0. Compute features in batches of one fixed shape: a network's own floats change with the
    size of the batch (by 1e-7), which is more than this rounding can hide.

    Args:
        features: shape (N, D) or any other, floats of any width.
        limit: the public range is [-limit, limit]; > 0 and at most 1024.

    Returns:
        The nearest integers (ties to even), int32, same shape.

    Raises:
        InvalidParameter: not an array of floats, or a limit out of range.

    >>> quantise_features(np.array([0.5, 3.0, -np.inf, np.nan])).tolist()
    [524288, 1048576, -1048576, 0]
    """
    edge = feature_limit(limit)
    array: NDArray[Any] = np.asarray(features)
    if array.dtype.kind != "f":
        raise InvalidParameter(f"features must hold floats of any width, got dtype {array.dtype}")
    flat = array.reshape(-1)
    units = np.empty(flat.shape, dtype=np.int32)
    for start in range(0, flat.size, _BLOCK):
        with np.errstate(all="ignore"):  # a NaN that signals would warn
            block = flat[start : start + _BLOCK].astype(np.float64)
            block = np.rint(np.clip(block, -limit, limit) * (1 << FEATURE_BITS))
        # A limit between two units rounds inwards, as the directions' range check counts on it.
        units[start : start + _BLOCK] = np.clip(np.nan_to_num(block, nan=0.0), -edge, edge)
    return units.reshape(array.shape)


def feature_limit(limit: float) -> int:
    """A public range of features in units of 2^-20, rounded down."""
    number = _validate.positive("limit", limit)
    if not 2.0**-FEATURE_BITS <= number <= 1024.0:
        raise InvalidParameter(f"limit must lie in [2^-{FEATURE_BITS}, 1024], got {limit!r}")
    return int(number * (1 << FEATURE_BITS))


def toward_zero(units: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """``units`` / 2^bits, rounded toward zero; exact integers, number by number."""
    return np.asarray(np.sign(units) * (np.abs(units) >> bits), dtype=np.int64)


def squared_norms(rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """||x||^2 of each row, shape (n,), for |x| <= 2^52 and at most 4,096 columns; relative error below 2^-50.

    |x| = 2^26 a + b, and the sums of a^2, ab and b^2 are exact integers, so the order in which they are taken
    changes nothing. Three of them are rounded, and two additions of numbers >= 0.
    """
    size = np.abs(rows)
    high, low = size >> _LIMB, size & ((1 << _LIMB) - 1)
    a, ab, b = (_row_sums(x * y) for x, y in ((high, high), (high, low), (low, low)))
    return np.asarray(a * 2.0 ** (2 * _LIMB) + ab * 2.0 ** (_LIMB + 1) + b, dtype=np.float64)


def _row_sums(products: NDArray[np.int64]) -> NDArray[np.float64]:
    """The sum of each row of integers from 0 to 2^52, up to 4,096 of them: exact, then rounded once.

    1,024 of them add up to at most 2^62. Of such sums the upper and the lower 32 bits are added apart, to
    less than 2^34 each; both are exact in binary64, and so is the one times 2^32.
    """
    parts = np.add.reduceat(products, np.arange(0, products.shape[1], _COLUMNS), axis=1)
    upper, lower = (parts >> _HALF).sum(axis=1), (parts & ((1 << _HALF) - 1)).sum(axis=1)
    return np.asarray(upper.astype(np.float64) * 2.0**_HALF + lower, dtype=np.float64)


def clip_rows(rows: NDArray[np.int64], gain: float, bits: int) -> NDArray[np.int64]:
    """gain x of each row x, put into the ball of radius 2^bits, number by number toward zero.

    The projection on a ball is 1-Lipschitz; what is computed is within 2^(bits - 48) of it before it is
    rounded (two roundings of the factor, half of the norm's 2^-50, one of the product). Entries beyond 2^52
    are put to +-2^52 first, which is 1-Lipschitz too.

    Args:
        rows: shape (n, k), k <= 4,096.
        gain: > 0.
        bits: at most 52.
    """
    clipped = np.empty(rows.shape, dtype=np.int64)
    step = max(1, _CELLS // rows.shape[1])
    for start in range(0, len(rows), step):
        inside = np.clip(rows[start : start + step], -_LARGEST, _LARGEST)
        norms = np.sqrt(squared_norms(inside))
        with np.errstate(divide="ignore"):
            factor = np.minimum(gain, 2.0**bits / norms)
        clipped[start : start + step] = inside * factor[:, None]  # toward zero
    return clipped


def sums_by(rows: NDArray[np.int64], groups: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Sums of the rows of each group 0, ..., count - 1, shape (count, k); zeros where a group has no row."""
    sums = np.zeros((count, rows.shape[1]), dtype=np.int64)
    if groups.size:
        order = np.argsort(groups, kind="stable")
        present, starts = np.unique(groups[order], return_index=True)
        sums[present] = np.add.reduceat(rows[order], starts, axis=0)
    return sums


def integers(name: str, values: ArrayLike, shape: tuple[int | None, ...]) -> NDArray[np.int64]:
    """A read-only copy of ``values`` as int64 of that shape (None: any length).

    Raises:
        InvalidParameter: another shape or dtype, or values that int64 does not hold.
    """
    array: NDArray[Any] = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise InvalidParameter(f"{name} must hold integers, got dtype {array.dtype}")
    if array.ndim != len(shape) or any(
        want is not None and got != want for got, want in zip(array.shape, shape, strict=True)
    ):
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise InvalidParameter(f"{name} must have the shape ({wanted}), got {array.shape}")
    if array.size and int(array.max()) >= 1 << 63:
        raise InvalidParameter(f"{name} must fit 64-bit integers")
    copy = np.array(array, dtype=np.int64, order="C")
    copy.flags.writeable = False
    return copy


def record_numbers(name: str, values: ArrayLike, count: int) -> NDArray[np.int64]:
    """One number for each record, int64 (count,), each from that record's own value and no other.

    An array's dtype is public, and must be one of integers. A list has none: what NumPy would find for it
    depends on all its items. So they are taken one by one, and none raises. What is not a whole number of 64
    bits becomes -1; numbers from 2^63 on become negative ones, each its own.

    Raises:
        InvalidParameter: another length, or an array of another dtype.

    >>> record_numbers("labels", [1, 2**63, float("nan"), None, 2.0], 5).tolist()
    [1, -9223372036854775808, -1, -1, 2]
    """
    if isinstance(values, (list, tuple)):
        array: NDArray[Any] = np.array([_whole(value) for value in values], dtype=np.int64)
    else:
        array = np.asarray(values)
    if array.dtype.kind not in "iu" or array.shape != (count,):
        raise InvalidParameter(
            f"{name} must be integers of the shape ({count},), got {array.dtype} {array.shape}"
        )
    return array.astype(np.int64)  # uint64 modulo 2^64


def _whole(value: object) -> int:
    if isinstance(value, (float, np.floating)):
        number = int(value) if math.isfinite(value) and value == math.floor(value) else -1
    else:
        number = int(value) if isinstance(value, (int, np.integer)) else -1
    if not -(1 << 63) <= number < 1 << 64:
        return -1
    return number if number < 1 << 63 else number - (1 << 64)


def largest(values: NDArray[np.int64]) -> int:
    """max |x| as an exact integer (``np.abs`` of -2^63 is negative); 0 of an empty array."""
    return max(-int(values.min()), int(values.max())) if values.size else 0
