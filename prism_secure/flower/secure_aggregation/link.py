"""From the process of one Flower message to the client process: found, or started, and asked."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

from prism_secure.errors import RoundError
from prism_secure.flower.secure_aggregation.wire import Begin, Reply, Request, receive_reply, send

_SERVE = "from prism_secure.flower.secure_aggregation.process import main; main()"


def ask(owner: str, request: Request, arrays: list[bytes] | None = None) -> Reply:
    """Send one request to the client process that `owner` names, and wait for the answer.

    A session begins with a process that is there, or with a new one; it goes on with the one that began it.

    Raises:
        RoundError: the process is gone, or could not be started, or what it answers is an error.
    """
    address = _address(owner)
    answer = _exchange(address, request, arrays)
    if answer is None and isinstance(request, Begin):
        # Its log is also what keeps two processes from starting it at once.
        with address.with_suffix(".log").open("ab") as log:
            fcntl.flock(log, fcntl.LOCK_EX)
            try:
                answer = _exchange(address, request, arrays)
                if answer is None:
                    shutil.copyfile(log.name, f"{log.name}.old")  # it may say why the last one is gone
                    log.truncate(0)
                    _start(address, log)
                    answer = _exchange(address, request, arrays)
            finally:
                # What was started has the file open, too, and would keep the lock.
                fcntl.flock(log, fcntl.LOCK_UN)
    if answer is None:
        raise RoundError(
            "the process that held this client's part of the session is gone: it has dropped out"
        )
    if answer.error:
        raise RoundError(answer.error)
    return answer


def _exchange(address: Path, request: Request, arrays: list[bytes] | None) -> Reply | None:
    """The answer; None if nobody listens, or stopped listening on the way."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(address))
            send(connection, request, arrays)
            return receive_reply(connection)
    except (FileNotFoundError, ConnectionError, EOFError):
        return None


def _start(address: Path, log: BinaryIO) -> None:
    address.unlink(missing_ok=True)
    command = [sys.executable, "-c", _SERVE, str(address), str(os.getppid())]
    try:
        # A log of its own: it would keep ours open as long as it lives, and somebody may wait for its end.
        subprocess.run(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            timeout=300,
            check=True,
        )
    except subprocess.SubprocessError:
        raise RoundError(
            "the process for a client's part of the session could not be started; its log on the client's "
            "machine says more"
        ) from None


def _address(owner: str) -> Path:
    """The client process's socket; not in the client's own folder, as its path has 108 bytes at most."""
    folder = Path(tempfile.gettempdir()) / f"prism-secure-{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()  # looked at before its mode is set: it may be somebody else's link
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise RoundError("the folder for sockets, among the temporary files, must be this user's own")
    folder.chmod(0o700)
    return folder / f"{hashlib.sha256(owner.encode()).hexdigest()[:24]}.sock"
