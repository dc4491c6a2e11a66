"""Experiment trackers, as listeners of a run: TensorBoard, Weights & Biases, MLflow, and one's own.

    with tracker("tensorboard", out, config) as listener:
        run(config, out, listener=listener)

A tracker is a function (run folder, settings) that gives a context manager: opened when a run starts, closed
when it ends. What it yields is called when a round and its metrics are complete, with the round's number and
one value a name: metrics, epsilon to date, bytes, seconds. An epsilon that is inf has no place on an axis,
and comes as the word "inf".
The three here are written so, and `--track mine:lines` takes another, say

    @contextmanager
    def lines(folder, settings):
        with open(folder / "lines.jsonl", "a") as file:
            yield lambda number, values: print(json.dumps({"round": number} | values), file=file, flush=True)

A run folder holds everything without them; this is for those who watch many runs in a place they know. A
tracker may carry far what it is told. So its settings hold no path, and its values no metric on held-out
images that are private (`metrics.held_out`), because no epsilon covers those: the run folder has them. What
the three pick up by themselves is switched off, too: what the terminal shows (those metrics, again), the
command line, the names of user, machine, script and git repository. Packages are imported when asked for.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from prism_secure.config import Config, settings_to_show
from prism_secure.config.plugged import is_reference, plugged
from prism_secure.errors import ConfigError
from prism_secure.reporting.progress import Listener, Silent
from prism_secure.run_folder.records import RoundRecord

Values: TypeAlias = dict[str, float | str]
Log: TypeAlias = Callable[[int, Values], Any]
Tracker: TypeAlias = Callable[[Path, Mapping[str, Any]], AbstractContextManager[Log]]

_NOBODY = {"mlflow.user": "prism-secure", "mlflow.source.name": "prism-secure"}
"""In place of what MLflow would tell: the user's name, and the path of the script."""


def values(record: RoundRecord, config: Config) -> Values:
    """What a round is drawn by: finite numbers, "inf" for an epsilon; no metrics of rounds without any."""
    epsilons = {
        "epsilon/sum": record.epsilon.sum_zero_out,
        "epsilon/upload": record.epsilon.upload_zero_out,
        f"epsilon/{config.record}": None if record.record is None else record.record.epsilon,
        f"epsilon/{config.record}_upload": None if record.record is None else record.record.upload,
    }
    found: dict[str, float | None] = {
        "wire/bits_per_parameter": record.bits_per_parameter,
        "wire/uplink_bytes": record.uplink_bytes,
        "round/seconds": record.seconds,
        "round/lambda": record.step,
        "round/server_loss": record.server_loss,
    }
    if record.quality is not None and not config.private_metrics:
        measured = msgspec.structs.asdict(record.quality)
        found |= {f"quality/{name}": x for name, x in measured.items() if not isinstance(x, str)}
    drawn = {name: float(x) for name, x in (epsilons | found).items() if x is not None and math.isfinite(x)}
    unbounded = {name: "inf" for name, x in epsilons.items() if x is not None and not math.isfinite(x)}
    return drawn | unbounded  # an epsilon that is left out would be taken for small


def _numbers(found: Values) -> dict[str, float]:
    return {name: x for name, x in found.items() if not isinstance(x, str)}


def _words(found: Values) -> dict[str, str]:
    return {name: x for name, x in found.items() if isinstance(x, str)}


@contextmanager
def _tensorboard(out: Path, settings: Mapping[str, Any]) -> Iterator[Log]:
    """Event files in `out`/tensorboard."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(out / "tensorboard")) as writer:

        def log(number: int, found: Values) -> None:
            for name, value in found.items():
                (writer.add_text if isinstance(value, str) else writer.add_scalar)(name, value, number)

        yield log


@contextmanager
def _wandb(out: Path, settings: Mapping[str, Any]) -> Iterator[Log]:
    """A run in the project that WANDB_PROJECT names, or "prism-secure"."""
    import wandb

    quiet = wandb.Settings(
        root_dir=str(out), console="off", host="", program="", save_code=False, disable_git=True,
        disable_job_creation=True, x_disable_meta=True, x_disable_machine_info=True, x_disable_stats=True,
    )  # fmt: skip
    project = os.environ.get("WANDB_PROJECT", "prism-secure")
    with wandb.init(project=project, name=out.name, settings=quiet, config=dict(settings)) as run:

        def log(number: int, found: Values) -> None:
            run.log(_numbers(found), step=number)
            run.summary.update(_words(found))

        yield log


@contextmanager
def _mlflow(out: Path, settings: Mapping[str, Any]) -> Iterator[Log]:
    """A run in the experiment that MLFLOW_EXPERIMENT_NAME names, or "prism-secure"."""
    import mlflow

    mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "prism-secure"))
    with mlflow.start_run(run_name=out.name, tags=_NOBODY):
        mlflow.log_params(dict(settings))

        def log(number: int, found: Values) -> None:
            mlflow.log_metrics(_numbers(found), step=number)
            mlflow.set_tags(_words(found))

        yield log


_OURS: dict[str, tuple[str, Tracker]] = {
    "tensorboard": ("torch.utils.tensorboard", _tensorboard),
    "wandb": ("wandb", _wandb),
    "mlflow": ("mlflow", _mlflow),
}
KINDS = tuple(_OURS)


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


class _Tracked(Silent):
    """A tracker as a listener: it is opened when the run starts, so a run that is refused opens nothing."""

    def __init__(self, kind: str, out: Path, config: Config, stack: ExitStack) -> None:
        self._kind, self._out, self._config, self._stack = kind, out, config, stack
        self._open = _found(kind)

    def started(self, rounds: int, finished: int, work: int) -> None:
        sections = settings_to_show(self._config).items()
        settings = {f"{section}.{key}": value for section, keys in sections for key, value in keys.items()}
        try:
            self._log = self._stack.enter_context(self._open(self._out, settings))
        except Exception as error:  # each package has errors of its own; said before the run charges anything
            raise ConfigError(f"--track {self._kind} cannot start: {error}") from error

    def round_finished(self, record: RoundRecord) -> None:
        self._log(record.round, values(record, self._config))


@contextmanager
def tracker(kind: str, out: Path, config: Config) -> Iterator[Listener]:
    """The listener of one tracker, opened when the run starts and closed in the end.

    Args:
        kind: one of `KINDS`, or "module:function" of a tracker of one's own.
        out: the run folder.

    Raises:
        ConfigError: no such tracker, or its package is not installed; in `started`: it cannot start.
    """
    with ExitStack() as stack:
        yield _Tracked(kind, out, config, stack)


def _found(kind: str) -> Tracker:
    if is_reference(kind):
        return plugged(kind, "--track")
    if kind not in _OURS:
        raise ConfigError(f"--track takes {', '.join(KINDS)} or module:function, got {kind!r}")
    package, opener = _OURS[kind]
    try:
        importlib.import_module(package)
    except ImportError:
        raise ConfigError(f"--track {kind} needs a package: pip install {kind}") from None
    return opener
