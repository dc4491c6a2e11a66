"""Many machines on one sweep, with a real PostgreSQL server on loopback."""

from __future__ import annotations

import contextlib
import getpass
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from prism_secure.errors import ConfigError, StorageError
from prism_secure.sweep import folder as folder_module
from prism_secure.sweep import study as study_module
from prism_secure.sweep.display import Display
from prism_secure.sweep.engine import Engine
from prism_secure.sweep.folder import SweepFolder
from prism_secure.sweep.recipe import SweepRecipe, read_recipe
from prism_secure.sweep.results import read_sweep
from prism_secure.sweep.study import PointStudy, open_storage, requeue

from .fake_crew import FakeCrew, Killed, Script

GRID = "[federation]\nrounds = 3\n[sweep]\nseeds = [0, 1]\n[sweep.grid]\nprivacy.flip = [0.1, 0.2]\nprivacy.clip = [1.0, 2.0]\n"  # noqa: E501


_NUMBERS = itertools.count(1)


def _program(name: str) -> str | None:
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(versions[-1]) if versions else None)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A PostgreSQL server of its own, and its address; it refuses to run as root, so root makes it
    `nobody`'s."""
    pytest.importorskip("psycopg", reason="pip install '.[postgresql]'")
    initdb, postgres = _program("initdb"), _program("postgres")
    if initdb is None or postgres is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: postgresql)")
    user = {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}
    place = Path(tempfile.mkdtemp(prefix="prism-postgresql-"))
    if user:
        shutil.chown(place, "nobody", "nogroup")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = None
    try:
        quiet = {
            "stdout": subprocess.DEVNULL,
            "cwd": place,
            "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"},
        }
        make = [initdb, "-D", str(place / "data"), "-U", "sweep", "-A", "trust", "--no-sync", "-E", "UTF8"]
        done = subprocess.run(make, stderr=subprocess.PIPE, text=True, check=False, **quiet, **user)
        if done.returncode:
            pytest.skip(f"initdb does not work for {user or getpass.getuser()}: {done.stderr.strip()[-200:]}")
        options = ["-h", "127.0.0.1", "-p", str(port), "-k", str(place), "-F"]
        process = subprocess.Popen(
            [postgres, "-D", str(place / "data"), *options], stderr=subprocess.DEVNULL, **quiet, **user
        )
        url = f"postgresql://sweep@127.0.0.1:{port}/postgres"
        _wait_for(url)
        yield url
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)  # SIGTERM would wait for connections
            process.wait(60)
        shutil.rmtree(place, ignore_errors=True)


def _wait_for(url: str) -> None:
    import psycopg

    end = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


@pytest.fixture
def recipe(tmp_path: Path) -> SweepRecipe:
    """One of its own for each test, and so a study of its own."""
    path = tmp_path / "recipe.toml"
    path.write_text(GRID)
    return read_recipe(path, [f"training.learning_rate={1e-3 * next(_NUMBERS)}"])


class Machine:
    """A machine's part of the sweep."""

    def __init__(self, name: str, path: Path, recipe: SweepRecipe, url: str) -> None:
        self.name, self.path, self.recipe, self.url = name, path, recipe, url
        self.computed: Counter[tuple[str, int]] = Counter()
        self.failed: int | None = None

    def sweep(self, script: Script | None = None) -> None:
        crew = FakeCrew(2, script)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(folder_module, "machine", lambda: self.name)
            folder = SweepFolder(self.path, self.recipe, "c")
            owner = folder.owner
        study = PointStudy(self.recipe, folder.study_name(self.recipe), self.url, owner)
        try:
            with (self.path / f"log-{self.name}").open("a") as log:
                display = Display(8, 2, Console(file=log, width=200))
                self.failed = Engine(self.recipe, folder, study, crew, display, command="c").sweep()
        finally:
            study.close()
            self.computed += crew.computed
            folder.close()


