"""A path that cannot be what a command asks for is named, with the mend, before anything slow is imported."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from . import fake_run

RUN = "import sys; from prism_secure.cli import main; code = main(sys.argv[1:]); " + "".join(
    f"assert {module!r} not in sys.modules, {module!r}; "
    for module in ("torch", "scipy", "matplotlib", "prism_privacy.accounting.accountant")
)
MEMBERSHIP = ["audit", "membership", "--flip", "0.25", "--clip", "1", "--cohort", "10", "--out"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """No run in it, but what people take for one."""
    (tmp_path / "README.md").write_text("# mine")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.toml").write_text("")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "ledger.jsonl").write_text("")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "federation.id").write_text("")
    (tmp_path / "flip.toml").write_text("[sweep]\nseeds = [0]\n[sweep.grid]\nprivacy.flip = [0]\n")
    (tmp_path / "limits.toml").write_text(
        '[[limit]]\nunit = "client"\nview = "sum"\nadjacency = "zero_out"\nepsilon = 8.0\ndelta = 1e-5\n'
    )
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "--out", "README.md"], 4, "README.md must be a folder, but it is a file; name another"),
        (["run", "--out", "README.md/run"], 4, "README.md is a file; name another folder"),
        (["run", "--out", "docs"], 4, "docs holds files that are not a run; name an empty or a new folder"),
        (["run", "--out", "new", "--config", "flip.toml"], 2, "prism-secure sweep flip.toml --out DIR"),
        (["run", "--out", "new", "--config", "mine.toml"], 2, "prism-secure init mine.toml"),
        (["config", "--config", "flip.toml"], 2, "flip.toml: it has a table [sweep]"),
        (["audit", "run", "docs"], 2, "docs is not a run folder: it has no config.toml"),
        (["audit", "run", "empty"], 2, "prism-secure list empty"),
        (["audit", "run", "nowhere"], 2, "nowhere is not a run folder: it does not exist"),
        (["audit", "run", "README.md"], 2, "README.md is not a run folder, but a file"),
        (["audit", "run", "sweep"], 2, "it is a sweep, whose runs are sweep/runs/*"),
        (["audit", "budget", "--budget", "nowhere.toml", "docs"], 2, "nowhere.toml is not a budget file"),
        (["audit", "budget", "--budget", "limits.toml", "docs"], 2, "docs is not a run folder"),
        ([*MEMBERSHIP, "picture.txt"], 2, "--out must end in .html, .png or .svg, got picture.txt"),
        ([*MEMBERSHIP, "README.md/x.png"], 2, "README.md is a file; name another folder"),
        (["audit", "mechanism", "release", "--flip", "0.1"], 2, "expected MODULE:CALLABLE"),
        (["audit", "mechanism", "mine.py:flips", "--flip", "0.1"], 2, "write mine:flips"),
        (["audit", "mechanism", "./my/code.py:flips", "--flip", "0.1"], 2, "write my.code:flips"),
        (["report", "docs"], 4, "docs is not a run folder"),
        (["compare", "docs", "empty"], 4, "docs is not a run folder"),
        (["export", "docs", "--out", "m.safetensors"], 4, "docs is not a run folder"),
        (["generate", "--model", "nowhere", "--out", "g.png"], 7, "nowhere is not a model file"),
        (
            ["generate", "--model", "docs", "--out", "g.png"],
            7,
            "docs is not a model file, nor a run folder: it is a",
        ),
        (
            ["generate", "--model", "kept", "--out", "g.png"],
            7,
            "kept is a run folder without model.safetensors",
        ),
        (["config", "--config", "docs"], 2, "docs: it is a folder; name a TOML file"),
        (["ledger", "verify", "begun"], 2, "begun is a run folder without ledger.jsonl"),
        (["ledger", "verify", "docs"], 2, "docs is not a ledger (ledger.jsonl in a run folder), nor a"),
        (["init", "README.md/x.toml"], 2, "README.md is a file; name another folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_refused_with_the_mend_before_torch_and_nothing_is_written(
    folder: Path, arguments: list[str], code: int, words: str
):
    before = sorted(folder.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", f"{RUN}sys.exit(code)", *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout
    assert sorted(folder.rglob("*")) == before


def test_files_are_written_into_folders_that_are_not_there_yet(folder: Path):
    command = [sys.executable, "-m", "prism_secure.cli", "init", "recipes/new/mine.toml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / "recipes" / "new" / "mine.toml").is_file()


def test_a_run_of_another_configuration_is_refused_before_torch(folder: Path):
    from prism_secure.config import dump_config, load_config

    started = load_config(overrides=["federation.rounds=3"])
    (folder / "run").mkdir()
    (folder / "run" / "federation.id").write_text("0" * 32)
    (folder / "run" / "config.toml").write_text(dump_config(started))
    command = "'run', '--out', 'run', '--recipe', 'one-shot'"
    code = f"import sys; from prism_secure.cli import main; code = main([{command}]); "
    code += "assert 'torch' not in sys.modules; sys.exit(code)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 4, done.stderr
    assert "another configuration: federation.rounds = 3, now 1; training.end_steps = 0, now " in done.stderr
    assert "nearest to recipe" not in done.stderr, "both stand on one"


def test_a_run_of_another_recipe_is_refused_with_what_continues_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A file of other settings, and then the bare command: dozens of settings differ."""
    from prism_secure.cli import main
    from prism_secure.config import dump_config, load_config
    from prism_secure.run_folder.folder import RunFolder, read_config

    out = tmp_path / "my run"
    out.mkdir()
    (out / "federation.id").write_text("0" * 32)
    started = load_config(None, ["measured.epsilon=1"], recipe="cross-silo")
    (out / "config.toml").write_text(dump_config(started))
    assert main(["run", "--out", str(out)]) == 4
    told = capsys.readouterr().err
    assert "federation.clients = 10, now 1000; federation.rounds = 8, now 12; " in told
    assert "nearest to recipe cross-silo, and those given to cross-device" in told
    again = f"prism-secure run --config '{out}/config.toml' --out '{out}'"
    assert f"To continue it: {again}" in told
    assert told.count(", now ") == 6
    assert re.search(r", and \d+ more\. Its settings", told)
    with RunFolder(out, load_config(out / "config.toml")):
        assert read_config(out) == started


@pytest.mark.parametrize("command", ["ledger verify", "python -m prism_privacy.verify"])
def test_a_ledger_is_found_in_its_run_folder(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    from prism_privacy import verify
    from prism_secure.cli import main

    run = fake_run.make_run(tmp_path / "run", ["privacy.clip=1"], rounds=2)
    check = main if command == "ledger verify" else verify.main
    before = ["ledger", "verify"] if command == "ledger verify" else []
    told = []
    for path in (run, run / "ledger.jsonl"):
        assert check([*before, str(path)]) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1] != ""


def test_a_model_is_found_in_its_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from prism_secure.cli import main

    run = fake_run.make_run(tmp_path / "run", rounds=1)
    (run / "model.safetensors").write_bytes(b"no model")
    command = ["generate", "--out", str(tmp_path / "grid.png"), "--model"]
    told = []
    for path in (run, run / "model.safetensors"):
        assert main([*command, str(path)]) == 7
        told.append(capsys.readouterr().err)
    assert told[0] == told[1]
    assert "model.safetensors is not a model file, or a damaged one" in told[0]
