"""Small JSON files on which security rests: written once, read only if nobody else can have touched them."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from prism_crypto.errors import IdentityError

__all__ = ["PRIVATE", "PUBLIC", "read_json", "write_new"]

PRIVATE = 0o600
"""Mode of a file with a secret in it: nobody else may read it."""

PUBLIC = 0o644
"""Mode of a file that others may read and must not change."""

_MAX_FILE_BYTES = 64 * 1024 * 1024


def write_new(path: Path, text: str, mode: int) -> None:
    """Write a new file with exactly this mode, and wait until it is on the disk.

    Raises:
        IdentityError: something is there already, or it can't be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    reason = None
    try:
        descriptor = os.open(path, flags, mode)
    except OSError as error:
        reason = error.strerror
    if reason is not None:
        raise IdentityError(f"{path} can't be written: {reason}")
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read_json(path: Path, mode: int) -> Any:
    """Parse a file that belongs to this user (or root) and is open to no more than ``mode`` allows.

    Raises:
        IdentityError: it can't be opened, is a link or no regular file, belongs to another user, is open to
            others, is absurdly large, or is not JSON.
    """
    reason = None
    try:
        # O_NONBLOCK: a named pipe in its place must not make us wait.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        reason = error.strerror
    if reason is not None:
        raise IdentityError(f"{path} can't be opened: {reason}")
    try:
        _check(path, os.fstat(descriptor), mode)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read()
    finally:
        os.close(descriptor)
    try:
        return json.loads(content)
    except ValueError:
        content = b""
    raise IdentityError(f"{path} is not JSON")


def _check(path: Path, status: os.stat_result, mode: int) -> None:
    found = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        raise IdentityError(f"{path} is no regular file")
    if status.st_uid not in {os.geteuid(), 0}:
        raise IdentityError(f"{path} belongs to another user")
    if found & 0o077 & ~mode:
        raise IdentityError(f"{path} is open to others (mode {found:04o}); expected {mode:04o}")
    if status.st_size > _MAX_FILE_BYTES:
        raise IdentityError(f"{path} is too large for what it should hold")
