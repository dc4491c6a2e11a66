"""Every page in headless Chromium, wide and narrow, light and dark, and on paper: nothing is cut off, shut or
too faint to read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from prism_secure.cli import main
from prism_secure.config import load_config
from prism_secure.reporting.disclosure import write_disclosure
from prism_secure.rounds.simulation import run

from . import fake_run
from .sweep_report import chromium, fake_sweep
from .test_measured_rounds import MEASURED
from .tiny_data import TINY, write_data

pytestmark = pytest.mark.skipif(chromium.CHROMIUM is None, reason="no Chromium on this machine")

WIDTHS = [1280, 400]
PAPER = 716
"""A4 less the margins that a browser leaves, in its pixels."""
BUDGET = '[[limit]]\nunit = "client"\nview = "sum"\nadjacency = "zero_out"\nepsilon = 1.0\ndelta = 1e-5\n'
MECHANISM = """
import numpy as np

def leaky(bits, theta, seed):
    return bits ^ (np.random.default_rng(seed).random(bits.shape) < 0.1)
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pytest.importorskip("plotly", reason="the extra 'sweep' is not installed")
    pytest.importorskip("pyarrow", reason="the extra 'sweep' is not installed")
    place = tmp_path_factory.mktemp("pages")
    measured, trained = place / "measured", fake_run.make_run(place / "trained", ["privacy.clip=1"])
    data = f"data.folder={write_data(place / 'data')}"
    run(load_config(None, [*TINY, *MEASURED, data, "secure_sum.mode=semi_honest"]), measured)
    sweep = fake_sweep.make_sweep(place / "sweep", rounds=2)
    (place / "budget.toml").write_text(BUDGET)
    (place / "told_mechanism.py").write_text(MECHANISM)
    names = ("audit", "budget", "mechanism", "membership")
    audit, budget, mechanism, membership = (place / f"{name}.html" for name in names)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.syspath_prepend(str(place))
        assert main(["report", str(trained)]) == main(["report", str(sweep)]) == 0
        assert main(["audit", "run", str(measured), "--html", str(audit)]) == 0
        limits = ["--budget", "budget.toml", str(measured), str(trained)]
        assert main(["audit", "budget", *limits, "--html", str(budget)]) == 1
        quick = ["--flip", "0.25", "--dim", "64", "--trials", "64"]
        assert main(["audit", "mechanism", "told_mechanism:leaky", *quick, "--html", str(mechanism)]) == 1
        worlds = ["--flip", "0.25", "--clip", "0.5", "--cohort", "10", "--worlds", "1000"]
        assert main(["audit", "membership", *worlds, "--out", str(membership)]) == 0
    return {
        "measured": measured / "report.html",
        "trained": trained / "report.html",
        "disclosure": write_disclosure(measured),
        "sweep": sweep / "report.html",
        **dict(zip(names, (audit, budget, mechanism, membership), strict=True)),
    }


@pytest.fixture(scope="module")
def seen(pages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("browser")
    return chromium.sticking_out(list(pages.values()), folder, widths=WIDTHS, paper=PAPER)


@pytest.mark.parametrize(
    "name", ["measured", "trained", "disclosure", "sweep", "audit", "budget", "mechanism", "membership"]
)
def test_no_page_scrolls_sideways_and_paper_has_all_of_it(
    name: str, pages: dict[str, Path], seen: list[dict[str, Any]]
) -> None:
    """On a screen a wide table scrolls in a box of its own; on paper it fits, and nothing is shut."""
    number = list(pages).index(name)
    found = [each for each in seen if each["page"].startswith(f"{number}-")]
    assert [(each["width"], each["paper"]) for each in found] == [(1280, False), (400, False), (PAPER, True)]
    for each in found:
        assert (each["out"], each["wide"], each["shut"]) == ([], 0, 0)
        assert each["unread"] == ({} if each["paper"] else {"light": [], "dark": []})


@pytest.mark.parametrize("name", ["measured", "trained", "disclosure", "sweep", "audit", "mechanism"])
def test_no_sentence_runs_into_the_next(name: str, pages: dict[str, Path]) -> None:
    body = pages[name].read_text("utf-8").partition("<body>")[2]
    words = re.sub(r"<(script|style|svg|code|pre).*?</\1>|<[^>]*>", "", body, flags=re.DOTALL)
    assert "prism-secure, " in words
    assert re.findall(r"\w+[a-z)][.;:][A-Z]\w+", words) == []


FAINT = """<style>
html { background: #fff; color: #000 } text { fill: #fff } .large { font-size: 30px; color: #949494 }
@media (prefers-color-scheme: dark) { html { background: #000; color: #fff } }
</style><p>ink</p><p style="color: #bbb">pale</p><p style="color: #444">deep</p><p class="large">large</p>
<svg width="90" height="30"><rect width="90" height="30" fill="#333"/><text y="20">deep bar</text></svg>
<svg width="90" height="30"><rect width="90" height="30" fill="#999"/><text y="20">pale bar</text></svg>"""


def test_what_sticks_out_or_is_faint_is_seen(tmp_path: Path) -> None:
    """A table without a box, one whose box does not scroll on paper, and one that is shut there; a figure
    whose box scrolls; ink that only white or only black carries, and words on bars."""
    row = f"<table><tr><td style='white-space:nowrap'>{'wide ' * 200}</td></tr></table>"
    bodies = {
        "bare": row,
        "boxed": f"<div class='scroll'>{row}</div>",
        "shut": "<details><summary>more</summary><table><tr><td>1</td></tr></table></details>",
        "figure": "<figure class='scroll'><svg width='900' height='20'></svg></figure>",
        "faint": FAINT,
    }
    look = "<style>.scroll { overflow-x: auto } @media print { .scroll { overflow: visible } }</style>"
    scheme = '<meta name="color-scheme" content="light dark">'
    pages = []
    for name, body in bodies.items():
        pages.append(tmp_path / f"{name}.html")
        pages[-1].write_text(f"<!DOCTYPE html><html><head>{scheme}{look}</head><body>{body}</body></html>")
    seen = chromium.sticking_out(pages, tmp_path / "browser", widths=[400], paper=PAPER)
    bare, boxed, shut, figure, faint = (seen[at : at + 2] for at in range(0, 10, 2))
    assert [bool(each["out"]) for each in bare] == [True, True]
    assert [each["wide"] > 0 for each in bare] == [True, True]
    assert [bool(each["out"]) for each in boxed] == [False, True]
    assert [each["shut"] for each in shut] == [0, 1]
    assert [each["out"][0].split()[0] for each in figure] == ["svg", "svg"]
    unread = {name: [told.split(": ")[0] for told in each] for name, each in faint[0]["unread"].items()}
    assert unread == {"light": ["pale", "pale bar"], "dark": ["deep", "pale bar"]}
    assert faint[0]["unread"]["dark"][1].endswith("255,255,255 on 153,153,153, 2.85")
