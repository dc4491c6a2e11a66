"""Whether files that others must not read are private."""

from __future__ import annotations

import stat
from pathlib import Path

from prism_secure.audit.evidence import Evidence
from prism_secure.audit.findings import Notebook


def check_mode(notes: Notebook, path: Path, evidence: Evidence, allowed: int) -> None:
    """A finding if anybody but the owner has rights at `path` beyond `allowed`."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & ~allowed & 0o077:
        notes.finding(
            f"Others can reach {path.relative_to(evidence.folder)}.",
            mode=f"{mode:04o}",
            expected=f"{allowed:04o}",
        )
