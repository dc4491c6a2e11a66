"""Enrol six clients, start Flower's simulation on this machine, run the app, print what it found.

    python run.py

Needs Flower in this environment: pip install '../..[flower]' 'flwr[simulation]'
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from prism_crypto import Policy
from prism_secure.run_folder.enrolment import enroll_simulated

HERE = Path(__file__).parent
CLIENTS = 6
PATIENCE = 900


def main(rounds: int) -> int:
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        shutil.copytree(HERE, home / "app", ignore=shutil.ignore_patterns("__pycache__"))
        # All six have to survive: the cohort that the app's release claims rests on it.
        enroll_simulated(home / "members", "layers", CLIENTS, Policy(min_survivors=CLIENTS))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        (home / "flwr").mkdir()
        (home / "flwr" / "config.toml").write_text(
            '[superlink]\ndefault = "here"\n'
            f'[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        )
        environment = os.environ | {
            "FLWR_HOME": str(home / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "OMP_NUM_THREADS": "1",
            "RAY_worker_niceness": "0",  # Ray's 15 starves on a machine that does anything else
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        with (home / "log").open("wb") as log:
            link = subprocess.Popen(
                ["flower-superlink", "--insecure", "--simulation", "--host", "127.0.0.1", "--port", str(port),
                 "--disable-runtime-dependency-installation"],
                env=environment, cwd=home, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            return follow(home, environment, link, rounds)
        finally:
            # With all that it has started: Flower's simulation, and Ray under it.
            os.killpg(link.pid, signal.SIGTERM)
            link.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(link.pid, signal.SIGKILL)


def follow(home: Path, environment: dict[str, str], link: subprocess.Popen, rounds: int) -> int:
    """Submit the app and print the lines of its results as they come."""
    end = time.monotonic() + PATIENCE
    results = home / "results.txt"
    config = f'clients-folder="{home / "members"}" results="{results}" rounds={rounds}'
    while b"startup complete" not in (home / "log").read_bytes():
        if link.poll() is not None or time.monotonic() > end:
            return failed(home)
        time.sleep(0.5)
    federation = f"num-supernodes={CLIENTS} client-resources-num-cpus=1"
    submitted = subprocess.run(
        ["flwr", "run", "app", "here", "--run-config", config, "--federation-config", federation],
        env=environment, cwd=home, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if submitted.returncode:
        print(submitted.stdout, submitted.stderr, file=sys.stderr)
        return 1
    shown = 0
    while shown < rounds:
        if link.poll() is not None or time.monotonic() > end:
            return failed(home)
        time.sleep(0.5)
        lines = results.read_text().splitlines() if results.exists() else []
        for line in lines[shown:]:
            print(line, flush=True)
        shown = len(lines)
    return 0


def failed(home: Path) -> int:
    """The end of the log, which says why."""
    print((home / "log").read_text(errors="replace")[-4000:], file=sys.stderr)
    return 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the SuperLink ends too
    sys.exit(main(int(os.environ.get("ROUNDS", "5"))))
