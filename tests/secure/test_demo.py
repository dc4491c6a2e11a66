"""The demo shows a real sweep and a model that generates, in a folder that the other commands read."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from prism_privacy import verify_ledger
from prism_secure.audit.run_audit import audit_run
from prism_secure.cli import main
from prism_secure.commands import demo
from prism_secure.quality.samples import read_grid
from prism_secure.run_folder.history import read_history


def test_it_draws_the_page_the_images_and_says_what_is_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    run = out / "runs" / demo.SHOWN
    assert f"Page: {out / 'report.html'}" in told
    assert f"Images: {run / 'samples' / 'round-0008.png'}" in told
    page = (out / "report.html").read_text("utf-8")
    assert "13 runs that differ in" in page
    grid = read_grid(run / "samples" / "round-0008.png")
    assert [len(row) for row in grid.rows] == [10] * 10
    history = read_history(run)
    assert history.config.measured.epsilon == 2
    assert history.records[-1].quality is not None
    commands = [line.split()[1:] for line in told.splitlines() if line.startswith("  prism-secure ")]
    assert [command[0] for command in commands] == ["compare", "report", "generate", "run", "init"]
    assert main(commands[1]) == 0


def test_its_ledgers_are_whole_and_no_secret_is_in_it(tmp_path: Path) -> None:
    demo._unpack(tmp_path)
    ledgers = sorted(tmp_path.rglob("ledger.jsonl"))
    assert len(ledgers) == 13
    assert all(verify_ledger(ledger).end_checked for ledger in ledgers)
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert not {name for name in names if name.endswith((".key", ".pem")) or "secret" in name}
    assert demo.BUNDLE.stat().st_size < 400_000


def test_the_audit_of_its_runs_says_what_was_left_out_of_them(tmp_path: Path) -> None:
    demo._unpack(tmp_path)
    run = tmp_path / "runs" / demo.SHOWN
    assert not (run / "checkpoint").exists()
    audit = audit_run(run, replay=False)
    unchecked = {answer.name: answer.reason for answer in audit.answers if answer.outcome == "unchecked"}
    assert set(unchecked) == {"rounds", "model"}
    assert all("`prism-secure demo` ships its runs without it" in reason for reason in unchecked.values())
    assert audit.exit_code == 2
    assert {answer.name for answer in audit.answers if answer.outcome == "skipped"} == {"secrets", "kept"}


def test_a_folder_with_files_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").touch()
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "holds files already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_without_the_pages_packages_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == "plotly" else found(name))
    monkeypatch.setattr(demo, "_draw", lambda run: (run / "samples").mkdir())
    monkeypatch.setattr(demo, "_last_samples", lambda run: run)
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 0
    assert "Page: needs plotly and pyarrow: in a clone" in capsys.readouterr().out
    assert not (tmp_path / "demo" / "report.html").exists()
