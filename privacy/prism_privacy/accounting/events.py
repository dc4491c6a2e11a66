"""Releases of any kind as events that compose: what each costs, and one ε for all of them together.

An event says what it costs one protected unit, against one observer, between one kind of neighbouring worlds.
Events whose Rényi curves are known add up at each order (Mironov, "Rényi Differential Privacy", CSF 2017,
proposition 1). Where all events are of a kind that composes exactly, that is used: Gaussian noise as one
release with the coordinates of all, randomized response without a clip as a binomial sum (`unclipped`), what
dp_accounting describes by privacy loss distributions. An event of which nobody knows more than its (ε, δ)
adds those. One without a bound for what is asked makes the whole infinite, and says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from prism_privacy import _validate
from prism_privacy.accounting.kappa.curve import Curve
from prism_privacy.accounting.kappa.store import ORDERS, coordinate_curve
from prism_privacy.accounting.renyi import renyi_curve, to_epsilon
from prism_privacy.accounting.unclipped import exact_epsilon
from prism_privacy.errors import UnsoundComposition
from prism_privacy.masks.release import MaskRelease
from prism_privacy.moments.discrete_gaussian import gaussian_epsilon
from prism_privacy.moments.release import MomentRelease, RecordAdjacency
from prism_privacy.units import Adjacency, Unit, View
from prism_privacy.wording import format_delta

if TYPE_CHECKING:
    from dp_accounting import DpEvent
    from dp_accounting.pld import PLDAccountant

__all__ = [
    "Bound",
    "Composed",
    "DpAccounted",
    "Event",
    "Loss",
    "Masks",
    "Moments",
    "OpenedMoments",
    "Stated",
    "Unbounded",
    "compose",
    "composed_curve",
    "composition",
    "loss_distributions",
]

Floats = NDArray[np.float64]
Bound = Literal[
    "nothing spent", "renyi", "upload renyi", "exact composition", "gaussian", "dp_accounting", "stated",
    "unprotected",
]  # fmt: skip

_MOST_OF_SHARES = 100.0
"""Above this ε nothing is proved of noise that is made of shares."""
_MOST_DP_ORDER = 512.0
"""Above this order dp_accounting's series for sampled noise need not converge."""


@dataclass(frozen=True, eq=False)
class Loss:
    """What one event costs one unit, against one observer, between one kind of neighbouring worlds.

    curve       gives Rényi divergences on `ORDERS`, shape (A,); None where only `stated` or `why` is known
    failure     the probability, whatever the data, with which it does not protect at all; comes out of δ
    multiplier  where it is Gaussian noise: how much, in units of the distance of the worlds
    bits        where it is randomized response without a clip: the flip probability and how many bits
    described   where dp_accounting knows it: its description
    stated      (ε, δ), where no more is known than that
    most        no ε above this is proved
    why         why it has no bound at all, "" where it has one
    weak        where it has one: why even that may be infinite
    """

    curve: Callable[[], Floats] | None = None
    failure: float = 0.0
    multiplier: float | None = None
    bits: tuple[float, int] | None = None
    described: DpEvent | None = None
    stated: tuple[float, float] | None = None
    most: float = math.inf
    why: str = ""
    weak: str = "a release is too weak for any bound"

    @classmethod
    def gaussian(cls, multiplier: float, most: float = math.inf, weak: str = weak) -> Loss:
        """Of Gaussian noise `multiplier` times the distance of the worlds: the curve α/(2·multiplier²)."""

        def curve() -> Floats:
            with np.errstate(divide="ignore"):
                return np.asarray(ORDERS / np.float64(2.0 * multiplier * multiplier))

        return cls(curve, multiplier=multiplier, most=most, weak=weak)


@runtime_checkable
class Event(Protocol):
    """A release, as far as composing needs it. Equal events are releases of one kind; each counts."""

    def loss(self, unit: Unit, view: View, adjacency: str) -> Loss:
        """What it costs `unit` against who has `view`, between worlds that differ by `adjacency`."""
        ...


