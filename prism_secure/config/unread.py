"""Settings that a run never reads, by what its clients do in a round: they are refused where they are set.

A behaviour of one's own may read any of them.
"""

from __future__ import annotations

import functools
from typing import Any, get_type_hints

from prism_secure.config.sections import Aggregation, Measured
from prism_secure.config.whole import Config

_SERVER_TRAINS = "the server trains on its own (measured.steps, measured.end_steps)"
_HARD_BITS = "the mask is hard, and only the bits of answers leave"
_NO_CLIP = "measured.epsilon, or measured.radius, limits the bits"
_ONLY_MEANS = "the server asks along directions of features alone"
_NO_MOMENTS = "no moments are released"
_NO_QUESTIONS = "clients train their masks, and the server asks nothing"

NEVER_READ: dict[str, dict[tuple[str, str], str]] = {
    "measure": {
        ("federation", "local_steps"): _SERVER_TRAINS,
        **{
            ("training", key): _SERVER_TRAINS
            for key in ("optimizer", "averaging", "tracking_rate", "latent_groups", "fill_clip")
        },
        **{("aggregation", key): _SERVER_TRAINS for key in Aggregation.__struct_fields__},
        ("training", "variance_weight"): _SERVER_TRAINS,
        ("training", "end_steps"): _SERVER_TRAINS,
        ("features", "products"): _ONLY_MEANS,
        **{("mask", key): _HARD_BITS for key in ("density", "score_layers", "score_limit", "score_bits")},
        **{("privacy", key): _NO_CLIP for key in ("clip", "clip_space")},
        **{("privacy", key): _NO_MOMENTS for key in ("record_release", "record_cohort", "record_store")},
    },
    "train": {("measured", key): _NO_QUESTIONS for key in Measured.__struct_fields__},
}
"""By `federation.behaviour`: (section, key) of each, and why nobody reads it."""

START_FROM = {"measure": "cross-device or cross-silo", "train": "one-shot or prism"}
"""By `federation.behaviour`: the recipes of that kind."""


def set_in_vain(config: Config) -> str:
    """What was set and is never read, with why and the mend, for a message; "" where nothing was."""
    behaviour = config.federation.behaviour
    found = {
        (section, key): (f"{section}.{key} = {value!r}", why, default)
        for (section, key), why in NEVER_READ.get(behaviour, {}).items()
        if (value := getattr(getattr(config, section), key)) != (default := _defaults()[section, key])
    }
    if not found:
        return ""
    (first, why, default), *others = found.values()
    names = ", ".join([first, *(name for name, _, _ in others[:3])])
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    has, it, left = ("have", "them", "s") if others else ("has", "it", f" {default!r}")
    read = [recipes for other, recipes in START_FROM.items() if not found.keys() & NEVER_READ.get(other, {})]
    start = f", or start from a recipe that reads {it}: {' or '.join(read)}" if read else ""
    return (
        f'{names}{more} {has} no effect with federation.behaviour = "{behaviour}": {why}; leave {it} at the '
        f"default{left}{start}"
    )


@functools.cache
def _defaults() -> dict[tuple[str, str], Any]:
    return {
        (section, key): getattr(kind(), key)
        for section, kind in get_type_hints(Config).items()
        for key in kind.__struct_fields__
    }
