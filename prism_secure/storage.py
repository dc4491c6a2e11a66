"""Writes that a kill or a full disk cannot leave half done.

`write_atomic` does what `prism_privacy.durable_files.replace_file` does, and is not it:
`generate` writes, too, and loads nothing of that package.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from prism_secure.errors import StorageError


@contextlib.contextmanager
def as_storage_error(path: Path) -> Iterator[None]:
    """Whatever the operating system refuses becomes a `StorageError` that names `path`."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}; what was complete before is kept, "
            "and the same command continues once this is mended"
        ) from None


def make_folder(path: Path) -> None:
    """Create a folder and its parents; existing ones are fine.

    Raises:
        StorageError: it cannot be created.
    """
    with as_storage_error(path):
        path.mkdir(parents=True, exist_ok=True)


def make_private_folder(path: Path) -> None:
    """Make a folder that is open to its owner alone (0700)."""
    make_folder(path)
    with as_storage_error(path):
        path.chmod(0o700)


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` by `data`: readers see the old file or the new one, also after a power cut.

    Raises:
        StorageError: the disk refused (full, read-only); the old file is untouched.
    """
    with as_storage_error(path):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
                file.write(data)
                file.flush()
                os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make renames and creations inside a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_line(path: Path, line: bytes) -> None:
    """Append one line durably. A torn last line is cut off first, and this one where the disk refuses midway.

    One writer at a time: the caller holds a lock.

    Raises:
        StorageError: the disk refused.
    """
    start = sum(len(kept) + 1 for kept in whole_lines(path))
    with as_storage_error(path), path.open("ab") as file:
        file.truncate(start)
        try:
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(file.fileno(), start)
            raise


def whole_lines(path: Path) -> list[bytes]:
    """The lines of a file, without a last one that has no end yet: torn by a kill, or still being written."""
    if not path.exists():
        return []
    data = path.read_bytes()
    return data[: data.rfind(b"\n") + 1].splitlines()
