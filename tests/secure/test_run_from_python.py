"""What `prism_secure.run` gives to Python: its report as a path, a table, epsilons by its ledger, images."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from prism_privacy import Accountant, Adjacency, MaskRelease, Participation, View, verify_ledger
from prism_secure.config import load_config
from prism_secure.errors import ConfigError, NotClaimed, RunFolderError
from prism_secure.quality.samples import read_grid
from prism_secure.reporting.report import write_report
from prism_secure.rounds.simulation import run
from prism_secure.run_folder.history import read_history
from prism_secure.run_folder.run import Run

from . import fake_run
from .sweep.tiny_runs import TINY

NOISY = ["privacy.flip=0.1", "privacy.clip=1.0", "privacy.record_release=client"]
PLAIN = [*NOISY, "privacy.record_epsilon=inf"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A real one, its folder given as text."""
    out = tmp_path_factory.mktemp("runs") / "run"
    return run(load_config(None, [*TINY, *PLAIN, "federation.rounds=2"]), str(out))


def test_a_run_is_the_path_of_its_report(finished: Run) -> None:
    assert Path(finished) == finished.report == finished.folder / "report.html"
    with open(finished, encoding="utf-8") as page:  # noqa: PTH123
        assert "<!DOCTYPE html>" in page.read(100)
    assert os.path.getsize(finished) > 1000  # noqa: PTH202
    assert Run.open(os.fspath(finished.folder)) == finished


def test_a_run_that_is_opened_again_says_the_same_without_being_made_again(finished: Run) -> None:
    again = run(finished.config, finished.folder)
    assert again == finished
    assert again.epsilons == Run.open(finished.folder).epsilons == finished.epsilons


def test_a_folder_may_be_given_as_text_and_a_recipe_is_read_first(finished: Run, tmp_path: Path) -> None:
    assert read_history(str(finished.folder)).config == finished.config
    assert write_report(str(finished.folder)) == finished.folder / "report.html"
    for config in ("recipe.toml", {"federation": {"rounds": 1}}, None):
        with pytest.raises(ConfigError, match="run takes a Config, which load_config reads"):
            run(config, tmp_path / "run")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_epsilons_are_those_that_the_ledger_plans(finished: Run) -> None:
    last = verify_ledger(finished.folder / "ledger.jsonl").entries[-1]
    for view in View:
        for adjacency in Adjacency:
            found = finished.epsilon("client", view, adjacency)
            assert found == finished.epsilon("client", str(view), str(adjacency))
            assert found == last.spent(view, adjacency).planned
            assert 0 < found < math.inf


@pytest.mark.parametrize(
    "asked",
    [
        ("image", "sum", "replace_one"),
        ("person", "upload", "replace_one"),
        ("client", "sums", "zero_out"),
        ("clients", "sum", "zero_out"),
        ("client", "sum", "swap"),
    ],
)
def test_what_is_not_claimed_is_an_error_that_names_what_is(
    asked: tuple[str, str, str], finished: Run
) -> None:
    with pytest.raises(NotClaimed, match=r"no epsilon for \(.*\); it does for \(client, sum, zero_out\)"):
        finished.epsilon(*asked)


def test_an_images_epsilon_is_the_released_one_in_both_views(tmp_path: Path) -> None:
    found = Run.open(fake_run.make_run(tmp_path / "run", [*NOISY, "privacy.record_epsilon=2"], rounds=2))
    assert found.record is not None
    for view in ("sum", "upload"):
        assert found.epsilon("image", view, "replace_one") == found.record.epsilon
    with pytest.raises(NotClaimed, match=r"\(image, sum, replace_one\)"):
        found.epsilon("image", "sum", "zero_out")


def test_an_image_whose_noise_others_carry_has_no_epsilon_against_its_clients_upload(tmp_path: Path) -> None:
    summed = ["privacy.record_release=summed", "privacy.record_epsilon=2"]
    found = Run.open(fake_run.make_run(tmp_path / "run", [*NOISY, *summed], rounds=2))
    assert found.epsilon("image", "sum", "replace_one") == pytest.approx(2, rel=1e-3)
    with pytest.raises(NotClaimed):
        found.epsilon("image", "upload", "replace_one")


def test_an_images_epsilon_of_measured_rounds_is_the_planned_one_of_each_view(tmp_path: Path) -> None:
    """Of an image, and of a person where that is what a record is: nothing is claimed for the other."""
    from .test_measured_rounds import MEASURED

    config = load_config(None, [*TINY, *MEASURED, "measured.radius=2", "federation.rounds=2"])
    found = run(config, tmp_path / "run")
    last = verify_ledger(tmp_path / "run" / "ledger.jsonl").entries[-1].record
    assert last is not None
    assert last.spent is not None
    seen = {view: found.epsilon("image", view, "replace_one") for view in View}
    assert seen == {view: last.spent[view].planned for view in View}
    assert 0 < seen[View.SUM] <= seen[View.UPLOAD] < math.inf
    with pytest.raises(NotClaimed, match=r"\(image, upload, replace_one\)"):
        found.epsilon("person", "sum", "replace_one")


