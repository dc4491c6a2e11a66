"""Broken if a signed dealing of a session that never was keeps whoever checks it busy for long.

One colluder signs a dealing for everybody in a large roster, with as large a threshold, and the offer holds
the keys to it. The shares are right: nobody is convicted, and it can do so again, with another number. With
weights in time t³ it took a second for 2,000 shares and 24 for 6,000. On a chosen graph adverts name all
holders, so there are fewer of them in 4 MiB.
"""

from __future__ import annotations

import math

import msgspec
import pytest
import reference as wire

import prism_crypto.stages.evidence as evidence_module
from prism_crypto import CountSpec, EvidenceError, Identity, Roster, Session, Stage, verify_evidence
from prism_crypto.primitives import shamir
from prism_crypto.primitives.context import (
    advert_digest,
    context1,
    pair_context,
    self_mask_commitment,
    sighting,
    view_digest,
)
from prism_crypto.primitives.keys import SealingKeyPair, seal
from prism_crypto.primitives.shamir import lagrange_weights
from prism_crypto.stages.advert import Advert
from prism_crypto.stages.evidence import DealingEvidence, encode_evidence
from prism_crypto.wire.messages import DEALING, VERSION, share_body

COLLUDER = 0
KEY, SEED = bytes(range(32)), bytes(range(1, 33))


def made_up(threshold: int, shown: int, graph: str = "complete") -> tuple[bytes, Roster]:
    """A dealing for ``shown`` clients, and the keys to all of it; on a chosen graph they are all others."""
    chosen = graph == "chosen"
    everyone = range(shown + chosen)
    holders = everyone[1:] if chosen else everyone
    identities = [Identity.generate(i) for i in everyone]
    roster = Roster({identity.client_id: identity.public_key for identity in identities})
    plan = {"federation": "made up", "number": 1, "graph": "complete", "threshold": shown}
    session = Session.plan(CountSpec(10), everyone, roster=roster, **plan)
    session = msgspec.structs.replace(
        session, invited=session.invited.summary(), threshold=threshold, graph=graph
    )
    context0 = session.context0
    commitment = self_mask_commitment(context0, COLLUDER, SEED)
    pair = SealingKeyPair(KEY)
    choice = tuple(holders) if chosen else ()
    advert = Advert(context0[:16], pair.public, bytes(32), commitment, bytes(64), choice)
    signature = identities[COLLUDER].sign(Stage.ADVERTISE, advert.signed_part(context0, COLLUDER))
    advert = msgspec.structs.replace(advert, signature=signature)
    adverts = wire.write_records(dict.fromkeys(everyone, advert.encode()))
    seen = [sighting(i, advert.encode()) for i in everyone]
    context = context1(context0, view_digest(seen) if chosen else advert_digest([adverts], shown))
    between = {i: pair_context(context0, seen[COLLUDER], seen[i]) if chosen else context for i in holders}
    # The constant polynomial: every share is the seed itself.
    sealed = wire.write_records(
        {i: seal(KEY, between[i], (COLLUDER, i), b"\0" + SEED) + bytes(49) for i in holders}
    )
    signature = pair.sign(DEALING, share_body(context, COLLUDER, sealed))
    keys = wire.write_records(dict.fromkeys(holders, KEY))
    evidence = DealingEvidence(VERSION, session, COLLUDER, adverts, sealed, signature, 0, keys)
    return encode_evidence(evidence), roster


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("threshold", [1001, 2000])
def test_no_more_shares_are_combined_than_take_a_moment(threshold, more, monkeypatch):
    """Neither where t of them give the secret nor where one more is held against their polynomial."""

    def reached(*given):
        pytest.fail("shares are combined")

    for name in ("open_share", "combine", "off"):
        monkeypatch.setattr(evidence_module, name, reached)
    with pytest.raises(EvidenceError, match=f"up to a threshold of 1000, not {threshold}"):
        verify_evidence(*made_up(threshold, threshold + more))


@pytest.mark.parametrize(("more", "found"), [(0, "the shares give the"), (1, "lie on one polynomial")])
def test_as_many_shares_as_are_combined_are_held_against_one_another(more, found):
    with pytest.raises(EvidenceError, match=found):
        verify_evidence(*made_up(1000, 1000 + more))


@pytest.mark.parametrize(("more", "found"), [(0, "the shares give the"), (1, "lie on one polynomial")])
def test_such_a_dealing_on_a_chosen_graph_is_understood_too(more, found):
    with pytest.raises(EvidenceError, match=found):
        verify_evidence(*made_up(20, 20 + more, "chosen"))


def test_on_a_chosen_graph_a_piece_has_no_room_for_as_many_shares_as_are_combined():
    with pytest.raises(EvidenceError, match="expected 4194304 bytes at most"):
        verify_evidence(*made_up(1000, 1000, "chosen"))


def test_weights_take_time_in_the_square_of_their_number(monkeypatch):
    """Of far points, too: the ids in evidence are its signer's.

    A product of a and b bits takes ab steps. Products of a few factors each, reduced in turn, take
    t² of a word's; of all at once, or not reduced, t³.
    """
    points, steps = tuple(range(1, 2**32, 2**21)), 0

    class Counted(int):
        def __mul__(self, other):
            nonlocal steps
            steps += self.bit_length() * other.bit_length()
            return Counted(int(self) * int(other))

        __rmul__ = __mul__

    def counted(factors):
        nonlocal steps
        product = Counted(math.prod(factors))
        steps += product.bit_length() ** 2
        return product

    lagrange_weights.cache_clear()
    monkeypatch.setattr(shamir, "prod", counted)
    lagrange_weights(points)
    word_steps = 32**2
    assert 0 < steps < 64 * word_steps * len(points) ** 2
