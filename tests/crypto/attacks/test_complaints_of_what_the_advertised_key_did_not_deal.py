"""Broken if a holder's complaint reveals what it agreed on with a dealer that has signed no garbage for it.

A complaint opens both of the shares that the dealer has sealed for its holder, and t of them its vector. So
it may only answer a dealing by whoever holds the sealing key in the advert. The identity's signature is less:
a server that has an old copy of a client's identity signs garbage in its name, in the session that the client
is in; and on a chosen graph a copy of a client, made before its advert, has signed a dealing of other keys.
(A copy of the holder: `test_second_adverts_in_a_clients_name`.)
"""

from __future__ import annotations

from contextlib import suppress

import pytest
import reference as wire
from chosen import choice, chosen_rehearsal, saw
from forgery import SEALED_BYTES, records, refield, refused, take_apart
from reference_primitives import ed25519_sign, x25519_public
from rehearsal import SERVER, Rehearsal, Stream, identity_key

from prism_crypto import EvidenceError, MemoryCounter, verify_evidence
from prism_crypto.errors import SealError, SecureSumError
from prism_crypto.stage import Stage
from prism_crypto.stages import gathering
from prism_crypto.stages.advert import read_advert
from prism_crypto.stages.evidence import DealingEvidence, SealEvidence, VoucherEvidence, encode_evidence
from prism_crypto.wire.messages import encode_views

CLONED = VICTIM = 5
GARBAGE = bytes(SEALED_BYTES)


def test_an_identity_alone_deals_nothing_that_is_complained_of():
    room, context, revealed, forged = Rehearsal(range(10)), b"", [], b""

    def lie(stage, sender, receiver, message):
        nonlocal context, forged
        if sender is not SERVER:
            if stage is Stage.UNMASK and take_apart(message)[2][2]:
                revealed.append(sender)
            return message
        if receiver == VICTIM:
            if stage is Stage.SHARE:
                adverts = wire.read_records(take_apart(message)[2][1], 240)
                context = wire.context1(room.session.context0, wire.all_adverts(adverts))
                sealed = wire.write_records(dict.fromkeys(room.ids, GARBAGE))
                body = wire.label("dealing") + context + wire.u32(VICTIM) + wire.hashes(sealed)
                signature = ed25519_sign(identity_key(VICTIM), body)
                forged = wire.u32(VICTIM) + signature + wire.u32(len(sealed)) + sealed
            return message
        if stage is Stage.UPLOAD:
            return records(2, SEALED_BYTES, lambda cut: cut.update({VICTIM: GARBAGE}))(message)
        if stage is Stage.UNMASK:
            return refield(lambda fields: [fields[0], forged])(message)
        return message

    with suppress(SecureSumError):
        room.play(intercept=lie, refused=[])
    assert not revealed, f"{len(revealed)} holders reveal what they share with client {VICTIM}"


def test_a_clones_dealing_is_no_proof_against_the_copy_that_a_holder_has_seen():
    room = chosen_rehearsal(degree=20, threshold=15)
    clients, context0, n = room.clients, room.session.context0, len(room.ids)
    clone = room.client(CLONED, rng=Stream("the clone"), counter=MemoryCounter())
    adverts = {i: take_apart(client.advertise())[2][0] for i, client in clients.items()}
    other = take_apart(clone.advertise())[2][0]
    chosen = {i: choice(room, i) for i in room.ids}

    def around(i: int, mine: tuple[int, ...]) -> list[int]:
        return [j for j in room.ids if j != i and (j in mine or i in chosen[j])]

    def shown(i: int, advert: bytes, mine: tuple[int, ...]) -> bytes:
        return wire.write_records({j: adverts[j] for j in around(i, mine)} | {i: advert})

    def dealing(client, seen: bytes) -> tuple[bytes, bytes, bytes]:
        _, tag, (sealed, signature) = take_apart(client.share(wire.wrap(17, context0[:16], b"", seen)))
        return tag, sealed, signature

    dealt = {i: dealing(client, shown(i, adverts[i], chosen[i])) for i, client in clients.items()}
    seen = shown(CLONED, other, read_advert(other, room.session).choice)
    _, sealed, signature = dealing(clone, seen)
    by_clone = wire.read_records(sealed, SEALED_BYTES)
    view = encode_views({CLONED: saw(wire.read_records(seen, len(other)))})

    uploads: dict[int, dict[int, bytes]] = {}
    for i, client in clients.items():
        boxes = {
            j: wire.read_records(dealt[j][1], SEALED_BYTES)[i] for j in around(i, chosen[i]) if i in chosen[j]
        }
        if CLONED in boxes and i in by_clone:
            boxes[CLONED] = by_clone[i]
        ids = wire.id_list(sorted([i, *around(i, chosen[i])]))
        message = client.upload(wire.wrap(18, dealt[i][0], n, ids, wire.write_records(boxes)), room.values[i])
        uploads[i] = wire.read_records(take_apart(message)[2][2], 16)

    counted: dict[int, dict[int, bytes]] = {}
    for i, client in clients.items():
        said = wire.write_records({j: uploads[j][i] for j in around(i, chosen[i])})
        message = client.confirm(wire.wrap(22, dealt[i][0], n, said))
        counted[i] = wire.read_records(take_apart(message)[2][0], 16)

    revealed = []
    statement = wire.u32(CLONED) + signature + wire.u32(len(sealed)) + sealed
    for i, client in clients.items():
        lied = CLONED in client._state.uploaded.unopened
        said = wire.write_records({j: counted[j][i] for j in chosen[i] if i in counted[j]})
        appeals = (statement, view) if lied else (b"", b"")
        try:
            message = client.unmask(wire.wrap(23, dealt[i][0], said, *appeals))
        except SecureSumError:
            continue
        revealed += [i] if take_apart(message)[2][2] else []
    assert not revealed, f"{len(revealed)} holders reveal what they share with client {CLONED}; t is 15"


