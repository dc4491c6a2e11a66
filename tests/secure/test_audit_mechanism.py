"""`prism-secure audit mechanism`: exit codes, and a page and a JSON file that say the same."""

from __future__ import annotations

import html
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from prism_privacy.audit import Claim, audit_mechanism
from prism_secure.cli import main
from prism_secure.commands.audit_mechanism import _Bar

MODULE = """
import numpy as np

def release(flip):
    def f(bits, theta, seed):
        return bits ^ (np.random.default_rng(seed).random(bits.size) < flip)
    return f

honest, leaky = release(0.25), release(0.125)
table = {}

def broken(bits, theta, seed):
    raise RuntimeError("no entropy today")

class Clients:
    honest = staticmethod(honest)
"""

QUICK = ["--flip", "0.25", "--dim", "256", "--trials", "128"]


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "audited_mechanisms.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # restored afterwards, with what the command adds


def audit(name: str, *options: str) -> int:
    return main(["audit", "mechanism", f"audited_mechanisms:{name}", *QUICK, *options])


@pytest.mark.parametrize("name", ["honest", "Clients.honest"])
def test_a_clean_mechanism_ends_with_0(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit(name) == 0
    said = capsys.readouterr().out
    assert f"audited_mechanisms:{name}: clean" in said
    assert "blamed with probability at most 0.01" in said


def test_a_finding_ends_with_1_and_is_in_both_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit("leaky", "--html", "audit.html", "--json", "audit.json") == 1
    said = capsys.readouterr().out
    assert "half of the claimed noise" in said
    cause, _, follows = said.partition("which follows from flips of")
    assert "the same coins are used again" not in said
    assert "coins across rounds" not in cause
    assert "coins across rounds" in follows
    report = json.loads((tmp_path / "audit.json").read_text())
    page = html.unescape((tmp_path / "audit.html").read_text())
    assert report["verdict"] == "finding"
    assert report["command"].startswith("prism-secure audit mechanism audited_mechanisms:leaky")
    assert "The claim is false." in page
    assert report["command"] in page
    for finding in report["findings"]:
        assert finding["name"].lower() in page.lower()
    for check in report["checks"]:
        assert check["evidence"] in page
    for bound in report["lower_bounds"]:
        assert bound["assumption"] in page
    assert not re.search(r"<script|https?://|<link(?![^>]*data:)", page)


def test_what_could_not_be_checked_ends_with_2_and_says_so_on_the_page(tmp_path: Path) -> None:
    options = ["--flip", "0.01", "--dim", "64", "--trials", "64", "--html", "audit.html"]
    (tmp_path / "little_noise.py").write_text(MODULE.replace("release(0.25)", "release(0.01)"))
    assert main(["audit", "mechanism", "little_noise:honest", *options]) == 2
    assert "not everything could be examined" in (tmp_path / "audit.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["audited_mechanisms:broken", *QUICK], "RuntimeError: no entropy today"),
        (["audited_mechanisms:honest", "--flip", "0.5"], "flip must be in"),
        (["audited_mechanisms:nobody", *QUICK], "has no 'nobody'"),
        (["audited_mechanisms:table", *QUICK], "is not callable, it is a dict"),
        (["audited_mechanisms", *QUICK], "expected MODULE:CALLABLE"),
        (["no_such_module:f", *QUICK], "could not import 'no_such_module'"),
    ],
)
def test_what_cannot_be_audited_ends_with_2_and_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "mechanism", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_the_bar_shows_the_probe_and_the_calls() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with _Bar(console) as progress:

        def honest(bits, theta, seed):
            return bits ^ (np.random.default_rng(seed).random(bits.size) < 0.25)

        audit_mechanism(honest, Claim(flip=0.25), dim=256, trials=64, progress=progress)
    assert "replay" in console.file.getvalue()  # type: ignore[attr-defined]
