"""A small data set of one's own, as idx files, for runs that must be quick or change their data."""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prism_crypto import SecureSumResult
from prism_secure.config import Config
from prism_secure.data import load
from prism_secure.rounds import simulation
from prism_secure.rounds.broadcast import Broadcast
from prism_secure.rounds.client import Client
from prism_secure.rounds.simulation import Bits
from prism_secure.run_folder.folder import read_records

TINY = [
    "federation.clients=3",
    "federation.workers=1",
    "federation.rounds=2",
    "federation.local_steps=2",
    "model.width=4",
    "model.latent=8",
    "model.image_size=8",
    'features.extractors=["fourier"]',
    "features.bounded=true",
    "training.variance_weight=0",
    "training.end_steps=0",
    "training.batch_size=20",
    "metrics.samples=200",
    "metrics.utility=off",
    "data.source=idx",
]
"""Settings of a run of about a second over `write_data`; the folder is still to be named."""


def write_data(folder: Path, *, swap: int | None = None, train: int = 60, test: int = 40) -> Path:
    """The first images of the bundled set; image `swap` becomes another one, of another class.

    Every class is among the first images, so the number of classes does not depend on the swap.
    """
    folder.mkdir(exist_ok=True)
    bundled = load(image_size=28)
    images = bundled.train_images[:train, 0].numpy().copy()
    labels = bundled.train_labels[:train].numpy().copy()
    if swap is not None:
        images[swap] = 255 - images[swap]
        labels[swap] = (labels[swap] + 3) % 10
    assert set(labels) == set(range(10))
    held_out = bundled.test_images[:test, 0].numpy(), bundled.test_labels[:test].numpy()
    for prefix, (pictures, names) in {"train": (images, labels), "t10k": held_out}.items():
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(_idx(pictures))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(_idx(names))
    return folder


@functools.cache
def small_images() -> Path:
    """A folder of `write_data` for tests that only read it, once a process."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    return write_data(Path(folder) / "images", train=120, test=60)


def _idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def same_secrets(finished: Path, out: Path) -> Path:
    """A run folder `out` whose clients and federation have the names and coins of a finished run."""
    for path in [*finished.glob("clients/*/coins.key"), finished / "federation.id"]:
        copy = out / path.relative_to(finished)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    return out


def outcome(out: Path) -> tuple[bytes, bytes, list[float | None]]:
    """What two runs that are the same have in common, to the byte."""
    losses = [record.server_loss for record in read_records(out)]
    model, checkpoint = out / "model.safetensors", out / "checkpoint" / "server.safetensors"
    return model.read_bytes(), checkpoint.read_bytes(), losses


def killed(run: Callable[[], object]) -> None:
    """`run` in a child of this process, which has torch loaded; it kills itself with SIGKILL."""
    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


def killed_in_round(number: int, config: Config, out: Path) -> None:
    """kill -9 of a run in `out`, when its uploads of a round are on disk and the sum is not open."""
    honest = simulation.open_securely

    def kill(config: Config, broadcast: Broadcast, bits: Sequence[Bits], **how: Any) -> SecureSumResult:
        if broadcast.round == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return honest(config, broadcast, bits, **how)

    def run() -> None:
        simulation.open_securely = kill  # in the child only
        simulation.run(config, out)

    killed(run)


def killed_while_uploading(number: int, config: Config, out: Path) -> None:
    """kill -9 of a run in `out`, when a round is charged and one client of it has answered."""
    answer = Client.answer

    def kill(client: Client, broadcast: Broadcast) -> None:
        answer(client, broadcast)
        if broadcast.round == number and client.folder.is_relative_to(out):  # no rehearsal
            os.kill(os.getpid(), signal.SIGKILL)

    def run() -> None:
        Client.answer = kill  # type: ignore[method-assign]  # in the child only
        simulation.run(config, out)

    killed(run)
