"""What a run folder holds, read without changing it; each part when a check asks for it.

A part that is missing or cannot be read raises `Unchecked` with the reason, so one damaged file spoils the
checks that need it and no others.
"""

from __future__ import annotations

import contextlib
import math
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from prism_privacy import LedgerEntry, LedgerError, LedgerReport, PrivacyError, verify_ledger
from prism_privacy.errors import InvalidParameter
from prism_privacy.ledger.line import parse
from prism_secure.audit.findings import Unchecked
from prism_secure.audit.oracle import Mask
from prism_secure.config import Config
from prism_secure.config.invitations import invited
from prism_secure.data.sources import DataFingerprint, read_fingerprint
from prism_secure.errors import RunFolderError, public_text
from prism_secure.run_folder.environment import Facts, read_environment
from prism_secure.run_folder.folder import read_config, read_federation, read_records
from prism_secure.run_folder.records import RoundRecord


class Evidence:
    """One run folder.

    Args:
        folder: the run folder.
        key: the ledger writer's public key in hexadecimal, if the auditor knows it.
        head: a head of the ledger that somebody wrote down, if there is one.
    """

    def __init__(self, folder: Path, key: str | None = None, head: str | None = None) -> None:
        self.folder = folder
        self.key = key
        self.head = head
        self._said = set[str]()

    @cached_property
    def config(self) -> Config:
        """The configuration that the folder states."""
        try:
            return read_config(self.folder)
        except RunFolderError as error:
            raise Unchecked(str(error)) from None

    @cached_property
    def fingerprint(self) -> DataFingerprint | None:
        """What the run resolved its data to, where its private part is here and says so."""
        try:
            return read_fingerprint(self.folder)
        except RunFolderError as error:
            raise Unchecked(self.told(error)) from None

    @property
    def config_here(self) -> Config:
        """The configuration with `data.folder` as the run resolved it, wherever the auditor stands."""
        config, fingerprint = self.config, self.fingerprint
        if fingerprint is None:
            return config
        data = msgspec.structs.replace(config.data, folder=fingerprint.folder, download=False)
        return msgspec.structs.replace(config, data=data)

    def told(self, error: Exception) -> str:
        """An error for the report, without names of files of the data, which the console hears (once)."""
        public = public_text(error)
        if public != str(error) and str(error) not in self._said:
            self._said.add(str(error))
            print(f"prism-secure: {error}", file=sys.stderr)
        with contextlib.suppress(RunFolderError):  # nor is it said where the data lie
            kept = read_fingerprint(self.folder)
            public = public.replace(kept.folder, "data.folder") if kept else public
        return public

    @cached_property
    def record_epsilon(self) -> float:
        """What config.toml asks for one record; inf where it says nothing, whatever today's default is."""
        _ = self.config  # readable, or else unchecked
        stated = tomllib.loads(self._text("config.toml")).get("privacy", {})
        return float(stated.get("record_epsilon", math.inf))

    @cached_property
    def facts(self) -> Facts:
        """What the run wrote about itself when it started."""
        try:
            return read_environment(self.folder)[1]
        except RunFolderError as error:
            raise Unchecked(str(error)) from None

    @cached_property
    def federation(self) -> str:
        """The federation's id."""
        try:
            return read_federation(self.folder)
        except RunFolderError as error:
            raise Unchecked(str(error)) from None

    @cached_property
    def ledger(self) -> LedgerReport | LedgerError:
        """The ledger, checked from its first line on, or what is wrong with it."""
        path = self.folder / "ledger.jsonl"
        if not path.exists():
            raise Unchecked("there is no ledger.jsonl, so nothing says what was released")
        try:
            return verify_ledger(path, self.key, head=self.head)
        except LedgerError as error:
            return error
        except PrivacyError as error:
            raise Unchecked(str(error)) from None

    @cached_property
    def entries(self) -> tuple[LedgerEntry, ...]:
        """What the ledger's lines say; where it does not verify, the lines that still can be read."""
        if isinstance(self.ledger, LedgerReport):
            return self.ledger.entries
        found = []
        for line in (self.folder / "ledger.jsonl").read_bytes().split(b"\n")[1:]:
            with contextlib.suppress(InvalidParameter):
                found.append(LedgerEntry.from_line(parse(line)["body"]))
        return tuple(found)

    @cached_property
    def charges(self) -> tuple[LedgerEntry, ...]:
        """The entries that charge a mask release: rounds, and sessions that did not open."""
        return tuple(entry for entry in self.entries if entry.kind in ("round", "aborted"))

    def need_charges(self) -> None:
        """Refuse unless something was charged.

        Raises:
            Unchecked: nothing was.
        """
        if not self.charges:
            raise Unchecked("nothing was charged yet", expected=not self.records)

    @cached_property
    def participations(self) -> list[int]:
        """The most charges that any client has after each of `charges`; invitations are public."""
        most, counts = 0, Counter[int]()
        found = []
        for entry in self.charges:
            counts.update(self.present(entry))
            most = max(counts.values())
            found.append(most)
        return found

    def present(self, entry: LedgerEntry) -> Sequence[int]:
        """Whom the round of a charge invited, by config.toml; all, where that does not know the round."""
        config = self.config
        planned = 1 <= entry.round <= config.federation.rounds
        return invited(config, entry.round) if planned else range(config.federation.clients)

    def charges_of(self, client: int) -> int:
        """How many of `charges` are about a round that this client was invited to."""
        return sum(client in self.present(entry) for entry in self.charges)

    def accounts(self, masks: Sequence[Mask]) -> Iterator[list[Counter[Mask]]]:
        """What clients have been charged after each of `charges`, each such account once.

        Args:
            masks: what each of `charges` releases.
        """
        own: dict[int, Counter[Mask]] = {}
        # Where all are in every round, one of them stands for all.
        everybody = self.config.everybody
        for entry, mask in zip(self.charges, masks, strict=True):
            for client in (0,) if everybody else self.present(entry):
                own.setdefault(client, Counter())[mask] += 1
            yield [each.copy() for each in {frozenset(one.items()): one for one in own.values()}.values()]

    @cached_property
    def records(self) -> list[RoundRecord]:
        """The finished rounds of metrics.jsonl; empty where there are none yet."""
        try:
            return read_records(self.folder)
        except RunFolderError as error:
            raise Unchecked(str(error)) from None

    @cached_property
    def checkpoint(self) -> tuple[int, NDArray[np.float64]]:
        """How many rounds the server has behind it, and theta, float64 (d,)."""
        path = self.folder / "checkpoint" / "server.safetensors"
        if not path.exists():
            raise Unchecked(
                "there is no checkpoint/server.safetensors (`prism-secure demo` ships its runs without it)",
                expected=not self.records,
            )
        try:
            with safe_open(path, framework="np") as file:
                return int(file.get_tensor("round")), file.get_tensor("theta")
        except (OSError, SafetensorError, ValueError) as error:
            raise Unchecked(f"checkpoint/server.safetensors cannot be read: {error}") from None

    @cached_property
    def done(self) -> str | None:
        """What DONE says."""
        return self._text("DONE") if (self.folder / "DONE").exists() else None

    @cached_property
    def failed(self) -> str | None:
        """What FAILED says."""
        return self._text("FAILED") if (self.folder / "FAILED").exists() else None

    @cached_property
    def clients(self) -> list[Path]:
        """The clients' private folders, where the auditor was given them."""
        found = sorted(path for path in (self.folder / "clients").glob("*") if path.name.isdecimal())
        found = [path for path in found if path.is_dir()]
        if not found:
            raise Unchecked(
                "the clients' private folders are not here, as it should be once a run folder is passed on",
                expected=True,
            )
        return found

    def _text(self, name: str) -> str:
        try:
            return (self.folder / name).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Unchecked(f"{name} cannot be read: {error}") from None
