"""What a ledger signs, for readers who have it alone: figures, what they rest on, what they leave out."""

from __future__ import annotations

import math
from collections.abc import Iterator

from prism_privacy.ledger.check import LedgerReport
from prism_privacy.ledger.composition import ClientTotal, charged_in
from prism_privacy.ledger.entry import PERSON_WORDS, UNIT_WORDS, LedgerEntry, RecordGuarantee
from prism_privacy.moments.release import ADJACENCY_WORDS
from prism_privacy.units import Adjacency, Unit, View
from prism_privacy.wording import (
    CLIENT_UNIT,
    SUM_NOT_RUN_WORDS,
    format_delta,
    format_epsilon,
    record_unit,
)

__all__ = [
    "ADJACENCY_OF_CLIENTS",
    "VIEW_WORDS",
    "disclosure",
    "not_covered",
    "statement",
    "why_infinite",
]

VIEW_WORDS = {
    View.SUM: "an observer of the opened sums alone",
    View.UPLOAD: "an observer of what one client sent, as if there were no secure sum",
}
ADJACENCY_OF_CLIENTS = {
    Adjacency.ZERO_OUT: "in place of its answer the client sends random bits that do not depend on its data",
    Adjacency.REPLACE_ONE: "the client has any other data",
}


def statement(report: LedgerReport) -> list[str]:
    """Lines of text: how much was charged, who signed, and epsilon to date by unit, view and adjacency."""
    rounds = sum(entry.kind in ("round", "aborted") for entry in report.entries)
    lines = [f"intact: {rounds} round{'' if rounds == 1 else 's'} charged, head {report.head}"]
    if _test_coins(report):
        lines.append("test coins: whoever knows them sees through the noise, so no epsilon is claimed")
    owner = "the key that you gave" if report.pinned else "the key that the file itself names"
    lines.append(f"signed by {report.public_key}, {owner}")
    if not report.entries:
        return lines
    last, record, one_record = report.entries[-1], _record(report), record_unit(report.one_record)
    lines.append(f"{CLIENT_UNIT}: epsilon to date at delta = {format_delta(last.delta)}")
    for (view, adjacency), spent in sorted((last.epsilon or {}).items()):
        lines.append(f"  {view.value}, {adjacency.value}: {format_epsilon(spent.to_date)}")
    lines.append("  none is claimed" if last.epsilon is None else f"  {_counting_on(last)}")
    if record is None:
        return [*lines, f"{one_record}: no epsilon is claimed"]
    if record.spent is not None:
        lines.append(f"{one_record}: epsilon to date at delta = {format_delta(record.delta)}")
        for view, cost in sorted(record.spent.items()):
            planned = "" if cost.planned is None else f" (planned: {format_epsilon(cost.planned)})"
            lines.append(f"  {view.value}, {record.adjacency}: {format_epsilon(cost.to_date)}{planned}")
        lines.append(f"  sum counts on {record.cohort} honest clients")
        return [*lines, f"  ({ADJACENCY_WORDS[record.adjacency]})"]
    lines.append(f"{one_record}: epsilon for all rounds together at delta = {format_delta(record.delta)}")
    lines.append(f"  {record.adjacency}: {format_epsilon(record.epsilon)}")
    if record.view is not None:
        on = "" if record.cohort is None else f", counting on {record.cohort} honest clients"
        lines.append(f"  {record.view.value}{on}")
    return [*lines, f"  ({ADJACENCY_WORDS[record.adjacency]})"]


def why_infinite(report: LedgerReport) -> list[str]:
    """Why epsilons of a client are infinite, as lines: what the ledger charged tells, settings it knows not.

    Raises:
        LedgerError: it charged what is not known here.
    """
    last = report.entries[-1] if report.entries else None
    infinite: dict[str, list[str]] = {}
    for (view, adjacency), spent in sorted((last.epsilon or {}).items() if last else ()):
        if math.isinf(spent.to_date):
            for why in _causes(report, view, adjacency):
                infinite.setdefault(why, []).append(f"({view.value}, {adjacency.value})")
    return [f"{' and '.join(cells)} without a bound: {why}" for why, cells in infinite.items()]


def _causes(report: LedgerReport, view: View, adjacency: Adjacency) -> tuple[str, ...]:
    """Why one of its epsilons is infinite; where by its own charges it need not be, that."""
    total = ClientTotal(view, adjacency)
    total.add(charged_in(report, "this ledger"))
    return total.why(report.entries[-1].delta) or ("its writer states none, though these releases have one",)


def disclosure(report: LedgerReport) -> str:
    """The signed facts as plain text, ending in a newline; nothing that the ledger does not say."""
    return "\n".join(_disclosed(report)) + "\n"


