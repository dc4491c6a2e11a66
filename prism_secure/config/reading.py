"""Reading a configuration from TOML and overrides, and writing it; nothing unknown is accepted."""

from __future__ import annotations

import functools
import os
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import tomli_w

from prism_secure.config.explain import bounds
from prism_secure.config.recipes import DEFAULT, NAMES, on_recipe
from prism_secure.config.toml_words import NONE, written, wrong_type
from prism_secure.config.unread import set_in_vain
from prism_secure.config.whole import Config
from prism_secure.errors import ConfigError, did_you_mean

COMPUTING = frozenset({("federation", "workers"), ("federation", "device")})
"""Section and key of each setting that says how a result is computed, and not which."""
PATHS = frozenset({("data", "folder"), ("privacy", "record_store")})
"""Those that are paths of one machine, which may name people: pages show … in their place."""
MEANT = {
    "dataset": "data.source",
    "path": "data.folder",
    "lr": "training.learning_rate",
    "epochs": "federation.local_steps",
    "users": "federation.clients",
    "gpu": "federation.device",
    "threads": "federation.workers",
    "eps": "measured.epsilon",
    "noise": "privacy.flip",
    "noise_multiplier": "privacy.flip",
    "max_grad_norm": "privacy.clip",
}
"""What people mean by keys of other programs that look like none of ours, or like another."""
_OUT_OF_RANGE = re.compile(r"Expected `\w+` [<>]")
"""How msgspec says that a number is of its type, and too small or too large."""
_WORD = re.compile(r"""(?:[^\s'"]|'[^']*'|"[^"]*")+""")


def load_config(
    path: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] | None = None,
    *,
    recipe: str | None = None,
) -> Config:
    """Read a TOML file, or none, and apply `section.key=value` overrides.

    Args:
        path: the file.
        overrides: what else differs, ["privacy.flip=0.25"] say.
        recipe: what they stand on (`prism_secure.config.recipes`); None: the one that the file names, else
            the defaults of all settings.

    Raises:
        ConfigError: the file is unreadable, a key is unknown (the nearest valid one is offered), or a
            value is of the wrong type or impossible; or `path` is no path.
    """
    if not isinstance(path, str | os.PathLike | None):
        raise ConfigError(
            f"load_config takes the path of a TOML file, or None, got {path!r}; what differs from it is the "
            'second argument, ["privacy.flip=0.25"] say'
        )
    return config_upon(read_toml(Path(path)) if path is not None else {}, overrides, recipe, path)


def config_upon(
    tables: dict[str, Any], overrides: Sequence[str] | None, recipe: str | None, path: object
) -> Config:
    """What a file's tables, overrides and a recipe come to, as in `load_config`; the tables are spent.

    Raises:
        ConfigError: as `load_config`.
    """
    raw = on_recipe(tables, recipe)
    apply_overrides(raw, overrides)
    return config_of(raw, str(path or "--set"))


def stands_on(tables: Mapping[str, Any], recipe: str | None = None, *, where: object = "the recipe") -> str:
    """What tables of settings leave out is taken from, in a line; "" where they leave nothing out.

    Args:
        recipe: as in `load_config`.
        where: their source, as the line calls it.
    """
    name = recipe or tables.get("recipe")
    if name is not None:
        return f"stands on recipe {name}"
    every = _without_none(msgspec.to_builtins(Config()))
    own = {section: table for section, table in tables.items() if isinstance(table, Mapping)}  # else refused
    if all(set(values) <= set(own.get(section, {})) for section, values in every.items()):
        return ""
    return (
        f"{where} names no recipe: what it leaves out has its default (ten clients train masks on one noisy "
        f'sum of moments, opened before round 1); for measured rounds write recipe = "{DEFAULT}" at its top'
    )


