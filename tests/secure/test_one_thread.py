"""A round is computed on one thread, however many a process has: sums of floats depend on their number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import threadpoolctl
import torch

from prism_secure.audit.run_audit import audit_run
from prism_secure.config import load_config
from prism_secure.rounds.behaviours.measure import MeasuringServer
from prism_secure.rounds.client import Client
from prism_secure.rounds.simulation import run
from prism_secure.rounds.threads import one_thread

from .test_measured_rounds import MEASURED
from .tiny_data import TINY, write_data


def threads() -> set[int]:
    """How many each library would take now."""
    return {torch.get_num_threads(), *(pool["num_threads"] for pool in threadpoolctl.threadpool_info())}


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    with threadpoolctl.threadpool_limits(2):
        torch.set_num_threads(2)
        assert threads() == {2}
        yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("behaviour", ["train", "measure"])
def test_run_and_its_replay_take_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behaviour: str
) -> None:
    seen: dict[str, set[int]] = {}

    def watch(owner: type, name: str) -> None:
        real = getattr(owner, name)

        def watched(*arguments: object) -> object:
            seen.setdefault(name, set()).update(threads())
            return real(*arguments)

        monkeypatch.setattr(owner, name, watched)

    watch(Client, "answer")
    steps = ["_public", "_absorbed"] if behaviour == "measure" else []
    for name in steps:
        watch(MeasuringServer, name)
    settings = MEASURED if behaviour == "measure" else ["privacy.record_epsilon=inf"]
    config = load_config(None, [*TINY, *settings, f"data.folder={write_data(tmp_path / 'images')}"])
    run(config, tmp_path / "run")
    assert seen == {name: {1} for name in ["answer", *steps]}
    assert threads() == {2}, "what was there before is there again"
    seen.clear()
    answers = {answer.name: answer.outcome for answer in audit_run(tmp_path / "run").answers}
    assert answers["replay"] == "passed"
    assert seen["answer"] == {1}
    assert threads() == {2}


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_kernels_that_add_in_any_order_are_refused_and_the_mode_is_restored(mode: int) -> None:
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode(mode)
    try:
        with one_thread():
            assert torch.are_deterministic_algorithms_enabled()
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
            with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
                torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))
        assert torch.get_deterministic_debug_mode() == mode
        with one_thread("cuda"):
            assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_deterministic_debug_mode(before)
