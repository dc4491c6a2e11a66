"""Broken if a dropped client's upload, arriving late, can be opened.

Its mask key has been reconstructed by then, so its pairwise masks are off. The self-mask must hold: no share
of its seed leaves anybody, and the honest server does not even read the message.
"""

from __future__ import annotations

import numpy as np
import pytest
import reference as wire
from forgery import refused, survivors, take_apart
from reference_primitives import Refused
from rehearsal import SERVER, Rehearsal

from prism_crypto.errors import OutOfOrder
from prism_crypto.primitives.keystream import add_keystream
from prism_crypto.primitives.shamir import combine
from prism_crypto.spec import CountSpec
from prism_crypto.stage import Stage

VICTIM = 2


def kept_back(mode: str = "active") -> tuple[Rehearsal, dict]:
    """A session whose server keeps the victim's upload to itself; and all messages."""
    session, seen = Rehearsal(spec=CountSpec(2000), mode=mode), {}

    def intercept(stage, sender, receiver, message):
        seen[stage, sender, receiver] = bytes(message)
        late = stage is Stage.UPLOAD and sender == VICTIM and receiver is SERVER
        return None if late else message

    session.play(intercept=intercept)
    return session, seen


@pytest.mark.parametrize("stage", [Stage.CONFIRM, Stage.UNMASK, None])
def test_a_late_upload_is_not_read(stage):
    session, kept = Rehearsal(), {}

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
    assert result.survivors == (0, 1, 3, 4)
    assert result.counts.tolist() == session.expected(result.survivors)


def test_a_client_without_the_dropped_ones_share_of_the_seed_cannot_be_talked_into_it():
    session, seen = kept_back()
    changed = survivors(*session.ids)(seen[Stage.CONFIRM, SERVER, 0])
    with refused(OutOfOrder, Stage.CONFIRM, None):
        session.clients[0].confirm(changed)
    with refused(OutOfOrder, Stage.UNMASK, None):
        session.clients[0].unmask(seen[Stage.UNMASK, SERVER, 0])


@pytest.mark.parametrize("mode", ["active", "semi_honest"])
def test_the_late_upload_stays_uniform_for_a_server_that_knows_all_pair_masks(mode):
    """The server reconstructs the victim's mask key, as it may, and takes every pairwise mask off."""
    session, seen = kept_back(mode)
    _, _, (_, blob) = take_apart(seen[Stage.SHARE, SERVER, 0])
    width = 240 if mode == "active" else 112
    context = wire.context1(session.session.context0, wire.all_adverts(wire.read_records(blob, width)))
    shares = {}
    for i in (0, 1, 3, 4):
        _, _, (seeds, keys, _, _) = take_apart(seen[Stage.UNMASK, i, SERVER])
        sealed = wire.read_records(take_apart(seen[Stage.UPLOAD, SERVER, i])[2][2], 98)[VICTIM]
        key = wire.read_records(keys, 32)[VICTIM]
        shares[i + 1] = wire.open_share(key, context, VICTIM, i, sealed[49:])
        with pytest.raises(Refused):
            wire.open_share(key, context, VICTIM, i, sealed[:49])
        assert VICTIM not in wire.read_records(seeds, 32)
    private = combine(shares, session.session.threshold)
    assert private == session.rng[VICTIM].taken[32:64]

    adverts = {
        i: wire.read_advert(a, i, session.reference_session())
        for i, a in wire.read_records(blob, width).items()
    }
    words = np.frombuffer(take_apart(seen[Stage.UPLOAD, VICTIM, SERVER])[2][0], dtype="<u8").copy()
    for peer in (0, 1, 3, 4):
        low, high = sorted((peer, VICTIM))
        seed = wire.pair_seed(
            wire.x25519(private, adverts[peer].masking),
            context,
            (low, high),
            (adverts[low].masking, adverts[high].masking),
        )
        add_keystream(words, seed, subtract=low == VICTIM)

    # What is left is the vector under its self-mask: nothing like a packed vector ...
    packed = session.session.packing.pack(session.values[VICTIM], bound=1)
    assert words[-2] != packed[-2]
    ones = np.unpackbits(words.view(np.uint8)).mean()
    assert abs(ones - 0.5) < 6 * 0.5 / np.sqrt(words.size * 64)
    # ... and with the seed, which nobody gave, it would be one: so the self-mask alone protected it.
    add_keystream(words, session.rng[VICTIM].taken[64:96], subtract=True)
    assert np.array_equal(words, packed)
