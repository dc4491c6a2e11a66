"""`prism-secure doctor`: what is installed, what works here, and how to get the rest."""

from __future__ import annotations

import argparse
import gc
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from prism_secure.commands.parsing import Commands, add_command
from prism_secure.errors import PrismError, pip_install

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


class Finding(NamedTuple):
    """One line. `level`: "ok"; "missing": only some features need it; "broken": every run does."""

    level: str
    name: str
    text: str


_FINDINGS = msgspec.json.Decoder(Finding)


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
    yield from _tried_elsewhere()
    yield _tried("secure sum", _secure_sum)
    yield _tried("accountant", _accountant)
    yield _tried("bundled images", _bundled)
    yield _tried("report", _report)
    for extra, (packages, purpose) in EXTRAS.items():
        versions = {package: _version(package) for package in packages}
        absent = [package for package, version in versions.items() if version is None]
        if absent:
            text = f"{purpose}: {', '.join(absent)} missing; {pip_install(extra)}"
            yield Finding("missing", f"extra: {extra}", text)
        else:
            found = ", ".join(f"{package} {version}" for package, version in versions.items())
            yield Finding("ok", f"extra: {extra}", f"{purpose}: {found}")
    yield _tried("this folder", _disk)


def _looks() -> tuple[tuple[str, Callable[[], str], bool], ...]:
    """What needs torch: its name, the look, and whether every run needs it."""
    return (
        ("torch", _torch, True),
        ("graphics card", _cuda, True),
        ("features", _features, True),
        ("features: vgg19_bn", _vgg, False),
        ("metrics: inception_v3", _inception, False),
        ("metrics: inception_fid", _inception_fid, False),
    )


def _tried_elsewhere() -> Iterator[Finding]:
    """In a process of its own: a library that was cut short, or is for other processors, kills it."""
    code = "import sys; sys.path[:] = sys.argv[1:]; from prism_secure.commands.doctor import tell; tell()"
    done = subprocess.run(  # noqa: S603 - this Python, and our own code
        [sys.executable, "-c", code, *sys.path], stdout=subprocess.PIPE, check=False
    )
    found = [_FINDINGS.decode(line) for line in done.stdout.splitlines()]
    yield from found
    for name, _, _ in _looks()[len(found) :][:1]:
        how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"code {done.returncode}"
        text = f"killed the process that tried it ({how}): install torch for this machine, or free memory"
        yield Finding("broken", name, text)


def tell() -> None:
    """Look, print each finding as a line of JSON, and end the process."""
    lines = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever else is printed by what is loaded, by its C code, too
    gc.disable()  # a tenth of what torch's import takes
    for look in _looks():
        lines.write(msgspec.json.encode(_tried(*look)) + b"\n")
    os._exit(0)  # half of a torch can kill it even at its end


def _tried(name: str, look: Callable[[], str], needed: bool = True) -> Finding:
    try:
        return Finding("ok", name, look())
    except PrismError as error:
        return Finding("broken" if needed else "missing", name, str(error))
    except Exception as error:  # whatever it is, the other lines are worth reading
        return Finding("broken" if needed else "missing", name, f"{type(error).__name__}: {error}")


def _torch() -> str:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.linalg.cholesky(torch.eye(3))
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{torch.__version__}, {torch.get_num_threads()} threads, {cores} cores ({capability})"


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none; none is needed"
    return ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def _secure_sum() -> str:
    import numpy as np

    from prism_crypto import secure_sum

    result = secure_sum([np.array(bits) for bits in ([0, 1], [1, 1], [1, 1])])
    if list(result.counts) != [2, 3]:
        raise ArithmeticError(f"0+1+1, 1+1+1 came out as {list(result.counts)}")
    return "opens the right sum"


def _accountant() -> str:
    from prism_privacy import Accountant, Adjacency, MaskRelease, View

    accountant = Accountant(delta=1e-5)
    accountant.spend(MaskRelease(flip=0.25, clip=1.0, cohort=1000), rounds=100)
    epsilon = accountant.epsilon(View.SUM, Adjacency.ZERO_OUT)
    if not 3.0 < epsilon < 3.6:
        raise ArithmeticError(f"the example of the README came out as {epsilon}")
    return f"100 rounds of the README's example cost ε = {epsilon:.2f}"


def _bundled() -> str:
    from prism_secure.data.bundled import packed  # which loads lzma, too: some builds of Python lack it

    packed()
    return "fashion_mnist_12k: 10,000 images, 2,000 held out"


def _features() -> str:
    from prism_secure.data.features import EfficientNetLite0

    EfficientNetLite0(image_size=32)
    return "efficientnet_lite0, of metrics too, and fourier"


def _vgg() -> str:
    from prism_secure.data.features import Vgg19Bn

    Vgg19Bn(image_size=32)
    return "weights found"


def _inception() -> str:
    from prism_secure.quality.networks import metric_features

    metric_features("inception_v3")
    return "weights found"


def _inception_fid() -> str:
    from prism_secure.quality.networks import metric_features

    metric_features("inception_fid")
    return "FID's own weights found"


def _report() -> str:
    import jinja2
    import matplotlib

    return f"matplotlib {matplotlib.__version__}, jinja2 {jinja2.__version__}; no browser is needed"


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
