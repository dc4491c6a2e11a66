"""Broken if a server can have two sums over the same inputs opened, whose difference is one client's vector.

The server opens the sum of one session, says that it was lost, and repeats the round; an application that
answers a lost round with the bits it has sent before gives the same input. In the second session the
server ignores one client's upload, which the minimum of survivors allows. The first sum less the second is
that client's vector.
"""

from __future__ import annotations

import os

import pytest
import reference as wire
from chosen import SMALL, rehearsed
from forgery import SEALED_BYTES, refused, take_apart
from rehearsal import Rehearsal

from prism_crypto import client as client_module
from prism_crypto.errors import InputError, OutOfOrder, StateError
from prism_crypto.keeping.session_counter import MemoryCounter, SessionCounter
from prism_crypto.stage import Stage

VICTIM = 3


CLIENTS = {"active": 5, "semi_honest": 5, "chosen": SMALL["n"]}


def session(number: int, counters, mode: str, *, round: int = 1) -> Rehearsal:
    """A few clients, of whom one may be missing; everybody's input is the same in every session."""
    fewer = {"lost": 1} if mode == "chosen" else {"min_survivors": 4}
    return rehearsed(mode, counters=counters, number=number, round=round, label=f"session {number}", **fewer)


@pytest.fixture(params=["active", "chosen"])
def mode(request):
    return request.param


@pytest.fixture(params=["file", "memory"])
def counters(request, tmp_path, mode):
    ids = range(CLIENTS[mode])
    if request.param == "memory":
        return {i: MemoryCounter() for i in ids}
    return {i: SessionCounter.enrol(tmp_path / f"{i}.sessions") for i in ids}


def until_upload(rehearsal: Rehearsal) -> dict[int, bytes]:
    """Play to the end of share; what comes back opens the upload stage."""
    return rehearsal.play(until=Stage.SHARE)


def test_the_difference_is_the_victims_vector_where_rounds_are_not_numbered(counters, mode):
    """What the attack gains, so that its refusal below means something; round 0 is left to the caller."""
    both, without = session(1, counters, mode, round=0), session(2, counters, mode, round=0)
    both.play()
    without.play(drop={VICTIM: Stage.UPLOAD})
    difference = both.server.result.counts - without.server.result.counts
    assert difference.tolist() == both.values[VICTIM].tolist()


@pytest.mark.parametrize("mode", list(CLIENTS), indirect=True)
@pytest.mark.parametrize("round", [5, 4, 1, 0], ids=["same", "earlier", "first", "left out"])
def test_no_client_whose_upload_has_left_joins_another_session_of_that_round(counters, mode, round):
    session(1, counters, mode, round=5).play()
    again = session(2, counters, mode, round=round)
    for i in again.ids:
        with refused(StateError, Stage.ADVERTISE, None):
            again.clients[i].advertise()
        assert again.rng[i].taken == b"", "keys were drawn for a session that is refused"
        assert counters[i].last == 1, "the number is spent although nothing left"


def test_an_upload_that_the_server_says_it_never_got_counts_as_sent(counters, mode):
    first = session(1, counters, mode)
    first.play(
        intercept=lambda stage, sender, receiver, message: (
            None if stage is Stage.UPLOAD and sender == VICTIM else message
        )
    )
    assert VICTIM not in first.server.result.survivors
    with refused(StateError, Stage.ADVERTISE, None):
        session(2, counters, mode).clients[VICTIM].advertise()


def test_of_two_sessions_open_at_once_only_one_gets_the_upload(counters, mode):
    """Both adverts leave before either upload, so advertise can't tell; upload must."""
    first, second = session(1, counters, mode), session(2, counters, mode)
    one, two = until_upload(first), until_upload(second)
    second.clients[VICTIM].upload(two[VICTIM], second.values[VICTIM])
    late = first.clients[VICTIM]
    with refused(StateError, Stage.UPLOAD, None):
        late.upload(one[VICTIM], first.values[VICTIM])
    assert late.stage is None
    with pytest.raises(OutOfOrder):
        late.resend()


def test_the_round_is_durable_before_the_upload_leaves(tmp_path, mode, monkeypatch):
    counters = {i: SessionCounter.enrol(tmp_path / f"{i}.sessions") for i in range(CLIENTS[mode])}
    rehearsal = session(1, counters, mode)
    shares = until_upload(rehearsal)
    order = []
    real_fsync, real_replace = os.fsync, type(tmp_path).replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), real_fsync(fd))[1])
    monkeypatch.setattr(
        type(tmp_path), "replace", lambda self, to: (order.append("rename"), real_replace(self, to))[1]
    )
    assert rehearsal.clients[VICTIM].upload(shares[VICTIM], rehearsal.values[VICTIM])
    assert order == ["fsync", "rename", "fsync"]  # the file, its name, the folder
    assert SessionCounter(counters[VICTIM].path).last_round == 1


