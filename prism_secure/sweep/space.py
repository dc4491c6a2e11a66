"""What a varied key may be: a list of values, or a range; and how Optuna is told."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from prism_secure.config import Config, describe
from prism_secure.config.reading import nearest_setting
from prism_secure.config.toml_words import NONE
from prism_secure.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

__all__ = ["Axis", "Range", "parse_axis", "setting_type"]


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; on a log scale, or in steps."""

    low: float
    high: float
    log: bool = False
    step: float | None = None


@dataclass(frozen=True)
class Axis:
    """One varied key.

    Attributes:
        name: `section.key`.
        values: its values, None for none; or a range.
        whole: whether a range holds whole numbers only.
    """

    name: str
    values: tuple[Any, ...] | Range
    whole: bool = False

    def distribution(self) -> BaseDistribution:
        """For Optuna, which keeps and shows values by it."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if isinstance(self.values, tuple):
            return CategoricalDistribution([_encoded(value) for value in self.values])
        low, high, step = self.values.low, self.values.high, self.values.step
        if self.whole:
            return IntDistribution(int(low), int(high), log=self.values.log, step=int(step or 1))
        return FloatDistribution(low, high, log=self.values.log, step=step)

    def decoded(self, chosen: Any) -> Any:
        """The setting that Optuna's value stands for."""
        if isinstance(self.values, tuple):
            return next(value for value in self.values if _encoded(value) == chosen)
        return int(chosen) if self.whole else float(chosen)

    def encoded(self, value: Any) -> Any:
        """Optuna's value for a setting; the inverse of `decoded`."""
        return _encoded(value) if isinstance(self.values, tuple) else value


def parse_axis(name: str, given: Any, table: str) -> Axis:
    """Read what `[sweep.grid]` or `[sweep.search]` says of one key.

    >>> parse_axis("privacy.clip", ["none", 1.0], "grid").values
    (None, 1.0)
    >>> parse_axis("federation.rounds", {"low": 2, "high": 8}, "search").whole
    True

    Raises:
        ConfigError: an unknown key (the nearest valid one is offered), or no list and no range of numbers.
    """
    kind = setting_type(name)
    where = f"sweep.{table}: {name}"
    if name in ("federation.workers", "federation.seed", "privacy.record_store"):
        instead = {"federation.seed": "; name seeds in sweep.seeds"}.get(name, "")
        raise ConfigError(f"{where} is not varied{instead}")
    if isinstance(given, list) and given:
        optional = type(None) in get_args(kind)
        return Axis(name, tuple(None if optional and value == NONE else value for value in given))
    if table == "search" and isinstance(given, dict):
        return Axis(name, _range(given, where), whole=_whole(kind, where))
    expected = "a list of values" + (" or {low = ..., high = ...}" if table == "search" else "")
    raise ConfigError(f"{where} must be {expected}, got {given!r}")


def setting_type(name: str) -> Any:
    """The type of a setting by its name.

    Raises:
        ConfigError: there is no such setting; the nearest one is offered.
    """
    types = {
        f"{section}.{key}": hint
        for section, kind in get_type_hints(Config).items()
        for key, hint in get_type_hints(kind).items()
    }
    if name not in types:
        hint = nearest_setting(name, otherwise="`prism-secure config --explain` lists them all")
        raise ConfigError(f"sweep: unknown setting {name!r}; {hint}")
    return types[name]


def _range(given: dict[str, Any], where: str) -> Range:
    unknown = set(given) - {"low", "high", "log", "step"}
    numbers = [given.get(name) for name in ("low", "high")]
    if unknown or not all(isinstance(x, int | float) and not isinstance(x, bool) for x in numbers):
        raise ConfigError(f"{where}: a range is {{low = number, high = number}}, got {given!r}")
    log, step = given.get("log", False), given.get("step")
    if not isinstance(log, bool) or (log and step is not None) or (step is not None and not step > 0):
        raise ConfigError(f"{where}: a range has log = true, or a step above 0, or neither, got {given!r}")
    low, high = given["low"], given["high"]
    if not low < high or (log and not low > 0):
        raise ConfigError(f"{where}: low must be below high, and above 0 with log, got {given!r}")
    return Range(low, high, log, step)


def _whole(kind: Any, where: str) -> bool:
    kinds = set(get_args(kind) or (kind,)) - {type(None)}
    if kinds <= {int, float} and kinds:
        return kinds == {int}
    raise ConfigError(f"{where} takes {describe(kind)}: name its values in a list")


def _encoded(value: Any) -> Any:
    """Optuna keeps numbers, words and booleans; a list is its JSON text, and none a word."""
    if value is None:
        return NONE
    return json.dumps(value) if isinstance(value, list | tuple) else value
