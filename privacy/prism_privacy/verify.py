"""Check ledgers, and what they cost together, from this package alone: `python -m prism_privacy.verify`.

    python -m prism_privacy.verify run-1/ledger.jsonl run-2/ledger.jsonl --client-epsilon 8 --image-epsilon 4

Every ledger is checked from its first line to its last: chain, signatures, head, order. Several are taken as
of the same owners' data and composed (`prism_privacy.ledger.composition`).

Exit codes: 0 all is intact, and within the limits; 1 a ledger is damaged or a limit is passed; 2 it cannot
be told: a file is missing, an end cannot be checked, a charge is unknown, or no ledger speaks of what a limit
is for.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prism_privacy.errors import InvalidParameter, LedgerError, PrivacyError
from prism_privacy.ledger.check import LedgerReport
from prism_privacy.ledger.composition import Charged, ClientTotal, ImageTotal, charged_in
from prism_privacy.ledger.disclosure import disclosure, statement, why_infinite
from prism_privacy.ledger.entry import json_safe
from prism_privacy.ledger.writer import verify_ledger
from prism_privacy.moments.release import ADJACENCY_WORDS
from prism_privacy.units import Adjacency, Unit, View
from prism_privacy.wording import CLIENT_UNIT, RECORD_UNIT, format_delta, format_epsilon, record_unit

__all__ = ["Together", "check_end", "compose", "main"]


@dataclass(frozen=True)
class Together:
    """What ledgers cost together one owner, who is taken to be in all of them.

    Attributes:
        unit: who is protected.
        view: who looks; None for a record, whose release is one, whoever looks.
        adjacency: which worlds are compared.
        epsilon: `inf` where there is no bound.
        delta: of that epsilon.
        notes: what a reader should know of it.
    """

    unit: Unit
    view: View | None
    adjacency: str
    epsilon: float
    delta: float
    notes: tuple[str, ...] = ()


def check_end(report: LedgerReport, head: str | None) -> None:
    """Refuse unless the ledger is known to reach its end, or at least the head that somebody wrote down.

    Raises:
        LedgerError: neither shows it.
    """
    if not report.end_checked and head is None:
        raise LedgerError(
            f"{report.path.name}.head is missing, so lines may have been cut off the end; "
            "put it back, or name a head that you wrote down with --head"
        )


def compose(ledgers: Sequence[LedgerReport], delta: float | None = None) -> list[Together]:
    """Epsilon over all ledgers together: a client under both views and adjacencies, then an image.

    Args:
        ledgers: what was charged of one owner; the same ledger twice counts once.
        delta: at which every epsilon is stated; None: the largest that the ledgers state, and for an image
            what releases of other kinds take on top.

    Raises:
        LedgerError: a ledger charged what is not known here, so nothing can be said.
        InvalidParameter: no ledger charged anything, and `delta` is None; or it is out of range.
    """
    apart = {report.head: report for report in ledgers}.values()
    charged = [charged_in(report, str(report.path)) for report in apart]
    stated = [entry.delta for report in apart for entry in report.entries]
    if delta is None and not stated:
        raise InvalidParameter("the ledgers charged nothing, so they state no delta: name one")
    at = max(stated) if delta is None else delta
    found = []
    for view in View:
        for adjacency in Adjacency:
            total = ClientTotal(view, adjacency)
            for each in charged:
                total.add(each)
            notes = tuple(f"no bound, {view}, {adjacency}: {why}" for why in total.why(at))
            found.append(Together(Unit.CLIENT, view, adjacency.value, total.epsilon(at), at, notes))
    adjacencies = dict.fromkeys(each.record.adjacency for each in charged if each.record is not None)
    unit = _record_unit(ledgers)
    return found + [_image(charged, adjacency, delta, unit) for adjacency in adjacencies]


def _record_unit(ledgers: Sequence[LedgerReport]) -> str:
    """Whom all of them speak of together: who is protected with all images is so with one of them."""
    of_persons = bool(ledgers) and all(report.one_record == "person" for report in ledgers)
    return record_unit("person" if of_persons else "image")


def _image(charged: Sequence[Charged], adjacency: str, delta: float | None, unit: str) -> Together:
    total = ImageTotal(adjacency)
    notes = tuple(note for each in charged if (note := total.add(each)) is not None)
    if delta is None:
        delta = max(each.record.delta for each in charged if each.record is not None)
        delta += total.delta_of_others
    if not any(note.startswith("no bound") for note in notes):
        notes += tuple(f"no bound, {unit}: {why}" for why in total.why(delta))
    return Together(Unit.RECORD, None, adjacency, total.epsilon(delta), delta, notes)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = _parser().parse_args(arguments)
    reports, damaged = [], []
    try:
        keys = _one_each(options.key, options.ledger, "--key", shared=True)
        heads = _one_each(options.head, options.ledger, "--head", shared=False)
        for path, key, head in zip(options.ledger, keys, heads, strict=True):
            inside = path / "ledger.jsonl"
            if not (inside.is_file() or path.is_file()):
                raise InvalidParameter(
                    f"{path} is not a ledger: no such file, nor a run folder with one in it"
                )
            try:
                reports.append(verify_ledger(inside if inside.is_file() else path, key, head=head))
            except LedgerError as error:
                damaged.append(str(error))
        for message in damaged:
            print(f"verify: {message}", file=sys.stderr)
        if damaged:
            return 1
        for report, head in zip(reports, heads, strict=True):
            check_end(report, head)
        return _tell(reports, options)
    except PrivacyError as error:
        print(f"verify: {error}", file=sys.stderr)
        return 2


def _tell(reports: Sequence[LedgerReport], options: argparse.Namespace) -> int:
    if options.disclosure:
        print("\n".join(disclosure(report) for report in reports), end="")
        return 0
    limits = options.client_epsilon is not None or options.image_epsilon is not None
    asked = limits or len(reports) > 1 or options.json
    charged = options.delta is not None or any(report.entries for report in reports)
    totals = compose(reports, options.delta) if asked and (limits or charged) else []
    unit = _record_unit(reports)
    held = _held(totals, options, unit)
    if options.json:
        told = {
            "ledgers": [_ledger(report) for report in reports],
            "together": [asdict(total) for total in totals],
            "limits": [{**asdict(total), "limit": limit, "kept": kept} for total, limit, kept in held],
        }
        print(json.dumps(json_safe(told, nan=True), indent=2))
    else:
        for report in reports:
            print(f"{report.path}:", *statement(report), *why_infinite(report), sep="\n  ")
            for warning in report.warnings:
                print(f"  warning: {warning}")
        if totals:
            print("together, taken as of the same owners' data:")
        for total in totals:
            print(
                f"  {_words(total, unit)}: epsilon {format_epsilon(total.epsilon)} at "
                f"delta = {format_delta(total.delta)}"
            )
        for note in dict.fromkeys(note for total in totals for note in total.notes):
            print(f"    {note}")
        for total, limit, kept in held:
            print(
                f"{'kept' if kept else 'PASSED'}: {_words(total, unit)}: epsilon "
                f"{format_epsilon(total.epsilon)} of {format_epsilon(limit)} at "
                f"delta = {format_delta(total.delta)}"
            )
    return 0 if all(kept for _, _, kept in held) else 1


def _held(
    totals: Sequence[Together], options: argparse.Namespace, record: str
) -> list[tuple[Together, float, bool]]:
    """Each total that a limit is for, that limit, and whether it is kept."""
    held = []
    wanted = set(options.adjacency)
    for unit, limit, known in (
        (Unit.CLIENT, options.client_epsilon, {each.value for each in Adjacency}),
        (Unit.RECORD, options.image_epsilon, set(ADJACENCY_WORDS)),
    ):
        if limit is None:
            continue
        if unit is Unit.CLIENT:
            asked = wanted & known or {Adjacency.REPLACE_ONE.value}
        else:
            asked = wanted & known or {each.adjacency for each in totals if each.unit is unit}
        found = [
            each
            for each in totals
            if each.unit is unit and each.adjacency in asked and each.view in (None, View(options.view))
        ]
        if not asked or {each.adjacency for each in found} != asked:
            raise LedgerError(
                f"--{'client' if unit is Unit.CLIENT else 'image'}-epsilon: no ledger states an epsilon of "
                f"{CLIENT_UNIT if unit is Unit.CLIENT else record}"
                + (f" under {', '.join(sorted(asked))}" if asked else "")
            )
        held += [(each, limit, each.epsilon <= limit) for each in found]
    return held


def _words(total: Together, record: str) -> str:
    what = CLIENT_UNIT if total.unit is Unit.CLIENT else record
    return f"{what}, {f'{total.view}, ' if total.view else ''}{total.adjacency}"


def _ledger(report: LedgerReport) -> dict[str, Any]:
    last = report.entries[-1] if report.entries else None
    record = next((entry.record for entry in reversed(report.entries) if entry.record is not None), None)
    return {
        "path": str(report.path),
        "federation": report.federation,
        "public_key": report.public_key,
        "key_given": report.pinned,
        "head": report.head,
        "end_checked": report.end_checked,
        "complete": report.complete,
        "rounds": sum(entry.kind in ("round", "aborted") for entry in report.entries),
        "test_coins": any(entry.coins == "test" for entry in report.entries),
        "delta": last and last.delta,
        "cohort": last and last.cohort,
        "colluders": last and last.colluders,
        "epsilon": None if last is None else last.to_json()["epsilon"],
        "record": None if record is None else asdict(record),
        "warnings": report.warnings,
    }


def _one_each(given: list[str], ledgers: Sequence[Path], option: str, *, shared: bool) -> list[str | None]:
    if not given:
        return [None] * len(ledgers)
    if shared and len(given) == 1:
        return list(given * len(ledgers))
    if len(given) != len(ledgers):
        raise InvalidParameter(f"{len(ledgers)} ledgers and {len(given)} times {option}: give one each")
    return list(given)


def _positive(text: str) -> float:
    value = float(text)
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text}")
    return value


def _probability(text: str) -> float:
    value = float(text)
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, got {text}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m prism_privacy.verify",
        description="Check ledgers of what was released, and what they cost together one owner who is taken "
        "to be in all of them. Exit code 0: intact and within the limits, 1: damaged or a limit is passed, "
        "2: it cannot be told.",
    )
    parser.add_argument(
        "ledger", nargs="+", type=Path, metavar="LEDGER", help="a ledger.jsonl, or its run folder"
    )
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="HEX",
        help="the writer's Ed25519 public key, if you know it; once for all, or once for each ledger",
    )
    parser.add_argument(
        "--head",
        action="append",
        default=[],
        metavar="HEX",
        help="a head that you wrote down: it must be on the chain; once for each ledger in order",
    )
    parser.add_argument(
        "--client-epsilon", type=_positive, metavar="E", help=f"the most that may be spent of {CLIENT_UNIT}"
    )
    parser.add_argument(
        "--image-epsilon", type=_positive, metavar="E", help=f"the most that may be spent of {RECORD_UNIT}"
    )
    parser.add_argument(
        "--delta",
        type=_probability,
        metavar="D",
        help="state what they cost together at this delta; default: the largest that the ledgers state",
    )
    parser.add_argument(
        "--view",
        choices=[view.value for view in View],
        default=View.SUM.value,
        help="whom --client-epsilon is against; default: sum",
    )
    parser.add_argument(
        "--adjacency",
        action="append",
        default=[],
        choices=[*(each.value for each in Adjacency), *ADJACENCY_WORDS],
        help="which worlds a limit compares; for clients by default replace_one, for images what the ledgers "
        "state; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--disclosure", action="store_true", help="print the signed facts as plain text")
    return parser


if __name__ == "__main__":
    sys.exit(main())
