"""Epsilon over several ledgers on the same owners' data: what all of them together tell.

Each ledger's epsilon speaks of that ledger alone. Whoever sees all of them learns more. Releases are
composed, never their epsilons, wherever their curves are known (`prism_privacy.accounting.events`).

**One client.** Rounds of masks add up in Renyi divergence (`prism_privacy.Accountant`), over all ledgers as
over the rounds of one. A record-level release that was opened over all clients is Gaussian noise against all
that a client has; its curve, alpha mu²/2 for a move of mu in units of the noise, adds to the others.

**One image.** Distinct releases of the same images are one Gaussian release with the coordinates of all: the
squares of their moves add up. Bits of measured rounds add up in Renyi divergence, with each other and with
those. A release of another kind adds its epsilon and its delta.

A release that several runs trained from was made once and counts once: the random id of it in their ledgers
says so (`record_id` in a header's settings).

**What a ledger states is the least.** A ledger may say that each client was in few of its rounds, and state
more than those rounds cost. No total is below what one of its ledgers states. With other ledgers the rounds
add up as they are charged, and not what is stated.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import cast

from prism_privacy.accounting.events import (
    Composed,
    Event,
    Masks,
    Moments,
    OpenedMoments,
    RecordMasks,
    Stated,
    Unbounded,
    composition,
)
from prism_privacy.errors import InvalidParameter, LedgerError
from prism_privacy.ledger.check import LedgerReport
from prism_privacy.ledger.entry import LedgerEntry, RecordGuarantee
from prism_privacy.masks.release import MaskRelease
from prism_privacy.measured.release import MeasuredRelease
from prism_privacy.moments.release import MomentRelease, RecordAdjacency
from prism_privacy.units import Adjacency, Unit, View

__all__ = [
    "Charged",
    "ClientTotal",
    "ImageTotal",
    "Opened",
    "charged_by_client",
    "charged_in",
    "charging_one_client",
    "mask_releases",
    "opened_in",
    "release_key",
]


@dataclass(frozen=True)
class Opened:
    """What an opened record-level release tells of a client depends on this, and on its noise.

    Attributes:
        images: the most that a client has; None where nobody says.
        shares: how many honest clients' shares carry the noise.
    """

    images: int | None
    shares: int


@dataclass(frozen=True)
class Charged:
    """What one ledger charged for one client, and for one image of it.

    Attributes:
        name: how notes call the ledger.
        masks: the mask releases of the client that was in most rounds, oldest first, those of sessions that
            did not open included.
        claims: False where test coins leave it without any bound.
        record: its record-level guarantee, if there is one.
        release: equal for ledgers of one and the same record-level release, see `release_key`.
        opened: where that release was opened over all clients; None where each client keeps its own.
        images: what measured rounds released of one image; empty where clients trained.
        lines: its lines, as far as they were read: each states what was spent by then.
    """

    name: str
    masks: tuple[MaskRelease, ...]
    claims: bool
    record: RecordGuarantee | None
    release: str
    opened: Opened | None
    images: tuple[MaskRelease, ...] = ()
    lines: tuple[LedgerEntry, ...] = ()


def charged_in(ledger: LedgerReport, name: str) -> Charged:
    """What a ledger charged; notes call it by `name`.

    Raises:
        LedgerError: a charge is not a mask release, so nobody can say what it adds.
    """
    charged = _charged(ledger, name, charging_one_client(ledger.entries))
    return replace(charged, claims=all(entry.epsilon is not None for entry in _rounds(ledger.entries)))


def charged_by_client(ledger: LedgerReport, name: str) -> list[Charged]:
    """What a ledger charged each client that its rounds name, equal accounts once; where they name nobody,
    `charged_in` alone.

    Raises:
        LedgerError: as `charged_in`.
    """
    rounds = _rounds(ledger.entries)
    if not _names_clients(rounds):
        return [charged_in(ledger, name)]
    accounts = (_charged(ledger, name, own) for own in _accounts(rounds))
    return list({(each.masks, each.images, each.claims): each for each in accounts}.values())


def _charged(ledger: LedgerReport, name: str, masks: list[LedgerEntry]) -> Charged:
    record = next((entry.record for entry in reversed(ledger.entries) if entry.record is not None), None)
    try:
        clients, images = mask_releases(masks)
    except (TypeError, InvalidParameter) as error:
        raise LedgerError(f"{name}: not a mask release: {error}") from None
    return Charged(
        name=name,
        masks=clients,
        images=images,
        claims=all(entry.epsilon is not None for entry in masks),
        record=record,
        release=release_key(record, ledger.settings.get("record_id"), ledger.head),
        opened=opened_in(ledger),
        lines=tuple(ledger.entries),
    )


def mask_releases(
    entries: Iterable[LedgerEntry],
) -> tuple[tuple[MaskRelease, ...], tuple[MaskRelease, ...]]:
    """What entries about masks released of a client, and, of measured rounds, of one image of it.

    Of an image only what they claim something for: the radius depends on the adjacency.

    Raises:
        TypeError, InvalidParameter: an entry releases something else.
    """
    clients: list[MaskRelease] = []
    images: list[MaskRelease] = []
    for entry in entries:
        if "client_clip" not in entry.release:
            clients.append(MaskRelease(**entry.release))  # type: ignore[arg-type]
            continue
        release = MeasuredRelease(**entry.release)  # type: ignore[arg-type]
        clients.append(release.release(Unit.CLIENT))
        if entry.record is not None and entry.record.spent is not None:
            images.append(release.release(Unit.RECORD, cast(RecordAdjacency, entry.record.adjacency)))
    return tuple(clients), tuple(images)


def opened_in(ledger: LedgerReport) -> Opened | None:
    """How the record-level release of a ledger was opened over all clients, as its writer signed it."""
    entries = ledger.entries
    if not entries or entries[0].record is None or ledger.settings.get("record_release") != "summed":
        return None
    return Opened(ledger.records, shares=entries[0].cohort)


def charging_one_client(entries: Iterable[LedgerEntry]) -> list[LedgerEntry]:
    """The entries about masks that charge the client that was in most rounds.

    That is all of them, unless a round invites only some of the clients: then each says how often anybody was
    in one so far (`most_rounds`). Measured rounds differ, and their entries say who was invited: of these, as
    many as anybody was in, such that no client's rounds, put in order of their clips, have a larger clip; all
    of them, where they differ in more than clips.
    """
    rounds = _rounds(entries)
    if _names_clients(rounds):
        return _covering_all(rounds)
    found: list[LedgerEntry] = []
    for entry in rounds:
        most = entry.metrics.get("most_rounds")
        if not (isinstance(most, int) and 1 <= most <= len(found)):
            found.append(entry)
    return found


def _rounds(entries: Iterable[LedgerEntry]) -> list[LedgerEntry]:
    return [entry for entry in entries if entry.kind in ("round", "aborted")]


def _names_clients(rounds: Iterable[LedgerEntry]) -> bool:
    return any(entry.invited and "client_clip" in entry.release for entry in rounds)


def _accounts(rounds: Iterable[LedgerEntry]) -> list[list[LedgerEntry]]:
    """The rounds of each client that is named, in order; rounds that name nobody are everybody's."""
    whose = [(entry, set(entry.invited)) for entry in rounds]
    clients = sorted(set().union(*(invited for _, invited in whose)))
    return [[entry for entry, of in whose if not of or client in of] for client in clients]