@dataclass(frozen=True)
class Masks:
    """One round's mask bits of one client; `coordinate` as in `renyi_curve`."""

    release: MaskRelease
    coordinate: Callable[[int, float, float], Curve] = coordinate_curve

    def loss(self, unit: Unit, view: View, adjacency: str) -> Loss:
        """See `Event.loss`."""
        if unit is not Unit.CLIENT:
            return Loss(why="masks protect clients; of one record alone they say nothing")
        release = self.release
        return Loss(
            lambda: renyi_curve(release, view, Adjacency(adjacency), self.coordinate),
            failure=release.sum_failure if view is View.SUM else 0.0,
            bits=None if release.clip is not None or release.dim is None else (release.flip, release.dim),
            weak=_without_noise(release),
        )


@dataclass(frozen=True)
class RecordMasks:
    """One round's mask bits as one record moves them, for ledgers that are added up.

    What a run itself has spent of a record, its accountant says: `RecordGuarantee.measured` in
    `ledger/entry.py`.

    release    its clip is the whole radius of a record under `adjacency`
    """

    release: MaskRelease
    adjacency: RecordAdjacency

    def loss(self, unit: Unit, view: View, adjacency: str) -> Loss:
        """See `Event.loss`."""
        if unit is not Unit.RECORD or adjacency != self.adjacency:
            return Loss(why=f"these bits speak of one record under {self.adjacency}")
        release = self.release
        return Loss(
            lambda: renyi_curve(release, view, Adjacency.ZERO_OUT),
            failure=release.sum_failure if view is View.SUM else 0.0,
            weak=_without_noise(release),
        )


def _without_noise(release: MaskRelease) -> str:
    return f"flip = {release.flip:g} leaves masks without {'enough ' if release.flip else ''}noise"


@dataclass(frozen=True)
class Moments:
    """A record-level release of moments; whoever looks sees the same."""

    release: MomentRelease

    def loss(self, unit: Unit, view: View, adjacency: str) -> Loss:
        """See `Event.loss`."""
        if unit is not Unit.RECORD:
            return Loss(why="a record-level release that is not opened has no bound for a whole client")
        if adjacency != self.release.adjacency:
            return Loss(why=f"a release speaks of {self.release.adjacency}, not {adjacency}")
        return Loss.gaussian(self.release.multiplier)


@dataclass(frozen=True)
class OpenedMoments:
    """A record-level release that was opened over all clients: noise against all that one client has.

    release  over all clients
    images   the most that one client has
    shares   how many honest clients' shares carry the noise
    """

    release: MomentRelease
    images: int
    shares: int

    def __post_init__(self) -> None:
        _validate.count("images", self.images)
        _validate.count("shares", self.shares)

    def loss(self, unit: Unit, view: View, adjacency: str) -> Loss:
        """See `Event.loss`. Above ε = 100 nothing is proved of noise that is made of shares."""
        if unit is not Unit.CLIENT:
            return Loss(why="an opened release is charged for one record as it was made: use Moments")
        # Zeroed out a client adds noise alone; replaced, other images.
        kind: RecordAdjacency = "add_remove" if Adjacency(adjacency) is Adjacency.ZERO_OUT else "swap"
        multiplier = replace(self.release, adjacency=kind).multiplier / self.images
        shares = self.shares if view is View.UPLOAD else 1
        weak = (
            "one client's share of the noise on opened moments is too little for all that it has"
            if shares > 1
            else "opened moments carry noise for one record, and all that a client has moves them too far"
        )
        return Loss.gaussian(multiplier / math.sqrt(shares), most=_MOST_OF_SHARES, weak=weak)


@dataclass(frozen=True)
class DpAccounted:
    """What dp_accounting describes, such as DP-SGD, for one record that is added or removed."""

    event: DpEvent

    def loss(self, unit: Unit, view: View, adjacency: str) -> Loss:
        """See `Event.loss`."""
        from dp_accounting import NeighboringRelation
        from dp_accounting.rdp import RdpAccountant

        if unit is not Unit.RECORD or adjacency != "add_remove":
            return Loss(why=f"{type(self.event).__name__} speaks of one record under add_remove")
        converging = ORDERS <= _MOST_DP_ORDER

        def fresh() -> RdpAccountant:
            return RdpAccountant(ORDERS[converging].tolist(), NeighboringRelation.ADD_OR_REMOVE_ONE)

        def curve() -> Floats:
            found = np.full(ORDERS.shape, np.inf)
            found[converging] = fresh().compose(self.event).rdp
            return found

        if not fresh().supports(self.event):
            raise UnsoundComposition(f"dp_accounting has no Rényi curve of {self.event!r}")

        return Loss(curve, described=self.event)


