"""How k numbers become moves of m probabilities: k orthonormal columns E from a seed.

    E = diag(s) H[:, columns] / sqrt(m),        H the Hadamard matrix of order m = 2^b, entries +-1

s are m signs and ``columns`` k different numbers below m. As H^T H = m I and s_i^2 = 1, E^T E = I: the
largest singular value is 1 *by construction*, not by measurement. It matters: the record-level radius is
proportional to it, and nothing else stands behind (the ball of radius C protects clients, not records). So m
must be a power of two. The m coordinates are a public random part of the mask's d.

Everything comes from the seed through SHAKE-256, the same on every machine. sqrt(m) E has entries +-1, so for
integer answers its product is exact too.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prism_privacy import _validate
from prism_privacy.errors import InvalidParameter
from prism_privacy.measured.integers import MOST_DIRECTIONS

SEED_BYTES: Final = 32
MOST_COORDINATES: Final = 1 << 20

_HEADER: Final = b"prism-privacy/v1/measured/embedding/"
_BLOCK: Final = 1 << 13
"""Columns of the sign matrix that are widened to binary64 at a time."""


@dataclass(frozen=True)
class HadamardEmbedding:
    """k signed Hadamard columns over m of d mask coordinates.

    Attributes:
        seed: 32 public bytes, fresh each round.
        dimension: d, the number of mask bits.
        size: m, how many of them carry the answer: a power of two, at most d and 2^20.
        directions: k, at most m and 4,096.

    Raises:
        InvalidParameter: a value out of range, or a size that is not a power of two.

    >>> embedding = HadamardEmbedding(bytes(32), dimension=10, size=8, directions=2)
    >>> moved = embedding.embed(np.array([[3, 4]]))
    >>> int((moved**2).sum()) == 8 * (3**2 + 4**2)
    True
    >>> np.allclose(embedding.project(moved / 8**0.5), [3, 4])
    True
    """

    seed: bytes
    dimension: int
    size: int
    directions: int

    def __post_init__(self) -> None:
        if not isinstance(self.seed, bytes) or len(self.seed) != SEED_BYTES:
            raise InvalidParameter(f"seed must be {SEED_BYTES} bytes")
        for name in ("dimension", "size", "directions"):
            object.__setattr__(self, name, _validate.count(name, getattr(self, name)))
        if self.size & (self.size - 1) or self.size > min(self.dimension, MOST_COORDINATES):
            raise InvalidParameter(
                "size must be a power of two, at most the dimension and "
                f"{MOST_COORDINATES:,}: a Hadamard matrix of that order has a largest singular value of "
                f"exactly 1; got {self.size} of {self.dimension}"
            )
        if self.directions > min(self.size, MOST_DIRECTIONS):
            raise InvalidParameter(
                f"directions must be at most the size and {MOST_DIRECTIONS}, got {self.directions}"
            )

    def _keys(self, usage: bytes, count: int) -> NDArray[np.uint64]:
        stream = hashlib.shake_256(_HEADER + usage + b"\0" + self.seed).digest(8 * count)
        return np.frombuffer(stream, dtype="<u8").astype(np.uint64)

    @cached_property
    def coordinates(self) -> NDArray[np.int64]:
        """Which mask coordinates carry the answer, int64 (m,), ascending."""
        chosen = np.argsort(self._keys(b"coordinates", self.dimension), kind="stable")[: self.size]
        coordinates = np.sort(chosen).astype(np.int64)
        coordinates.flags.writeable = False
        return coordinates

    @cached_property
    def signs(self) -> NDArray[np.int8]:
        """sqrt(m) E^T, int8 (k, m): +-1."""
        columns = np.argsort(self._keys(b"columns", self.size), kind="stable")[: self.directions]
        # H[i, c] = (-1)^(number of ones in i & c), one bit of i after the other.
        rows = np.ones((self.directions, 1), dtype=np.int8)
        for bit in range(self.size.bit_length() - 1):
            flip = (1 - 2 * ((columns >> bit) & 1)).astype(np.int8)[:, None]
            rows = np.concatenate((rows, rows * flip), axis=1)
        diagonal = (1 - 2 * (self._keys(b"signs", self.size) & np.uint64(1)).astype(np.int8)).astype(np.int8)
        rows = rows * diagonal
        rows.flags.writeable = False
        return rows

    def embed(self, answers: NDArray[np.int64]) -> NDArray[np.int64]:
        """sqrt(m) E a for integer answers, int64 (n, k) to int64 (n, m), exactly.

        Sums of |a_j| must stay below 2^53, as they do for answers (k <= 2^12 numbers of at most 2^40).
        """
        wide = answers.astype(np.float64)
        moved = np.empty((len(answers), self.size), dtype=np.int64)
        for start in range(0, self.size, _BLOCK):
            moved[:, start : start + _BLOCK] = wide @ self.signs[:, start : start + _BLOCK].astype(np.float64)
        return moved

    def project(self, values: ArrayLike) -> NDArray[np.float64]:
        """E^T x for real x, shape (..., m) to (..., k): the server's side."""
        wide = np.asarray(values, dtype=np.float64)
        total = np.zeros((*wide.shape[:-1], self.directions))
        for start in range(0, self.size, _BLOCK):
            part = self.signs[:, start : start + _BLOCK].astype(np.float64)
            total = total + wide[..., start : start + _BLOCK] @ part.T
        return np.asarray(total / np.sqrt(self.size), dtype=np.float64)

    def encode(self) -> list[bytes]:
        """Seed, sizes and coordinates in one canonical form, for a digest."""
        sizes = np.array([self.dimension, self.size, self.directions], dtype="<i8")
        return [self.seed, sizes.tobytes(), self.coordinates.astype("<i8").tobytes()]
