"""Small JSON files on which security rests: written once, read only if nobody else can have touched them."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from prism_crypto.errors import IdentityError

__all__ = ["PRIVATE", "PUBLIC", "check_folder", "read_json", "read_text", "sync_folder", "write_new"]

PRIVATE = 0o600
"""Mode of a file with a secret in it: nobody else may read it."""

PUBLIC = 0o644
"""Mode of a file that others may read and must not change."""

_MAX_FILE_BYTES = 64 * 1024 * 1024


def write_new(path: Path, text: str, mode: int) -> None:
    """Write a new file with exactly this mode, whole or not at all, and wait until it is on the disk.

    A process killed on the way leaves no ``path``, at most a hidden file (mode 0600) that nothing reads.

    Raises:
        IdentityError: something is there already (a link counts), it can't be written, or the file system
            keeps no modes.
    """
    reason = None
    try:
        _write_beside(path, text.encode("ascii"), mode)
        sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror
    if reason is not None:
        raise IdentityError(f"{path} can't be written: {reason}")


def sync_folder(folder: Path) -> None:
    """Make names that were made or changed in ``folder`` survive a power cut.

    Raises:
        OSError: it can't be opened or synced.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_beside(path: Path, content: bytes, mode: int) -> None:
    """Write under a name of its own; only the finished file gets the name ``path``, if nothing has it."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077 & ~mode:
                raise IdentityError(f"{path}: this file system can't keep a file at mode {mode:04o}")
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def read_json(path: Path, mode: int) -> Any:
    """Parse such a file as `read_text` takes.

    Raises:
        IdentityError: see `read_text`; or it is not JSON.
    """
    try:
        return json.loads(_read(path, mode))
    except ValueError:
        pass
    raise IdentityError(f"{path} is not JSON")


def read_text(path: Path, mode: int) -> str:
    """The text of a file that belongs to this user (or root) and is open to no more than ``mode`` allows.

    Raises:
        IdentityError: it can't be opened, is a link or no regular file, belongs to another user, is open to
            others, is absurdly large, or is not ASCII.
    """
    try:
        return _read(path, mode).decode("ascii")
    except UnicodeDecodeError:
        pass
    raise IdentityError(f"{path} is not ASCII text")


def check_folder(folder: Path) -> None:
    """Refuse a folder in which others could put another file in the place of one.

    Raises:
        IdentityError: there is none, it belongs to another user, or others may write to it.
    """
    reason = None
    try:
        status = folder.stat()
    except OSError as error:
        reason = error.strerror
    if reason is not None:
        raise IdentityError(f"{folder} can't be read: {reason}")
    if status.st_uid not in {os.geteuid(), 0}:
        raise IdentityError(f"{folder} belongs to another user")
    if (found := stat.S_IMODE(status.st_mode)) & 0o022:
        raise IdentityError(f"{folder} can be written to by others (mode {found:04o}); expected 0700")


def _read(path: Path, mode: int) -> bytes:
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
            return file.read()
    finally:
        os.close(descriptor)


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
