"""`prism-secure list`: the runs and sweeps under a folder, and how they stand."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from prism_secure.commands.parsing import Commands, add_command
from prism_secure.errors import ConfigError, RunFolderError

if TYPE_CHECKING:
    from prism_privacy import RecordGuarantee
    from prism_secure.run_folder.run import Run

HELP = """\
List run folders and sweeps under a folder: state, rounds, the last recall and FID (with the round, where that
is not the last one of a run that is over), and epsilon of one client (ZERO_OUT) and, where it is claimed, of
one image: to date, and of a run that is over what its plan guarantees, also if it stopped early. A sweep is
one line, with the best FID of its finished runs; name its own folder to see them all.
"""


def add_to(commands: Commands) -> None:
    parser = add_command(commands, "list", "the runs and sweeps under a folder", HELP)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path(), metavar="DIR", help="default: the current folder"
    )
    parser.set_defaults(command=_list)


def _list(options: argparse.Namespace, command: str) -> int:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from prism_secure.sweep.results import record_of, why_infinite_in

    if not options.folder.is_dir():
        raise ConfigError(f"{options.folder}: no such folder")
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=1000)  # a line is a line for other programs
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("folder", overflow="fold")
    table.add_column("state")
    shown: list[Run] = []
    rows = list(_rows(options.folder, shown))
    for name in ("rounds", "recall", "FID", "ε(SUM)", "ε(UPLOAD)", f"ε({record_of(shown)})"):
        table.add_column(name, justify="right")
    table.add_column("", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    if table.row_count:
        console.print(table)
        for why in why_infinite_in([run for run in shown if run.charged], of_images=False):
            print(f"{why}.", file=sys.stderr)  # other programs read lines of runs
    else:
        print(f"No runs and no sweeps under {options.folder}.")
    return 0


def _rows(folder: Path, shown: list[Run]) -> Iterator[tuple[str, ...]]:
    """A row for each run and sweep; the runs are added to `shown`."""
    from prism_secure.run_folder.run import Run
    from prism_secure.sweep.results import RECIPE, read_sweep

    if (folder / RECIPE).exists():
        sweep = read_sweep(folder)
        for point in sweep.points:
            for run in point.runs:
                shown.append(run)
                yield _row(f"{run.folder.relative_to(folder)}", run, f"{point.name} seed={run.seed}")
            if point.refused:
                yield ("", "refused", *[""] * 6, f"{point.name}: {point.refused}")
        return
    for found in _folders(folder):
        name = str(found.relative_to(folder)) if found != folder else "."
        try:
            if (found / RECIPE).exists():
                yield _sweep_row(name, found)
            else:
                run = Run.open(found)
                yield _row(name, run, "")
                shown.append(run)
        except (RunFolderError, ConfigError) as error:
            yield (name, "damaged", *[""] * 6, str(error))


def _folders(folder: Path) -> Iterator[Path]:
    """Sweeps and run folders, in order of their names; nothing is looked for inside them."""
    from prism_secure.sweep.results import RECIPE

    for place, folders, files in os.walk(folder):
        if RECIPE in files or ("config.toml" in files and {"federation.id", "ledger.jsonl"} & {*files}):
            folders.clear()
            yield Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def _row(name: str, run: Run, what: str) -> tuple[str, ...]:
    from prism_secure.wording import format_epsilon

    # The last charge, for all three: while a round goes on it is a round ahead of the records.
    spent = run.planned if run.finished else run.spent
    epsilons = ("", "") if spent is None else (spent.sum_zero_out, spent.upload_zero_out)
    return (
        name,
        run.state,
        f"{len(run.records)}/{run.config.federation.rounds}",
        f"{run.quality.recall:.2f}" if run.quality else "",
        f"{run.quality.fid:.1f}{run.measured_in}" if run.quality else "",
        *(format_epsilon(value) if isinstance(value, float) else "" for value in epsilons),
        "" if run.record is None else format_epsilon(_of_an_image(run.record, run.finished)),
        " ".join(filter(None, [what, run.reason and f"({run.reason})"])),
    )


def _of_an_image(record: RecordGuarantee, finished: bool) -> float:
    """To date, where it grows and the run is not over."""
    from prism_privacy import View

    return record.epsilon if finished or record.spent is None else record.spent[View.SUM].to_date


def _sweep_row(name: str, folder: Path) -> tuple[str, ...]:
    from prism_secure.sweep.results import read_sweep

    sweep = read_sweep(folder)
    counts = sweep.counts()
    finished = counts["done"] + counts["stopped"]
    best = min((run.quality.fid for run in sweep.runs if run.finished and run.quality), default=None)
    words = [f"sweep of {', '.join(sweep.keys)}: {finished} of {len(sweep.runs)} runs finished"]
    if counts["failed"]:
        words.append(f"{counts['failed']} failed")
    state = "failed" if counts["failed"] else "done" if finished == len(sweep.runs) else "unfinished"
    return (name, state, "", "", "" if best is None else f"{best:.1f}", "", "", "", ", ".join(words))
