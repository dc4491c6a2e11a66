from __future__ import annotations

import getpass
import json
import platform
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from prism_secure.errors import RunFolderError
from prism_secure.run_folder import environment
from prism_secure.run_folder.environment import (
    Facts,
    describe_environment,
    read_environment,
    shell_command,
    write_environment,
)


def test_the_environment_says_what_is_needed_to_repeat_a_run() -> None:
    found = describe_environment()
    assert found["python"].endswith(platform.python_version())
    assert {"torch", "numpy", "cryptography"} <= set(found["packages"])
    assert found["cores"] >= 1
    assert found["cpu"]
    assert found["platform"].startswith(platform.system())


def test_neither_host_nor_user_nor_path_enters_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home" / "somebody"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USER", "somebody")
    monkeypatch.setattr(platform, "node", lambda: "secret-host")
    write_environment(tmp_path, shlex.join([f"{home}/venv/bin/prism-secure", "run", f"--out={home}/runs/1"]))

    text = (tmp_path / "environment.json").read_text()
    for private in ("somebody", getpass.getuser() + "@", "secret-host", str(tmp_path), str(Path.cwd())):
        assert private not in text
    assert 'prism-secure run --out=\\"$HOME\\"/runs/1' in text


@pytest.mark.parametrize(
    "word", ["/home/x", "/home/x/runs", "--out=/home/x/a b", "/home/xy", "it's", "a$b", "/srv/home/x/y"]
)
def test_a_shell_reads_the_command_back_as_it_was_given(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    command = shell_command(["prism-secure", "run", word])
    script = command.replace("prism-secure run", "printf %s", 1)
    printed = subprocess.run(
        ["/bin/sh", "-c", script], env={"HOME": "/home/x"}, capture_output=True, text=True, check=True
    )
    assert printed.stdout == word


def test_a_module_run_by_python_is_named_as_such() -> None:
    assert shell_command(["/x/prism_secure/__main__.py", "run"]) == "python -m prism_secure run"


def test_facts_are_kept_beside_the_command(tmp_path: Path) -> None:
    write_environment(tmp_path, "prism-secure run --out a", Facts(parameters=7, held_out_images=2))
    kept, facts = read_environment(tmp_path)
    assert facts == Facts(parameters=7, held_out_images=2)
    assert kept["command"] == "prism-secure run --out a"
    assert "facts" not in kept


def test_a_folder_without_an_environment_has_none(tmp_path: Path) -> None:
    assert read_environment(tmp_path) == ({}, Facts())


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"facts": {"parameters": "many"}}', '{"facts": {"new": 1}}'],
)
def test_a_damaged_environment_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "environment.json").write_text(text)
    with pytest.raises(RunFolderError, match=r"environment\.json is damaged"):
        read_environment(tmp_path)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with a tracked package `mine` and an ignored `.venv/theirs`."""
    for name in ("mine", ".venv/theirs"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / ".gitignore").write_text(".venv/\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True)
    return tmp_path


needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@needs_git
def test_a_package_in_a_checkout_has_its_commit_and_whether_it_was_changed(checkout: Path) -> None:
    commit = environment._commit(checkout / "mine")
    assert commit is not None
    assert len(commit) == 40
    (checkout / "mine" / "__init__.py").write_text("changed = True\n")
    assert environment._commit(checkout / "mine") == f"{commit}+changes"


@needs_git
def test_a_package_installed_inside_another_project_does_not_take_its_commit(checkout: Path) -> None:
    assert environment._commit(checkout / ".venv" / "theirs") is None


@needs_git
def test_git_variables_of_a_hook_do_not_point_to_another_repository(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = environment._commit(checkout / "mine")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert environment._commit(checkout / "mine") == expected


def test_the_file_is_readable_json(tmp_path: Path) -> None:
    write_environment(tmp_path, "prism-secure run --out a")
    assert json.loads((tmp_path / "environment.json").read_text())["facts"]["parameters"] is None
