"""What a sweep is to do: a base run, the keys that vary, and how their values are chosen.

A recipe is a run's TOML file with one table more:

    [federation]
    rounds = 6

    [sweep]
    method = "grid"
    seeds = [0, 1, 2]

    [sweep.grid]
    privacy.flip = [0, 0.05, 0.1]
    privacy.clip = ["none", 4.0]

A **point** is one choice of the varied keys; it has one **run** for each seed. Points and runs are named by a
hash of what determines them, so the same recipe finds its runs again, and no run is ever made twice.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import itertools
import json
import math
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_type_hints

import msgspec
import tomli_w

from prism_secure.accounting.epsilons import CELLS
from prism_secure.accounting.plan import IMAGE, epsilons_of, why_infinite
from prism_secure.config import (
    COMPUTING,
    Config,
    apply_overrides,
    config_of,
    dump_config,
    read_toml,
    stands_on,
)
from prism_secure.config.recipes import on_recipe
from prism_secure.config.sections import Data, Federation, Model
from prism_secure.config.toml_words import NONE, wrong_type
from prism_secure.errors import ConfigError, did_you_mean
from prism_secure.sweep import objectives
from prism_secure.sweep.space import Axis, parse_axis
from prism_secure.sweep.stopping import Until, parse_until

__all__ = [
    "Settings",
    "SweepRecipe",
    "SweepTable",
    "point_id",
    "read_recipe",
    "recipe_tables",
    "refuse_infinite",
    "run_id",
]

Settings = dict[str, Any]
"""Values of the varied keys by name; None where an optional key has none."""
Source = str | os.PathLike[str] | Mapping[str, Any]
"""A recipe: a TOML file, its text, or its tables."""

ADAPTIVE = ("tpe", "nsga2")
"""Methods whose next point depends on earlier results."""
MASK_NOISE = frozenset({"privacy.flip", "privacy.clip", "privacy.clip_space"})
"""Settings that cost quality and buy epsilon of one client, nothing else."""
_MOST_TRIED = 1000
"""So many points are tried for a finite epsilon; a sweep of more is let through."""


class SweepTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[sweep]`."""

    method: Literal["grid", "random", "tpe", "nsga2"] = "grid"
    """Every combination; random points; or a search of the front of all objectives (Optuna's samplers)."""
    points: int | None = None
    """How many points `random`, `tpe` and `nsga2` try; a grid has as many as it has combinations."""
    seeds: tuple[int, ...] = ()
    """federation.seed of each point's runs; an empty list: one run, with the base run's seed."""
    objectives: tuple[str, ...] = ()
    """What a search improves, see `prism_secure.sweep.objectives`; an empty list: FID, and the epsilon that
    the base run limits (`SweepRecipe.objectives`)."""
    until: str | None = None
    """End a run after the round in which this holds, "fid<80" say."""
    pruning: Literal["none", "dominated"] = "none"
    """With "dominated": end a run that a finished point beats on both counts; see `stopping`."""
    margin: float = 0.2
    """With `pruning`: by how much the other point's FID must be better, as a share of it."""
    grid: dict[str, Any] = {}
    """With `grid`: for each key the list of its values."""
    search: dict[str, Any] = {}
    """Otherwise: for each key a list, or {low, high} with `log` or `step`."""


msgspec.json.Decoder(SweepTable)  # prepared at import: not by two threads at once


