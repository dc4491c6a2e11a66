"""What a round asks: public directions in moment space, and the reference the clients measure against.

A record (phi, y) answers with V[y]^T (phi - m[y]), from V itself (`Directions`) or from a basis that it lies
along (`RowDirections`). V and m come from the server, which nobody trusts, so a
client checks their shapes and their range before it looks at its data: an overflow that depends on data would
tell of them. Within the range every product is exact (:mod:`prism_privacy.measured.integers`). Nothing else
is asked of V: the guarantees hold for every V, orthonormal or not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prism_privacy import _validate
from prism_privacy.errors import InvalidParameter
from prism_privacy.measured.integers import (
    DIRECTION_BITS,
    EXACT,
    FEATURE_BITS,
    MOST_DIRECTIONS,
    RESPONSE_BITS,
    feature_limit,
    integers,
    largest,
    toward_zero,
)

_SPARE = FEATURE_BITS + DIRECTION_BITS - RESPONSE_BITS


class Asked(Protocol):
    """What a round asks, in whatever form: :class:`Directions` or :class:`RowDirections`."""

    @property
    def classes(self) -> int:
        """K."""

    @property
    def features(self) -> int:
        """D."""

    @property
    def directions(self) -> int:
        """k."""

    @property
    def limit(self) -> int:
        """Features lie within [-limit, limit], units of 2^-20."""

    def responses(self, inside: NDArray[np.int64], label: int) -> NDArray[np.int64]:
        """What records of one class answer, int64 (N, k), units of 2^-30: row i from record i alone.

        Args:
            inside: features (N, D) within the limit, units of 2^-20.
            label: the class, 0 to K - 1.
        """

    def encode(self) -> list[bytes]:
        """All of it in one canonical form, for a digest."""


@dataclass(frozen=True, eq=False)
class Directions:
    """The directions V and the reference m of one round, as integers; read-only.

    Attributes:
        weights: V, int64, shape (K, D, k): K classes, D features, k directions; units of 2^-20.
        reference: m, int64, shape (K, D), units of 2^-20.
        limit: features lie within [-limit, limit], units of 2^-20.

    Raises:
        InvalidParameter: not integers, shapes that do not fit, more than 4,096 directions, or
            D (limit + max|m|) max|V| > 2^53, so that products would not be exact.

    >>> asked = Directions.of(np.eye(3)[None, :, :2], np.zeros((1, 3)))
    >>> asked.classes, asked.features, asked.directions
    (1, 3, 2)
    """

    weights: NDArray[np.int64]
    reference: NDArray[np.int64]
    limit: int = field(default=1 << FEATURE_BITS)

    def __post_init__(self) -> None:
        weights = integers("weights", self.weights, (None, None, None))
        classes, features, directions = weights.shape
        reference = integers("reference", self.reference, (classes, features))
        _checked_limit(self.limit)
        if not weights.size or directions > MOST_DIRECTIONS:
            raise InvalidParameter(
                f"weights must hold 1 to {MOST_DIRECTIONS} directions of at least one class and feature, "
                f"got the shape {weights.shape}"
            )
        most = features * (self.limit + largest(reference)) * largest(weights)
        if most > EXACT:
            raise InvalidParameter(
                "products would not be exact: D (limit + max|m|) max|V| must be at most 2^53, got "
                f"{features} x ({self.limit} + {largest(reference)}) x {largest(weights)}"
            )
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "reference", reference)

    @classmethod
    def of(cls, weights: ArrayLike, reference: ArrayLike, limit: float = 1.0) -> Directions:
        """From real V, shape (K, D, k), and m, shape (K, D), rounded to the nearest 2^-20.

        Raises:
            InvalidParameter: see :class:`Directions`; also values that are not finite or above 2^20.
        """
        return cls(
            _rounded("weights", weights, DIRECTION_BITS),
            _rounded("reference", reference, FEATURE_BITS),
            feature_limit(limit),
        )

    @property
    def classes(self) -> int:
        """K."""
        return int(self.weights.shape[0])

    @property
    def features(self) -> int:
        """D."""
        return int(self.weights.shape[1])

    @property
    def directions(self) -> int:
        """k."""
        return int(self.weights.shape[2])

    def responses(self, inside: NDArray[np.int64], label: int) -> NDArray[np.int64]:
        """See :class:`Asked`: one exact product, then toward zero."""
        exact = (inside - self.reference[label]).astype(np.float64) @ self.weights[label].astype(np.float64)
        return toward_zero(exact.astype(np.int64), _SPARE)

    def encode(self) -> list[bytes]:
        """Shapes, limit, V and m in one canonical form, for a digest."""
        shape = np.array([*self.weights.shape, self.limit], dtype="<i8")
        return [array.astype("<i8").tobytes() for array in (shape, self.weights, self.reference)]


@dataclass(frozen=True, eq=False)
class RowDirections:
    """Directions along rows of one basis: `V[y][:, j] = by_class[y, j] U[rows[j]]`, few numbers; read-only.

    Hundreds of rows of U and two numbers a direction and class in place of V: a hundredth of the memory. A
    record's product with each row is exact and goes toward zero to 2^-30, is multiplied by its class's
    integer, exactly, and goes toward zero to 2^-30 again: number by number, from one record alone.

    Attributes:
        basis: U, int64, shape (R, D), units of 2^-20.
        rows: int64, shape (k,), in [0, R).
        by_class: int64, shape (K, k), units of 2^-20.
        reference: m, int64, shape (K, D), units of 2^-20.
        limit: features lie within [-limit, limit], units of 2^-20.

    Raises:
        InvalidParameter: not integers, shapes that do not fit, more than 4,096 directions, a row that is not
            there, D (limit + max|m|) max|U| > 2^53, or that times max|by_class| > 2^72, so that products
            would not be exact.

    >>> asked = RowDirections.of(np.eye(3), [2, 0], [[1.0, -0.5]], np.zeros((1, 3)))
    >>> asked.responses(np.array([[1 << 20, 0, 1 << 19]]), 0) / 2**30
    array([[ 0.5, -0.5]])
    """

    basis: NDArray[np.int64]
    rows: NDArray[np.int64]
    by_class: NDArray[np.int64]
    reference: NDArray[np.int64]
    limit: int = field(default=1 << FEATURE_BITS)

    def __post_init__(self) -> None:
        basis = integers("basis", self.basis, (None, None))
        rows = integers("rows", self.rows, (None,))
        by_class = integers("by_class", self.by_class, (None, len(rows)))
        reference = integers("reference", self.reference, (len(by_class), basis.shape[1]))
        _checked_limit(self.limit)
        if not (basis.size and by_class.size) or len(rows) > MOST_DIRECTIONS:
            raise InvalidParameter(
                f"rows must name 1 to {MOST_DIRECTIONS} directions of at least one class and feature, got "
                f"{len(rows)} of a basis of the shape {basis.shape} and {len(by_class)} classes"
            )
        if int(rows.min()) < 0 or int(rows.max()) >= len(basis):
            raise InvalidParameter(f"rows must lie in [0, {len(basis)}), the rows of the basis")
        most = basis.shape[1] * (self.limit + largest(reference)) * largest(basis)
        if most > EXACT or most * largest(by_class) > EXACT << 19:
            raise InvalidParameter(
                "products would not be exact: D (limit + max|m|) max|U| must be at most 2^53, and that times "
                f"max|by_class| at most 2^72, got {basis.shape[1]} x ({self.limit} + {largest(reference)}) x "
                f"{largest(basis)} and x {largest(by_class)}"
            )
        for name, array in (("basis", basis), ("rows", rows), ("by_class", by_class)):
            object.__setattr__(self, name, array)
        object.__setattr__(self, "reference", reference)

    @classmethod
    def of(
        cls, basis: ArrayLike, rows: ArrayLike, by_class: ArrayLike, reference: ArrayLike, limit: float = 1.0
    ) -> RowDirections:
        """From a real basis (R, D), row numbers (k,), factors (K, k) and m (K, D), rounded to 2^-20.

        Raises:
            InvalidParameter: see :class:`RowDirections`; also values that are not finite or above 2^20.
        """
        return cls(
            _rounded("basis", basis, DIRECTION_BITS),
            np.asarray(rows),
            _rounded("by_class", by_class, DIRECTION_BITS),
            _rounded("reference", reference, FEATURE_BITS),
            feature_limit(limit),
        )

    @property
    def classes(self) -> int:
        """K."""
        return int(self.by_class.shape[0])

    @property
    def features(self) -> int:
        """D."""
        return int(self.basis.shape[1])

    @property
    def directions(self) -> int:
        """k."""
        return int(self.rows.shape[0])

    def responses(self, inside: NDArray[np.int64], label: int) -> NDArray[np.int64]:
        """See :class:`Asked`."""
        columns, place = self._columns
        exact = (inside - self.reference[label]).astype(np.float64) @ columns
        along = toward_zero(exact.astype(np.int64), _SPARE)[:, place]
        return toward_zero(along * self.by_class[label], DIRECTION_BITS)

    @cached_property
    def _columns(self) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """The rows that are asked along, each once, as columns (D, r), and which each direction takes."""
        used, place = np.unique(self.rows, return_inverse=True)
        return self.basis[used].T.astype(np.float64), place.reshape(-1)

    def encode(self) -> list[bytes]:
        """Shapes, limit, U, rows, factors and m in one canonical form, for a digest."""
        shape = np.array([*self.basis.shape, *self.by_class.shape, self.limit], dtype="<i8")
        arrays = (shape, self.basis, self.rows, self.by_class, self.reference)
        return [b"rows of a basis", *(array.astype("<i8").tobytes() for array in arrays)]


def _checked_limit(limit: int) -> None:
    if _validate.count("limit", limit) > 1 << 30:
        raise InvalidParameter(f"limit must be at most 2^30 units of 2^-20, got {limit}")


def _rounded(name: str, values: ArrayLike, bits: int) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.dtype.kind != "f":
        raise InvalidParameter(f"{name} must hold floats, got dtype {array.dtype}")
    wide = array.astype(np.float64)
    if not (np.abs(wide) <= 1 << 20).all():
        raise InvalidParameter(f"{name} must be finite and at most 2^20 in size")
    return np.rint(wide * 2.0**bits).astype(np.int64)
