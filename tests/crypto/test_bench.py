"""The benchmark runs, checks its sums, and says so when flwr or matplotlib are missing."""

from __future__ import annotations

import importlib.util
import json

import pytest

from prism_crypto.bench import flower_secagg as bench_flower
from prism_crypto.bench import secure_sum as bench
from prism_crypto.bench.growth import one_active_client, one_client
from prism_crypto.bench.rows import in_turn, markdown, read
from prism_crypto.primitives.chosen_graph import chosen_parameters
from prism_crypto.session import Session
from prism_crypto.spec import CountSpec


@pytest.fixture
def small(monkeypatch):
    """Sessions of six clients, one client of twenty, where the real ones have a hundred and a thousand."""
    real = bench._session
    monkeypatch.setattr(
        bench,
        "_session",
        lambda n, d, mode, dropped=0, **options: real(min(n, 6), 50, mode, min(dropped, 1), **options),
    )

    def few(n, d, colluders=0, **options):
        return one_client(20, 50, colluders=min(colluders, 1), **options)

    monkeypatch.setattr(bench, "one_client", few)
    monkeypatch.setattr(bench, "one_active_client", few)
    monkeypatch.setattr(bench, "machine", lambda: {"processor": "one"})
    one = {"seconds": 3.0, "cpu": 2.0, "peak_mib": 99.0, "bits": 7.1, "neighbours": 99, "up": 10, "down": 20}
    monkeypatch.setattr(bench, "_in_another_process", lambda *_: one)


class StandIn:
    """In Flower's place: fixed times."""

    upload_bytes = 800

    def __init__(self, n, d, dropped=0):
        stages = ("setup", "share", "upload", "unmask", "server")
        self.seconds = {stage: [1.0, 2.0, 3.0] for stage in stages}

    def run(self, *, until="unmask"):
        return self


def test_without_flower_ours_stands_alone(small, capsys, monkeypatch):
    monkeypatch.setattr(bench, "flower_version", lambda: None)
    assert bench.main(["--quick", "--tries", "1"]) == 0
    shown = capsys.readouterr().out
    assert "flwr is missing" in shown
    assert "share stage" in shown
    assert "SecAgg+" not in shown


def test_flower_can_be_left_out_where_it_is_installed(small, capsys, monkeypatch):
    monkeypatch.setattr(bench, "flower_version", lambda: "9.9")
    assert bench.main(["--quick", "--tries", "1", "--no-flower"]) == 0
    assert "SecAgg+" not in capsys.readouterr().out


def test_with_flower_both_sides_stand_in_one_table(small, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "flower_version", lambda: "9.9")
    monkeypatch.setattr(bench, "FlowerSession", StandIn)
    plot, figures = tmp_path / "plot.png", tmp_path / "figures.json"
    given = ["--quick", "--tries", "2", "--plot", str(plot), "--json", str(figures), "--out", str(tmp_path)]
    assert bench.main(given) == 0
    shown = capsys.readouterr().out
    assert "flwr: 9.9" in shown
    found = read(figures)
    assert read(tmp_path / "bench.json") == found
    assert (tmp_path / "bench.md").read_text() == markdown(found)
    assert shown.startswith(markdown(found))
    upload = found.rows["secure-sum"][0]
    assert upload.other == [2000.0, 2000.0]
    assert len(upload.ours) == 2
    assert f"({min(upload.ours):.3g} to {max(upload.ours):.3g}) | Flower's SecAgg+ | " in shown
    if importlib.util.find_spec("matplotlib"):
        assert plot.read_bytes().startswith(b"\x89PNG")


