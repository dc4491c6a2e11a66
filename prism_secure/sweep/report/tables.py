"""The page's tables as plain rows, and their files: CSV for people, Parquet for programs."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from prism_secure.errors import PrismError, pip_install
from prism_secure.run_folder.history import LowerBound
from prism_secure.run_folder.one_run import FILE as ONE_RUN
from prism_secure.storage import write_atomic
from prism_secure.sweep.composition import compose, owners
from prism_secure.sweep.objectives import DIRECTIONS
from prism_secure.sweep.report.subject import Subject
from prism_secure.sweep.results import Run, SweepPoint

__all__ = [
    "Table",
    "composed_table",
    "lower_bounds",
    "points_table",
    "rounds_table",
    "runs_table",
    "write_tables",
]

QUALITY = (
    "recall", "coverage", "gen2real", "gen2real_ceiling", "fid", "kid", "sliced_wasserstein", "precision",
    "density", "label_accuracy",
)  # fmt: skip
EPSILONS = tuple(name for name in DIRECTIONS if name.startswith("epsilon."))
COSTS = ("bits_per_parameter", "uplink_bytes", "seconds")

Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Table:
    """Rows of plain values; None and NaN are what was not measured."""

    name: str
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]

    def csv(self) -> str:
        """With a header; an infinite epsilon is written "inf", what is missing is left empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_shown(cell) for cell in row] for row in self.rows)
        return text.getvalue()

    def parquet(self) -> bytes:
        """The same with types; what is missing is null.

        Raises:
            PrismError: pyarrow is not installed.
        """
        arrow, parquet = _import_pyarrow()
        columns = zip(*self.rows, strict=True) if self.rows else ([] for _ in self.columns)
        arrays = {
            name: arrow.array([None if _missing(cell) else cell for cell in column])
            for name, column in zip(self.columns, columns, strict=True)
        }
        file = io.BytesIO()
        parquet.write_table(arrow.table(arrays), file)
        return file.getvalue()


def points_table(subject: Subject, fronts: dict[str, set[str]]) -> Table:
    """One row a point: means over its finished runs, and their 95% intervals.

    Args:
        fronts: the ids of the points on each Pareto front, by the front's epsilon.
    """
    intervals = [f"{name}_{end}" for name in QUALITY for end in ("low", "high")]
    columns = (
        "point", *subject.keys, "runs_finished", "runs", *QUALITY, *intervals, *EPSILONS, *COSTS,
        *(f"front.{name}" for name in fronts),
    )  # fmt: skip
    rows = []
    for point in subject.points:
        ends: list[Cell] = []
        for name in QUALITY:
            ends += point.interval(name) or (None, None)
        rows.append(
            (
                point.id,
                *(_setting(point.settings[key]) for key in subject.keys),
                len(point.finished),
                len(point.runs),
                *(point.mean(name) for name in QUALITY),
                *ends,
                *(point.epsilon(name.partition(".")[2]) for name in EPSILONS),
                *(point.mean(name) for name in COSTS),
                *(point.id in found for found in fronts.values()),
            )
        )
    return Table("points", columns, _uniform(rows))


def runs_table(subject: Subject) -> Table:
    """One row a run, finished or not."""
    columns = (
        "run", "point", *subject.keys, "seed", "state", "reason", "rounds", "rounds_planned", "delta",
        *QUALITY, *EPSILONS, *COSTS, "lower_bound.sum", "lower_bound.upload", "lower_bound.record",
    )  # fmt: skip
    rows = []
    for point in subject.points:
        for run in point.runs:
            floors = lower_bounds([run])
            rows.append(
                (
                    subject.names[run.folder],
                    point.id,
                    *(_setting(point.settings[key]) for key in subject.keys),
                    run.seed,
                    run.state,
                    run.reason,
                    len(run.records),
                    run.config.federation.rounds,
                    run.config.privacy.delta,
                    *(run.objective(name) for name in (*QUALITY, *EPSILONS, *COSTS)),
                    *(floors.get(name) for name in ("sum_zero_out", "upload_zero_out", "record")),
                )
            )
    return Table("runs", columns, _uniform(rows))