@pytest.mark.parametrize("key", ["the identity", "another advert's", "another client's"])
def test_a_complaint_answers_the_key_that_the_holder_has_seen_and_no_other(key, monkeypatch):
    """A dealer in league with the server signs its garbage with a key that the holders were not shown."""
    monkeypatch.setattr(gathering, "check_key_signature", lambda *_: None)  # the server lies
    room, revealed = Rehearsal(range(10)), []

    def lie(stage, sender, receiver, message):
        if stage is Stage.SHARE and sender == VICTIM:
            context = room.clients[VICTIM]._state.context
            kind, tag, (sealed, _) = take_apart(message)
            own = wire.read_records(sealed, SEALED_BYTES)[VICTIM]
            sealed = wire.write_records(dict.fromkeys(room.ids, GARBAGE) | {VICTIM: own})
            seed = {
                "the identity": identity_key(VICTIM),
                "another advert's": bytes(range(32)),
                "another client's": room.rng[2].taken[:32],
            }[key]
            body = wire.label("dealing") + context + wire.u32(VICTIM) + wire.hashes(sealed)
            return wire.wrap(kind, tag, sealed, ed25519_sign(seed, body))
        if stage is Stage.UNMASK and sender is not SERVER and take_apart(message)[2][2]:
            revealed.append(sender)
        return message

    with refused(SealError, Stage.UNMASK, None) as caught:
        room.play(intercept=lie)
    assert f"not the one that client {VICTIM} signed" in str(caught.value)
    assert revealed == []


def _mocked_advert(room: Rehearsal, accused: int, seed: bytes, signer: int) -> bytes:
    """An advert of a sealing key whose seed is known, as if it were another client's."""
    context0 = room.session.context0
    said = x25519_public(wire.sealing_scalar(seed)) + bytes(64) + bytes(64)
    choice = wire.id_list([i for i in room.ids if i != accused][: room.session.degree])
    said += choice if room.session.graph == "chosen" else b""
    body = wire.label("advertise") + context0 + wire.u32(accused) + said
    return context0[:16] + said + ed25519_sign(identity_key(signer), body)


@pytest.mark.parametrize(
    ("signer", "seed", "convicts"), [(VICTIM, 9, True), (0, 9, False), (VICTIM, 8, False), (0, 8, False)]
)
@pytest.mark.parametrize("kind", ["dealing", "seals", "voucher"])
def test_evidence_holds_a_key_that_the_identity_signed_and_what_that_key_signed(kind, signer, seed, convicts):
    """Else whoever makes up an advert, or has an identity alone, makes evidence against an honest client."""
    room = chosen_rehearsal() if kind == "voucher" else Rehearsal(range(10))
    session, accused, holder, ours = room.session, VICTIM, 0, bytes([7]) * 32
    known = {
        accused: _mocked_advert(room, accused, bytes([9]) * 32, signer),
        holder: _mocked_advert(room, holder, ours, holder),
    }
    records = dict.fromkeys(room.ids, known[holder]) | known if kind != "voucher" else known
    adverts = wire.write_records(records)
    hashed = wire.all_adverts if kind != "voucher" else wire.view
    context = wire.context1(session.context0, hashed(records))
    pair = context if kind != "voucher" else wire.context1(session.context0, hashed(known))
    theirs = known[accused][16:48]
    proof = wire.prove_agreement(wire.sealing_scalar(ours), known[holder][16:48], theirs, pair)
    sealed = wire.write_records(dict.fromkeys(room.ids, GARBAGE)) if kind == "seals" else b"no records"
    said = wire.write_records({holder: bytes(16)})
    statement = bytes(32) + wire.u32(len(said)) + said

    def signature(usage: str, body: bytes) -> bytes:
        return ed25519_sign(bytes([seed]) * 32, wire.label(usage) + context + wire.u32(accused) + body)

    deal = signature("dealing", wire.hashes(sealed))
    vouched = signature("vouched-upload", bytes(32) + wire.hashes(said))
    evidence = {
        "dealing": DealingEvidence(2, session, accused, adverts, sealed, deal, 0, b""),
        "seals": SealEvidence(2, session, accused, adverts, sealed, deal, holder, proof),
        "voucher": VoucherEvidence(2, session, accused, adverts, statement, vouched, holder, proof),
    }[kind]
    if convicts:
        assert verify_evidence(encode_evidence(evidence), room.roster).client_id == accused
        return
    with pytest.raises(EvidenceError, match="signature does not verify"):
        verify_evidence(encode_evidence(evidence), room.roster)
