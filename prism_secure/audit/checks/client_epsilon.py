"""Every epsilon of the ledger, computed once more by the oracle."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from prism_privacy import Adjacency, LedgerEntry, View
from prism_secure.accounting.epsilons import CELLS, Cell
from prism_secure.audit import oracle
from prism_secure.audit.checks.record_epsilon import SummedRelease, summed_release
from prism_secure.audit.evidence import Evidence
from prism_secure.audit.findings import TOO_LARGE, TOO_SMALL, Notebook, Recomputed, Unchecked
from prism_secure.audit.oracle import Mask
from prism_secure.config.invitations import most_participations
from prism_secure.run_folder.records import RoundRecord
from prism_secure.wording import format_epsilon


@dataclass(frozen=True)
class _Point:
    """What the oracle knows when the ledger writes an entry."""

    entry: LedgerEntry
    mask: Mask
    accounts: list[Counter[Mask]]
    """What clients have been charged by now."""

    def spent(self, cell: Cell) -> Counter[Mask]:
        """By the client for whom epsilon is largest; where rounds are alike, the one that was in most."""
        if len({mask for account in self.accounts for mask in account}) == 1:
            return max(self.accounts, key=Counter.total)
        if len(self.accounts) == 1:
            return self.accounts[0]
        return max(self.accounts, key=lambda account: _oracle(account, self.entry.delta, cell))


def client_level(evidence: Evidence, notes: Notebook) -> list[Recomputed]:
    """Does every client-level epsilon cover what was released: alone, to date, and as planned?"""
    evidence.need_charges()
    if any(entry.coins == "test" for entry in evidence.charges):
        notes.note("Test coins were used: the run claims no epsilon, and none can be claimed for it.")
        return []
    silent = [entry.round for entry in evidence.charges if entry.epsilon is None]
    if silent:
        notes.note(f"No epsilon is claimed for rounds {silent}.")
    points = list(_points(evidence))
    opened = summed_release(evidence)
    if opened is not None:
        notes.fact(
            "the summed moments were opened before round 1: they are what is charged, and masks that are "
            "made from them and the public seed alone cost nothing more"
        )
    compared = 0
    for cell in CELLS:
        compared += _to_date(notes, points, cell, evidence, opened)
        compared += _alone(notes, points, cell, evidence)
        compared += _planned(notes, points, cell, evidence, opened)
        _added(notes, points, cell, opened)
    if not any(found.severity == "finding" for found in notes.findings):
        notes.fact(
            f"{compared} epsilons of {len(points)} charges computed again: none is smaller by more than "
            f"{TOO_SMALL:.0%}"
        )
    last = next((point for point in reversed(points) if point.entry.epsilon is not None), None)
    if last is None:
        return []
    table = last.entry.epsilon or {}
    return [
        Recomputed(
            view=cell[0].value,
            adjacency=cell[1].value,
            rounds=last.spent(cell).total(),
            ledger=table[cell].to_date,
            oracle=_together(last.spent(cell), last.entry.delta, cell, opened),
        )
        for cell in CELLS
    ]


def metrics_agree(evidence: Evidence, notes: Notebook) -> None:
    """Does metrics.jsonl repeat the signed ledger's epsilons?"""
    evidence.need_charges()
    kept = {entry.round: entry for entry in evidence.charges if entry.epsilon is not None}
    for record in evidence.records:
        entry = kept.get(record.round)
        if entry is None or entry.epsilon is None:
            continue
        for view, adjacency in CELLS:
            shown = record.epsilon.at(view, adjacency)
            signed = entry.epsilon[view, adjacency].to_date
            if shown != signed and not math.isclose(shown, signed, rel_tol=1e-9):
                notes.finding(
                    f"Round {record.round}: metrics.jsonl shows epsilon({view.value}, {adjacency.value}) = "
                    f"{format_epsilon(shown)}, the ledger {format_epsilon(signed)}.",
                    metrics=shown,
                    ledger=signed,
                )
                return
        if not _same_record(notes, record, entry):
            return
    notes.fact(f"{len(evidence.records)} rounds of metrics.jsonl repeat the ledger's epsilons")


