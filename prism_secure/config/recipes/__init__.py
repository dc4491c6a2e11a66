"""Recipes by name: settings that go together, each in a TOML file beside this one.

    cross-device    a thousand clients of ten images; a client is protected, round by round
    cross-silo      ten clients of a thousand images; an image is protected, round by round
    one-shot        the same ten; one noisy sum of moments opens, and the server trains on it
    prism           local training as it was published, without an epsilon

Three are sweeps, each the answer to a question, on a laptop; `prism-secure init --recipe` writes them:

    sweep-epsilon   what does epsilon of one client cost in quality?
    sweep-cohort    how many clients does it take?
    sweep-noniid    what does it cost where clients hold few classes each?

A file or `--set` names only what differs. Without a file the recipe is `DEFAULT`; a file names one at its
top, `recipe = "cross-silo"`, or stands on the defaults of all settings.
"""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any

from prism_secure.errors import ConfigError, did_you_mean

DEFAULT = "cross-device"
NAMES = ("cross-device", "cross-silo", "one-shot", "prism")
ABOUT = {
    "cross-device": "a thousand clients of ten images, measured rounds",
    "cross-silo": "ten clients of a thousand images, measured rounds",
    "one-shot": "ten clients of a thousand images; one noisy sum of moments, and the server trains on it",
    "prism": "local training as it was published, no epsilon",
}
"""Each in a few words."""
SWEEPS = ("sweep-epsilon", "sweep-cohort", "sweep-noniid")
"""Recipes for `prism-secure sweep`; each stands on one of `NAMES`, and no file stands on them."""


def read(name: str) -> dict[str, dict[str, Any]]:
    """The tables of a recipe, as its file has them.

    Raises:
        ConfigError: no recipe has that name.
    """
    if name in SWEEPS:
        raise ConfigError(
            f"recipe {name!r} is a sweep's, not a run's: `prism-secure init --recipe {name} FILE` writes it, "
            "and `prism-secure sweep FILE --out DIR` carries it out"
        )
    return tomllib.loads(text(name))


def text(name: str) -> str:
    """A recipe's file, with what it is for at the top.

    Raises:
        ConfigError: no recipe has that name.
    """
    names = (*NAMES, *SWEEPS)
    if name not in names:
        hint = did_you_mean(str(name), names, otherwise=f"there are {', '.join(names)}")
        raise ConfigError(f"no recipe is called {name!r}; {hint}")
    return files(__name__).joinpath(f"{name}.toml").read_text("utf-8")


def on_recipe(raw: dict[str, Any], name: str | None = None) -> dict[str, Any]:
    """Tables of settings upon those of a recipe: of `name`, or of the one that they name themselves.

    Raises:
        ConfigError: both name a recipe, and not the same; or no recipe has that name.

    >>> on_recipe({"recipe": "one-shot", "federation": {"rounds": 4}})["federation"]
    {'behaviour': 'train', 'clients': 10, 'rounds': 4}
    """
    own = raw.get("recipe")
    if own is not None and name is not None and own != name:
        raise ConfigError(f"the file stands on recipe {own!r}, and --recipe names {name!r}; take one of them")
    name = own if name is None else name
    tables: dict[str, Any] = {} if name is None else read(name)
    for section, values in raw.items():
        if section != "recipe":
            both = isinstance(values, dict) and isinstance(tables.get(section), dict)
            tables[section] = {**tables[section], **values} if both else values
    return tables
