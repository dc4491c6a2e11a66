"""`list`, `init` and `doctor`: what one asks before and after."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest

from prism_secure.cli import main
from prism_secure.commands import doctor
from prism_secure.commands.init import recipe
from prism_secure.commands.looks import tried
from prism_secure.config import dump_config, load_config, meanings
from prism_secure.config.recipes import DEFAULT, NAMES
from prism_secure.run_folder.run import Run
from prism_secure.sweep.folder import SweepFolder
from prism_secure.sweep.recipe import read_recipe
from prism_secure.sweep.results import sweep_run
from prism_secure.sweep.worker import Job

from .. import fake_run
from .fake_crew import compute, finish, start

ROOT = Path(__file__).parents[3]


def test_init_writes_the_default_recipe_with_every_setting_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.toml"
    assert main(["init", str(path)]) == 0
    assert str(path) in capsys.readouterr().out
    assert load_config(path) == load_config(recipe=DEFAULT)
    text = " ".join(path.read_text("utf-8").replace("#", " ").split())
    for (section, key), meaning in meanings().items():
        assert meaning in text, f"{section}.{key} is not explained"

    assert main(["init", str(path)]) == 2
    assert "not overwritten" in capsys.readouterr().err


def test_an_fid_that_is_not_a_finished_runs_last_says_its_round_wherever_it_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a list, a comparison and a notebook: of a run that goes on, and of one that stopped after it."""
    two = {"rounds": 3, "every": 2, "images": False}
    folders = {
        "open": fake_run.make_run(tmp_path / "open", ["federation.rounds=5"], done=False, **two),
        "stopped": fake_run.make_run(tmp_path / "stopped", ["federation.rounds=5"], **two),
        "over": fake_run.make_run(tmp_path / "over", ["federation.rounds=3"], **two),
    }
    (folders["stopped"] / "DONE").write_text("3 of 5 rounds: enough\n")
    assert main(["list", str(tmp_path)]) == 0
    assert main(["compare", *map(str, folders.values())]) == 0
    said = capsys.readouterr().out.splitlines()
    for name, folder in folders.items():
        late = " (round 2)" if name != "over" else ""
        fid = f"{Run.open(folder).quality.fid:.1f}"
        lines = [line for line in said if re.match(rf"(\S*/)?{name}\s", line)]
        assert len(lines) == 2, "one of each command"
        for line in lines:
            assert f" {fid}{late} " in line
        assert f">FID{late}<" in Run.open(folder)._repr_html_()
        assert ("(round" in "".join(lines)) == bool(late)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("unused", ["search", "grid"])
def test_inits_sweep_works_when_its_signs_are_taken_away(tmp_path: Path, unused: str, name: str) -> None:
    text = re.sub(r"^#(?=\[?[a-z])", "", recipe(name).partition("A sweep varies")[2], flags=re.M)
    table = tomllib.loads("#" + text)["sweep"]
    del table[unused]
    if unused == "search":
        del table["points"]
    else:
        table["method"] = "tpe"
    import tomli_w

    path = tmp_path / "sweep.toml"
    path.write_text(dump_config(load_config(recipe=name)) + tomli_w.dumps({"sweep": table}))
    assert read_recipe(path).axes


def test_list_shows_runs_and_sweeps_and_what_is_wrong_with_some(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_run.make_run(tmp_path / "runs" / "first", ["federation.rounds=3"], images=False)
    fake_run.make_run(tmp_path / "runs" / "half", ["federation.rounds=3"], rounds=1, images=False, done=False)
    for name in ("first", "odd"):  # a run that has lost its name is still one
        (tmp_path / "runs" / name).mkdir(exist_ok=True)
        (tmp_path / "runs" / name / "federation.id").write_text("f")
    (tmp_path / "runs" / "odd" / "config.toml").write_text("nonsense")
    toml = tmp_path / "recipe.toml"
    toml.write_text("[federation]\nrounds = 2\n[sweep]\n[sweep.grid]\nprivacy.flip = [0.1, 0.2]\n")
    asked = read_recipe(toml)
    SweepFolder(tmp_path / "sweep", asked, "c").close()
    run = sweep_run(tmp_path / "sweep", asked.config(asked.grid()[0], 0))
    job = Job(run.name, run.config, run.folder, "c")
    start(job)
    for number in (1, 2):
        compute(job, number)
    finish(job, "")

    first, half = (Run.open(tmp_path / "runs" / name) for name in ("first", "half"))
    assert main(["list", str(tmp_path)]) == 0
    shown = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[1:]}
    assert set(shown) == {"runs/first", "runs/half", "runs/odd", "sweep"}
    assert "done" in shown["runs/first"]
    assert "3/3" in shown["runs/first"]
    assert "unfinished" in shown["runs/half"]
    assert "damaged" in shown["runs/odd"]
    assert "1 of 2 runs finished" in shown["sweep"]
    assert f" {half.quality.fid:.1f} (round 1) " in shown["runs/half"], "it is not the run's"
    assert f" {first.quality.fid:.1f} " in shown["runs/first"]
    assert "(round" not in shown["runs/first"] + shown["sweep"]

    assert main(["list", str(tmp_path / "sweep")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[1:]] == ["done", "waiting"]
    assert "flip=0.1" in lines[1]

    for name, settings in (("none", ["privacy.flip=0"]), ("some", [])):
        fake_run.make_run(tmp_path / name / "run", ["federation.rounds=1", *settings], images=False)
        (tmp_path / name / "run" / "federation.id").write_text("f")
        assert main(["list", str(tmp_path / name)]) == 0
        said = capsys.readouterr()
        beside = (
            "inf: privacy.flip = 0 leaves the masks without noise; privacy.flip=0.1 and privacy.clip=1 would"
        )
        assert (beside in said.err) == ("inf" in said.out) == (name == "none")

    waiting = fake_run.make_run(
        tmp_path / "waiting" / "run", ["privacy.flip=0"], rounds=0, images=False, done=False
    )
    (waiting / "federation.id").write_text("f")
    assert main(["list", str(tmp_path / "waiting")]) == 0
    said = capsys.readouterr()
    assert "unfinished" in said.out
    assert "inf" not in said.out
    assert said.err == "", "no footer speaks of cells that are empty"

    assert main(["list", str(tmp_path / "nowhere")]) == 2
    (tmp_path / "empty").mkdir()
    assert main(["list", str(tmp_path / "empty")]) == 0
    assert "No runs" in capsys.readouterr().out


def test_doctor_finds_everything_that_a_run_needs_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(variable, "2")
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert f", {min(2, len(os.sched_getaffinity(0)))} threads, " in shown, "as many as a run would have"
    assert "broken" not in shown.partition("Everything")[0]
    assert "fashion_mnist_12k: 10,000 images" in shown


def test_doctor_names_what_is_missing_and_fails_for_what_is_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken() -> str:
        raise ArithmeticError("1 + 1 came out as 3")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(doctor, "tried_elsewhere", lambda: [tried("secure sum", broken)])
    monkeypatch.setattr(doctor, "EXTRAS", {"sweep": (("no-such-package",), "sweeps")})
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "1 + 1 came out as 3" in shown
    assert "no-such-package missing; in a clone of the repository, pip install '.[sweep]'" in shown


def test_doctor_knows_every_extra() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert set(doctor.EXTRAS) == set(declared) - {"dev", "docs"}
    for extra, (packages, _) in doctor.EXTRAS.items():
        for package in packages:
            assert any(line.startswith(package) for line in declared[extra]), f"{extra}: {package}"
