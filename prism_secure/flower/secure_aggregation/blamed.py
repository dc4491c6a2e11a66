"""Who has broken the protocol, kept beside a run: a server that starts again leaves them out, too."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from logging import WARNING
from pathlib import Path

import msgspec
from flwr.common.logger import log

from prism_crypto import Blame, EvidenceError, Roster, verify_evidence
from prism_secure.errors import RunFolderError
from prism_secure.storage import write_atomic

__all__ = ["keep_blamed", "read_blamed"]


def keep_blamed(path: Path, blamed: Iterable[Blame]) -> None:
    """Write the evidence, a msgpack list of byte strings; readers see the old file or the new one.

    Raises:
        StorageError: the disk refused.
    """
    write_atomic(path, msgspec.msgpack.encode([blame.evidence for blame in blamed]))


def read_blamed(path: Path, roster: Roster, federation: str) -> dict[int, Blame]:
    """Whom the evidence convicts, by client id; nobody, where there is no file.

    Evidence is checked as by anybody. What convicts nobody of this federation under this roster any more is
    left, with a warning: whoever was enrolled anew has another key.

    Raises:
        RunFolderError: the file is none that `keep_blamed` wrote.
    """
    found = None
    if path.exists():
        with suppress(OSError, msgspec.MsgspecError):
            found = msgspec.msgpack.decode(path.read_bytes(), type=list[bytes])
        if found is None:
            raise RunFolderError(
                f"{path} must hold evidence against clients, and can't be read; put it back, or take it "
                "away, and they are invited again"
            )
    blamed = {}
    for evidence in found or []:
        try:
            blame = verify_evidence(evidence, roster)
        except EvidenceError as error:
            log(WARNING, "secure sum: kept evidence counts no more: %s", error)
            continue
        if blame.federation == federation:
            blamed[blame.client_id] = blame
    return blamed
