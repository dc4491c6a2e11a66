"""The one sum before round 1: whatever is lost, no second shares of the same images are added up."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from prism_privacy import verify_ledger
from prism_secure.config import load_config
from prism_secure.errors import RunFolderError
from prism_secure.rounds import simulation as federation
from prism_secure.rounds.simulation import run

from .tiny_data import TINY, write_data


def test_no_other_shares_are_drawn_once_a_sum_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, folder = write_data(tmp_path / "data"), tmp_path / "run"
    settings = ["privacy.record_epsilon=2", "privacy.record_release=summed", f"data.folder={data}"]
    config = load_config(None, [*TINY, *settings])

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(federation, "open_securely", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(config, folder)
    assert (folder / "checkpoint" / "release.moments").exists()
    shutil.rmtree(folder / "clients")
    shutil.rmtree(folder / "checkpoint")
    with pytest.raises(RunFolderError, match=r"put checkpoint/release\.moments back"):
        run(config, folder)
    assert not list(folder.glob("clients/*/share*")), "none was drawn"
    assert [entry.kind for entry in verify_ledger(folder / "ledger.jsonl").entries] == ["moments", "round"]
