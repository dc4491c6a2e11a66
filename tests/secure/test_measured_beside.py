"""A round is measured while the next one goes on: the same figures, and no kill loses or repeats any."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

import msgspec
import pytest
from torch import Tensor

from prism_privacy import verify_ledger
from prism_secure.config import Config, load_config
from prism_secure.errors import FeatureError
from prism_secure.quality.metrics import Evaluator, RealFeatures
from prism_secure.reporting.progress import Silent
from prism_secure.reporting.report import write_report
from prism_secure.rounds import assembly, simulation, workers
from prism_secure.rounds.components import Components
from prism_secure.rounds.evaluation import Evaluation
from prism_secure.rounds.server import Server
from prism_secure.rounds.simulation import run
from prism_secure.run_folder.folder import RunFolder, read_records
from prism_secure.run_folder.records import RoundRecord

from .tiny_data import TINY, killed, killed_in_round, same_secrets, small_images

SETTINGS = [*TINY, "privacy.record_epsilon=inf", "training.learning_rate=0.3", "aggregation.lambda_end=1"]


def tiny(*overrides: str) -> Config:
    return load_config(None, [*SETTINGS, f"data.folder={small_images()}", *overrides])


BESIDE = "federation.workers=2"


@pytest.fixture(autouse=True)
def quick(forked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "check_components", lambda _: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process, which waits for each round's metrics."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulation, "check_components", lambda _: None)
        run(tiny(), folder)
    one, two = read_records(folder)
    assert one.quality != two.quality
    return folder


def outcome(folder: Path) -> dict[str, object]:
    """What two runs with the same secrets have in common, to the byte; times are left out."""
    names = ["model.safetensors", "checkpoint/server.safetensors", "ledger.jsonl", "DONE"]
    kept: dict[str, object] = {name: (folder / name).read_bytes() for name in names}
    grids = {path.name: path.read_bytes() for path in (folder / "samples").iterdir()}
    timeless = [
        msgspec.structs.replace(record, seconds=0, secure_sum_seconds=0) for record in read_records(folder)
    ]
    return kept | {"samples": grids, "metrics.jsonl": timeless}


def again(finished: Path, out: Path) -> Path:
    """A folder for a run with the secrets of a finished one."""
    same_secrets(finished, out)
    shutil.copy2(finished / "ledger.key", out)
    return out


class Told(Silent):
    """Remembers what it is told of rounds, and how many pieces of work were done by then."""

    def __init__(self) -> None:
        self.rounds: list[RoundRecord] = []
        self.work: list[int] = []
        self._work = 0

    def worked(self) -> None:
        self._work += 1

    def round_finished(self, record: RoundRecord) -> None:
        self.rounds.append(record)
        self.work.append(self._work)


WORK = 4
"""Pieces of work in a round of three clients."""


@pytest.mark.parametrize(
    ("count", "when"), [("federation.workers=1", [1, 2]), (BESIDE, [2, 2])], ids=["waited for", "beside"]
)
def test_each_round_is_told_with_its_metrics_in_order_and_at_most_one_is_unmeasured(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: str, when: list[int]
) -> None:
    keep, kept = RunFolder.keep, []

    def noted(folder: RunFolder, record: RoundRecord) -> None:
        keep(folder, record)
        kept.append([each.quality is not None for each in read_records(folder.path)])

    monkeypatch.setattr(RunFolder, "keep", noted)
    told, folder = Told(), again(finished, tmp_path / "run")
    run(tiny(count), folder, listener=told)
    assert told.rounds == read_records(folder)
    assert told.work == [WORK * number for number in when]
    assert kept == [[False], [True], [True, False], [True, True]]
    assert outcome(folder) == outcome(finished)


def test_seconds_that_metrics_are_waited_for_are_the_round_s(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, _ = read_records(finished)
    clock = iter([10.0, 13.0])
    monkeypatch.setattr(assembly.time, "perf_counter", lambda: next(clock))
    told = assembly.with_metrics(
        msgspec.structs.replace(record, quality=None, seconds=4.0), lambda: record.quality
    )
    assert told == msgspec.structs.replace(record, seconds=7.0)


def test_the_next_round_opens_while_the_last_one_is_measured(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, folder = Evaluation.measured, again(finished, tmp_path / "run")

    def patient(*given: object, **how: object) -> object:
        deadline = time.monotonic() + 30
        while (folder / "checkpoint" / "uploading").read_text() != "2\n" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.monotonic() < deadline, "the next round waits"
        return measured(*given, **how)

    monkeypatch.setattr(Evaluation, "measured", patient)  # workers fork from here
    run(tiny(BESIDE), folder)
    assert outcome(folder) == outcome(finished)


def test_real_images_are_looked_at_once_whichever_worker_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    components, looked, look = Components(tiny(BESIDE)), [], Evaluator._real_of

    class Pool:
        """Another worker for every job."""

        def __init__(self, *_: object, **__: object) -> None: ...

        def submit(self, job: Callable[..., object], *arguments: object) -> Future[object]:
            monkeypatch.setattr(workers, "_worker", workers._Worker(components, tmp_path))
            done = Future[object]()
            done.set_result(job(*arguments))
            return done

        def shutdown(self, **_: object) -> None: ...

    def noted(self: Evaluator, *images: Tensor | None) -> RealFeatures:
        looked.append(images)
        return look(self, *images)

    monkeypatch.setattr(workers, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(Evaluator, "_real_of", noted)
    mask = Server.of(components, "f").deployed()
    with workers.Workers(components, tmp_path) as pool:
        one, two, three = (pool.evaluate(mask, tmp_path / "round-0001.png")() for _ in range(3))
    assert one == two == three
    assert len(looked) == 1


def test_who_may_stop_the_run_is_asked_when_the_last_round_is_measured(
    finished: Path, tmp_path: Path
) -> None:
    asked, told, folder = [], Told(), again(finished, tmp_path / "run")

    def stop(records: Sequence[RoundRecord]) -> str | None:
        asked.append(list(records))
        return "enough" if records and records[-1].quality else None

    run(tiny(BESIDE), folder, listener=told, stop=stop)
    assert asked == [[], told.rounds]
    assert len(verify_ledger(folder / "ledger.jsonl").entries) == 2  # round 1, and the end
    assert (folder / "DONE").read_text() == "1 of 2 rounds: enough\n"


def _killed(config: Config, folder: Path, at: str, number: int) -> None:
    """kill -9 when a round's record is kept, its checkpoint is there, it is measured, or its record is
    replaced by the one with metrics."""
    keep, save = RunFolder.keep, Server.save

    def kill_if(here: bool) -> None:
        if here:
            os.kill(os.getpid(), signal.SIGKILL)

    def keeping(run_folder: RunFolder, record: RoundRecord) -> None:
        point = "recorded" if record.quality is None else "replaced"
        kill_if((at, number, "replaced") == ("measured", record.round, point))
        keep(run_folder, record)
        kill_if((at, number) == (point, record.round))

    def saving(server: Server, path: Path) -> None:
        save(server, path)
        kill_if((at, number) == ("saved", server.round))

    def in_child() -> None:
        RunFolder.keep, Server.save = keeping, saving  # type: ignore[method-assign]
        run(config, folder)

    killed(in_child)
    _let_go(folder)


def _let_go(folder: Path) -> None:
    """Wait for the workers of a run that was killed: forked, they hold its lock for as long as they live."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