def _disclosed(report: LedgerReport) -> Iterator[str]:
    rounds = sum(entry.kind in ("round", "aborted") for entry in report.entries)
    yield f"Privacy disclosure of federation {report.federation}"
    yield ""
    yield f"{rounds} rounds charged; {'the run is over' if report.complete else 'the run may go on'}."
    yield f"Signed with Ed25519 key {report.public_key}; head of the ledger {report.head}."
    if not report.entries:
        yield "Nothing was released."
        return
    last, record, persons = report.entries[-1], _record(report), report.one_record == "person"
    yield ""
    yield f"PROTECTED: {UNIT_WORDS[Unit.CLIENT]}"
    if last.epsilon is None:
        yield "  No epsilon is claimed."
    else:
        yield f"  delta = {format_delta(last.delta)}"
        for (view, adjacency), spent in sorted(last.epsilon.items()):
            yield (
                f"  epsilon to date = {format_epsilon(spent.to_date)}   {view.value}: {VIEW_WORDS[view]}; "
                f"{adjacency.value}: {ADJACENCY_OF_CLIENTS[adjacency]}"
            )
            if spent.planned is not None and spent.planned != spent.to_date:
                yield f"    planned before the first round: {format_epsilon(spent.planned)}"
        yield f"  {_counting_on(last)}"
    yield ""
    yield f"PROTECTED: {PERSON_WORDS if persons else UNIT_WORDS[Unit.RECORD]}"
    if record is None:
        yield "  No epsilon is claimed."
    elif record.spent is not None:
        yield f"  delta = {format_delta(record.delta)}"
        for view, cost in sorted(record.spent.items()):
            yield (
                f"  epsilon to date = {format_epsilon(cost.to_date)}   {view.value}: {VIEW_WORDS[view]}; "
                f"{record.adjacency}: {ADJACENCY_WORDS[record.adjacency]}"
            )
            if cost.planned is not None and cost.planned != cost.to_date:
                yield f"    planned before the first round: {format_epsilon(cost.planned)}"
        yield f"  sum counts on {record.cohort} honest clients' noise"
    else:
        yield f"  delta = {format_delta(record.delta)}"
        yield (
            f"  epsilon = {format_epsilon(record.epsilon)}   {record.adjacency}: "
            f"{ADJACENCY_WORDS[record.adjacency]}"
        )
        if record.view is not None:
            on = "" if record.cohort is None else f", counting on {record.cohort} honest clients' noise"
            yield f"  {record.view.value}: {VIEW_WORDS[record.view]}{on}"
    yield ""
    yield "NOT COVERED"
    yield from (f"  - {words}" for words in not_covered(report))


def not_covered(report: LedgerReport) -> Iterator[str]:
    """What no epsilon of a ledger with entries speaks of, each in a sentence."""
    last, record = report.entries[-1], _record(report)
    yield "Whatever else is made of the same data: other runs have ledgers of their own."
    yield "Who takes part, and how many clients there are: both are public."
    if report.sum_not_run:
        yield f"Anybody who saw it being made: {SUM_NOT_RUN_WORDS}."
    if _test_coins(report):
        yield "Anybody: the coins were known, so the noise hides nothing."
    for (view, adjacency), spent in sorted((last.epsilon or {}).items()):
        if math.isinf(spent.to_date):
            cell, why = f"({view.value}, {adjacency.value})", "; ".join(_causes(report, view, adjacency))
            yield f"A client against {VIEW_WORDS[view]} {cell}: epsilon is infinite, because {why}."
    if last.epsilon is not None:
        yield f"A client in a sum with fewer honest clients than the {last.cohort} counted on."
    if record is None:
        yield "A single record by itself, beyond what protects its client."
    else:
        other = next(word for word in ADJACENCY_WORDS if word != record.adjacency)
        yield f"{record_unit(report.one_record).capitalize()} under {other}: {ADJACENCY_WORDS[other]}."
        if record.view is None:
            yield "The ledger does not say whom one record is protected from."
        if report.one_record == "person":
            yield "A person who is with several clients, or has several names: epsilon is for one of them."
        else:
            yield "A person whose data is in several records: epsilon is for one of them."
    if not report.end_checked:
        yield "What lines after the head above said, if there were any: the head file is missing."
    yield "Whether the program did what its ledger says: the signature shows who says so."


def _counting_on(last: LedgerEntry) -> str:
    return (
        f"counting on {last.cohort} honest clients in each opened sum; "
        f"{last.colluders} clients may side with the server"
    )


def _test_coins(report: LedgerReport) -> bool:
    return any(entry.coins == "test" for entry in report.entries)


def _record(report: LedgerReport) -> RecordGuarantee | None:
    return next((entry.record for entry in reversed(report.entries) if entry.record is not None), None)