def nearest_recipe(config: Config) -> str:
    """The recipe of the same behaviour from which the fewest settings differ.

    >>> nearest_recipe(load_config(None, ["measured.epsilon=1"], recipe="cross-silo"))
    'cross-silo'
    >>> nearest_recipe(Config())
    'one-shot'
    """

    def apart(name: str) -> tuple[bool, int]:
        other = load_config(recipe=name)
        mine, its = determining(config), determining(other)
        differ = sum(value != its[section][key] for section in mine for key, value in mine[section].items())
        return other.federation.behaviour != config.federation.behaviour, differ

    return min(NAMES, key=apart)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's tables.

    Raises:
        ConfigError: unreadable, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `prism-secure init {path}` writes one") from None
    except IsADirectoryError:
        raise ConfigError(
            f"{path}: it is a folder; name a TOML file, such as the config.toml in it"
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from None


def config_of(raw: dict[str, Any], where: str) -> Config:
    """The configuration that tables of settings mean; `where` is the source that errors name.

    Raises:
        ConfigError: as `load_config`.
    """
    _refuse_unknown(Config, raw, where, "")
    raw = {section: _with_none(_hints(Config)[section], values) for section, values in raw.items()}
    try:
        config = msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(_reworded(error, raw)) from None
    if told := set_in_vain(config):
        raise ConfigError(told)
    return config


def determining(config: Config) -> dict[str, dict[str, Any]]:
    """Each section's settings but for those that, up to rounding, determine no result."""
    return _without(config, COMPUTING)


def settings_to_show(config: Config) -> dict[str, dict[str, Any]]:
    """Each section's settings but for one machine's own: how it computes, and paths that may name people."""
    return _without(config, COMPUTING | PATHS)


def command_to_show(command: str, config: Config) -> str:
    """A command line with … for the places of one's own files, wherever they stand in it.

    >>> from prism_secure.config.sections import Data
    >>> config = Config(data=Data(source="images", folder="/ward 7/x"))
    >>> command_to_show("prism-secure run '/ward 7/x/a.toml' --set 'data.folder=/ward 7/x' --out out", config)
    'prism-secure run …/a.toml --set data.folder=… --out out'
    """
    shown = []
    for word in _WORD.findall(command):
        plain = re.sub("['\"]", "", word).replace("$HOME", str(Path.home()))
        hidden = plain
        for section, key in PATHS:
            hidden = re.sub(rf"({section}\.{key}=).*", r"\1…", hidden)
            place = getattr(getattr(config, section), key)
            if place and Path(place).expanduser().is_absolute():
                hidden = hidden.replace(str(Path(place).expanduser()), "…")
        shown.append(word if hidden == plain else hidden if " " not in hidden else shlex.quote(hidden))
    return " ".join(shown)


def _without(config: Config, keys: Set[tuple[str, str]]) -> dict[str, dict[str, Any]]:
    kept = msgspec.to_builtins(config)
    for section, key in keys:
        del kept[section][key]
    return kept  # type: ignore[no-any-return]


def dump_config(config: Config) -> str:
    """The resolved configuration as TOML; what keys without a value mean, their sections say."""
    return tomli_w.dumps(_without_none(msgspec.to_builtins(config)))


def _reworded(error: msgspec.ValidationError, raw: dict[str, Any]) -> str:
    """msgspec's message with the place first, and with what would have been right."""
    text, _, at = str(error).partition(" - at `$")
    place = at.rstrip("`").lstrip(".")
    section, _, key = place.partition(".")
    if _OUT_OF_RANGE.match(text) and (must := bounds().get((section, key))):
        return f"{place} must be {must}, got {written(raw[section][key])}"
    return wrong_type(error, Config, raw) or (f"{place}.{text}" if place else text)


def _with_none(kind: type[msgspec.Struct], values: dict[str, Any]) -> dict[str, Any]:
    """A section's settings, where the word for none is None."""
    return {
        key: None if value == NONE and type(None) in get_args(_hints(kind)[key]) else value
        for key, value in values.items()
    }


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return list(value) if isinstance(value, tuple) else value


def apply_overrides(raw: dict[str, Any], overrides: Sequence[str] | None) -> None:
    """Put each `section.key=value` into tables of settings, the later over the earlier.

    Raises:
        ConfigError: one has another form, or they are no list of strings.
    """
    if isinstance(overrides, str | Mapping) or not all(isinstance(each, str) for each in overrides or ()):
        raise ConfigError(f'overrides must be a list such as ["privacy.flip=0.25"], got {overrides!r}')
    for override in overrides or ():
        _apply_override(raw, override)


def _apply_override(raw: dict[str, Any], override: str) -> None:
    """Put one `section.key=value` into tables of settings; what is no TOML value is a string."""
    name, equals, text = override.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and section and key):
        hint = "" if dot or not name.strip() else f"; {nearest_setting(name.strip(), otherwise='')}"
        raise ConfigError(f"--set takes section.key=value, got {override!r}{hint.removesuffix('; ')}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is a string, so that shells need no nested quotes
    if not isinstance(raw.setdefault(section, {}), dict):
        raise ConfigError(f"[{section}] must be a table, got {written(raw[section])}")
    raw[section][key] = value


_hints = functools.cache(get_type_hints)  # a sweep reads thousands of configurations


def _refuse_unknown(struct: type[msgspec.Struct], raw: dict[str, Any], where: str, prefix: str) -> None:
    hints = _hints(struct)
    for key, value in raw.items():
        name = f"{prefix}{key}"
        if key == "sweep" and not prefix:
            raise ConfigError(
                f"{where}: it has a table [sweep], so it is for many runs: `prism-secure sweep {where} --out "
                "DIR`; for a single one take the table away"
            )
        if key not in hints:
            all_here = f"valid: {', '.join(sorted(hints))}"
            find = nearest_setting if prefix else functools.partial(did_you_mean, valid=hints)
            hint = find(name, otherwise=all_here)
            raise ConfigError(f"{where}: unknown setting {name!r}; {hint}")
        if not prefix:
            if not isinstance(value, dict):
                raise ConfigError(f"{where}: [{key}] must be a table, got {written(value)}")
            _refuse_unknown(hints[key], value, where, f"{key}.")


def nearest_setting(name: str, *, otherwise: str) -> str:
    """What a message about an unknown setting ends with: what is mostly meant by it, or the nearest one.

    >>> nearest_setting("data.dataset", otherwise=""), nearest_setting("privacy.flp", otherwise="")
    ("did you mean 'data.source'?", "did you mean 'privacy.flip'?")
    """
    meant = MEANT.get(name.rpartition(".")[2])
    return f"did you mean {meant!r}?" if meant else did_you_mean(name, _names(), otherwise=otherwise)


def _names() -> list[str]:
    """Every setting, `section.key`."""
    return [f"{section}.{key}" for section, kind in _hints(Config).items() for key in _hints(kind)]
