"""What a sweep gains and costs: 24 tiny runs, one after the other and on two workers.

    python experiments/sweep/bench.py --out /tmp/sweep-bench

Three measurements over the same 24 configurations, each in a fresh folder:

    alone       `prism_secure.rounds.simulation.run`, one after the other, in one process: no sweep at all
    1 worker    `prism-secure sweep --workers 1`
    2 workers   `prism-secure sweep --workers 2`

The gain is `alone` over `2 workers`. The sweep's own overhead is what `1 worker` takes longer than `alone`,
its start included. On a machine with other work to do times mean little: the load is printed, and what the
processors did, which depends on others much less.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent

ALONE = """
import sys
from pathlib import Path
import torch
from prism_secure.rounds.simulation import run
from prism_secure.sweep.recipe import read_recipe
import msgspec, time
torch.set_num_threads(1)
recipe = read_recipe(Path(sys.argv[1]))
configs = [recipe.config(point, seed) for point in recipe.grid() for seed in recipe.seeds]
began = time.perf_counter()
for index, config in enumerate(configs):
    federation = msgspec.structs.replace(config.federation, workers=1)
    run(msgspec.structs.replace(config, federation=federation), Path(sys.argv[2]) / str(index))
print(f"runs alone: {time.perf_counter() - began:.1f} s")
"""


def timed(name: str, command: list[str]) -> tuple[float, float]:
    """Wall and processor seconds of a command with all its children."""
    began, before = time.perf_counter(), os.times()
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    seconds, after = time.perf_counter() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    print(f"{name:<10} {seconds:7.1f} s   cpu {cpu:6.1f} s   load {load}   {last}", flush=True)
    return seconds, cpu


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="a folder to fill")
    parser.add_argument("--recipe", type=Path, default=HERE / "tiny.toml")
    options = parser.parse_args()
    print(
        f"{os.cpu_count()} cores, load {' '.join(f'{value:.2f}' for value in os.getloadavg())} at the start"
    )
    sweep = [sys.executable, "-m", "prism_secure.cli", "sweep", str(options.recipe)]
    took = {}
    for name, command in {
        "2 workers": [*sweep, "--workers", "2"],
        "alone": [sys.executable, "-c", ALONE, str(options.recipe)],
        "1 worker": [*sweep, "--workers", "1"],
    }.items():
        out = options.out / name.replace(" ", "-")
        shutil.rmtree(out, ignore_errors=True)
        took[name] = timed(name, [*command, str(out)] if name == "alone" else [*command, "--out", str(out)])
    (alone, cpu_alone), (one, cpu_one), (two, _) = (took[name] for name in ("alone", "1 worker", "2 workers"))
    print(f"gain on two workers: {alone / two:.2f}x")
    print(
        f"overhead of the sweep: {one / alone - 1:.1%} of the time, {cpu_one / cpu_alone - 1:.1%} of the work"
    )


if __name__ == "__main__":
    main()
