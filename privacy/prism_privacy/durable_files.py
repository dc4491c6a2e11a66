"""Files that must survive a crash whole, and secrets that are for their owner's eyes only."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from prism_privacy.errors import PrivacyError

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_LARGEST = 1 << 16


def write_secret_file(path: Path, content: bytes, error: type[PrivacyError]) -> None:
    """Create ``path`` with mode 0600 and ``content``, whole or not at all; never overwrite.

    A process killed on the way leaves no ``path``, at most a hidden file of its own that nothing reads.

    Raises:
        error: the file exists, or the file system keeps no private modes.
        OSError: it cannot be written.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & _OTHERS:
                raise error(f"{path}: this file system cannot keep a file private (mode 0600)")
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(temporary)
    except FileExistsError:
        raise error(f"{path} exists already; a secret is never overwritten") from None
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def read_secret_file(path: Path, error: type[PrivacyError]) -> bytes:
    """The content of ``path``, refused if anybody but its owner can read or write it.

    Raises:
        error: no such file, not a regular file, another owner, or permissions wider than 0600.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    try:
        if path.is_dir():
            raise error(f"{path} is not a regular file")
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise error(f"{path} does not exist") from None
    except OSError as cause:
        raise error(f"{path} cannot be opened: {cause.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise error(f"{path} is not a regular file")
        if status.st_uid != os.geteuid():
            raise error(f"{path} belongs to user {status.st_uid}, not to user {os.geteuid()}")
        mode = stat.S_IMODE(status.st_mode)
        if mode & _OTHERS:
            raise error(f"{path} has mode {mode:04o}: others can read it; expected 0600 (chmod 600 {path})")
        return file.read(_LARGEST)


def sync_directory(directory: Path) -> None:
    """Make a name created, renamed or removed in ``directory`` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Put ``content`` at ``path`` in one step: after a crash there is the old file or the new, whole.

    Not for two writers at a time: both would use one temporary name, ``<name>.tmp``.
    """
    temporary = path.with_name(path.name + ".tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    try:
        with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
