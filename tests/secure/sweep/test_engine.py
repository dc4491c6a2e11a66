"""A sweep makes every run once, whatever is killed and whatever fails."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console

from prism_secure.sweep.display import Display
from prism_secure.sweep.engine import DEATHS, Engine, FailedFast
from prism_secure.sweep.folder import SweepFolder
from prism_secure.sweep.recipe import SweepRecipe, read_recipe
from prism_secure.sweep.results import Sweep as Results
from prism_secure.sweep.results import read_sweep
from prism_secure.sweep.study import PointStudy, open_storage
from prism_secure.sweep.worker import Job

from .. import fake_run
from .fake_crew import FakeCrew, Killed, Script

BASE = "[federation]\nrounds = 3\n[privacy]\nrecord_epsilon = inf\n[sweep]\n"
GRID = BASE + "seeds = [0, 1]\n[sweep.grid]\nprivacy.flip = [0.1, 0.2]\nprivacy.clip = ['none', 1.0]\n"
SEARCH = (
    BASE + "method = '{}'\npoints = 8\n[sweep.search]\nprivacy.flip = [0, 0.1, 0.2, 0.3]\n"
    "mask.temperature = {{low = 0.01, high = 1, log = true}}\n"
)


def recipe_of(folder: Path, text: str, *overrides: str) -> SweepRecipe:
    path = folder / "recipe.toml"
    path.write_text(text)
    return read_recipe(path, list(overrides))


class Sweep:
    """A sweep that can be started again and again in one folder."""

    def __init__(self, folder: Path, recipe: SweepRecipe) -> None:
        self.path, self.recipe = folder / "sweep", recipe
        self.computed: Counter[tuple[str, int]] = Counter()
        self.lines: list[str] = []

    def run(self, script: Script | None = None, *, workers: int = 2, fail_fast: bool = False) -> int:
        crew = FakeCrew(workers, script)
        folder = SweepFolder(self.path, self.recipe, "prism-secure sweep")
        study = PointStudy(self.recipe, "study", folder.study_url, folder.owner)
        console = Console(file=(self.path / "log").open("a"), width=200)
        try:
            engine = Engine(
                self.recipe,
                folder,
                study,
                crew,
                Display(99, workers, console),
                command="c",
                fail_fast=fail_fast,
            )
            return engine.sweep()
        except Killed:
            raise
        finally:
            study.close()
            self.computed += crew.computed
            console.file.close()
            folder.close()

    @property
    def finished(self) -> int:
        """Points with results, as the study has it."""
        study = PointStudy(self.recipe, "study", f"sqlite:///{self.path / 'study.db'}", "somebody")
        try:
            return study.finished()
        finally:
            study.close()

    @property
    def results(self) -> Results:
        return read_sweep(self.path)

    @property
    def log(self) -> str:
        return (self.path / "log").read_text("utf-8")


def states(sweep: Sweep) -> Counter[str]:
    return Counter(run.state for run in sweep.results.runs)


def test_grid_is_complete_and_makes_no_run_twice(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, recipe_of(tmp_path, GRID))
    assert sweep.run() == 0
    assert states(sweep) == {"done": 8}
    assert len(sweep.computed) == 24
    assert set(sweep.computed.values()) == {1}
    assert sweep.finished == 4
    assert sweep.run() == 0, "a sweep that is finished has nothing to do"
    assert set(sweep.computed.values()) == {1}


def test_kills_lose_nothing_and_repeat_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the whole sweep: nothing is released, no event is handled, the next start finds what there is."""
    rng = random.Random(3)
    sweep = Sweep(tmp_path, recipe_of(tmp_path, GRID))
    monkeypatch.setattr(PointStudy, "release", lambda self, numbers: None)
    for _ in range(6):
        with pytest.raises(Killed):
            sweep.run(lambda job, rounds: "kill" if rng.random() < 0.3 else None)
    assert sweep.run() == 0
    assert states(sweep) == {"done": 8}
    assert len(sweep.computed) == 24
    assert set(sweep.computed.values()) == {1}, "a round of some run was computed twice"
    assert len(list((sweep.path / "runs").iterdir())) == 8
    assert sweep.finished == 4


