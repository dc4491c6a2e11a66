"""Whatever file of a run folder is gone, emptied, torn or no file: the audit says so and does not break.

Also whether the data that a run read are those that lie there now.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from prism_secure.audit.run_audit import RunAudit, audit_run
from prism_secure.cli import main
from prism_secure.config import load_config
from prism_secure.data.fingerprint import KEY_FILE
from prism_secure.rounds.simulation import run

from .. import tiny_data
from ..test_data_fingerprint import Killed
from .tampering import caught_by, copy, texts

SETTINGS = [
    *tiny_data.TINY,
    "federation.local_steps=1",
    "metrics.every=2",
    "privacy.flip=0.25",
    "privacy.clip=1.0",
]
KINDS = {
    "exact": ["privacy.record_epsilon=inf", "privacy.record_release=client"],
    "summed": ["privacy.record_epsilon=2", "privacy.record_release=summed"],
    "client": ["privacy.record_epsilon=2", "privacy.record_release=client"],
}
UNREAD = {
    ".lock",
    "uploading",
    "report.html",
    "moments.json",
    "moments.began",
    ".release.drawn",
    "round-0002.png",
}
"""Nothing that the audit says depends on these."""
MAY_LACK = {"DONE", "environment.json", "ledger.key"}
"""Unfinished runs, older ones, and those that were passed on have none of these."""


def settings(kind: str, data: Path) -> list[str]:
    return [*SETTINGS, *KINDS[kind], f"data.folder={data}"]


@pytest.fixture(scope="module", params=KINDS)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rounds."""
    place = tmp_path_factory.mktemp(request.param)
    data = tiny_data.write_data(place / "data")
    run(load_config(None, settings(request.param, data)), place / "run")
    whole = copy(place / "run", place / "whole")
    assert audit_run(whole, replay=False).verdict == "clean", "what is found below is of the damage"
    return place / "run"


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed after its first round."""
    place = tmp_path_factory.mktemp("interrupted")
    data = tiny_data.write_data(place / "data")
    with pytest.raises(KeyboardInterrupt):
        run(load_config(None, settings("exact", data)), place / "run", listener=Killed())
    return place / "run"


def spoil(path: Path, how: str) -> None:
    content = path.read_bytes()
    path.unlink()
    if how == "empty":
        path.touch()
    elif how == "torn":
        path.write_bytes(content[: len(content) // 2])
    elif how == "garbage":
        path.write_bytes(b"\xff\xfe{]\n" + content[7:])
    elif how == "a folder":
        path.mkdir()
    elif how == "unreadable":
        path.symlink_to(path.name)  # a loop: not even root can open it
    if path.is_file():
        path.chmod(0o600)


def restore(spoilt: Path, kept: Path) -> None:
    if spoilt.is_dir():
        spoilt.rmdir()
    else:
        spoilt.unlink(missing_ok=True)
    shutil.copy2(kept, spoilt)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def outcome(audit: RunAudit, name: str) -> str:
    return next(answer.outcome for answer in audit.answers if answer.name == name)


@pytest.mark.parametrize("how", ["gone", "empty", "torn", "garbage", "a folder", "unreadable"])
def test_every_damaged_file_is_said_and_breaks_nothing(finished: Path, tmp_path: Path, how: str) -> None:
    """Of what a run keeps; of its three clients, the files of two."""
    folder = copy(finished, tmp_path / "run")
    for path in sorted(path for path in finished.rglob("*") if path.is_file()):
        name = str(path.relative_to(finished))
        if name.startswith("clients/01/"):
            continue
        spoil(folder / name, how)
        audit = audit_run(folder, replay=False)
        if path.name not in UNREAD | MAY_LACK:
            assert audit.verdict != "clean", f"{name} is {how}"
        assert str(finished.parent / "data") not in str(audit.as_dict()), "the report says where the data lie"
        restore(folder / name, path)
    assert contents(folder) == contents(finished), "an audit changes nothing"
    assert audit_run(folder, replay=False).verdict == "clean"


@pytest.mark.parametrize("how", ["gone", "empty", "torn", "garbage", "a folder", "unreadable"])
@pytest.mark.parametrize("client", ["00", "02"])
@pytest.mark.parametrize("finished", ["exact"], indirect=True)
def test_coin_secret_that_cannot_be_read_is_a_finding(
    finished: Path, interrupted: Path, tmp_path: Path, how: str, client: str
) -> None:
    """Of the client whose first round is repeated and of another, in a finished run and in another."""
    for number, source in enumerate((finished, interrupted)):
        folder = copy(source, tmp_path / str(number))
        spoil(folder / "clients" / client / "coins.key", how)
        audit = audit_run(folder)
        assert caught_by(audit) == {"secrets"}, texts(audit)
        assert f"Client {client} has no coin secret" in texts(audit)


def test_all_coin_secrets_gone_are_findings_and_no_folder_that_was_passed_on(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy(finished, tmp_path / "run")
    for path in folder.glob("clients/*/coins.key"):
        path.unlink()
    assert main(["audit", "run", str(folder)]) == 1
    assert capsys.readouterr().out.count("has no coin secret that can be read") == 3


@pytest.mark.parametrize("name", ["state.safetensors", "outbox", "{what it trains from}"])
def test_what_a_client_keeps_and_is_gone_or_damaged_is_a_finding(
    finished: Path, tmp_path: Path, name: str
) -> None:
    if name.startswith("{"):
        name = "moments.safetensors" if "exact" in str(finished) else "release.moments"
    folder = copy(finished, tmp_path / "run")
    path = folder / "clients" / "01" / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert caught_by(audit_run(folder, replay=False)) == {"kept"}


@pytest.mark.parametrize("finished", ["exact"], indirect=True)
def test_one_client_without_a_folder_among_others_could_not_be_checked(
    finished: Path, tmp_path: Path
) -> None:
    for number, client in enumerate(("00", "01")):
        folder = copy(finished, tmp_path / str(number))
        shutil.rmtree(folder / "clients" / client)
        audit = audit_run(folder)
        assert audit.verdict == "could not check"
        assert outcome(audit, "secrets") == "unchecked"


@pytest.mark.parametrize("finished", ["exact"], indirect=True)
def test_foreign_names_among_the_clients_folders_break_nothing(finished: Path, tmp_path: Path) -> None:
    folder = copy(finished, tmp_path / "run")
    (folder / "clients" / "notes").mkdir()
    assert audit_run(folder).verdict == "clean"


@pytest.mark.parametrize("finished", ["exact"], indirect=True)
def test_run_before_its_first_round_has_no_coins_yet_and_is_no_finding(
    finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    for client in ("00", "01", "02"):
        (folder / "clients" / client).mkdir(parents=True, mode=0o700)
    for name in ("config.toml", "federation.id"):
        shutil.copy(finished / name, folder / name)
    assert caught_by(audit_run(folder)) == set()


# The data.


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"swap": 0}, "The training images are not those"),
        ({"test": 39}, "The held-out images are not those"),
    ],
)
def test_data_that_were_changed_since_are_a_finding(
    interrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, int], words: str
) -> None:
    """From wherever the auditor looks; and nothing of it where the data are not."""
    data = interrupted.parent / "data"
    monkeypatch.chdir(tmp_path)
    assert outcome(audit_run(interrupted), "data") == "passed"
    tiny_data.write_data(data, **change)
    try:
        audit = audit_run(interrupted, replay=False)
        assert caught_by(audit) == {"data"}
        assert words in texts(audit)
        assert str(data) not in str(audit.as_dict())
        data.rename(data.with_name("away"))
        assert outcome(audit_run(interrupted), "data") == "skipped"
        data.with_name("away").rename(data)
    finally:
        tiny_data.write_data(data)
    assert outcome(audit_run(interrupted), "data") == "passed"


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", KEY_FILE])
def test_data_that_cannot_be_compared_could_not_be_checked(
    interrupted: Path, tmp_path: Path, name: str
) -> None:
    path = interrupted.parent / "data" / name
    path.rename(tmp_path / "kept")
    try:
        audit = audit_run(interrupted, replay=False)
    finally:
        (tmp_path / "kept").rename(path)
    assert outcome(audit, "data") == "unchecked"
    assert audit.verdict == "could not check"
    assert str(path.parent) not in str(audit.as_dict())


def test_replay_needs_no_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run named its data relatively, and the auditor stands elsewhere."""
    tiny_data.write_data(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    run(load_config(None, settings("client", Path("data"))), tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    audit = audit_run(tmp_path / "run")
    assert audit.verdict == "clean"
    assert [outcome(audit, name) for name in ("data", "replay")] == ["passed", "passed"]
