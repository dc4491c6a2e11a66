"""What a command, and a Flower client's process, take before they work: processes of their own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from statistics import median

from prism_crypto.bench.rows import Row, in_turn

COMMANDS = ("--help", "list", "config --epsilon", "doctor")
FLOWER = "prism_secure.flower.client_app", "flwr.clientapp"
"""What a client's process imports before its first message, and the part of it that is Flower's."""


def rows(tries: int, *, quick: bool = False) -> Iterator[Row]:
    """CPU time of the whole process, beside that of one which does no more than `import torch`."""
    torch = partial(_process, "-c", "import torch")
    torch()  # its files are in memory from here on
    for command in COMMANDS[:1] if quick else COMMANDS:
        own = partial(_process, "-m", "prism_secure.cli", *command.split())
        own()
        ours, other = in_turn(tries, own, torch, least=0.0, clock=_children)
        yield Row(
            name=f"prism-secure {command}", unit="s", ours=ours, instead="`import torch` alone", other=other
        )
    if importlib.util.find_spec("flwr") is not None:
        own, least = (partial(_process, "-c", f"import {module}") for module in FLOWER)
        own()
        ours, limits = in_turn(tries, own, least, least=0.0, clock=_children)
        yield Row(
            name="start of a Flower client's process", unit="s", ours=ours, bound="Flower's own import",
            limit=median(limits),
        )  # fmt: skip


def _children() -> float:
    """CPU seconds of all processes that this one has started and seen end."""
    taken = os.times()
    return taken.children_user + taken.children_system


def _process(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)  # noqa: S603
