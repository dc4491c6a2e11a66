"""Flower's real processes on the loopback interface, started by a test and ended by it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Machines:
    """Shells in folders of their own. What they leave running ends with `close`, or after `limit` seconds.

    Args:
        root: holds a folder for each party.
        limit: seconds after which a process is ended, whatever it does.
    """

    def __init__(self, root: Path, limit: int = 1200) -> None:
        self.root = root
        self._limit = limit
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = os.environ | {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "OMP_NUM_THREADS": "1",
            "RAY_worker_niceness": "0",  # Ray's 15 starves on a machine that does anything else
            "PYTHONWARNINGS": "ignore",
        }

    def run(self, party: str, script: str, timeout: float = 600) -> str:
        """Run a script of `sh` to its end; returns what it printed.

        Raises:
            AssertionError: it failed.
        """
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", script],
            cwd=self._folder(party),
            env=self._environment(party),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
        printed = done.stdout.decode(errors="replace")
        assert done.returncode == 0, f"{party}: exit code {done.returncode}\n{script}\n{printed[-6000:]}"
        return printed

    def start(self, party: str, script: str) -> None:
        """Start what stays; its output goes to `log` in the party's folder."""
        folder = self._folder(party)
        bounded = ["timeout", "--kill-after=5", str(self._limit), "/bin/bash", "-c", f"exec {script.strip()}"]
        with (folder / "log").open("ab") as log:
            self._running[party] = subprocess.Popen(
                bounded,
                cwd=folder,
                env=self._environment(party),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def stop(self, party: str, how: signal.Signals = signal.SIGTERM) -> None:
        """End what was started for a party, and all that it has started (its session)."""
        process = self._running.pop(party)
        self._signal(process, how)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            self._signal(process, signal.SIGKILL)
            process.wait(15)

    def close(self) -> None:
        for party in list(self._running):
            self.stop(party)

    def log(self, party: str) -> str:
        path = self._folder(party) / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_for(self, party: str, words: str, seconds: float = 600, count: int = 1) -> None:
        """Until the party's log holds `words` that often.

        Raises:
            AssertionError: it doesn't in time, or the party has ended.
        """
        end = time.monotonic() + seconds
        while self.log(party).count(words) < count:
            process = self._running.get(party)
            ended = process is None or process.poll() is not None
            assert not ended, f"{party} has ended without {words!r}:\n{self.log(party)[-4000:]}"
            assert time.monotonic() < end, f"{party} does not say {words!r}:\n{self.log(party)[-4000:]}"
            time.sleep(0.3)

    @staticmethod
    def _signal(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)

    def _folder(self, party: str) -> Path:
        folder = self.root / party
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _environment(self, party: str) -> dict[str, str]:
        return self.environment | {"FLWR_HOME": str(self._folder(party) / "flwr")}
