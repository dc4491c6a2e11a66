"""With what probabilities a measured round draws a client's bits: from the definition, by other code.

What is the same as in `prism_privacy.measured` is mathematics (docs/privacy.md); no line is. Products are
sums of integers here, everything after them is binary64, and nothing is rounded to units: so the two differ
by no more than the roundings that the theorem's slack counts.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prism_privacy import MeasuredRelease

Array = NDArray[np.float64]

_UNIT = 2.0**-20
"""Of features, of the reference and of directions."""


@dataclass(frozen=True, eq=False)
class Question:
    """What a round asks, as it is sent.

    Attributes:
        basis: U, int16 (R, D), in units of `unit`, float64 (1,).
        rows: uint16 (k,), which rows of it.
        by_class: float32 (K, k); V[c, :, j] is by_class[c, j] times row rows[j] of U.
        reference: m, float32 (K, D).
        embedding: 32 bytes, uint8: the seed of E.
    """

    basis: NDArray[np.int16]
    unit: Array
    rows: NDArray[np.uint16]
    by_class: NDArray[np.float32]
    reference: NDArray[np.float32]
    embedding: NDArray[np.uint8]

    @property
    def axes(self) -> Array:
        """U[rows] in real numbers, (k, D)."""
        found: Array = self.basis[self.rows].astype(np.float64) * self.unit
        return found

    def responses(self, features: NDArray[np.float32], labels: NDArray[np.int64]) -> Array:
        """V[y]' (phi - m[y]) of each record, (N, k)."""
        phi = _units(np.clip(features.astype(np.float64), -1, 1))
        reference, factors, axes = _units(self.reference), _units(self.by_class), _units(self.axes)
        along = (phi - reference[labels]) @ axes.T  # int64: exact
        found: Array = (along * _UNIT**2) * (factors[labels] * _UNIT)
        return found

    def columns(self, size: int) -> Array:
        """E, (m, k): signed columns of a Hadamard matrix, which the seed names."""
        chosen = np.argsort(self._words("columns", size), kind="stable")[: len(self.rows)]
        ones = np.bitwise_count(np.arange(size)[:, None] & chosen[None, :])
        signs = 1 - 2 * (self._words("signs", size) % 2).astype(np.float64)
        columns: Array = signs[:, None] * (-1.0) ** ones / np.sqrt(size)
        return columns

    def _words(self, usage: str, count: int) -> NDArray[np.uint64]:
        seed = b"prism-privacy/v1/measured/embedding/" + usage.encode() + b"\0" + self.embedding.tobytes()
        return np.frombuffer(hashlib.shake_256(seed).digest(8 * count), "<u8")


def answer(
    release: MeasuredRelease, asked: Question, features: NDArray[np.float32], labels: NDArray[np.int64]
) -> Array:
    """What a client with these images answers, (k,), as a share of its clip A."""
    responses = asked.responses(features, labels)
    clipped = responses * _shortening(responses, release.record_clip)
    mean = clipped.sum(axis=0) / (release.records * release.client_clip)
    found: Array = mean * _shortening(mean, 1.0)
    return found


def probabilities(
    release: MeasuredRelease, asked: Question, features: NDArray[np.float32], labels: NDArray[np.int64]
) -> Array:
    """What it draws its bits with, around 1/2, (m,)."""
    room = 0.5 - release.flip
    move = release.clip * (asked.columns(release.coordinates) @ answer(release, asked, features, labels))
    move = np.clip(move, -room, room)
    found: Array = 0.5 + move * _shortening(move, release.clip)
    return found


def _shortening(rows: Array, radius: float) -> Array:
    """What each row is multiplied by to lie in the ball of that radius."""
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    factor: Array = np.minimum(1.0, radius / np.maximum(norms, 1e-300))
    return factor


def _units(values: NDArray[np.floating]) -> NDArray[np.int64]:
    return np.rint(values.astype(np.float64) / _UNIT).astype(np.int64)
