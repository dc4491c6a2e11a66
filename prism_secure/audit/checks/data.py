"""Whether the images are those that the run read. Needs its private part, and the data in their place."""

from __future__ import annotations

from pathlib import Path

from prism_secure.audit.checks.file_modes import check_mode
from prism_secure.audit.evidence import Evidence
from prism_secure.audit.findings import Notebook, Unchecked
from prism_secure.data import BUNDLED
from prism_secure.data.fingerprint import changed
from prism_secure.data.sources import FINGERPRINT_FILE
from prism_secure.errors import PrismError
from prism_secure.rounds.components import Components


def data(evidence: Evidence, notes: Notebook) -> None:
    """Are the images those that the run read, training and held-out ones?"""
    if evidence.config.data.source == BUNDLED:
        notes.fact("the images ship with the package")
        return
    kept = evidence.fingerprint
    if kept is None:
        _ = evidence.clients  # skipped where the private part is not here
        raise Unchecked(
            f"no {FINGERPRINT_FILE} says what images the run had: it is gone, or an older program made "
            "the run",
            expected=not evidence.charges,
        )
    check_mode(notes, evidence.folder / "clients" / FINGERPRINT_FILE, evidence, 0o600)
    folder = Path(kept.folder)
    if not folder.is_dir():
        raise Unchecked("the data are no longer here, or not yet", expected=True)
    try:
        parts = changed(kept, folder, Components(evidence.config_here).dataset)
    except PrismError as error:
        raise Unchecked(evidence.told(error)) from None
    for part in parts:
        notes.finding(
            f"The {part} images are not those that the run read: files in data.folder were changed since."
        )
    if not parts:
        notes.fact("training and held-out images are those that the run read")