@dataclass(frozen=True)
class SweepRecipe:
    """A checked recipe.

    Attributes:
        base: the run that every point varies.
        sweep: the table `[sweep]`.
        axes: what each varied key may be.
        until: `sweep.until`, parsed.
        stands_on: what its file takes the rest from, in a line; a resolved recipe leaves nothing out.
    """

    base: Config
    sweep: SweepTable
    axes: Mapping[str, Axis]
    until: Until | None
    stands_on: str = field(default="", compare=False)

    @property
    def seeds(self) -> tuple[int, ...]:
        """federation.seed of each run of a point."""
        return self.sweep.seeds or (self.base.federation.seed,)

    @property
    def objectives(self) -> tuple[str, ...]:
        """What points are compared by.

        None named: FID, and epsilon for one image where that varies, where the moments of all clients are
        opened and one client's epsilon is that release's, whatever the masks cost, or where measured rounds
        are calibrated for it; else epsilon(SUM, ZERO_OUT).
        """
        if self.sweep.objectives:
            return self.sweep.objectives
        record = self.base.opens_moments or "privacy.record_epsilon" in self.axes
        record |= self.base.measures and self.base.measured.unit == "image"
        return ("epsilon.record" if record else "epsilon.sum_zero_out", "fid")

    @property
    def record(self) -> str:
        """What a record is in the runs: "image", "person", or both where that varies."""
        axis = self.axes.get("data.person")
        values = axis.values if axis and isinstance(axis.values, tuple) else (self.base.data.person,)
        return " or ".join(sorted({"image" if value is None else "person" for value in values}))

    @property
    def adaptive(self) -> bool:
        """Whether which points there are depends on what earlier ones gave."""
        return self.sweep.method in ADAPTIVE

    def config(self, settings: Settings, seed: int) -> Config:
        """One run's configuration.

        Raises:
            ConfigError: the settings do not go together; the message says at which point.
        """
        raw = copy.deepcopy(_tables(self.base))
        for name, value in (settings | {"federation.seed": seed}).items():
            section, _, key = name.partition(".")
            if value is None:
                raw.setdefault(section, {}).pop(key, None)
            else:
                raw.setdefault(section, {})[key] = value
        try:
            return config_of(raw, "sweep")
        except ConfigError as error:
            raise ConfigError(f"the point {describe(settings)}: {error}") from None

    def grid(self) -> list[Settings]:
        """Every combination, each once, the last key varying fastest; empty unless this is a grid."""
        if self.sweep.method != "grid":
            return []
        names = list(self.axes)
        choices = [axis.values for axis in self.axes.values() if isinstance(axis.values, tuple)]
        points = [dict(zip(names, values, strict=True)) for values in itertools.product(*choices)]
        return list({point_id(point): point for point in map(self.normal, points)}.values())

    def normal(self, settings: Settings) -> Settings:
        """The settings as the configuration holds them: 0 and 0.0 are one value of a number.

        Raises:
            ConfigError: they do not go together.
        """
        config = self.config(settings, self.seeds[0])
        found = {name: getattr(getattr(config, name.split(".")[0]), name.split(".")[1]) for name in settings}
        return dict(msgspec.to_builtins(found))

    def dump(self) -> str:
        """The resolved recipe as TOML; `read_recipe` reads it back as an equal one."""
        table = {key: value for key, value in msgspec.to_builtins(self.sweep).items() if value is not None}
        table = {key: value for key, value in table.items() if key not in ("grid", "search") or value}
        return dump_config(self.base) + "\n" + tomli_w.dumps({"sweep": table})


def recipe_tables(source: Source) -> dict[str, Any]:
    """A recipe's tables: of a TOML file, of its text (more than one line), or as they are.

    Raises:
        ConfigError: it cannot be read, is not TOML, or is none of the three.
    """
    if isinstance(source, Mapping):
        return copy.deepcopy(dict(source))
    if not isinstance(source, str | os.PathLike):
        raise ConfigError(f"a sweep's recipe is a TOML file, its text, or its tables, got {source!r}")
    if isinstance(source, str) and "\n" in source:
        try:
            return tomllib.loads(source)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"the recipe: not TOML: {error}") from None
    return read_toml(Path(source))