def _covering_all(rounds: list[LedgerEntry]) -> list[LedgerEntry]:
    """Measured rounds that cost at least what any client was charged.

    Cost grows with the clip, where nothing else differs; rounds that differ in more all count.
    """
    if any({**entry.release, "clip": 0} != {**rounds[0].release, "clip": 0} for entry in rounds):
        return rounds

    def clip(entry: LedgerEntry) -> float:
        return float(cast(float, entry.release["clip"]))

    ranked = [sorted(own, key=clip, reverse=True) for own in _accounts(rounds)]
    return [
        max((each[rank] for each in ranked if rank < len(each)), key=clip)
        for rank in range(max(map(len, ranked)))
    ]


def release_key(record: RecordGuarantee | None, release_id: object, ledger: str) -> str:
    """Equal for ledgers of one and the same record-level release: those that name it by its random id.

    A ledger that names none has a release of its own: `ledger` is a word that no other ledger has.
    """
    if record is None or release_id is None:
        return ledger
    return repr((release_id, sorted(record.release.items())))


class ClientTotal:
    """Epsilon for everything that one client contributes, over the ledgers that were added.

    >>> total = ClientTotal(View.SUM, Adjacency.ZERO_OUT)
    >>> for rounds in (5, 15):
    ...     total.spend(MaskRelease(flip=0.25, clip=1.0, cohort=1000), rounds)
    >>> round(total.epsilon(1e-5), 2)
    1.37
    """

    def __init__(self, view: View, adjacency: Adjacency) -> None:
        self._view, self._adjacency = view, adjacency
        self._masks: Counter[Event] = Counter()
        self._opened: dict[str, Event] = {}
        self._silent: Counter[Event] = Counter()
        self._least = _Least()

    def add(self, charged: Charged) -> None:
        """Everything that a ledger charged: `open`, `spend` for each round, and `state`."""
        self.open(charged)
        if charged.opened is None:
            for release, rounds in Counter(charged.masks).items():
                self.spend(release, rounds)
        self.state(charged)

    def state(self, charged: Charged) -> None:
        """What a ledger itself states to date: everything costs no less."""
        for line in charged.lines:
            self._least.add(line.spent(self._view, self._adjacency).to_date, line.delta)

    def open(self, charged: Charged) -> None:
        """The record-level release of a ledger, where it was opened; masks made from it cost nothing more."""
        if not charged.claims:
            self._silent[Unbounded(f"{charged.name} claims no epsilon (test coins)")] = 1
        if charged.opened is None:
            return
        release, images = _moments(charged.record), charged.opened.images
        if release is None or images is None:
            found: Event = Unbounded(f"{charged.name} opened a release of which nobody says what it tells")
        else:
            found = OpenedMoments(release, images, charged.opened.shares)
        self._opened[charged.release] = self._dearer(self._opened.get(charged.release, found), found)

    def spend(self, release: MaskRelease, rounds: int = 1) -> None:
        """Rounds of masks."""
        self._masks[Masks(release)] += rounds

    def epsilon(self, delta: float) -> float:
        """Of everything so far; `inf` where nothing protects, or nobody claims that something does."""
        return self.composed()(delta).epsilon

    def why(self, delta: float) -> tuple[str, ...]:
        """Why it is infinite; empty where it is not."""
        return self.composed()(delta).why

    def composed(self) -> Callable[[float], Composed]:
        """Everything so far, as a function of δ."""
        events = self._masks + Counter(self._opened.values()) + self._silent
        return self._least.at_least(composition(events, Unit.CLIENT, self._view, self._adjacency))

    def _dearer(self, one: Event, other: Event) -> Event:
        """Of two accounts of one release, the one that costs more."""

        def noise(event: Event) -> float:
            return event.loss(Unit.CLIENT, self._view, self._adjacency).multiplier or 0.0

        return min(one, other, key=noise)


