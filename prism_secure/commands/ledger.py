"""`prism-secure ledger verify`: check a ledger of what was released."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from prism_secure.commands.first_checks import file_of
from prism_secure.commands.parsing import Commands, add_command
from prism_secure.errors import ConfigError

if TYPE_CHECKING:
    from prism_privacy import LedgerReport


def add_to(commands: Commands) -> None:
    parser = add_command(commands, "ledger", "check a ledger of what was released")
    verify = add_command(
        parser.add_subparsers(required=True, metavar="COMMAND"),
        "verify",
        "check the chain and the signatures of a ledger",
        "Check that no line of a ledger was changed, removed or reordered, and that its writer signed each. "
        "Exit code 0: intact; 1: damaged, or impossible to tell.",
    )
    verify.add_argument("file", type=Path, metavar="FILE|RUN_DIR", help="a ledger.jsonl, or its run folder")
    verify.add_argument("--key", metavar="HEX", help="the writer's Ed25519 public key, if you know it")
    verify.add_argument("--head", metavar="HEX", help="a head that you wrote down: it must be on the chain")
    verify.set_defaults(command=_verify)


def _verify(options: argparse.Namespace, command: str) -> int:
    file = file_of(options.file, "ledger.jsonl", "a ledger (ledger.jsonl in a run folder), nor a run folder")
    from prism_privacy import LedgerError, PrivacyError, verify_ledger
    from prism_privacy.ledger.disclosure import statement
    from prism_privacy.verify import check_end

    try:
        report = verify_ledger(file, options.key, head=options.head)
        check_end(report, options.head)
    except LedgerError as error:
        print(f"prism-secure: {error}", file=sys.stderr)
        return 1
    except PrivacyError as error:
        raise ConfigError(str(error)) from None
    print(*statement(report), sep="\n")
    for why in _why_infinite(report) if report.entries else ():
        print(why)
    for warning in report.warnings:
        print(f"warning: {warning}")
    return 0


def _why_infinite(report: LedgerReport) -> list[str]:
    """Why a client's epsilon is infinite, and what would make it finite, as far as a ledger tells."""
    from prism_secure.accounting.signed import why_infinite_as_signed

    costs = report.entries[-1].epsilon or {}
    infinite = {view.name for (view, _), spent in costs.items() if spent.to_date == float("inf")}
    return [str(why) for why in why_infinite_as_signed(infinite, report, None)]
