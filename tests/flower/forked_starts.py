"""Client processes as forks of one that has imported Flower, which takes longer than most tests."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from prism_secure.flower.secure_aggregation import link, process


@contextlib.contextmanager
def forked_starts() -> Iterator[None]:
    """Let `link` start client processes so; those of recipes start its own way."""
    command = [sys.executable, __file__, str(os.getpid())]  # the last tells whose they are
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as helper,
        pytest.MonkeyPatch.context() as patch,
    ):
        one_at_a_time = threading.Lock()

        def start(address: Path, log: BinaryIO) -> None:
            address.unlink(missing_ok=True)
            with one_at_a_time:
                print(address, os.getppid(), log.name, file=helper.stdin, flush=True, sep="\0")
                assert helper.stdout.readline() == "0\n"

        patch.setattr(link, "_start", start)
        yield


def _serve(address: str, parent: str, log: str) -> None:
    """What `link` would have had a fresh interpreter do."""
    os.setsid()
    files = (os.devnull, os.O_RDONLY), *[(log, os.O_WRONLY | os.O_APPEND)] * 2
    for stream, (name, how) in enumerate(files):
        os.dup2(os.open(name, how), stream)
    sys.argv = ["-c", address, parent]
    process.main()


if __name__ == "__main__":
    for line in sys.stdin:
        if not (child := os.fork()):
            _serve(*line.rstrip("\n").split("\0"))
        print(os.waitpid(child, 0)[1], flush=True)