@dataclass(frozen=True)
class Stated:
    """A release of another kind, of which no more is known than its record-level guarantee."""

    epsilon: float
    delta: float
    adjacency: str

    def loss(self, unit: Unit, view: View, adjacency: str) -> Loss:
        """See `Event.loss`."""
        if unit is not Unit.RECORD or adjacency != self.adjacency:
            return Loss(why=f"a release speaks of one record under {self.adjacency}")
        return Loss(stated=(self.epsilon, self.delta))


@dataclass(frozen=True)
class Unbounded:
    """A release that nobody claims a bound for, and why."""

    why: str

    def loss(self, unit: Unit, view: View, adjacency: str) -> Loss:
        """See `Event.loss`."""
        return Loss(why=self.why)


@dataclass(frozen=True)
class Composed:
    """ε of events together; the bound that gave it, its Rényi order (0: none), and why it is infinite."""

    epsilon: float
    bound: Bound
    order: float = 0.0
    why: tuple[str, ...] = ()


def compose(
    events: Mapping[Event, int], delta: float, unit: Unit, view: View, adjacency: Adjacency | str
) -> Composed:
    """The smallest ε at δ that is proved for these events together, whatever their order.

    events     how often there was each
    adjacency  an `Adjacency` for a client; "swap" or "add_remove" for a record

    Raises `UnsoundComposition` for anything but an event: nobody knows what it costs.

    >>> masks, moments = MaskRelease(0.25, 1.0, cohort=1000), MomentRelease(1000, 1.0, 0.002)
    >>> round(compose({Masks(masks): 20}, 1e-5, Unit.CLIENT, View.SUM, Adjacency.ZERO_OUT).epsilon, 2)
    1.37
    >>> round(compose({Moments(moments): 1}, 1e-5, Unit.RECORD, View.SUM, "swap").epsilon, 2)
    4.69
    """
    return composition(events, unit, view, adjacency)(delta)


def composition(
    events: Mapping[Event, int], unit: Unit, view: View, adjacency: Adjacency | str
) -> Callable[[float], Composed]:
    """`compose` as a function of δ, for many of them: Rényi curves are added up once."""
    _refuse_unknown(events)
    events = {event: times for event, times in events.items() if times}
    uploads = _Observed(_losses(events, unit, View.UPLOAD, str(adjacency)))
    sums = _Observed(_losses(events, unit, View.SUM, str(adjacency))) if view is View.SUM else None
    return lambda delta: _composed(uploads, sums, delta)


def _composed(uploads: _Observed, sums: _Observed | None, delta: float) -> Composed:
    if not uploads.losses:
        return Composed(0.0, "nothing spent")
    losses, best = uploads.losses, uploads.together(delta)
    if sums is not None:  # who sees sums alone sees less than who sees uploads
        bound: Bound = "upload renyi" if best.bound == "renyi" else best.bound
        best = replace(best, bound=bound)
        losses, found = sums.losses, sums.together(delta)
        if found.epsilon <= best.epsilon:
            best = found
    bits = [(loss.bits, times) for loss, times in losses if loss.bits is not None]
    if len(bits) == len(losses):
        # Bits with a larger flip probability are post-processings of bits with the smallest one.
        exact = exact_epsilon(
            min(flip for (flip, _), _ in bits), sum(n * times for (_, n), times in bits), delta
        )
        if exact < best.epsilon:
            best = Composed(exact, "exact composition")
    if math.isinf(best.epsilon) or best.epsilon > min(loss.most for loss, _ in losses):
        return Composed(math.inf, "unprotected", why=best.why or _why(losses, delta))
    return best


