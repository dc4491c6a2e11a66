"""The picture of membership: page and figure come out, and what cannot be drawn is one clear line."""

from __future__ import annotations

import errno
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prism_privacy import View
from prism_privacy.audit.membership import Membership
from prism_secure.audit.membership_page import attack, cells
from prism_secure.cli import main

SETTINGS = ["audit", "membership", "--flip", "0.25", "--clip", "0.5", "--cohort", "10", "--worlds", "2000"]


def test_page_has_both_views_and_no_request(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main([*SETTINGS, "--rounds", "3", "--out", str(page)]) == 0
    text = page.read_text("utf-8")
    assert "from the opened sums" in text
    assert "from the client&#39;s uploads" in text or "from the client's uploads" in text
    assert text.count("<svg") == 2
    assert "://" not in text


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_figure_alone_is_on_white_and_in_true_colours(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"figure.{ending}"
    assert main([*SETTINGS, "--out", str(path)]) == 0
    if ending == "png":
        colours = {colour for _, colour in Image.open(path).convert("RGB").getcolors(1 << 24) or []}
        assert {(0xFF, 0xFF, 0xFF), (0x00, 0x72, 0xB2), (0xB8, 0x50, 0x00)} <= colours
    else:
        assert "#0a0a0" not in path.read_text("utf-8")


@pytest.mark.parametrize("flip", ["1e-16", "1e-50", "0"])
def test_no_noise_is_refused_with_its_cause_and_all_that_is_drawn_has_a_bound(
    flip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert main([*SETTINGS, "--flip", flip, "--out", str(page)]) == 2
    said = capsys.readouterr().err
    assert "flip must lie in [1e-15, 0.5)" in said
    assert "inf" in said
    for most in (["--clip", "1e6"], ["--rounds", "1000000000"], ["--delta", "1e-300"], ["--cohort", "1"]):
        assert main([*SETTINGS, "--flip", "1e-15", *most, "--out", str(page)]) == 0
        assert not re.search(r"\b(inf|nan)\b", page.read_text("utf-8"))


@pytest.mark.parametrize(
    "wrong", [["--out", "a.pdf"], ["--flip", "0.6"], ["--worlds", "10"], ["--theta", "0"], ["--cohort", "0"]]
)
def test_what_cannot_be_drawn_is_one_line(
    tmp_path: Path, wrong: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SETTINGS, "--out", "a.html", *wrong]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ["html", "png", "svg"])
def test_disk_that_refuses_is_one_line_and_leaves_nothing(
    tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "mkstemp", full)
    assert main([*SETTINGS, "--out", str(tmp_path / f"picture.{ending}")]) == 5
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def told(page: Path) -> str:
    """The table of a page as words."""
    table = page.read_text("utf-8").partition("<table>")[2].partition("</table>")[0]
    return " ".join(re.sub("<[^>]*>", " ", table).split())


@pytest.mark.parametrize(("count", "missing"), [("1000", 2), ("2000", 1), ("19999", 1), ("20000", 0)])
def test_rate_that_the_worlds_cannot_carry_is_not_told(count: str, missing: int, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main([*SETTINGS, "--worlds", count, "--out", str(page)]) == 0
    words = told(page)
    assert words.count("too few worlds") == 2 * missing
    assert words.count("--worlds 20000") == 2 * (missing > 0)
    assert len(re.findall(r"% at [\d.]+% to [\d.]+% false", words)) == 2 * (3 - missing)


def test_what_is_certified_is_held_against_the_false_alarms_that_there_may_be() -> None:
    """Beside the guarantee at the rate aimed at, many of these correct mechanisms would seem to break it."""
    over_aim = over = 0
    for seed in range(16):
        worlds = Membership(flip=0.25, clip=0.1, cohort=100)
        found = attack(worlds, count=2000, seed=seed, delta=1e-5)
        for view in View:
            for rate, cell in zip((0.001, 0.01, 0.1), cells(found, view), strict=True):
                assert (cell is None) == (rate == 0.001)
                if cell is not None:
                    assert cell.true[1] <= cell.true[0] <= cell.true[2]
                    assert cell.false[1] <= cell.false[0] <= cell.false[2]
                    over_aim += cell.true[0] > found.certified(view, np.array([rate]))[0]
                    over += cell.true[1] > cell.certified
    assert over == 0
    assert over_aim > 0