def test_killed_workers_are_replaced_and_their_runs_continue(tmp_path: Path) -> None:
    rng = random.Random(5)
    sweep = Sweep(tmp_path, recipe_of(tmp_path, GRID))
    assert sweep.run(lambda job, rounds: "die" if rng.random() < 0.3 else None) == 0
    assert states(sweep) == {"done": 8}
    assert len(sweep.computed) == 24
    assert set(sweep.computed.values()) == {1}
    assert "killed" in sweep.log


def test_run_that_always_kills_its_worker_is_given_up_and_says_so(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, recipe_of(tmp_path, GRID))
    doomed = read_first(sweep)
    crew_deaths: list[str] = []

    def script(job: Job, rounds: int) -> str | None:
        if job.name == doomed and rounds == 1:
            crew_deaths.append(job.name)
            return "die"
        return None

    assert sweep.run(script) == 1
    assert len(crew_deaths) == DEATHS
    assert states(sweep) == {"done": 7, "failed": 1}
    assert "out of memory" in next(run.reason for run in sweep.results.runs if run.state == "failed")


def read_first(sweep: Sweep) -> str:
    """The name of the grid's first run."""
    from prism_secure.sweep.recipe import run_id

    return run_id(sweep.recipe.config(sweep.recipe.grid()[0], sweep.recipe.seeds[0]))


def test_failed_run_is_tried_once_more_and_stops_no_other(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, recipe_of(tmp_path, GRID))
    doomed = read_first(sweep)
    attempts: list[int] = []

    def script(job: Job, rounds: int) -> str | None:
        if job.name == doomed and rounds == 2:
            attempts.append(rounds)
            return "fail"
        return None

    assert sweep.run(script) == 1
    assert len(attempts) == 2
    assert states(sweep) == {"done": 7, "failed": 1}
    (failed,) = [run for run in sweep.results.runs if run.state == "failed"]
    assert failed.name == doomed
    assert failed.reason == "scripted after round 2"
    assert len(failed.failures) == 2
    assert sweep.log.count("scripted after round 2") == 2
    assert sweep.finished == 3

    assert sweep.run() == 0, "started again, it tries again"
    assert states(sweep) == {"done": 8}
    assert sweep.finished == 4
    assert set(sweep.computed.values()) == {1}


def test_failure_that_does_not_come_back_is_forgotten(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, recipe_of(tmp_path, GRID))
    doomed, attempts = read_first(sweep), []

    def script(job: Job, rounds: int) -> str | None:
        if job.name == doomed and not attempts:
            attempts.append(rounds)
            return "fail"
        return None

    assert sweep.run(script) == 0
    assert states(sweep) == {"done": 8}


def test_fail_fast_ends_at_the_first_failure_and_the_same_sweep_continues(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, recipe_of(tmp_path, GRID))
    with pytest.raises(FailedFast, match="scripted"):
        sweep.run(lambda job, rounds: "fail" if rounds == 1 else None, fail_fast=True)
    assert states(sweep)["waiting"] > 0
    assert sweep.run() == 0
    assert states(sweep) == {"done": 8}
    assert set(sweep.computed.values()) == {1}


@pytest.mark.parametrize("method", ["tpe", "nsga2", "random"])
def test_search_tries_as_many_points_as_it_was_asked_for(tmp_path: Path, method: str) -> None:
    sweep = Sweep(tmp_path, recipe_of(tmp_path, SEARCH.format(method)))
    assert sweep.run() == 0
    assert states(sweep) == {"done": 8}
    assert {point.settings["privacy.flip"] for point in sweep.results.points} <= {0, 0.1, 0.2, 0.3}
    assert len({point.id for point in sweep.results.points}) == 8
    assert sweep.finished == 8


def test_search_survives_kills_with_the_points_that_it_had_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(4)
    sweep = Sweep(tmp_path, recipe_of(tmp_path, SEARCH.format("tpe")))
    monkeypatch.setattr(PointStudy, "release", lambda self, numbers: None)
    for _ in range(3):
        with pytest.raises(Killed):
            sweep.run(lambda job, rounds: "kill" if rng.random() < 0.3 else None)
    assert sweep.run() == 0
    assert states(sweep) == {"done": 8}
    assert len(list((sweep.path / "runs").iterdir())) == 8
    assert set(sweep.computed.values()) == {1}


