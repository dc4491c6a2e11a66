"""One moment release over all clients: every client adds a share of the noise, a secure sum adds the rest.

Released by each client alone, moments carry the noise of epsilon once a client. Summed securely they
carry it once in all: with a cohort of h honest clients each adds noise of 1/sqrt(h) the size, and only
the sum opens.

**Guarantee.** Let s be the discrete Gaussian parameter that the release asks for, and a client's share
the least integer s_i with h s_i^2 >= s^2, at least 5. The sum of h shares is DG(sqrt(h) s_i) up to a
factor e^(+-n eta) with eta < 1e-76 (`prism_privacy.moments.discrete_gaussian`), so the Gaussian's epsilon
holds for the opened sum; what other clients add is post-processing. A record is in one client's sums, so
the sensitivity is that of one client. It is a computational guarantee (the secure sum hides the shares),
against a server and colluders that leave at least h honest clients in the sum.

**Range.** A secure sum wants integers in [0, bound]. An offset makes sums non-negative, and noise beyond
24 s_i is cut off, which happens with probability below 2 exp(-288) < 1e-124 a coordinate (DG is
sub-Gaussian with its own s). For all coordinates of all clients together tau < 1e-100, and delta grows by
at most (1 + e^epsilon) tau: less than the room of 1e-9 delta that
`prism_privacy.moments.discrete_gaussian.gaussian_epsilon` leaves, for epsilon <= 100 and delta >= 1e-40.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prism_privacy import _validate
from prism_privacy.errors import InvalidParameter
from prism_privacy.masks.coins import CoinStream
from prism_privacy.moments.discrete_gaussian import LEAST_SHARE, sample_discrete_gaussian
from prism_privacy.moments.noisy_sums import NoisySums, fresh_coins, from_units, integer_sums
from prism_privacy.moments.release import UNIT_BITS, MomentRelease

_CUT: Final = 24
_MOST_EPSILON: Final = 100.0
_LEAST_DELTA: Final = 1e-40


@dataclass(frozen=True)
class SummedMoments:
    """How clients take part in one securely summed moment release.

    Attributes:
        release: the release over all clients; its ``records`` is the public total that scales sigma.
        cohort: h, honest clients guaranteed in the opened sum, >= 1.
        dimension: D, the number of features.
        most_records: the most records a client may have; public.
        most_shares: the most shares in a sum, by default ``cohort``; more clients take part where some may
            drop out or collude, or where each share holds all of the noise (``cohort=1``).

    Raises:
        InvalidParameter: a value out of range, or sums of ``most_shares`` shares that do not fit 63 bits.

    >>> release = MomentRelease(records=40, norm=1.0, sigma=0.05, classes=2, second_weight=0.0)
    >>> plan = SummedMoments(release, cohort=4, dimension=3, most_records=10)
    >>> shares = [plan.share(np.eye(3), np.array([0, 1, 1])) for _ in range(4)]
    >>> plan.open(sum(shares), survivors=4).first.shape
    (2, 3)
    """

    release: MomentRelease
    cohort: int
    dimension: int
    most_records: int
    most_shares: int | None = None

    def __post_init__(self) -> None:
        for name in ("cohort", "dimension", "most_records"):
            _validate.count(name, getattr(self, name))
        shares = self.cohort if self.most_shares is None else self.most_shares
        if _validate.count("most_shares", shares) < self.cohort:
            raise InvalidParameter(f"most_shares = {shares} is less than the cohort of {self.cohort}")
        if not self.release.sigma:
            raise InvalidParameter("a securely summed release needs noise: sigma is 0")
        if not self.release.releases_counts:
            raise InvalidParameter(
                "a securely summed release needs counts, as clients may drop out: use adjacency='add_remove'"
            )
        if self.bound * shares >= 1 << 63:
            raise InvalidParameter(
                "the sum does not fit 63 bits: take fewer records a client, less noise or no second moments"
            )

    @property
    def share_noise(self) -> tuple[int, ...]:
        """The discrete Gaussian parameters of one client's share, in lattice units, part by part."""
        return tuple(max(LEAST_SHARE, _ceil_sqrt_ratio(s, self.cohort)) for s in self.release.lattice_noise)

    @property
    def size(self) -> int:
        """The number of integers in a share."""
        return sum(math.prod(shape) for shape in self._shapes)

    @property
    def bound(self) -> int:
        """The largest integer a share holds: the ``bound`` of the secure sum."""
        return max(2 * offset for offset in self._offsets)

    def epsilon(self, delta: float) -> float:
        """Record-level epsilon of the opened sum, for records of every client; ``inf`` above 100."""
        at = _validate.delta(delta)
        epsilon = self.release.epsilon(at)
        return epsilon if epsilon <= _MOST_EPSILON and at >= _LEAST_DELTA else math.inf

    def share(
        self, features: ArrayLike, labels: ArrayLike | None, coins: CoinStream | None = None
    ) -> NDArray[np.int64]:
        """One client's input to the secure sum: (size,) int64 in [0, bound]. **Private** until summed.

        Make it once and keep it: within one session of the secure sum the same share may be sent again. In
        a second session it may not: two opened sums over different survivors differ by bare shares. A sum
        that is to be opened again once a share has left needs fresh shares, and is charged again.

        Args:
            features: (N, D) with N <= most_records.
            labels: (N,) integers, or None if there is one class.
            coins: None: fresh from the operating system.
        """
        parts = integer_sums(features, labels, self.release, any_number=True)
        rows, dimension = np.shape(features)
        if dimension != self.dimension or rows > self.most_records:
            raise InvalidParameter(
                f"expected at most {self.most_records} records of {self.dimension} features, "
                f"got {rows} of {dimension}"
            )
        stream = fresh_coins() if coins is None else coins
        out = []
        for part, s, offset in zip(parts, self.share_noise, self._offsets, strict=True):
            noise = sample_discrete_gaussian(s, part.size, stream)
            out.append(part.reshape(-1) + np.clip(noise, -_CUT * s, _CUT * s) + offset)
        return np.concatenate(out)

    def open(self, total: NDArray[np.int64], survivors: int, *, is_test: bool = False) -> NoisySums:
        """The opened sum of ``survivors`` shares as noisy sums.

        More survivors than the cohort bring more noise than ``release`` says: sqrt(survivors / cohort) times.
        """
        n = _validate.count("survivors", survivors)
        flat = np.asarray(total)
        if flat.dtype.kind not in "iu" or flat.shape != (self.size,):
            raise InvalidParameter(f"expected {self.size} integers, got {flat.dtype} of shape {flat.shape}")
        parts, start = [], 0
        for shape, offset in zip(self._shapes, self._offsets, strict=True):
            stop = start + math.prod(shape)
            parts.append(flat[start:stop].astype(np.int64).reshape(shape) - n * offset)
            start = stop
        return from_units(parts, self.release, is_test=is_test)

    @property
    def _shapes(self) -> list[tuple[int, ...]]:
        shapes: list[tuple[int, ...]] = [(self.release.classes, self.dimension)]
        if self.release.second_weight:
            shapes.append((self.release.classes, self.dimension))
        if self.release.releases_counts:
            shapes.append((self.release.classes,))
        return shapes

    @property
    def _offsets(self) -> list[int]:
        """What makes a share non-negative: the largest sum of most_records records, and the cut noise."""
        largest = [1 << UNIT_BITS]
        if self.release.second_weight:
            largest.append(1 << 2 * UNIT_BITS)
        if self.release.releases_counts:
            largest.append(1 << UNIT_BITS)
        return [self.most_records * top + _CUT * s for top, s in zip(largest, self.share_noise, strict=True)]


def _ceil_sqrt_ratio(s: int, cohort: int) -> int:
    """The least integer x with cohort x^2 >= s^2."""
    x = math.isqrt((s * s) // cohort)
    while cohort * x * x < s * s:
        x += 1
    return x
