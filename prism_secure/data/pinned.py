"""Files that others made and this package relies on, read only if they are the ones that were looked at."""

from __future__ import annotations

import hashlib
from pathlib import Path

from prism_secure.errors import PrismError

__all__ = ["read_pinned"]


def read_pinned(path: Path, sha256: str, error: type[PrismError], mend: str) -> bytes:
    """The bytes of a file, if their SHA-256, in hexadecimal, starts with `sha256`.

    What is returned is what was hashed: the file is read once.

    Args:
        path: the file.
        sha256: all 64 digits, or the 8 that torchvision puts into the names of its files.
        error: what is raised.
        mend: what to do then, for the message.

    Raises:
        `error`: the file is missing, unreadable or another one.
    """
    try:
        data = path.read_bytes()
    except OSError as reason:
        raise error(f"{path} cannot be read ({reason.strerror}); {mend}") from None
    found = hashlib.sha256(data).hexdigest()
    if not found.startswith(sha256):
        raise error(f"{path} is damaged or another file: expected SHA-256 {sha256}, got {found}; {mend}")
    return data
