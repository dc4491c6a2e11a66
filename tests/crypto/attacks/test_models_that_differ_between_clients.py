"""Broken if a server that gives one client another model than the rest still gets that client's update.

Inconsistent models single out a client in the sum (Pasquini, Francati, Ateniese 2022). The hash of the model
as each client itself loaded it is in ctx0, so such clients are in different sessions and nothing opens.
"""

from __future__ import annotations

import msgspec
import pytest
import reference as wire
from chosen import neighbours, rehearsed
from forgery import refused, take_apart
from rehearsal import SERVER, Rehearsal

from prism_crypto.errors import ContextMismatch, SealError, SignatureError
from prism_crypto.stage import Stage

VICTIM = 3
GRAPHS = ["active", "chosen"]
DIFFERENCES = {"model": {"model_hash": b"crafted"}, "clip and flip": {"binding": b"flip=0.01"}}


def inconsistent(what: str, mode: str) -> Rehearsal:
    """A session in which the victim has loaded something else than the others."""
    session = rehearsed(mode, model_hash=b"model", binding=b"flip=0.25")
    crafted = msgspec.structs.replace(session.session, **DIFFERENCES[what])
    session.clients[VICTIM] = session.client(VICTIM, session=crafted)
    return session


@pytest.mark.parametrize("mode", [*GRAPHS, "semi_honest"])
@pytest.mark.parametrize("what", DIFFERENCES)
def test_an_honest_server_refuses_the_odd_advert(what, mode):
    with refused(ContextMismatch, Stage.ADVERTISE, VICTIM):
        inconsistent(what, mode).play()


def adverts_of(session: Rehearsal) -> dict[int, bytes]:
    return {i: take_apart(client.advertise())[2][0] for i, client in session.clients.items()}


def told(receiver: int, adverts: dict[int, bytes], rename: bool) -> bytes:
    """The server's message with these adverts, in the receiver's context, renamed to it if that is wanted."""
    tag, seen = adverts[receiver][:16], (receiver, *neighbours(adverts, receiver))
    adverts = {i: advert for i, advert in adverts.items() if i in seen}
    if rename:
        adverts = {i: advert if i == receiver else tag + advert[16:] for i, advert in adverts.items()}
    return wire.wrap(wire.ADVERTS, tag, b"", wire.write_records(adverts))


@pytest.mark.parametrize("mode", GRAPHS)
@pytest.mark.parametrize("what", DIFFERENCES)
@pytest.mark.parametrize(("rename", "error"), [(False, ContextMismatch), (True, SignatureError)])
def test_clients_with_different_models_refuse_each_others_adverts(what, rename, error, mode):
    session = inconsistent(what, mode)
    adverts = adverts_of(session)
    with refused(error, Stage.SHARE, 0):
        session.clients[VICTIM].share(told(VICTIM, adverts, rename))
    with refused(error, Stage.SHARE, VICTIM):
        session.clients[0].share(told(0, adverts, rename))


@pytest.mark.parametrize("what", DIFFERENCES)
def test_without_signatures_their_shares_still_do_not_open(what):
    """Semi-honest mode promises nothing against a lying server; that it fails all the same costs nothing."""
    session = inconsistent(what, "semi_honest")
    adverts = adverts_of(session)
    replies = {i: client.share(told(i, adverts, True)) for i, client in session.clients.items()}
    boxes = {i: wire.read_records(take_apart(reply)[2][0], 98) for i, reply in replies.items()}
    for receiver, culprit in ((VICTIM, 0), (0, VICTIM)):
        tag = take_apart(replies[receiver])[1]
        to_it = {i: boxes[i][receiver] for i in session.ids}
        message = wire.wrap(wire.SHARES, tag, 5, wire.id_list(session.ids), wire.write_records(to_it))
        with refused(SealError, Stage.UPLOAD, culprit):
            session.clients[receiver].upload(message, session.values[receiver])


@pytest.mark.parametrize("mode", GRAPHS)
def test_the_same_model_for_all_is_summed(mode):
    session = rehearsed(mode, model_hash=b"model", binding=b"flip=0.25")
    uploads = []

    def note(stage, sender, receiver, message):
        if stage is Stage.UPLOAD and receiver is SERVER:
            uploads.append(sender)
        return message

    session.play(intercept=note)
    assert uploads == session.ids
