"""From a target ε to the parameter that reaches it: the clip, the flip probability or the cohort.

ε grows with the clip and falls with the flip and the cohort, so each search is for a root of a monotone
function, and the side on which ε is *at most* the target is returned. Only the accountant's certified ε
decides what is returned; the search before it uses an estimate (κ over the two extreme configurations only,
in every bound that the accountant has), because at a cohort of 10⁴ each certified value costs seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from prism_privacy import _validate
from prism_privacy.accounting.accountant import guarantee_of
from prism_privacy.accounting.kappa.renyi_moments import MOST_CLIENTS
from prism_privacy.accounting.kappa.store import estimated_curve
from prism_privacy.errors import CalibrationError, InvalidParameter
from prism_privacy.masks.release import MaskRelease
from prism_privacy.units import Adjacency, View

__all__ = ["Calibration", "calibrate"]

_FINE = 1e-4
_CLIPS = (1e-4, 1e6)
_FLIPS = (1e-6, 0.4999)
_COHORTS = (1, MOST_CLIENTS)


@dataclass(frozen=True)
class Calibration:
    """A release that reaches a target, and what it reaches.

    release   flip, clip and cohort, one of them found
    rounds    how many rounds of it
    epsilon   the accountant's ε for them: at most the target
    target    what was asked for
    """

    release: MaskRelease
    rounds: int
    epsilon: float
    target: float
    delta: float
    view: View
    adjacency: Adjacency

    @property
    def clip(self) -> float | None:
        """C, found or given."""
        return self.release.clip

    @property
    def flip(self) -> float:
        """f, found or given."""
        return self.release.flip

    @property
    def cohort(self) -> int:
        """The cohort, found or given."""
        return self.release.cohort


@dataclass(frozen=True)
class Search:
    """One free parameter as a function of x, on which ε rises. Steps of 10⁻⁴ in x are steps of 10⁻⁴ of it."""

    name: str
    low: float
    high: float
    value: Callable[[float], float]


@dataclass(frozen=True)
class _ReleaseSearch(Search):
    release: Callable[[float], MaskRelease]


def _flip_at(x: float) -> float:
    """f = ½/(1+e^x): falls with x, and x moves log f and log(½−f) at most one for one."""
    return 0.5 / (1.0 + math.exp(x))


def _cohort_at(x: float) -> int:
    """The cohort e^(−x), rounded up to the safe side."""
    return math.ceil(math.exp(-x) * (1.0 - 1e-12))


def calibrate(
    *,
    epsilon: float,
    delta: float,
    rounds: int,
    view: View,
    adjacency: Adjacency,
    cohort: int | None = None,
    flip: float | None = None,
    clip: float | None = None,
    space: str = "probability",
    dim: int | None = None,
    sum_failure: float = 0.0,
) -> Calibration:
    """Find the one of `clip`, `flip` and `cohort` that was left out.

    The clip found is the largest, the flip and the cohort the smallest, up to about 0.1%, for which `rounds`
    equal rounds stay within ε. Under UPLOAD the cohort does not matter and may be left out along with the
    clip or the flip.

    >>> found = calibrate(epsilon=8.0, delta=1e-5, rounds=100, cohort=1000, flip=0.25,
    ...                   view=View.SUM, adjacency=Adjacency.ZERO_OUT)
    >>> round(found.clip, 2), found.epsilon <= 8.0
    (2.14, True)

    Clips are searched from 10⁻⁴ to 10⁶, flips from 10⁻⁶ to 0.4999, cohorts from 1 to 10⁶.

    Raises `CalibrationError` where no such value reaches ε, with the nearest ε that can be had and where;
    `InvalidParameter` unless exactly one parameter is left out.
    """
    target, delta = _validate.positive("epsilon", epsilon), _validate.delta(delta)
    rounds = _validate.count("rounds", rounds)
    view, adjacency = (
        _validate.member("view", View, view),
        _validate.member("adjacency", Adjacency, adjacency),
    )
    if view is View.UPLOAD and cohort is None and (flip is None) != (clip is None):
        cohort = 1
    free = [name for name, given in (("clip", clip), ("flip", flip), ("cohort", cohort)) if given is None]
    if len(free) != 1:
        raise InvalidParameter(
            f"leave out exactly one of clip, flip and cohort, the one to find; {', '.join(free) or 'none'} "
            "was left out"
        )
    if free == ["cohort"] and view is View.UPLOAD:
        raise InvalidParameter("under UPLOAD the cohort changes nothing: leave out the clip or the flip")

    def build(c: float | None, f: float, n: int) -> MaskRelease:
        return MaskRelease(f, c, n, space, dim, sum_failure=sum_failure)

    search: _ReleaseSearch
    if flip is not None and clip is None:
        known_flip, known_cohort = _validate.flip(flip), _validate.count("cohort", cohort)
        # A clip beyond the box's own radius changes nothing.
        box = _CLIPS[1] if dim is None or space == "score" else (1.0 - 2.0 * known_flip) * math.sqrt(dim)
        low, high = math.log(min(_CLIPS[0], box)), math.log(box)
        search = _ReleaseSearch(
            "clip", low, high, math.exp, lambda x: build(math.exp(x), known_flip, known_cohort)
        )
    elif flip is None:
        known_cohort = _validate.count("cohort", cohort)
        high, low = (math.log(0.5 / end - 1.0) for end in _FLIPS)
        search = _ReleaseSearch("flip", low, high, _flip_at, lambda x: build(clip, _flip_at(x), known_cohort))
    else:
        known_flip = _validate.flip(flip)
        high, low = (-math.log(end) for end in _COHORTS)
        search = _ReleaseSearch(
            "cohort", low, high, _cohort_at, lambda x: build(clip, known_flip, _cohort_at(x))
        )

    def certified(x: float) -> float:
        return guarantee_of({search.release(x): rounds}, delta, view, adjacency).epsilon

    def estimated(x: float) -> float:
        release = {search.release(x): rounds}
        return guarantee_of(release, delta, view, adjacency, estimated_curve).epsilon

    x = find_largest(search, target, estimated, certified)
    return Calibration(search.release(x), rounds, certified(x), target, delta, view, adjacency)


def find_largest(
    search: Search, target: float, estimated: Callable[[float], float], certified: Callable[[float], float]
) -> float:
    """The largest x, to 5·10⁻⁴, with certified ε ≤ target. ε rises with x."""
    rising = _Rising(estimated)
    if rising.at(search.high) <= target and certified(search.high) <= target:
        return search.high
    guess = rising.largest(search.low, search.high, target)
    reached = certified(guess)
    if reached > target:
        # The estimate is low, by nearly the same factor close by.
        guess = rising.largest(search.low, guess, target * (target / reached))
    # The certified root lies close to the guess: steps away from it that double bracket the root.
    low, step = guess, _FINE
    while certified(low) > target:
        if low == search.low:
            raise _unreached(search, target, certified(low))
        low, step = max(low - step, search.low), 2.0 * step
    high, step = min(low + step, search.high), 2.0 * step
    while high < search.high and certified(high) <= target:
        low, high, step = high, min(high + step, search.high), 2.0 * step
    return _bisect(low, high, lambda x: certified(x) <= target, 5.0 * _FINE)


class _Rising:
    """An estimate that rises with x, and costs: what follows from values already had is not asked again.

    Only for estimates: of a bound each value counts by itself, as it rises only nearly everywhere.
    """

    def __init__(self, estimate: Callable[[float], float]) -> None:
        self._estimate = estimate
        self._known: dict[float, float] = {}

    def at(self, x: float) -> float:
        """The estimate at x."""
        if x not in self._known:
            self._known[x] = self._estimate(x)
        return self._known[x]

    def largest(self, low: float, high: float, target: float) -> float:
        """What `_bisect` finds, to `_FINE`. Secants close in with a third of its values."""
        self._close_in(low, high, target)

        def within(x: float) -> bool:
            if any(x <= known for known, value in self._known.items() if value <= target):
                return True
            if any(x >= known for known, value in self._known.items() if value > target):
                return False
            return self.at(x) <= target

        return _bisect(low, high, within, _FINE)

    def _close_in(self, low: float, high: float, target: float) -> None:
        """Ask on both sides of the crossing, within `_FINE` of each other.

        Secants on log ε, kept near enough to the middle that steps cannot pass bisection's by more than two
        (after Oliveira and Takahashi's ITP, ACM Transactions on Mathematical Software 47(1), 2020).
        """
        below, above = self._height(low, target), self._height(high, target)
        if below > 0.0 or above <= 0.0:
            return
        for known in sorted(self._known):
            if low < known < high:
                if self._known[known] <= target:
                    low, below = known, self._height(known, target)
                else:
                    high, above = known, self._height(known, target)
                    break
        reach = (high - low) * (1.0 + 1e-9)  # bisection would halve this in every step, and we keep up
        while (width := high - low) > _FINE / 2.0:
            middle = (low + high) / 2.0
            asked = middle
            if math.isfinite(above - below):
                asked = low - below * width / (above - below)
                asked += math.copysign(min(_FINE / 8.0 + 0.02 * width, abs(middle - asked)), middle - asked)
                room = max(reach - width / 2.0, 0.0)
                asked = min(max(asked, middle - room), middle + room)
            height = self._height(asked, target)
            if height <= 0.0:
                low, below = asked, height
            else:
                high, above = asked, height
            reach /= 2.0

    def _height(self, x: float, target: float) -> float:
        value = self.at(x)
        if value == 0.0:
            return -math.inf
        return math.log(value / target) if target > 0.0 else math.inf


def _unreached(search: Search, target: float, nearest: float) -> CalibrationError:
    """What is true where even the safest value that was tried is not enough."""
    safest, riskiest = search.value(search.low), search.value(search.high)
    return CalibrationError(
        f"no {search.name} between {min(safest, riskiest):.6g} and {max(safest, riskiest):.6g} reaches ε = "
        f"{target:g}, and none outside was tried: the nearest is {search.name} = {safest:.6g} "
        f"with ε = {nearest:.6g}",
        nearest=nearest,
        at=safest,
    )


def _bisect(low: float, high: float, within: Callable[[float], bool], fine: float) -> float:
    """The largest x, to `fine`, that is within; `low` where there is none."""
    while high - low > fine:
        middle = (low + high) / 2.0
        if within(middle):
            low = middle
        else:
            high = middle
    return low
