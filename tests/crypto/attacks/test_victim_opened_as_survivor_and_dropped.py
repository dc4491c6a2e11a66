"""Broken if a server can get both kinds of share of one client: its vector alone would open.

With t shares of a client's self-mask seed and t of its mask key, every mask on its upload can be computed.
The request to unmask names no victims: a client derives from U2 and U3 which share of whom it gives.
"""

from __future__ import annotations

import pytest
import reference as wire
from chosen import VOUCHER, rehearsed
from forgery import (
    SEALED_BYTES,
    SIGNATURE_BYTES,
    only,
    records,
    refield,
    refused,
    signed,
    survivors,
    take_apart,
)
from rehearsal import SERVER, Rehearsal, identity_key

from prism_crypto.errors import (
    MessageError,
    OutOfOrder,
    PolicyError,
    ProtocolError,
    SignatureError,
    ThresholdError,
)
from prism_crypto.policy import Policy
from prism_crypto.server import SecureSumServer
from prism_crypto.stage import Stage

VICTIM = 3
MODES = ["active", "chosen"]
"""On the small chosen graph all others are neighbours of clients 0 and 3; 0 and 4 hold shares of 3's."""


@pytest.mark.parametrize("mode", MODES)
def test_the_survivor_set_cannot_hold_the_victim_twice(mode):
    session = rehearsed(mode)
    lie = refield(lambda _: [6, wire.id_list([0, 1, 2, 3, 3, 4])])
    if mode == "chosen":
        lie = records(1, VOUCHER, lambda cut: wire.u32(VICTIM) + cut[VICTIM] + wire.write_records(cut))
    with refused(MessageError, Stage.CONFIRM, None):
        session.play(intercept=only(Stage.CONFIRM, SERVER, 0, lie))


@pytest.mark.parametrize("mode", MODES)
def test_the_request_to_unmask_has_no_room_for_a_list_of_the_dead(mode):
    session = rehearsed(mode)

    def lie(message: bytes) -> bytes:
        kind, tag, fields = take_apart(message)
        return wire.wrap(kind, tag, *fields, wire.id_list([VICTIM]))

    with refused(MessageError, Stage.UNMASK, None):
        session.play(intercept=only(Stage.UNMASK, SERVER, 0, lie))


@pytest.mark.parametrize("mode", MODES)
def test_a_client_never_gives_both_shares_of_anybody(mode):
    session = rehearsed(mode)
    given: dict[int, tuple[set[int], set[int]]] = {}
    held: dict[int, set[int]] = {}

    def note(stage, sender, receiver, message):
        if stage is Stage.UPLOAD and sender is SERVER:
            held[receiver] = set(wire.read_records(take_apart(message)[2][2], SEALED_BYTES))
        if stage is Stage.UNMASK and receiver is SERVER:
            _, _, (seeds, keys, _, _) = take_apart(message)
            given[sender] = (set(wire.read_records(seeds, 32)), set(wire.read_records(keys, 32)))
        return message

    session.play(drop={VICTIM: Stage.UPLOAD}, intercept=note)
    assert set(given) == set(session.ids) - {VICTIM}
    assert all(given[i] == (held[i] - {VICTIM}, held[i] & {VICTIM}) for i in given)
    if mode == "active":
        assert all(held[i] == set(session.ids) for i in given)


@pytest.mark.parametrize("mode", [*MODES, "semi_honest"])
def test_a_client_that_has_given_its_shares_gives_no_others(mode):
    session = rehearsed(mode)
    last = {}

    def note(stage, sender, receiver, message):
        if stage is Stage.UNMASK and sender is SERVER:
            last[receiver] = message
        return message

    session.play(intercept=note)
    changed = survivors(0, 1, 2, 4)(last[0]) if mode == "semi_honest" else last[0]
    for message in (last[0], changed):
        with refused(OutOfOrder, Stage.UNMASK, None):
            session.clients[0].unmask(message)


