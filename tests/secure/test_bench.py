"""What `prism-secure bench` says of what it measured. No test measures time."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from prism_crypto.bench.rows import Bench, Row, compared, encoded, in_turn, markdown, read
from prism_secure.bench import cohort, start
from prism_secure.bench.release import _plain_masks
from prism_secure.bench.rounds import _as_written
from prism_secure.cli import main
from prism_secure.commands.bench import SUBJECTS
from prism_secure.model.generator import _upsample_convolve

COMMITTED = Path(__file__).parents[2] / "experiments" / "bench" / "bench.json"


def test_rows_say_medians_of_ratios_made_side_by_side() -> None:
    row = Row(name="a", unit="s", ours=[1.0, 2.0, 10.0], instead="b", other=[3.0, 4.0, 10.0], limit=0.5)
    assert (row.value, row.faster, row.of_limit) == (2.0, 2.0, 4.0)  # 3, 2 and 1 times
    alone = Row(name="a", unit="s", ours=[1.0])
    assert (alone.faster, alone.of_limit) == (None, None)


def test_actions_are_measured_in_turn_by_the_time_of_the_processor() -> None:
    called: list[str] = []
    found = in_turn(3, lambda: called.append("a"), lambda: called.append("b") or time.sleep(0.05), least=0.0)  # type: ignore[func-returns-value]
    assert called == ["a", "b"] * 3
    assert [len(each) for each in found] == [3, 3]
    assert max(found[1]) < 0.04, "sleeping takes no processor"


def test_quick_actions_are_repeated_and_one_of_them_is_said() -> None:
    called: list[int] = []
    ((once,),) = in_turn(1, lambda: called.append(1), least=0.01, scale=1.0)
    assert len(called) > 100
    assert once < 1e-3


def test_a_comparison_has_the_rows_that_both_have() -> None:
    def bench(ours: float, other: float, name: str = "kept") -> Bench:
        row = Row(name=name, unit="s", ours=[ours], instead="x", other=[other])
        return Bench({}, {"release": [row]}, {"release": 1.0}, {"release": 1.0})

    text = compared(bench(2.0, 4.0).rows, bench(1.0, 4.0))
    assert "| release: kept | 1 | 2 s | 2.00 | 0.50 |" in text
    assert "gone" not in compared(bench(2.0, 4.0).rows, bench(1.0, 4.0, "gone"))


@pytest.mark.parametrize("subject", [name for name in SUBJECTS if name != "secure-sum"])
def test_each_subject_measures_both_sides_and_writes_them(
    subject: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Mock(side_effect=lambda config, out: sum(range(10_000)))
    monkeypatch.setattr(cohort, "run", asked)
    monkeypatch.setattr(start, "COMMANDS", ("--help",))
    assert main(["bench", subject, "--quick", "--tries", "1", "--out", str(tmp_path)]) == 0
    found = read(tmp_path / "bench.json")
    assert list(found.rows) == [subject]
    assert any(row.other for row in found.rows[subject])
    assert all(value > 0 for row in found.rows[subject] for value in row.ours)
    assert found.peak_mib[subject] > 10
    assert (tmp_path / "bench.md").read_text() == markdown(found)
    assert f"## {subject}" in capsys.readouterr().out
    if subject == "cohort":
        assert [each.args[0].secure_sum.simulate for each in asked.call_args_list] == [False, True]


def test_a_step_stands_beside_one_that_comes_to_the_same() -> None:
    x, weight = torch.rand(2, 3, 4, 4), torch.rand(5, 3, 3, 3)
    assert torch.allclose(_as_written(x, weight), _upsample_convolve(x, weight), atol=1e-5)


def test_masks_stand_beside_as_many_words_of_another_generator() -> None:
    words = np.zeros(1000, dtype=np.uint64)
    _plain_masks(words)
    assert len(np.unique(words)) == 1000


def test_all_measures_every_subject_and_puts_them_into_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[list[str]] = []

    def one(call: list[str], **_: object) -> None:
        calls.append(call)
        subject, folder = call[4], Path(call[call.index("--out") + 1])
        row = Row(name="a", unit="s", ours=[1.0], other=[2.0], instead="b")
        part = Bench({"of": subject}, {subject: [row]}, {subject: 3.0}, {subject: 4.0})
        (folder / "bench.json").write_bytes(encoded(part))

    monkeypatch.setattr(subprocess, "run", one)
    assert main(["bench", "all", "--tries", "2", "--quick", "--out", str(tmp_path)]) == 0
    assert [call[3:5] for call in calls] == [["bench", subject] for subject in SUBJECTS]
    assert all({"--quick", "--tries", "2"} <= set(call) for call in calls)
    found = read(tmp_path / "bench.json")
    assert list(found.rows) == list(found.seconds) == list(found.peak_mib) == list(SUBJECTS)
    assert capsys.readouterr().out == markdown(found) == (tmp_path / "bench.md").read_text()


def test_every_subject_has_committed_results() -> None:
    committed = read(COMMITTED)
    assert list(committed.rows) == list(SUBJECTS)
    assert COMMITTED.with_suffix(".md").read_text() == markdown(committed)
    for subject, rows in committed.rows.items():
        assert any(row.other for row in rows), f"nothing stands beside {subject}"
        assert all(len(row.other) in (0, len(row.ours)) for row in rows)


@pytest.mark.parametrize(
    "given", [["--tries", "0"], ["--compare", "nothing.json"], ["--compare", "other.json"]]
)
def test_what_cannot_be_measured_or_compared_is_said_first(
    given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.json").write_text('{"rows": 3}')
    assert main(["bench", "release", *given]) == 2
    assert given[0] in capsys.readouterr().err
