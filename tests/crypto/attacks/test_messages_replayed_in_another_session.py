"""Broken if bytes of one session mean anything in another: another round, number, cohort or federation."""

from __future__ import annotations

from functools import cache

import pytest
import reference as wire
import reference_chosen
from chosen import SMALL, rehearsed
from forgery import records, refused, retag, take_apart
from rehearsal import SERVER, Rehearsal

from prism_crypto.errors import (
    ContextMismatch,
    SealError,
    SecureSumError,
    SignatureError,
    StateError,
    ThresholdError,
)
from prism_crypto.keeping.session_counter import MemoryCounter
from prism_crypto.spec import CountSpec
from prism_crypto.stage import Stage
from prism_crypto.stages.advert import advert_bytes

MODES = ["active", "chosen"]
OTHERS = {
    "number": {"number": 2},
    "round": {"round": 1},
    "federation": {"federation": "another"},
    "dimension": {"spec": CountSpec(39)},
    "bound": {"spec": CountSpec(40, 2)},
    "codec": {"spec": CountSpec(40, 1, "other")},
    "model": {"model_hash": b"another model"},
    "parameters of the application": {"binding": b"flip=0.1"},
}
OF_A_GRAPH = {
    "active": {
        "threshold": {"threshold": 5},
        "minimum of survivors": {"min_survivors": 5},
        "colluders": {"colluders": 1},
        "cohort": {"ids": range(6)},
    },
    "chosen": {
        "threshold": {"threshold": 5},
        "minimum of survivors": {"lost": 2},
        "cohort": {"n": 10},
    },
}
DIFFERENT = [
    pytest.param(mode, how, id=f"{what}-{mode}")
    for mode in MODES
    for what, how in {**OTHERS, **OF_A_GRAPH[mode]}.items()
]


@cache
def recorded(mode: str, **fields) -> dict:
    """All messages of one session, by stage, sender and receiver."""
    session, kept = rehearsed(mode, **fields), {}

    def note(stage, sender, receiver, message):
        kept[stage, sender, receiver] = bytes(message)
        return message

    session.play(intercept=note)
    return kept


@pytest.mark.parametrize(("mode", "how"), DIFFERENT)
def test_an_advert_of_a_session_that_differs_in_one_thing_is_refused(mode, how):
    message = rehearsed(mode, **how).clients[1].advertise()
    with refused(ContextMismatch, Stage.ADVERTISE, 1):
        rehearsed(mode).server.receive(1, message)


@pytest.mark.parametrize(("mode", "how"), DIFFERENT)
def test_an_advert_renamed_to_this_session_fails_its_signature(mode, how):
    other, session = rehearsed(mode, **how), rehearsed(mode)
    adverts = {i: take_apart(client.advertise())[2][0] for i, client in other.clients.items()}
    # The first of whom everything fits here, but the signature.
    sender = next(i for i in adverts if set(reference_chosen.chosen(adverts[i])) <= set(session.ids))
    context0 = session.session.context0
    renamed = wire.wrap(wire.ADVERT, context0[:16], context0[:16] + adverts[sender][16:])
    with refused(SignatureError, Stage.ADVERTISE, sender):
        session.server.receive(sender, renamed)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stage", list(Stage))
def test_a_clients_message_of_an_earlier_round_is_refused_at_every_stage(stage, mode):
    earlier = recorded(mode, round=0)

    def replay(at, sender, receiver, message):
        return earlier[stage, 1, SERVER] if (at, sender) == (stage, 1) else message

    with refused(ContextMismatch, stage, 1):
        rehearsed(mode, round=1).play(intercept=replay)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stage", [stage for stage in Stage if stage is not Stage.ADVERTISE])
def test_a_servers_message_of_an_earlier_round_is_refused_at_every_stage(stage, mode):
    earlier = recorded(mode, round=0)

    def replay(at, sender, receiver, message):
        return earlier[stage, SERVER, 1] if (at, sender, receiver) == (stage, SERVER, 1) else message

    with refused(ContextMismatch, stage, None):
        rehearsed(mode, round=1).play(intercept=replay)


