"""`prism-secure compare`: runs side by side, and what they tell together."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from prism_secure.commands.first_checks import require_run, require_writable
from prism_secure.commands.parsing import Commands, add_command
from prism_secure.errors import ConfigError

if TYPE_CHECKING:
    from prism_secure.sweep.report import Subject

HELP = """\
Compare run folders: the settings in which they differ, their quality and their planned epsilon, and epsilon
composed over all of them where they touched the same owners' data. Runs that differ in the seed alone are one
point of the page, with an interval of three or more.
"""

EXAMPLES = """\
examples:
  prism-secure compare runs/plain runs/noisy
  prism-secure compare runs/* --out comparison       with comparison/report.html, CSV, Parquet and SVG
"""


def add_to(commands: Commands) -> None:
    parser = add_command(commands, "compare", "runs side by side", HELP, EXAMPLES)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="two run folders or more")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write a page and its files there, too")
    parser.set_defaults(command=_compare)


def _compare(options: argparse.Namespace, command: str) -> int:
    for folder in options.runs:
        require_run(folder)
    if options.out is not None:
        require_writable(options.out, ConfigError)
    from prism_secure.run_folder.run import Run
    from prism_secure.sweep.report import subject_of_runs, write_page

    subject = subject_of_runs([Run.open(folder) for folder in options.runs], command)
    _print(subject)
    if options.out is not None:
        print(f"Page: {write_page(subject, options.out).resolve()}")
    return 0


def _print(subject: Subject) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from prism_secure.sweep.composition import compose, owners
    from prism_secure.sweep.results import images_together, record_of, why_infinite_in
    from prism_secure.wording import format_delta, format_epsilon

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=1000)  # a line is a line for other programs
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run", overflow="fold")
    table.add_column("settings", overflow="fold")
    record = record_of(subject.runs)
    quality = "FID (outside ε)" if subject.private_metrics else "FID"
    for name in ("seed", "rounds", "recall", quality, "ε(SUM)", "ε(UPLOAD)", f"ε({record})"):
        table.add_column(name, justify="right")
    table.add_column(f"of one {record} against")
    for point in subject.points:
        for run in point.runs:
            epsilons = (
                run.objective(f"epsilon.{name}") for name in ("sum_zero_out", "upload_zero_out", "record")
            )
            row = (
                subject.names[run.folder],
                subject.label(point) if subject.keys else "",
                str(run.seed),
                f"{len(run.records)}/{run.config.federation.rounds}",
                f"{run.quality.recall:.2f}" if run.quality else "–",
                f"{run.quality.fid:.1f}{run.measured_in}" if run.quality else "–",
                *("–" if math.isnan(value) else format_epsilon(value) for value in epsilons),
                run.image_view.short if run.image_view else "",
            )
            table.add_row(*map(Text, row))
    console.print(table)
    print("ε is the planned one of each run by itself, one client left out.")
    for why in why_infinite_in(subject.runs, of_images=True):
        print(f"{why}.")
    for group in owners(subject.runs):
        total = compose(group.runs)
        client, image = format_delta(total.delta), format_delta(total.record_delta)
        print(
            f"{total.runs} run{'' if total.runs == 1 else 's'} on {group.words} together: "
            f"ε(SUM) = {format_epsilon(total.epsilon.sum_zero_out)}, "
            f"ε(UPLOAD) = {format_epsilon(total.epsilon.upload_zero_out)} at δ = {client}; "
            f"for one {record_of(group.runs)} ε = {format_epsilon(total.record_epsilon)} at δ = {image}"
            + (f", {against}." if (against := images_together(group.runs)) else ".")
        )