def _same_record(notes: Notebook, record: RoundRecord, entry: LedgerEntry) -> bool:
    """Whether metrics.jsonl repeats what measured rounds have cost one record."""
    if entry.record is None or entry.record.spent is None:
        return True
    shown = None if record.record is None else (record.record.epsilon, record.record.upload)
    signed = entry.record.spent[View.SUM].to_date, entry.record.spent[View.UPLOAD].to_date
    if shown is not None and shown == signed:
        return True
    notes.finding(
        f"Round {record.round}: metrics.jsonl and the ledger differ in what one record has spent.",
        metrics=shown,
        ledger=signed,
    )
    return False


def _points(evidence: Evidence) -> Iterator[_Point]:
    masks = []
    for entry in evidence.charges:
        try:
            masks.append(oracle.of_a_client(entry.release))
        except ValueError as error:
            raise Unchecked(f"round {entry.round}: {error}") from None
    for entry, mask, accounts in zip(evidence.charges, masks, evidence.accounts(masks), strict=True):
        yield _Point(entry, mask, accounts)


def _oracle(spent: Counter[Mask], delta: float, cell: Cell) -> float:
    return oracle.epsilon(spent, delta, summed=cell[0] is View.SUM, replaced=cell[1] is Adjacency.REPLACE_ONE)


def _together(spent: Counter[Mask], delta: float, cell: Cell, opened: SummedRelease | None) -> float:
    """Everything that was released of one client so far."""
    return _oracle(spent, delta, cell) if opened is None else opened.client_epsilon(delta, cell)


def _to_date(
    notes: Notebook, points: list[_Point], cell: Cell, evidence: Evidence, opened: SummedRelease | None
) -> int:
    known: dict[tuple[object, ...], float] = {}
    worst: tuple[float, _Point, float, float] | None = None
    for point in points:
        if point.entry.epsilon is None:
            continue
        spent = point.spent(cell)
        key = (frozenset(spent.items()), point.entry.delta)
        if key not in known:
            known[key] = _together(spent, point.entry.delta, cell, opened)
        stated = point.entry.epsilon[cell].to_date
        worst = _worse(worst, (_ratio(stated, known[key]), point, stated, known[key]))
    if worst is not None:
        _judge(notes, "to date", worst, worst[1].spent(cell), cell, evidence)
    return sum(point.entry.epsilon is not None for point in points)


def _alone(notes: Notebook, points: list[_Point], cell: Cell, evidence: Evidence) -> int:
    worst: tuple[float, _Point, float, float] | None = None
    known: dict[tuple[Mask, float], float] = {}
    for point in points:
        if point.entry.epsilon is None:
            continue
        key = (point.mask, point.entry.delta)
        if key not in known:
            known[key] = _oracle(Counter({point.mask: 1}), point.entry.delta, cell)
        stated = point.entry.epsilon[cell].round
        worst = _worse(worst, (_ratio(stated, known[key]), point, stated, known[key]))
    if worst is not None:
        _judge(notes, "of one round", worst, Counter({worst[1].mask: 1}), cell, evidence)
    return sum(point.entry.epsilon is not None for point in points)


def _added(notes: Notebook, points: list[_Point], cell: Cell, opened: SummedRelease | None) -> None:
    """A round adds less than it costs alone only where its masks are made of what was opened before."""
    view, adjacency = cell
    for point in points:
        if point.entry.epsilon is None or opened is not None:
            continue
        spent = point.entry.epsilon[cell]
        if spent.added is not None and spent.added < spent.round:
            notes.finding(
                f"Round {point.entry.round}: the ledger states that it adds {format_epsilon(spent.added)} to "
                f"epsilon({view.value}, {adjacency.value}); nothing was opened that its masks were made of.",
                round=point.entry.round,
                added=spent.added,
            )
            return


