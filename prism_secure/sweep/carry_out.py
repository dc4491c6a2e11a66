"""A sweep from recipe to results, on this machine: what the command and `prism_secure.sweep` both do."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from prism_secure.errors import ConfigError
from prism_secure.sweep.recipe import SweepRecipe, refuse_infinite
from prism_secure.sweep.results import RECIPE, RUNS, Sweep, read_sweep
from prism_secure.sweep.worker import Crew, devices

__all__ = ["Ended", "carry_out"]


@dataclass(frozen=True)
class Ended:
    """How a sweep of this machine ended.

    Attributes:
        sweep: its folder, read.
        failed: how many points failed.
        alone: whether no other machine can have made runs of it.
    """

    sweep: Sweep
    failed: int
    alone: bool


def carry_out(
    recipe: SweepRecipe,
    out: Path,
    *,
    command: str,
    workers: int | None = None,
    storage: str | None = None,
    fail_fast: bool = False,
    dashboard: bool = False,
    console: Console | None = None,
) -> Ended:
    """Make all runs of a recipe that are not there yet, and say meanwhile how they go on.

    Args:
        recipe, out: what, and in which folder.
        command: what the page and the runs' reports say made them.
        workers: runs at once; None: one for each core.
        storage: "postgresql://..." for many machines; None: a file in the folder.
        fail_fast: end at the first failure.
        dashboard: serve Optuna's page of the study meanwhile.
        console: where to; None: standard output.

    Raises:
        ConfigError: a sweep that could only give infinite epsilons, workers below 1, or no package of the
            extra `sweep`.
        RunFolderError: the folder holds something else, another recipe's sweep, or one that goes on.
        StorageError: the disk or the database refused.
        FailedFast: a run failed, and that was to end the sweep.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers (--workers) must be at least 1, got {workers}")
    if not (out / RECIPE).exists():  # what began is finished
        refuse_infinite(recipe)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    points = len(recipe.grid()) or recipe.sweep.points or 0
    total = points * len(recipe.seeds)
    at_once = min(workers or cores, total)
    with (
        contextlib.ExitStack() as lock,
        Crew(at_once, devices()) as crew,
        contextlib.ExitStack() as open_things,
    ):
        # The workers start while the rest is imported, and have ended when the folder is let go.
        from prism_secure.sweep.dashboard import serve_dashboard
        from prism_secure.sweep.display import Display
        from prism_secure.sweep.engine import Engine
        from prism_secure.sweep.folder import SweepFolder
        from prism_secure.sweep.report.page import require_packages
        from prism_secure.sweep.study import PointStudy, as_storage_error, import_optuna

        import_optuna()  # before a folder is made that nothing can be done with
        require_packages()
        folder = SweepFolder(out, recipe, command)
        lock.callback(folder.close)
        url = storage or folder.study_url
        study = PointStudy(recipe, folder.study_name(recipe), url, folder.owner)
        open_things.callback(study.close)
        display = open_things.enter_context(Display(total, at_once, console, record=recipe.record))
        if recipe.stands_on:
            display.note(recipe.stands_on)
        display.note(f"{points} points, {total} runs, {at_once} at once; {out / RUNS}")
        if dashboard:
            display.note(f"Dashboard: {serve_dashboard(url)}")
        engine = Engine(recipe, folder, study, crew, display, command=command, fail_fast=fail_fast)
        with as_storage_error(url):
            failed = engine.sweep()
    return Ended(read_sweep(out), failed, alone=url.startswith("sqlite"))
