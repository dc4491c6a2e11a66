"""A run folder that lacks something is refused before anything is charged; put back, it goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from prism_privacy import LedgerKey, verify_ledger
from prism_secure.audit.run_audit import audit_run
from prism_secure.cli import main
from prism_secure.config import Config, load_config
from prism_secure.errors import RunFolderError
from prism_secure.reporting.progress import Silent
from prism_secure.rounds import simulation as federation
from prism_secure.rounds.simulation import run
from prism_secure.run_folder.environment import read_environment
from prism_secure.run_folder.records import RoundRecord

from .tiny_data import TINY, write_data


class KilledAfter(Silent):
    """Interrupts a run once a round is on disk."""

    def __init__(self, round_number: int) -> None:
        self._round = round_number

    def round_finished(self, record: RoundRecord) -> None:
        if record.round == self._round:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    data = write_data(tmp_path_factory.mktemp("data"))
    return load_config(None, [*TINY, "federation.rounds=4", f"data.folder={data}"])


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory, config: Config) -> Path:
    """Two of four rounds are done."""
    folder = tmp_path_factory.mktemp("half") / "run"
    with pytest.raises(KeyboardInterrupt):
        run(config, folder, listener=KilledAfter(2))
    return folder


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, config: Config) -> dict[str, Path]:
    """Killed when the moments were charged, and when round 1 was."""
    folders = {}
    for name in ("open_moments", "open_securely"):
        folders[name] = tmp_path_factory.mktemp("begun") / "run"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(federation, name, _interrupted)
            with pytest.raises(KeyboardInterrupt):
                run(config, folders[name])
    return folders


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, config: Config, half: Path) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    shutil.copytree(half, folder)
    run(config, folder)
    return folder


def _interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def _contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _charged(folder: Path) -> list[tuple[str, int]]:
    return [(entry.kind, entry.round) for entry in verify_ledger(folder / "ledger.jsonl").entries]


Damage = Callable[[list[bytes]], list[bytes]]

LINES: dict[str, Damage] = {
    "emptied": lambda lines: [],
    "last line lost": lambda lines: lines[:-1],
    "last line torn": lambda lines: [*lines[:-1], lines[-1][:-9]],
    "junk at the start": lambda lines: [b"junk\n", *lines],
    "junk at the end": lambda lines: [*lines, b"junk\n"],
    "doubled": lambda lines: lines * 2,
    "a line doubled": lambda lines: [lines[0], *lines],
}


@pytest.mark.parametrize("damage", ["gone", *LINES])
def test_damaged_metrics_stop_a_run_before_a_round_is_charged_and_put_back_it_goes_on(
    config: Config, half: Path, finished: Path, tmp_path: Path, damage: str
) -> None:
    folder = Path(shutil.copytree(half, tmp_path / "run"))
    metrics = folder / "metrics.jsonl"
    kept = metrics.read_bytes()
    if damage == "gone":
        metrics.unlink()
    else:
        metrics.write_bytes(b"".join(LINES[damage](kept.splitlines(keepends=True))))
    before = _contents(folder)
    with pytest.raises(RunFolderError, match=r"metrics\.jsonl"):
        run(config, folder)
    assert _contents(folder) == before
    metrics.write_bytes(kept)
    if damage not in ("gone", "last line lost", "doubled"):
        return  # not a byte of the rest has changed
    run(config, folder)
    assert _charged(folder) == _charged(finished)
    assert (folder / "model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()


Content = bytes | type[LedgerKey] | None

FILES: dict[str, Content] = {
    "federation.id": None,
    "federation.id ": b"",
    "federation.id  ": "fédération".encode(),
    "federation.id   ": b"another",
    "config.toml": None,
    "ledger.jsonl": None,
    "ledger.jsonl.head": None,
    "ledger.jsonl.head ": b"junk",
    "ledger.key": None,
    "ledger.key ": b"junk",
    "ledger.key  ": LedgerKey,
    "moments.json": None,
    "moments.json ": b"{",
    "environment.json": b"{",
    "checkpoint/server.safetensors": None,
    "checkpoint/server.safetensors ": b"cut",
    "checkpoint/release.moments": None,
    "checkpoint/uploading": None,
    "checkpoint/uploading ": b"1\n",
    "checkpoint/uploading  ": b"4\n",
    "clients/01/coins.key": None,
    "clients/01/coins.key ": b"",
    "clients/02/state.safetensors": None,
    "clients/02/state.safetensors ": b"cut",
    "clients/00/release.moments": None,
    "clients/00/release.moments ": b"cut",
    "clients/01/outbox": None,
}
"""What is written in place of each, `LedgerKey`: another key; None: deleted."""


def _spoil(folder: Path, name: str, content: Content) -> Path:
    path = folder / name.strip()
    if content is LedgerKey:
        path.unlink()
        LedgerKey.create(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    return path


def _refused(config: Config, folder: Path, name: str, content: Content) -> None:
    """Damage a file; the run says its name, or its client's, and changes nothing."""
    path = _spoil(folder, name, content)
    before = _contents(folder)
    with pytest.raises(RunFolderError) as refusal:
        run(config, folder)
    said = str(refusal.value)
    assert path.name in said or f"client {int(path.parent.name)}" in said
    assert content is not None or "put " in said
    assert _contents(folder) == before


