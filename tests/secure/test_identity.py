"""`prism-secure identity`: folders that a federation starts from, and mistakes in making them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from prism_crypto import Mode
from prism_secure.cli import main
from prism_secure.errors import RunFolderError
from prism_secure.run_folder.enrolment import Enrolment, read_membership, session_clock


@pytest.fixture
def members(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The member files of three clients in the folders `0`, `1` and `2`."""
    for client in range(3):
        assert main(["identity", "create", str(tmp_path / str(client)), "--id", str(client)]) == 0
    printed = capsys.readouterr().out.split()
    files = [str(tmp_path / str(client) / "member.txt") for client in range(3)]
    assert [Path(name).read_text().strip() for name in files] == printed
    return files


def _enroll(tmp_path: Path, client: str, members: list[str], *options: str) -> int:
    return main(["identity", "enroll", str(tmp_path / client), "--federation", "trial", *options, *members])


def test_enrolled_client_has_all_that_a_session_needs(tmp_path: Path, members: list[str]) -> None:
    assert _enroll(tmp_path, "1", members, "--min-survivors", "3", "--colluders", "1") == 0
    enrolment = Enrolment.load(tmp_path / "1")
    assert enrolment.federation == "trial"
    assert enrolment.identity.client_id == 1
    assert enrolment.roster.ids == (0, 1, 2)
    assert enrolment.policy.mode is Mode.ACTIVE
    assert (enrolment.policy.min_survivors, enrolment.policy.min_cohort) == (3, 2)
    # It begins a day before now, so that the server's clock may be late, and not the counter's step too long.
    assert 0 < session_clock() - enrolment.counter.last <= 25 * 3600 * 1000
    assert enrolment.policy.numbered_rounds


@pytest.mark.parametrize(("options", "suite"), [((), "x25519"), (("--hybrid-keys",), "x25519+ml-kem-768")])
def test_client_demands_hybrid_keys_if_it_was_told_to(
    tmp_path: Path, members: list[str], options: tuple[str, ...], suite: str
) -> None:
    assert _enroll(tmp_path, "1", members, *options) == 0
    assert Enrolment.load(tmp_path / "1").policy.suite == suite


def test_private_parts_are_private(tmp_path: Path, members: list[str]) -> None:
    assert (tmp_path / "0").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "0" / "identity.json").stat().st_mode & 0o777 == 0o600


def test_all_survivors_are_demanded_unless_fewer_are_named(tmp_path: Path, members: list[str]) -> None:
    _enroll(tmp_path, "0", members)
    assert Enrolment.load(tmp_path / "0").policy.min_survivors == 3


def test_server_pins_the_same_roster_and_has_no_key(
    tmp_path: Path, members: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    _enroll(tmp_path, "0", members)
    client_said = capsys.readouterr().out.split("roster ")[1]
    assert _enroll(tmp_path, "server", members, "--server") == 0
    assert capsys.readouterr().out.split("roster ")[1] == client_said
    federation, roster = read_membership(tmp_path / "server")
    assert (federation, roster.ids) == ("trial", (0, 1, 2))
    with pytest.raises(RunFolderError):
        Enrolment.load(tmp_path / "server")


def test_list_shows_members_policy_and_counter(
    tmp_path: Path, members: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    _enroll(tmp_path, "2", members)
    capsys.readouterr()
    assert main(["identity", "list", str(tmp_path / "2")]) == 0
    shown = capsys.readouterr().out
    for name in members:
        assert Path(name).read_text().strip() in shown
    assert "(this client)" in shown
    assert re.search(r"last session [0-9]{13}, last upload in round 0", shown)


def test_key_is_never_replaced(tmp_path: Path, members: list[str]) -> None:
    before = (tmp_path / "0" / "identity.json").read_bytes()
    assert main(["identity", "create", str(tmp_path / "0"), "--id", "0"]) == 4
    assert (tmp_path / "0" / "identity.json").read_bytes() == before


def test_second_enrolment_is_refused_because_it_would_forget_the_sessions(
    tmp_path: Path, members: list[str]
) -> None:
    assert _enroll(tmp_path, "0", members) == 0
    assert _enroll(tmp_path, "0", members) == 4


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["7:00"], "neither ID:PUBLIC-KEY"),
        (["0:" + "00" * 32], "twice, with different keys"),
    ],
)
def test_wrong_members_are_named(
    tmp_path: Path, members: list[str], wrong: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _enroll(tmp_path, "0", [*members, *wrong]) == 2
    assert said in capsys.readouterr().err


def test_roster_must_name_this_client(
    tmp_path: Path, members: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _enroll(tmp_path, "0", members[1:]) == 4
    assert "do not name client 0" in capsys.readouterr().err
    assert not (tmp_path / "0" / "sessions").exists()


def test_client_without_its_counter_is_not_enrolled(tmp_path: Path, members: list[str]) -> None:
    _enroll(tmp_path, "0", members)
    (tmp_path / "0" / "sessions").unlink()
    with pytest.raises(RunFolderError, match="not that of an enrolled client"):
        Enrolment.load(tmp_path / "0")


def test_policy_that_contradicts_itself_is_a_configuration_error(tmp_path: Path, members: list[str]) -> None:
    assert _enroll(tmp_path, "0", members, "--min-survivors", "1") == 2
