"""Broken if a client can be brought to enter a session number that it has entered before.

Under one number it could be shown two versions of one session. The number is on the disk before the advert
leaves; what can't be known for sure is refused. On a chosen graph a client draws its neighbours once a
number: else a server tries until it likes the graph.
"""

from __future__ import annotations

import os

import pytest
from chosen import rehearsed
from forgery import refused
from rehearsal import Rehearsal

from prism_crypto.errors import OutOfOrder, PolicyError, StateError
from prism_crypto.keeping.session_counter import SessionCounter
from prism_crypto.policy import Policy
from prism_crypto.stage import Stage


@pytest.fixture
def counter(tmp_path) -> SessionCounter:
    return SessionCounter.enrol(tmp_path / "session")


MODES = ["active", "chosen"]


def session_of(mode: str, number: int) -> Rehearsal:
    return rehearsed(mode, number=number) if mode == "chosen" else Rehearsal(range(3), number=number)


def enter(counter, number: int, mode: str = "active") -> bytes:
    return session_of(mode, number).client(1, counter=counter).advertise()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", [1, 4, 5])
def test_a_number_at_or_below_the_last_is_refused(counter, number, mode):
    enter(counter, 5, mode)
    again = session_of(mode, number)
    with refused(StateError, Stage.ADVERTISE, None):
        again.client(1, counter=counter).advertise()
    assert again.rng[1].taken == b""  # no key, and no neighbour, is drawn
    assert counter.last == 5
    enter(counter, 6, mode)


@pytest.mark.parametrize("modes", [MODES, MODES[::-1]], ids=" then ".join)
def test_a_number_is_good_for_one_graph(counter, modes):
    first, second = modes
    enter(counter, 5, first)
    with refused(StateError, Stage.ADVERTISE, None):
        enter(counter, 5, second)


def test_the_number_is_durable_before_the_advert_leaves(counter, monkeypatch):
    order = []
    real_fsync, real_replace = os.fsync, type(counter.path).replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), real_fsync(fd))[1])
    monkeypatch.setattr(
        type(counter.path), "replace", lambda self, to: (order.append("rename"), real_replace(self, to))[1]
    )
    assert enter(counter, 1)
    assert order == ["fsync", "rename", "fsync"]  # the file, its name, the folder


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_no_advert_leaves_when_the_number_cannot_be_written(counter, monkeypatch, failing, mode):
    def fail(*_):
        raise OSError(28, "No space left on device")

    session = session_of(mode, 3)
    client = session.client(1, counter=counter)
    target = os if failing == "fsync" else type(counter.path)
    monkeypatch.setattr(target, failing, fail)
    with pytest.raises((StateError, OSError)):
        client.advertise()
    assert session.rng[1].taken == b""
    assert client.stage is None
    with pytest.raises(OutOfOrder):
        client.resend()


@pytest.mark.parametrize("mode", MODES)
def test_a_crash_after_the_number_costs_the_session_not_the_secrecy(counter, mode):
    enter(counter, 1, mode)  # and then the machine goes down, with the advert sent or not
    with pytest.raises(StateError):
        enter(SessionCounter(counter.path), 1, mode)
    assert enter(SessionCounter(counter.path), 2, mode)


def test_a_missing_file_refuses_until_enrolment(tmp_path):
    missing = SessionCounter(tmp_path / "never made")
    with pytest.raises(StateError, match="enrolled"):
        enter(missing, 1)
    assert not missing.path.exists()


def test_enrolment_does_not_reset_a_counter(counter):
    enter(counter, 5)
    with pytest.raises(StateError, match="exists already"):
        SessionCounter.enrol(counter.path)
    assert counter.last == 5


def test_a_damaged_file_is_refused_and_not_repaired(counter):
    counter.path.write_bytes(b"")
    with pytest.raises(StateError):
        enter(counter, 2**40)
    assert counter.path.read_bytes() == b""


def test_a_refused_session_does_not_use_up_its_number(counter):
    session = Rehearsal(range(3), number=9)
    with refused(PolicyError, Stage.ADVERTISE, None):
        session.client(1, counter=counter, policy=Policy(min_survivors=4)).advertise()
    assert counter.last == 0