@pytest.mark.parametrize("name", FILES)
def test_every_file_that_a_run_goes_on_from_is_missed_before_a_round_is_charged(
    config: Config, half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(federation, "check_components", lambda _: None)  # quicker, and of no run folder
    folder = Path(shutil.copytree(half, tmp_path / "run"))
    _refused(config, folder, name, FILES[name])


@pytest.mark.parametrize("killed", ["open_moments", "open_securely"])
@pytest.mark.parametrize("name", ["federation.id", "config.toml", "ledger.jsonl", "ledger.key"])
def test_before_round_1_is_done_nothing_that_is_gone_is_begun_anew(
    config: Config,
    begun: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    killed: str,
    name: str,
) -> None:
    folder = Path(shutil.copytree(begun[killed], tmp_path / "run"))
    assert _charged(folder)[0] == ("moments", 0)
    kept = _contents(folder)
    with monkeypatch.context() as patch:
        patch.setattr(federation, "check_components", lambda _: None)
        _refused(config, folder, name, None)
    (folder / name).write_bytes(kept[name])
    (folder / name).chmod(0o600)
    assert _contents(folder) == kept
    if name == "federation.id":
        (folder / name).unlink()
        with pytest.raises(RunFolderError, match=f"exactly what the ledger says, {kept[name].decode()}$"):
            run(config, folder)
        (folder / name).write_bytes(kept[name])
        run(config, folder)
        assert audit_run(folder, replay=False).verdict == "clean"


@pytest.mark.parametrize("client", [None, "00", "02"])
def test_mark_of_round_1_that_is_gone_is_missed_with_and_without_a_clients_folder(
    config: Config, begun: dict[str, Path], tmp_path: Path, client: str | None
) -> None:
    """Its sum may be open: other bits of a client would open another, and the two differ by what it sent."""
    folder = Path(shutil.copytree(begun["open_securely"], tmp_path / "run"))
    assert (folder / "checkpoint" / "uploading").read_text() == "1\n"
    if client is not None:
        shutil.rmtree(folder / "clients" / client)
    (folder / "checkpoint" / "uploading").unlink()
    before = _contents(folder)
    with pytest.raises(RunFolderError, match=r"uploading is gone, but 1 rounds were charged.*put it back"):
        run(config, folder)
    assert _contents(folder) == before
    (folder / "checkpoint" / "uploading").write_text("1\n")
    if client is not None:
        with pytest.raises(RunFolderError, match=rf"client {int(client)} cannot go on.*put it back"):
            run(config, folder)


class Hearing(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("kind", ["half", "open_securely", "new"])
def test_environment_that_is_gone_is_said_and_the_new_one_does_not_pass_for_it(
    config: Config, half: Path, begun: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    """Nothing goes on from it, but it would say of rounds 1 and 2 with what they were not made."""
    folder = tmp_path / "run"
    if kind != "new":
        shutil.copytree(half if kind == "half" else begun[kind], folder)
        (folder / "environment.json").unlink()
    heard = Hearing()
    run(config, folder, listener=heard)
    gone = [note for note in heard.notes if "environment.json is gone" in note]
    environment, _ = read_environment(folder)
    assert len(gone) == ("written_anew" in environment) == (kind != "new")
    shown = (folder / "report.html").read_text("utf-8")
    assert ("environment.json was gone" in shown) == (kind != "new")


def test_ledger_that_is_gone_with_its_head_and_key_is_missed_by_the_clients(
    config: Config, begun: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(begun["open_securely"], tmp_path / "run"))
    for name in ("ledger.jsonl", "ledger.jsonl.head", "ledger.key"):
        (folder / name).unlink()
    with pytest.raises(RunFolderError, match=r"client 0 has answered round 1.*put back the ledger"):
        run(config, folder)
    assert not (folder / "ledger.jsonl").exists()


@pytest.mark.parametrize("name", ["federation.id", "metrics.jsonl", "ledger.jsonl", "config.toml"])
def test_a_finished_run_is_looked_at_too(config: Config, finished: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    _refused(config, folder, name, None)
    assert audit_run(folder, replay=False).verdict != "clean"


def test_a_finished_run_needs_no_secret_any_more(config: Config, finished: Path, tmp_path: Path) -> None:
    """Who passes a run folder on takes them out."""
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    shutil.rmtree(folder / "clients")
    (folder / "ledger.key").unlink()
    assert run(config, folder).report.exists()


def test_model_that_is_gone_from_a_finished_run_is_made_again(
    config: Config, finished: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    (folder / "model.safetensors").unlink()
    run(config, folder)
    for name in ("model.safetensors", "ledger.jsonl", "DONE"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.parametrize("content", [b"", "fédération".encode(), b"two words", None])
def test_name_of_a_federation_that_cannot_be_read_is_one_line_in_run_and_in_audit(
    config: Config, half: Path, tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(half, tmp_path / "run"))
    name = (folder / "federation.id").read_text()
    _spoil(folder, "federation.id", content)
    settings = [word for setting in TINY for word in ("--set", setting)]
    settings += ["--set", "federation.rounds=4", "--set", f"data.folder={config.data.folder}"]
    assert main(["run", "--out", str(folder), "--recipe", "one-shot", *settings]) == 4
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "federation.id" in said
    assert name in said  # the ledger knows it, so it can be put back
    assert main(["audit", "run", str(folder), "--no-replay"]) == 2
    assert "federation.id" in capsys.readouterr().out


def test_name_with_a_line_end_is_the_same_name(config: Config, half: Path, tmp_path: Path) -> None:
    """As an editor leaves it."""
    folder = Path(shutil.copytree(half, tmp_path / "run"))
    with (folder / "federation.id").open("a") as file:
        file.write("\n")
    run(config, folder)
