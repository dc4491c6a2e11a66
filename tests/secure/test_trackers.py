"""A tracker is told each round once, in finite numbers or "inf"; its absence is one clear line."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from prism_secure.cli import main
from prism_secure.config import load_config
from prism_secure.errors import ConfigError
from prism_secure.reporting.progress import Silent
from prism_secure.reporting.trackers import KINDS, Log, Together, tracker, values

from .fake_run import record_of

CONFIG = load_config(None, ["privacy.clip=1"])


class Fake:
    """A tracker's package that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any, Any]] = []
        self.settings: dict[str, Any] = {}
        self.words: dict[str, str] = {}
        self.closed = 0

    def log(self, values: dict[str, float], step: int) -> None:
        self.told += [(name, value, step) for name, value in values.items()]

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.told.append((name, value, step))

    def add_text(self, name: str, text: str, step: int) -> None:
        self.words[name] = text

    def __enter__(self) -> Fake:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed += 1

    @property
    def summary(self) -> dict[str, str]:
        return self.words


def _install(kind: str, monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake()
    if kind == "tensorboard":
        module = SimpleNamespace(SummaryWriter=lambda folder: fake)
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    elif kind == "wandb":

        def init(*, config: dict[str, Any], **_: Any) -> Any:
            fake.settings = config
            return fake

        monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Settings=SimpleNamespace))
    else:
        module = SimpleNamespace(
            set_experiment=lambda name: None,
            start_run=lambda run_name, tags: fake,
            log_params=fake.settings.update,
            log_metrics=fake.log,
            set_tags=fake.words.update,
        )
        monkeypatch.setitem(sys.modules, "mlflow", module)
    return fake


