"""`prism-secure report`: write the page of a run folder again, or that of a whole sweep."""

from __future__ import annotations

import argparse
from pathlib import Path

from prism_secure.commands.first_checks import require_run
from prism_secure.commands.parsing import Commands, add_command

HELP = """\
Write report.html into a run folder, finished or not. In a sweep's folder: one page about all its runs, and
beside it in report/ every figure as SVG and every table as CSV and Parquet.

With --disclosure: disclosure.html, one page for auditors and data protection officers, from the signed ledger
alone. It answers the questions of NIST SP 800-226 (unit, neighbours, delta, composition, trust, what is not
covered), and says beside every epsilon how well an attacker can do at most.
"""


def add_to(commands: Commands) -> None:
    parser = add_command(commands, "report", "write the page of a run, or of a sweep", HELP)
    parser.add_argument("run", type=Path, metavar="DIR", help="a run folder or a sweep's, finished or not")
    parser.add_argument(
        "--disclosure", action="store_true", help="the page of what a run guarantees, from its ledger alone"
    )
    parser.set_defaults(command=_report)


def _report(options: argparse.Namespace, command: str) -> int:
    require_run(options.run, sweep=not options.disclosure)
    if options.disclosure:
        from prism_secure.reporting.disclosure import write_disclosure

        print(f"Disclosure: {write_disclosure(options.run).resolve()}")
        return 0
    from prism_secure.reporting.report import write_report
    from prism_secure.sweep.results import RECIPE

    if (options.run / RECIPE).exists():
        from prism_secure.sweep.report import write_sweep_page

        page = write_sweep_page(options.run)
    else:
        page = write_report(options.run)
    print(f"Report: {page.resolve()}")
    return 0
