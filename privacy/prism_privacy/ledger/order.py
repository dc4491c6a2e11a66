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
is at least what an earlier entry says for the same delta or a larger one. Entries that claim no epsilon do
not count. The record-level guarantee is that of *all* releases of a record and fixed when they were made, so
every entry of one ledger that has one has the same one, and at most one entry is ``moments``.
"""

from __future__ import annotations

from dataclasses import asdict

from prism_privacy.errors import InvalidParameter
from prism_privacy.ledger.entry import Json, LedgerEntry, json_safe
from prism_privacy.units import Adjacency, View

_ROUNDING = 1e-9  # relative: two ways to add up the same rounds may differ in the last digits


class EntryOrder:
    """What a ledger has said so far, as far as it decides what may come next."""

    def __init__(self) -> None:
        self._last: LedgerEntry | None = None
        self._top = 0
        self._opened = 0  # the highest number of a "round"
        self._moments = False
        self._record: dict[str, Json] | None = None  # as written, so that what is read back compares
        self._to_date: dict[float, dict[tuple[View, Adjacency], float]] = {}

    def check(self, entry: LedgerEntry) -> None:
        """Nothing, if ``entry`` may come next.

        Raises:
            InvalidParameter: it may not; the message says why.
        """
        self._check_number(entry)
        self._check_to_date(entry)
        if entry.kind == "moments" and self._moments:
            raise InvalidParameter(
                "a second entry of kind 'moments': two releases of the same records add up, and one entry "
                "has to state what they cost together"
            )
        if entry.record and self._record and _as_written(entry) != self._record:
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
        self._record = self._record or _as_written(entry)
        if entry.epsilon is not None:
            highest = self._to_date.setdefault(entry.delta, {})
            for cell, spent in entry.epsilon.items():
                highest[cell] = max(spent.to_date, highest.get(cell, 0.0))

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


def _as_written(entry: LedgerEntry) -> dict[str, Json] | None:
    return None if entry.record is None else json_safe(asdict(entry.record), "record")
