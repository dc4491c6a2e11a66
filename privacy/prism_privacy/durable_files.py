"""Files that must survive a crash whole, and secrets that are for their owner's eyes only."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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

    Of two writers at a time the later one wins; neither sees the other's half. ``mode`` is narrowed by the
    umask. A process killed on the way leaves a hidden file that nothing reads (:func:`remove_leftovers`).
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
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


def remove_leftovers(path: Path) -> None:
    """Remove what killed writers of ``path`` left beside it; only where no other writer can be at work."""
    start, end = f".{path.name}.", ".tmp"
    for file in path.parent.iterdir():
        if file.name.startswith(start) and file.name.endswith(end):
            file.unlink(missing_ok=True)


@contextmanager
def locked_directory(directory: Path) -> Iterator[None]:
    """One process, and one thread of it, at a time; a second caller waits.

    The lock is advisory (flock) and ends with the process. It is not reentrant: taking it twice in one
    thread waits for ever.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
