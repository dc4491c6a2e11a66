"""`prism-secure bench`: what the parts cost, beside others'."""

from __future__ import annotations

import argparse

from prism_secure.commands.parsing import Commands, add_command


def add_to(commands: Commands) -> None:
    parser = add_command(commands, "bench", "measure what the parts cost, beside others'")
    secure_sum = parser.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "secure-sum",
        help="the secure sum, beside Flower's SecAgg+ where flwr is installed",
        add_help=False,  # the benchmark explains its own options
    )
    secure_sum.set_defaults(command=_secure_sum, takes_rest=True)


def _secure_sum(options: argparse.Namespace, command: str) -> int:
    from prism_crypto.bench.secure_sum import main as bench

    return bench(options.rest)
