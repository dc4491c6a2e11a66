"""Epsilon over several ledgers on the same owners' data: what all of them together tell.

Each ledger's epsilon speaks of that ledger alone. Whoever sees all of them learns more. Releases are
composed, never their epsilons, wherever their curves are known.

**One client.** Rounds of masks add up in Renyi divergence (`prism_privacy.Accountant`), over all ledgers as
over the rounds of one. A record-level release that was opened over all clients is Gaussian noise against all
that a client has; its curve, alpha mu²/2 for a move of mu in units of the noise, adds to the others.

**One image.** Distinct releases of the same images are one Gaussian release with the coordinates of all: the
squares of their moves add up. A release of another kind adds its epsilon and its delta.

A release that several runs trained from was made once and counts once: the random id of it in their ledgers
says so (`record_id` in a header's settings).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from prism_privacy.accounting.accountant import guarantee_of
from prism_privacy.accounting.kappa.store import ORDERS
from prism_privacy.accounting.renyi import renyi_curve, to_epsilon
from prism_privacy.errors import InvalidParameter, LedgerError
from prism_privacy.ledger.check import LedgerReport
from prism_privacy.ledger.entry import LedgerEntry, RecordGuarantee
from prism_privacy.masks.release import MaskRelease
from prism_privacy.moments.discrete_gaussian import SMOOTHING, gaussian_epsilon
from prism_privacy.moments.release import MomentRelease, RecordAdjacency
from prism_privacy.units import Adjacency, View

__all__ = [
    "Charged",
    "ClientTotal",
    "ImageTotal",
    "Opened",
    "charged_in",
    "charging_one_client",
    "opened_in",
    "release_key",
]

_PROVED = 100.0
"""Noise of shares is cut off at 24 standard deviations: above this epsilon nothing is claimed of a release
that is made of shares (`prism_privacy.SummedMoments`)."""


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
    """

    name: str
    masks: tuple[MaskRelease, ...]
    claims: bool
    record: RecordGuarantee | None
    release: str
    opened: Opened | None


def charged_in(ledger: LedgerReport, name: str) -> Charged:
    """What a ledger charged; notes call it by `name`.

    Raises:
        LedgerError: a charge is not a mask release, so nobody can say what it adds.
    """
    masks = charging_one_client(ledger.entries)
    record = next((entry.record for entry in ledger.entries if entry.record is not None), None)
    try:
        releases = tuple(MaskRelease(**entry.release) for entry in masks)  # type: ignore[arg-type]
    except (TypeError, InvalidParameter) as error:
        raise LedgerError(f"{name}: not a mask release: {error}") from None
    return Charged(
        name=name,
        masks=releases,
        claims=all(entry.epsilon is not None for entry in masks),
        record=record,
        release=release_key(record, ledger.settings.get("record_id"), ledger.head),
        opened=opened_in(ledger),
    )


def opened_in(ledger: LedgerReport) -> Opened | None:
    """How the record-level release of a ledger was opened over all clients, as its writer signed it."""
    entries = ledger.entries
    if not entries or entries[0].record is None or ledger.settings.get("record_release") != "summed":
        return None
    return Opened(ledger.records, shares=entries[0].cohort)


