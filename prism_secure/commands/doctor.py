"""`prism-secure doctor`: what is installed, what works here, and how to get the rest."""

from __future__ import annotations

import argparse
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from prism_secure.commands.looks import Finding, tried, tried_elsewhere
from prism_secure.commands.parsing import Commands, add_command
from prism_secure.errors import pip_install

HELP = """\
Say what is installed, try what every run needs, and name what is missing with the command that brings it.
Ends with exit code 0 unless something that every run needs is broken.
"""

EXTRAS = {
    "sweep": (("optuna", "plotly", "pyarrow"), "sweeps and their pages"),
    "parquet": (("pyarrow",), "generated data sets as parquet files"),
    "dashboard": (("optuna-dashboard",), "a live page of a sweep"),
    "postgresql": (("psycopg",), "sweeps on many machines"),
    "dp-sgd": (("opacus",), "DP-SGD on scores"),
    "flower": (("flwr",), "clients on other machines"),
    "onnx": (("onnx", "onnxscript"), "export of models as ONNX"),
}
"""What each extra brings, and what for."""

ROOM = 1_000_000_000
"""Bytes of free disk below which a run may not fit."""


def add_to(commands: Commands) -> None:
    parser = add_command(commands, "doctor", "what is installed, what works, how to get the rest", HELP)
    parser.set_defaults(command=_doctor)


def _doctor(options: argparse.Namespace, command: str) -> int:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    styles = {"ok": "green", "missing": "yellow", "broken": "red bold"}
    broken = 0
    for finding in findings():
        broken += finding.level == "broken"
        line = Text(f"{finding.level:<8}", style=styles[finding.level])
        console.print(line.append(f"{finding.name:<22} {finding.text}", style="default"), soft_wrap=True)
    things = "1 thing that runs need is" if broken == 1 else f"{broken} things that runs need are"
    console.print(f"{things} broken." if broken else "Everything that a run needs works.")
    return 1 if broken else 0


def findings() -> Iterator[Finding]:
    """Everything that is looked at, one after the other."""
    yield Finding("ok", "python", f"{platform.python_version()} ({platform.python_implementation()})")
    yield Finding("ok", "prism-secure", _version("prism-secure") or "not installed, but importable")
    yield from tried_elsewhere()
    for extra, (packages, purpose) in EXTRAS.items():
        versions = {package: _version(package) for package in packages}
        absent = [package for package, version in versions.items() if version is None]
        if absent:
            text = f"{purpose}: {', '.join(absent)} missing; {pip_install(extra)}"
            yield Finding("missing", f"extra: {extra}", text)
        else:
            found = ", ".join(f"{package} {version}" for package, version in versions.items())
            yield Finding("ok", f"extra: {extra}", f"{purpose}: {found}")
    yield tried("this folder", _disk)


def _disk() -> str:
    import fcntl

    free = shutil.disk_usage(Path.cwd()).free
    with tempfile.NamedTemporaryFile(dir=Path.cwd(), prefix=".prism-secure-") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if free < ROOM:
        raise OSError(
            f"{free / 1e9:.1f} GB free; a run of a thousand clients needs about 0.2 GB, a sweep more"
        )
    return f"can be written and locked, {free / 1e9:,.0f} GB free"


def _version(name: str) -> str | None:
    import importlib.metadata  # here, and not where every `--help` waits for it

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
