"""Which behaviour `federation.behaviour` names: one that is built in, or the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prism_secure.config.plugged import built
from prism_secure.errors import ConfigError
from prism_secure.rounds.behaviours.behaviour import Behaviour
from prism_secure.rounds.behaviours.measure import Measure
from prism_secure.rounds.behaviours.train import Train
from prism_secure.rounds.components import Components

BUILT_IN: Mapping[str, Callable[[Components], Behaviour]] = {"train": Train, "measure": Measure}
"""By name. Only those in `KEEP_TO_THE_RELEASE` of `prism_secure.config.sections` may stand beside an epsilon
for an image."""


def behaviour_of(components: Components) -> Behaviour:
    """What clients do in a round, and the server with its sum; the same object for the same components.

    Raises:
        ConfigError: it is one of the user's own that cannot be imported, called, or built.
    """
    return components.once(_made)


def _made(components: Components) -> Behaviour:
    name = components.config.federation.behaviour
    if name in BUILT_IN:
        return BUILT_IN[name](components)
    made: Behaviour = built(name, "federation.behaviour", components)
    missing = [part for part in ("client", "server", "together") if not callable(getattr(made, part, None))]
    if missing:
        raise ConfigError(
            f"federation.behaviour = {name!r} must give a Behaviour "
            f"(prism_secure.rounds.behaviours.behaviour), got {made!r} without {' and '.join(missing)}"
        )
    return made
