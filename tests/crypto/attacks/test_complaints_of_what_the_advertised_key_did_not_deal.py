"""Broken if a holder's complaint reveals what it agreed on with a dealer that has signed no garbage for it.

A complaint opens both of the shares that the dealer has sealed for its holder, and t of them its vector. So
it may only answer a dealing by whoever holds the sealing key in the advert. The identity's signature is less:
a server that has an old copy of a client's identity signs garbage in its name, in the session that the client
is in; and on a chosen graph a copy of a client, made before its advert, has signed a dealing of other keys,
under a hash of adverts that the holder can't look into.
"""

from __future__ import annotations

from contextlib import suppress

import reference as wire
from chosen import choice, chosen_rehearsal
from forgery import SEALED_BYTES, records, refield, take_apart
from reference_primitives import ed25519_sign
from rehearsal import SERVER, Rehearsal, Stream, identity_key

from prism_crypto import MemoryCounter
from prism_crypto.errors import SecureSumError
from prism_crypto.primitives.context import advert_digest
from prism_crypto.stage import Stage
from prism_crypto.stages.advert import read_advert

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
    view = advert_digest([seen], len(wire.read_records(seen, len(other))))

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
        appeals = (statement, wire.u32(CLONED) + view) if lied else (b"", b"")
        try:
            message = client.unmask(wire.wrap(23, dealt[i][0], said, *appeals))
        except SecureSumError:
            continue
        revealed += [i] if take_apart(message)[2][2] else []
    assert not revealed, f"{len(revealed)} holders reveal what they share with client {CLONED}; t is 15"
