"""A sum that may be known is opened again from the same bits, or not at all.

Other bits of one client, and the difference of the two opened sums is what that client sent: the ledger has
charged the round once.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from prism_privacy import verify_ledger
from prism_secure.config import Config, load_config
from prism_secure.config.invitations import invited
from prism_secure.errors import RunFolderError
from prism_secure.reporting.progress import Silent
from prism_secure.rounds import simulation
from prism_secure.rounds.simulation import run
from prism_secure.run_folder.folder import RunFolder
from prism_secure.run_folder.records import RoundRecord

from .tiny_data import TINY, write_data

EVERYBODY = ["privacy.record_epsilon=inf"]
SUMMED = ["privacy.record_release=summed"]
CLIENT = ["privacy.record_release=client"]
HALF = ["federation.clients=6", "federation.client_fraction=0.5", "federation.rounds=4"]


class Killed(Silent):
    """Interrupts a run once a round is on disk."""

    def __init__(self, round_number: int) -> None:
        self._round = round_number

    def round_finished(self, record: RoundRecord) -> None:
        if record.round == self._round:
            raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def _no_rehearsal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "check_components", lambda _: None)  # quicker, and of no run folder


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[simulation.OpenedSum]:
    """Every opened sum of bits, as the server learned it."""
    sums, opening = [], simulation.open_securely

    def noted(*given: object, **named: object) -> simulation.OpenedSum:
        sums.append(opening(*given, **named))
        return sums[-1]

    monkeypatch.setattr(simulation, "open_securely", noted)
    return sums


def _config(tmp_path: Path, *settings: str) -> Config:
    return load_config(None, [*TINY, *settings, f"data.folder={write_data(tmp_path / 'data')}"])


def _killed_once_open(config: Config, folder: Path, at: str, round_number: int = 1) -> None:
    """A run that is killed when the sum of a round is open: before its record is written, or after."""
    place, name = {
        "opened": (simulation.Server, "absorb"),
        "recorded": (simulation.Server, "save"),
    }[at]
    if round_number > 1:
        with pytest.raises(KeyboardInterrupt):
            run(config, folder, listener=Killed(round_number - 1))

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, name, killed)
        with pytest.raises(KeyboardInterrupt):
            run(config, folder)


def _lose(folder: Path, client: int, lost: str) -> None:
    path = folder / "clients" / f"{client:02d}" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    ("settings", "at"),
    [(EVERYBODY, "opened"), (EVERYBODY, "recorded"), (SUMMED, "recorded"), (CLIENT, "opened")],
)
def test_client_that_lost_what_it_sent_draws_no_other_bits(
    tmp_path: Path, opened: list[simulation.OpenedSum], settings: list[str], at: str
) -> None:
    config, folder = _config(tmp_path, *settings), tmp_path / "run"
    _killed_once_open(config, folder, at)
    (first,) = opened
    for lost in (".", "state.safetensors", "outbox", "coins.key"):
        spoiled = shutil.copytree(folder, tmp_path / "spoiled", dirs_exist_ok=True)
        _lose(spoiled, 2, lost)
        with pytest.raises(RunFolderError, match=r"(client 2 |clients/02).*put it back"):
            run(config, spoiled)
        assert len(opened) == 1
    # Put back, the same sum opens, and the round is charged once.
    run(config, folder)
    assert opened[1].counts.tolist() == first.counts.tolist()
    rounds = [
        entry.round for entry in verify_ledger(folder / "ledger.jsonl").entries if entry.kind == "round"
    ]
    assert rounds == [1, 2]


@pytest.mark.parametrize(
    ("settings", "at", "round_number"),
    [(EVERYBODY, "recorded", 1), (EVERYBODY, "opened", 2), (CLIENT, "recorded", 2)],
)
def test_the_same_in_the_first_round_that_a_client_is_invited_to(
    tmp_path: Path, opened: list[simulation.OpenedSum], settings: list[str], at: str, round_number: int
) -> None:
    config, folder = _config(tmp_path, *settings, *HALF), tmp_path / "run"
    client = invited(config, round_number)[-1]
    assert all(client not in invited(config, earlier) for earlier in range(1, round_number))
    _killed_once_open(config, folder, at, round_number)
    assert len(opened) == round_number
    shutil.copytree(folder, tmp_path / "kept")
    _lose(folder, client, ".")
    with pytest.raises(RunFolderError, match=rf"client {client} .*expected after round {round_number};"):
        run(config, folder)
    assert len(opened) == round_number
    run(config, tmp_path / "kept")
    assert opened[round_number].counts.tolist() == opened[round_number - 1].counts.tolist()


def test_client_that_was_never_invited_is_missed_before_its_first_round_is_charged(tmp_path: Path) -> None:
    """It has its release of its images, and may draw no other."""
    config, folder = _config(tmp_path, *CLIENT, *HALF), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(config, folder, listener=Killed(1))
    client = next(client for client in range(6) if client not in invited(config, 1))
    _lose(folder, client, ".")
    charged = (folder / "ledger.jsonl").read_bytes()
    with pytest.raises(RunFolderError, match=rf"client {client} .*put it back"):
        run(config, folder)
    assert (folder / "ledger.jsonl").read_bytes() == charged


def test_that_uploads_may_leave_is_on_disk_before_the_first_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = _config(tmp_path, *EVERYBODY), tmp_path / "run"
    seen, opening = [], simulation.open_securely

    def noted(*given: object, **named: object) -> simulation.OpenedSum:
        seen.append((folder / "checkpoint" / "uploading").read_text())
        return opening(*given, **named)

    monkeypatch.setattr(simulation, "open_securely", noted)
    run(config, folder)
    assert seen == ["1\n", "2\n"]


def test_kill_before_uploads_may_leave_lets_a_lost_client_begin_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[simulation.OpenedSum]
) -> None:
    """Nobody has seen its bits, so other ones cost nothing on top."""
    config, folder = _config(tmp_path, *EVERYBODY), tmp_path / "run"

    mark = RunFolder.mark_uploading

    def killed(run_folder: RunFolder, number: int) -> None:
        if number:
            raise KeyboardInterrupt
        mark(run_folder, number)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "mark_uploading", killed)
        with pytest.raises(KeyboardInterrupt):
            run(config, folder)
    assert opened == []
    _lose(folder, 2, ".")
    run(config, folder)
    assert len(opened) == 2


@pytest.mark.parametrize("content", [b"", b"two"])
def test_damaged_mark_stops_a_run(tmp_path: Path, content: bytes) -> None:
    config, folder = _config(tmp_path, *EVERYBODY), tmp_path / "run"
    _killed_once_open(config, folder, "opened")
    (folder / "checkpoint" / "uploading").write_bytes(content)
    with pytest.raises(RunFolderError, match=r"uploading is damaged.*put it back"):
        run(config, folder)
