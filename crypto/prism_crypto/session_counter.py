"""Session numbers only increase, also across crashes.

A client that took part twice under one number could be shown two versions of the same session. So the
number is on the disk before the first byte of the session leaves, and a number once seen never comes back. A
client whose file is gone does not know what it has seen: it refuses until it is enrolled again, under a
new identity.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from prism_crypto.errors import StateError

__all__ = ["MAX_SESSION", "MemoryCounter", "SessionCounter", "SessionNumbers"]

MAX_SESSION = 2**64 - 1
_FORMAT = "prism-crypto/v1/session-counter "
_LINE = re.compile(_FORMAT.encode() + rb"(0|[1-9][0-9]{0,19})\n")
_MAX_LINE = len(_FORMAT) + 21


class SessionNumbers(Protocol):
    """What a client needs: somewhere to record that it enters a session."""

    def advance(self, number: int) -> None:
        """Record session ``number`` durably.

        Raises:
            StateError: it is not above every number recorded before.
        """


class MemoryCounter:
    """Session numbers for simulation and tests: they last as long as the object.

    >>> counter = MemoryCounter()
    >>> counter.advance(1)
    >>> counter.advance(1)
    Traceback (most recent call last):
    ...
    prism_crypto.errors.StateError: session 1 is not above 1, the last one this client entered
    """

    def __init__(self, last: int = 0) -> None:
        self.last = last

    def advance(self, number: int) -> None:
        """Record session ``number``; see `SessionNumbers.advance`."""
        _check_above(number, self.last)
        self.last = number


class SessionCounter:
    """Session numbers in a file of one line.

    A number is written to a temporary file, fsync'd, renamed over the old one, and the folder is fsync'd; two
    processes that share the file are kept apart by a lock beside it.

    Args:
        path: the file, made once by `enrol`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def enrol(cls, path: str | Path) -> SessionCounter:
        """Make the file of a client that has not entered any session.

        Raises:
            StateError: it exists already.
        """
        counter = cls(path)
        with counter._locked():
            if counter.path.exists():
                raise StateError(f"{counter.path} exists already: this client is enrolled")
            counter._write(0)
        return counter

    @property
    def last(self) -> int:
        """The last number recorded, 0 before the first.

        Raises:
            StateError: the file is missing or not what `advance` writes.
        """
        line: bytes | None = b""
        try:
            with self.path.open("rb") as file:
                line = file.read(_MAX_LINE + 1)
        except FileNotFoundError:
            line = None
        except OSError:
            pass
        if line is None:
            raise StateError(f"{self.path} is missing: this client must be enrolled again, as a new identity")
        match = _LINE.fullmatch(line)
        if match is None:
            raise StateError(f"{self.path} is damaged: this client must be enrolled again, as a new identity")
        return int(match[1])

    def advance(self, number: int) -> None:
        """Record session ``number``; it is on the disk when this returns. See `SessionNumbers.advance`."""
        with self._locked():
            _check_above(number, self.last)
            self._write(number)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self.path.with_name(self.path.name + ".lock")
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write(self, number: int) -> None:
        temporary = self.path.with_name(self.path.name + ".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, 0o600), "w", encoding="ascii") as file:
            file.write(f"{_FORMAT}{number}\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _check_above(number: int, last: int) -> None:
    if not 1 <= number <= MAX_SESSION:
        raise StateError(f"a session number is in 1..2^64-1, not {number}")
    if number <= last:
        raise StateError(f"session {number} is not above {last}, the last one this client entered")
