"""Broken if a server can tell clients different sets, of who advertised, who shared or who survived.

Clients with different views could be made to open complementary halves of the masks.

On a chosen graph nobody signs such a set. A server may tell each client something else of its neighbours, and
vouchers keep apart what opens: `test_chosen_graph_under_a_lying_server` splits the clients in all these ways.
Here is what a client, or an honest server, refuses on either graph.
"""

from __future__ import annotations

import pytest
import reference as wire
from chosen import choice, rehearsed
from forgery import (
    SEALED_BYTES,
    SIGNATURE_BYTES,
    drop_record,
    only,
    records,
    refield,
    refused,
    survivors,
    take_apart,
)
from rehearsal import SERVER, Rehearsal, identity_key

from prism_crypto.errors import ContextMismatch, MessageError, SealError, SignatureError, ThresholdError
from prism_crypto.stage import Stage
from prism_crypto.stages.advert import advert_bytes

MODES = ["active", "chosen"]


def fewer_sharers(*ids: int):
    """Tell a client that these have shared, with their sealed shares."""

    def change(message: bytes) -> bytes:
        kind, tag, (_, _, sealed) = take_apart(message)
        kept = {i: box for i, box in wire.read_records(sealed, SEALED_BYTES).items() if i in ids}
        return wire.wrap(kind, tag, len(ids), wire.id_list(list(ids)), wire.write_records(kept))

    return change


def test_survivor_sets_that_differ_end_at_the_honest_server():
    session = Rehearsal()
    with refused(SignatureError, Stage.CONFIRM, 0):
        session.play(intercept=only(Stage.CONFIRM, SERVER, 0, survivors(0, 1, 2, 3)))


def test_a_confirmation_of_another_survivor_set_is_refused_by_every_client():
    session = Rehearsal()
    inbox = session.play(until=Stage.UPLOAD)
    signed = {
        i: take_apart(client.confirm(survivors(0, 1, 2, 3)(inbox[i]) if i == 0 else inbox[i]))[2][0]
        for i, client in session.clients.items()
    }
    _, tag, _ = take_apart(inbox[1])
    told = wire.wrap(wire.CONFIRMATIONS, tag, wire.write_records({i: signed[i] for i in (0, 1, 2, 3)}), b"")
    with refused(SignatureError, Stage.UNMASK, 0):
        session.clients[1].unmask(told)
    with refused(SignatureError, Stage.UNMASK, 1):
        session.clients[0].unmask(told)


def test_sharer_sets_that_differ_are_seen_in_the_confirmations():
    """All see the same survivors; client 0 was told that 4 had not shared, and would keep 4's key share."""
    session = Rehearsal()
    seen = {}

    def lie(stage, sender, receiver, message):
        if stage is Stage.UPLOAD and sender is SERVER and receiver == 0:
            return fewer_sharers(0, 1, 2, 3)(message)
        if stage is Stage.CONFIRM and sender is SERVER:
            return survivors(0, 1, 2, 3)(message)
        if stage is Stage.CONFIRM:
            seen[sender] = take_apart(message)[2][0]
        return message

    with refused(SignatureError, Stage.CONFIRM, 0):
        session.play(drop={4: Stage.UPLOAD}, intercept=lie)
    # A lying server does not stop there. It has two groups of signatures, neither of them enough.
    context = session.clients[0]._state.uploaded.context
    confirm = {i: session.clients[i] for i in (1, 2, 3)}
    inbox = {i: wire.wrap(wire.SURVIVORS, context[:16], 4, wire.id_list([0, 1, 2, 3])) for i in confirm}
    for i, client in confirm.items():
        seen[i] = take_apart(client.confirm(inbox[i]))[2][0]
    told = wire.wrap(wire.CONFIRMATIONS, context[:16], wire.write_records(seen), b"")
    with refused(SignatureError, Stage.UNMASK, 0):
        session.clients[1].unmask(told)
    with refused(ThresholdError, Stage.UNMASK, None):
        alone = {i: signature for i, signature in seen.items() if i != 0}
        session.clients[2].unmask(wire.wrap(wire.CONFIRMATIONS, context[:16], wire.write_records(alone), b""))


