"""A sweep's folder, read without changing it, also while the sweep goes on.

    DIR/sweep.toml            the resolved recipe; the same sweep continued with another one is refused
    DIR/command.txt           the command line of the first start, passwords left out
    DIR/points/<point>.json   one point: its settings, and how its runs failed, if they did
    DIR/runs/<run>/           one run folder for each point and seed, as `prism-secure run` makes it
    DIR/releases/             record-level releases that the runs share. Private
    DIR/study.db              Optuna's study, where the sweep needs no other storage
    DIR/report.html           the page

<point> and <run> are hashes of what determines them (`point_id`, `run_id`). Everything that is read here
comes from the folder, nothing from the study: a folder that was copied, or put together from several
machines' (copy `points` and `runs`), reads the same.

    >>> for point in read_sweep(folder).points:           # doctest: +SKIP
    ...     print(point.settings, point.epsilon("sum_zero_out"), point.mean("fid"), point.interval("fid"))
"""

from __future__ import annotations

import json
import math
import os
import statistics
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from prism_privacy import notebook
from prism_secure.config import Config
from prism_secure.errors import RunFolderError
from prism_secure.run_folder.folder import SWEEP_RECIPE
from prism_secure.run_folder.run import Run, State
from prism_secure.sweep.recipe import Settings, SweepRecipe, describe, point_id, read_recipe, run_id
from prism_secure.wording import format_epsilon

if TYPE_CHECKING:
    import pyarrow

__all__ = ["Sweep", "SweepPoint", "read_sweep"]

RECIPE, COMMAND, POINTS, RUNS, RELEASES = SWEEP_RECIPE, "command.txt", "points", "runs", "releases"

LEAST_SEEDS = 3
"""Runs of a point that an interval of its mean takes."""
SHOWN = ("sum_zero_out", "upload_zero_out", "record")
"""The epsilons of a point that a table has room for."""


class PointFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`points/<point>.json`."""

    settings: Settings
    failures: dict[str, list[str]] = {}
    """Why attempts failed, by run; removed when the run succeeds."""
    refused: str = ""
    """Why it cannot be run: a search may propose settings that do not go together."""


msgspec.json.Decoder(PointFile)  # prepared at import: not by two threads at once


@dataclass(frozen=True)
class SweepPoint:
    """One choice of the varied keys, and its runs: one for each seed, none if it was refused."""

    id: str
    settings: Settings
    runs: tuple[Run, ...]
    refused: str = ""
    """Why it cannot be run."""

    @property
    def name(self) -> str:
        """The settings in words."""
        return describe(self.settings)

    @property
    def finished(self) -> list[Run]:
        """The runs that have a result."""
        return [run for run in self.runs if run.finished]

    def values(self, objective: str) -> list[float]:
        """An objective of each finished run."""
        return [run.objective(objective) for run in self.finished]

    def mean(self, objective: str) -> float:
        """Over the finished runs; NaN if there is none."""
        values = self.values(objective)
        return statistics.fmean(values) if values else math.nan

    def interval(self, objective: str) -> tuple[float, float] | None:
        """A 95% interval of the mean over seeds (Student's t); None with fewer than three finished runs.

        Of two it would reach 6.4 times their distance to both sides, and say nothing that they do not."""
        values = self.values(objective)
        if len(values) < LEAST_SEEDS or not all(map(math.isfinite, values)):
            return None
        from scipy.stats import t

        half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
        middle = statistics.fmean(values)
        return middle - half, middle + half

    def epsilon(self, name: str) -> float:
        """Planned epsilon of one run, "sum_zero_out" say, or "record": the largest over the seeds."""
        return max(self.values(f"epsilon.{name}"), default=math.nan)


@dataclass(frozen=True)
class Sweep(os.PathLike[str]):
    """A whole sweep. As a path it is its page: `open(sweep)`, `Path(sweep)`.

    Attributes:
        folder: where it was read from.
        recipe: what it was asked to do.
        command: the command line of its first start.
        points: in the grid's order, or as they were made; a search's points appear when they are begun.
    """

    folder: Path
    recipe: SweepRecipe = field(repr=False)
    command: str
    points: tuple[SweepPoint, ...] = field(repr=False)

    @property
    def keys(self) -> tuple[str, ...]:
        """The varied keys."""
        return tuple(self.recipe.axes)

    @property
    def runs(self) -> list[Run]:
        """Of all points."""
        return [run for point in self.points for run in point.runs]

    @property
    def report(self) -> Path:
        """Its page; `prism_secure.sweep` and `prism-secure report` write it."""
        return self.folder / "report.html"

    def __fspath__(self) -> str:
        return str(self.report)

    @property
    def metrics(self) -> pyarrow.Table:
        """One row a run and finished round: run, point, each varied setting, seed, then as `Run.metrics`.

        A setting that has no value in a point is null there.

        Raises:
            ConfigError: pyarrow is not installed (the extra `parquet`).
        """
        from prism_secure.sweep.report.subject import subject_of_sweep
        from prism_secure.sweep.report.tables import rounds_table

        return rounds_table(subject_of_sweep(self)).arrow()

    def _repr_html_(self) -> str:
        """For notebooks: a row a point, with its means over seeds and its planned epsilons."""
        rows = [
            (
                point.name,
                f"{len(point.finished)} of {len(point.runs)}",
                *("" if math.isnan(x) else f"{x:.4g}" for x in map(point.mean, ("fid", "gen2real"))),
                *("" if math.isnan(x) else format_epsilon(x) for x in map(point.epsilon, SHOWN)),
            )
            for point in self.points
        ]
        record = record_of(self.runs)
        head = ("point", "runs", "FID", "gen2real", "ε(SUM)", "ε(UPLOAD)", f"ε({record})")
        return notebook.table(f"sweep over {', '.join(self.keys)}", rows, head)

    def counts(self) -> dict[State, int]:
        """How many runs are in each state."""
        states: list[State] = ["waiting", "unfinished", "done", "stopped", "failed"]
        found = [run.state for run in self.runs]
        return {state: found.count(state) for state in states}

    def front(self, x: str = "epsilon.sum_zero_out", y: str = "fid") -> list[SweepPoint]:
        """Points that no other is at least as good as in both objectives and better in one, by x."""
        return front(self.points, x, y)


def front(points: Iterable[SweepPoint], x: str, y: str) -> list[SweepPoint]:
    """The Pareto front of two objectives' means, from the best x on; see `Sweep.front`."""
    from prism_secure.sweep.objectives import direction

    def cost(point: SweepPoint) -> tuple[float, float]:
        signs = (1 if direction(name) == "minimize" else -1 for name in (x, y))
        values = (point.mean(name) for name in (x, y))
        first, second = (s * v for s, v in zip(signs, values, strict=True))
        return first, second

    costs = {point.id: cost(point) for point in points if point.finished}
    found = [point for point in points if point.id in costs and not any(map(math.isnan, costs[point.id]))]
    found.sort(key=lambda point: costs[point.id])
    best, least = [], math.inf
    for point in found:
        if costs[point.id][1] < least:
            best.append(point)
            least = costs[point.id][1]
    return best


def why_infinite_in(runs: Iterable[Run], *, of_images: bool) -> list[str]:
    """What stands beside a table of runs in which an epsilon is inf: each cause and mend, once.

    of_images   whether the table has inf for runs that claim nothing for single images
    """
    found: dict[str, int] = {}
    for run in runs:
        for each in run.unbounded:
            if of_images or run.record is not None or "ε(image)" not in each.names:
                found[str(each)] = found.get(str(each), 0) + 1
    return [f"{text} ({count} run{'' if count == 1 else 's'})" for text, count in found.items()]


def record_of(runs: Iterable[Run]) -> str:
    """What a record is in these runs, for the head of a table: "image", "person", or both."""
    return " or ".join(sorted({run.config.record for run in runs})) or "image"


def image_views(runs: Iterable[Run]) -> dict[str, str]:
    """Whom single images are protected from, of all runs that claim it: in short, and in words; each once."""
    found = [view for run in runs if (view := run.image_view) is not None]
    return {view.short: view.words for view in found}


def images_together(runs: Iterable[Run]) -> str:
    """Against whom an image's epsilon over all runs holds: on whatever condition a single one needs.

    "" where nothing is claimed.
    """
    found = [view for run in runs if (view := run.image_view) is not None]
    return " and ".join(dict.fromkeys(view.words for view in found if view.condition)) or (
        found[0].words if found else ""
    )


def read_sweep(folder: str | os.PathLike[str]) -> Sweep:
    """Everything that a sweep's folder says.

    Raises:
        RunFolderError: it is no sweep's, or damaged.
    """
    folder = Path(folder)
    if not (folder / RECIPE).exists():
        raise RunFolderError(f"{folder} is not a sweep: it has no {RECIPE}")
    recipe = read_recipe(folder / RECIPE)
    command = folder / COMMAND
    begun = {path.stem: read_point(path) for path in sorted((folder / POINTS).glob("*.json"))}
    settings = {point_id(point): point for point in recipe.grid()}
    settings |= {name: point.settings for name, point in begun.items() if name not in settings}
    return Sweep(
        folder,
        recipe,
        command.read_text("utf-8").strip() if command.exists() else "",
        tuple(_point(folder, recipe, point, begun.get(name)) for name, point in settings.items()),
    )


def read_point(path: Path) -> PointFile:
    """What is kept of a point.

    Raises:
        RunFolderError: damaged.
    """
    try:
        return msgspec.convert(json.loads(path.read_bytes()), PointFile)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise RunFolderError(f"{path} is damaged: {error}") from None


def point_text(file: PointFile) -> bytes:
    """What `read_point` reads. As Python writes JSON: msgspec has no word for infinity."""
    return json.dumps(msgspec.to_builtins(file)).encode()


def sweep_run(folder: Path, config: Config, failures: Mapping[str, Sequence[str]] | None = None) -> Run:
    """A run of the sweep in `folder`: named before it is told where the sweep keeps shared releases."""
    name = run_id(config)
    privacy = config.privacy
    if config.record_level and privacy.record_store is None:
        privacy = msgspec.structs.replace(privacy, record_store=str(folder / RELEASES))
        config = msgspec.structs.replace(config, privacy=privacy)
    return Run(name, folder / RUNS / name, config, tuple((failures or {}).get(name, ())))


def __getattr__(name: str) -> Any:
    if name == "SweepResults":
        warnings.warn("SweepResults is now Sweep; the old name goes with release 0.2", DeprecationWarning, 2)
        return Sweep
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _point(folder: Path, recipe: SweepRecipe, settings: Settings, file: PointFile | None) -> SweepPoint:
    file = file or PointFile(settings)
    if file.refused:
        return SweepPoint(point_id(settings), settings, (), file.refused)
    configs = [recipe.config(settings, seed) for seed in recipe.seeds]
    return SweepPoint(
        point_id(settings), settings, tuple(sweep_run(folder, config, file.failures) for config in configs)
    )