def _planned(
    notes: Notebook, points: list[_Point], cell: Cell, evidence: Evidence, opened: SummedRelease | None
) -> int:
    """The plan is fixed before round one: one figure, for no fewer rounds than were charged in the end."""
    stated = [
        (point, planned)
        for point in points
        if point.entry.epsilon is not None and (planned := point.entry.epsilon[cell].planned) is not None
    ]
    if not stated:
        return 0
    view, adjacency = cell
    if len({planned for _, planned in stated}) > 1:
        notes.finding(
            f"The planned epsilon({view.value}, {adjacency.value}) changes from round to round; a plan is "
            "fixed before the first.",
            planned=sorted({planned for _, planned in stated}),
        )
        return 0
    point, planned = stated[0]
    config = evidence.config
    rounds = len(points) if config.limits else config.federation.rounds
    charged = evidence.participations[-1]
    whole = not config.limits
    if len({point.mask for point in points}) > 1:  # of what is still to come only config.toml speaks
        plan, whole = points[-1].spent(cell), whole and len(points) >= rounds
    else:
        plan = Counter({point.mask: max(most_participations(config, rounds), charged)})
    found = _together(plan, point.entry.delta, cell, opened)
    worst = (_ratio(planned, found), point, planned, found)
    _judge(notes, "as planned", worst, plan, cell, evidence, note_larger=whole)
    limit = config.budget.epsilon
    if limit is not None and cell == (View.SUM, Adjacency.ZERO_OUT) and planned > limit * (1 + 1e-9):
        notes.finding(
            "The plan is above the budget that config.toml sets.", planned=planned, budget_epsilon=limit
        )
    return len(stated)


def _ratio(stated: float, found: float) -> float:
    """Stated over recomputed; 1 where they agree that there is no bound, or nothing was spent."""
    if stated == found:
        return 1.0
    if math.isinf(found):
        return 0.0
    return math.inf if found <= 1e-12 else stated / found


def _worse(
    known: tuple[float, _Point, float, float] | None, new: tuple[float, _Point, float, float]
) -> tuple[float, _Point, float, float]:
    """The smaller ratio counts; the larger only where none is too small."""
    if known is None or new[0] < min(known[0], 1 - TOO_SMALL):
        return new
    return new if known[0] >= 1 - TOO_SMALL and new[0] > known[0] else known


def _judge(
    notes: Notebook,
    column: str,
    worst: tuple[float, _Point, float, float],
    spent: Counter[Mask],
    cell: Cell,
    evidence: Evidence,
    *,
    note_larger: bool = True,
) -> None:
    ratio, point, stated, found = worst
    view, adjacency = cell
    name = f"epsilon({view.value}, {adjacency.value}) {column}"
    told = {
        "round": point.entry.round,
        "ledger": stated,
        "oracle": found,
        "rounds": spent.total(),
        "delta": point.entry.delta,
    }
    if ratio < 1 - TOO_SMALL:
        why = _explained(stated, spent, point, cell, evidence)
        notes.finding(
            f"Round {point.entry.round}: the ledger states {name} = {format_epsilon(stated)}; these settings "
            f"cost {format_epsilon(found)}{f' ({why})' if why else ''}.",
            "computed",
            **told,
        )
    elif ratio > 1 + TOO_LARGE and note_larger:
        notes.note(
            f"Round {point.entry.round}: the ledger states {name} = {format_epsilon(stated)}, more than the "
            f"{format_epsilon(found)} that these settings cost.",
            "computed",
            **told,
        )


def _explained(stated: float, spent: Counter[Mask], point: _Point, cell: Cell, evidence: Evidence) -> str:
    """Which known mistake gives the stated figure, in words; "" where none does."""
    view, adjacency = cell
    delta = point.entry.delta

    def gives(counted: Counter[Mask], at: Cell = cell) -> bool:
        return math.isclose(_oracle(counted, delta, at), stated, rel_tol=TOO_SMALL)

    if adjacency is Adjacency.REPLACE_ONE and gives(spent, (view, Adjacency.ZERO_OUT)):
        return "it is what zero_out costs: a move of C where replace_one allows 2C"
    if len(spent) == 1:
        (mask,) = spent
        for rounds in range(spent.total() - 1, 0, -1):
            if gives(Counter({mask: rounds})):
                return f"it is what {rounds} of the {spent.total()} rounds cost"
        clients = evidence.config.federation.clients
        for cohort in sorted({clients, clients - evidence.config.privacy.colluders} - {mask.cohort}):
            other = Mask(mask.flip, mask.clip, cohort, mask.space, mask.dim, mask.sum_failure)
            if view is View.SUM and cohort > 0 and gives(Counter({other: spent.total()})):
                return f"it is what a cohort of {cohort} instead of {mask.cohort} would cost"
    return ""
