"""Making the one noisy release of a client's feature moments.

Features are scaled to a norm of at most 1 and rounded toward zero to integers in units of 2^-20, which
keeps the norm; their squares are then integers in units of 2^-40, and a count is 2^20 units a record.
Sums of integers are exact, so the sensitivities of :mod:`prism_privacy.moments.release` hold to the last
bit for what is really summed, and the noise is a discrete Gaussian on the same lattices.

**Coins.** Give fresh ones (:func:`fresh_coins` is the default). Two releases with the same noise and
different data would differ by exactly the data. A release is made once, kept
(:mod:`prism_privacy.moments.store`) and read again by whoever resumes or sweeps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prism_privacy.errors import InvalidParameter
from prism_privacy.masks.coins import HASH_BYTES, CoinSecret, CoinStream
from prism_privacy.masks.fixed_point import as_float64
from prism_privacy.moments.discrete_gaussian import sample_discrete_gaussian
from prism_privacy.moments.release import MOST_RECORDS, UNIT_BITS, MomentRelease

_UNITS = 1 << UNIT_BITS
_CHUNK = 1 << 14


@dataclass(frozen=True)
class NoisySums:
    """What was released: per-class sums with noise. Safe to show; every use of it is post-processing.

    Attributes:
        release: what it is, and what it costs.
        first: (classes, D) float64, sums of features, in units of the features.
        second: (classes, D) float64, sums of squared features, or None.
        counts: (classes,) float64, noisy numbers of records, may be negative; or None: the number of
            records is public and there is one class.
        is_test: True if the noise was drawn from known coins: then there is no epsilon.
    """

    release: MomentRelease
    first: NDArray[np.float64]
    second: NDArray[np.float64] | None
    counts: NDArray[np.float64] | None
    is_test: bool = False


def fresh_coins() -> CoinStream:
    """Noise coins straight from operating-system entropy, never to be seen again."""
    return CoinSecret().stream("moments", 0, bytes(HASH_BYTES), "moments")


def release_moments(
    features: ArrayLike,
    labels: ArrayLike | None,
    release: MomentRelease,
    coins: CoinStream | None = None,
) -> NoisySums:
    """The noisy sums of one client. Call it once for each client, and keep what it returns.

    Args:
        features: (N, D), floats of any width, finite.
        labels: (N,) integers in [0, classes), or None if there is one class.
        release: what to release.
        coins: the noise's coins; None: fresh from the operating system, which is what a real run wants.

    Raises:
        InvalidParameter: shapes, labels or values that do not fit the release.

    >>> from prism_privacy.moments.release import MomentRelease
    >>> release = MomentRelease(records=3, norm=1.0, sigma=0.0, classes=2)
    >>> sums = release_moments([[0.5, 0.0], [0.0, 0.5], [3.0, 4.0]], [0, 0, 1], release)
    >>> sums.first.round(3)
    array([[0.5, 0.5],
           [0.6, 0.8]])
    >>> sums.counts
    array([2., 1.])
    """
    units = integer_sums(features, labels, release)
    stream = fresh_coins() if coins is None else coins
    noisy = [
        part + _noise(s, part.shape, stream) for part, s in zip(units, release.lattice_noise, strict=True)
    ]
    return from_units(noisy, release, is_test=stream.is_test)


def integer_sums(
    features: ArrayLike, labels: ArrayLike | None, release: MomentRelease, *, any_number: bool = False
) -> list[NDArray[np.int64]]:
    """S1, S2 and n (what is released of them) in lattice units, without noise: **private**.

    ``any_number``: the release is over several clients, so its number of records is not this client's.
    """
    rows = as_float64(features, "features")
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise InvalidParameter(f"features must have shape (records, D), got {rows.shape}")
    if release.adjacency == "swap" and not any_number and rows.shape[0] != release.records:
        raise InvalidParameter(
            f"under swap this release is for exactly {release.records} records, got {rows.shape[0]}"
        )
    if rows.shape[0] > MOST_RECORDS:
        raise InvalidParameter(f"at most {MOST_RECORDS} records fit 64-bit sums, got {rows.shape[0]}")
    if release.nonnegative and rows.size and rows.min() < 0.0:
        raise InvalidParameter("the release promises non-negative features, got negative ones")
    classes = _labels(labels, rows.shape[0], release.classes)
    first = np.zeros((release.classes, rows.shape[1]), dtype=np.int64)
    second = np.zeros_like(first)
    for start in range(0, rows.shape[0], _CHUNK):
        part = slice(start, start + _CHUNK)
        units = quantise_rows(rows[part], release.norm)
        np.add.at(first, classes[part], units)
        if release.second_weight:
            np.add.at(second, classes[part], np.square(units))
    sums = [first]
    if release.second_weight:
        sums.append(second)
    if release.releases_counts:
        sums.append(np.bincount(classes, minlength=release.classes).astype(np.int64) * _UNITS)
    return sums


def quantise_rows(rows: NDArray[np.float64], norm: float) -> NDArray[np.int64]:
    """Rows scaled to ``norm`` where longer, in units of 2^-20 of it; every squared sum is at most 2^40.

    Rounding is toward zero, so it never lengthens a row. The result is checked in integers: a row that is
    still too long, because binary64 rounded its length down, is shortened until it is not.
    """
    scaled = rows / norm
    largest = np.abs(scaled).max(axis=1, initial=0.0, keepdims=True)
    largest[largest == 0.0] = 1.0
    length = largest * np.linalg.norm(scaled / largest, axis=1, keepdims=True)
    scaled = scaled / np.maximum(length, 1.0) * _UNITS
    units: NDArray[np.int64] = np.trunc(scaled).astype(np.int64)
    while (long := np.square(units).sum(axis=1) > _UNITS * _UNITS).any():
        scaled[long] *= 1.0 - 1.0 / _UNITS
        units[long] = np.trunc(scaled[long]).astype(np.int64)
    return units


def from_units(parts: list[NDArray[np.int64]], release: MomentRelease, *, is_test: bool) -> NoisySums:
    """Lattice units back to units of the features; ``parts`` as :func:`integer_sums` orders them."""
    rest = [part.astype(np.float64) for part in parts]
    first = rest.pop(0) * (release.norm / _UNITS)
    second = rest.pop(0) * (release.norm / _UNITS) ** 2 if release.second_weight else None
    counts = rest.pop(0) / _UNITS if release.releases_counts else None
    return NoisySums(release, first, second, counts, is_test)


def _labels(labels: ArrayLike | None, records: int, classes: int) -> NDArray[np.int64]:
    if labels is None:
        if classes != 1:
            raise InvalidParameter(f"a release over {classes} classes needs labels")
        return np.zeros(records, dtype=np.int64)
    given = np.asarray(labels)
    if given.dtype.kind not in "iu" or given.shape != (records,):
        raise InvalidParameter(f"labels must be {records} integers, got {given.dtype} of shape {given.shape}")
    if given.size and not (int(given.min()) >= 0 and int(given.max()) < classes):
        raise InvalidParameter(f"labels must lie in [0, {classes})")
    return given.astype(np.int64)


def _noise(sigma: int, shape: tuple[int, ...], coins: CoinStream) -> NDArray[np.int64]:
    size = int(np.prod(shape))
    if sigma == 0:
        return np.zeros(shape, dtype=np.int64)
    return sample_discrete_gaussian(sigma, size, coins).reshape(shape)
