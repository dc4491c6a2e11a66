"""`prism-secure audit one-run`: a lower bound on epsilon from canaries in one run of measured rounds."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from prism_secure.commands.first_checks import require_run
from prism_secure.commands.parsing import Commands, add_command
from prism_secure.errors import ConfigError

HELP = """\
Send canaries through all rounds that a run with measured rounds has made, with its settings: every second
client is a canary, with images of its own or none, and the others hold canary images (or persons, of several
images), each itself or its opposite, by fair coins. Whoever sees the opened sums guesses the coins; how many
guesses are right bounds epsilon from below, with confidence 95% for each unit (Steinke, Nasr and Jagielski
2023).

Canaries are made up, and no image of the run's data is read or released. one-run.json is written into the run
folder, and the run's report shows the bound beside epsilon. A bound far below epsilon is what to expect, and
says nothing for the claim or against it; one above it refutes the claim.
"""

EXAMPLES = """\
examples:
  prism-secure audit one-run runs/measured
  prism-secure audit one-run runs/measured --seed 1     other canaries, other coins

exit codes: 0 the claims stand, 1 one of them is refuted, 2 could not check
"""


def add_to(commands: Commands) -> None:
    parser = add_command(
        commands, "one-run", "measured rounds: a lower bound on epsilon from canaries", HELP, EXAMPLES
    )
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="a run folder, finished or not")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of canaries and coins, from 0 on (default 0)"
    )
    parser.add_argument(
        "--images", type=int, default=500, metavar="M",
        help="canary images (or persons) over all clients, about (default 500); a client's share its clip",
    )  # fmt: skip
    parser.set_defaults(command=_one_run)


def _one_run(options: argparse.Namespace, command: str) -> int:
    require_run(options.run, error=ConfigError)  # exit code 2: could not check
    for name, least in (("seed", 0), ("images", 1)):
        if getattr(options, name) < least:
            raise ConfigError(f"--{name} must be at least {least}, got {getattr(options, name)}")
    from prism_secure.audit.one_run import audit_one_run
    from prism_secure.wording import format_delta, format_epsilon, format_floor

    terminal = sys.stderr.isatty()

    def told(number: int, rounds: int) -> None:
        start, end = ("\r", "" if number < rounds else "\n") if terminal else ("", "\n")
        print(f"{start}{number} of {rounds} rounds played", end=end, file=sys.stderr, flush=True)

    found = audit_one_run(options.run, images=options.images, seed=options.seed, told=told)
    for each in found.found:
        print(
            f"{'REFUTED' if each.refuted else 'ok':>9}  {each.unit}, {each.adjacency}: epsilon >= "
            f"{format_floor(each.epsilon)} at delta = {format_delta(found.delta)}, claimed "
            f"{format_epsilon(each.claimed)}; {each.right} of {each.guesses} guesses about {each.canaries} "
            "canaries were right"
        )
    return 1 if found.refuted else 0
