"""`prism-secure sweep` with real runs in real processes, killed in the middle."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from prism_secure.cli import main
from prism_secure.sweep.composition import compose
from prism_secure.sweep.engine import Engine
from prism_secure.sweep.results import read_sweep

from .tiny_runs import TINY

RECIPE = "[privacy]\nrecord_release = 'client'\n[sweep]\n[sweep.grid]\nprivacy.flip = [0.1, 0.2]\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def _arguments(recipe: Path, out: Path) -> list[str]:
    settings = [word for setting in TINY for word in ("--set", setting)]
    return ["sweep", str(recipe), "--out", str(out), *settings]


@pytest.mark.usefixtures("forked")  # the second half; the first is a program of its own
def test_sweep_that_is_killed_continues_with_the_same_command_and_repeats_no_round(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sweep"
    process = subprocess.Popen(
        [sys.executable, "-m", "prism_secure.cli", *_arguments(recipe, out), "--workers", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 250
    while process.poll() is None and time.monotonic() < deadline:
        if any((out / "runs").glob("*/metrics.jsonl")):
            break
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()[1].decode()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert read_sweep(out).counts()["done"] < 2

    assert main([*_arguments(recipe, out), "--workers", "2"]) == 0
    shown = capsys.readouterr().out
    assert "continue" in shown
    assert "2 of 2 runs finished, 0 points failed" in shown
    assert f"Page: {out.resolve() / 'report.html'}" in shown
    assert (out / "report.html").stat().st_size > 10_000
    assert "together, for everything one client contributes" in shown
    results = read_sweep(out)
    assert results.counts()["done"] == 2
    assert len(list((out / "runs").iterdir())) == 2
    for run in results.runs:
        history = run.history()
        assert history.ledger is not None
        rounds = [entry.round for entry in history.ledger.entries if entry.kind == "round"]
        assert rounds == [1, 2, 3]
        assert [record.round for record in run.records] == [1, 2, 3]
        assert (run.folder / "report.html").exists()

    total = compose(results.runs)
    assert total.record_releases == 1, "both train from one release"
    assert total.record_epsilon == pytest.approx(2.0, rel=1e-3)

    assert main(_arguments(recipe, out)) == 0, "nothing is left to do"
    assert "begin" not in capsys.readouterr().out


def test_sweep_that_cannot_start_says_why_in_one_line(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def complaint(*arguments: str) -> str:
        capsys.readouterr()
        assert main([*_arguments(recipe, tmp_path / "sweep"), *arguments]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert not (tmp_path / "sweep").exists()
        return error

    assert "did you mean 'privacy.flip'" in complaint("--set", "sweep.grid.privacy.flop=[1]")
    assert "METRIC<NUMBER" in complaint("--until", "fid")
    assert "--workers" in complaint("--workers", "0")
    assert "would be inf at every point" in complaint("--set", "privacy.record_release=summed")


def test_sweep_without_optuna_names_the_extra(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(_arguments(recipe, tmp_path / "sweep")) == 2
    assert "in a clone of the repository, pip install '.[sweep]'" in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize("package", ["plotly", "pyarrow"])
def test_sweep_without_what_its_page_needs_is_refused_before_it_starts(
    package: str,
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *how: None if name == package else found(name, *how)
    )
    assert main(_arguments(recipe, tmp_path / "sweep")) == 2
    assert f"needs {package}: in a clone of the repository, pip install '.[sweep]'" in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("url", "shown", "code"),
    [
        ("postgresql://me:secret@127.0.0.1:1/none", "postgresql://me:***@127.0.0.1:1/none", 5),
        ("postgresql://127.0.0.1:1/s?user=me&password=secret", "postgresql://127.0.0.1:1/s?***", 5),
        ("postgresql://127.0.0.1:1/s?user=me&password=no@secret", "postgresql://127.0.0.1:1/s?***", 2),
        ("postgresql://me:no?secret@127.0.0.1:1/s", "postgresql://me:***?***", 2),
        ("postgresql://me@127.0.0.1:1/s?sslpassword=secret", "postgresql://me@127.0.0.1:1/s?***", 5),
        ("postgresql://me:a@secret:b@127.0.0.1:1/s", "postgresql://me:***@127.0.0.1:1/s", 2),
        ("postgresql://me:a/secret@127.0.0.1:1/s?x=1", "postgresql://me:***@127.0.0.1:1/s?***", 5),
    ],
)
def test_password_of_the_storage_stays_out_of_the_folder(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], url: str, shown: str, code: int
) -> None:
    pytest.importorskip("psycopg")
    given = [f"--storage={url}"] if "?" in url else ["--storage", url]  # both are understood
    assert main([*_arguments(recipe, tmp_path / "sweep"), "--workers", "1", *given]) == code
    said = capsys.readouterr().err
    assert "secret" not in said
    assert shown in said
    for path in (tmp_path / "sweep").rglob("*"):
        assert not path.is_file() or b"secret" not in path.read_bytes()
    assert shown in (tmp_path / "sweep" / "command.txt").read_text("utf-8")


def test_run_that_is_deleted_meanwhile_is_no_success(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "sweep", lambda engine: 0)
    assert main([*_arguments(recipe, tmp_path / "sweep"), "--workers", "1"]) == 6
    shown = capsys.readouterr().out
    assert "2 runs are gone" in shown
    assert "other machines" not in shown


@pytest.mark.parametrize("name", ["plain", "what?x", "%61", "{x}"])
def test_dashboard_answers_on_loopback(tmp_path: Path, name: str) -> None:
    pytest.importorskip("optuna_dashboard", reason="pip install '.[dashboard]'")
    from prism_secure.sweep.dashboard import serve_dashboard
    from prism_secure.sweep.folder import SweepFolder
    from prism_secure.sweep.recipe import read_recipe
    from prism_secure.sweep.study import PointStudy

    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    swept = read_recipe(path)
    folder = SweepFolder(tmp_path / name, swept, "c")
    PointStudy(swept, "this study", folder.study_url, folder.owner).close()
    address = serve_dashboard(folder.study_url)
    folder.close()
    assert address.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(address, timeout=30) as answer:
        assert "Optuna" in answer.read().decode()
    with urllib.request.urlopen(f"{address}api/studies", timeout=30) as answer:
        assert "this study" in answer.read().decode()