RENAMED: dict[str, dict[Stage, tuple[type[SecureSumError], Stage, int | None]]] = {
    "active": {
        Stage.SHARE: (ContextMismatch, Stage.SHARE, 0),  # the adverts inside name their own context
        Stage.UPLOAD: (SealError, Stage.UPLOAD, None),  # nothing in it opens, not even its own
        Stage.UNMASK: (SignatureError, Stage.UNMASK, 0),
    },
    "chosen": {
        Stage.SHARE: (ContextMismatch, Stage.SHARE, 0),
        Stage.UPLOAD: (SealError, Stage.UNMASK, None),  # nothing opens, and nobody here has signed that
        Stage.CONFIRM: (ThresholdError, Stage.CONFIRM, None),  # no voucher is true
        Stage.UNMASK: (ThresholdError, Stage.UNMASK, None),
    },
}
"""What a message of another session ends in when its tag is changed to this one's."""


@pytest.mark.parametrize(("mode", "stage"), [(mode, stage) for mode in MODES for stage in RENAMED[mode]])
def test_a_servers_message_renamed_to_this_session_is_refused_by_what_is_in_it(stage, mode):
    # The same keys in both: the strongest position for whoever replays.
    earlier = recorded(mode, round=0, label="the same randomness")
    session = rehearsed(mode, round=1, label="the same randomness")

    def replay(at, sender, receiver, message):
        if (at, sender, receiver) == (stage, SERVER, 1):
            own = take_apart(message)[1]
            replayed = retag(own)(earlier[stage, SERVER, 1])
            if stage is Stage.SHARE:
                replayed = with_advert(replayed, 1, adverts_in(message, session)[1], session)
            return replayed
        return message

    with refused(*RENAMED[mode][stage]):
        session.play(intercept=replay)


def adverts_in(message: bytes, session: Rehearsal) -> dict[int, bytes]:
    return wire.read_records(take_apart(message)[2][1], advert_bytes(session.session))


def with_advert(message: bytes, client_id: int, advert: bytes, session: Rehearsal) -> bytes:
    """The server's message with another advert in it."""
    change = records(1, advert_bytes(session.session), lambda cut: cut.update({client_id: advert}))
    return change(message)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stage", [Stage.UPLOAD, Stage.CONFIRM])
def test_an_upload_or_a_confirmation_renamed_to_this_session_fails_its_signature(stage, mode):
    earlier = recorded(mode, round=0)

    def replay(at, sender, receiver, message):
        if (at, sender) == (stage, 1):
            return retag(take_apart(message)[1])(earlier[stage, 1, SERVER])
        return message

    with refused(SignatureError, stage, 1):
        rehearsed(mode, round=1).play(intercept=replay)


@pytest.mark.parametrize("mode", MODES)
def test_an_advert_of_the_same_client_from_an_earlier_run_of_this_session_is_refused_by_the_client(mode):
    """The same session number twice: the client's counter has seen it."""
    counters = {i: MemoryCounter() for i in range(SMALL["n"])}
    rehearsed(mode, counters=counters).play()
    again = rehearsed(mode, counters=counters, label="second run")
    with refused(StateError, Stage.ADVERTISE, None):
        again.clients[1].advertise()


@pytest.mark.parametrize("mode", MODES)
def test_adverts_of_two_runs_cannot_be_mixed(mode):
    first, second = rehearsed(mode), rehearsed(mode, label="second run")
    adverts = first.play(until=Stage.ADVERTISE)

    def mix(at, sender, receiver, message):
        if (at, sender, receiver) == (Stage.SHARE, SERVER, 1):
            peer = max(adverts_in(message, second).keys() & adverts_in(adverts[1], first).keys() - {1})
            # Signed under this very context, in the run that was given up.
            return with_advert(message, peer, adverts_in(adverts[1], first)[peer], second)
        return message

    # Client 1 now has another ctx1 than everybody else, and nothing that it makes opens anywhere.
    with refused(ContextMismatch, Stage.SHARE, 1):
        second.play(intercept=mix)


@pytest.mark.parametrize("mode", MODES)
def test_keys_are_fresh_in_every_session(mode):
    seen: set[bytes] = set()
    for number in range(1, 4):
        session = rehearsed(mode, number=number, label=f"run {number}")
        for client in session.clients.values():
            advert = take_apart(client.advertise())[2][0]
            keys = {advert[16:48], advert[48:80], advert[80:112]}
            assert len(keys) == 3
            assert not keys & seen
            seen |= keys
