"""The configuration of a run: TOML in, frozen structs out, nothing unknown accepted.

Recipes are settings that go together; a file or `--set` names only what differs. Each run folder keeps the
resolved `config.toml`, which reproduces the run.

    sections    what can be set, one struct a section
    whole       all sections together, and what may not stand side by side
    recipes     by name: cross-device (the default), cross-silo, one-shot, prism
    reading     from TOML and overrides, and back
    explain     each setting in words
    toml_words  types and values in messages
    unread      those that a run of one kind never reads
    schema      all of them as JSON Schema
    invitations  which clients a round invites
    public_seed  the seed of each public thing, from the federation's one
    dimensions  how long a mask and a vector of features will be, by the settings alone
    plugged     parts of the user's own, "package.module:name": naming one runs nothing, asking for it imports
                its module and so runs the user's code

It reads TOML files and no data, and imports no torch.
"""

from __future__ import annotations

from prism_secure.config.explain import meanings
from prism_secure.config.reading import (
    COMPUTING,
    apply_overrides,
    config_of,
    config_upon,
    determining,
    dump_config,
    load_config,
    nearest_recipe,
    read_toml,
    settings_to_show,
    stands_on,
)
from prism_secure.config.sections import Aggregation, Data, Mask, Measured, Privacy
from prism_secure.config.toml_words import describe
from prism_secure.config.whole import SPARSE_ABOVE, Config

__all__ = [
    "COMPUTING",
    "SPARSE_ABOVE",
    "Aggregation",
    "Config",
    "Data",
    "Mask",
    "Measured",
    "Privacy",
    "apply_overrides",
    "config_of",
    "config_upon",
    "describe",
    "determining",
    "dump_config",
    "load_config",
    "meanings",
    "nearest_recipe",
    "read_toml",
    "settings_to_show",
    "stands_on",
]
