"""Each example runs, on a few images, and the diff that the page shows is the diff."""

import difflib
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PAGE = ROOT / "docs" / "plug-in.md"
PAIRS = [
    ("fedpm/fedpm.py", "fedpm/fedpm_secure.py"),
    ("fedpm/fedpm.py", "fedpm/fedpm_client_level.py"),
    ("fedpm/fedpm.py", "fedpm/fedpm_dp_sgd.py"),
    ("signsgd/signsgd.py", "signsgd/signsgd_secure.py"),
]


def _code(path: str) -> list[str]:
    """A script's lines without the docstring on top and blank ones."""
    return [line for line in (EXAMPLES / path).read_text().splitlines()[1:] if line.strip()]


def _diff(before: str, after: str) -> list[str]:
    lines = difflib.unified_diff(_code(before), _code(after), lineterm="", n=0)
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_fewer_than_ten_lines_change_and_the_page_shows_them(before, after):
    diff = _diff(before, after)
    assert 0 < sum(line.startswith("+") for line in diff) < 10
    assert "\n".join(diff) in PAGE.read_text()


def test_the_page_shows_what_measured_rounds_have_in_place_of_local_training():
    assert "\n".join(_diff("fedpm/fedpm.py", "fedpm/fedpm_measured.py")) in PAGE.read_text()


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a script of the examples in this process, as `python script.py` in its folder would."""

    def script(path: str, **environment: str) -> list[str]:
        folder = (EXAMPLES / path).parent
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.syspath_prepend(str(folder))
            for neighbour in folder.glob("*.py"):
                patch.delitem(sys.modules, neighbour.stem, raising=False)
            runpy.run_path(str(EXAMPLES / path), run_name="__main__")
            for neighbour in folder.glob("*.py"):
                sys.modules.pop(neighbour.stem, None)
        return capsys.readouterr().out.splitlines()

    return script


TINY = {"ROUNDS": "2", "IMAGES": "300"}


def test_fedpm_learns_the_same_with_the_secure_sum(run):
    plain = run("fedpm/fedpm.py", **TINY)
    assert len(plain) == 2
    assert plain == run("fedpm/fedpm_secure.py", **TINY)


def test_fedpm_at_client_level_says_what_it_spent(run):
    *rounds, last = run("fedpm/fedpm_client_level.py", **TINY)
    assert len(rounds) == 2
    found = re.fullmatch(r"client-level epsilon: ([0-9.]+) \(sum, zero_out\)", last)
    assert found
    assert 10 < float(found[1]) < 1000


def test_fedpm_with_dp_sgd_takes_just_the_steps_of_its_plan(run):
    *rounds, last = run("fedpm/fedpm_dp_sgd.py", **TINY)
    assert len(rounds) == 2
    found = re.fullmatch(r"record-level epsilon: ([0-9.]+) \(one image, add_remove\)", last)
    assert found
    assert 7.9 < float(found[1]) <= 8.0


def test_fedpm_by_measured_rounds_says_what_its_bits_cost(run):
    *rounds, last = run("fedpm/fedpm_measured.py", **TINY, DIRECTIONS="10")
    assert len(rounds) == 12
    found = re.fullmatch(r"record-level epsilon: ([0-9.]+) \(one image, sum, swap\)", last)
    assert found
    assert 1.9 < float(found[1]) <= 2.0


def test_signsgd_takes_the_same_steps_with_the_secure_sum(run):
    plain = run("signsgd/signsgd.py", STEPS="2")
    assert len(plain) == 1
    assert plain == run("signsgd/signsgd_secure.py", STEPS="2")


def test_three_processes_sum_their_images_over_a_socket():
    done = subprocess.run(
        [sys.executable, "run.py"],
        cwd=EXAMPLES / "numpy_vector",
        env=os.environ | {"PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "server: 3 clients, exact: True" in done.stdout
    assert len(set(re.findall(r"average pixel over 3 clients ([0-9.]+)", done.stdout))) == 1
    assert done.stdout.count("average pixel") == 3


def test_sums_over_https_open_though_one_is_late_one_dies_and_one_lies():
    """Also of what the page says: the parts to copy know no client of the example by its number."""
    done = subprocess.run(
        [sys.executable, "run.py"],
        cwd=EXAMPLES / "http",
        env=os.environ | {"PYTHONWARNINGS": "error", "DEADLINE": "4"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    said = done.stdout
    assert done.returncode == 0, said + done.stderr
    assert said.count("exact: True") == 4
    assert "round 1: sum of clients (0, 1, 3, 4), exact: True; silent: {'upload': (2,)}" in said
    assert re.search(r"round 2: sum of clients .*silent: {.*'upload': \(4,\)}", said)
    assert re.search(
        r"round 3: client 3 at share: .* for client 0 does not open .*bytes prove it: True", said
    )
    assert said.count("prove it") == 1  # nobody else, and not again
    assert re.search(r"round 3: sum of clients \(.*3\)", said)
    assert "round 4: sum of clients (0, 1, 2), exact: True; silent: {'advertise': (4,)}" in said
    pages = {path.name: path.read_text() for path in (EXAMPLES / "http").glob("*.py")}
    assert not re.search(r"\b(LATE|DEAD|LIAR)\b", pages["client.py"] + pages["server.py"] + pages["run.py"])
