"""`prism-secure sweep`: many runs, on all cores and on many machines, continued after any kill."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

from prism_secure.commands.parsing import Commands, add_command

if TYPE_CHECKING:
    from prism_secure.sweep.results import Sweep

HELP = """\
Carry out all runs of a recipe: a run's TOML file with a table [sweep] that says which settings vary, and how.
Every run gets a run folder under DIR/runs. The same command continues after a kill at any time: each run is
made once, interrupted ones continue from their checkpoints, failed ones are tried again. It ends with the
page DIR/report.html; `prism-secure report DIR` writes it meanwhile.
"""

EXAMPLES = """\
a recipe (`prism-secure init` writes one with every setting explained):
  [federation]
  rounds = 6
  [sweep]
  seeds = [0, 1, 2]
  [sweep.grid]
  privacy.record_epsilon = [1, 2, 10]

examples:
  prism-secure sweep image.toml --out sweeps/image
  prism-secure sweep image.toml --out sweeps/quick --until 'fid<120' --set federation.rounds=3
  prism-secure sweep image.toml --out /shared/flip --storage postgresql://me@db/sweeps    on each machine
  prism-secure report sweeps/image

exit codes: 0 done, 2 recipe, 4 folder, 5 disk or storage, 6 some runs failed, 130 interrupted
"""


def add_to(commands: Commands) -> None:
    parser = add_command(commands, "sweep", "many runs: privacy against quality", HELP, EXAMPLES)
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a TOML file with a table [sweep]")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the sweep's folder, new or to continue"
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one setting of the base run, or of [sweep]; may be repeated",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="runs at once (default: one for each core)")
    parser.add_argument(
        "--storage", metavar="URL", help="postgresql://..., for many machines (default: DIR/study.db)"
    )
    parser.add_argument(
        "--until", metavar="GOAL", help="end each run after the round that reaches it, 'fid<80' say"
    )
    parser.add_argument("--fail-fast", action="store_true", help="end the sweep at the first failure")
    parser.add_argument(
        "--dashboard", action="store_true", help="serve Optuna's page of the study on this machine meanwhile"
    )
    parser.set_defaults(command=_sweep, continues=True)


def _sweep(options: argparse.Namespace, command: str) -> int:
    from prism_secure.sweep.carry_out import carry_out
    from prism_secure.sweep.recipe import read_recipe
    from prism_secure.sweep.study import hidden

    recipe = read_recipe(options.recipe, options.overrides, until=options.until)
    ended = carry_out(
        recipe,
        options.out,
        command=shlex.join(hidden(word) for word in shlex.split(command)),
        workers=options.workers,
        storage=options.storage,
        fail_fast=options.fail_fast,
        dashboard=options.dashboard,
    )
    results, failed = ended.sweep, ended.failed
    counts = results.counts()
    missing = counts["waiting"] + counts["unfinished"]
    print(_summary(results, failed))
    if missing and not failed:
        if not ended.alone:
            print(f"{missing} runs were made by other machines: their run folders are there.")
        else:
            print(f"{missing} runs are gone: deleted meanwhile? The same command makes them again.")
            failed = missing
    from prism_secure.sweep.report import write_sweep_page

    print(f"Page: {write_sweep_page(options.out).resolve()}")
    if options.dashboard:
        print("The dashboard is there until Ctrl-C.")
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)
    return 6 if failed else 0


def _summary(results: Sweep, failed: int) -> str:
    """How it ended, and what all of it together tells about those whose data it used."""
    from prism_secure.sweep.composition import compose, owners
    from prism_secure.sweep.results import images_together, record_of, why_infinite_in
    from prism_secure.wording import format_delta, format_epsilon, record_unit

    counts = results.counts()
    finished = counts["done"] + counts["stopped"]
    lines = [f"{finished} of {len(results.runs)} runs finished, {failed} points failed."]
    for group in owners(results.runs):
        total = compose(group.runs)
        if not total.runs:
            continue
        together = f"All {total.runs} runs on {group.words} together"
        which = together if total.runs > 1 else f"The run on {group.words}"
        lines.append(
            f"{which}, for everything one client contributes: "
            f"ε(SUM) = {format_epsilon(total.epsilon.sum_zero_out)}, "
            f"ε(UPLOAD) = {format_epsilon(total.epsilon.upload_zero_out)} at δ = {format_delta(total.delta)}."
        )
        if total.record_releases:
            lines.append(
                f"For {record_unit(record_of(group.runs))}: ε = {format_epsilon(total.record_epsilon)} at "
                f"δ = {format_delta(total.record_delta)}, from {total.record_releases} releases, "
                f"{images_together(group.runs)}."
            )
    claimed = any(run.record for run in results.runs)
    lines += [f"{why}." for why in why_infinite_in(results.runs, of_images=claimed)]
    return "\n".join(lines)
