"""A record's response, clipped: a function of one record and of public values, bit for bit.

    r_i = V[y_i]^T (phi_i - m[y_i]),      exact; toward zero to units of 2^-30; then ||r_i|| <= c

The product is exact (:mod:`prism_privacy.measured.directions` checked the range), so blocks, threads and
neighbours change nothing. The clip is taken toward zero and its norm checked again in integers. No value of a
record raises: features out of the public range go to its edge, a label that is none answers 0.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prism_privacy.errors import InvalidParameter
from prism_privacy.measured.directions import Asked
from prism_privacy.measured.integers import (
    RESPONSE_BITS,
    clip_rows,
    record_numbers,
    sums_by,
)

_CELLS: Final = 1 << 19
"""Numbers of one block of records: 4 MiB, however many there are."""
_RETREAT: Final = 1.0 - 2.0**-40
_BALL: Final = 1 << (2 * RESPONSE_BITS)


def record_responses(directions: Asked, features: NDArray[np.int32], labels: ArrayLike) -> NDArray[np.int64]:
    """What each record answers before any clip, int64 (N, k), units of 2^-30.

    Args:
        directions: what is asked.
        features: shape (N, D), as :func:`quantise_features` gives them.
        labels: shape (N,), an array of integers, or a list; what is not in [0, K) answers 0.

    Raises:
        InvalidParameter: shapes or dtypes that do not fit. Never for a value.
    """
    if features.dtype.kind != "i" or features.ndim != 2 or features.shape[1] != directions.features:
        raise InvalidParameter(
            f"features must be integers of the shape (N, {directions.features}), "
            f"got {features.dtype} {features.shape}"
        )
    classes = record_numbers("labels", labels, len(features))
    responses = np.zeros((len(features), directions.directions), dtype=np.int64)
    for label in range(directions.classes):
        rows = np.flatnonzero(classes == label)
        step = max(1, _CELLS // max(directions.features, directions.directions))
        for start in range(0, rows.size, step):
            block = rows[start : start + step]
            inside = np.clip(features[block].astype(np.int64), -directions.limit, directions.limit)
            responses[block] = directions.responses(inside, label)
    return responses


def clip_responses(responses: NDArray[np.int64], gain: float) -> NDArray[np.int64]:
    """Each row put into the ball of radius c, toward zero: int64 (N, k), units of c 2^-30.

    The sum of squares of every row is at most 2^60, checked in integers.

    Args:
        responses: rows in units of 2^-30.
        gain: 1 / c.
    """
    clipped = clip_rows(responses, gain, RESPONSE_BITS)
    # Within 2^60 (1 + 2^-45) already, so the int64 sums are exact, and one retreat of 2^-40 suffices.
    while (over := (clipped**2).sum(axis=1) > _BALL).any():
        clipped[over] = np.trunc(clipped[over] * _RETREAT).astype(np.int64)
    return clipped


def sum_persons(
    responses: NDArray[np.int64], owners: NDArray[np.int64], persons: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The sum of each person's responses within each client, and whose they are: rows (P, k) and owners (P,).

    A person in two clients is two persons: no clip can act across clients.
    """
    pairs, group = np.unique(np.stack((owners, persons), axis=1), axis=0, return_inverse=True)
    return sums_by(responses, group.reshape(-1).astype(np.int64), len(pairs)), pairs[:, 0]
