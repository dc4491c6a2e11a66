"""Clients of a simulation wait for the disk together, and come to the same files as one by one."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from prism_secure.config import load_config
from prism_secure.rounds import simulation, workers
from prism_secure.rounds.simulation import run
from prism_secure.rounds.threads import WAITING, wait_together

from .test_measured_rounds import MEASURED
from .tiny_data import TINY, outcome, same_secrets, write_data


def test_items_wait_at_the_same_time_and_all_are_done() -> None:
    meeting, done = threading.Barrier(WAITING, timeout=30), list[int]()

    def work(item: int) -> None:
        meeting.wait()  # breaks where fewer than all come
        done.append(item)

    wait_together(work, range(WAITING))
    assert sorted(done) == list(range(WAITING))


@pytest.mark.parametrize("wrong", [{3}, {3, 40}, {0, 1, 2}])
def test_the_first_error_in_order_is_raised_when_nothing_runs_any_more(wrong: set[int]) -> None:
    running: set[int] = set()

    def work(item: int) -> None:
        running.add(item)
        try:
            if item in wrong:
                raise OSError(f"item {item}")
        finally:
            running.discard(item)

    with pytest.raises(OSError, match=f"item {min(wrong)}$"):
        wait_together(work, range(50))
    assert not running


def test_nothing_to_wait_for_is_fine() -> None:
    wait_together(lambda item: pytest.fail(f"{item}"), [])


def test_a_measured_run_is_the_same_to_the_byte_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_data(tmp_path / "data")
    config = load_config(None, [*TINY, *MEASURED, f"data.folder={data}"])
    asked: list[int] = []

    def counted(work: object, items: object) -> None:
        chosen = list(items)  # type: ignore[call-overload]
        asked.append(len(chosen))
        wait_together(work, chosen)  # type: ignore[arg-type]

    for module in (workers, simulation):
        monkeypatch.setattr(module, "wait_together", counted)
    run(config, tmp_path / "together")
    assert asked.count(config.federation.clients) >= config.federation.rounds
    for module in (workers, simulation):
        monkeypatch.setattr(module, "wait_together", lambda work, items: [work(item) for item in items])
    run(config, same_secrets(tmp_path / "together", tmp_path / "alone"))
    assert outcome(tmp_path / "together") == outcome(tmp_path / "alone")
