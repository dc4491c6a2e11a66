"""The page's tables as plain rows, and their files: CSV for people, Parquet for programs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from prism_secure.run_folder.history import LowerBound
from prism_secure.run_folder.one_run_record import FILE as ONE_RUN
from prism_secure.run_folder.run import Run
from prism_secure.run_folder.tables import ROUND_COLUMNS, Cell, Table, round_rows, setting, uniform
from prism_secure.storage import write_atomic
from prism_secure.sweep.composition import compose, owners
from prism_secure.sweep.objectives import DIRECTIONS
from prism_secure.sweep.report.subject import Subject
from prism_secure.sweep.results import SweepPoint

__all__ = [
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
                *(setting(point.settings[key]) for key in subject.keys),
                len(point.finished),
                len(point.runs),
                *(point.mean(name) for name in QUALITY),
                *ends,
                *(point.epsilon(name.partition(".")[2]) for name in EPSILONS),
                *(point.mean(name) for name in COSTS),
                *(point.id in found for found in fronts.values()),
            )
        )
    return Table("points", columns, uniform(rows))


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
                    *(setting(point.settings[key]) for key in subject.keys),
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
    return Table("runs", columns, uniform(rows))


def rounds_table(subject: Subject) -> Table:
    """One row a finished round of every run, with its point's settings."""
    columns = ("run", "point", *subject.keys, "seed", *ROUND_COLUMNS)
    rows: list[tuple[Cell, ...]] = [
        (
            subject.names[run.folder],
            point.id,
            *(setting(point.settings[key]) for key in subject.keys),
            run.seed,
            *row,
        )
        for point in subject.points
        for run in point.runs
        for row in round_rows(run.records)
    ]
    return Table("rounds", columns, uniform(rows))


def composed_table(subject: Subject) -> Table:
    """One row for each group of runs that touched the same owners' data: epsilon over all of them."""
    columns = (
        "data", "runs", "sum_zero_out", "sum_replace_one", "upload_zero_out", "upload_replace_one", "delta",
        "record_epsilon", "record_delta", "record_releases", "runs_open",
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for group in owners(subject.runs):
        total = compose(group.runs)
        cells = (getattr(total.epsilon, name) for name in columns[2:6])
        record = (total.record_epsilon, total.record_delta, total.record_releases, total.open)
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
        ConfigError: pyarrow is not installed.
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