def test_no_two_figures_have_one_name_and_what_is_aimed_at_is_said_of_whole_sizes(small, monkeypatch):
    monkeypatch.setattr(bench, "flower_version", lambda: None)
    whole, quick = list(bench.rows(1)), list(bench.rows(1, quick=True))
    for rows in (whole, quick):
        named = [row.name for row in rows if not row.name.startswith("one client of 20, semi-honest")]
        assert len(set(named)) == len(named)
    aimed = {row.name: row.bar for row in whole if row.bar}
    assert aimed["upload step of a client, d=1,000,000 n=10"] == "≥ 30× faster"
    assert aimed["masks of an upload, d=1,000,000 n=10"] == "≤ 1.5×"
    assert not any(row.bar for row in quick)


def test_what_was_measured_before_is_compared_in_the_same_form(small, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "flower_version", lambda: None)
    assert bench.main(["--quick", "--tries", "1", "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    assert bench.main(["--quick", "--tries", "1", "--compare", str(tmp_path / "bench.json")]) == 0
    assert "| secure-sum: wire, n=10 | " in capsys.readouterr().out


@pytest.mark.parametrize(
    "given", [["--tries", "0"], ["--compare", "nothing.json"], ["--compare", "old.json"]]
)
def test_what_cannot_be_measured_or_compared_is_said_first(given, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.json").write_text('{"flwr": null, "figures": []}')
    with pytest.raises(SystemExit) as ended:
        bench.main(given)
    assert ended.value.code == 2
    assert given[0] in capsys.readouterr().err


def test_without_matplotlib_there_is_no_plot_and_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "matplotlib is missing" in bench._plot(tmp_path / "plot.png", [], quick=True)
    assert bench_flower.flower_version() is None


def test_a_large_session_runs_in_a_process_of_its_own(capsys):
    assert bench.main(["--one", "6,50,active,1"]) == 0
    here = json.loads(capsys.readouterr().out)
    there = bench._in_another_process(6, 50, "active", 1)
    assert set(here) == set(there)
    assert (here["up"], here["down"], here["neighbours"]) == (there["up"], there["down"], 5)
    assert 0 < there["peak_mib"] < 4096


def test_a_wrong_sum_would_be_seen(monkeypatch):
    real = bench.secure_sum

    def wrong(*arguments, **options):
        result = real(*arguments, **options)
        result.counts[0] += 1
        return result

    monkeypatch.setattr(bench, "secure_sum", wrong)
    with pytest.raises(AssertionError, match="sum is wrong"):
        bench._session(3, 10, "active")


def test_ten_bare_masks_and_ten_masks_are_made():
    assert all(
        min(taken) > 0 for taken in in_turn(1, bench._masks(2, 100_000), bench._bare_masks(2, 100_000))
    )


def test_one_client_of_ten_thousand_pays_for_its_neighbours_only():
    few, many = one_client(100, 100), one_client(10_000, 100)
    for cost in (few, many):
        plan = Session.plan(
            CountSpec(100), range(cost.clients), federation="f", number=1, mode="semi_honest", graph="harary"
        )
        assert cost.neighbours == plan.degree
        assert cost.sent <= 2048 + 200 * cost.neighbours
        assert cost.received <= 2048 + 350 * cost.neighbours
    assert many.received / few.received < 1.05 * many.neighbours / few.neighbours


def test_an_active_client_of_three_thousand_pays_for_its_neighbours_only():
    few, many = one_active_client(300, 100), one_active_client(3000, 100)
    for cost in (few, many):
        k = chosen_parameters(cost.clients, gone=cost.clients // 20, corrupt=cost.clients // 10).degree
        assert cost.neighbours == 2 * k
        assert cost.sent <= 2048 + 200 * cost.neighbours
        assert cost.received <= 2048 + (350 + 4 * k) * cost.neighbours
    assert many.neighbours < 2 * few.neighbours


@pytest.mark.filterwarnings("ignore")
def test_flower_runs_to_its_end():
    pytest.importorskip("flwr")
    seconds = bench_flower.FlowerSession(4, 1000, dropped=1).run().seconds
    assert [len(seconds[stage]) for stage in ("setup", "share", "upload", "unmask")] == [4, 4, 3, 3]
    assert bench_flower.flower_version()
