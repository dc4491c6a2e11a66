"""Many simulated Flower clients in one secure sum, beside plain FedAvg of as many bytes.

    python experiments/flower/bench_simulation.py --clients 200 --dimension 1000000
    python experiments/flower/bench_simulation.py --clients 5 --rounds 6        # the mean of five warm rounds

Both sides run in Flower's simulation runtime (Ray), one after the other, each under a SuperLink of its own.
Memory is the largest sum over the processes that the side has started of what they hold (PSS), sampled every
second.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "flower"))

from deployment import Machines, free_port

from prism_crypto import CountSpec, Policy, Session
from prism_secure.run_folder.enrolment import enroll_simulated

APPS = Path(__file__).parent / "apps"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--dimension", type=int, default=1_000_000)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument(
        "--rounds", type=int, default=1, help="of more than one the first, a warm-up, is left out"
    )
    options = parser.parse_args()
    found = {}
    for app in ("ours", "plain"):
        with tempfile.TemporaryDirectory() as folder:
            machines = Machines(Path(folder), limit=3600)
            try:
                found[app] = measure(machines, options, app)
            finally:
                machines.close()
    print(json.dumps(found, indent=1))
    print(f"\n{'':<28}{'secure sum':>16}{'FedAvg':>16}")
    for key in ("wall_seconds", "server_seconds", "bytes_up", "bytes_down", "messages", "peak_mib"):
        print(f"{key:<28}" + "".join(f"{side[key]:>16,.1f}" for side in found.values()))


def measure(machines: Machines, options: argparse.Namespace, app: str) -> dict[str, float]:
    members, link = machines.root / "members", machines.root / "link"
    enroll_simulated(members, "bench", options.clients, Policy(min_survivors=2))
    session = Session.plan(
        CountSpec(options.dimension), range(options.clients), federation="", number=1, mode="semi_honest",
        graph="complete",
    )  # fmt: skip
    port, folder = free_port(), link / "app"
    folder.mkdir(parents=True)
    for name in ("measured.py", f"{app}_client.py", f"{app}_server.py"):
        (folder / name).write_text((APPS / name).read_text())
    (folder / "pyproject.toml").write_text(
        f"""
[project]
name = "bench-{app}"
version = "1.0.0"
dependencies = []
[tool.flwr.app]
publisher = "bench"
[tool.flwr.app.components]
serverapp = "{app}_server:app"
clientapp = "{app}_client:app"
[tool.flwr.app.config]
clients = {options.clients}
dimension = {options.dimension}
rounds = {options.rounds}
mode = "active"
model = true
folder = "{members}/server"
clients-folder = "{members}"
figures = "{link}"
reply-bytes = {8 * (session.packing.length)}
"""
    )
    (link / "flwr").mkdir(exist_ok=True)
    (link / "flwr" / "config.toml").write_text(
        f'[superlink]\ndefault = "sim"\n[superlink.sim]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    machines.start(
        "link",
        f"flower-superlink --insecure --simulation --host 127.0.0.1 --port {port} "
        "--disable-runtime-dependency-installation",
    )
    machines.wait_for("link", "startup complete")
    memory = Memory(machines.root)
    machines.run(
        "link",
        f"flwr run app sim --federation-config 'num-supernodes={options.clients} "
        f"client-resources-num-cpus=1 init-args-num-cpus={options.cores}'",
    )
    end = time.monotonic() + 3000
    while not (link / "server.json").exists():
        if time.monotonic() > end:
            raise SystemExit(f"{app} did not finish:\n{machines.log('link')[-4000:]}")
        time.sleep(0.5)
    return json.loads((link / "server.json").read_text()) | {"peak_mib": memory.stop()}


class Memory:
    """Samples the memory of all processes whose environment names `root`: all that a side has started."""

    def __init__(self, root: Path) -> None:
        self._mark = str(root).encode()
        self._peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """The peak, in MiB."""
        self._ended.set()
        self._thread.join()
        return self._peak / 1024

    def _sample(self) -> None:
        while not self._ended.wait(1.0):
            self._peak = max(self._peak, sum(map(self._kibibytes, Path("/proc").glob("[0-9]*"))))

    def _kibibytes(self, process: Path) -> int:
        try:
            if self._mark not in (process / "environ").read_bytes():
                return 0
            lines = (process / "smaps_rollup").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            return 0


if __name__ == "__main__":
    main()