def test_two_machines_share_a_sweep_and_each_point_is_run_by_one(
    server: str, recipe: SweepRecipe, tmp_path: Path
) -> None:
    def slow(job: object, rounds: int) -> None:
        time.sleep(0.02)  # neither may be done before the other has begun

    machines = [Machine(name, tmp_path / name, recipe, server) for name in ("a", "b")]
    threads = [threading.Thread(target=machine.sweep, args=(slow,)) for machine in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [machine.failed for machine in machines] == [0, 0]
    assert all(machine.computed for machine in machines), "both had a part"
    together = machines[0].computed + machines[1].computed
    assert len(together) == 24
    assert set(together.values()) == {1}
    study = PointStudy(recipe, SweepFolder.study_name(None, recipe), server, "c")
    assert (study.finished(), study.waiting(), study.elsewhere()) == (4, 0, 0)
    study.close()

    for machine in machines[1:]:  # a page is made of the folders, put together
        for name in ("points", "runs"):
            shutil.copytree(machine.path / name, machines[0].path / name, dirs_exist_ok=True)
    assert {run.state for run in read_sweep(machines[0].path).runs} == {"done"}


def test_machine_that_is_gone_is_replaced_by_another_that_continues_its_runs(
    server: str, recipe: SweepRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_module, "GRACE", 2)
    monkeypatch.setattr(study_module, "BEAT", 1)
    gone, other = (Machine(name, tmp_path / "shared", recipe, server) for name in ("a", "b"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PointStudy, "release", lambda self, numbers: None)
        with pytest.raises(Killed):
            gone.sweep(lambda job, rounds: "kill" if rounds == 2 else None)
    assert gone.computed
    other.sweep()
    assert other.failed == 0
    together = gone.computed + other.computed
    assert len(together) == 24
    assert set(together.values()) == {1}, "what was finished before was computed again"
    assert {run.state for run in read_sweep(other.path).runs} == {"done"}


def test_same_machine_continues_at_once_without_waiting_for_a_heartbeat(
    server: str, recipe: SweepRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PointStudy, "release", lambda self, numbers: None)
    machine = Machine("a", tmp_path / "sweep", recipe, server)
    with pytest.raises(Killed):
        machine.sweep(lambda job, rounds: "kill" if rounds == 1 else None)
    with contextlib.suppress(Killed):
        machine.sweep(lambda job, rounds: "kill" if rounds == 3 else None)
    began = time.monotonic()
    machine.sweep()
    assert time.monotonic() - began < study_module.GRACE
    assert machine.failed == 0
    assert len(machine.computed) == 24
    assert set(machine.computed.values()) == {1}


def test_each_machine_makes_again_what_it_had_made_and_has_lost(
    server: str, recipe: SweepRecipe, tmp_path: Path
) -> None:
    mine, other = (Machine(name, tmp_path / name, recipe, server) for name in ("a", "b"))
    mine.sweep()
    other.sweep()
    assert not other.computed, "they are the other machine's, not lost"
    lost = read_sweep(mine.path).runs[0]
    shutil.rmtree(lost.folder)
    mine.computed.clear()
    other.sweep()
    mine.sweep()
    assert not other.computed
    assert {name for name, _ in mine.computed} == {lost.name}
    assert {run.state for run in read_sweep(mine.path).runs} == {"done"}


def test_a_connection_that_died_overnight_is_made_anew(server: str, recipe: SweepRecipe) -> None:
    import psycopg

    study = PointStudy(recipe, "overnight", server, "owner")
    study.recover(lambda settings: True)
    with psycopg.connect(server, autocommit=True) as other:
        dead = other.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
            "where backend_type = 'client backend' and pid <> pg_backend_pid()"
        ).fetchall()
    assert (True,) in dead
    assert study.waiting() == 4
    study.close()


def test_server_that_is_not_there_is_one_line_without_the_password(recipe: SweepRecipe) -> None:
    pytest.importorskip("psycopg")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"postgresql://me:secret@127.0.0.1:{free.getsockname()[1]}/sweeps"
        with pytest.raises(StorageError) as caught:
            PointStudy(recipe, "study", url, "owner")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="postgresql://"):
        PointStudy(recipe, "study", "mysql://me:secret@db/x", "owner")


def test_optuna_4_is_told_of_lost_points_by_the_name_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg", reason="pip install '.[postgresql]'")
    optuna = pytest.importorskip("optuna")
    told: list[object] = []

    class Storage:
        def __init__(
            self, url: str, engine_kwargs: object = None, *, heartbeat_interval: int = 0,
            grace_period: int = 0, failed_trial_callback: object = None, skip_table_creation: bool = False,
        ) -> None:  # fmt: skip
            told.append(failed_trial_callback)

        def remove_session(self) -> None: ...

    monkeypatch.setattr(optuna.storages, "RDBStorage", Storage)
    open_storage("postgresql://sweep@127.0.0.1/postgres")
    assert told == [None, requeue]
