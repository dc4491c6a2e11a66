"""Why epsilons of a signed ledger are infinite, and what would make them finite: `plan.why_infinite`, asked
about what was charged, whatever config.toml says."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from prism_privacy.ledger.check import LedgerReport
from prism_privacy.ledger.composition import charging_one_client, opened_in
from prism_secure.accounting.plan import Unbounded, why_infinite
from prism_secure.config import Config
from prism_secure.config.reading import config_of
from prism_secure.errors import ConfigError

__all__ = ["why_infinite_as_signed"]

_MOST_CLIENTS = 10_000
"""`federation.clients` admits no more; with more honest clients epsilons are smaller, not larger."""


def why_infinite_as_signed(
    infinite: Collection[str],
    ledger: LedgerReport | None,
    config: Config | None,
    dimension: int | None = None,
    images: int | None = None,
) -> tuple[Unbounded, ...]:
    """Of the epsilons that are infinite, each with its cause and the fewest settings that mend it.

    Args:
        infinite: "SUM", "UPLOAD" and "image", as far as they are.
        ledger: where it says how a release was opened, that stands; None where there is none to be believed.
        config: of the run; None: as far as its ledger tells.
        dimension, images: the length of a mask, and the most images of a client, where the ledger does not
            say them.
    """
    if not infinite:
        return ()
    if ledger is not None and ledger.entries:
        config, dimension = _signed(ledger, config, dimension)
    if config is None:
        return ()
    if ledger is not None and (opened := opened_in(ledger)) is not None:
        images = opened.images
    found = why_infinite(config, dimension, images)
    return tuple(why for why in found if any(word in name for word in infinite for name in why.names))


def _signed(
    ledger: LedgerReport, config: Config | None, dimension: int | None
) -> tuple[Config | None, int | None]:
    """The configuration that was charged, and the length of a mask; None for what nobody knows."""
    found = [entry.release for entry in ledger.entries if "flip" in entry.release]
    masks: Mapping[str, Any] = found[-1] if found else {}
    if isinstance(dim := masks.get("dim"), int):
        dimension = dim
    if config is None:
        try:
            config = _told(ledger, masks)
        except ConfigError:  # a ledger of some other program: what it charged follows from no recipe here
            return None, None
        # Figures would be those of more honest clients, or of fewer rounds.
        if config.cohort != min(ledger.entries[-1].cohort, _MOST_CLIENTS) or not ledger.complete:
            dimension = None
    privacy, opened = config.privacy, opened_in(ledger)
    if opened is not None:
        privacy = msgspec.structs.replace(privacy, record_release="summed", record_cohort=opened.shares)
    elif any(entry.record is not None for entry in ledger.entries):
        privacy = msgspec.structs.replace(privacy, record_release="client", record_cohort=0)
    else:
        privacy = msgspec.structs.replace(privacy, record_epsilon=math.inf)
    return msgspec.structs.replace(config, privacy=privacy), dimension


def _told(ledger: LedgerReport, masks: Mapping[str, Any]) -> Config:
    """As far as a ledger tells: the noise, and as many clients, all honest, as are counted on.

    Raises:
        ConfigError: no configuration says what it does.
    """
    last, opened = ledger.entries[-1], opened_in(ledger)
    record = next((entry.record for entry in reversed(ledger.entries) if entry.record is not None), None)
    names = {"flip": "flip", "clip": "clip", "space": "clip_space"}
    privacy = {ours: masks[theirs] for theirs, ours in names.items() if masks.get(theirs) is not None}
    privacy |= {"delta": last.delta, "record_epsilon": math.inf if record is None else record.epsilon}
    clients = max(3, min(last.cohort, _MOST_CLIENTS), 0 if opened is None else opened.shares)
    rounds = max(1, len(charging_one_client(ledger.entries)))
    return config_of({"federation": {"clients": clients, "rounds": rounds}, "privacy": privacy}, "ledger")