def test_known_coins_leave_no_epsilon_finite(tmp_path: Path) -> None:
    told = [*NOISY, "privacy.record_epsilon=2"]
    found = Run.open(fake_run.make_run(tmp_path / "run", told, rounds=2, coins="test"))
    assert set(found.epsilons.values()) == {math.inf}
    assert ("image", "sum", "replace_one") in found.epsilons


def test_a_ledger_that_was_cut_short_or_changed_gives_no_epsilon(tmp_path: Path) -> None:
    folder = fake_run.make_run(tmp_path / "run", PLAIN, rounds=3)
    path = folder / "ledger.jsonl"
    whole = path.read_bytes()
    for damaged in (b"".join(whole.splitlines(keepends=True)[:-2]), whole.replace(b"0.1", b"0.4", 1)):
        path.write_bytes(damaged)
        with pytest.raises(RunFolderError):
            Run.open(folder).epsilon("client", "sum", "zero_out")


def test_metrics_are_one_row_a_round_and_polars_would_take_them_as_they_are(finished: Run) -> None:
    pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")
    table = finished.metrics
    assert table.column("round").to_pylist() == [1, 2]
    for record, row in zip(finished.records, table.to_pylist(), strict=True):
        assert record.quality is not None
        assert (row["fid"], row["gen2real"]) == (record.quality.fid, None)
        assert row["epsilon_to_date.upload_zero_out"] == record.epsilon.upload_zero_out
        assert (row["uplink_bytes"], row["seconds"]) == (record.uplink_bytes, record.seconds)
        assert row["server_loss"] == record.server_loss
    assert hasattr(table, "__arrow_c_stream__")
    assert table.column("fid").chunk(0).to_numpy(zero_copy_only=True)[1] == finished.records[1].quality.fid  # type: ignore[union-attr]


def test_without_pyarrow_metrics_name_the_extra(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pyarrow: .*\[parquet\]"):
        _ = finished.metrics


def test_samples_are_the_newest_grid_or_an_error_where_there_is_none(finished: Run, tmp_path: Path) -> None:
    newest = max((finished.folder / "samples").glob("round-*.png"))
    assert finished.samples.size[1] > 8 * len(read_grid(newest).rows)
    none = Run.open(fake_run.make_run(tmp_path / "run", PLAIN, rounds=1, images=False))
    with pytest.raises(RunFolderError, match="no samples yet"):
        _ = none.samples


class _Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_notebooks_get_small_escaped_tables_of_runs_ledgers_and_accountants(
    tmp_path: Path,
) -> None:
    folder = fake_run.make_run(tmp_path / "<b>run", [*NOISY, "privacy.record_epsilon=2"], rounds=2)
    accountant = Accountant(delta=1e-5)
    accountant.plan(MaskRelease(0.25, 1.0, cohort=100), rounds=3)
    accountant.spend(MaskRelease(0.25, 1.0, cohort=100), rounds=2)
    many = Participation(delta=1e-5)
    many.spend(MaskRelease(0.25, 1.0, cohort=100), ["ada", "ben"])
    found = Run.open(folder)
    ledger = verify_ledger(folder / "ledger.jsonl")
    shown = (
        (found, "<b>run"),
        (ledger, "intact to its end"),
        (accountant, "ε planned"),
        (many, "2 clients at δ = 1e-5"),
        (accountant.guarantee(View.SUM, Adjacency.ZERO_OUT), "renyi"),
        (found.record, "one record, swap"),
    )
    for thing, words in shown:
        cells = _Cells()
        cells.feed(thing._repr_html_())  # type: ignore[union-attr]
        assert words in " ".join(cells.text)
        assert cells.tags <= {"table", "caption", "thead", "tbody", "tr", "th", "td"}
        assert "ε" in "".join(cells.text)


SCRIPT = """
import sys
from pathlib import Path
from prism_secure import load_config, run
Path(sys.argv[1], "begun").open("a").write("x")
run(load_config(None, {settings!r}), sys.argv[1] + "/run")
"""


def test_a_script_without_a_guard_may_run_with_workers_of_its_own(tmp_path: Path) -> None:
    """Its workers would load the script again, and start a run each."""
    told = [*TINY, *PLAIN, "federation.rounds=1", "federation.workers=2"]
    (tmp_path / "script.py").write_text(SCRIPT.format(settings=told), "utf-8")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "begun").read_text() == "x"
