"""What a round asks: public directions in moment space, and the reference the clients measure against.

A record (phi, y) answers with V[y]^T (phi - m[y]). V and m come from the server, which nobody trusts, so a
client checks their shapes and their range before it looks at its data: an overflow that depends on data would
tell of them. Within the range every product is exact (:mod:`prism_privacy.measured.integers`). Nothing else
is asked of V: the guarantees hold for every V, orthonormal or not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prism_privacy import _validate
from prism_privacy.errors import InvalidParameter
from prism_privacy.measured.integers import (
    DIRECTION_BITS,
    EXACT,
    FEATURE_BITS,
    MOST_DIRECTIONS,
    feature_limit,
    integers,
    largest,
)


@dataclass(frozen=True, eq=False)
class Directions:
    """The directions V and the reference m of one round, as integers; read-only.

    Attributes:
        weights: V, int64, shape (K, D, k): K classes, D features, k directions; units of 2^-20.
        reference: m, int64, shape (K, D), units of 2^-20.
        limit: features lie within [-limit, limit], units of 2^-20.

    Raises:
        InvalidParameter: not integers, shapes that do not fit, more than 1,024 directions, or
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
        _validate.count("limit", self.limit)
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

    @property
    def real_weights(self) -> NDArray[np.float64]:
        """V as clients use it, float64, shape (K, D, k): what the server must compute with."""
        return self.weights.astype(np.float64) * 2.0**-DIRECTION_BITS

    @property
    def real_reference(self) -> NDArray[np.float64]:
        """m as clients use it, float64, shape (K, D)."""
        return self.reference.astype(np.float64) * 2.0**-FEATURE_BITS

    def encode(self) -> list[bytes]:
        """Shapes, limit, V and m in one canonical form, for a digest."""
        shape = np.array([*self.weights.shape, self.limit], dtype="<i8")
        return [array.astype("<i8").tobytes() for array in (shape, self.weights, self.reference)]


def _rounded(name: str, values: ArrayLike, bits: int) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.dtype.kind != "f":
        raise InvalidParameter(f"{name} must hold floats, got dtype {array.dtype}")
    wide = array.astype(np.float64)
    if not (np.abs(wide) <= 1 << 20).all():
        raise InvalidParameter(f"{name} must be finite and at most 2^20 in size")
    return np.rint(wide * 2.0**bits).astype(np.int64)
