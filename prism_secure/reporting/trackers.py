"""Experiment trackers, as listeners of a run: TensorBoard, Weights & Biases, MLflow.

    with tracker("tensorboard", out, config) as listener:
        run(config, out, listener=listener)

A run folder holds everything without them; this is for those who watch many runs in a place they know. Each
sends one number a name a round: metrics, epsilon to date, bytes, seconds. An epsilon that is inf has no place
on an axis, and goes as text under the same name. The packages are imported when asked for.

A tracker may carry far what it is told. So it is told no path, and no metric on held-out images that are
private (`metrics.held_out`), because no epsilon covers those: the run folder has them. What trackers
pick up by themselves is switched off, too: what the terminal shows (those metrics, again), the command line,
the names of user, machine, script and git repository.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from prism_secure.config import Config, settings_to_show
from prism_secure.errors import ConfigError
from prism_secure.reporting.progress import Listener, Silent
from prism_secure.run_folder.records import RoundRecord

Kind = Literal["tensorboard", "wandb", "mlflow"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_NOBODY = {"mlflow.user": "prism-secure", "mlflow.source.name": "prism-secure"}
"""In place of what MLflow would tell: the user's name, and the path of the script."""


def numbers(record: RoundRecord, config: Config) -> dict[str, float]:
    """What a round is drawn by: names and finite numbers; no metrics of rounds without any."""
    found: dict[str, float | None] = {
        **_epsilons(record),
        "wire/bits_per_parameter": record.bits_per_parameter,
        "wire/uplink_bytes": record.uplink_bytes,
        "round/seconds": record.seconds,
        "round/lambda": record.step,
    }
    if record.quality is not None and not config.private_metrics:
        found |= {f"quality/{name}": x for name, x in msgspec.structs.asdict(record.quality).items()}
    return {name: float(x) for name, x in found.items() if x is not None and math.isfinite(x)}


def unbounded(record: RoundRecord) -> dict[str, str]:
    """The names of epsilons that are inf, each with that word: what is not seen is taken for small."""
    return {name: "inf" for name, x in _epsilons(record).items() if x is not None and not math.isfinite(x)}


def _epsilons(record: RoundRecord) -> dict[str, float | None]:
    return {
        "epsilon/sum": record.epsilon.sum_zero_out,
        "epsilon/upload": record.epsilon.upload_zero_out,
        "epsilon/image": None if record.record is None else record.record.epsilon,
        "epsilon/image_upload": None if record.record is None else record.record.upload,
    }


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

    def __init__(self, out: Path, config: Config) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise _missing("tensorboard") from None
        self._config = config
        self._open: Callable[[], Any] = lambda: SummaryWriter(str(out / "tensorboard"))
        self._writer: Any = None

    def started(self, rounds: int, finished: int, work: int) -> None:
        with _starting("tensorboard"):
            self._writer = self._open()

    def round_finished(self, record: RoundRecord) -> None:
        for name, value in numbers(record, self._config).items():
            self._writer.add_scalar(name, value, record.round)
        for name, word in unbounded(record).items():
            self._writer.add_text(name, word, record.round)

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
        self._config = config
        project = os.environ.get("WANDB_PROJECT", "prism-secure")
        settings = wandb.Settings(
            root_dir=str(out), console="off", host="", program="", save_code=False, disable_git=True,
            disable_job_creation=True, x_disable_meta=True, x_disable_machine_info=True, x_disable_stats=True,
        )  # fmt: skip
        self._open: Callable[[], Any] = lambda: wandb.init(
            project=project, name=out.name, settings=settings, config=_flat(config)
        )
        self._run: Any = None

    def started(self, rounds: int, finished: int, work: int) -> None:
        with _starting("wandb"):
            self._run = self._open()

    def round_finished(self, record: RoundRecord) -> None:
        self._run.log(numbers(record, self._config), step=record.round)
        self._run.summary.update(unbounded(record))

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
        self._mlflow, self._name, self._config = mlflow, out.name, config
        self._running = False

    def started(self, rounds: int, finished: int, work: int) -> None:
        with _starting("mlflow"):
            self._mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "prism-secure"))
            self._mlflow.start_run(run_name=self._name, tags=_NOBODY)
            self._mlflow.log_params(_flat(self._config))
        self._running = True

    def round_finished(self, record: RoundRecord) -> None:
        self._mlflow.log_metrics(numbers(record, self._config), step=record.round)
        self._mlflow.set_tags(unbounded(record))

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
        made = TensorBoard(out, config)
    elif kind == "wandb":
        made = WeightsAndBiases(out, config)
    else:
        made = MlFlow(out, config)
    with contextlib.closing(made):
        yield made


@contextlib.contextmanager
def _starting(kind: Kind) -> Iterator[None]:
    """A tracker that cannot be reached or logged in to is said before the run charges anything."""
    try:
        yield
    except Exception as error:  # each package has errors of its own
        raise ConfigError(f"--track {kind} cannot start: {error}") from error


def _flat(config: Config) -> dict[str, Any]:
    """`section.key` and its value, for the tables of trackers."""
    sections = settings_to_show(config).items()
    return {f"{section}.{key}": value for section, keys in sections for key, value in keys.items()}


def _missing(package: str) -> ConfigError:
    return ConfigError(f"--track {package} needs a package: pip install {package}")
