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
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import msgspec

from prism_privacy.errors import InvalidParameter
from prism_privacy.ledger.entry import LedgerEntry, RecordGuarantee
from prism_privacy.ledger.line import decode_line, parse
from prism_privacy.moments.release import MomentRelease
from prism_privacy.units import View
from prism_secure.accounting import measured
from prism_secure.accounting.epsilons import CELLS, Epsilons
from prism_secure.accounting.plan import Unbounded, why_infinite
from prism_secure.accounting.record_release import ImageView, image_view
from prism_secure.config import Config
from prism_secure.errors import RunFolderError
from prism_secure.run_folder.folder import SWEEP_RECIPE, read_config, read_records
from prism_secure.run_folder.history import RunHistory, read_history
from prism_secure.run_folder.records import Quality, RoundRecord
from prism_secure.storage import whole_lines
from prism_secure.sweep.recipe import Settings, SweepRecipe, describe, point_id, read_recipe, run_id

__all__ = ["Run", "SweepPoint", "SweepResults", "read_sweep"]

State = Literal["waiting", "unfinished", "done", "stopped", "failed"]
"""waiting: not begun. unfinished: going on, or interrupted. stopped: finished before its last planned round,
for `Run.reason`. failed: for `Run.reason`, and to be tried again when the sweep is started again."""

RECIPE, COMMAND, POINTS, RUNS, RELEASES = SWEEP_RECIPE, "command.txt", "points", "runs", "releases"


class PointFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`points/<point>.json`."""

    settings: Settings
    failures: dict[str, list[str]] = {}
    """Why attempts failed, by run; removed when the run succeeds."""
    refused: str = ""
    """Why it cannot be run: a search may propose settings that do not go together."""


@dataclass(frozen=True)
class Run:
    """One run, in a sweep or by itself.

    Attributes:
        name: its id in a sweep, else its folder's name.
        folder: its run folder, which may not exist yet.
        config: what it does.
        failures: why attempts of it failed, oldest first.
    """

    name: str
    folder: Path
    config: Config
    failures: tuple[str, ...] = ()

    @property
    def seed(self) -> int:
        return self.config.federation.seed

    @cached_property
    def state(self) -> State:
        """How it stands."""
        if (self.folder / "DONE").exists():
            return "stopped" if ": " in self._done else "done"
        if self.failures or (self.folder / "FAILED").exists():
            return "failed"
        return "unfinished" if self.folder.exists() else "waiting"

    @cached_property
    def reason(self) -> str:
        """Why it failed or stopped; "" otherwise."""
        if self.state == "stopped":
            return self._done.partition(": ")[2]
        if self.state == "failed":
            own = self.folder / "FAILED"
            return self.failures[-1] if self.failures else own.read_text("utf-8", "replace").strip()
        return ""

    @cached_property
    def _done(self) -> str:
        return (self.folder / "DONE").read_text("utf-8", "replace").strip()

    @property
    def finished(self) -> bool:
        """Whether it has its result."""
        return self.state in ("done", "stopped")

    @cached_property
    def records(self) -> list[RoundRecord]:
        """Finished rounds, from 1 on; where test coins were used, every epsilon is infinite."""
        records = read_records(self.folder) if self.folder.exists() else []
        if self.charged is None or self.charged.epsilon is not None:
            return records
        nothing = Epsilons.of(dict.fromkeys(CELLS, math.inf))
        return [msgspec.structs.replace(record, epsilon=nothing) for record in records]

    @cached_property
    def quality(self) -> Quality | None:
        """The metrics of the last evaluated round."""
        return next((record.quality for record in reversed(self.records) if record.quality), None)

    @cached_property
    def charged(self) -> LedgerEntry | None:
        """The ledger's last line, its signature checked, the chain before it not: `history()` does that.

        Raises:
            RunFolderError: damaged.
        """
        path = self.folder / "ledger.jsonl"
        lines = whole_lines(path)
        if len(lines) < 2:
            return None
        try:
            key = bytes.fromhex(parse(lines[0])["body"]["public_key"])
            return LedgerEntry.from_line(decode_line(lines[-1], key))
        except (InvalidParameter, KeyError, TypeError, ValueError) as error:
            raise RunFolderError(f"{path}: {error}") from None

    @property
    def charged_rounds(self) -> int:
        """Rounds that the ledger has charged; one more than finished while a round goes on."""
        return 0 if self.charged is None else self.charged.round

    @property
    def planned_rounds(self) -> int:
        """Rounds that its epsilon speaks of: all of a finished run; before that at most so many."""
        return self.charged_rounds if self.state == "done" else self.config.federation.rounds

    @cached_property
    def planned(self) -> Epsilons | None:
        """One client's planned epsilon by view and adjacency: the run's guarantee, also when it ended early.

        None before the first charge.
        """
        entry = self.charged
        if entry is None:
            return None
        table = {cell: entry.spent(*cell) for cell in CELLS}
        return Epsilons.of(
            {cell: cost.to_date if cost.planned is None else cost.planned for cell, cost in table.items()}
        )

    @property
    def unbounded(self) -> tuple[Unbounded, ...]:
        """Each of its epsilons that is infinite, with its cause and what would make it finite."""
        entry = self.charged
        if entry is None or entry.epsilon is None:
            return ()
        dimension = entry.release.get("dim")
        return why_infinite(self.config, dimension if isinstance(dimension, int) else None, self._images)

    @cached_property
    def _images(self) -> int | None:
        """The most that a client has, as the ledger's first line says."""
        images = parse(whole_lines(self.folder / "ledger.jsonl")[0])["body"].get("records")
        return images if isinstance(images, int) else None

    @property
    def record(self) -> RecordGuarantee | None:
        """The record-level guarantee, if one is claimed."""
        return None if self.charged is None else self.charged.record

    @cached_property
    def image_view(self) -> ImageView | None:
        """Whom one image is protected from; None where nothing is claimed for it."""
        record = self.record
        if record is None:
            return None
        if record.spent is not None:
            seen = record.spent[View.UPLOAD]
            return measured.image_view(self.config, seen.to_date if seen.planned is None else seen.planned)
        shares = record.cohort
        if record.view is None and self.config.opens_moments:  # of a ledger that did not say
            shares = self.config.record_cohort
        return image_view(self.config, MomentRelease(**record.release), shares)  # type: ignore[arg-type]

    @property
    def seconds(self) -> float:
        """Of all finished rounds together."""
        return sum(record.seconds for record in self.records)

    def objective(self, name: str) -> float:
        """A value by the names of `prism_secure.sweep.objectives`; NaN where it was not measured."""
        if name == "epsilon.record":
            return math.inf if self.record is None else self.record.epsilon
        if name.startswith("epsilon."):
            return math.nan if self.planned is None else getattr(self.planned, name.partition(".")[2])
        if name == "seconds":
            return self.seconds
        if name in ("bits_per_parameter", "uplink_bytes"):
            values = [getattr(record, name) for record in self.records]
            return (max(values) if name == "bits_per_parameter" else sum(values)) if values else math.nan
        value = None if self.quality is None else getattr(self.quality, name)
        return math.nan if value is None else float(value)

    def history(self) -> RunHistory:
        """Everything that the folder shows, the whole ledger checked.

        Raises:
            RunFolderError: there is no such run yet, or a file is damaged.
        """
        return read_history(self.folder)


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
        """A 95% interval of the mean over seeds (Student's t); None with fewer than two finished runs."""
        values = self.values(objective)
        if len(values) < 2 or not all(map(math.isfinite, values)):
            return None
        from scipy.stats import t

        half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
        middle = statistics.fmean(values)
        return middle - half, middle + half

    def epsilon(self, name: str) -> float:
        """Planned epsilon of one run, "sum_zero_out" say, or "record": the largest over the seeds."""
        return max(self.values(f"epsilon.{name}"), default=math.nan)