def test_random_points_are_the_same_after_a_restart_and_as_many_as_there_are(tmp_path: Path) -> None:
    from prism_secure.errors import ConfigError
    from prism_secure.sweep.study import random_points

    recipe = recipe_of(tmp_path, SEARCH.format("random"))
    assert random_points(recipe) == random_points(recipe)
    few = BASE + "method = 'random'\npoints = 5\n[sweep.search]\nprivacy.flip = [0, 0.1, 0.2]\n"
    with pytest.raises(ConfigError, match="only 3 different"):
        random_points(recipe_of(tmp_path, few))


def test_infinite_epsilon_is_a_setting_that_a_search_keeps(tmp_path: Path) -> None:
    text = "[federation]\nrounds = 2\n[sweep]\nmethod = 'random'\npoints = 2\n[sweep.search]\n"
    sweep = Sweep(tmp_path, recipe_of(tmp_path, text + "privacy.record_epsilon = [inf, 2.0]\n"))
    assert sweep.run() == 0
    points = {point.name: point for point in sweep.results.points}
    assert set(points) == {"record_epsilon=inf", "record_epsilon=2"}
    assert [len(point.finished) for point in points.values()] == [1, 1]


def test_settings_that_do_not_go_together_are_refused_and_the_search_goes_on(tmp_path: Path) -> None:
    text = BASE + (
        "method = 'tpe'\npoints = 9\n[sweep.search]\nprivacy.flip = {low = 0.01, high = 0.4}\n"
        "secure_sum.min_survivors = [10, 99]\n"
    )
    sweep = Sweep(tmp_path, recipe_of(tmp_path, text))
    refused = sweep.run()
    points = sweep.results.points
    assert 0 < refused < 9
    assert sum(bool(point.refused) for point in points) == refused
    assert len(points) == 9
    assert "min_survivors must be at most" in sweep.log


def test_goal_ends_each_run_after_the_round_that_reaches_it(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, recipe_of(tmp_path, GRID, "sweep.until=fid<280"))
    assert sweep.run() == 0
    assert states(sweep) == {"stopped": 8}
    for run in sweep.results.runs:
        fids = [record.quality.fid for record in run.records if record.quality]
        assert fids[-1] < 280
        assert all(fid >= 280 for fid in fids[:-1])
        assert "fid" in run.reason
        assert run.planned is not None
        assert run.planned.sum_zero_out >= run.records[-1].epsilon.sum_zero_out
        assert run.planned_rounds == 3


def test_points_that_another_beats_on_both_counts_end_early(tmp_path: Path) -> None:
    """In `fake_run` noise costs 25 FID; a worse point with a larger epsilon is made by more of both."""
    grid = "[sweep.grid]\nprivacy.clip = [1.0, 2.0]\nprivacy.flip = [0.1]\n"
    text = f"{BASE}pruning = 'dominated'\nmargin = 0.05\n{grid}"
    recipe = recipe_of(tmp_path, text)
    sweep = Sweep(tmp_path, recipe)

    plain = fake_run.record_of

    def worse(config, number, *, evaluated=True):
        import msgspec

        record = plain(config, number, evaluated=evaluated)
        factor = 1.5 if config.privacy.clip == 2.0 else 1.0
        return msgspec.structs.replace(
            record, quality=msgspec.structs.replace(record.quality, fid=record.quality.fid * factor)
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake_run, "record_of", worse)
        assert sweep.run(workers=1) == 0
    assert states(sweep) == {"done": 1, "stopped": 1}
    (stopped,) = [run for run in sweep.results.runs if run.state == "stopped"]
    assert stopped.config.privacy.clip == 2.0
    assert stopped.reason.startswith("dominated by clip=1 flip=0.1")
    assert len(stopped.records) == 1


