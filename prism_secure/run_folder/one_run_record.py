"""What an audit with canaries in one run found about a run's settings, as it is kept in the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from prism_privacy.ledger.entry import from_json_safe, json_safe
from prism_secure.errors import RunFolderError
from prism_secure.storage import write_atomic

FILE = "one-run.json"
CONFIDENCE = 0.95


class Guessed(msgspec.Struct, frozen=True, kw_only=True):
    """What the guesses about the canaries of one unit show."""

    unit: Literal["client", "record"]
    adjacency: str
    canaries: int
    guesses: int
    right: int
    epsilon: float
    """At least so large, but for 1 - confidence: of this unit by itself."""
    claimed: float
    """What the run's ledger said, against an observer of the opened sums."""

    @property
    def refuted(self) -> bool:
        """Whether the claim is below what was shown."""
        return self.epsilon > self.claimed


class OneRun(msgspec.Struct, frozen=True, kw_only=True):
    """The audit of one run's settings; nothing in it is about anybody's images."""

    rounds: int
    delta: float
    seed: int
    found: list[Guessed]
    confidence: float = CONFIDENCE

    @property
    def refuted(self) -> bool:
        """Whether any claim is below what was shown."""
        return any(each.refuted for each in self.found)


msgspec.json.Decoder(OneRun)  # prepared at import: not by two threads at once


def write_one_run(folder: Path, found: OneRun) -> None:
    """Keep it in a run's folder, in place of an earlier one.

    Raises:
        StorageError: the disk refused.
    """
    told = msgspec.json.encode(json_safe(msgspec.to_builtins(found)))
    write_atomic(folder / FILE, msgspec.json.format(told) + b"\n")


def read_one_run(folder: Path) -> OneRun | None:
    """What is kept in a run's folder; None if nothing is.

    Raises:
        RunFolderError: it is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return msgspec.convert(from_json_safe(msgspec.json.decode(path.read_bytes())), OneRun)
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError) as error:
        raise RunFolderError(
            f"{path} is damaged: {error}; delete it, or let `prism-secure audit one-run` write it again"
        ) from None
