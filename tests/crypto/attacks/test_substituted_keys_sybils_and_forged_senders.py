"""Broken if somebody can speak for a client that it is not, or invent one.

A server that puts its own keys in place of a client's reads that client's shares and computes its masks.
"""

from __future__ import annotations

import pytest
import reference as wire
from forgery import ADVERT_BYTES, only, records, refused, resigned, take_apart
from rehearsal import SERVER, Rehearsal, Stream, identity, identity_key

from prism_crypto.client import SecureSumClient
from prism_crypto.errors import (
    ContextMismatch,
    IdentityError,
    MessageError,
    OutOfOrder,
    PolicyError,
    ProtocolError,
    PublicKeyError,
    SealError,
    SignatureError,
)
from prism_crypto.keeping.identity import Identity, Roster
from prism_crypto.keeping.session_counter import MemoryCounter
from prism_crypto.policy import Policy
from prism_crypto.session import Session
from prism_crypto.spec import CountSpec
from prism_crypto.stage import Stage


def advert_of(message: bytes) -> bytes:
    return take_apart(message)[2][0]


def test_keys_that_the_server_puts_in_place_of_a_clients_are_refused():
    session, servers_own = Rehearsal(), Rehearsal(label="the server's own keys")
    ours = advert_of(servers_own.clients[3].advertise())

    def substitute(cut: dict[int, bytes]) -> None:
        cut[3] = ours[:112] + cut[3][112:]  # the signature is the client's, the keys are not

    with refused(SignatureError, Stage.SHARE, 3):
        session.play(intercept=only(Stage.SHARE, SERVER, 1, records(1, ADVERT_BYTES, substitute)))


def test_keys_signed_by_somebody_who_is_in_the_roster_under_another_id_are_refused():
    session = Rehearsal()
    swap = records(1, ADVERT_BYTES, lambda cut: cut.update({2: cut[3], 3: cut[2]}))
    with refused(SignatureError, Stage.SHARE, 2):
        session.play(intercept=only(Stage.SHARE, SERVER, 1, swap))


def test_a_clients_own_advert_cannot_be_replaced_even_by_one_that_it_signed():
    session, earlier = Rehearsal(), Rehearsal(label="the same client's other draw")
    another = advert_of(earlier.clients[1].advertise())
    replace = records(1, ADVERT_BYTES, lambda cut: cut.update({1: another}))
    with refused(ProtocolError, Stage.SHARE, None):
        session.play(intercept=only(Stage.SHARE, SERVER, 1, replace))


def test_a_sybil_outside_the_invited_set_is_refused():
    session, sybils = Rehearsal(), Rehearsal(range(9), label="sybils")
    advert = advert_of(sybils.clients[8].advertise())

    def replace(cut: dict[int, bytes]) -> None:
        del cut[4]
        cut[8] = advert

    with refused(ProtocolError, Stage.SHARE, 8):
        session.play(intercept=only(Stage.SHARE, SERVER, 1, records(1, ADVERT_BYTES, replace)))


def test_a_sybil_beside_all_invited_clients_makes_the_message_too_long():
    session = Rehearsal()
    add = records(1, ADVERT_BYTES, lambda cut: cut.update({8: cut[4]}))
    with refused(MessageError, Stage.SHARE, None):
        session.play(intercept=only(Stage.SHARE, SERVER, 1, add))


def test_sybils_invited_by_the_server_fail_against_the_pinned_roster():
    """The server makes up a cohort: one honest client, the rest its own, with a roster to match."""
    honest = identity(0)
    puppets = {i: Identity.generate(i, Stream(f"puppet {i}")) for i in range(1, 5)}
    invented = Roster({0: honest.public_key, **{i: key.public_key for i, key in puppets.items()}})
    pinned = Roster({i: identity(i).public_key for i in range(5)})
    offered = Session.plan(CountSpec(40), range(5), federation="rehearsal", number=1, roster=invented)
    victim = SecureSumClient(
        0, offered, Policy(min_survivors=2), identity=honest, roster=pinned, counter=MemoryCounter()
    )
    with refused(PolicyError, Stage.ADVERTISE, None):
        victim.advertise()