def test_two_machines_that_queue_the_same_points_run_each_once(tmp_path: Path) -> None:
    """The race that a storage of many machines allows, played on one."""
    sweep = Sweep(tmp_path, recipe_of(tmp_path, GRID))
    folder = SweepFolder(sweep.path, sweep.recipe, "c")
    study = PointStudy(sweep.recipe, "study", folder.study_url, folder.owner)
    folder.close()
    from prism_secure.sweep.study import POINT, QUEUED, fixed_points

    for point, settings in list(fixed_points(sweep.recipe).items())[:3]:
        params = {key: sweep.recipe.axes[key].encoded(value) for key, value in settings.items()}
        for _ in range(2):
            study._study.enqueue_trial(params, user_attrs={QUEUED: True, POINT: point})
    study.close()
    assert sweep.run() == 0
    assert states(sweep) == {"done": 8}
    assert set(sweep.computed.values()) == {1}
    assert sweep.finished == 4


def test_another_recipe_or_another_sweep_in_the_folder_is_refused(tmp_path: Path) -> None:
    from prism_secure.errors import RunFolderError

    recipe = recipe_of(tmp_path, GRID)
    folder = SweepFolder(tmp_path / "sweep", recipe, "c")
    with pytest.raises(RunFolderError, match="goes on in"):
        SweepFolder(tmp_path / "sweep", recipe, "c")
    folder.close()
    for other, named in (
        ("federation.rounds=4", "(federation.rounds = 3, now 4)"),
        ("sweep.seeds=[0,1,2,3]", ", now [0, 1, 2, 3])"),
        ("sweep.grid.privacy.flip=[0.33]", "(sweep.grid.privacy.flip = "),
        ("privacy.clip=0.77", "now 0.77)"),
    ):
        with pytest.raises(RunFolderError, match="started with another recipe") as refused:
            SweepFolder(tmp_path / "sweep", recipe_of(tmp_path, GRID, other), "c")
        assert named in str(refused.value)
        assert "()" not in str(refused.value)
    with pytest.raises(RunFolderError, match="not a sweep"):
        SweepFolder(tmp_path, recipe, "c")


def test_storage_that_breaks_in_the_middle_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    from prism_secure.errors import StorageError
    from prism_secure.sweep.study import as_storage_error

    sweep = Sweep(tmp_path, recipe_of(tmp_path, GRID))
    url = f"sqlite:///{sweep.path / 'study.db'}"

    broken: list[int] = []

    def breaking(job: Job, rounds: int) -> None:
        if rounds == 2 and not broken:
            broken.append(rounds)
            with closing(sqlite3.connect(sweep.path / "study.db")) as study, study:
                study.execute("alter table trials rename to elsewhere")

    with pytest.raises(StorageError, match="no such table") as caught, as_storage_error(url):
        sweep.run(breaking)
    assert "\n" not in str(caught.value)
    with closing(sqlite3.connect(sweep.path / "study.db")) as study, study:
        study.execute("alter table elsewhere rename to trials")
    assert sweep.run() == 0
    assert set(sweep.computed.values()) == {1}
    assert states(sweep) == {"done": 8}