@pytest.mark.parametrize("mode", MODES)
def test_advert_sets_that_differ_separate_the_contexts(mode):
    session = rehearsed(mode)
    without_4 = records(1, advert_bytes(session.session), drop_record(4))
    with refused(ContextMismatch, Stage.SHARE, 0):
        session.play(intercept=only(Stage.SHARE, SERVER, 0, without_4))


def test_a_server_that_forwards_shares_across_contexts_gets_no_upload():
    """The server shows 0 all adverts but 4's, and carries the sealed shares to and fro as if nothing were."""
    session = Rehearsal()
    without_4 = records(1, advert_bytes(session.session), drop_record(4))
    adverts = session.play(until=Stage.ADVERTISE)
    replies = {
        i: client.share(without_4(adverts[i]) if i == 0 else adverts[i])
        for i, client in session.clients.items()
    }
    sealed = {i: wire.read_records(take_apart(reply)[2][0], SEALED_BYTES) for i, reply in replies.items()}

    def told(receiver: int, members: list[int]) -> bytes:
        tag = take_apart(replies[receiver])[1]
        boxes = {i: sealed[i][receiver] for i in members}
        return wire.wrap(wire.SHARES, tag, len(members), wire.id_list(members), wire.write_records(boxes))

    # Nothing of the others opens at 0. At 1 what comes from 0 does not: it goes on without, and opens nothing
    # for the server, which can't show that 0 has signed this in 1's context.
    with refused(SealError, Stage.UPLOAD, None):
        session.clients[0].upload(told(0, [0, 1, 2, 3]), session.values[0])
    lacking = take_apart(session.clients[1].upload(told(1, [0, 1, 2, 3, 4]), session.values[1]))[2][1]
    assert lacking == wire.id_list([0])
    one = session.clients[1]
    context = one._state.context
    everybody = wire.id_list([0, 1, 2, 3, 4])
    one.confirm(wire.wrap(wire.SURVIVORS, context[:16], 5, everybody))
    body = wire.confirmation(context, [0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
    signatures = {i: wire.ed25519_sign(identity_key(i), body) for i in (0, 1, 2, 3)}  # all in league
    _, _, (dealt, signature) = take_apart(replies[0])
    appeal = wire.u32(0) + signature + wire.text(dealt)
    with refused(SealError, Stage.UNMASK, None):
        one.unmask(wire.wrap(wire.CONFIRMATIONS, context[:16], wire.write_records(signatures), appeal))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("victim", [0, 2, 4])
def test_no_group_small_enough_to_be_told_apart_goes_on(victim, mode):
    """Two groups with no honest client in common can't both have t of its holders."""
    session = rehearsed(mode)
    adverts = session.play(until=Stage.ADVERTISE)
    group = {victim, 0, 1}
    if mode == "chosen":  # three of the six that it chose, and all others
        group = {*session.ids} - {*choice(session, victim)[:3]}

    def keep(cut: dict[int, bytes]) -> None:
        for other in set(cut) - set(group):
            del cut[other]

    with refused(ThresholdError, Stage.SHARE, None):
        session.clients[victim].share(records(1, advert_bytes(session.session), keep)(adverts[victim]))


def test_the_number_of_survivors_and_their_list_cannot_disagree():
    session = Rehearsal()
    lie = refield(lambda fields: [5, wire.id_list([0, 1, 2, 3])])
    with refused(MessageError, Stage.CONFIRM, None):
        session.play(intercept=only(Stage.CONFIRM, SERVER, 0, lie))


def test_a_clients_own_confirmation_cannot_be_replaced():
    """Whatever is said to be its own signature must be the one that it made."""
    session = Rehearsal()
    swap = records(0, SIGNATURE_BYTES, lambda cut: cut.update({0: cut[1]}))
    with refused(SignatureError, Stage.UNMASK, None):
        session.play(intercept=only(Stage.UNMASK, SERVER, 0, swap))
