"""What the best attacker can tell: membership of a client, and its bits, from what is released.

Two worlds. In one the client sends bits of its own probabilities p, in the other coins of the public p_t:
ZERO_OUT adjacency. The attacker knows everything but coins: theta_t, p, and the probabilities of all others,
who send coins of p_t. It scores what it saw by the log-likelihood ratio of the two worlds, and no other score
tells them apart better (Neyman and Pearson).

The client moves k = ceil((C/m)^2) coordinates by C/sqrt(k) each, in the same direction in every round: as far
as the clip allows, with m = (1-2f)(1-theta) the room above p_t. Bits of coordinates and rounds are
independent, so a score is a sum over k times T draws from one small law, and worlds are multinomial draws.

Under UPLOAD one draw is a bit. Under SUM it is a count over the cohort.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prism_privacy import _validate
from prism_privacy.audit.exact_tests import clopper_pearson
from prism_privacy.errors import InvalidParameter
from prism_privacy.units import View

__all__ = ["Membership", "Recovery", "Roc", "certified_tpr", "recovery", "roc", "scores"]

Floats = NDArray[np.float64]

_LEAST_FLIP = 1e-15
"""Below it the accountant proves no bound, and 1 - flip is 1 in float64, so that no bit would be flipped."""
_CHUNK = 2000
"""Worlds drawn at once: a few megabytes for a thousand clients."""


@dataclass(frozen=True)
class Membership:
    """The two worlds.

    Attributes:
        flip: f, the box edge.
        clip: C, how far the client's probabilities may move, L2.
        cohort: honest clients in each opened sum, the target included.
        rounds: T, how many rounds the client takes part in.
        theta: the public point, the same in each coordinate; p_t = f + (1-2f) theta. At ½ others hide a
            client best, towards 0 worst.

    Raises:
        InvalidParameter: a value out of range.

    >>> worlds = Membership(flip=0.25, clip=1.0, cohort=10, rounds=20)
    >>> worlds.coordinates, worlds.move
    (16, 0.25)
    """

    flip: float
    clip: float
    cohort: int
    rounds: int = 1
    theta: float = 0.5

    def __post_init__(self) -> None:
        if not _LEAST_FLIP <= _validate.real("flip", self.flip) < 0.5:
            raise InvalidParameter(
                f"flip must lie in [{_LEAST_FLIP:g}, 0.5), with less noise ε is inf; got {self.flip!r}"
            )
        if not 0.0 < _validate.real("theta", self.theta) < 1.0:
            raise InvalidParameter(f"theta must lie in (0, 1), got {self.theta!r}")
        _validate.positive("clip", self.clip)
        _validate.count("cohort", self.cohort)
        _validate.count("rounds", self.rounds)

    @property
    def public(self) -> float:
        """p_t, in each coordinate."""
        return self.flip + (1.0 - 2.0 * self.flip) * self.theta

    @property
    def coordinates(self) -> int:
        """k, how many coordinates the client moves."""
        room = 1.0 - self.flip - self.public
        return max(1, math.ceil((self.clip / room) ** 2 * (1 - 1e-12)))

    @property
    def move(self) -> float:
        """How far each of them moves."""
        return min(self.clip / math.sqrt(self.coordinates), 1.0 - self.flip - self.public)

    def laws(self, view: View) -> tuple[Floats, Floats]:
        """The law of one coordinate of one round, (client out, client in); at most (cohort + 1,) each.

        Counts that neither world gives with probability above 1e-15 are left out.
        """
        out, present = (self._law(view, p) for p in (self.public, self.public + self.move))
        return _trimmed(out, present)

    def _law(self, view: View, probability: float) -> Floats:
        from scipy import stats

        others = self.cohort - 1 if view is View.SUM else 0
        rest = stats.binom.pmf(np.arange(others + 1), others, self.public)
        return np.asarray(np.convolve(rest, [1.0 - probability, probability]), dtype=np.float64)


def _trimmed(one: Floats, other: Floats) -> tuple[Floats, Floats]:
    kept = np.maximum(one, other) > 1e-15
    return one[kept] / one[kept].sum(), other[kept] / other[kept].sum()


def scores(worlds: Membership, view: View, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Log-likelihood ratios in `count` simulated worlds without the client's data, as many with them."""
    out, present = worlds.laws(view)
    ratio = np.log(present) - np.log(out)
    draws = worlds.coordinates * worlds.rounds
    return _totals(out, ratio, draws, count, rng), _totals(present, ratio, draws, count, rng)


