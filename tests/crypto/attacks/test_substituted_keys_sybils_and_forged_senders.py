"""Broken if somebody can speak for a client that it is not, or invent one.

A server that puts its own keys in place of a client's reads that client's shares and computes its masks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import reference as wire
from chosen import rehearsed
from forgery import SEALED_BYTES, only, records, refused, resigned, take_apart
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
from prism_crypto.session import Invited
from prism_crypto.stage import Stage
from prism_crypto.stages.advert import advert_bytes

MODES = ["active", "chosen"]
"""On the small chosen graph all others are neighbours of 0 and 1, and 2, 3, 4 and 6 chose 0."""


def advert_of(message: bytes) -> bytes:
    return take_apart(message)[2][0]


def told(session: Rehearsal, edit: Callable[[dict[int, bytes]], Any]):
    """An interception that changes the adverts that client 1 is told."""
    return only(Stage.SHARE, SERVER, 1, records(1, advert_bytes(session.session), edit))


@pytest.mark.parametrize("mode", MODES)
def test_keys_that_the_server_puts_in_place_of_a_clients_are_refused(mode):
    session, servers_own = rehearsed(mode), rehearsed(mode, label="the server's own keys")
    ours = advert_of(servers_own.clients[3].advertise())

    def substitute(cut: dict[int, bytes]) -> None:
        cut[3] = ours[:112] + cut[3][112:]  # the signature is the client's, the keys are not

    with refused(SignatureError, Stage.SHARE, 3):
        session.play(intercept=told(session, substitute))


# On the small chosen graph 2 and 6 did not choose each other: either choice is well-formed under both ids.
@pytest.mark.parametrize(("mode", "other"), [("active", 3), ("chosen", 6)])
def test_keys_signed_by_somebody_who_is_in_the_roster_under_another_id_are_refused(mode, other):
    session = rehearsed(mode)
    with refused(SignatureError, Stage.SHARE, 2):
        session.play(intercept=told(session, lambda cut: cut.update({2: cut[other], other: cut[2]})))


@pytest.mark.parametrize("mode", MODES)
def test_a_clients_own_advert_cannot_be_replaced_even_by_one_that_it_signed(mode):
    session, earlier = rehearsed(mode), rehearsed(mode, label="the same client's other draw")
    another = advert_of(earlier.clients[1].advertise())
    with refused(ProtocolError, Stage.SHARE, None):
        session.play(intercept=told(session, lambda cut: cut.update({1: another})))


@pytest.mark.parametrize("mode", MODES)
def test_a_sybil_outside_the_invited_set_is_refused(mode):
    session = rehearsed(mode)
    stranger = len(session.ids)
    more = {"n": stranger + 1} if mode == "chosen" else {"ids": range(stranger + 1)}
    advert = advert_of(rehearsed(mode, label="sybils", **more).clients[stranger].advertise())

    def replace(cut: dict[int, bytes]) -> None:
        del cut[4]
        cut[stranger] = advert

    with refused(ProtocolError, Stage.SHARE, stranger):
        session.play(intercept=told(session, replace))


@pytest.mark.parametrize("mode", MODES)
def test_a_sybil_beside_all_invited_clients_makes_the_message_too_long(mode):
    session = rehearsed(mode)
    add = told(session, lambda cut: cut.update({len(session.ids): cut[4]}))
    with refused(MessageError, Stage.SHARE, None):
        session.play(intercept=add)


def offered(mode: str, **changes: Any) -> SecureSumClient:
    """Client 0, which has pinned the others, and is offered another session than all of them planned."""
    session = rehearsed(mode)
    return session.client(0, session=msgspec.structs.replace(session.session, **changes))


@pytest.mark.parametrize("mode", MODES)
def test_sybils_invited_by_the_server_fail_against_the_pinned_roster(mode):
    """The server makes up a cohort: one honest client, the rest its own, with a roster to match."""
    puppets = {i: Identity.generate(i, Stream(f"puppet {i}")) for i in range(1, 9)}
    keys = {0: identity(0).public_key, **{i: key.public_key for i, key in puppets.items()}}
    ids = rehearsed(mode).ids
    invented = Roster({i: keys[i] for i in ids})
    with refused(PolicyError, Stage.ADVERTISE, None) as caught:
        offered(mode, roster_hash=invented.hash).advertise()
    assert "roster" in str(caught.value)


@pytest.mark.parametrize("mode", MODES)
def test_a_server_with_the_right_roster_hash_and_unknown_ids_is_refused(mode):
    ids = [*rehearsed(mode).ids[:-1], 77]
    with refused(PolicyError, Stage.ADVERTISE, None) as caught:
        offered(mode, invited=Invited.of(ids)).advertise()
    assert "77" in str(caught.value)


@pytest.mark.parametrize("mode", MODES)
def test_a_client_that_the_server_did_not_invite_is_not_heard(mode):
    session = rehearsed(mode)
    for stranger in (9, -1, None):
        with pytest.raises(OutOfOrder):
            session.server.receive(stranger, session.clients[1].advertise() if stranger == 9 else b"")


@pytest.mark.parametrize("mode", MODES)
def test_a_client_cannot_speak_as_another_through_its_own_connection(mode):
    """The transport says who sent the bytes: client 1's advert from client 0 is client 0's problem."""
    session = rehearsed(mode)
    message = session.clients[1].advertise()
    with refused(SignatureError, Stage.ADVERTISE, 0):
        session.server.receive(0, message)
    session.server.receive(1, message)


# On a chosen graph a client goes on while enough of its own holders are left, and finds in the end that
# nobody has signed what came.
@pytest.mark.parametrize(("mode", "stage"), [("active", Stage.UPLOAD), ("chosen", Stage.UNMASK)])
def test_sealed_shares_presented_as_another_clients_do_not_open(mode, stage):
    session = rehearsed(mode)
    forged = records(2, SEALED_BYTES, lambda cut: cut.update({3: cut[2], 2: cut[3]}))
    with refused(SealError, stage, None):
        session.play(intercept=only(Stage.UPLOAD, SERVER, 0, forged))


@pytest.mark.parametrize("mode", MODES)
def test_shares_sealed_for_one_client_do_not_open_at_another(mode):
    session = rehearsed(mode)
    to = {}

    def misdirect(stage, sender, receiver, message):
        if stage is Stage.UPLOAD and sender is SERVER:
            to[receiver] = message
            if receiver == 1:
                stolen = dict(to)[0]
                boxes = take_apart(stolen)[2][2]
                box = wire.read_records(boxes, SEALED_BYTES)[2]
                return records(2, SEALED_BYTES, lambda cut: cut.update({2: box}))(message)
        return message

    # Client 1 goes on without it, and complains to nobody: client 2 has not signed that for it.
    with refused(SealError, Stage.UNMASK, None):
        session.play(intercept=misdirect)
    assert not session.server.blamed


@pytest.mark.parametrize("mode", MODES)
def test_a_client_that_repeats_anothers_key_is_refused(mode):
    """A mirror: the attacker does not know the key, but others would mask towards it."""
    session = rehearsed(mode)
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
    others = tuple(i for i in session.ids if i != 4)
    assert session.server.result.survivors == others
    assert session.server.result.counts.tolist() == session.expected(others)


@pytest.mark.parametrize("mode", MODES)
def test_an_identity_of_somebody_else_does_not_start_a_client(mode):
    session = rehearsed(mode)
    with refused(IdentityError, None, 1):
        session.client(1, identity=identity(2))
    with refused(IdentityError, None, 1):
        session.client(1, identity=Identity(1, identity_key(2)))


@pytest.mark.parametrize("mode", MODES)
def test_an_advert_of_another_roster_does_not_pass_for_one_of_this(mode):
    session = rehearsed(mode)
    identities = {i: identity(i) for i in session.ids} | {4: Identity(4, identity_key(40))}
    others = rehearsed(mode, identities=identities)
    with refused(ContextMismatch, Stage.ADVERTISE, 1):
        session.server.receive(1, others.clients[1].advertise())