def test_two_colluders_and_a_lying_server_cannot_confirm_two_survivor_sets():
    """Colluders 1 and 2 sign whatever the server likes.

    The server tells 0 that the victim survived, and 4 that it did not, and hands each the best set of
    signatures that it can get: 0 opens, 4 does not.
    """
    session = Rehearsal(colluders=2, min_cohort=2, policy=Policy(min_survivors=4, colluders=2, min_cohort=2))
    assert session.session.threshold == 4
    alive, dead = survivors(0, 1, 2, 3, 4), survivors(0, 1, 2, 4)
    inbox = session.play(until=Stage.UPLOAD)
    signed = {}
    for client_id, message in inbox.items():
        told = dead(message) if client_id == 4 else alive(message)
        signed[client_id] = take_apart(session.clients[client_id].confirm(told))[2][0]
    context = session.clients[4]._state.uploaded.context
    without_victim = wire.confirmation(context, [0, 1, 2, 3, 4], [0, 1, 2, 4])
    forged = {i: wire.ed25519_sign(identity_key(i), without_victim) for i in (1, 2)}

    _, tag, _ = take_apart(inbox[4])
    with_victim = wire.wrap(
        wire.CONFIRMATIONS, tag, wire.write_records({i: signed[i] for i in (0, 1, 2, 3)}), b""
    )
    session.clients[0].unmask(with_victim)

    for signatures, error, peer in (
        ({**forged, 4: signed[4]}, ThresholdError, None),  # three that are right
        ({**forged, 0: signed[0], 4: signed[4]}, SignatureError, 0),  # and one made for the other set
        ({**forged, 3: signed[3], 4: signed[4]}, ProtocolError, VICTIM),  # and the victim's own
    ):
        other = Rehearsal(colluders=2, min_cohort=2, policy=session.policy)
        again = other.play(until=Stage.UPLOAD)
        assert take_apart(other.clients[4].confirm(dead(again[4])))[2][0] == signed[4]
        with refused(error, Stage.UNMASK, peer):
            other.clients[4].unmask(wire.wrap(wire.CONFIRMATIONS, tag, wire.write_records(signatures), b""))


def test_a_threshold_under_which_two_sets_could_be_confirmed_is_refused_before_a_byte_leaves():
    with pytest.raises(PolicyError, match="2t > n"):
        Rehearsal(colluders=2, threshold=3, min_survivors=4, min_cohort=2)
    with pytest.raises(PolicyError, match="2t > n"):
        Rehearsal(colluders=3, threshold=4, min_survivors=4, min_cohort=1)


@pytest.mark.parametrize("mode", MODES)
def test_the_honest_server_refuses_a_client_that_gives_a_share_too_many(mode):
    session = rehearsed(mode)

    context, received = b"", b""

    def generous(stage, sender, receiver, message):
        nonlocal context, received
        if (stage, receiver) == (Stage.UPLOAD, 4):
            context, received = session.clients[4]._state.context, take_apart(message)[2][2]
        if (stage, sender) != (Stage.UNMASK, 4):
            return message
        more = records(1, 32, lambda cut: cut.update({VICTIM: bytes(32)}))
        return signed(context, 4, more, received)(message)

    with refused(ProtocolError, Stage.UNMASK, 4):
        session.play(intercept=generous)


@pytest.mark.parametrize(("mode", "width"), [("active", SIGNATURE_BYTES), ("chosen", VOUCHER)])
def test_signatures_or_vouchers_that_repeat_one_signer_are_refused(mode, width):
    session = rehearsed(mode)

    def repeat(message: bytes) -> bytes:
        def edit(cut: dict[int, bytes]) -> bytes:
            one = wire.u32(1) + cut[1]
            return one * 4

        return records(0, width, edit)(message)

    with refused(MessageError, Stage.UNMASK, None):
        session.play(intercept=only(Stage.UNMASK, SERVER, 0, repeat))


@pytest.mark.parametrize(("mode", "error"), [("active", SignatureError), ("chosen", ProtocolError)])
def test_a_second_server_cannot_continue_the_session_with_another_survivor_set(mode, error):
    """The server restarts itself from the adverts on, and plays the rest of the session again with fewer.

    A confirmation of the first run is a signature over another set, or vouches for the one that is gone.
    """
    session = rehearsed(mode)
    kept = {}

    def note(stage, sender, receiver, message):
        kept[stage, sender, receiver] = message
        return message

    session.play(until=Stage.CONFIRM, intercept=note)
    second = SecureSumServer(session.session, roster=session.roster)
    for stage in (Stage.ADVERTISE, Stage.SHARE):
        for i in session.ids:
            second.receive(i, kept[stage, i, SERVER])
        second.close()
    for i in session.ids:
        if i != VICTIM:
            second.receive(i, kept[Stage.UPLOAD, i, SERVER])
    told = second.close()
    with refused(OutOfOrder, Stage.CONFIRM, None):
        session.clients[0].confirm(told[0])
    with refused(error, Stage.CONFIRM, 0):
        second.receive(0, kept[Stage.CONFIRM, 0, SERVER])