EVERYWHERE = [(at, number) for number in (1, 2) for at in ("recorded", "saved", "measured", "replaced")]


@pytest.mark.parametrize(
    ("count", "points"),
    [
        (BESIDE, EVERYWHERE),
        (BESIDE, [("measured", 1)]),  # beside round 2, and not by a run that continues
        ("federation.workers=1", [("measured", 1), ("recorded", 2)]),
    ],
)
def test_killed_anywhere_it_ends_as_if_it_was_not(
    finished: Path, tmp_path: Path, count: str, points: list[tuple[str, int]]
) -> None:
    folder = again(finished, tmp_path / "run")
    for at, number in points:
        _killed(tiny(count), folder, at, number)
        measured = [record.quality is not None for record in read_records(folder)]
        assert measured == [True] * (number - 1) + [at == "replaced"]
        write_report(folder)
    told = Told()
    run(tiny(count), folder, listener=told)
    assert outcome(folder) == outcome(finished)
    assert told.rounds == read_records(folder)[2 - len(told.rounds) :]


def test_killed_in_the_next_round_it_is_measured_and_told_once(finished: Path, tmp_path: Path) -> None:
    told, folder = Told(), again(finished, tmp_path / "run")
    killed_in_round(2, tiny(BESIDE), folder)
    _let_go(folder)
    assert [record.quality for record in read_records(folder)] == [None]
    run(tiny(BESIDE), folder, listener=told)
    assert told.rounds == read_records(folder)
    assert told.work == [0, WORK]
    assert outcome(folder) == outcome(finished)


@pytest.mark.parametrize(
    ("count", "at", "charged"),
    [("federation.workers=1", "", 1), (BESIDE, "", 2), (BESIDE, "saved", 1)],
    ids=["waited for", "beside", "killed before"],
)
def test_failed_measurement_names_its_round_and_is_made_again_before_anything_is_charged(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: str, at: str, charged: int
) -> None:
    def failing(self: Evaluation, mask: object, samples: Path, **how: object) -> None:
        raise FeatureError(f"no weights for {samples.name}", public="no weights")

    folder = again(finished, tmp_path / "run")
    if at:
        _killed(tiny(count), folder, at, 1)
    with monkeypatch.context() as patch:
        patch.setattr(Evaluation, "measured", failing)
        for _ in range(2):
            with pytest.raises(FeatureError, match=r"^measuring round 1: no weights for round-0001\.png$"):
                run(tiny(count), folder)
            assert (folder / "FAILED").read_text() == "measuring round 1: no weights\n"
            assert [record.quality for record in read_records(folder)] == [None]
            assert len(verify_ledger(folder / "ledger.jsonl").entries) == charged
    run(tiny(count), folder)
    assert outcome(folder) == outcome(finished)


def test_round_without_metrics_is_told_at_once_and_not_again_by_who_continues(tmp_path: Path) -> None:
    class Impatient(Told):
        def round_finished(self, record: RoundRecord) -> None:
            super().round_finished(record)
            raise KeyboardInterrupt

    config, first, then = tiny(BESIDE, "metrics.every=2"), Impatient(), Told()
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "run", listener=first)
    run(config, tmp_path / "run", listener=then)
    assert first.work == [WORK]
    assert [*first.rounds, *then.rounds] == read_records(tmp_path / "run")
    assert [record.quality is not None for record in read_records(tmp_path / "run")] == [False, True]
