"""Which files were left out because they cannot be read: told to who runs this, and to nobody else."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from prism_secure.storage import write_atomic

__all__ = ["FILE", "keep_skipped"]

FILE = "skipped-images.txt"


def keep_skipped(private: Path, names: Sequence[str], note: Callable[[str], None]) -> None:
    """Name the files with `note`, and in a file (0600) in the folder `private`; nothing if there are none.

    Raises:
        StorageError: the disk refused.
    """
    if not names:
        return
    write_atomic(private / FILE, b"".join(os.fsencode(name) + b"\n" for name in names), mode=0o600)
    note(f"data.skip_bad: {len(names)} pictures cannot be read and are left out, listed in {private / FILE}")
    for name in names:
        note(f"  {name!r}")
