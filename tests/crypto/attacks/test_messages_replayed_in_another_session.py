"""Broken if bytes of one session mean anything in another: another round, number, cohort or federation."""

from __future__ import annotations

import pytest
import reference as wire
from forgery import refused, retag, take_apart
from rehearsal import SERVER, Rehearsal

from prism_crypto.errors import ContextMismatch, SealError, SecureSumError, SignatureError, StateError
from prism_crypto.keeping.session_counter import MemoryCounter
from prism_crypto.spec import CountSpec
from prism_crypto.stage import Stage

OTHERS = {
    "number": {"number": 2},
    "round": {"round": 1},
    "federation": {"federation": "another"},
    "threshold": {"threshold": 5},
    "minimum of survivors": {"min_survivors": 5},
    "colluders": {"colluders": 1},
    "dimension": {"spec": CountSpec(39)},
    "bound": {"spec": CountSpec(40, 2)},
    "codec": {"spec": CountSpec(40, 1, "other")},
    "model": {"model_hash": b"another model"},
    "parameters of the application": {"binding": b"flip=0.1"},
    "cohort": {"ids": range(6)},
}


def recorded(**fields) -> dict:
    """All messages of one session, by stage, sender and receiver."""
    session, kept = Rehearsal(**fields), {}

    def note(stage, sender, receiver, message):
        kept[stage, sender, receiver] = bytes(message)
        return message

    session.play(intercept=note)
    return kept


@pytest.mark.parametrize("what", OTHERS)
def test_an_advert_of_a_session_that_differs_in_one_thing_is_refused(what):
    other = Rehearsal(**OTHERS[what])
    message = other.clients[1].advertise()
    with refused(ContextMismatch, Stage.ADVERTISE, 1):
        Rehearsal().server.receive(1, message)


@pytest.mark.parametrize("what", OTHERS)
def test_an_advert_renamed_to_this_session_fails_its_signature(what):
    other, session = Rehearsal(**OTHERS[what]), Rehearsal()
    _, _, (advert,) = take_apart(other.clients[1].advertise())
    context0 = session.session.context0
    with refused(SignatureError, Stage.ADVERTISE, 1):
        session.server.receive(1, wire.wrap(wire.ADVERT, context0[:16], context0[:16] + advert[16:]))


@pytest.mark.parametrize("stage", list(Stage))
def test_a_clients_message_of_an_earlier_round_is_refused_at_every_stage(stage):
    earlier = recorded(round=0)
    session = Rehearsal(round=1)

    def replay(at, sender, receiver, message):
        return earlier[stage, 1, SERVER] if (at, sender) == (stage, 1) else message

    with refused(ContextMismatch, stage, 1):
        session.play(intercept=replay)


@pytest.mark.parametrize("stage", [stage for stage in Stage if stage is not Stage.ADVERTISE])
def test_a_servers_message_of_an_earlier_round_is_refused_at_every_stage(stage):
    earlier = recorded(round=0)
    session = Rehearsal(round=1)

    def replay(at, sender, receiver, message):
        return earlier[stage, SERVER, 1] if (at, sender, receiver) == (stage, SERVER, 1) else message

    with refused(ContextMismatch, stage, None):
        session.play(intercept=replay)


def renamed_error(stage: Stage) -> tuple[type[SecureSumError], Stage, int | None]:
    """What a message of another session ends in when its tag is changed to this one's."""
    return {
        Stage.SHARE: (ContextMismatch, Stage.SHARE, 0),  # the adverts inside name their own context
        Stage.UPLOAD: (SealError, Stage.UPLOAD, None),  # nothing in it opens, not even its own
        Stage.UNMASK: (SignatureError, Stage.UNMASK, 0),
    }[stage]


@pytest.mark.parametrize("stage", [Stage.SHARE, Stage.UPLOAD, Stage.UNMASK])
def test_a_servers_message_renamed_to_this_session_is_refused_by_what_is_in_it(stage):
    # The same keys in both: the strongest position for whoever replays.
    earlier = recorded(round=0, label="the same randomness")
    session = Rehearsal(round=1, label="the same randomness")

    def replay(at, sender, receiver, message):
        if (at, sender, receiver) == (stage, SERVER, 1):
            own = take_apart(message)[1]
            replayed = retag(own)(earlier[stage, SERVER, 1])
            if stage is Stage.SHARE:
                fields = take_apart(message)[2]
                mine = wire.read_records(fields[1], 240)[1]
                replayed = _with_own_advert(replayed, mine)
            return replayed
        return message

    with refused(*renamed_error(stage)):
        session.play(intercept=replay)


def _with_own_advert(message: bytes, advert: bytes) -> bytes:
    kind, tag, (digest, blob) = take_apart(message)
    cut = wire.read_records(blob, 240)
    cut[1] = advert
    return wire.wrap(kind, tag, digest, wire.write_records(cut))


def test_a_confirmation_renamed_to_this_session_fails_its_signature():
    earlier = recorded(round=0)
    session = Rehearsal(round=1)

    def replay(at, sender, receiver, message):
        if (at, sender) == (Stage.CONFIRM, 1):
            return retag(take_apart(message)[1])(earlier[Stage.CONFIRM, 1, SERVER])
        return message

    with refused(SignatureError, Stage.CONFIRM, 1):
        session.play(intercept=replay)


def test_an_upload_renamed_to_this_session_gives_no_sum():
    earlier = recorded(round=0)
    session = Rehearsal(round=1)

    def replay(at, sender, receiver, message):
        if (at, sender) == (Stage.UPLOAD, 1):
            return retag(take_apart(message)[1])(earlier[Stage.UPLOAD, 1, SERVER])
        return message

    with refused(SignatureError, Stage.UPLOAD, 1):
        session.play(intercept=replay)


def test_an_advert_of_the_same_client_from_an_earlier_run_of_this_session_is_refused_by_the_client():
    """The same session number twice: the client's counter has seen it."""
    counters = {i: MemoryCounter() for i in range(5)}
    Rehearsal(counters=counters).play()
    again = Rehearsal(counters=counters, label="second run")
    with refused(StateError, Stage.ADVERTISE, None):
        again.clients[1].advertise()


def test_adverts_of_two_runs_cannot_be_mixed():
    first, second = Rehearsal(), Rehearsal(label="second run")
    one = take_apart(first.clients[2].advertise())[2][0]

    def mix(at, sender, receiver, message):
        if (at, sender, receiver) == (Stage.SHARE, SERVER, 1):
            kind, tag, (digest, blob) = take_apart(message)
            cut = wire.read_records(blob, 240)
            cut[2] = one  # signed by client 2 under this very context, in the run that was given up
            return wire.wrap(kind, tag, digest, wire.write_records(cut))
        return message

    # Client 1 now has another ctx1 than everybody else, and nothing that it makes opens anywhere.
    with refused(ContextMismatch, Stage.SHARE, 1):
        second.play(intercept=mix)


def test_keys_are_fresh_in_every_session():
    seen: set[bytes] = set()
    for number in range(1, 4):
        session = Rehearsal(number=number, label=f"run {number}")
        for client in session.clients.values():
            advert = take_apart(client.advertise())[2][0]
            keys = {advert[16:48], advert[48:80], advert[80:112]}
            assert len(keys) == 3
            assert not keys & seen
            seen |= keys