class ImageTotal:
    """Epsilon for one image, over the ledgers that were added: where they were summed, against an observer
    of the sums.

    It grows with measured rounds, and with no others.

    Args:
        adjacency: "swap" or "add_remove". One says nothing of the other: a release under swap shows how many
            images there are, exactly.
    """

    def __init__(self, adjacency: str) -> None:
        self._adjacency = adjacency
        self._seen: set[str] = set()
        self._events: Counter[Event] = Counter()
        self._least = _Least()

    @property
    def releases(self) -> int:
        """How many distinct releases there are."""
        return len(self._seen)

    def add(self, charged: Charged) -> str | None:
        """What a ledger charged for one image; what a reader should know of it, in words."""
        for stated in (line.record for line in charged.lines if line.record is not None):
            if stated.adjacency == self._adjacency:
                to_date = stated.epsilon if stated.spent is None else stated.spent[View.SUM].to_date
                self._least.add(to_date, stated.delta)
        record = charged.record
        if record is None:
            why = f"no bound: {charged.name} has no record-level guarantee"
            self._events[Unbounded(why)] += 1
            return why
        if charged.release in self._seen:
            return f"{charged.name} trained from a release that was charged before"
        self._seen.add(charged.release)
        if record.spent is not None:
            if len(charged.images) < len(charged.masks) or not charged.claims:
                why = f"no bound: {charged.name} has measured rounds that claim nothing for one image"
                self._events[Unbounded(why)] += 1
                return why
            adjacency = cast(RecordAdjacency, record.adjacency)
            for image in charged.images:
                self._events[RecordMasks(image, adjacency)] += 1
            if adjacency != self._adjacency:
                return f"no bound: {charged.name} speaks of {adjacency}, not {self._adjacency}"
            return (
                f"{charged.name}: {len(charged.images)} measured rounds, counted against an observer of the "
                "opened sums; an observer of uploads learns more"
            )
        release = _moments(record)
        if release is not None:
            self._events[Moments(release)] += 1
        else:
            self._events[Stated(record.epsilon, record.delta, record.adjacency)] += 1
        if record.adjacency != self._adjacency:
            return f"no bound: {charged.name} speaks of {record.adjacency}, not {self._adjacency}"
        if release is None:
            return f"{charged.name}: a release of another kind; its epsilon and delta are added"
        return None

    @property
    def delta_of_others(self) -> float:
        """What releases of another kind take of any delta."""
        return math.fsum(
            times * event.delta
            for event, times in self._events.items()
            if isinstance(event, Stated) and event.adjacency == self._adjacency
        )

    def epsilon(self, delta: float) -> float:
        """Of everything so far."""
        return self.composed()(delta).epsilon

    def why(self, delta: float) -> tuple[str, ...]:
        """Why it is infinite; empty where it is not."""
        return self.composed()(delta).why

    def composed(self) -> Callable[[float], Composed]:
        """Everything so far, as a function of δ."""
        return self._least.at_least(composition(self._events, Unit.RECORD, View.SUM, self._adjacency))


