"""Sweeps: one recipe, many runs, on all cores and on many machines, continued after any kill.

    recipe        what a sweep is to do: a base run, the keys that vary, how their values are chosen
    space         a key's values as Optuna sees them
    objectives    what a search improves, by name
    stopping      when a run ends before its last round
    study         the points in Optuna's storage: which wait, which are taken, which are done
    worker        a process that carries out runs, one after the other
    carry_out     a sweep from recipe to results
    engine        hands runs to workers until every point is done
    display       what one sees meanwhile
    dashboard     Optuna's own page of the study
    folder        the files of a sweep
    results       a sweep's folder, read: the interface for tables and pages
    report        the page that it ends with
    composition   epsilon over several runs on the same owners' data

Reading needs nothing but the folder; sweeping needs Optuna (the extra `sweep`).

`prism_secure.sweep` is the function below; modules are imported from the package all the same, by `from
prism_secure.sweep.results import read_sweep` or `from prism_secure.sweep import results`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prism_secure.sweep.results import Sweep

__all__ = ["sweep"]


def sweep(
    recipe: str | os.PathLike[str] | Mapping[str, Any],
    out: str | os.PathLike[str],
    *,
    overrides: Sequence[str] = (),
    workers: int | None = None,
    storage: str | None = None,
    until: str | None = None,
    fail_fast: bool = False,
    quiet: bool = False,
) -> Sweep:
    """Carry out all runs of a recipe, write their page, and return what they gave; `prism-secure sweep`.

    The same call continues after any kill: finished runs are kept, and no round is charged twice.

    Args:
        recipe: a TOML file, its text (of more than one line), or its tables as a dict: a run's settings, and
            a table "sweep" that says which vary; see docs/sweeps.md.
        out: the sweep's folder, new or to be continued.
        overrides: "section.key=value" of the base run, or of [sweep].
        workers: runs at once, each on one core; None: as many as there are cores.
        storage: "postgresql://...", where many machines sweep together.
        until: end each run after the round that reaches it, "fid<80" say; its planned epsilon stays.
        fail_fast: end at the first failure, without a second attempt.
        quiet: say nothing meanwhile; otherwise a live table in a terminal, and a line an event elsewhere.

    Raises:
        ConfigError: the recipe cannot be read or run, or a package of the extra `sweep` is missing.
        RunFolderError: `out` holds something else, or another recipe's sweep.
        StorageError: the disk or the database refused.
        RoundError: some points failed. The others are finished (`read_sweep(out)`), and the same call tries
            those again.

    >>> prism_secure.sweep({"recipe": "cross-device", "sweep": {"seeds": [0, 1, 2], "grid":  # doctest: +SKIP
    ...     {"measured.epsilon": [1, 2, 4, 8]}}}, "sweeps/epsilon").front()
    """
    from pathlib import Path

    from rich.console import Console

    from prism_secure.errors import RoundError
    from prism_secure.sweep.carry_out import carry_out
    from prism_secure.sweep.recipe import read_recipe
    from prism_secure.sweep.report import write_sweep_page

    folder = Path(out)
    ended = carry_out(
        read_recipe(recipe, overrides, until=until),
        folder,
        command="python",
        workers=workers,
        storage=storage,
        fail_fast=fail_fast,
        console=Console(quiet=True) if quiet else None,
    )
    write_sweep_page(folder)
    if ended.failed:
        reasons = [f"{run.name}: {run.reason}" for run in ended.sweep.runs if run.state == "failed"]
        reasons += [f"{point.name}: {point.refused}" for point in ended.sweep.points if point.refused]
        which = "1 point" if ended.failed == 1 else f"{ended.failed} points"
        raise RoundError(
            f"{which} failed ({'; '.join(reasons)}); the others are in {folder}, and the same call tries "
            "what failed again"
        )
    return ended.sweep
