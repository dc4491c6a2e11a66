"""Broken if a signed dealing of a session that never was keeps whoever checks it busy for long.

It takes a second for 2,000 shares, 7 for 4,000, and as much again with each number that it is signed for.

One colluder signs a dealing for everybody in the roster, with as large a threshold, and the offer holds the
keys to it. The shares are right: nobody is convicted, and it can do so again, with another number.
"""

from __future__ import annotations

import time

import msgspec
import pytest
import reference as wire

from prism_crypto import CountSpec, EvidenceError, Identity, Roster, Session, Stage, verify_evidence
from prism_crypto.primitives.context import advert_digest, context1, self_mask_commitment
from prism_crypto.primitives.keys import seal
from prism_crypto.stages.evidence import DealingEvidence, encode_evidence
from prism_crypto.wire.messages import VERSION, share_body

CLIENTS, COLLUDER = 2000, 0
KEY, SEED = bytes(range(32)), bytes(range(1, 33))


@pytest.mark.xfail(strict=True, reason="weights of t points take time t³, and t is bounded by the roster")
def test_a_dealing_to_a_whole_large_roster_costs_no_long_while():
    identities = [Identity.generate(i) for i in range(CLIENTS)]
    roster = Roster({identity.client_id: identity.public_key for identity in identities})
    session = Session.plan(
        CountSpec(10),
        range(CLIENTS),
        federation="made up",
        number=1,
        roster=roster,
        graph="complete",
        threshold=CLIENTS,
    )
    session = msgspec.structs.replace(session, invited=session.invited.summary())
    context0 = session.context0
    commitment = self_mask_commitment(context0, COLLUDER, SEED)
    adverts = wire.write_records(
        dict.fromkeys(range(CLIENTS), context0[:16] + bytes(64) + commitment + bytes(128))
    )
    context = context1(context0, advert_digest([adverts], CLIENTS))
    # The constant polynomial: every share is the seed itself.
    sealed = wire.write_records(
        {i: seal(KEY, context, (COLLUDER, i), b"\0" + SEED) + bytes(49) for i in range(CLIENTS)}
    )
    signature = identities[COLLUDER].sign(Stage.SHARE, share_body(context, COLLUDER, sealed))
    keys = wire.write_records(dict.fromkeys(range(CLIENTS), KEY))
    evidence = encode_evidence(
        DealingEvidence(VERSION, session, COLLUDER, adverts, sealed, signature, 0, keys)
    )
    start = time.process_time()
    with pytest.raises(EvidenceError):
        verify_evidence(evidence, roster)
    assert time.process_time() - start < 0.3