@dataclass(frozen=True)
class SweepResults:
    """A whole sweep.

    Attributes:
        folder: where it was read from.
        recipe: what it was asked to do.
        command: the command line of its first start.
        points: in the grid's order, or as they were made; a search's points appear when they are begun.
    """

    folder: Path
    recipe: SweepRecipe
    command: str
    points: tuple[SweepPoint, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The varied keys."""
        return tuple(self.recipe.axes)

    @property
    def runs(self) -> list[Run]:
        """Of all points."""
        return [run for point in self.points for run in point.runs]

    def counts(self) -> dict[State, int]:
        """How many runs are in each state."""
        states: list[State] = ["waiting", "unfinished", "done", "stopped", "failed"]
        found = [run.state for run in self.runs]
        return {state: found.count(state) for state in states}

    def front(self, x: str = "epsilon.sum_zero_out", y: str = "fid") -> list[SweepPoint]:
        """Points that no other is at least as good as in both objectives and better in one, by x."""
        return front(self.points, x, y)


def front(points: Iterable[SweepPoint], x: str, y: str) -> list[SweepPoint]:
    """The Pareto front of two objectives' means, from the best x on; see `SweepResults.front`."""
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


def read_run(folder: Path) -> Run:
    """A run folder by itself.

    Raises:
        RunFolderError: it is none.
    """
    return Run(folder.resolve().name, folder, read_config(folder))


def read_sweep(folder: Path) -> SweepResults:
    """Everything that a sweep's folder says.

    Raises:
        RunFolderError: it is no sweep's, or damaged.
    """
    if not (folder / RECIPE).exists():
        raise RunFolderError(f"{folder} is not a sweep: it has no {RECIPE}")
    recipe = read_recipe(folder / RECIPE)
    command = folder / COMMAND
    begun = {path.stem: read_point(path) for path in sorted((folder / POINTS).glob("*.json"))}
    settings = {point_id(point): point for point in recipe.grid()}
    settings |= {name: point.settings for name, point in begun.items() if name not in settings}
    return SweepResults(
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


def _point(folder: Path, recipe: SweepRecipe, settings: Settings, file: PointFile | None) -> SweepPoint:
    file = file or PointFile(settings)
    if file.refused:
        return SweepPoint(point_id(settings), settings, (), file.refused)
    configs = [recipe.config(settings, seed) for seed in recipe.seeds]
    return SweepPoint(
        point_id(settings), settings, tuple(sweep_run(folder, config, file.failures) for config in configs)
    )
