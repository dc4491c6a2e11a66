"""Broken if evidence from a session on a chosen graph convicts a client that followed the protocol.

There a client has seen its neighbours' adverts only, and a colluder may show different adverts to different
people. So whoever makes up evidence may choose which of them to put into it.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import reference as wire
from chosen import chosen_rehearsal
from forgery import SEALED_BYTES, flip, take_apart
from reference_primitives import ed25519_sign, x25519_public
from rehearsal import SERVER, Rehearsal, identity_key

from prism_crypto import Stage, verify_evidence
from prism_crypto.errors import EvidenceError
from prism_crypto.stages.evidence import DealingEvidence, SealEvidence, UnmaskEvidence, encode_evidence
from prism_crypto.wire.messages import VERSION

ADVERT = 240 + 4 * 12
HONEST, COLLUDER = 5, 0


@pytest.fixture
def scene() -> dict[str, Any]:
    """A session that goes well, and what the server has of `HONEST` at its end."""
    room, kept, adverts = chosen_rehearsal(), {}, {}

    def note(stage, sender, receiver, message):
        if stage is Stage.ADVERTISE:
            adverts[sender] = take_apart(message)[2][0]
        if HONEST in (sender, receiver):
            kept[stage, receiver is SERVER] = take_apart(message)[2]
        return message

    room.play(intercept=note)
    assert not room.server.blamed
    return {
        "room": room,
        "all": adverts,
        "adverts": kept[Stage.SHARE, False][1],
        "dealt": kept[Stage.SHARE, True],
        "received": kept[Stage.UPLOAD, False][2],
        "last": kept[Stage.UNMASK, True],
    }


def another_advert(room: Rehearsal, advert: bytes) -> bytes:
    """The colluder signs a second advert, with other keys, in the same session."""
    keys = x25519_public(bytes([9]) * 32) + x25519_public(bytes([10]) * 32)
    said = keys + advert[80:-64]
    body = wire.label("advertise") + room.session.context0 + wire.u32(COLLUDER) + said
    return advert[:16] + said + ed25519_sign(identity_key(COLLUDER), body)


def swapped(scene: dict[str, Any]) -> bytes:
    """What `HONEST` has seen, but for the colluder's advert."""
    cut = wire.read_records(scene["adverts"], ADVERT)
    assert COLLUDER in cut
    return wire.write_records(cut | {COLLUDER: another_advert(scene["room"], cut[COLLUDER])})


def fewer(scene: dict[str, Any]) -> bytes:
    """What `HONEST` has seen, without one of them."""
    cut = wire.read_records(scene["adverts"], ADVERT)
    return wire.write_records({i: advert for i, advert in cut.items() if i != COLLUDER})


def more(scene: dict[str, Any]) -> bytes:
    """What `HONEST` has seen, and the advert of one who is no neighbour of its."""
    cut = wire.read_records(scene["adverts"], ADVERT)
    stranger = next(i for i in scene["all"] if i not in cut)
    return wire.write_records(dict(sorted((cut | {stranger: scene["all"][stranger]}).items())))


VIEWS = {
    "what it saw": lambda scene: scene["adverts"],
    "the colluder's other advert": swapped,
    "one fewer": fewer,
    "a stranger's, too": more,
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_an_honest_last_message_convicts_nobody_under_any_adverts(scene, view):
    seeds, keys, complaints, signature = scene["last"]
    session = scene["room"].session
    for received in (scene["received"], altered_box(scene["received"])):
        evidence = UnmaskEvidence(
            VERSION, session, HONEST, view(scene), received, seeds, keys, complaints, signature
        )
        with pytest.raises(EvidenceError, match="proves nothing"):
            verify_evidence(encode_evidence(evidence), scene["room"].roster)


def altered_box(received: bytes) -> bytes:
    cut = wire.read_records(received, SEALED_BYTES)
    first = min(cut)
    return wire.write_records(cut | {first: flip(3)(cut[first])})


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_an_honest_dealing_convicts_nobody_under_any_adverts(scene, view):
    sealed, signature = scene["dealt"]
    room = scene["room"]
    holders = list(wire.read_records(sealed, SEALED_BYTES))[: room.session.threshold]
    keys = wire.write_records({i: bytes(32) for i in holders})
    for evidence in (
        DealingEvidence(VERSION, room.session, HONEST, view(scene), sealed, signature, 0, keys),
        SealEvidence(VERSION, room.session, HONEST, view(scene), sealed, signature, holders[0], bytes(96)),
    ):
        with pytest.raises(EvidenceError, match="proves nothing"):
            verify_evidence(encode_evidence(evidence), room.roster)


def test_evidence_is_of_one_graph(scene):
    """The same bytes, said to be from a session on the complete graph: another ctx0, other signatures."""
    room = scene["room"]
    seeds, keys, complaints, signature = scene["last"]
    for change in ({"graph": "complete"}, {"degree": 11}, {"threshold": 9}, {"number": 2}):
        session = msgspec.structs.replace(room.session, **change)
        evidence = UnmaskEvidence(
            VERSION, session, HONEST, scene["adverts"], scene["received"], seeds, keys, complaints, signature
        )
        with pytest.raises(EvidenceError, match="proves nothing"):
            verify_evidence(encode_evidence(evidence), room.roster)