@pytest.mark.parametrize("failing", ["fsync", "replace", "damaged", "missing"])
def test_no_upload_leaves_when_its_round_cannot_be_recorded(tmp_path, mode, monkeypatch, failing):
    counters = {i: SessionCounter.enrol(tmp_path / f"{i}.sessions") for i in range(CLIENTS[mode])}
    rehearsal = session(1, counters, mode)
    shares = until_upload(rehearsal)
    client, path = rehearsal.clients[VICTIM], counters[VICTIM].path

    def fail(*_):
        raise OSError(28, "No space left on device")

    if failing == "damaged":
        path.write_bytes(path.read_bytes()[:-1])
    elif failing == "missing":
        path.unlink()
    else:
        monkeypatch.setattr(os if failing == "fsync" else type(tmp_path), failing, fail)
    with pytest.raises((StateError, OSError)):
        client.upload(shares[VICTIM], rehearsal.values[VICTIM])
    assert client.stage is None
    with pytest.raises(OutOfOrder):
        client.resend()
    with pytest.raises(OutOfOrder):
        client.upload(shares[VICTIM], rehearsal.values[VICTIM])


def test_an_upload_that_is_held_back_leaves_no_shares_behind(counters, mode, monkeypatch):
    rehearsal, made = session(1, counters, mode), []
    shares = until_upload(rehearsal)
    counters[VICTIM].uploaded(1)  # by another session of this round
    real = client_module.upload
    monkeypatch.setattr(client_module, "upload", lambda *a, **k: (made.append(real(*a, **k)), made[-1])[1])
    with refused(StateError, Stage.UPLOAD, None):
        rehearsal.clients[VICTIM].upload(shares[VICTIM], rehearsal.values[VICTIM])
    [(after, _)] = made
    assert after.keys.keys() == wire.read_records(take_apart(shares[VICTIM])[2][2], SEALED_BYTES).keys()
    assert not any(secret.reveal() for secret in after.keys.values())


def test_a_client_killed_once_the_round_is_recorded_has_lost_the_round_not_the_secrecy(tmp_path, mode):
    counters = {i: SessionCounter.enrol(tmp_path / f"{i}.sessions") for i in range(CLIENTS[mode])}
    rehearsal = session(1, counters, mode)
    shares = until_upload(rehearsal)
    rehearsal.clients[VICTIM].upload(shares[VICTIM], rehearsal.values[VICTIM])  # sent or not, who knows
    reborn = {**counters, VICTIM: SessionCounter(counters[VICTIM].path)}
    with refused(StateError, Stage.ADVERTISE, None):
        session(2, reborn, mode).clients[VICTIM].advertise()
    assert session(2, reborn, mode, round=2).clients[VICTIM].advertise()


def test_a_session_lost_before_the_upload_may_be_repeated_in_its_round(counters, mode):
    until_upload(session(1, counters, mode))
    again = session(2, counters, mode)
    again.play()
    assert again.server.result.counts.tolist() == again.expected(tuple(again.ids))


def test_an_input_that_was_refused_closes_the_round_to_other_sessions(counters, mode):
    rehearsal = session(1, counters, mode)
    shares = until_upload(rehearsal)
    with pytest.raises(InputError):
        rehearsal.clients[VICTIM].upload(shares[VICTIM], rehearsal.values[VICTIM] + 7)
    assert counters[VICTIM].last_round == 1
    assert rehearsal.clients[VICTIM].upload(shares[VICTIM], rehearsal.values[VICTIM])


def test_resending_within_the_session_is_not_a_second_upload(counters, mode):
    rehearsal = session(1, counters, mode)
    shares = until_upload(rehearsal)
    client = rehearsal.clients[VICTIM]
    sent = client.upload(shares[VICTIM], rehearsal.values[VICTIM])
    assert client.resend() == sent
    with pytest.raises(OutOfOrder):
        client.upload(shares[VICTIM], rehearsal.values[VICTIM])


def test_the_next_round_goes_on(counters, mode):
    for number in (1, 2):
        rehearsal = session(number, counters, mode, round=number)
        rehearsal.play()
        assert rehearsal.server.result.counts.tolist() == rehearsal.expected(tuple(rehearsal.ids))
