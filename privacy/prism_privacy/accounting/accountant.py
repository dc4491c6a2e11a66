"""The accountant: what has been spent so far, per view and adjacency, with the bound that was the smallest.

Three different words, never mixed:
- **to date** is ε of the rounds spent so far. It is a guarantee about a run that was going to stop here in
  any case, not about one that stopped because of what it saw.
- **planned** is ε of a plan fixed before round one. That is the guarantee of a run with fixed parameters.
- **filter** is the budget of a filter (`filters.py`). That is the guarantee of a run with adaptive
  parameters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prism_privacy import _validate, notebook
from prism_privacy.accounting.events import Bound, Event, Masks, compose, composed_curve, composition
from prism_privacy.accounting.group_privacy import group_epsilon
from prism_privacy.accounting.kappa.curve import Curve
from prism_privacy.accounting.kappa.store import coordinate_curve
from prism_privacy.errors import UnsoundComposition
from prism_privacy.masks.release import MaskRelease
from prism_privacy.units import Adjacency, Unit, View
from prism_privacy.wording import format_delta, format_epsilon

__all__ = ["Accountant", "Guarantee", "RoundSpending", "guarantee_of"]


@dataclass(frozen=True)
class Guarantee:
    """(ε, δ) for one client's whole contribution, with everything that it depends on.

    bound   which valid bound was the smallest: "renyi" (κ or zCDP through Rényi composition), "upload renyi"
            (a SUM bounded by its uploads), "exact composition" (unclipped randomized response), "nothing
            spent" (ε = 0) or "unprotected" (ε = inf)
    order   the Rényi order used, 0.0 where none was

    >>> print(Guarantee(float("inf"), 1e-5, View.SUM, Adjacency.ZERO_OUT, "unprotected", 0.0))
    ε = inf at δ = 1e-05 (client, sum, zero_out; unprotected)
    """

    epsilon: float
    delta: float
    view: View
    adjacency: Adjacency
    bound: Bound
    order: float
    unit: Unit = Unit.CLIENT

    def __str__(self) -> str:
        return (
            f"ε = {self.epsilon:.6g} at δ = {self.delta:g} "
            f"({self.unit}, {self.view}, {self.adjacency}; {self.bound})"
        )

    def _repr_html_(self) -> str:
        """For notebooks."""
        return notebook.table(
            f"({self.unit}, {self.view}, {self.adjacency})",
            [
                ("ε", format_epsilon(self.epsilon)),
                ("δ", format_delta(self.delta)),
                ("bound", self.bound),
            ],
        )


@dataclass(frozen=True)
class RoundSpending:
    """One point of a curve: round (from 1), ε of that round alone, and ε of all rounds up to it."""

    round: int
    this_round: Guarantee
    to_date: Guarantee


def guarantee_of(
    counts: Mapping[MaskRelease, int],
    delta: float,
    view: View,
    adjacency: Adjacency,
    coordinate: Callable[[int, float, float], Curve] = coordinate_curve,
) -> Guarantee:
    """The smallest ε that is proved for these rounds together, whatever their order (`events.compose`).

    counts      rounds spent with each release
    coordinate  as in `renyi_curve`: with another source than the default the result is an estimate
    """
    found = compose(_events(counts, coordinate), delta, Unit.CLIENT, view, adjacency)
    return Guarantee(found.epsilon, delta, view, adjacency, found.bound, found.order)


def _events(
    counts: Mapping[MaskRelease, int], coordinate: Callable[[int, float, float], Curve] = coordinate_curve
) -> dict[Event, int]:
    return {Masks(release, coordinate): rounds for release, rounds in counts.items()}


class Accountant:
    """Adds up releases and says ε, for one client that took part in every round it is told about.

    >>> acct = Accountant(delta=1e-5)
    >>> acct.spend(MaskRelease(flip=0.25, clip=1.0, space="probability", cohort=1000), rounds=20)
    >>> round(acct.epsilon(View.SUM, Adjacency.ZERO_OUT), 2)
    1.37
    >>> round(acct.epsilon(View.UPLOAD, Adjacency.ZERO_OUT), 0)
    101.0

    delta   the δ at which every ε is stated; 0 < δ < 1. Choose it well below 1/clients.
    """

    def __init__(self, delta: float) -> None:
        self._delta = _validate.delta(delta)
        self._spent: list[tuple[MaskRelease, int]] = []
        self._plan: Counter[MaskRelease] = Counter()
        self._known: dict[tuple[object, ...], Guarantee] = {}

    @property
    def delta(self) -> float:
        """The δ at which every ε is stated."""
        return self._delta

    @property
    def rounds(self) -> int:
        """Rounds spent so far."""
        return sum(rounds for _, rounds in self._spent)

    @property
    def spent(self) -> tuple[tuple[MaskRelease, int], ...]:
        """What was spent, in order: (release, rounds)."""
        return tuple(self._spent)

    def spend(self, release: MaskRelease, rounds: int = 1) -> None:
        """Add `rounds` rounds (aborted ones after the upload left count too) with the same parameters.

        The parameters must have been fixed before round one, or be a public function of nothing that depends
        on data; for others, use a filter.
        """
        rounds = _validate.count("rounds", rounds)
        if self._spent and self._spent[-1][0] == release:
            self._spent[-1] = (release, self._spent[-1][1] + rounds)
        else:
            self._spent.append((release, rounds))

    def plan(self, release: MaskRelease, rounds: int = 1) -> None:
        """Declare rounds before round one; `planned` is then the guarantee of the run."""
        if self._spent:
            raise UnsoundComposition("a plan is made before the first round is spent")
        self._plan[release] += _validate.count("rounds", rounds)

    def _counts(self) -> Counter[MaskRelease]:
        counts: Counter[MaskRelease] = Counter()
        for release, rounds in self._spent:
            counts[release] += rounds
        return counts

    def _guarantee(
        self, counts: Mapping[MaskRelease, int], view: View, adjacency: Adjacency, delta: float
    ) -> Guarantee:
        key = (frozenset(counts.items()), view, adjacency, delta)
        if key not in self._known:
            self._known[key] = guarantee_of(counts, delta, view, adjacency)
        return self._known[key]

    def guarantee(self, view: View, adjacency: Adjacency, *, delta: float | None = None) -> Guarantee:
        """ε to date with the bound that gave it; `delta` asks at another δ."""
        view, adjacency = _validate.view_and_adjacency(view, adjacency)
        delta = self._delta if delta is None else _validate.delta(delta)
        return self._guarantee(self._counts(), view, adjacency, delta)

    def epsilon(self, view: View, adjacency: Adjacency) -> float:
        """ε to date; `float("inf")` where nothing protects."""
        return self.guarantee(view, adjacency).epsilon

    def planned(self, view: View, adjacency: Adjacency) -> Guarantee:
        """ε of the plan: what a run with fixed parameters guarantees, however early it stops.

        Raises `UnsoundComposition` without a plan, or when more was spent than planned.
        """
        view, adjacency = _validate.view_and_adjacency(view, adjacency)
        if not self._plan:
            raise UnsoundComposition("nothing was planned: call plan() before the first round")
        beyond = self._counts() - self._plan
        if beyond:
            release, rounds = next(iter(beyond.items()))
            raise UnsoundComposition(
                f"{rounds} round(s) of {release} were spent beyond the plan, so the planned ε does not hold"
            )
        return self._guarantee(self._plan, view, adjacency, self._delta)

    def group(self, clients: int, view: View, adjacency: Adjacency) -> float:
        """ε to date for `clients` clients at once, at this δ. `group(1, …)` is `epsilon(…)`."""
        view, adjacency = _validate.view_and_adjacency(view, adjacency)
        clients = _validate.count("clients", clients)
        counts = self._counts()
        if clients == 1 or not counts:
            return self.epsilon(view, adjacency)
        single = composition(_events(counts), Unit.CLIENT, view, adjacency)
        return group_epsilon(
            clients,
            self._delta,
            single=lambda delta: single(delta).epsilon,
            curve=composed_curve(_events(counts), Unit.CLIENT, view, adjacency),
            uploads=composed_curve(_events(counts), Unit.CLIENT, View.UPLOAD, adjacency),
            failing=0.0
            if view is View.UPLOAD
            else sum(release.sum_failure * rounds for release, rounds in counts.items()),
        )

    def _repr_html_(self) -> str:
        """For notebooks: ε to date and planned, in both views and under both adjacencies."""
        head = ["one client", "ε to date"] + ["ε planned"] * bool(self._plan)
        rows = []
        for view in reversed(View):
            for adjacency in Adjacency:
                found = [self.epsilon(view, adjacency)]
                if self._plan:
                    found.append(self.planned(view, adjacency).epsilon)
                rows.append((f"{view}, {adjacency}", *map(format_epsilon, found)))
        return notebook.table(f"{self.rounds} rounds at δ = {format_delta(self._delta)}", rows, head)

    def curve(self, view: View, adjacency: Adjacency) -> tuple[RoundSpending, ...]:
        """ε of every round and to date, one point a round."""
        view, adjacency = _validate.view_and_adjacency(view, adjacency)
        return tuple(self._points(view, adjacency))

    def _points(self, view: View, adjacency: Adjacency) -> Iterator[RoundSpending]:
        counts: Counter[MaskRelease] = Counter()
        for release in _one_by_one(self._spent):
            counts[release] += 1
            alone = self._guarantee({release: 1}, view, adjacency, self._delta)
            to_date = self._guarantee(counts, view, adjacency, self._delta)
            yield RoundSpending(counts.total(), alone, to_date)


def _one_by_one(spent: Iterable[tuple[MaskRelease, int]]) -> Iterator[MaskRelease]:
    for release, rounds in spent:
        for _ in range(rounds):
            yield release
