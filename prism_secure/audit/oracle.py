"""A second opinion on every epsilon: from the definitions, by other code than the accountant's.

What is the same as in `prism_privacy` is mathematics (docs/privacy.md proves it); no line is. The accountant
certifies an upper bound over a continuum with convexity arguments, tables and its own binomials. This oracle
takes scipy's binomials, tries moves and configurations one by one, and keeps the largest divergence that it
*saw*: so it errs downward, by about 0.1% (tests say how far), and a ledger that states less than it by more
than 1% states too little.

- A mask's coordinate: the larger of the two Rényi divergences between the law of a count with the protected
  client at p and at p+d, the others at the ends of the box, per d² (kappa) and at the largest d (most).
- A round: min(kappa R², dim·most); in score space an upload also alpha (1-2f)²C²/8, or /2 for replace_one.
- Rounds add; epsilon = D + log((a-1)/a) - (log delta + log a)/(a-1), least over orders (Canonne, Kamath,
  Steinke 2020, proposition 12); epsilon is 0 where 1 - exp(-D) <= delta² (Bretagnolle, Huber 1979).
- Without a clip: delta(eps) = E_P[(1 - e^(eps - L))+] over the binomial privacy loss (Kairouz, Oh, Viswanath
  2015, theorem 3.3).
- A measured round: bits of a client within C of a public point; of one record within (C/A) s 2c/N, and what
  rounding adds.
- A record's release: Gaussian noise against the largest move that a search over pairs of records finds
  (Balle and Wang 2018, theorem 8).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

Floats = NDArray[np.float64]

ORDERS: Floats = 1.0 + np.geomspace(1e-2, 3e4, 200)
"""A step of 7.8% in alpha - 1 costs about 0.1% of epsilon."""

_EVERY = 40
"""Up to this cohort, every way to place the others at the two ends of the box is tried."""


@dataclass(frozen=True)
class Mask:
    """A mask's release, as a ledger writes it; see `prism_privacy.MaskRelease` for the meaning."""

    flip: float
    clip: float | None
    cohort: int
    space: str
    dim: int | None
    sum_failure: float

    @classmethod
    def of(cls, release: Mapping[str, Any]) -> Mask:
        """From a ledger's `release`.

        Raises:
            ValueError: a field is missing, unknown or out of range.
        """
        try:
            mask = cls(**release)
            inside = 0 <= mask.flip < 0.5 and mask.cohort >= 1 and mask.space in ("probability", "score")
            inside &= (mask.clip is not None and mask.clip > 0) or (
                mask.clip is None and mask.dim is not None
            )
            inside &= (mask.dim is None or mask.dim >= 1) and 0 <= mask.sum_failure < 1
        except TypeError as error:
            raise ValueError(f"not a mask's release: {error}") from None
        if not inside:
            raise ValueError(f"not a mask's release: {dict(release)}")
        return mask

    def radius(self, replaced: bool) -> float:
        """The largest L2 move of the protected client's probabilities."""
        width = 1 - 2 * self.flip
        box = math.inf if self.dim is None else width * math.sqrt(self.dim)
        if self.clip is None:
            return box
        reach = self.clip if self.space == "probability" else width * self.clip / 4
        return min(box, 2 * reach if replaced else reach)


@dataclass(frozen=True)
class Measured:
    """A measured round's release, as a ledger writes it; see `prism_privacy.MeasuredRelease`."""

    flip: float
    clip: float
    client_clip: float
    record_clip: float
    records: int
    coordinates: int
    directions: int
    cohort: int
    sum_failure: float
    sigma_max: float

    @classmethod
    def of(cls, release: Mapping[str, Any]) -> Measured:
        """From a ledger's `release`.

        Raises:
            ValueError: a field is missing, unknown or out of range.
        """
        try:
            found = cls(**release)
            inside = 0 <= found.flip < 0.5 and min(found.clip, found.client_clip, found.record_clip) > 0
            whole = (found.records, found.coordinates, found.directions, found.cohort)
            inside &= all(isinstance(number, int) and number >= 1 for number in whole)
            inside &= found.sigma_max >= 1 and 0 <= found.sum_failure < 1
        except TypeError as error:
            raise ValueError(f"not a measured round's release: {error}") from None
        if not inside:
            raise ValueError(f"not a measured round's release: {dict(release)}")
        return found

    def client(self) -> Mask:
        """What it tells of a client: its p stays within C of a public point."""
        return self._moving(self.clip)

    def record(self, adjacency: str) -> Mask:
        """What it tells of one record: p moves by (C/A) s times what the answer (1/N) sum r does.

        That is 2c/N where a record is swapped, c/N where it is added or removed. Roundings add a unit of
        2^-24 for each bit and 2^-30 of C. Never further than across the ball.
        """
        moved = (2 if adjacency == "swap" else 1) * self.record_clip / self.records
        rounding = 2.0**-24 * math.sqrt(self.coordinates) + 2.0**-30 * self.sigma_max * self.clip
        return self._moving(
            min(2 * self.clip, moved * self.clip * self.sigma_max / self.client_clip + rounding)
        )

    def _moving(self, radius: float) -> Mask:
        return Mask(self.flip, radius, self.cohort, "probability", self.coordinates, self.sum_failure)


def record_clip(unit: str, images: int, people: int | None) -> float:
    """c in units of A, where nobody has set it: n if the unit is a record, n sqrt(P) if it is a client.

    n is images a person, P persons a client; where a record is an image each is a person of its own.
    """
    persons = min(people or images, images)
    alone = images / persons
    return alone if unit == "image" else alone * math.sqrt(persons)


def of_a_client(release: Mapping[str, Any]) -> Mask:
    """What a ledger's `release` tells of a client: a mask's, or a measured round's.

    Raises:
        ValueError: it is neither.
    """
    return Measured.of(release).client() if "client_clip" in release else Mask.of(release)


@dataclass(frozen=True)
class Coordinate:
    """One coordinate's largest divergence on `ORDERS`: per squared move, and at the largest move."""

    kappa: Floats
    most: Floats


def _law(at_low: int, at_high: int, flip: float) -> Floats:
    """The pmf of Bin(at_low, f) + Bin(at_high, 1-f)."""
    low = stats.binom.pmf(np.arange(at_low + 1), at_low, flip)
    high = stats.binom.pmf(np.arange(at_high + 1), at_high, 1 - flip)
    return np.convolve(low, high)


def _placements(cohort: int) -> list[int]:
    """How many of the other clients sit at f: all ways for small cohorts, else denser at both ends."""
    others = cohort - 1
    if others < _EVERY:
        return list(range(others + 1))
    near = (others * (np.arange(13) / 12) ** 2 / 2).round()
    return sorted({int(k) for k in np.concatenate([near, others - near])})


def _log_sum(terms: Floats) -> Floats:
    """log of the sum of exp(terms) over the last axis."""
    top = terms.max(axis=-1)
    return np.asarray(top + np.log(np.exp(terms - top[..., None]).sum(axis=-1)))


