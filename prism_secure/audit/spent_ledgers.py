"""Ledgers of one data owner: what each charged, and for whose data.

A ledger in a run folder is about all clients of that run. Its config.toml says which images they had; what
the run resolved that to is in its private part, if that is still there. Where an auditor stands says nothing.
Runs over the same images are about the same owners; where they dealt them out differently (another partition,
seed or number of clients), a client of one run may be any client of another: every client is charged for all.
A ledger by itself says nothing about data: a budget file names its owner, or else it counts as one about the
same data as all others that do not say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from prism_privacy import LedgerError, LedgerReport, verify_ledger
from prism_privacy.ledger.composition import (
    Charged,
    charged_in,
)
from prism_secure.audit.budget_file import LedgerOwner
from prism_secure.config import Config
from prism_secure.data.sources import DataFingerprint, Whose, data_set_named, read_fingerprint
from prism_secure.errors import ConfigError, RunFolderError
from prism_secure.run_folder.folder import read_config

UNNAMED = "data that no ledger names"


@dataclass(frozen=True)
class SpentLedger:
    """One ledger and whose data it charged.

    name         how it is shown
    report       the ledger, checked
    config       of its run folder, or None
    owner        what the budget file says of it, or None
    fingerprint  what the private part beside it says of the data, or None
    """

    name: str
    report: LedgerReport
    config: Config | None
    owner: LedgerOwner | None
    fingerprint: DataFingerprint | None

    @cached_property
    def whose(self) -> Whose:
        """Whose images: as the budget file says; else as its run declared and resolved them."""
        if self.owner is not None:
            name = data_set_named(self.owner.data)
            return Whose(name, name)
        if self.config is not None and self.report.settings.get("own_data"):
            return Whose(UNNAMED)  # each client's images lie with it, and what a server declares are others
        if self.config is not None:
            return Whose.of(self.config.data, self.fingerprint)
        return Whose(UNNAMED) if self.fingerprint is None else Whose.kept(self.fingerprint)

    @property
    def dealt(self) -> str:
        """How the images were dealt out: two equal ones gave each client the same images."""
        if self.config is None or self.owner is not None:
            return ""
        data = self.config.data
        attribute = data.attribute if data.source == "celeba" else ""
        return repr(
            (data.source, attribute, data.person, data.person_file, data.partition, data.shards_per_client,
             data.dirichlet_alpha, self.config.federation.clients, self.config.federation.seed)
        )  # fmt: skip

    @property
    def clients(self) -> range | None:
        """The clients it charges; None: any."""
        if self.owner is not None and self.owner.client is not None:
            return range(self.owner.client, self.owner.client + 1)
        return None if self.report.clients is None else range(self.report.clients)

    @cached_property
    def charged(self) -> Charged:
        """What it charged.

        Raises:
            RunFolderError: a charge is not a mask release.
        """
        try:
            return charged_in(self.report, self.name)
        except LedgerError as error:
            raise RunFolderError(str(error)) from None


def read_ledgers(paths: Iterable[Path], owners: Sequence[LedgerOwner], beside: Path) -> list[SpentLedger]:
    """The ledgers of run folders and ledger files, each once, in the order in which they were last written.

    Args:
        paths: run folders, or ledgers.
        owners: what the budget file says; its paths are relative to `beside`.

    Raises:
        ConfigError: a path is not a ledger, or the budget file names one that is not among them.
        RunFolderError: a ledger does not verify, its end cannot be checked, or a file beside it is damaged:
            nothing can be said then.
    """
    named = {(beside / owner.path).resolve(): owner for owner in owners}
    found: dict[str, SpentLedger] = {}
    times: dict[str, float] = {}
    for path in paths:
        file = path / "ledger.jsonl" if path.is_dir() else path
        if not file.exists():
            raise ConfigError(f"{path}: neither a ledger nor a run folder with one")
        try:
            report = verify_ledger(file)
        except LedgerError as error:
            raise RunFolderError(f"{error}") from None
        if not report.end_checked:
            raise RunFolderError(f"{file}.head is missing, so lines may have been cut off the end")
        owner = named.pop(file.resolve(), None) or named.pop(path.resolve(), None)
        config = read_config(file.parent) if (file.parent / "config.toml").exists() else None
        name = path.name if path.is_dir() else str(path)
        found[report.head] = SpentLedger(name, report, config, owner, read_fingerprint(file.parent))
        times[report.head] = file.stat().st_mtime
    if named:
        missing = ", ".join(owner.path for owner in named.values())
        raise ConfigError(f"the budget file names ledgers that were not given: {missing}")
    return [found[head] for head in sorted(found, key=times.__getitem__)]
