"""`prism-secure audit`: look for what is wrong with a run, a mechanism, or what was spent in total."""

from __future__ import annotations

import argparse
from pathlib import Path

from prism_secure.commands.parsing import Commands, add_command

RUN_HELP = """\
Check a run folder for somebody who trusts neither the trainer nor this program: the ledger's chain and
signatures; every epsilon, computed again by other code; settings, cohorts, survivors and rounds against each
other; the model against the last round; and, where the clients' private folders are there, their coins.

Nothing in the folder is changed, except that audit.json is written into it.
"""

RUN_EXAMPLES = """\
examples:
  prism-secure audit run runs/first
  prism-secure audit run runs/first --key 5f1c...   the key that the ledger's writer gave you
  prism-secure audit run runs/first --html audit.html --json audit.json

exit codes: 0 clean, 1 at least one finding, 2 something that should be there could not be checked
"""


def add_to(commands: Commands) -> None:
    parser = add_command(commands, "audit", "look for what is wrong with a run or a mechanism")
    audits = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(audits)


def _add_run(audits: Commands) -> None:
    parser = add_command(
        audits, "run", "check a run folder: ledger, epsilons, cohorts, model", RUN_HELP, RUN_EXAMPLES
    )
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="a run folder, finished or not")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report as one page")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON")
    parser.add_argument("--key", metavar="HEX", help="the ledger writer's Ed25519 public key, if you know it")
    parser.add_argument("--head", metavar="HEX", help="a head that you wrote down: it must be on the chain")
    parser.add_argument(
        "--no-replay", action="store_true", help="do not repeat a client's first round (seconds of training)"
    )
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace, command: str) -> int:
    from prism_secure.audit.pages import write_run_page
    from prism_secure.audit.run_audit import audit_run, summary, write_json

    audit = audit_run(options.run, key=options.key, head=options.head, replay=not options.no_replay)
    for line in summary(audit):
        print(line)
    write_json(audit, options.run / "audit.json")
    if options.json:
        write_json(audit, options.json)
    if options.html:
        write_run_page(audit, options.html)
        print(f"Report: {options.html.resolve()}")
    return audit.exit_code
