"""`prism-secure report`: write the page of a run folder again."""

from __future__ import annotations

import argparse
from pathlib import Path

from prism_secure.commands.parsing import Commands, add_command


def add_to(commands: Commands) -> None:
    parser = add_command(commands, "report", "write a run folder's report.html again")
    parser.add_argument("run", type=Path, metavar="DIR", help="a run folder, finished or not")
    parser.set_defaults(command=_report)


def _report(options: argparse.Namespace, command: str) -> int:
    from prism_secure.report import write_report

    print(f"Report: {write_report(options.run).resolve()}")
    return 0