def test_a_server_with_the_right_roster_hash_and_unknown_ids_is_refused():
    pinned = Roster({i: identity(i).public_key for i in range(5)})
    offered = Session.plan(CountSpec(40), [0, 1, 2, 3, 77], federation="rehearsal", number=1, roster=pinned)
    victim = SecureSumClient(
        0, offered, Policy(min_survivors=2), identity=identity(0), roster=pinned, counter=MemoryCounter()
    )
    with refused(PolicyError, Stage.ADVERTISE, None) as caught:
        victim.advertise()
    assert "77" in str(caught.value)


def test_a_client_that_the_server_did_not_invite_is_not_heard():
    session = Rehearsal()
    for stranger in (9, -1, None):
        with pytest.raises(OutOfOrder):
            session.server.receive(stranger, session.clients[1].advertise() if stranger == 9 else b"")


def test_a_client_cannot_speak_as_another_through_its_own_connection():
    """The transport says who sent the bytes: client 1's advert from client 2 is client 2's problem."""
    session = Rehearsal()
    message = session.clients[1].advertise()
    with refused(SignatureError, Stage.ADVERTISE, 2):
        session.server.receive(2, message)
    session.server.receive(1, message)


def test_sealed_shares_presented_as_another_clients_do_not_open():
    session = Rehearsal()
    forged = records(2, 98, lambda cut: cut.update({1: cut[2], 2: cut[1]}))
    with refused(SealError, Stage.UPLOAD, None):
        session.play(intercept=only(Stage.UPLOAD, SERVER, 0, forged))


def test_shares_sealed_for_one_client_do_not_open_at_another():
    session = Rehearsal()
    to = {}

    def misdirect(stage, sender, receiver, message):
        if stage is Stage.UPLOAD and sender is SERVER:
            to[receiver] = message
            if receiver == 1:
                stolen = dict(to)[0]
                boxes = take_apart(stolen)[2][2]
                return records(2, 98, lambda cut: cut.update({2: wire.read_records(boxes, 98)[2]}))(message)
        return message

    # Client 1 goes on without it, and complains to nobody: client 2 has not signed that for it.
    with refused(SealError, Stage.UNMASK, None):
        session.play(intercept=misdirect)
    assert not session.server.blamed


def test_a_client_that_repeats_anothers_key_is_refused():
    """A mirror: the attacker does not know the key, but others would mask towards it."""
    session = Rehearsal()
    stolen = {}

    def mirror(stage, sender, receiver, message):
        if stage is Stage.ADVERTISE:
            stolen[sender] = advert_of(message)
            if sender == 4:
                theirs = stolen[1]
                return resigned(
                    session.session.context0, 4, lambda said: said[:32] + theirs[48:80] + said[64:]
                )(message)
        return message

    errors: list[Exception] = []
    session.play(intercept=mirror, refused=errors)
    assert [(type(error), error.peer) for error in errors] == [(PublicKeyError, 4)]
    assert session.server.result.counts.tolist() == session.expected((0, 1, 2, 3))


def test_an_identity_of_somebody_else_does_not_start_a_client():
    session = Rehearsal()
    with refused(IdentityError, None, 1):
        session.client(1, identity=identity(2))
    with refused(IdentityError, None, 1):
        session.client(1, identity=Identity(1, identity_key(2)))


def test_an_advert_of_another_roster_does_not_pass_for_one_of_this():
    session = Rehearsal()
    others = Rehearsal(
        identities={
            i: identity(i if i != 4 else 40) if i != 4 else Identity(4, identity_key(40)) for i in range(5)
        }
    )
    with refused(ContextMismatch, Stage.ADVERTISE, 1):
        session.server.receive(1, others.clients[1].advertise())