@pytest.mark.parametrize("kind", KINDS)
def test_each_round_is_logged_once_under_its_number(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = _install(kind, monkeypatch)
    with tracker(kind, tmp_path / "run", CONFIG) as listener:
        listener.started(2, 0, 11)
        listener.note("words")
        listener.worked()
        for number in (1, 2):
            listener.round_finished(record_of(CONFIG, number))
    assert fake.closed == 1
    assert {step for _, _, step in fake.told} == {1, 2}
    assert len(fake.told) == len({(name, step) for name, _, step in fake.told})
    fids = [value for name, value, _ in fake.told if name == "quality/fid"]
    assert fids == [record_of(CONFIG, number).quality.fid for number in (1, 2)]  # type: ignore[union-attr]
    if kind != "tensorboard":
        assert fake.settings["privacy.clip"] == 1
    assert not (tmp_path / "run").exists()  # the run folder is the run's to make


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_refused_opens_nothing(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = _install(kind, monkeypatch)
    with pytest.raises(ZeroDivisionError), tracker(kind, tmp_path, CONFIG):
        raise ZeroDivisionError
    assert (fake.told, fake.closed) == ([], 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tracker_that_cannot_start_is_one_line(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(kind, monkeypatch)

    def unreachable(*_: Any, **__: Any) -> None:
        raise LookupError("no API key")

    package = sys.modules["torch.utils.tensorboard" if kind == "tensorboard" else kind]
    first = {"tensorboard": "SummaryWriter", "wandb": "init", "mlflow": "start_run"}[kind]
    monkeypatch.setattr(package, first, unreachable)
    with (
        pytest.raises(ConfigError, match=f"--track {kind} cannot start: no API key"),
        tracker(kind, tmp_path, CONFIG) as listener,
    ):
        listener.started(2, 0, 11)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_package_is_named(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch.utils.tensorboard", "wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"pip install {kind}"), tracker(kind, tmp_path, CONFIG):
        pass


def test_only_finite_numbers_are_drawn() -> None:
    config = load_config(None, ["privacy.flip=0", "privacy.record_epsilon=inf"])
    unclipped = record_of(config, 1, evaluated=False)
    found = values(unclipped, config)
    assert {name for name, x in found.items() if isinstance(x, str)} == {"epsilon/sum", "epsilon/upload"}
    assert not any(name.startswith("quality/") for name in found)
    assert all(math.isfinite(x) for x in found.values() if not isinstance(x, str))
    assert "round/server_loss" not in found
    trained = msgspec.structs.replace(unclipped, server_loss=0.25)
    assert values(trained, config) == found | {"round/server_loss": 0.25}
    assert values(record_of(CONFIG, 3), CONFIG)["epsilon/sum"] == record_of(CONFIG, 3).epsilon.sum_zero_out


@pytest.mark.parametrize("kind", KINDS)
def test_neither_paths_nor_metrics_on_private_images_leave(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = _install(kind, monkeypatch)
    private = ["data.source=images", "data.folder=/srv/patients", "privacy.record_store=/srv/smith"]
    config = load_config(None, [*private, "metrics.held_out=private"])
    with tracker(kind, tmp_path / "run", config) as listener:
        listener.started(1, 0, 1)
        listener.round_finished(record_of(config, 1))
    assert {name.partition("/")[0] for name, _, _ in fake.told} == {"epsilon", "wire", "round"}
    assert "/srv" not in repr((fake.told, fake.settings, fake.words))
    if kind != "tensorboard":
        assert fake.settings["metrics.held_out"] == "private"


@pytest.mark.parametrize("kind", KINDS)
def test_an_infinite_epsilon_is_seen(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = _install(kind, monkeypatch)
    config = load_config(None, ["privacy.flip=0", "privacy.record_epsilon=inf"])
    with tracker(kind, tmp_path / "run", config) as listener:
        listener.started(1, 0, 1)
        listener.round_finished(record_of(config, 1))
    assert fake.words == {"epsilon/sum": "inf", "epsilon/upload": "inf"}


@pytest.mark.parametrize("kind", ["wandb", "mlflow"])
def test_what_real_trackers_keep_names_nobody(kind: str, tmp_path: Path) -> None:
    pytest.importorskip(kind)
    script = Path(__file__).with_name("track_privately.py")
    out, store = tmp_path / "run", tmp_path / "mlflow.db"
    environment = os.environ | {
        "WANDB_MODE": "offline", "MLFLOW_TRACKING_URI": f"sqlite:///{store}", "GIT_PYTHON_REFRESH": "quiet"
    }  # fmt: skip
    command = [sys.executable, str(script), kind, str(out), "--set", "data.folder=/srv/patients"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    fid = f"{record_of(CONFIG, 1).quality.fid:.1f}"  # type: ignore[union-attr]
    assert fid in done.stdout
    kept = [store] if kind == "mlflow" else [*out.glob("wandb/*/*.wandb"), *out.glob("wandb/*/files/*")]
    told = b"".join(path.read_bytes() for path in kept)
    assert b"privacy.clip" in told
    private = "alice", "ward-7", "/srv/patients", script.name, str(script.parent), fid
    assert [word for word in private if word.encode() in told] == []


def test_several_listeners_hear_the_same() -> None:
    heard: list[str] = []

    class Ear(Silent):
        def note(self, text: str) -> None:
            heard.append(text)

    Together([Ear(), Ear()]).note("once")
    assert heard == ["once", "once"]


heard: list[tuple[int, dict[str, float | str]]] = []


@contextmanager
def toy(folder: Path, settings: dict[str, Any]) -> Iterator[Log]:
    """A tracker of one's own, as `--track` takes it."""
    heard.clear()
    assert folder.name == "run"
    assert settings["privacy.clip"] == 1
    yield lambda number, found: heard.append((number, found))
    heard.append((-1, {}))


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mine", sys.modules[__name__])


def test_a_tracker_of_ones_own_is_opened_told_and_closed(importable: None, tmp_path: Path) -> None:
    with tracker("mine:toy", tmp_path / "run", CONFIG) as listener:
        listener.started(1, 0, 1)
        listener.round_finished(record_of(CONFIG, 1))
    assert heard == [(1, values(record_of(CONFIG, 1), CONFIG)), (-1, {})]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("mine:gone", "cannot be imported"),
        ("mine:heard", "must be something to call"),
        ("wandbb", "or module:"),
    ],
)
def test_a_tracker_that_is_not_there_is_refused_before_the_run(
    kind: str, told: str, importable: None, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=told), tracker(kind, tmp_path / "run", CONFIG):
        pass


def test_the_command_takes_a_tracker_of_ones_own(importable: None, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert main(["run", "--out", str(out), "--track", "wandbb"]) == 2
    assert not out.exists()