def _why(losses: list[tuple[Loss, int]], delta: float) -> tuple[str, ...]:
    """Why events that each have a bound are infinite together: some alone are, or they share a limit."""

    def infinite(loss: Loss) -> bool:
        epsilon = _Observed([(loss, 1)]).together(delta).epsilon
        return math.isinf(epsilon) or epsilon > loss.most

    alone = tuple(dict.fromkeys(loss.weak for loss, _ in losses if infinite(loss)))
    if alone:
        return alone
    most = min(loss.most for loss, _ in losses)
    if math.isfinite(most):
        return (f"together they pass ε = {most:g}, above which nothing is proved of noise made of shares",)
    return (f"delta = {format_delta(delta)} is used up by what each of them takes of it",)


def composed_curve(events: Mapping[Event, int], unit: Unit, view: View, adjacency: Adjacency | str) -> Floats:
    """The Rényi curve of all events together, shape (A,); `inf` throughout where one has none."""
    _refuse_unknown(events)
    return _curve(_losses(events, unit, view, str(adjacency)))


def _refuse_unknown(events: Mapping[Event, int]) -> None:
    for event in events:
        if not isinstance(event, Event):
            raise UnsoundComposition(f"nobody knows what {event!r} costs: it is not an event")


def _losses(events: Mapping[Event, int], unit: Unit, view: View, adjacency: str) -> list[tuple[Loss, int]]:
    return [(event.loss(unit, view, adjacency), times) for event, times in events.items()]


def _curve(losses: list[tuple[Loss, int]]) -> Floats:
    total = np.zeros(ORDERS.shape)
    for loss, times in losses:
        with np.errstate(over="ignore"):
            total = total + (np.inf if loss.curve is None else times * loss.curve())
    return total


class _Observed:
    """What one observer sees of events."""

    def __init__(self, losses: list[tuple[Loss, int]]) -> None:
        self.losses = losses
        self._known = [(loss.stated, times) for loss, times in losses if loss.stated is not None]
        self._rest = [(loss, times) for loss, times in losses if loss.stated is None]

    @cached_property
    def _curve(self) -> Floats:
        return _curve(self._rest)

    def together(self, delta: float) -> Composed:
        """The smallest ε at δ."""
        unbounded = tuple(dict.fromkeys(loss.why for loss, _ in self.losses if loss.why))
        added = math.fsum(times * epsilon for (epsilon, _), times in self._known)
        left = delta - math.fsum(times * taken for (_, taken), times in self._known)
        if unbounded or left < -1e-12 * delta:
            return Composed(math.inf, "unprotected", why=unbounded)
        if not self._rest:
            return Composed(added, "stated")
        # The secure sum fails with a probability that does not depend on data: it comes out of δ.
        left -= sum(loss.failure * times for loss, times in self._rest) * (1.0 + 1e-9)
        if left <= 0.0:
            return Composed(math.inf, "unprotected")
        if all(loss.multiplier is not None for loss, _ in self._rest):
            return Composed(added + gaussian_epsilon(_one_multiplier(self._rest), left), "gaussian")
        if all(loss.described is not None for loss, _ in self._rest):
            return Composed(added + _by_loss_distributions(self._rest, left), "dp_accounting")
        epsilon, order = to_epsilon(self._curve, left)
        return Composed(added + epsilon, "renyi", order)


def _one_multiplier(losses: list[tuple[Loss, int]]) -> float:
    """Of one Gaussian release with the coordinates of all: the squares of the distances add up."""
    multipliers = [(loss.multiplier or 0.0, times) for loss, times in losses]
    if len(multipliers) == 1 and multipliers[0][1] == 1:  # what it claims itself, to the last digit
        return multipliers[0][0]
    if not all(multiplier for multiplier, _ in multipliers):
        return 0.0
    return 1.0 / math.sqrt(math.fsum(times / multiplier**2 for multiplier, times in multipliers))


def loss_distributions() -> PLDAccountant:
    """A fresh accountant of privacy loss distributions, which discretizes pessimistically."""
    from dp_accounting.pld import PLDAccountant

    # A coarser grid than the default's 1e-4: ten times as fast, and never lower.
    return PLDAccountant(value_discretization_interval=1e-3)


def _by_loss_distributions(losses: list[tuple[Loss, int]], delta: float) -> float:
    accountant = loss_distributions()
    for loss, times in losses:
        accountant.compose(loss.described, times)
    return float(accountant.get_epsilon(delta))
