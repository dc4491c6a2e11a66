"""Broken if a party can be led through the stages in another order than the protocol's.

A client that signs, shares or unmasks twice could be made to do so for two stories.
"""

from __future__ import annotations

import itertools
from functools import cache

import pytest
from chosen import VOUCHER, rehearsed
from forgery import drop_record, records, refused, survivors
from rehearsal import SERVER, Rehearsal, stages

from prism_crypto.errors import OutOfOrder, ProtocolError, SecureSumError
from prism_crypto.stage import Stage

MODES = ["active", "semi_honest", "chosen"]
LISTENING = ["active", "chosen"]
"""In which clients make sure of what a server says."""


@cache
def recorded(mode: str) -> dict:
    """All messages of an undisturbed session, by stage, sender and receiver."""
    kept = {}

    def note(stage, sender, receiver, message):
        kept[stage, sender, receiver] = bytes(message)
        return message

    rehearsed(mode).play(intercept=note)
    return kept


def call(session: Rehearsal, stage: Stage, kept: dict, client_id: int = 1) -> bytes:
    """Ask a client for a stage, with the message that belongs to it."""
    client = session.clients[client_id]
    if stage is Stage.ADVERTISE:
        return client.advertise()
    message = kept.get((stage, SERVER, client_id), b"")
    if stage is Stage.UPLOAD:
        return client.upload(message, session.values[client_id])
    return getattr(client, stage.value)(message)


CASES = [
    (mode, done, asked)
    for mode in MODES
    for done, asked in itertools.product([None, *stages(mode)], Stage)
    if asked is not next((s for s in stages(mode) if done is None or s.number > done.number), None)
]


@pytest.mark.parametrize(("mode", "done", "asked"), CASES)
def test_a_client_does_nothing_but_the_next_stage(mode, done, asked):
    kept, session = recorded(mode), rehearsed(mode)
    for stage in stages(mode):
        if done is None or stage.number > done.number:
            break
        assert call(session, stage, kept) == kept[stage, 1, SERVER]
    with refused(OutOfOrder, asked, None):
        call(session, asked, kept)
    # The refusal costs nothing: the client goes on where it was.
    for stage in stages(mode):
        if done is None or stage.number > done.number:
            assert call(session, stage, kept) == kept[stage, 1, SERVER]


@pytest.mark.parametrize("mode", LISTENING)
@pytest.mark.parametrize("stage", list(Stage))
def test_a_resend_is_the_very_same_bytes_and_draws_nothing(stage, mode):
    kept, session = recorded(mode), rehearsed(mode)
    for step in Stage:
        reply = call(session, step, kept)
        if step is stage:
            break
    drawn = len(session.rng[1].taken)
    assert [session.clients[1].resend() for _ in range(3)] == [reply] * 3
    assert len(session.rng[1].taken) == drawn


@pytest.mark.parametrize("mode", LISTENING)
@pytest.mark.parametrize("stage", [stage for stage in Stage if stage is not Stage.ADVERTISE])
def test_after_an_error_a_client_is_done_for_good(stage, mode):
    kept, session = recorded(mode), rehearsed(mode)
    for step in Stage:
        if step is stage:
            break
        call(session, step, kept)
    with pytest.raises(SecureSumError):
        call(session, stage, {(stage, SERVER, 1): b"garbage"})
    assert session.clients[1].stage is None
    for again in Stage:
        with refused(OutOfOrder, again, None):
            call(session, again, kept)
    with refused(OutOfOrder, None, None):
        session.clients[1].resend()


@pytest.mark.parametrize("mode", LISTENING)
def test_a_client_that_left_says_nothing_more(mode):
    kept, session = recorded(mode), rehearsed(mode)
    call(session, Stage.ADVERTISE, kept)
    session.clients[1].abort()
    with refused(OutOfOrder, Stage.SHARE, None):
        call(session, Stage.SHARE, kept)
    with refused(OutOfOrder, None, None):
        session.clients[1].resend()


@pytest.mark.parametrize(
    ("mode", "fewer"), [("active", survivors(0, 1, 2, 3)), ("chosen", records(1, VOUCHER, drop_record(4)))]
)
def test_a_client_signs_one_survivor_set_only(mode, fewer):
    kept, again = recorded(mode), rehearsed(mode)
    for stage in (Stage.ADVERTISE, Stage.SHARE, Stage.UPLOAD, Stage.CONFIRM):
        call(again, stage, kept)
    for told in (kept[Stage.CONFIRM, SERVER, 1], fewer(kept[Stage.CONFIRM, SERVER, 1])):
        with refused(OutOfOrder, Stage.CONFIRM, None):
            again.clients[1].confirm(told)
    assert again.clients[1].resend() == kept[Stage.CONFIRM, 1, SERVER]


@pytest.mark.parametrize("mode", LISTENING)
def test_a_semi_honest_client_is_not_talked_into_confirming_and_an_active_one_not_out_of_it(mode):
    kept, session = recorded(mode), rehearsed(mode)
    for stage in (Stage.ADVERTISE, Stage.SHARE, Stage.UPLOAD):
        call(session, stage, kept)
    with refused(OutOfOrder, Stage.UNMASK, None):
        session.clients[1].unmask(kept[Stage.CONFIRM, SERVER, 1])  # the survivor set, as in semi-honest mode
    with refused(OutOfOrder, Stage.CONFIRM, None):
        Rehearsal(mode="semi_honest").clients[1].confirm(kept[Stage.CONFIRM, SERVER, 1])


@pytest.mark.parametrize("mode", MODES)
def test_the_server_takes_one_message_a_stage_from_each_client(mode):
    session = rehearsed(mode)
    repeated = []

    def twice(stage, sender, receiver, message):
        if receiver is SERVER and sender == 4:
            for earlier in repeated:
                with pytest.raises(SecureSumError) as caught:
                    session.server.receive(4, earlier)  # a message of an earlier stage
                assert caught.value.stage is stage
            session.server.receive(4, message)
            with refused(OutOfOrder, stage, 4):
                session.server.receive(4, message)
            repeated.append(message)
            return None
        return message

    session.play(intercept=twice)
    assert session.server.result.counts.tolist() == session.expected(tuple(session.ids))


@pytest.mark.parametrize("mode", MODES)
def test_the_server_does_not_close_past_its_end(mode):
    session = rehearsed(mode)
    with refused(OutOfOrder, Stage.ADVERTISE, None):
        session.server.result  # noqa: B018
    session.play()
    for what in (session.server.close, lambda: session.server.receive(1, b"")):
        with pytest.raises(OutOfOrder):
            what()


@pytest.mark.parametrize("mode", LISTENING)
def test_a_server_that_skips_the_confirmations_gets_no_shares(mode):
    """Straight from the uploads to unmask, with the survivor set in place of signatures or vouchers."""
    session = rehearsed(mode)
    inbox = session.play(until=Stage.UPLOAD)
    with refused(OutOfOrder, Stage.UNMASK, None):
        session.clients[0].unmask(inbox[0])


def test_a_client_that_is_left_out_of_the_survivors_does_not_sign():
    """On a chosen graph it is told of others alone; whoever does not count it gives it no voucher."""
    kept, again = recorded("active"), Rehearsal()
    for stage in (Stage.ADVERTISE, Stage.SHARE, Stage.UPLOAD):
        call(again, stage, kept)
    with refused(ProtocolError, Stage.CONFIRM, None):
        again.clients[1].confirm(survivors(0, 2, 3, 4)(kept[Stage.CONFIRM, SERVER, 1]))