def charging_one_client(entries: Iterable[LedgerEntry]) -> list[LedgerEntry]:
    """The entries about masks that charge the client that was in most rounds.

    That is all of them, unless a round invites only some of the clients: then each says how often anybody was
    in one so far (`most_rounds`).
    """
    found: list[LedgerEntry] = []
    for entry in entries:
        most = entry.metrics.get("most_rounds")
        if entry.kind in ("round", "aborted") and not (isinstance(most, int) and most <= len(found)):
            found.append(entry)
    return found


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
        self._masks: Counter[MaskRelease] = Counter()
        self._moves: dict[str, tuple[float, float]] = {}
        self._bounded = True

    def add(self, charged: Charged) -> None:
        """Everything that a ledger charged."""
        self.open(charged)
        if charged.opened is None:
            for release, rounds in Counter(charged.masks).items():
                self.spend(release, rounds)

    def open(self, charged: Charged) -> None:
        """The record-level release of a ledger, where it was opened; masks made from it cost nothing more."""
        self._bounded &= charged.claims
        if charged.opened is None:
            return
        release = _moments(charged.record)
        if release is None or charged.opened.images is None:
            found = math.inf, math.inf
        else:
            # Zeroed out it adds noise alone; replaced, other images.
            kind: RecordAdjacency = "add_remove" if self._adjacency is Adjacency.ZERO_OUT else "swap"
            summed = charged.opened.images * _move(replace(release, adjacency=kind))
            found = summed, summed * math.sqrt(charged.opened.shares)
        known = self._moves.get(charged.release, found)
        self._moves[charged.release] = max(known, found)

    def spend(self, release: MaskRelease, rounds: int = 1) -> None:
        """Rounds of masks."""
        self._masks[release] += rounds

    def epsilon(self, delta: float) -> float:
        """Of everything so far; `inf` where nothing protects, or nobody claims that something does."""
        if not self._bounded:
            return math.inf
        if not self._moves:
            return guarantee_of(self._masks, delta, self._view, self._adjacency).epsilon
        # Whoever sees sums alone sees less than whoever sees uploads.
        found = min(self._with_moments(view, delta) for view in {self._view, View.UPLOAD})
        return found if found <= _PROVED else math.inf

    def _with_moments(self, view: View, delta: float) -> float:
        column = 1 if view is View.UPLOAD else 0
        squared = sum(moves[column] ** 2 for moves in self._moves.values())
        if math.isinf(squared):
            return math.inf
        if not self._masks:  # smaller than by Renyi divergence
            return gaussian_epsilon(1.0 / math.sqrt(squared), delta)
        curve = ORDERS * squared / 2.0
        for release, rounds in self._masks.items():
            curve = curve + rounds * renyi_curve(release, view, self._adjacency)
            if view is View.SUM:
                delta -= rounds * release.sum_failure * (1.0 + 1e-9)
        return to_epsilon(curve, delta)[0]


class ImageTotal:
    """Epsilon for one image, over the ledgers that were added: it does not grow with rounds.

    Args:
        adjacency: "swap" or "add_remove". One says nothing of the other: a release under swap shows how many
            images there are, exactly.
    """

    def __init__(self, adjacency: str) -> None:
        self._adjacency = adjacency
        self._seen: set[str] = set()
        self._gaussian: list[MomentRelease] = []
        self._others: list[RecordGuarantee] = []
        self._bounded = True

    @property
    def releases(self) -> int:
        """How many distinct releases there are."""
        return len(self._seen)

    def add(self, charged: Charged) -> str | None:
        """What a ledger charged for one image; what a reader should know of it, in words."""
        record = charged.record
        if record is None:
            self._bounded = False
            return f"no bound: {charged.name} has no record-level guarantee"
        if charged.release in self._seen:
            return f"{charged.name} trained from a release that was charged before"
        self._seen.add(charged.release)
        if record.adjacency != self._adjacency:
            self._bounded = False
            return f"no bound: {charged.name} speaks of {record.adjacency}, not {self._adjacency}"
        release = _moments(record)
        if release is None:
            self._others.append(record)
            return f"{charged.name}: a release of another kind; its epsilon and delta are added"
        self._gaussian.append(release)
        return None

    @property
    def delta_of_others(self) -> float:
        """What releases of another kind take of any delta."""
        return math.fsum(other.delta for other in self._others)

    def epsilon(self, delta: float) -> float:
        """Of everything so far."""
        left = delta - self.delta_of_others
        if not self._bounded or left < -1e-12 * delta or (self._gaussian and left <= 0.0):
            return math.inf
        added = math.fsum(other.epsilon for other in self._others)
        if len(self._gaussian) == 1:  # what a single release claims itself, to the last digit
            return added + self._gaussian[0].epsilon(left)
        squared = math.fsum(_move(release) ** 2 for release in self._gaussian)
        return added + (gaussian_epsilon(1.0 / math.sqrt(squared), left) if squared else 0.0)


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


def _move(release: MomentRelease) -> float:
    """How far one image moves a release, in units of its noise, which is a little less than it is for being
    discrete (as `MomentRelease.epsilon` has it); `inf` where that leaves none."""
    least = min(release.lattice_noise)
    if least <= SMOOTHING:
        return math.inf
    lost = math.sqrt(1.0 - (SMOOTHING / least) ** 2) * (1.0 - 2.0**-50)
    return release.sensitivity / (release.noise * lost)