def rounds_table(subject: Subject) -> Table:
    """One row a finished round of every run."""
    epsilons = [name.partition(".")[2] for name in EPSILONS if name != "epsilon.record"]
    columns = (
        "run", "round", "survivors", *QUALITY, *(f"epsilon_to_date.{name}" for name in epsilons),
        "bits_per_parameter", "uplink_bytes", "downlink_bytes", "step", "seconds", "secure_sum_seconds",
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = [
        (
            subject.names[run.folder],
            record.round,
            record.survivors,
            *((getattr(record.quality, name) if record.quality else None) for name in QUALITY),
            *(getattr(record.epsilon, name) for name in epsilons),
            record.bits_per_parameter,
            record.uplink_bytes,
            record.downlink_bytes,
            record.step,
            record.seconds,
            record.secure_sum_seconds,
        )
        for run in subject.runs
        for record in run.records
    ]
    return Table("rounds", columns, rows)


def composed_table(subject: Subject) -> Table:
    """One row for each group of runs that touched the same owners' data: epsilon over all of them."""
    columns = (
        "data", "runs", "sum_zero_out", "sum_replace_one", "upload_zero_out", "upload_replace_one", "delta",
        "record_epsilon", "record_delta", "record_releases",
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for group in owners(subject.runs):
        total = compose(group.runs)
        cells = (getattr(total.epsilon, name) for name in columns[2:6])
        record = (total.record_epsilon, total.record_delta, total.record_releases)
        rows.append((group.words, total.runs, *cells, total.delta, *record))
    return Table("composed", columns, rows)


def lower_bounds(runs: Iterable[Run]) -> dict[str, float]:
    """The largest that audits of these runs found epsilon to be at least, by "sum_zero_out" or "record"."""
    found: dict[str, float] = {}
    for run in runs:
        # Asking for the history checks a whole ledger.
        if any((run.folder / name).exists() for name in ("audit.json", ONE_RUN)):
            for bound in run.history().lower_bounds:
                cell = _cell(bound)
                found[cell] = max(found.get(cell, 0.0), bound.epsilon)
    return found


def write_tables(folder: Path, tables: Sequence[Table]) -> None:
    """Each as NAME.csv and NAME.parquet.

    Raises:
        PrismError: pyarrow is not installed.
        StorageError: the disk refused.
    """
    for table in tables:
        write_atomic(folder / f"{table.name}.csv", table.csv().encode())
        write_atomic(folder / f"{table.name}.parquet", table.parquet())


def round_means(point: SweepPoint, metric: str) -> list[tuple[int, float]]:
    """A metric after each evaluated round, the mean over the runs that evaluated it."""
    values: dict[int, list[float]] = {}
    for run in point.runs:
        for record in run.records:
            value = getattr(record.quality, metric) if record.quality else None
            if value is not None and math.isfinite(value):
                values.setdefault(record.round, []).append(value)
    return [(number, statistics.fmean(values[number])) for number in sorted(values)]


def _cell(bound: LowerBound) -> str:
    return "record" if bound.unit == "record" else f"{bound.view}_{bound.adjacency}"


def _setting(value: Any) -> Cell:
    """Lists as JSON has them: a cell holds one value."""
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value)


def _uniform(rows: list[tuple[Cell, ...]]) -> list[tuple[Cell, ...]]:
    """Columns of numbers with words among them ("none" beside 1.0) become words: a column has one type."""
    columns = []
    for column in zip(*rows, strict=True):
        kinds = {type(cell) for cell in column if not _missing(cell)}
        if len(kinds) > 1:
            numbers = kinds <= {int, float}
            column = tuple(cell if _missing(cell) else (float if numbers else str)(cell) for cell in column)
        columns.append(column)
    return list(zip(*columns, strict=True))


def _missing(cell: Cell) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _shown(cell: Cell) -> Cell:
    return "" if _missing(cell) else str(cell).lower() if isinstance(cell, bool) else cell


def _import_pyarrow() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise PrismError(f"the page of many runs needs {error.name}: {pip_install('sweep')}") from None
    return pyarrow, pyarrow.parquet
