"""What a page with many runs is about: points, the keys in which they differ, and where it all came from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from prism_secure.config import COMPUTING
from prism_secure.config.reading import PATHS, command_to_show
from prism_secure.errors import ConfigError
from prism_secure.run_folder.run import Run
from prism_secure.sweep.recipe import Settings, point_id
from prism_secure.sweep.results import Sweep, SweepPoint

__all__ = ["Subject", "subject_of_runs", "subject_of_sweep"]

_UNLIKE = COMPUTING | {("federation", "seed"), ("privacy", "record_store")}
"""Keys that make no other point: seeds are repetitions, the rest does not change the law of the result."""


@dataclass(frozen=True)
class Subject:
    """Points to be shown beside each other.

    Attributes:
        title: of the page.
        points: each with its runs, one for each seed.
        keys: what the points differ in, "privacy.flip" say.
        command: what made them; "" if it is not known.
        recipe: the sweep's TOML; "" for runs named one by one.
        adaptive: whether which runs there are depended on earlier results.
        names: how each run's folder is written, by `Run.folder`.
    """

    title: str
    points: tuple[SweepPoint, ...]
    keys: tuple[str, ...]
    command: str
    recipe: str
    adaptive: bool
    names: dict[Path, str]

    @property
    def runs(self) -> list[Run]:
        """Of all points."""
        return [run for point in self.points for run in point.runs]

    @property
    def repeats(self) -> bool:
        """Whether the command makes the runs again: that of a sweep does, one that shows runs does not."""
        return bool(self.command and self.recipe)

    @property
    def private_metrics(self) -> bool:
        """Whether some figures of quality say something about data that no epsilon covers."""
        return any(run.config.private_metrics for run in self.runs)

    @property
    def sums_not_run(self) -> int:
        """How many runs added up in the clear what a secure sum would have."""
        return sum(run.config.secure_sum.simulate for run in self.runs)

    def number(self, point: SweepPoint) -> str:
        """What figures and tables call a point: "#3"."""
        return f"#{[each.id for each in self.points].index(point.id) + 1}"

    def label(self, point: SweepPoint) -> str:
        """A point in words; by its runs where no setting differs."""
        return point.name or " ".join(self.names[run.folder] for run in point.runs)


def subject_of_sweep(sweep: Sweep) -> Subject:
    """Everything in a sweep's folder.

    Raises:
        ConfigError: the weights behind the metrics changed while it ran.
    """
    _require_one_ruler(sweep.runs)
    return Subject(
        title="A sweep over " + " × ".join(key.partition(".")[2] for key in sweep.keys),
        points=_with_short_paths(sweep.points),
        keys=sweep.keys,
        command=command_to_show(sweep.command, sweep.recipe.base),
        recipe=_without_paths(sweep.recipe.dump()),
        adaptive=sweep.recipe.adaptive,
        names={run.folder: str(run.folder.relative_to(sweep.folder)) for run in sweep.runs},
    )


def subject_of_runs(runs: Sequence[Run], command: str = "") -> Subject:
    """Runs by themselves: those that differ in nothing but the seed are one point.

    Raises:
        ConfigError: fewer than two, one twice, or measured in different features.
    """
    folders = [run.folder.resolve() for run in runs]
    if len(runs) < 2:
        raise ConfigError(f"comparing takes two runs at least, got {len(runs)}")
    if len(set(folders)) < len(folders):
        twice = next(run.folder for run in runs if folders.count(run.folder.resolve()) > 1)
        raise ConfigError(f"{twice} is named more than once")
    _require_one_ruler(runs)
    flat = [_flat(run) for run in runs]
    keys = tuple(key for key in flat[0] if len({json.dumps(settings[key]) for settings in flat}) > 1)
    points: dict[str, tuple[Settings, list[Run]]] = {}
    for run, settings in zip(runs, flat, strict=True):
        chosen = {key: settings[key] for key in keys}
        points.setdefault(point_id(chosen), (chosen, []))[1].append(run)
    words = ", ".join(key.partition(".")[2] for key in keys)
    return Subject(
        title=f"{len(runs)} runs that differ in {words}"
        if words
        else f"{len(runs)} runs of the same settings",
        points=_with_short_paths(
            [SweepPoint(name, chosen, tuple(found)) for name, (chosen, found) in points.items()]
        ),
        keys=keys,
        command=command,
        recipe="",
        adaptive=False,
        names={run.folder: str(run.folder) for run in runs},
    )


def _require_one_ruler(runs: Sequence[Run]) -> None:
    """FID and its companions are distances in features: those of two networks are in two units."""
    weights = {run.quality.features for run in runs if run.quality}
    found = sorted({run.config.metrics.features for run in runs})
    if len(found) > 1 or len(weights) > 1:
        which = ", ".join(found) if len(found) > 1 else f"{found[0]} with other weights"
        raise ConfigError(
            f"these runs were measured in different features ({which}), whose figures do not compare: name "
            "runs of one metrics.features and one file of weights"
        )


def _flat(run: Run) -> dict[str, Any]:
    raw = msgspec.to_builtins(run.config)
    return {
        f"{section}.{key}": value
        for section, keys in raw.items()
        for key, value in keys.items()
        if (section, key) not in _UNLIKE
    }


def _with_short_paths(points: Sequence[SweepPoint]) -> tuple[SweepPoint, ...]:
    """Points whose settings have of paths no more than tells them apart: a page shows no whole ones."""
    for key in (f"{section}.{name}" for section, name in PATHS):
        short = shortest_tails([str(p.settings[key]) for p in points if p.settings.get(key) is not None])
        points = [
            replace(point, settings={**point.settings, key: short[str(point.settings[key])]})
            if point.settings.get(key) is not None
            else point
            for point in points
        ]
    return tuple(points)


def shortest_tails(paths: Iterable[str]) -> dict[str, str]:
    """Each path's last parts, as few as tell it apart from the others; a whole one where it ends another.

    >>> shortest_tails(["/data/a/scans", "/data/b/scans", "/data/b/drawings"])
    {'/data/a/scans': 'a/scans', '/data/b/scans': 'b/scans', '/data/b/drawings': 'drawings'}
    """
    parts = {path: Path(path).parts for path in paths}

    def tail(path: str) -> str:
        own = parts[path]
        for length in range(1, len(own)):
            if not any(other[-length:] == own[-length:] for name, other in parts.items() if name != path):
                return str(Path(*own[-length:]))
        return path

    return {path: tail(path) for path in parts}


def _without_paths(recipe: str) -> str:
    """A recipe in TOML with … for the places of one's own files."""
    keys = "|".join(key for _, key in PATHS)
    return re.sub(rf"(?m)^({keys}) = .*$", r'\1 = "…"', recipe)
