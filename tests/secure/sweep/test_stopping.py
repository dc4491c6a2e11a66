"""A run that is told to stop ends like any other run, and a kill does not change where."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Sequence
from pathlib import Path

from prism_secure.rounds.simulation import run
from prism_secure.run_folder.history import read_history
from prism_secure.run_folder.records import RoundRecord
from prism_secure.sweep import worker

from .tiny_runs import tiny_config


def test_run_that_is_told_to_stop_is_finished_and_keeps_its_planned_epsilon(tmp_path: Path) -> None:
    asked: list[int] = []

    def after_two(records: Sequence[RoundRecord]) -> str | None:
        asked.append(len(records))
        return "enough" if len(records) == 2 else None

    run(tiny_config("privacy.record_epsilon=inf"), tmp_path, stop=after_two)
    history = read_history(tmp_path)
    assert asked == [0, 1, 2]
    assert (tmp_path / "DONE").read_text("utf-8") == "2 of 3 rounds: enough\n"
    (tmp_path / "DONE").unlink()  # a kill between the ledger's last line, which is signed, and DONE
    run(tiny_config("privacy.record_epsilon=inf"), tmp_path, stop=lambda records: None)
    assert (tmp_path / "DONE").read_text("utf-8") == "2 of 3 rounds: enough\n"
    assert (tmp_path / "model.safetensors").exists()
    assert len(history.records) == 2
    assert history.ledger is not None
    for spent in (history.ledger.entries[-1].epsilon or {}).values():
        assert spent.planned is not None
        assert spent.planned > spent.to_date


def test_worker_waits_for_a_run_folder_that_a_dying_process_holds(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    held = lock.open("w")
    fcntl.flock(held, fcntl.LOCK_EX)
    threading.Timer(0.5, held.close).start()
    worker._wait_for(lock)
    assert held.closed
    worker._wait_for(tmp_path / "none")