def begin(path: Path, recipe: SweepRecipe) -> None:
    """Queue a sweep's points, and finish one."""
    folder = SweepFolder(path, recipe, "c")
    study = PointStudy(recipe, "study", folder.study_url, folder.owner)
    study.recover(lambda settings: True)
    assert study.waiting() == 4
    claim = study.claim()
    assert claim is not None
    study.finish(claim, [1.0] * len(recipe.objectives))
    study.close()
    folder.close()


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep in a folder `a`."""
    place = tmp_path_factory.mktemp("begun")
    begin(place / "a", recipe_of(place, GRID))
    return place / "a"


ODD_NAMES = ["what?x", "%61", "a%20b", "{x}", "{SCHEMA_VERSION}", "a#b", "me:pw@host", "ü & + =", "file:a"]


@pytest.mark.parametrize(
    ("name", "relative"), [*((name, False) for name in ODD_NAMES), ("%61", True), ("file:a", True)]
)
def test_sweep_in_a_folder_of_any_name_has_a_database_of_its_own_in_it(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, relative: bool
) -> None:
    """The path went into a URL as it was: `%61` used the database of the sweep in `a`, and made no run."""
    shutil.copytree(begun, tmp_path / "sweeps" / "a")
    monkeypatch.chdir(tmp_path / "sweeps")
    begin((Path() if relative else tmp_path / "sweeps") / name, recipe_of(tmp_path, GRID))
    assert {path.name for path in (tmp_path / "sweeps").iterdir()} == {"a", name}
    assert (tmp_path / "sweeps" / name / "study.db").exists()


def test_url_that_would_be_cut_is_refused_and_a_brace_is_no_template(tmp_path: Path) -> None:
    from prism_secure.errors import ConfigError, StorageError

    for url in ("sqlite:///what?x", "sqlite:///what#x"):
        with pytest.raises(ConfigError, match="%3F"):
            open_storage(url)
    pytest.importorskip("psycopg")
    with pytest.raises(StorageError) as caught:
        open_storage("postgresql://me:se{cr}et@127.0.0.1:1/none")
    assert "me:***@" in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite:///a%00b", "sqlite:////tmp/%00", "postgresql://me@h:port/s"])
def test_what_is_no_address_is_one_clear_error(url: str) -> None:
    from prism_secure.errors import ConfigError

    pytest.importorskip("psycopg")
    with pytest.raises(ConfigError, match="is not the address of a database"):
        open_storage(url)


def lose(runs, what: str) -> int:
    """Of these runs; how many are lost."""
    lost = {"one": runs[:1], "a seed of each": runs[::2], "all": runs, "results": runs[:2], "pages": runs[:1]}
    for run in lost[what]:
        if what == "results":
            (run.folder / "DONE").unlink()
        elif what == "pages":
            (run.folder / "report.html").unlink()
        else:
            shutil.rmtree(run.folder)
    return len(lost[what])


@pytest.fixture(scope="module")
def of_one_round(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep, to copy."""
    place = tmp_path_factory.mktemp("of_one_round")
    assert Sweep(place, recipe_of(place, GRID, "federation.rounds=1")).run() == 0
    return place / "sweep"


def again(finished: Path, folder: Path) -> Sweep:
    """A copy of `of_one_round` that goes on."""
    sweep = Sweep(folder, recipe_of(folder, GRID, "federation.rounds=1"))
    shutil.copytree(finished, sweep.path)
    return sweep


@pytest.mark.parametrize("what", ["one", "a seed of each", "all", "results", "pages"])
def test_runs_that_are_lost_are_made_again(of_one_round: Path, tmp_path: Path, what: str) -> None:
    sweep = again(of_one_round, tmp_path)
    for repetition in (1, 2):
        sweep.computed.clear()
        lost = lose(sweep.results.runs, what)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PointStudy, "release", lambda self, numbers: None)
            with pytest.raises(Killed):  # on the way, too
                sweep.run(lambda job, rounds: "kill")
        assert sweep.run() == 0
        assert states(sweep) == {"done": 8}
        assert all((run.folder / "report.html").exists() for run in sweep.results.runs)
        assert sum(sweep.computed.values()) == (0 if what in ("results", "pages") else lost)
        assert sweep.finished == 4, repetition
    assert "run folders are gone" in sweep.log
    sweep.computed.clear()
    assert sweep.run() == 0
    assert not sweep.computed


@pytest.mark.parametrize("method", ["tpe", "random"])
def test_points_of_a_search_that_are_lost_are_made_again_and_no_others(tmp_path: Path, method: str) -> None:
    sweep = Sweep(tmp_path, recipe_of(tmp_path, SEARCH.format(method), "federation.rounds=1"))
    assert sweep.run() == 0
    names = {run.name for run in sweep.results.runs}
    lost = sweep.results.runs[3]
    shutil.rmtree(lost.folder)
    sweep.computed.clear()
    assert sweep.run() == 0
    assert set(sweep.computed) == {(lost.name, 1)}
    assert {run.name for run in sweep.results.runs} == names
    assert states(sweep) == {"done": 8}


def test_lost_run_that_fails_is_a_failure_and_tried_again(of_one_round: Path, tmp_path: Path) -> None:
    sweep = again(of_one_round, tmp_path)
    lose(sweep.results.runs, "one")
    assert sweep.run(lambda job, rounds: "fail") == 1
    assert sweep.finished == 3
    assert sweep.run() == 0
    assert (sweep.finished, states(sweep)) == (4, {"done": 8})
