"""Experiment trackers, as listeners of a run: TensorBoard, Weights & Biases, MLflow.

    with tracker("tensorboard", out, config) as listener:
        run(config, out, listener=listener)

A run folder holds everything without them; this is for those who watch many runs in a place they know. Each
sends one number a name a round: metrics, epsilon to date, bytes, seconds. The packages are imported when
asked for. No epsilon covers metrics on private held-out images, and a tracker may carry them far.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from prism_secure.config import Config
from prism_secure.errors import ConfigError
from prism_secure.progress import Listener, Silent
from prism_secure.records import RoundRecord

Kind = Literal["tensorboard", "wandb", "mlflow"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def numbers(record: RoundRecord) -> dict[str, float]:
    """What a round is drawn by: names and finite numbers.

    An epsilon that is inf has no place on an axis and is left out, as are metrics of rounds without any.
    """
    found: dict[str, float | None] = {
        "epsilon/sum": record.epsilon.sum_zero_out,
        "epsilon/upload": record.epsilon.upload_zero_out,
        "epsilon/image": None if record.record is None else record.record.epsilon,
        "wire/bits_per_parameter": record.bits_per_parameter,
        "wire/uplink_bytes": record.uplink_bytes,
        "round/seconds": record.seconds,
        "round/step": record.step,
    }
    if record.quality is not None:
        found |= {f"quality/{name}": x for name, x in msgspec.structs.asdict(record.quality).items()}
    return {name: float(x) for name, x in found.items() if x is not None and math.isfinite(x)}


class Together(Silent):
    """Several listeners as one, told in turn."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners

    def started(self, rounds: int, finished: int, work: int) -> None:
        for listener in self._listeners:
            listener.started(rounds, finished, work)

    def note(self, text: str) -> None:
        for listener in self._listeners:
            listener.note(text)

    def worked(self) -> None:
        for listener in self._listeners:
            listener.worked()

    def round_finished(self, record: RoundRecord) -> None:
        for listener in self._listeners:
            listener.round_finished(record)


class TensorBoard(Silent):
    """Event files in `out`/tensorboard."""

    def __init__(self, out: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise _missing("tensorboard") from None
        self._open = lambda: SummaryWriter(str(out / "tensorboard"))
        self._writer: Any = None

    def started(self, rounds: int, finished: int, work: int) -> None:
        self._writer = self._open()

    def round_finished(self, record: RoundRecord) -> None:
        for name, value in numbers(record).items():
            self._writer.add_scalar(name, value, record.round)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class WeightsAndBiases(Silent):
    """A run in the project that WANDB_PROJECT names, or "prism-secure"."""

    def __init__(self, out: Path, config: Config) -> None:
        try:
            import wandb
        except ImportError:
            raise _missing("wandb") from None
        project = os.environ.get("WANDB_PROJECT", "prism-secure")
        self._open = lambda: wandb.init(project=project, name=out.name, dir=str(out), config=_flat(config))
        self._run: Any = None

    def started(self, rounds: int, finished: int, work: int) -> None:
        self._run = self._open()

    def round_finished(self, record: RoundRecord) -> None:
        self._run.log(numbers(record), step=record.round)

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()


class MlFlow(Silent):
    """A run in the experiment that MLFLOW_EXPERIMENT_NAME names, or "prism-secure"."""

    def __init__(self, out: Path, config: Config) -> None:
        try:
            import mlflow
        except ImportError:
            raise _missing("mlflow") from None
        self._mlflow, self._name, self._settings = mlflow, out.name, _flat(config)
        self._running = False

    def started(self, rounds: int, finished: int, work: int) -> None:
        self._mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "prism-secure"))
        self._mlflow.start_run(run_name=self._name)
        self._mlflow.log_params(self._settings)
        self._running = True

    def round_finished(self, record: RoundRecord) -> None:
        self._mlflow.log_metrics(numbers(record), step=record.round)

    def close(self) -> None:
        if self._running:
            self._mlflow.end_run()


@contextlib.contextmanager
def tracker(kind: Kind, out: Path, config: Config) -> Iterator[Listener]:
    """The listener of one tracker, opened when the run starts and closed in the end.

    Raises:
        ConfigError: its package is not installed.
    """
    made: TensorBoard | WeightsAndBiases | MlFlow
    if kind == "tensorboard":
        made = TensorBoard(out)
    elif kind == "wandb":
        made = WeightsAndBiases(out, config)
    else:
        made = MlFlow(out, config)
    with contextlib.closing(made):
        yield made


def _flat(config: Config) -> dict[str, Any]:
    """`section.key` and its value, for the tables of trackers."""
    sections: Mapping[str, Mapping[str, Any]] = msgspec.to_builtins(config)
    return {f"{section}.{key}": value for section, keys in sections.items() for key, value in keys.items()}


def _missing(package: str) -> ConfigError:
    return ConfigError(f"--track {package} needs a package: pip install {package}")
