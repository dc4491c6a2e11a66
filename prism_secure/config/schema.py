"""The settings as JSON Schema, from which editors complete and check a TOML file."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import msgspec

from prism_secure.config import sections
from prism_secure.config.explain import bounds, meanings
from prism_secure.config.recipes import ABOUT
from prism_secure.config.toml_words import NONE
from prism_secure.config.whole import Config

FILE = "prism-secure.schema.json"
"""What `prism-secure init` calls it, beside the recipe that names it."""
TITLE = "prism-secure: settings of a run or a sweep"
_OF_ONES_OWN = {"type": "string", "pattern": r"^[\w.]+:[\w.]+$"}
_NAMED = {
    ("federation", "behaviour"): get_args(sections.Behaviour),
    ("aggregation", "rule"): get_args(sections.AggregationRule),
    ("model", "network"): get_args(sections.Network),
    ("features", "extractors"): get_args(sections.Extractor),
    ("metrics", "features"): get_args(sections.MetricNetwork),
}
"""Words of settings that may name something of the user's own, too."""


def schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12, of a file for `prism-secure run` or `sweep`.

    It has no defaults, since what is left out is as in the recipe that the file names. What several settings
    must be together it does not say: `prism-secure config --config FILE` does.

    >>> schema()["$defs"]["Privacy"]["properties"]["flip"]["exclusiveMaximum"]
    0.5
    """
    parts = msgspec.json.schema(Config)["$defs"]
    kinds = get_type_hints(Config)
    for section, kind in kinds.items():
        part = parts[kind.__name__]
        part["description"] = " ".join(str(kind.__doc__).split())
        part["properties"] = {key: _setting(section, key, value) for key, value in part["properties"].items()}
    about = " ".join(f"{name}: {words}." for name, words in ABOUT.items())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": TITLE,
        "type": "object",
        "properties": {
            "recipe": {
                "description": f"Whose values everything left out has; else its default. {about}",
                "enum": list(ABOUT),
            },
            **{section: {"$ref": f"#/$defs/{kind.__name__}"} for section, kind in kinds.items()},
            "sweep": {
                "description": "Which settings vary, and how: then the file is for `prism-secure sweep`.",
                "type": "object",
            },
        },
        "additionalProperties": False,
        "$defs": {kind.__name__: parts[kind.__name__] for kind in kinds.values()},
    }


def _setting(section: str, key: str, found: dict[str, Any]) -> dict[str, Any]:
    """One setting, as msgspec found it: with its meaning, and a word for no value, as TOML has no null."""
    must = bounds().get((section, key))
    meaning = meanings()[section, key] + (f" It must be {must}." if must else "")
    found = {name: value for name, value in found.items() if name != "default"}
    if (words := _NAMED.get((section, key))) is not None:
        either = {"anyOf": [{"enum": list(words)}, _OF_ONES_OWN]}
        found = found | {"items": either} if found.get("type") == "array" else either
    if "anyOf" in found:
        found["anyOf"] = [{"const": NONE} if each == {"type": "null"} else each for each in found["anyOf"]]
    elif None in found.get("enum", ()):
        found["enum"] = [NONE if each is None else each for each in found["enum"]]
    return {"description": meaning, **found}