def _totals(law: Floats, ratio: Floats, draws: int, count: int, rng: np.random.Generator) -> Floats:
    """Sums of `ratio` over `draws` independent draws from `law`, in `count` worlds; shape (count,)."""
    sizes = [len(part) for part in np.array_split(np.arange(count), math.ceil(count / _CHUNK))]
    return np.concatenate([rng.multinomial(draws, law, size=size) @ ratio for size in sizes])


@dataclass(frozen=True)
class Roc:
    """The attack's true alarms at chosen rates of false ones, each array of shape (len(fpr),).

    Attributes:
        fpr: the rates of false alarms that the thresholds were chosen for, on one half of the worlds.
        false: the rate of false alarms that they turned out to have, on the other half.
        tpr: the share of worlds with the client that were found.
        low, high: Clopper-Pearson limits of that share, each alone at the confidence asked for.
        fpr_low, fpr_high: the same for the rate of false alarms.
    """

    fpr: Floats
    false: Floats
    tpr: Floats
    low: Floats
    high: Floats
    fpr_low: Floats
    fpr_high: Floats


def roc(without: Floats, present: Floats, fpr: Floats, confidence: float = 0.95) -> Roc:
    """The attack as a curve; thresholds come from half of `without`, all rates from the rest.

    Args:
        without, present: scores in worlds without and with the client's data.
        fpr: rates of false alarms, in (0, 1).
        confidence: of each band, pointwise.
    """
    half = len(without) // 2
    calibration, fresh = np.sort(without[:half]), without[half:]
    # The smallest threshold that at most fpr of the calibration worlds pass; ties go below it.
    kept = np.clip(half - 1 - np.floor(fpr * half).astype(int), 0, half - 1)
    found, false = [], []
    for threshold in calibration[kept]:
        found.append(int(np.sum(present > threshold)))
        false.append(int(np.sum(fresh > threshold)))
    error = (1.0 - confidence) / 2.0
    tpr_band = np.array([clopper_pearson(hits, len(present), error) for hits in found])
    fpr_band = np.array([clopper_pearson(hits, len(fresh), error) for hits in false])
    return Roc(
        fpr=np.asarray(fpr, dtype=np.float64),
        false=np.array(false) / len(fresh),
        tpr=np.array(found) / len(present),
        low=tpr_band[:, 0],
        high=tpr_band[:, 1],
        fpr_low=fpr_band[:, 0],
        fpr_high=fpr_band[:, 1],
    )


def certified_tpr(fpr: Floats, epsilon: float, delta: float) -> Floats:
    """The most true alarms that (epsilon, delta)-differential privacy leaves a test with these false ones.

    min(e^eps a + delta, 1 - e^-eps (1 - a - delta)): Kairouz, Oh and Viswanath 2015, theorem 2.1.

    >>> certified_tpr(np.array([0.001]), 1.0, 1e-5).round(5).tolist()
    [0.00273]
    """
    with np.errstate(over="ignore"):
        up = np.exp(np.minimum(epsilon + np.log(fpr), 700.0)) + delta
    down = 1.0 - math.exp(-epsilon) * (1.0 - fpr - delta)
    return np.asarray(np.minimum(1.0, np.minimum(up, down)), dtype=np.float64)


@dataclass(frozen=True)
class Recovery:
    """How many of a client's mask bits the best guess gets right: ½ is no better than a coin."""

    upload: float
    sum: float


def recovery(worlds: Membership, count: int, rng: np.random.Generator) -> Recovery:
    """The share of bits of the client's own mask that are guessed right after all rounds.

    Each coordinate of the mask is 0 or 1 with equal probability and stays so in all rounds; the client's p
    lies `move` below or above p_t. The guess is the likelier of the two.

    Raises:
        InvalidParameter: theta leaves no room for `move` on both sides.
    """
    if worlds.public - worlds.move < worlds.flip - 1e-12:
        raise InvalidParameter(
            f"theta = {worlds.theta} leaves no room below p_t for a move of {worlds.move:g}"
        )
    found = {}
    for view in View:
        low, high = _trimmed(
            *(worlds._law(view, worlds.public + move) for move in (-worlds.move, worlds.move))
        )
        total = _totals(high, np.log(high) - np.log(low), worlds.rounds, count, rng)
        found[view] = float(np.mean(total > 1e-12) + np.mean(np.abs(total) <= 1e-12) / 2)
    return Recovery(upload=found[View.UPLOAD], sum=found[View.SUM])