def read_recipe(
    source: Source, overrides: Sequence[str] | None = None, *, until: str | None = None
) -> SweepRecipe:
    """Read and check a recipe; `overrides` are `section.key=value`, "sweep.points=8" among them.

    Args:
        source: as `recipe_tables` takes it.

    Raises:
        ConfigError: unreadable, an unknown key (the nearest valid one is offered), a value of the wrong type,
            or points that cannot be run: all of a grid are tried before anything starts.
    """
    path = "the recipe" if isinstance(source, Mapping) or "\n" in str(source) else str(source)
    tables = recipe_tables(source)
    told = stands_on(tables, where=path)
    raw = on_recipe(tables)
    apply_overrides(raw, overrides)
    table = raw.pop("sweep", None)
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: a sweep needs a table [sweep]; `prism-secure init` writes one")
    table = dict(table)
    for kind in ("grid", "search"):
        table[kind] = _flat(table.get(kind, {}), f"{path}: [sweep.{kind}]")
        for name in [name for name in table if name.startswith(f"{kind}.")]:  # from --set
            table[kind][name.removeprefix(f"{kind}.")] = table.pop(name)
    if until is not None:
        table["until"] = until
    sweep = _sweep(table, str(path))
    try:
        base = config_of(raw, str(path))
    except ConfigError as error:
        raise ConfigError(f"the base run, which is {path} without [sweep]: {error}") from None
    used, unused = ("grid", "search") if sweep.method == "grid" else ("search", "grid")
    if getattr(sweep, unused) or not getattr(sweep, used):
        raise ConfigError(f"{path}: method = {sweep.method!r} takes its keys from [sweep.{used}] alone")
    axes = {name: parse_axis(name, axis, used) for name, axis in getattr(sweep, used).items()}
    recipe = SweepRecipe(base, sweep, axes, parse_until(sweep.until), told)
    if "metrics.features" in axes:
        raise ConfigError(
            f"{path}: metrics.features cannot vary in a sweep: figures in the features of different networks "
            "do not compare"
        )
    _check(recipe)
    return recipe


def run_id(config: Config) -> str:
    """Names a run by all that determines it: 12 hexadecimal digits.

    >>> run_id(Config()) == run_id(config_of({"federation": {"workers": 1, "device": "cuda"}}, ""))
    True
    >>> run_id(Config()) == run_id(config_of({"federation": {"seed": 1}}, ""))
    False
    """
    default = _tables(Config())
    different = {
        section: {key: value for key, value in keys.items() if value != default[section].get(key)}
        for section, keys in _tables(config).items()
    }
    for section, key in COMPUTING:
        different[section].pop(key, None)
    return _digest({section: keys for section, keys in different.items() if keys})


def point_id(settings: Settings) -> str:
    """Names a point by its settings: 12 hexadecimal digits."""
    return _digest(settings)


def describe(settings: Settings) -> str:
    """A point in words.

    >>> describe({"privacy.flip": 0.1, "privacy.clip": None, "privacy.record_epsilon": float("inf")})
    'flip=0.1 clip=none record_epsilon=inf'
    """
    return " ".join(f"{name.partition('.')[2]}={in_words(value)}" for name, value in settings.items())


def in_words(value: Any) -> str:
    """A setting's value as people read it.

    >>> in_words(["efficientnet_lite0", "fourier"]), in_words(2.0), in_words(True)
    ('efficientnet_lite0+fourier', '2', 'true')
    """
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return "+".join(map(in_words, value)) or "[]"
    return NONE if value is None else value if isinstance(value, str) else json.dumps(value)


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"prism-secure/v1/sweep\0{text}".encode()).hexdigest()[:12]


def _tables(config: Config) -> dict[str, dict[str, Any]]:
    """A configuration as TOML has it: without keys that have no value."""
    raw = msgspec.to_builtins(config)
    return {
        section: {key: value for key, value in keys.items() if value is not None}
        for section, keys in raw.items()
    }


def _flat(table: Any, where: str) -> dict[str, Any]:
    """`privacy.flip = [...]` in TOML is a table in a table; with quotes around the name it is one key."""
    if not isinstance(table, dict):
        raise ConfigError(f"{where} must be a table, got {table!r}")
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict) and "." not in name:
            flat |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            flat[name] = value
    return flat


def _sweep(table: dict[str, Any], where: str) -> SweepTable:
    known = get_type_hints(SweepTable)
    for name in table:
        if name not in known:
            raise ConfigError(f"{where}: unknown setting 'sweep.{name}'; {did_you_mean(name, known)}")
    try:
        sweep = msgspec.convert(table, SweepTable)
    except msgspec.ValidationError as error:
        told = wrong_type(error, SweepTable, table) or error
        raise ConfigError(f"{where}: sweep.{told}") from None
    for name in sweep.objectives:
        objectives.direction(name)
    if len(set(sweep.objectives)) < len(sweep.objectives):
        raise ConfigError(f"{where}: sweep.objectives must be different objectives")
    if len(set(sweep.seeds)) < len(sweep.seeds):
        raise ConfigError(f"{where}: sweep.seeds must be different, got {list(sweep.seeds)}")
    if (sweep.method == "grid") != (sweep.points is None):
        raise ConfigError(
            f"{where}: sweep.points is the number of points of random, tpe and nsga2 (a grid has its own), "
            f"got {sweep.points} with method = {sweep.method!r}"
        )
    if sweep.points is not None and sweep.points < 1:
        raise ConfigError(f"{where}: sweep.points must be at least 1, got {sweep.points}")
    if not 0 <= sweep.margin < 1:
        raise ConfigError(f"{where}: sweep.margin must be in [0, 1), got {sweep.margin}")
    return sweep


