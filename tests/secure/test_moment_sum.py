"""The one sum before round 1: whatever is lost, no second shares of the same images are added up."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from prism_privacy import verify_ledger
from prism_secure.config import Config, load_config
from prism_secure.errors import RunFolderError
from prism_secure.rounds import simulation as federation
from prism_secure.rounds.simulation import run
from prism_secure.rounds.workers import Workers

from .tiny_data import TINY, write_data

SUMMED = ["privacy.record_epsilon=2", "privacy.record_release=summed", "federation.rounds=1"]
MARK, TOOK, OPENED = "moments.began", "moments.json", "checkpoint/release.moments"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """A run that was killed when its moments had been opened, before round 1 was charged."""
    folder = tmp_path_factory.mktemp("opened")
    config = load_config(None, [*TINY, *SUMMED, f"data.folder={write_data(folder / 'data')}"])

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(federation.Spending, "charge", killed)
        with pytest.raises(KeyboardInterrupt):
            run(config, folder / "run")
    assert (folder / "run" / OPENED).exists()
    return config, folder / "run"


def entries(folder: Path) -> list[bytes]:
    """The ledger's lines but for its header, which a new one begins with."""
    lines = [line for path in folder.glob("ledger.jsonl") for line in path.read_bytes().splitlines()]
    return [line for line in lines if b'"kind":"header"' not in line]


@pytest.mark.parametrize(
    "gone",
    [
        (OPENED,),
        (OPENED, "clients"),
        (OPENED, "clients", MARK),
        (OPENED, "clients", TOOK),
        (OPENED, "clients", MARK, TOOK),
        (OPENED, "clients", MARK, "ledger.jsonl", "ledger.jsonl.head", "ledger.key"),
        (OPENED, "clients", TOOK, "ledger.jsonl", "ledger.jsonl.head", "ledger.key"),
    ],
    ids=", ".join,
)
def test_whatever_still_says_that_moments_were_opened_or_charged_stops_a_second_release(
    opened: tuple[Config, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: tuple[str, ...]
) -> None:
    monkeypatch.setattr(federation, "check_components", lambda _: None)  # quicker, and of no run folder
    config, kept = opened
    folder = Path(shutil.copytree(kept, tmp_path / "run"))
    for name in gone:
        shutil.rmtree(folder / name) if name == "clients" else (folder / name).unlink()
    charged = entries(folder)
    with pytest.raises(RunFolderError, match=r"put checkpoint/release\.moments back"):
        run(config, folder)
    assert not (folder / OPENED).exists()
    assert not list(folder.glob("clients/*/share*")), "none was drawn"
    assert entries(folder) == charged


@pytest.mark.parametrize("clients", [0, 1, 3])
def test_shares_that_a_kill_left_undrawn_are_drawn_and_charged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clients: int
) -> None:
    """Killed while images are read: nothing is charged yet, and the same command goes on."""
    config = load_config(None, [*TINY, *SUMMED, f"data.folder={write_data(tmp_path / 'data')}"])
    folder, prepare = tmp_path / "run", Workers.prepare

    def killed(workers: Workers, name: str) -> Iterator[int]:
        if clients:
            for done, client in enumerate(prepare(workers, name), start=1):
                yield client
                if done == clients:
                    break
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Workers, "prepare", killed)
        with pytest.raises(KeyboardInterrupt):
            run(config, folder)
    assert not verify_ledger(folder / "ledger.jsonl").entries
    drawn = {path: path.read_bytes() for path in folder.glob("clients/*/share*")}
    assert len(drawn) == clients
    with monkeypatch.context() as patch:
        patch.setattr(federation, "open_moments", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(config, folder)
    assert all(path.read_bytes() == share for path, share in drawn.items())
    run(config, folder)
    kinds = [entry.kind for entry in verify_ledger(folder / "ledger.jsonl").entries]
    assert kinds == ["moments", "round", "end"]


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt
