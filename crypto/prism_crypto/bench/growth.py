"""The cost of one client among very many, without running the others.

In a sparse graph a client meets its neighbours only. So one client, its neighbours, and a server made
up of a few lines are enough to measure it in a session of any number of clients: the client can't tell. Of an
active client's neighbours no more is there than their keys and what they say to it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import ParamSpec

import numpy as np

from prism_crypto.client import SecureSumClient
from prism_crypto.keeping.identity import Identity, Roster
from prism_crypto.keeping.session_counter import MemoryCounter
from prism_crypto.policy import Policy
from prism_crypto.primitives.chosen_graph import choose
from prism_crypto.primitives.context import (
    advert_digest,
    context1,
    encode_ids,
    pair_context,
    sighting,
    tag,
    u32,
    view_digest,
)
from prism_crypto.primitives.hybrid import (
    HybridMaskPair,
    HybridSealingPair,
    encapsulate_for,
    hybrid_seal_keys,
)
from prism_crypto.primitives.keys import KeyPair, SealingKeyPair, seal, seal_keys, voucher
from prism_crypto.primitives.shamir import SHARE_BYTES
from prism_crypto.session import Session, Suite
from prism_crypto.spec import CountSpec
from prism_crypto.stage import Mode, Stage
from prism_crypto.stages.advert import Advert, owner_body, read_advert
from prism_crypto.wire.messages import (
    RECORD,
    VERSION,
    AdvertMessage,
    AdvertsMessage,
    ShareMessage,
    SharesMessage,
    SurvivorsMessage,
    VouchedConfirmationsMessage,
    VouchedSurvivorsMessage,
    decode,
    decode_records,
    encode,
    encode_records,
    record_body,
)

__all__ = ["ClientCost", "one_active_client", "one_client"]

P = ParamSpec("P")

_ENOUGH = 2**40
"""No limit: the messages are our own."""


@dataclass(frozen=True)
class ClientCost:
    """What one client of ``clients`` pays.

    Attributes:
        clients: how many are invited.
        neighbours: how many of them it meets.
        seconds: its work, all stages.
        sent: its bytes, without the words of its vector.
        received: bytes to it.
        mode: semi-honest on a Harary graph, or active on one that clients choose.
        suite: how clients agree on keys.
    """

    clients: int
    neighbours: int
    seconds: float
    sent: int
    received: int
    mode: Mode = Mode.SEMI_HONEST
    suite: Suite = "x25519"


def one_client(
    n: int, d: int, *, dropout: float = 0.1, colluders: int | None = None, suite: Suite = "x25519"
) -> ClientCost:
    """Measure one client of a semi-honest session on a sparse graph of ``n`` clients.

    Args:
        n: invited clients.
        d: coordinates.
        dropout, colluders, suite: see `Session.plan`.
    """
    plan = Session.plan(
        CountSpec(d),
        range(n),
        federation="bench",
        number=1,
        mode=Mode.SEMI_HONEST,
        graph="harary",
        dropout=dropout,
        colluders=colluders,
        suite=suite,
    )
    offer = plan.offer()
    policy = Policy(min_survivors=2, mode=Mode.SEMI_HONEST)
    everyone = range(plan.degree + 1)
    parties = [SecureSumClient(i, Session.from_offer(offer), policy) for i in everyone]
    bench = _Stopwatch()

    first = bench.run(parties[0].advertise)
    adverts = {
        i: decode(
            AdvertMessage,
            first if i == 0 else parties[i].advertise(),
            plan.context0,
            limit=_ENOUGH,
            stage=Stage.ADVERTISE,
        ).advert
        for i in everyone
    }
    digest = advert_digest([u32(i) + adverts[i] for i in everyone], len(adverts))

    def near(i: int) -> bytes:
        others = {j: advert for j, advert in adverts.items() if j != i}
        return encode(AdvertsMessage(VERSION, tag(plan.context0), digest, encode_records(others)))

    message = near(0)
    bench.receive(message)
    sealed = {}
    context = b""
    for i in everyone:
        reply = parties[i].share(near(i)) if i else bench.run(parties[0].share, message)
        # The tag follows the kind, the version and two bytes of its own length.
        context = reply[5:21]
        records = decode(ShareMessage, reply, context, limit=_ENOUGH, stage=Stage.SHARE).sealed
        sealed[i] = decode_records(records, plan.dealt_bytes, stage=Stage.SHARE)[0]
    ids = encode_ids(everyone)
    message = encode(SharesMessage(VERSION, context, n, ids, encode_records(sealed)))
    bench.receive(message)
    bits = np.random.default_rng(0).integers(0, 2, d, dtype=np.uint8)
    bench.run(parties[0].upload, message, bits)
    message = encode(SurvivorsMessage(VERSION, context, n, ids))
    bench.receive(message)
    bench.run(parties[0].unmask, message)
    words = 8 * (plan.packing.length)
    return ClientCost(n, plan.degree, bench.seconds, bench.sent - words, bench.received, suite=suite)


def one_active_client(n: int, d: int, dropout: float = 0.05, suite: Suite = "x25519") -> ClientCost:
    """Measure one client of an active session on a graph that ``n`` clients choose.

    It was chosen as often as it chose. Reading the offer and checking the policy count, as its first stage.

    Args:
        n: invited clients.
        d: coordinates.
        dropout: share of clients that may drop out.
        suite: how clients agree on keys.
    """
    signers = _signers(n)
    roster = Roster({i: signer.public_key for i, signer in enumerate(signers)})
    plan = Session.plan(
        CountSpec(d),
        range(n),
        federation="bench",
        number=1,
        graph="chosen",
        dropout=dropout,
        roster=roster,
        suite=suite,
    )
    offer, context0 = plan.offer(), plan.context0
    policy = Policy(min_survivors=2, min_cohort=plan.min_cohort)
    bench = _Stopwatch()

    def enter() -> bytes:
        seen = Session.from_offer(offer)
        party[0] = SecureSumClient(
            0, seen, policy, identity=signers[0], roster=roster, counter=MemoryCounter()
        )
        return party[0].advertise()

    party: dict[int, SecureSumClient] = {}
    message = decode(AdvertMessage, bench.run(enter), context0, limit=_ENOUGH, stage=Stage.ADVERTISE)
    own = read_advert(message.advert, plan)
    others = [i for i in range(1, n) if i not in own.choice]
    choosers = choose([0, *others], 0, min(plan.degree, len(others)), os.urandom)
    sealing, masking = (HybridSealingPair, HybridMaskPair) if plan.hybrid else (SealingKeyPair, KeyPair)
    keys = {i: sealing.generate(os.urandom) for i in (*own.choice, *choosers)}
    masks = {i: masking.generate(os.urandom) for i in keys}
    records = {0: message.advert}
    kem: tuple[bytes, ...]
    for i, pair in keys.items():
        rest = [j for j in range(1, n) if j != i]
        chosen = choose([i, *rest], i, plan.degree - (i in choosers), os.urandom)
        choice = tuple(sorted((*chosen, *([0] if i in choosers else []))))
        mask, kem = masks[i], ()
        if isinstance(pair, HybridSealingPair) and isinstance(mask, HybridMaskPair):
            kem = (pair.kem.public, mask.kem.public)
        owner = pair.sign("owner", owner_body(context0, i))
        bare = Advert(tag(context0), pair.public, mask.public, own.commitment, owner, choice, kem_keys=kem)
        signature = signers[i].sign(Stage.ADVERTISE, bare.signed_part(context0, i))
        records[i] = bare.encode() + signature

    everything = encode_records(records)
    seen = {i: sighting(i, advert) for i, advert in records.items()}
    context = context1(context0, view_digest(seen.values()))
    agreed = {i: pair.agree(own.sealing_key) for i, pair in keys.items()}
    between = {i: pair_context(context0, seen[0], seen[i]) for i in keys}

    def says(usage: str, senders: tuple[int, ...]) -> bytes:
        return encode_records({i: voucher(agreed[i], usage, between[i], (i, 0)) for i in senders})

    def dealt(i: int) -> bytes:
        ends, public, mask, beside = (i, 0), (keys[i].public, own.sealing_key), masks[i], b""
        both = seal_keys(agreed[i], between[i], ends, public)
        if isinstance(mask, HybridMaskPair):
            theirs = (own.kem_keys[0], own.kem_keys[1])
            secret, encapsulated = encapsulate_for(mask, theirs, between[i], ends)
            both = hybrid_seal_keys(agreed[i], secret, encapsulated.sealing, between[i], ends, public)
            beside = encapsulated.encode()
        record = b"".join(seal(key, between[i], ends, bytes(SHARE_BYTES)) for key in both) + beside
        if plan.hybrid:
            record += keys[i].sign(RECORD, record_body(between[i], ends, record))
        return record

    name, client = tag(context), party[0]
    adverts = bench.receive(encode(AdvertsMessage(VERSION, tag(context0), b"", everything)))
    bench.run(client.share, adverts)
    sealed = encode_records({i: dealt(i) for i in choosers})
    shares = bench.receive(encode(SharesMessage(VERSION, name, n, encode_ids(sorted(records)), sealed)))
    bench.run(client.upload, shares, np.random.default_rng(0).integers(0, 2, d, dtype=np.uint8))
    survived = bench.receive(encode(VouchedSurvivorsMessage(VERSION, name, n, says("uploaded", tuple(keys)))))
    bench.run(client.confirm, survived)
    counted = VouchedConfirmationsMessage(VERSION, name, says("survivor", own.choice), b"", b"")
    bench.run(client.unmask, bench.receive(encode(counted)))
    sent = bench.sent - 8 * plan.packing.length
    return ClientCost(n, len(keys), bench.seconds, sent, bench.received, Mode.ACTIVE, suite)


@lru_cache(maxsize=8)
def _signers(n: int) -> list[Identity]:
    return [Identity.generate(client_id) for client_id in range(n)]


class _Stopwatch:
    def __init__(self) -> None:
        self.seconds, self.sent, self.received = 0.0, 0, 0

    def run(self, step: Callable[P, bytes], *arguments: P.args, **named: P.kwargs) -> bytes:
        start = time.thread_time()
        reply = step(*arguments, **named)
        self.seconds += time.thread_time() - start
        self.sent += len(reply)
        return reply

    def receive(self, message: bytes) -> bytes:
        self.received += len(message)
        return message
