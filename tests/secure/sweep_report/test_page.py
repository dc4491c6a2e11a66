"""The page of many runs: every figure and table is there, in files too, and works in a browser."""

from __future__ import annotations

import csv
import html
import json
import math
import re
from collections import Counter
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from prism_secure.cli import main
from prism_secure.errors import ConfigError, PrismError
from prism_secure.reporting import drawing
from prism_secure.run_folder.run import Run
from prism_secure.sweep import objectives
from prism_secure.sweep.composition import compose
from prism_secure.sweep.report import page as page_module
from prism_secure.sweep.report import subject_of_runs, subject_of_sweep, tables
from prism_secure.sweep.report.answers import by_setting
from prism_secure.sweep.report.figures import Mark, answer_plot
from prism_secure.sweep.results import read_sweep
from prism_secure.wording import format_epsilon

from .. import fake_run
from . import chromium, fake_sweep

pytest.importorskip("plotly", reason="the extra 'sweep' is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="the extra 'sweep' is not installed")
EXPLORE = (Path(__file__).parent / "explore.js").read_text("utf-8")
needs_chromium = pytest.mark.skipif(chromium.CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six points of two seeds, the last run not begun, one audited; its page written by the command."""
    folder = fake_sweep.make_sweep(tmp_path_factory.mktemp("sweeps") / "flip", rounds=4, leave_out=1)
    audited = next(run for run in read_sweep(folder).runs if run.config.privacy.flip > 0)
    bound = {
        "unit": "client", "view": "sum", "adjacency": "zero_out", "epsilon": 0.0625, "confidence": 0.95
    }  # fmt: skip
    (audited.folder / "audit.json").write_text(json.dumps({"lower_bounds": [bound]}))
    assert main(["report", str(folder)]) == 0
    return folder


def read_csv(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "report" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_table_is_there_as_csv_and_parquet_with_the_same_values(sweep: Path) -> None:
    for name, rows in (("points", 6), ("runs", 12), ("rounds", 44), ("composed", 1)):
        text, typed = read_csv(sweep, name), parquet.read_table(sweep / "report" / f"{name}.parquet")
        assert len(text) == rows
        assert typed.column_names == list(text[0])
        for written, kept in zip(text, typed.to_pylist(), strict=True):
            for column, value in kept.items():
                if isinstance(value, float):
                    assert float(written[column]) == value
                else:
                    assert written[column] == ("" if value is None else str(value).lower()), column


def test_points_csv_has_the_means_and_intervals_of_the_reading_interface(sweep: Path) -> None:
    for point, row in zip(read_sweep(sweep).points, read_csv(sweep, "points"), strict=True):
        assert float(row["fid"]) == point.mean("fid")
        interval = point.interval("fid")
        assert (row["fid_low"] == "") == (interval is None)
        if interval:
            assert (float(row["fid_low"]), float(row["fid_high"])) == interval
        assert float(row["epsilon.sum_zero_out"]) == point.epsilon("sum_zero_out")


def test_the_front_has_no_point_that_another_beats(sweep: Path) -> None:
    rows = read_csv(sweep, "points")
    best = [row for row in rows if row["front.epsilon.sum_zero_out"] == "true"]
    assert 0 < len(best) < len(rows)
    for row in best:
        for other in rows:
            cheaper = float(other["epsilon.sum_zero_out"]) <= float(row["epsilon.sum_zero_out"])
            assert not (cheaper and float(other["fid"]) < float(row["fid"]))


def test_the_page_says_what_all_runs_tell_together(sweep: Path) -> None:
    total = compose([run for run in read_sweep(sweep).runs if run.config.privacy.flip > 0])
    noisy = subject_of_runs([r for r in read_sweep(sweep).runs if r.config.privacy.flip > 0 and r.finished])
    row = dict(zip(tables.composed_table(noisy).columns, tables.composed_table(noisy).rows[0], strict=True))
    assert row["sum_zero_out"] == total.epsilon.sum_zero_out < math.inf
    text = (sweep / "report.html").read_text("utf-8")
    composed = text[text.index('<table id="composed"') :].split("</table>")[0]
    assert composed.count(">inf<") == 5  # flip = 0 is among them, and nothing is claimed for one image


def test_a_lower_bound_is_drawn_from_itself_to_the_upper_bound_at_the_points_height() -> None:
    def ticks(*marks: Mark) -> Counter[tuple[float, float]]:
        svg = answer_plot({"fid": {"ε": marks}}, ["all"])
        return Counter(
            (float(x), float(y)) for x, y in re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"', svg)
        )

    others = Mark("#1", 0.1, 200.0), Mark("#2", 1.0, 150.0)
    last = Mark("#3", 10.0, 100.0)
    without, audited = ticks(*others, last), ticks(*others, replace(last, floor=0.1))
    left, right = sorted((audited - without).elements())
    assert audited.total() == without.total() + 2
    assert left[1] == right[1]
    assert without[right] == 1, "the mark of the point itself"
    assert left[0] in {x for x, _ in without}, "where the axis, and the first point, have the same epsilon"
    assert left[0] < right[0]


def test_the_first_table_and_sentence_answer_at_each_epsilon(sweep: Path) -> None:
    text = html.unescape((sweep / "report.html").read_text("utf-8"))
    table = text[text.index('<table id="best-at"') :].split("</table>")[0]
    assert text.index('<table id="best-at"') == text.index("<table"), "the first one"
    rows = [re.sub(r"<[^>]+>|\s+", " ", row) for row in table.split("<tr>")[2:]]
    assert [re.search(r"ε ≤ [\d.]+|any ε", row)[0] for row in rows] == [
        "ε ≤ 0.5", "ε ≤ 1", "ε ≤ 2", "ε ≤ 4", "ε ≤ 8", "ε ≤ 10", "any ε"
    ]  # fmt: skip
    points = read_sweep(sweep).points
    for limit, row in zip((0.5, 1, 2, 4, 8, 10), rows, strict=False):
        within = [point for point in points if point.epsilon("sum_zero_out") <= limit]
        best = min(within, key=lambda point: point.mean("fid"))
        number = points.index(best) + 1
        assert f"#{number}: {best.name}" in row or f"as above (#{number})" in row
    assert "no meaningful guarantee" in rows[-1]
    assert "no meaningful guarantee" not in "".join(rows[:-1])


def test_the_page_and_its_files_ask_the_network_for_nothing(sweep: Path) -> None:
    text = (sweep / "report.html").read_text("utf-8")
    for word in ('src="http', 'href="http', "@import", "url(http"):
        assert word not in text
    best = [row for row in read_csv(sweep, "points") if row["front.epsilon.sum_zero_out"] == "true"]
    assert (sweep / "report" / "samples-sum.svg").read_text("utf-8").count("<image ") == len(best)
    for name in ("answer", "rounds", "heat", "samples-sum"):
        svg = (sweep / "report" / f"{name}.svg").read_text("utf-8")
        assert svg.startswith("<svg xmlns=")
        assert "var(--" not in svg


def test_private_held_out_images_are_said_to_be_outside_epsilon(tmp_path: Path) -> None:
    grid = 'privacy.flip = [0.1, 0.2]\nmetrics.held_out = ["private"]'
    folder = fake_sweep.make_sweep(tmp_path / "private", grid, seeds=1, rounds=2, images=False)
    assert main(["report", str(folder)]) == 0
    text = (folder / "report.html").read_text("utf-8")
    assert "Quality is outside ε" in text
    assert "declared public" not in text


def test_runs_without_a_secure_sum_are_counted_on_the_page(sweep: Path, tmp_path: Path) -> None:
    words = "The secure sum was not run"
    assert words not in (sweep / "report.html").read_text("utf-8")
    for values, said in (("true", "in any of these 2 runs"), ("true, false", "in 2 of these 4 runs")):
        folder = tmp_path / str(len(values))
        grid = f"privacy.flip = [0.1, 0.2]\nsecure_sum.simulate = [{values}]"
        fake_sweep.make_sweep(folder, grid, seeds=1, rounds=2, images=False)
        assert main(["report", str(folder)]) == 0
        assert f"{words}</strong> {said}" in (folder / "report.html").read_text("utf-8")


def test_a_page_of_one_seed_says_that_chance_decides_between_close_points(
    sweep: Path, tmp_path: Path
) -> None:
    folder = fake_sweep.make_sweep(
        tmp_path / "one", "privacy.flip = [0.1, 0.2]", seeds=1, rounds=2, images=False
    )
    assert main(["report", str(folder)]) == 0
    for page, once in ((folder, True), (sweep, False)):
        text = (page / "report.html").read_text("utf-8")
        assert "nothing here tells a difference from chance" in text
        assert ("Each point has one seed, so" in text) is once
        assert ("dashes are both" in text) is not once
        assert "95% intervals over" not in text, "of two seeds there is none"


def test_a_page_says_how_many_seeds_points_have_and_draws_intervals_of_three_and_both_of_two(
    tmp_path: Path,
) -> None:
    folder = fake_sweep.make_sweep(
        tmp_path / "three", "privacy.flip = [0.1, 0.2]", seeds=3, rounds=2, images=False, leave_out=1
    )
    shown = read_sweep(folder).points
    assert main(["report", str(folder)]) == 0
    text = (folder / "report.html").read_text("utf-8")
    for words in ("2 points, 3 seeds a point (0, 1, 2)", "dashes are both", "95% intervals over three seeds"):
        assert words in text, words
    assert shown[0].interval("fid") is not None
    assert shown[1].interval("fid") is None
    assert "#2 has fewer than three finished seeds, hence no interval" in text
    uneven = subject_of_runs([Run.open(run.folder) for point in shown for run in point.finished])
    page_module.write_page(uneven, tmp_path)
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "2 points, 2 or 3 seeds a point (0, 1, 2)" in text
    assert "<h2" in text
    two = [point["two"]["fid"] for point in page_module._data(uneven)["points"]]
    assert two == [[], pytest.approx(shown[1].values("fid"), rel=1e-5)]


@pytest.mark.parametrize(
    ("metric", "interval", "drawn"),
    [
        ("fid", (-6.4, 142.2), (0.0, 142.2)),
        ("gen2real", (0.4, 1.2), (0.4, 1.0)),
        ("recall", (-0.1, 0.3), (0.0, 0.3)),
        ("density", (0.5, 1.4), (0.5, 1.4)),
        ("kid", (-0.01, 0.02), (-0.01, 0.02)),
    ],
)
def test_no_interval_is_drawn_beyond_what_a_metric_can_be(
    metric: str, interval: tuple[float, float], drawn: tuple[float, float]
) -> None:
    assert page_module._possible(interval, metric) == drawn


@pytest.mark.parametrize("words", ["FID", "lower quartile", "higher is better"])
def test_where_words_stand_is_decided_by_a_metrics_direction_whatever_it_is_called(
    words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def top(metric: str) -> float:
        marks = [Mark(f"#{i}", epsilon, 1.0 + i) for i, epsilon in enumerate([0.5, 2.0, math.inf])]
        svg = answer_plot({metric: {"ε": marks}}, ["all"])
        (place,) = re.findall(r'y="([\d.]+)"[^>]*>ε &gt; 10: no meaningful', svg)
        return float(place)

    for metric in objectives.TITLES:
        monkeypatch.setitem(objectives.TITLES, metric, words)
    falling = {metric: top(metric) for metric in ("fid", "kid", "sliced_wasserstein")}
    rising = {metric: top(metric) for metric in ("recall", "density", "label_accuracy")}
    assert max(falling.values()) < 100 < 200 < min(rising.values()), (falling, rising)


def test_every_metric_of_the_tables_has_a_title_with_its_direction() -> None:
    assert set(objectives.TITLES) == set(tables.QUALITY) - {"gen2real_ceiling"}
    for metric in objectives.TITLES:
        better = "lower" if objectives.direction(metric) == "minimize" else "higher"
        assert objectives.titled(metric).endswith(f" ({better} is better)")


@needs_chromium
def test_in_a_browser_a_metrics_direction_decides_whatever_it_is_called(sweep: Path, tmp_path: Path) -> None:
    text = (sweep / "report.html").read_text("utf-8")
    for words, other in (("(higher is better)", "(lower quartile)"), ("(lower is better)", "(distance)")):
        assert words in text
        text = text.replace(words, other)
    (tmp_path / "report.html").write_text(text, "utf-8")
    ask = """
        const metric = document.querySelectorAll("#figure-answer select")[0], told = {};
        for (const name of ["fid", "kid", "coverage", "recall"]) {
          metric.value = name; metric.dispatchEvent(new Event("change"));
          await new Promise((done) => setTimeout(done, 300));
          const notes = document.querySelector("#figure-answer .plot").layout.annotations;
          told[name] = notes.find((note) => note.text.includes("no meaningful")).y;
        }
        return told;
    """
    answer = chromium.ask(tmp_path / "report.html", tmp_path / "browser", ask, width=1280)
    assert answer["trouble"] == []
    assert answer["told"] == {"fid": 1, "kid": 1, "coverage": 0, "recall": 0}


def test_a_page_mentions_a_strip_only_where_one_is_drawn(sweep: Path, tmp_path: Path) -> None:
    words = "A grey strip"
    assert words in (sweep / "report.html").read_text("utf-8"), "flip = 0 has an infinite epsilon"
    folder = fake_sweep.make_sweep(
        tmp_path / "far", "privacy.flip = [0.1, 0.2]", seeds=1, rounds=2, images=False
    )
    assert min(point.epsilon("upload_zero_out") for point in read_sweep(folder).points) > 2
    for words_of, epsilons, drawn in (
        ("no meaningful guarantee", [60.0, 1392.0], True),
        ("no meaningful guarantee", [0.5, 2.0], False),
        ("no meaningful guarantee", [2.0, math.inf], True),
    ):
        marks = [Mark(f"#{i}", epsilon, 100.0 - i) for i, epsilon in enumerate(epsilons)]
        assert (words_of in answer_plot({"fid": {"ε": marks}}, ["all"])) is drawn, epsilons


def test_a_page_explains_every_metric_of_its_table_and_omits_rounds_that_are_one(
    sweep: Path, tmp_path: Path
) -> None:
    text = (sweep / "report.html").read_text("utf-8")
    told = text[text.index('id="meaning"') :]
    for metric in ("FID, KID", "Recall, coverage", "gen2real", "Label accuracy"):
        assert f"<dt>{metric}</dt>" in told
    assert 'id="figure-rounds"' in text
    assert "hollow ones fall short of it" in text
    folder = fake_sweep.make_sweep(
        tmp_path / "one", "privacy.flip = [0.1, 0.2]", seeds=1, rounds=1, images=False
    )
    assert main(["report", str(folder)]) == 0
    assert 'id="figure-rounds"' not in (folder / "report.html").read_text("utf-8")


def test_only_a_command_that_makes_runs_is_given_to_repeat_them(sweep: Path, tmp_path: Path) -> None:
    assert "<pre><code>prism-secure sweep flip.toml" in (sweep / "report.html").read_text("utf-8")
    runs = [run for run in read_sweep(sweep).runs if run.finished][:2]
    page_module.write_page(subject_of_runs(runs, "prism-secure demo"), tmp_path)
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "<pre><code>prism-secure demo" not in text
    assert "This page was made by <code>prism-secure demo</code>" in text


@pytest.mark.parametrize(
    ("left_out", "told"),
    [
        (4, "No run has finished yet; planned: flip = 0.1, 0.2."),
        (3, "No point has three finished seeds yet, so nothing"),
    ],
)
def test_a_page_of_a_sweep_that_has_just_begun_says_what_is_not_there(
    left_out: int, told: str, tmp_path: Path
) -> None:
    grid = "privacy.flip = [0.1, 0.2]"
    folder = fake_sweep.make_sweep(tmp_path / "begun", grid, rounds=2, images=False, leave_out=left_out)
    assert main(["report", str(folder)]) == 0
    text = (folder / "report.html").read_text("utf-8")
    assert told in text
    for words in ("What does ε cost in quality", 'id="figure-answer"', 'id="best"', 'href="#answer"'):
        assert (words in text) is (left_out == 3), words
    assert "no point has one up to" not in text or left_out == 3
    runs = text[text.index('<table id="runs"') : text.index("</table>", text.index('<table id="runs"'))]
    waiting = [row for row in runs.split("<tr>") if "<td>waiting" in row]
    assert len(waiting) == left_out
    assert not any("inf" in row for row in waiting), "what charged nothing has no epsilon"


def test_words_from_a_recipe_cannot_end_the_script(tmp_path: Path) -> None:
    assert "</script>" not in page_module._for_script({"label": "</script><script>alert(1)"})


def test_without_plotly_the_extra_is_named(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(PrismError, match=r"pip install '\.\[sweep\]'"):
        page_module.write_page(subject_of_sweep(read_sweep(sweep)), sweep)


def test_compared_runs_that_differ_in_the_seed_alone_are_one_point(sweep: Path) -> None:
    runs = [run for run in read_sweep(sweep).points[1].runs if run.finished]
    subject = subject_of_runs([Run.open(run.folder) for run in runs])
    assert len(runs) == 2
    assert [len(point.runs) for point in subject.points] == [2]
    assert subject.keys == ()


def test_a_run_compared_with_itself_is_refused(sweep: Path) -> None:
    run = read_sweep(sweep).points[0].runs[0]
    with pytest.raises(ConfigError, match="more than once"):
        subject_of_runs([run, run])
    with pytest.raises(ConfigError, match="two runs at least"):
        subject_of_runs([run])


def test_compare_prints_each_run_and_both_together(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (point.runs[0] for point in read_sweep(sweep).points[2:4])
    assert main(["compare", str(first.folder), str(second.folder), "--out", str(tmp_path / "page")]) == 0
    lines = capsys.readouterr().out
    assert "clip=0.25" in lines
    assert "clip=1 " in lines
    together = compose([first, second]).epsilon.sum_zero_out
    assert f"2 runs on fashion_mnist together: ε(SUM) = {format_epsilon(together)}," in lines
    assert (tmp_path / "page" / "report.html").exists()
    assert len(read_csv(tmp_path / "page", "runs")) == 2


@needs_chromium
@pytest.mark.parametrize("width", [1280, 400])
def test_in_a_browser_figures_are_drawn_and_tables_sort_and_filter(
    sweep: Path, tmp_path: Path, width: int
) -> None:
    answer = chromium.ask(sweep / "report.html", tmp_path / "browser", EXPLORE, width=width)
    assert answer["trouble"] == []
    assert answer["width"] == width
    assert answer["wide"] <= width, "the page scrolls sideways"
    told = answer["told"]
    up = [float(value) for value in told["up"]]
    assert (up, told["upSort"]) == (sorted(up), "ascending")
    assert told["down"] == told["up"][::-1]
    assert told["below"] == told["up"][:2][::-1]
    assert (told["flip"], told["none"]) == (2, [])
    for name, figure in told["figures"].items():
        assert min(figure["size"]) > 150, name
        assert figure["size"][0] == figure["place"] <= width
        assert figure["marks"] > 0, name
        assert figure["fixed"] == "none", f"{name} is shown twice"
    assert told["axis"] == "coverage (higher is better)"
    rounds = told["figures"]["rounds"]
    assert {"round", "FID (lower is better)"} == {
        title.replace("FID(", "FID (") for title in rounds["titles"]
    }
    assert set(rounds["across"]) >= {"2", "4"}
    assert all(tick.isdecimal() for tick in rounds["across"])
    audited = next(point for point in read_sweep(sweep).points if point.settings["privacy.flip"] > 0)
    rows = told["floors"]["shown"]
    assert len(rows) == (2 if width > 620 else 1), "one in the row of each metric"
    for low, high in rows:
        assert high - low == pytest.approx(math.log10(audited.epsilon("sum_zero_out") / 0.0625), rel=1e-4)
    assert told["floors"]["hidden"] == []


def test_the_pages_look_and_the_figures_files_have_the_same_colours() -> None:
    css = (files("prism_secure.reporting") / "page.css").read_text("utf-8").split("@media")[0]
    assert {name: re.search(rf"--{name}: (#\w+)", css)[1] for name in drawing.LIGHT} == drawing.LIGHT


@pytest.mark.parametrize(
    ("overrides", "shorts", "words"),
    [
        (["privacy.record_release=summed"], ["SUM, 10 of 10 honest"], "while all 10 clients are honest"),
        (["privacy.record_release=summed", "privacy.record_cohort=1"], ["UPLOAD"], "whoever else is honest"),
        (["privacy.record_release=client"], ["UPLOAD"], "whoever else is honest"),
        (
            ["privacy.record_release=summed", "privacy.record_cohort=7"],
            ["SUM, 7 of 10 honest"],
            "while 7 of the 10 clients are honest",
        ),
        (None, ["SUM, 10 of 10 honest", "UPLOAD"], "while all 10 clients are honest"),
    ],
)
def test_the_epsilon_of_one_image_names_its_view_wherever_it_stands(
    overrides: list[str] | None,
    shorts: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """None: a run each of two kinds of release."""
    kinds = [overrides or ["privacy.record_release=summed"], overrides or ["privacy.record_release=client"]]
    folders = []
    for number, kind in enumerate(kinds):
        told = ["privacy.record_epsilon=2", f"privacy.clip={number + 1}", *kind]
        folders.append(fake_run.make_run(tmp_path / f"run-{number}", told, rounds=2))
    assert main(["compare", *map(str, folders), "--out", str(tmp_path / "page")]) == 0
    said = capsys.readouterr().out
    text = html.unescape((tmp_path / "page" / "report.html").read_text("utf-8"))
    drawn = html.unescape((tmp_path / "page" / "report" / "answer.svg").read_text("utf-8"))
    name = f"ε of one image: {' or '.join(shorts)}"
    assert f'<th scope="col">{name}</th>' in text
    assert f"{name}: " in drawn, "the picture's title"
    data = json.loads(re.findall(r'id="data">(.*?)</script>', text)[0])
    assert data["views"]["epsilon.record"] == name
    for short in shorts:
        assert f"{short}</small>" in text
        assert short in said
    assert f"{words}.</p>" in text
    (together,) = [line for line in said.splitlines() if "together: " in line]
    assert together.endswith(f"{words}."), "of several, the one that needs somebody's honesty"


def test_cohorts_of_many_sizes_have_a_short_title_and_a_mark_each(tmp_path: Path) -> None:
    """A panel's title has no room for a condition of each; a point has, in the table and at its images."""
    folders = []
    for clients in (10, 20, 30):
        told = ["privacy.record_epsilon=2", "privacy.record_release=summed", f"federation.clients={clients}"]
        folders.append(fake_run.make_run(tmp_path / f"{clients}", told, rounds=2))
    assert main(["compare", *map(str, folders), "--out", str(tmp_path / "page")]) == 0
    text = html.unescape((tmp_path / "page" / "report.html").read_text("utf-8"))
    data = json.loads(re.findall(r'id="data">(.*?)</script>', text)[0])
    assert data["views"]["epsilon.record"] == "ε of one image: SUM, honest as in the table"
    table = text[text.index('<table id="points"') :].split("</table>")[0]
    for clients in (10, 20, 30):
        assert table.count(f">SUM, {clients} of {clients} honest</small>") == 1


@pytest.mark.parametrize("share", [0.004, 0.37])
def test_a_line_is_said_to_explain_what_it_does(
    share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fake_sweep.make_sweep(tmp_path / "sweep", rounds=2)
    monkeypatch.setattr(
        page_module, "lines", lambda subject: replace(by_setting(subject, "privacy.clip"), share=share)
    )
    text = html.unescape(page_module.write_sweep_page(folder).read_text("utf-8"))
    assert ("(37%; least squares" in text) is (share > 0.3)
    assert ("no setting that can be compared at one ε explains anything that shows" in text) is (share < 0.3)


@pytest.mark.parametrize(
    ("folders", "labels"),
    [
        (("/data/north/scans", "/data/south/scans"), ["north/scans", "south/scans"]),
        (("/data/north/scans", "/data/north/drawings"), ["scans", "drawings"]),
        (("/scans", "/data/scans"), ["/scans", "data/scans"]),
    ],
)
def test_paths_that_runs_differ_in_are_shown_as_far_as_tells_them_apart(
    folders: tuple[str, str], labels: list[str], tmp_path: Path
) -> None:
    runs = []
    for number, folder in enumerate(folders):
        told = ["data.source=images", f"data.folder={folder}", "metrics.held_out=public"]
        runs.append(fake_run.make_run(tmp_path / f"run-{number}", told, rounds=2))
    subject = subject_of_runs([Run.open(folder) for folder in runs])
    assert subject.keys == ("data.folder",)
    assert [subject.label(point) for point in subject.points] == [f"folder={label}" for label in labels]
    page_module.write_page(subject, tmp_path / "page")
    text = (tmp_path / "page" / "report.html").read_text("utf-8")
    for folder in folders:
        assert (folder in text) == (folder in labels)
