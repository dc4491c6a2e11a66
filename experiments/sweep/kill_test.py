"""Kill a sweep twenty times, workers or the whole of it: nothing is lost, and nothing is made twice.

    python experiments/sweep/kill_test.py --out /tmp/sweep-kills --kills 20 --seed 1

Each kill is a SIGKILL of a random worker, or of the process that directs them, a random number of rounds
after the last one; in the second case the same command is started again. At the end every run must be
finished, its ledger and metrics must hold every round exactly once, and there must be as many run
folders, and finished trials, as points.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from prism_secure.sweep.results import read_sweep

HERE = Path(__file__).parent


def children(pid: int) -> list[int]:
    """Worker processes, from /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == pid and b"spawn_main" in command:
            found.append(int(stat.parent.name))
    return sorted(found)


def rounds(out: Path) -> int:
    """Finished rounds of all runs together."""
    return sum(path.read_bytes().count(b"\n") for path in (out / "runs").glob("*/metrics.jsonl"))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="a folder to fill")
    parser.add_argument("--recipe", type=Path, default=HERE / "tiny.toml")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--pause", type=float, default=4.0, help="most seconds before a kill that is due")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    shutil.rmtree(options.out, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "prism_secure.cli",
        "sweep",
        str(options.recipe),
        "--out",
        str(options.out),
    ]
    began, starts, kills = time.monotonic(), 0, {"worker": 0, "sweep": 0}
    process, after = None, 0
    while True:
        if process is None:
            process = subprocess.Popen([*command, "--workers", "2"], stdout=subprocess.DEVNULL)
            starts += 1
        if sum(kills.values()) == options.kills:
            process.wait()
            break
        while process.poll() is None and rounds(options.out) < after:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, options.pause))
        if process.poll() is not None:
            break
        workers = children(process.pid)
        kind = "worker" if workers and rng.random() < 0.6 else "sweep"
        os.kill(rng.choice(workers) if kind == "worker" else process.pid, signal.SIGKILL)
        kills[kind] += 1
        done = rounds(options.out)
        after = done + rng.randint(0, 7)
        number = sum(kills.values())
        print(
            f"{time.monotonic() - began:6.1f} s  kill {number:>2}: {kind:<6}  {done} rounds done", flush=True
        )
        if kind == "sweep":
            process.wait()
            process = None
    code = process.returncode
    print(
        f"ended with exit code {code} after {starts} starts; killed {kills['worker']} workers and "
        f"{kills['sweep']} sweeps"
    )
    return check(options.out) or code


def check(out: Path) -> int:
    """What must hold whatever was killed; 1 if something does not."""
    import sqlite3
    from contextlib import closing

    sweep, wrong = read_sweep(out), []
    folders = list((out / "runs").iterdir())
    if len(folders) != len(sweep.runs):
        wrong.append(f"{len(folders)} run folders for {len(sweep.runs)} runs")
    for run in sweep.runs:
        rounds = list(range(1, run.config.federation.rounds + 1))
        history = run.history()  # checks the whole ledger
        charged = (
            [entry.round for entry in history.ledger.entries if entry.kind == "round"]
            if history.ledger
            else []
        )
        if run.state != "done" or [record.round for record in run.records] != rounds or charged != rounds:
            wrong.append(
                f"{run.name}: {run.state}, rounds {[r.round for r in run.records]}, charged {charged}"
            )
    with closing(sqlite3.connect(out / "study.db")) as study:
        states = dict(study.execute("select state, count(*) from trials group by state").fetchall())
    if states.get("COMPLETE") != len(sweep.points) or set(states) - {"COMPLETE", "FAIL"}:
        wrong.append(f"trials of the study: {states}, for {len(sweep.points)} points")
    for line in wrong:
        print(f"WRONG {line}")
    print(
        f"{len(sweep.runs)} runs, each round of each in metrics and ledger once; trials {states}"
        if not wrong
        else "FAILED"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