@lru_cache(maxsize=256)
def coordinate(cohort: int, flip: float, reach: float) -> Coordinate:
    """The supremum over what was tried: placements of the others, moves up to `reach`, both directions."""
    moves = min(reach / (1 - 2 * flip), 1.0) * np.linspace(1 / 24, 1, 24)
    excess = ORDERS - 1
    kappa, most = np.zeros(ORDERS.shape), np.zeros(ORDERS.shape)
    for at_low in _placements(cohort):
        others = _law(at_low, cohort - 1 - at_low, flip)
        still, moved = np.convolve(others, [1 - flip, flip]), np.convolve(others, [flip, 1 - flip])
        seen = (still > 1e-250) & (moved > 1e-250)
        still, moved = still[seen], moved[seen]
        chi2 = float(np.sum((moved - still) ** 2 / still))
        kappa = np.maximum(kappa, ORDERS / 2 * chi2 / (1 - 2 * flip) ** 2)
        mixed = (1 - moves[:, None]) * still + moves[:, None] * moved
        start, loss = np.log(still), np.log(mixed) - np.log(still)
        for part in np.array_split(np.arange(ORDERS.size), max(1, loss.size * ORDERS.size // 2_000_000)):
            order = ORDERS[part, None, None]
            moment = np.maximum(_log_sum(start + order * loss), _log_sum(start + (1 - order) * loss))
            moment[moment < 1e-9] = 0.0  # rounding; the limit of small moves, chi2, covers it
            ratio = np.max(moment / (moves * (1 - 2 * flip)) ** 2, axis=1)
            kappa[part] = np.maximum(kappa[part], ratio / excess[part])
            most[part] = np.maximum(most[part], moment[:, -1] / excess[part])
    return Coordinate(kappa, most)


def curve(mask: Mask, *, summed: bool, replaced: bool) -> Floats:
    """D_alpha of one round on `ORDERS`; `summed`: seen through the secure sum; `replaced`: replace_one."""
    if mask.flip == 0:
        return np.full(ORDERS.shape, np.inf)
    radius = mask.radius(replaced)
    reach = min(radius, 1 - 2 * mask.flip)

    def bound(cohort: int) -> Floats:
        found = coordinate(cohort, mask.flip, reach)
        by_norm = found.kappa * radius**2
        return by_norm if mask.dim is None else np.minimum(by_norm, mask.dim * found.most)

    upload = bound(1)
    if mask.space == "score" and mask.clip is not None:
        upload = np.minimum(upload, ORDERS * ((1 - 2 * mask.flip) * mask.clip) ** 2 / (2 if replaced else 8))
    return np.minimum(upload, bound(mask.cohort)) if summed else upload


def to_epsilon(divergence: Floats, delta: float) -> float:
    """The least epsilon over `ORDERS` that a composed curve gives at delta."""
    finite = np.isfinite(divergence)
    if delta <= 0 or not finite.any():
        return math.inf
    order, d = ORDERS[finite], divergence[finite]
    if bool(np.any(-np.expm1(-d) <= delta**2)):
        return 0.0
    epsilon = d + np.log1p(-1 / order) - (math.log(delta) + np.log(order)) / (order - 1)
    return max(0.0, float(epsilon.min()))


def unclipped(flip: float, bits: int, delta: float) -> float:
    """Epsilon of `bits` randomized responses, exactly: a root of E_P[(1 - e^(eps - L))+] = delta."""
    if flip == 0:
        return math.inf
    single = math.log((1 - flip) / flip)
    mean, sd = bits * (1 - flip), math.sqrt(bits * flip * (1 - flip))
    ones = np.arange(max(0, math.floor(mean - 12 * sd)), min(bits, math.ceil(mean + 12 * sd)) + 1)
    loss, mass = (2 * ones - bits) * single, stats.binom.pmf(ones, bits, 1 - flip)

    def above(epsilon: float) -> float:
        lost = loss > epsilon
        return float(np.sum(mass[lost] * -np.expm1(epsilon - loss[lost]))) - delta

    low, high = max(0.0, float(loss[0])), float(loss[-1])
    if above(low) <= 0:
        return low
    return float(optimize.brentq(above, low, high, xtol=1e-9 * max(1.0, high)))


def epsilon(rounds: Mapping[Mask, int], delta: float, *, summed: bool, replaced: bool) -> float:
    """Epsilon of all these rounds together, for one client that took part in each."""
    counted = {mask: count for mask, count in rounds.items() if count}
    if not counted:
        return 0.0

    def composed(through_sum: bool) -> Floats:
        return sum(
            (count * curve(mask, summed=through_sum, replaced=replaced) for mask, count in counted.items()),
            start=np.zeros(ORDERS.shape),
        )

    best = to_epsilon(composed(False), delta)
    if summed:
        failing = sum(count * mask.sum_failure for mask, count in counted.items())
        best = min(best, to_epsilon(composed(True), delta - failing))
    if all(mask.clip is None for mask in counted):
        bits = sum(count * (mask.dim or 0) for mask, count in counted.items())
        best = min(best, unclipped(min(mask.flip for mask in counted), bits, delta))
    return best


@lru_cache(maxsize=64)
def record_move(
    adjacency: str, classes: int, second_weight: float, count_weight: float, nonnegative: bool
) -> float:
    """The largest L2 change of [S1; v S2; w n] that a search over pairs of records in the plane finds.

    The plane is enough: two unit vectors span one, and the bounds are reached there.
    """
    angles = np.linspace(0, np.pi / 2 if nonnegative else 2 * np.pi, 721)
    phi = np.stack([np.cos(angles), np.sin(angles)])
    square = second_weight**2 * np.sum(phi**4, axis=0)
    count = count_weight**2 if classes > 1 or adjacency == "add_remove" else 0.0
    alone = np.sum(phi**2, axis=0) + square + count
    if adjacency == "add_remove":
        return math.sqrt(float(alone.max()))
    first = np.sum((phi[:, :, None] - phi[:, None, :]) ** 2, axis=0)
    second = np.sum((phi[:, :, None] ** 2 - phi[:, None, :] ** 2) ** 2, axis=0)
    found = float((first + second_weight**2 * second).max())
    return math.sqrt(max(found, 2 * float(alone.max())) if classes > 1 else found)


def gaussian(multiplier: float, delta: float) -> float:
    """Epsilon of Gaussian noise of `multiplier` times the largest move."""
    if multiplier <= 0:
        return math.inf

    def above(epsilon: float) -> float:
        near, far = 1 / (2 * multiplier) - epsilon * multiplier, -1 / (2 * multiplier) - epsilon * multiplier
        return math.exp(special.log_ndtr(near)) - math.exp(epsilon + special.log_ndtr(far)) - delta

    if above(0.0) <= 0:
        return 0.0
    high = 1.0
    while above(high) > 0:
        high *= 2
    return float(optimize.brentq(above, 0.0, high, xtol=1e-10 * high))
