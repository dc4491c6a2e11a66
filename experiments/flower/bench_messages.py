"""Bytes and processor time of one secure round, our stages beside SecAgg+, without Flower's processes.

    python experiments/flower/bench_messages.py --clients 4 --dimension 1000000

The same apps as `bench_deployment.py`, handled in this process message by message: what is left is what the
two protocols do. Figures of processor time hardly depend on what else the machine does.
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "apps"), str(HERE.parents[1] / "tests" / "flower")]
os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "OMP_NUM_THREADS": "1"}

import ours_client
import ours_server
import secagg_client
import secagg_server
from bench_deployment import SIDES, read_figures, show
from flwr.app import Context, RecordDict
from loop_grid import LoopGrid

from prism_crypto import Mode, Policy
from prism_secure.run_folder.enrolment import enroll_simulated

APPS = {"ours": (ours_client.app, ours_server.app), "secagg": (secagg_client.app, secagg_server.app)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--dimension", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=11, help="the first is a warm-up")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = {side: measure(Path(folder) / side, options, *SIDES[side]) for side in SIDES}
    print(json.dumps(figures, indent=1))
    show(figures)


def measure(root: Path, options: argparse.Namespace, app: str, mode: str, model: bool) -> dict[str, float]:
    root.mkdir()
    enroll_simulated(
        root, "bench", options.clients, Policy(min_survivors=3, mode=Mode(mode) if mode else Mode.ACTIVE)
    )
    config = vars(options) | {
        "mode": mode, "model": model,
        "folder": f"{root}/server", "clients-folder": str(root), "figures": str(root),
    }  # fmt: skip
    client_app, server_app = APPS[app]
    grid = LoopGrid(client_app, dict.fromkeys(range(100, 100 + options.clients), root))
    for partition, context in enumerate(grid.contexts.values()):
        context.node_config = {"partition-id": partition, "num-partitions": options.clients}
        context.run_config = config
    server_app(grid, Context(7, 1, {}, RecordDict(), config))
    return read_figures(root, options.clients)


if __name__ == "__main__":
    main()
