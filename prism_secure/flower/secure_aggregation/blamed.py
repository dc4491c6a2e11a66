"""Who has broken the protocol, kept beside a run: a server that starts again leaves them out, too."""

from __future__ import annotations

from collections.abc import Iterable
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

    What the file holds already stays, also what cannot be checked here and now.

    Raises:
        RunFolderError: the file was not written by `keep_blamed`.
        StorageError: the disk refused.
    """
    evidence = dict.fromkeys([*_evidence(path), *(blame.evidence for blame in blamed)])
    write_atomic(path, msgspec.msgpack.encode(list(evidence)))


def read_blamed(path: Path, roster: Roster, federation: str) -> dict[int, Blame]:
    """Whom the evidence convicts, by client id; nobody, where there is no file.

    Evidence is checked as by anybody. What convicts nobody of this federation under this roster is left out,
    with a warning: whoever was enrolled anew has another key.

    Raises:
        RunFolderError: the file was not written by `keep_blamed`.
    """
    blamed = {}
    for evidence in _evidence(path):
        try:
            blame = verify_evidence(evidence, roster)
        except EvidenceError as error:
            log(WARNING, "secure sum: kept evidence no longer counts: %s", error)
            continue
        if blame.federation == federation:
            blamed[blame.client_id] = blame
    return blamed


def _evidence(path: Path) -> list[bytes]:
    if not path.exists():
        return []
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=list[bytes])
    except (OSError, msgspec.MsgspecError):
        raise RunFolderError(
            f"{path} must hold evidence against clients, and can't be read; put it back, or take it "
            "away, and they are invited again"
        ) from None