class _Least:
    """What ledgers state themselves: each epsilon at its own delta, and at every smaller one."""

    def __init__(self) -> None:
        self._epsilons: dict[float, float] = {}

    def add(self, epsilon: float, delta: float) -> None:
        """One that is infinite states nothing."""
        if math.isfinite(epsilon):
            self._epsilons[delta] = max(epsilon, self._epsilons.get(delta, 0.0))

    def at_least(self, composed: Callable[[float], Composed]) -> Callable[[float], Composed]:
        """What releases cost, or what is stated where that is more."""
        stated = dict(self._epsilons)

        def found(delta: float) -> Composed:
            least = max((epsilon for at, epsilon in stated.items() if at >= delta), default=0.0)
            own = composed(delta)
            return own if own.epsilon >= least else Composed(least, "stated")

        return found


def _moments(record: RecordGuarantee | None) -> MomentRelease | None:
    """The release of feature moments that a guarantee is about; None if it is about another kind, or more."""
    if record is None:
        return None
    try:
        release = MomentRelease(**record.release)  # type: ignore[arg-type]
        alone = release.epsilon(record.delta)
    except (TypeError, InvalidParameter):
        return None
    whole = release.adjacency == record.adjacency and record.epsilon <= alone * (1.0 + 1e-6)
    return release if whole else None
