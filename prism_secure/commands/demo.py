"""`prism-secure demo`: the page of a real sweep and a model that generates, without training."""

from __future__ import annotations

import argparse
import io
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from prism_secure.commands.first_checks import require_writable
from prism_secure.commands.parsing import Commands, add_command
from prism_secure.errors import ConfigError, DataError, pip_install

HELP = """\
What an epsilon for a client costs in quality, in thirty seconds and without training: the page of a sweep
that was run before, and images from three of its models. The sweep has a thousand clients of ten images, six
values of epsilon and 13 runs (experiments/frontier). They are unpacked into the folder as they were, less the
secrets, and every other command reads them.
"""

BUNDLE = Path(__file__).parents[1] / "assets" / "frontier.zip"
SHA256 = "e6dfd2643bae340b1fb15d1d3e1e3f8e7ced659bb158aa33bfa472986b5991c2"
SHOWN = "e2-s0"
"""The run whose images are drawn: epsilon = 2, the default's, and the first seed."""


def add_to(commands: Commands) -> None:
    parser = add_command(commands, "demo", "a real sweep's page and its models, without training", HELP)
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="default: demo")
    parser.set_defaults(command=_demo)


def _demo(options: argparse.Namespace, command: str) -> int:
    out: Path = options.out
    require_writable(out, ConfigError)
    if out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"{out} holds files already: name a new or an empty folder with --out")
    _unpack(out)
    runs = sorted((out / "runs").iterdir())
    for run in runs:
        if (run / "model.safetensors").exists():
            _draw(run)
    print(f"Images: {_last_samples(out / 'runs' / SHOWN)}, from a mask of one bit a weight at epsilon = 2")
    print(f"Page: {_page(out, runs, command)}")
    for line in _next(out):
        print(line)
    return 0


def _unpack(out: Path) -> None:
    from prism_secure.data.pinned import read_pinned
    from prism_secure.storage import as_storage_error, make_folder

    bundle = read_pinned(BUNDLE, SHA256, DataError, "reinstall prism-secure")
    make_folder(out)
    with as_storage_error(out), zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        archive.extractall(out)


def _draw(run: Path) -> None:
    """Ten images a class, where a run keeps those of its last round."""
    from prism_secure.data.bundled import CLASSES
    from prism_secure.model.model_file import read_model
    from prism_secure.quality.samples import encode_png, sample_grid
    from prism_secure.run_folder.folder import read_records
    from prism_secure.storage import make_folder, write_atomic

    images, labels = read_model(run / "model.safetensors").generate(10 * len(CLASSES), seed=0)
    assert labels is not None  # it is class-conditional
    make_folder(run / "samples")
    grid = sample_grid(images.numpy(), labels.numpy(), names=CLASSES)
    last = read_records(run)[-1].round
    write_atomic(run / "samples" / f"round-{last:04d}.png", encode_png(grid))


def _last_samples(run: Path) -> Path:
    return max((run / "samples").glob("round-*.png"))


def _page(out: Path, runs: list[Path], command: str) -> str:
    """The path of the page, or what it needs: `prism-secure run` needs neither package."""
    if None in (find_spec("plotly"), find_spec("pyarrow")):
        return f"needs plotly and pyarrow: {pip_install('sweep')}; then the same command in another folder"
    from prism_secure.run_folder.run import Run
    from prism_secure.sweep.report import subject_of_runs, write_page

    return str(write_page(subject_of_runs([Run.open(run) for run in runs], command), out))


def _next(out: Path) -> Iterator[str]:
    run = out / "runs" / SHOWN
    yield "\nThe same figures as a table; what epsilon = 2 leaves to an attacker, by its ledger; a data set:"
    yield f"  prism-secure compare {out}/runs/*"
    yield f"  prism-secure report --disclosure {run}"
    yield f"  prism-secure generate --model {run} --count 60000 --out {out}/fashion.npz"
    yield "One of your own, in four minutes on two cores; a sweep of your own:"
    yield "  prism-secure run --out runs/first"
    yield "  prism-secure init --help"
