"""Session numbers only increase, also across crashes, and no round takes a second upload.

A client that took part twice under one number could be shown two versions of the same session. So the
number is on the disk before the first byte of the session leaves, and a number once seen never comes back.

A client that let one input into two sessions could be singled out by their difference: the server opens the
sum of one session, calls it lost, and leaves the client's upload out of the next. So the round of an upload
is on the disk before the upload leaves; from then on every session of that round or an earlier one is
refused. Round 0 says that the application does not number its rounds. It is then the application that must
never put one randomized input into two sessions; and a client that has uploaded in a numbered round takes
part in no session without one, or a server could undo the rule by leaving the number out.

Neither may jump far: whoever could say 2^64 - 1 once would have shut the client out of all that comes. A
server that has set a client ahead goes on above what it has said. (One that takes the largest step three
hundred times is at 2^42, the end of numbers on a chosen graph: no step that lets an honest server skip months
keeps it off.)

A client whose file is gone, or was put back from a copy, does not know what it has seen: it must be enrolled
again, under a new identity.
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
from prism_crypto.keeping.guarded_file import sync_folder

__all__ = ["MAX_SESSION", "MemoryCounter", "SessionCounter", "SessionNumbers", "check_start"]

MAX_SESSION = 2**64 - 1
MAX_ROUND = 2**64 - 1
MAX_STEP = 2**33
"""How far a session's number may be above the last one: 99 days, where it is a clock's milliseconds."""

MAX_ROUND_STEP = 2**16
"""How far a round may be above the last one in which a client uploaded."""

_FORMAT = "prism-crypto/v2/session-counter "
_NUMBER = rb"(0|[1-9][0-9]{0,19})"
_LINE = re.compile(_FORMAT.encode() + _NUMBER + rb" round " + _NUMBER + rb"\n")
_MAX_LINE = len(_FORMAT) + len(" round ") + 41
_ENROL = "this client must be enrolled again, as a new identity"


class SessionNumbers(Protocol):
    """What a client needs: somewhere to record that it enters a session, and that its upload leaves."""

    def advance(self, number: int, round: int = 0) -> None:
        """Record session ``number`` durably; called before the advert leaves.

        Args:
            number: of the session, 1..2^64-1.
            round: the session's round, 0..2^64-1; 0 if rounds are not numbered. It is checked, not recorded:
                a session that ends before this client's upload may be repeated in the same round.

        Raises:
            StateError: the number is not above every number recorded before, or the round not above every
                one recorded by `uploaded`; or one of them is too far above.
        """

    def uploaded(self, round: int) -> None:
        """Record durably that an upload of ``round`` is about to leave; called before it does.

        Nothing is recorded for round 0. A crash between this and the upload costs the round.

        Raises:
            StateError: the round is not above every round recorded before.
        """


class MemoryCounter:
    """Session numbers for simulation and tests: they last as long as the object.

    >>> counter = MemoryCounter()
    >>> counter.advance(1)
    >>> counter.advance(1)
    Traceback (most recent call last):
    ...
    prism_crypto.errors.StateError: session 1 is not above 1, the last one this client entered
    >>> counter.uploaded(round=1)
    >>> counter.advance(2, round=1)
    Traceback (most recent call last):
    ...
    prism_crypto.errors.StateError: round 1 is not above 1, the last one in which this client uploaded
    """

    def __init__(self, last: int = 0, last_round: int = 0) -> None:
        self.last = last
        self.last_round = last_round

    def advance(self, number: int, round: int = 0) -> None:
        """Record session ``number``; see `SessionNumbers.advance`."""
        _check_above(number, self.last)
        _check_round(round, self.last_round)
        self.last = number

    def uploaded(self, round: int) -> None:
        """Record an upload of ``round``; see `SessionNumbers.uploaded`."""
        _check_round(round, self.last_round)
        self.last_round = round


class SessionCounter:
    """Session number and round of the last upload, in a file of one line.

    The line is written to a temporary file, fsync'd, renamed over the old one, and the folder is fsync'd; two
    processes that share the file are kept apart by a lock beside it. A client has one file in a federation.

    A file put back from a backup is a lost file, but nothing in it tells that it is old: leave it out of
    backups, and enrol again.

    Args:
        path: the file, made once by `enrol`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def enrol(cls, path: str | Path, *, number: int = 0, round: int = 0) -> SessionCounter:
        """Make the file of a client that has not entered any session.

        Args:
            path: the file.
            number, round: above which its sessions are numbered: 0 where they are counted from 1; a clock's
                reading where the server takes the clock; what came before where the federation is older.

        The file starts from nothing, so its client must too: whoever has entered a session before, and has
        lost the file, is enrolled together with a new `Identity`, whose key replaces the old one in
        everybody's roster. Enrolling the old identity anew would let a server show it sessions and rounds
        that it has seen; nothing here can notice.

        Raises:
            StateError: it exists already, or a number is out of range.
        """
        check_start(number, round)
        counter = cls(path)
        with counter._locked():
            if counter.path.exists():
                raise StateError(f"{counter.path} exists already: this client is enrolled")
            counter._write(number, round)
        return counter

    @property
    def last(self) -> int:
        """The last number recorded, 0 before the first.

        Raises:
            StateError: the file is missing or not what this class writes.
        """
        return self._read()[0]

    @property
    def last_round(self) -> int:
        """The round of the last upload, 0 before the first one of a numbered round. Errors: see `last`."""
        return self._read()[1]

    def advance(self, number: int, round: int = 0) -> None:
        """Record session ``number``; it is on the disk when this returns. See `SessionNumbers.advance`."""
        with self._locked():
            last, last_round = self._read()
            _check_above(number, last)
            _check_round(round, last_round)
            self._write(number, last_round)

    def uploaded(self, round: int) -> None:
        """Record an upload of ``round``; it is on the disk when this returns.

        See `SessionNumbers.uploaded`.
        """
        with self._locked():
            last, last_round = self._read()
            _check_round(round, last_round)
            if round:
                self._write(last, round)

    def _read(self) -> tuple[int, int]:
        line: bytes | None = b""
        try:
            with self.path.open("rb") as file:
                line = file.read(_MAX_LINE + 1)
        except FileNotFoundError:
            line = None
        except OSError:
            pass
        if line is None:
            raise StateError(f"{self.path} is missing: {_ENROL}")
        match = _LINE.fullmatch(line)
        if match is None:
            raise StateError(f"{self.path} is damaged: {_ENROL}")
        return int(match[1]), int(match[2])

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self.path.with_name(self.path.name + ".lock")
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write(self, number: int, round: int) -> None:
        temporary = self.path.with_name(self.path.name + ".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, 0o600), "w", encoding="ascii") as file:
            file.write(f"{_FORMAT}{number} round {round}\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)
        sync_folder(self.path.parent)


def check_start(number: int, round: int) -> None:
    """Refuse what no counter can start from.

    Raises:
        StateError: a number is out of range.
    """
    if not (0 <= number <= MAX_SESSION and 0 <= round <= MAX_ROUND):
        raise StateError(f"session and round are in 0..2^64-1, not {number} and {round}")


def _check_above(number: int, last: int) -> None:
    if not 1 <= number <= MAX_SESSION:
        raise StateError(f"a session number is in 1..2^64-1, not {number}")
    if number <= last:
        raise StateError(f"session {number} is not above {last}, the last one this client entered")
    if number > last + MAX_STEP:
        raise StateError(
            f"session {number} is more than {MAX_STEP} above {last}, the last one this client entered: "
            f"no server sets a client so far ahead; a client that has been away for so long: {_ENROL}"
        )


def _check_round(round: int, last: int) -> None:
    if not 0 <= round <= MAX_ROUND:
        raise StateError(f"a round is in 0..2^64-1, not {round}")
    if last and not round:
        raise StateError(
            f"this client has uploaded in round {last}; it takes part in no session without a round"
        )
    if round and round <= last:
        raise StateError(f"round {round} is not above {last}, the last one in which this client uploaded")
    if round > last + MAX_ROUND_STEP:
        raise StateError(
            f"round {round} is more than {MAX_ROUND_STEP} above {last}, the last one in which this client "
            "uploaded: no server sets a client so far ahead"
        )
