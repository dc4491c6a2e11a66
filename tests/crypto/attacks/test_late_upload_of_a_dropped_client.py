"""Broken if a dropped client's upload, arriving late, can be opened.

Its mask key has been reconstructed by then, so its pairwise masks are off. The self-mask must hold: no share
of its seed leaves anybody, and the honest server does not even read the message.
"""

from __future__ import annotations

import numpy as np
import pytest
import reference as wire
import reference_chosen
from chosen import VOUCHER, neighbours, rehearsed
from forgery import records, refused, survivors, take_apart
from reference_primitives import Refused
from rehearsal import SERVER, Rehearsal

from prism_crypto.errors import OutOfOrder
from prism_crypto.primitives.keystream import add_keystream
from prism_crypto.primitives.shamir import combine
from prism_crypto.spec import CountSpec
from prism_crypto.stage import Stage

VICTIM = 2


def kept_back(mode: str) -> tuple[Rehearsal, dict]:
    """A session whose server keeps the victim's upload to itself; and all messages."""
    session, seen = rehearsed(mode, spec=CountSpec(2000)), {}

    def intercept(stage, sender, receiver, message):
        seen[stage, sender, receiver] = bytes(message)
        late = stage is Stage.UPLOAD and sender == VICTIM and receiver is SERVER
        return None if late else message

    session.play(intercept=intercept)
    return session, seen


@pytest.mark.parametrize("mode", ["active", "chosen"])
@pytest.mark.parametrize("stage", [Stage.CONFIRM, Stage.UNMASK, None])
def test_a_late_upload_is_not_read(stage, mode):
    session, kept = rehearsed(mode), {}

    def late(at, sender, receiver, message):
        if (at, sender) == (Stage.UPLOAD, VICTIM):
            kept["upload"] = message
            return None
        if at is stage and receiver is SERVER:
            # The bytes are no upload at all, and the answer is the same: nobody looked at them.
            for bytes_ in (kept["upload"], b"not even a message"):
                with refused(OutOfOrder, stage, VICTIM):
                    session.server.receive(VICTIM, bytes_)
        return message

    session.play(intercept=late)
    with refused(OutOfOrder, None, VICTIM):
        session.server.receive(VICTIM, kept["upload"])
    result = session.server.result
    assert result.survivors == tuple(i for i in session.ids if i != VICTIM)
    assert result.counts.tolist() == session.expected(result.survivors)


@pytest.mark.parametrize("mode", ["active", "chosen"])
def test_a_client_without_the_dropped_ones_share_of_the_seed_cannot_be_talked_into_it(mode):
    session, seen = kept_back(mode)
    change = survivors(*session.ids)
    if mode == "chosen":  # the upload that was kept back vouches for it
        vouchers = wire.read_records(take_apart(seen[Stage.UPLOAD, VICTIM, SERVER])[2][2], VOUCHER)
        change = records(1, VOUCHER, lambda cut: cut.update({VICTIM: vouchers[0]}))
    changed = change(seen[Stage.CONFIRM, SERVER, 0])
    with refused(OutOfOrder, Stage.CONFIRM, None):
        session.clients[0].confirm(changed)
    with refused(OutOfOrder, Stage.UNMASK, None):
        session.clients[0].unmask(seen[Stage.UNMASK, SERVER, 0])


@pytest.mark.parametrize("mode", ["active", "semi_honest", "chosen"])
def test_the_late_upload_stays_uniform_for_a_server_that_knows_all_pair_masks(mode):
    """The server reconstructs the victim's mask key, as it may, and takes every pairwise mask off."""
    session, seen = kept_back(mode)
    adverts = {i: take_apart(seen[Stage.ADVERTISE, i, SERVER])[2][0] for i in session.ids}

    def context(peer: int) -> bytes:
        context0 = session.session.context0
        if mode == "chosen":
            return reference_chosen.between(context0, adverts, peer, VICTIM)
        return wire.context1(context0, wire.all_adverts(adverts))

    near, shares = neighbours(adverts, VICTIM), {}
    for i in near:
        _, _, (seeds, keys, _, _) = take_apart(seen[Stage.UNMASK, i, SERVER])
        assert VICTIM not in wire.read_records(seeds, 32)
        sealed = wire.read_records(take_apart(seen[Stage.UPLOAD, SERVER, i])[2][2], 98).get(VICTIM)
        if mode == "chosen" and i not in reference_chosen.chosen(adverts[VICTIM]):
            assert sealed is None
            continue
        key = wire.read_records(keys, 32)[VICTIM]
        shares[i + 1] = wire.open_share(key, context(i), VICTIM, i, sealed[49:])
        with pytest.raises(Refused):
            wire.open_share(key, context(i), VICTIM, i, sealed[:49])
    private = combine(shares, session.session.threshold)
    assert private == session.rng[VICTIM].taken[32:64]

    words = np.frombuffer(take_apart(seen[Stage.UPLOAD, VICTIM, SERVER])[2][0], dtype="<u8").copy()
    masking = {i: advert[48:80] for i, advert in adverts.items()}
    for peer in near:
        low, high = sorted((peer, VICTIM))
        shared = wire.x25519(private, masking[peer])
        seed = wire.pair_seed(shared, context(peer), (low, high), (masking[low], masking[high]))
        add_keystream(words, seed, subtract=low == VICTIM)

    # What is left is the vector under its self-mask: nothing like a packed vector ...
    packed = session.session.packing.pack(session.values[VICTIM], bound=1)
    assert words[-2] != packed[-2]
    ones = np.unpackbits(words.view(np.uint8)).mean()
    assert abs(ones - 0.5) < 6 * 0.5 / np.sqrt(words.size * 64)
    # ... and with the seed, which nobody gave, it would be one: so the self-mask alone protected it.
    add_keystream(words, session.rng[VICTIM].taken[64:96], subtract=True)
    assert np.array_equal(words, packed)
