"""Of an appeal and a doubt on a chosen graph a second implementation says the same, byte by byte."""

from __future__ import annotations

import pytest
import reference as wire
import reference_chosen
from attacks.test_false_vouchers import FalseVouchers
from chosen import chosen_rehearsal
from forgery import flip, take_apart
from rehearsal import HYBRID, Rehearsal, Stage, encapsulating, identity_key, needs_kem, play

from prism_crypto.wire.messages import DEALING

DEALER, VOUCHER = 6, 5
"""Who seals garbage, and who vouches falsely."""


def garbage(room: Rehearsal, message: bytes, victims: int) -> bytes:
    """The dealer's message with seals that do not open, signed."""
    kind, tag, (sealed, _) = take_apart(message)
    cut = wire.read_records(sealed, room.session.dealt_bytes)
    for holder in list(cut)[:victims]:
        cut[holder] = room.signed_record(DEALER, holder, flip(0)(cut[holder]))
    sealed = wire.write_records(cut)
    body = room.clients[DEALER]._state.context + wire.u32(DEALER) + wire.hashes(sealed)
    return wire.wrap(kind, tag, sealed, room.key_signature(DEALER, DEALING, body))


@pytest.mark.parametrize("suite", ["x25519", pytest.param(HYBRID, marks=needs_kem)])
@pytest.mark.parametrize(("unopened", "false"), [(1, 0), (0, 1), (2, 2)])
def test_both_show_and_answer_appeals_and_doubts_alike(unopened, false, suite):
    room = chosen_rehearsal(n=12, degree=8, threshold=5, lost=3, suite=suite)
    vouchers, said = FalseVouchers(room, false, VOUCHER), []

    def lie(stage, sender, receiver, message):
        if (stage, sender) == (Stage.SHARE, DEALER) and unopened:
            message = garbage(room, message, unopened)
        message = vouchers(stage, sender, receiver, message)
        said.append((stage, sender, receiver, bytes(message)))
        return message

    with encapsulating("both"):
        room.play(intercept=lie)
    asked = [message[1] for stage, _, to, message in said if stage is Stage.UNMASK and to is not None]
    assert asked.count(24) == false
    assert set(room.server.blamed) == {i for i, lies in ((DEALER, unopened), (VOUCHER, false)) if lies}

    again = chosen_rehearsal(n=12, degree=8, threshold=5, lost=3, suite=suite)
    session, expected = again.reference_session(), iter(said)
    clients = {
        i: reference_chosen.Client(i, session, identity_key(i), again.values[i].tolist(), again.rng[i])
        for i in again.ids
    }
    server = reference_chosen.Server(session)

    def compare(stage, sender, receiver, message):
        *where, theirs = next(expected)
        assert where == [stage, sender, receiver]
        if sender not in (DEALER, VOUCHER):
            assert bytes(message) == theirs, where
        return theirs

    with encapsulating("both"):
        play(clients, server, again.values, intercept=compare)
    assert next(expected, None) is None
    assert server.blamed == set(room.server.blamed)
    assert server.counts == room.server.result.counts.tolist()
