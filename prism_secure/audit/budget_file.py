"""A data owner's limits, as TOML.

[[limit]]                   # as many as there are
unit = "client"             # or "record"
view = "sum"                # or "upload"; for a record there is none
adjacency = "zero_out"      # or "replace_one"; for a record "swap" or "add_remove"
epsilon = 8.0
delta = 1e-5
data = "fashion_mnist"      # left out: each data set
client = 3                  # left out: each client

[[ledger]]                  # for a ledger that does not say whose data it is about
path = "hospital-a/ledger.jsonl"
data = "hospital-a"
client = 0                  # left out: each client of its federation
"""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any, Literal, get_type_hints

import msgspec

from prism_secure.config.toml_words import describe, wrong_type
from prism_secure.errors import ConfigError, did_you_mean


class Limit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The most that may be spent in total."""

    unit: Literal["client", "record"]
    view: Literal["sum", "upload"] | None = None
    adjacency: Literal["zero_out", "replace_one", "swap", "add_remove"]
    epsilon: float
    delta: float
    data: str | None = None
    client: int | None = None

    def __post_init__(self) -> None:
        whole = self.unit == "client"
        fitting = ("zero_out", "replace_one") if whole else ("swap", "add_remove")
        if self.adjacency not in fitting:
            raise ValueError(
                f"adjacency of a {self.unit} must be {' or '.join(fitting)}, got {self.adjacency}"
            )
        if whole != (self.view is not None):
            raise ValueError(
                "a limit for a client needs its view, 'sum' or 'upload'"
                if whole
                else "a limit for a record has no view: it is for an observer of what was opened"
            )
        if not 0 < self.epsilon < math.inf:
            raise ValueError(f"epsilon must be a positive number, got {self.epsilon}")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta must lie in (0, 1), got {self.delta}")

    @property
    def words(self) -> str:
        """What is limited, in words."""
        seen = f", {self.view}" if self.view else ""
        return f"one {self.unit}{seen}, {self.adjacency}"


class LedgerOwner(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose data a ledger is about."""

    path: str
    data: str
    client: int | None = None


class BudgetFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits, and owners of ledgers that do not name theirs."""

    limit: tuple[Limit, ...]
    ledger: tuple[LedgerOwner, ...] = ()


msgspec.json.Decoder(BudgetFile)  # prepared at import: not by two threads at once


def load_budget(path: Path) -> BudgetFile:
    """Read a budget file.

    Raises:
        ConfigError: it is unreadable, sets no limit, or has a value that is not one or an unknown key (the
            nearest valid one is offered).
    """
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
        _refuse_unknown(raw, path)
        _refuse_missing(raw, path)
        budget = msgspec.convert(raw, BudgetFile)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from None
    except msgspec.ValidationError as error:
        told = wrong_type(error, BudgetFile, raw) or str(error).replace("$.", "").replace("`", "")
        raise ConfigError(f"{path}: {told}") from None
    if not budget.limit:
        raise ConfigError(f"{path}: no [[limit]] is set")
    return budget


def _refuse_unknown(raw: dict[str, Any], path: Path) -> None:
    known = {name: tuple(get_type_hints(kind)) for name, kind in (("limit", Limit), ("ledger", LedgerOwner))}
    for table, entries in raw.items():
        _refuse_other(table, tuple(known), f"[[{table}]]", path)
        for entry in entries if isinstance(entries, list) else []:
            for key in entry if isinstance(entry, dict) else {}:
                _refuse_other(key, known[table], f"{key!r} in [[{table}]]", path)


def _refuse_missing(raw: dict[str, Any], path: Path) -> None:
    for table, kind in (("limit", Limit), ("ledger", LedgerOwner)):
        entries = raw.get(table)
        for number, entry in enumerate(entries if isinstance(entries, list) else [], 1):
            for field in msgspec.structs.fields(kind):
                if field.required and isinstance(entry, dict) and field.name not in entry:
                    raise ConfigError(
                        f"{path}: [[{table}]] number {number} lacks {field.name}, "
                        f"which must be {describe(field.type)}"
                    )


def _refuse_other(name: str, valid: tuple[str, ...], words: str, path: Path) -> None:
    if name not in valid:
        raise ConfigError(f"{path}: unknown {words}; {did_you_mean(name, valid)}")