def refuse_infinite(recipe: SweepRecipe) -> None:
    """Refuse a sweep whose epsilon is infinite at each of its points.

    It is the epsilon that points are compared by; and where nothing is said of that, and noise or clip of the
    masks vary, that of one client, which is what they are for. Ranges are tried at their ends.

    Raises:
        ConfigError: why it is infinite, and what would make it finite.
        DataError: the images, whose number epsilon depends on, cannot be read.
    """
    wanted = [name for name in recipe.objectives if name.startswith("epsilon.")]
    if not recipe.sweep.objectives and not MASK_NOISE.isdisjoint(recipe.axes):
        wanted.append("epsilon.sum_zero_out")
    for name in dict.fromkeys(wanted):
        cell = next((cell for cell in CELLS if name == f"epsilon.{'_'.join(cell)}"), IMAGE)
        reasons = []
        for tried, config in enumerate(_corners(recipe)):
            if config.measures:  # finite, whatever its clips are
                break
            images = _most_images(config) if config.opens_moments else None
            if math.isfinite(epsilons_of(config, {}, None, images)[cell]) or tried == _MOST_TRIED:
                break
            word = "image" if cell is IMAGE else f"{cell[0].name}"
            reasons += [
                (why.cause, why.remedy)
                for why in why_infinite(config, None, images)
                if any(word in shown for shown in why.names)
            ]
        else:
            if reasons:
                cause, remedy = min(reasons, key=lambda reason: len(reason[1]))
                raise ConfigError(
                    f"{name} would be inf at every point of this sweep: {cause}; {remedy}. To compare points "
                    "by something else, name it: sweep.objectives = ['fid'], say"
                )


def _corners(recipe: SweepRecipe) -> Iterator[Config]:
    """All configurations of a grid; of a search every combination of values and of ranges' ends."""
    names = list(recipe.axes)
    ends = [
        axis.values if isinstance(axis.values, tuple) else (axis.values.low, axis.values.high)
        for axis in recipe.axes.values()
    ]
    for values in itertools.product(*ends):
        with contextlib.suppress(ConfigError):
            yield recipe.config(dict(zip(names, values, strict=True)), recipe.seeds[0])


def _most_images(config: Config) -> int:
    """The most images that a client has."""
    return _partitioned(
        config.data, config.federation.clients, config.federation.seed, config.model.image_size
    )


@functools.lru_cache(maxsize=64)
def _partitioned(data: Data, clients: int, seed: int, image_size: int) -> int:
    from prism_secure.rounds.components import Components  # torch

    federation = Federation(clients=clients, seed=seed)
    config = Config(data=data, federation=federation, model=Model(image_size=image_size))
    return max(Components(config).partition.sizes)


def _check(recipe: SweepRecipe) -> None:
    """Refuse what can be known to fail before anything starts."""
    undecided = {"metrics.held_out"} if recipe.base.metrics.held_out else {"metrics.held_out", "data.source"}
    private = recipe.base.private_metrics or not undecided.isdisjoint(recipe.axes)
    if private and (recipe.adaptive or recipe.until or recipe.sweep.pruning != "none"):
        raise ConfigError(
            "searching (tpe, nsga2), sweep.until and sweep.pruning decide by the metrics, and with private "
            "held-out images no epsilon covers what such decisions reveal; use a grid or random points "
            "without them, or declare the images: metrics.held_out = 'public'"
        )
    for settings in recipe.grid():
        for seed in recipe.seeds:
            recipe.config(settings, seed)
