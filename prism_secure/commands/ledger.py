"""`prism-secure ledger verify`: check a ledger of what was released."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from prism_secure.commands.first_checks import require_file
from prism_secure.commands.parsing import Commands, add_command
from prism_secure.errors import ConfigError
from prism_secure.wording import CLIENT_UNIT, RECORD_UNIT, format_delta, format_epsilon

if TYPE_CHECKING:
    from prism_privacy import LedgerEntry, LedgerReport, RecordGuarantee


def add_to(commands: Commands) -> None:
    parser = add_command(commands, "ledger", "check a ledger of what was released")
    verify = add_command(
        parser.add_subparsers(required=True, metavar="COMMAND"),
        "verify",
        "check the chain and the signatures of a ledger",
        "Check that no line of a ledger was changed, removed or reordered, and that its writer signed each. "
        "Exit code 0: intact, 1: not, or not to be told.",
    )
    verify.add_argument("file", type=Path, metavar="FILE", help="a ledger.jsonl")
    verify.add_argument("--key", metavar="HEX", help="the writer's Ed25519 public key, if you know it")
    verify.add_argument("--head", metavar="HEX", help="a head that you wrote down: it must be on the chain")
    verify.set_defaults(command=_verify)


def _verify(options: argparse.Namespace, command: str) -> int:
    require_file(options.file, "a ledger (ledger.jsonl in a run folder)")
    from prism_privacy import LedgerError, PrivacyError
    from prism_privacy.ledger import verify_ledger

    try:
        report = verify_ledger(options.file, options.key, head=options.head)
    except LedgerError as error:
        print(f"prism-secure: {error}", file=sys.stderr)
        return 1
    except PrivacyError as error:
        raise ConfigError(str(error)) from None
    if not report.end_checked and options.head is None:
        print(
            f"prism-secure: {options.file.name}.head is missing, so lines may have been cut off the end; "
            "put it back, or name a head that you wrote down with --head",
            file=sys.stderr,
        )
        return 1
    rounds = sum(entry.kind in ("round", "aborted") for entry in report.entries)
    print(f"intact: {rounds} rounds charged, head {report.head}")
    if any(entry.coins == "test" for entry in report.entries):
        print("test coins: whoever knows them sees through the noise, so no epsilon is claimed")
    owner = "the key that you gave" if report.pinned else "the key that the file itself names"
    print(f"signed by {report.public_key}, {owner}")
    if report.entries:
        record = next((entry.record for entry in report.entries if entry.record), None)
        _print_epsilons(report.entries[-1], record)
        for why in _why_infinite(report):
            print(why)
    for warning in report.warnings:
        print(f"warning: {warning}")
    return 0


def _why_infinite(report: LedgerReport) -> list[str]:
    """Why a client's epsilon is infinite, and what would make it finite, as far as a ledger tells."""
    from prism_secure.accounting.composition import opened_in
    from prism_secure.accounting.plan import why_infinite
    from prism_secure.config.sections import Federation, Privacy
    from prism_secure.config.whole import Config

    last, opened = report.entries[-1], opened_in(report)
    flip = last.release.get("flip", 0.0)
    if last.epsilon is None or not isinstance(flip, float | int):
        return []
    privacy = Privacy(flip=flip, delta=last.delta, record_epsilon=float("inf"))
    if opened is not None and last.record is not None:
        image = last.record.epsilon
        privacy = Privacy(flip=flip, delta=last.delta, record_epsilon=image, record_cohort=opened.shares)
    clients = max(3, report.clients or 3, 0 if opened is None else opened.shares)
    config = Config(federation=Federation(clients=clients), privacy=privacy)
    found = why_infinite(config, None, None if opened is None else opened.images)
    infinite = {view.name for (view, _), spent in last.epsilon.items() if spent.to_date == float("inf")}
    return [str(why) for why in found if any(view in name for view in infinite for name in why.names)]


def _print_epsilons(last: LedgerEntry, record: RecordGuarantee | None) -> None:
    from prism_privacy.moments.release import ADJACENCY_WORDS

    print(f"{CLIENT_UNIT}: epsilon to date at delta = {format_delta(last.delta)}")
    for (view, adjacency), spent in sorted((last.epsilon or {}).items()):
        print(f"  {view.value}, {adjacency.value}: {format_epsilon(spent.to_date)}")
    if last.epsilon is None:
        print("  none is claimed")
    if record is None:
        print(f"{RECORD_UNIT}: no epsilon is claimed")
        return
    print(f"{RECORD_UNIT}: epsilon for all rounds together at delta = {format_delta(record.delta)}")
    print(f"  {record.adjacency}: {format_epsilon(record.epsilon)}")
    if record.view is not None:
        on = "" if record.cohort is None else f", counting on {record.cohort} honest clients"
        print(f"  {record.view.value}{on}")
    print(f"  ({ADJACENCY_WORDS[record.adjacency]})")
