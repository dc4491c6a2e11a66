"""`prism-secure bench`: what the parts cost, beside others' and beside what the machine can do."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from prism_secure.commands.parsing import Commands, add_command
from prism_secure.errors import ConfigError

if TYPE_CHECKING:
    from prism_crypto.bench.rows import Bench

SUBJECTS = {
    "secure-sum": "the secure sum, beside Flower's SecAgg+ where flwr is installed; minutes",
    "release": "clip, flip, coins, packing, masks: nanoseconds a coordinate",
    "accounting": "epsilon of cohorts up to a million, and the search for a clip",
    "round": "steps of local training, and clients that train alike",
    "cohort": "secure sums and measured rounds of many clients in one process",
    "start": "what commands and a Flower client's process take before they work",
}
"""What `all` is made of."""

HELP = """\
Measure on this machine, here and now, what the parts cost: beside what one would take instead, in turn in one
process on one thread, and beside what the machine can do at most. Times are CPU time, medians of some tries;
ratios hold on a busy machine, seconds do not.
"""


def add_to(commands: Commands) -> None:
    parser = add_command(commands, "bench", "measure what the parts cost, beside others'", HELP)
    subjects = parser.add_subparsers(required=True, metavar="SUBJECT")
    everything = {**SUBJECTS, "all": "all of these, each in a process of its own"}
    for name, summary in everything.items():
        if name == "secure-sum":  # it explains its own options, these among them
            subject = subjects.add_parser(name, help=summary, add_help=False)
            subject.set_defaults(command=_secure_sum, takes_rest=True)
            continue
        subject = subjects.add_parser(name, help=summary, description=HELP)
        subject.add_argument("--out", type=Path, metavar="DIR", help="write bench.json and bench.md there")
        subject.add_argument("--compare", type=Path, metavar="OLD.json", help="say what changed since then")
        subject.add_argument(
            "--tries", type=int, default=5, metavar="N", help="of each figure, fewer of slow ones (default 5)"
        )
        subject.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
        subject.set_defaults(command=_bench, subject=name)


def _secure_sum(options: argparse.Namespace, command: str) -> int:
    from prism_crypto.bench.secure_sum import main as bench

    return bench(options.rest)


def _bench(options: argparse.Namespace, command: str) -> int:
    from prism_crypto.bench.rows import read, tell

    if options.tries < 1:
        raise ConfigError(f"--tries must be at least 1, got {options.tries}")
    try:
        old = None if options.compare is None else read(options.compare)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    tell(_all(options) if options.subject == "all" else _one(options), options.out, old)
    return 0


def _one(options: argparse.Namespace) -> Bench:
    import time
    from importlib import import_module

    from prism_crypto.bench.rows import Bench, peak_mib
    from prism_secure.bench.limits import machine
    from prism_secure.rounds.threads import one_thread

    began = time.perf_counter()
    name = options.subject
    module = import_module(f"prism_secure.bench.{'rounds' if name == 'round' else name}")
    with one_thread():
        known = machine()
        rows = list(module.rows(options.tries, quick=options.quick))
    return Bench(known, {name: rows}, {name: peak_mib()}, {name: time.perf_counter() - began})


def _all(options: argparse.Namespace) -> Bench:
    """Each subject in a process of its own, so that its peak of memory is its own."""
    from prism_crypto.bench.rows import Bench, read

    whole = Bench({}, {}, {}, {})
    for subject in SUBJECTS:
        print(f"measuring {subject}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            given = ["bench", subject, "--out", folder, "--tries", str(options.tries)]
            call = [sys.executable, "-m", "prism_secure.cli", *given, *["--quick"] * options.quick]
            if subject == "secure-sum" and options.out is not None:
                options.out.mkdir(parents=True, exist_ok=True)
                call += ["--plot", str(options.out / "secure-sum.png")]
            subprocess.run(call, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
            part = read(Path(folder) / "bench.json")
        whole.machine.update(part.machine)
        whole.rows.update(part.rows)
        whole.peak_mib.update(part.peak_mib)
        whole.seconds.update(part.seconds)
    return whole
