"""What may follow what in a ledger.

Numbers count the releases of the ledger's writer from 1 on. A writer that sits out rounds of a federation
numbers its own releases and keeps the federation's number elsewhere (``metrics``), so that in every ledger a
missing number is a missing entry. Let n be the highest number so far of a round or an aborted session (0 in
a new ledger).

- ``round``: n+1; or n, if number n so far stands for aborted sessions only.
- ``aborted``: n, another charge for round n >= 1; or n+1, a round that was charged and never opened.
- ``moments``, ``end``: n or n+1.
- Numbers never go back, and nothing follows ``end``.

An epsilon to date is what everything so far costs together, so it cannot fall: in each view and adjacency it
is at least what an earlier entry says for the same delta or a larger one. Where an entry says what it adds
(`Spent.added`), it rises by no more: above what an earlier entry says for the same delta or a smaller one, or
above 0 in the first line. Entries that claim no epsilon do not count. The record-level guarantee is that of
*all* releases of a record and fixed when they were made, so every entry of one ledger that has one has the
same one, and at most one entry is ``moments``.

Measured rounds have one that grows instead. Each entry states what one record has spent, for the release that
the entry itself states, and from the first that does on, each that claims an epsilon does. It is computed
again: in both views it is at least what the releases of all rounds charged so far cost one record, and so is
the round's alone. Where entries say whom a round invited (``metrics``, "invited": client ids), a record is
charged for the rounds of its client, and what is stated covers the client whose rounds cost most; a round
that does not say so is everybody's. To date it cannot fall, and the adjacency, the delta and the plan stay as
they were (a plan that was passed is none). A ledger has one kind of guarantee or the other: a moment release
and measured rounds of the same records add up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import cast

from prism_privacy.accounting.accountant import guarantee_of
from prism_privacy.errors import InvalidParameter
from prism_privacy.ledger.entry import Json, LedgerEntry, RecordGuarantee, Spent, json_safe
from prism_privacy.masks.release import MaskRelease
from prism_privacy.measured.release import MeasuredRelease
from prism_privacy.moments.release import RecordAdjacency
from prism_privacy.units import Adjacency, Unit, View

_ROUNDING = 1e-9  # relative: two ways to add up the same rounds may differ in the last digits
_RECOMPUTED = 1e-6  # relative: another processor, or another library below the accountant


class EntryOrder:
    """What a ledger has said so far, as far as it decides what may come next."""

    def __init__(self) -> None:
        self._last: LedgerEntry | None = None
        self._top = 0
        self._opened = 0  # the highest number of a "round"
        self._moments = False
        self._record: dict[str, Json] | None = None  # as written, so that what is read back compares
        self._growing: RecordGuarantee | None = None
        self._everybodys: Counter[MeasuredRelease] = Counter()
        self._own: dict[int, Counter[MeasuredRelease]] = {}  # on top, of clients that not all rounds invited
        self._known: dict[tuple[object, ...], float] = {}
        self._to_date: dict[float, dict[tuple[View, Adjacency], float]] = {}

    def check(self, entry: LedgerEntry) -> None:
        """Refuse unless ``entry`` may come next.

        Raises:
            InvalidParameter: it may not; the message says why.
        """
        self._check_number(entry)
        self._check_to_date(entry)
        self._check_added(entry)
        if entry.kind == "moments" and self._moments:
            raise InvalidParameter(
                "a second entry of kind 'moments': two releases of the same records add up, and one entry "
                "has to state what they cost together"
            )
        if entry.record is not None and entry.record.spent is not None:
            self._check_growing(entry, entry.record, entry.record.spent)
        elif self._growing is not None:
            if entry.record is not None:
                raise InvalidParameter(
                    "it states a record-level guarantee made once, in a ledger of measured rounds: together "
                    "they add up"
                )
            if entry.epsilon is not None:
                raise InvalidParameter("it does not say what one record has spent, and entries before it do")
        elif entry.record and self._record and _as_written(entry) != self._record:
            raise InvalidParameter(
                f"it states another record-level guarantee (epsilon {entry.record.epsilon:g}) than an entry "
                f"before it (epsilon {self._record['epsilon']}): a ledger has one, of all releases together"
            )

    def take(self, entry: LedgerEntry) -> None:
        """Count ``entry``, which was checked, as written."""
        self._last = entry
        if entry.kind in ("round", "aborted"):
            self._top = entry.round
        if entry.kind == "round":
            self._opened = entry.round
        self._moments = self._moments or entry.kind == "moments"
        if entry.kind in ("round", "aborted") and (release := _measured(entry.release)) is not None:
            whose = [self._own.setdefault(client, Counter()) for client in entry.invited]
            for account in whose or [self._everybodys]:
                account[release] += 1
        if entry.record is not None and entry.record.spent is not None:
            self._growing = entry.record
        else:
            self._record = self._record or _as_written(entry)
        if entry.epsilon is not None:
            highest = self._to_date.setdefault(entry.delta, {})
            for cell, spent in entry.epsilon.items():
                highest[cell] = max(spent.to_date, highest.get(cell, 0.0))

    def _check_growing(
        self, entry: LedgerEntry, record: RecordGuarantee, spent: Mapping[View, Spent]
    ) -> None:
        """What one record has spent on measured rounds covers the releases that the entries state."""
        if self._record is not None or self._moments or entry.kind == "moments":
            raise InvalidParameter(
                "it states what measured rounds cost one record, beside a release made once: together they "
                "add up"
            )
        release = _measured(entry.release)
        if release is None or json_safe(record.release, "record.release") != json_safe(
            entry.release, "release"
        ):
            raise InvalidParameter("a record's epsilon is for another release than the entry states")
        if record.cohort != release.cohort:
            raise InvalidParameter(
                f"a record's epsilon counts on {record.cohort} honest clients, the release on "
                f"{release.cohort}"
            )
        charges = entry.kind in ("round", "aborted")
        alone = Counter({release: 1}) if charges else Counter[MeasuredRelease]()
        accounts = self._accounts(entry.invited, alone)
        for view in View:
            for name, stated, rounds in (
                ("of the round", spent[view].round, [alone]),
                ("to date", spent[view].to_date, accounts),
            ):
                found = max(self._record_epsilon(each, record, view) for each in rounds)
                if stated < found * (1.0 - _RECOMPUTED):
                    raise InvalidParameter(
                        f"one record's epsilon {name} ({view}) is stated as {stated:g}; the releases charged "
                        f"cost {found:g}"
                    )
        before = self._growing
        if before is None or before.spent is None:
            return
        if (before.adjacency, before.delta) != (record.adjacency, record.delta):
            raise InvalidParameter(
                f"a record's adjacency and delta change from {before.adjacency}, {before.delta:g} to "
                f"{record.adjacency}, {record.delta:g}"
            )
        for view in View:
            was, now = before.spent[view], spent[view]
            if now.planned not in (was.planned, None):
                raise InvalidParameter(
                    f"one record's planned epsilon ({view}) changes from {was.planned} to {now.planned}: a "
                    "plan is fixed before the first round"
                )
            if now.to_date < was.to_date * (1.0 - _ROUNDING):
                raise InvalidParameter(
                    f"one record's epsilon to date ({view}) falls from {was.to_date:g} to {now.to_date:g}; "
                    "what was spent cannot come back"
                )

    def _accounts(
        self, invited: Sequence[int], alone: Counter[MeasuredRelease]
    ) -> list[Counter[MeasuredRelease]]:
        """What clients have been charged with one more round: each such account once."""
        of_all = self._everybodys if invited else self._everybodys + alone
        others: Counter[MeasuredRelease] = Counter()  # of clients that no entry names
        own = [others, *(self._own.get(client, others) + alone for client in invited)]
        own += [account for client, account in self._own.items() if client not in invited]
        return list({frozenset(each.items()): of_all + each for each in own}.values())

    def _record_epsilon(self, rounds: Counter[MeasuredRelease], record: RecordGuarantee, view: View) -> float:
        key = frozenset(rounds.items()), record.adjacency, record.delta, view
        if key not in self._known:
            self._known[key] = _record_epsilon(rounds, record, view)
        return self._known[key]

    def _check_number(self, entry: LedgerEntry) -> None:
        if self._last is not None:
            if self._last.kind == "end":
                raise InvalidParameter("it follows the line that ended the ledger")
            if entry.round < self._last.round:
                raise InvalidParameter(f"round {entry.round} cannot follow round {self._last.round}")
        if entry.kind in ("round", "aborted") and entry.round < 1:
            raise InvalidParameter(f"{entry.kind} {entry.round}: rounds are numbered from 1 on")
        if entry.kind == "round" and entry.round == self._opened:
            raise InvalidParameter(f"round {entry.round} is there already; it is charged once")
        if not self._top <= entry.round <= self._top + 1:
            raise InvalidParameter(
                f"{entry.kind} {entry.round} leaves a gap: expected {self._top + 1} after {self._top} rounds"
            )

    def _check_to_date(self, entry: LedgerEntry) -> None:
        if entry.epsilon is None:
            return
        for delta, highest in self._to_date.items():
            if delta < entry.delta:
                continue
            for cell, before in highest.items():
                now = entry.epsilon[cell].to_date
                if now < before * (1.0 - _ROUNDING):
                    view, adjacency = cell
                    raise InvalidParameter(
                        f"epsilon to date ({view}, {adjacency}) falls from {before:g} to {now:g}; what was "
                        f"spent cannot come back"
                    )

    def _check_added(self, entry: LedgerEntry) -> None:
        for cell, spent in (entry.epsilon or {}).items():
            known = [highest[cell] for delta, highest in self._to_date.items() if delta <= entry.delta]
            if self._last is None:
                known = [0.0]
            if spent.added is None or not known:
                continue
            most = min(known) + spent.added
            if spent.to_date > most * (1.0 + _ROUNDING):
                view, adjacency = cell
                raise InvalidParameter(
                    f"epsilon to date ({view}, {adjacency}) rises from {min(known):g} to {spent.to_date:g}, "
                    f"and the entry says it adds {spent.added:g}: expected {most:g} at most"
                )


def _as_written(entry: LedgerEntry) -> dict[str, Json] | None:
    return None if entry.record is None else entry.record.to_json()


def _measured(release: Mapping[str, Json]) -> MeasuredRelease | None:
    """The measured round that an entry's release is; None for every other kind."""
    try:
        return MeasuredRelease(**release)  # type: ignore[arg-type]
    except (TypeError, InvalidParameter):
        return None


def _record_epsilon(rounds: Counter[MeasuredRelease], record: RecordGuarantee, view: View) -> float:
    counts: Counter[MaskRelease] = Counter()
    for release, times in rounds.items():
        counts[release.release(Unit.RECORD, cast(RecordAdjacency, record.adjacency))] += times
    return guarantee_of(counts, record.delta, view, Adjacency.ZERO_OUT).epsilon
