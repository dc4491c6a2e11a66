"""The cost of one client among very many, without running the others.

In a sparse graph a client meets its neighbours only. So one client, its neighbours, and a server made
up of a few lines are enough to measure it in a session of any number of clients: the client can't tell.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec

import numpy as np

from prism_crypto.client import SecureSumClient
from prism_crypto.policy import Policy
from prism_crypto.primitives.context import advert_digest, encode_ids, tag, u32
from prism_crypto.session import Session
from prism_crypto.spec import CountSpec
from prism_crypto.stage import Mode, Stage
from prism_crypto.wire.messages import (
    SEALED_BYTES,
    VERSION,
    AdvertMessage,
    AdvertsMessage,
    ShareMessage,
    SharesMessage,
    SurvivorsMessage,
    decode,
    decode_records,
    encode,
    encode_records,
)

__all__ = ["ClientCost", "one_client"]

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
    """

    clients: int
    neighbours: int
    seconds: float
    sent: int
    received: int


def one_client(n: int, d: int) -> ClientCost:
    """Measure one client of a semi-honest session on a sparse graph of ``n`` clients.

    Args:
        n: invited clients.
        d: coordinates.
    """
    plan = Session.plan(
        CountSpec(d), range(n), federation="bench", number=1, mode=Mode.SEMI_HONEST, graph="harary"
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
        sealed[i] = decode_records(records, SEALED_BYTES, stage=Stage.SHARE)[0]
    ids = encode_ids(everyone)
    message = encode(SharesMessage(VERSION, context, n, ids, encode_records(sealed)))
    bench.receive(message)
    bits = np.random.default_rng(0).integers(0, 2, d, dtype=np.uint8)
    bench.run(parties[0].upload, message, bits)
    message = encode(SurvivorsMessage(VERSION, context, n, ids))
    bench.receive(message)
    bench.run(parties[0].unmask, message)
    words = 8 * (plan.packing.length)
    return ClientCost(n, plan.degree, bench.seconds, bench.sent - words, bench.received)


class _Stopwatch:
    def __init__(self) -> None:
        self.seconds, self.sent, self.received = 0.0, 0, 0

    def run(self, step: Callable[P, bytes], *arguments: P.args, **named: P.kwargs) -> bytes:
        start = time.thread_time()
        reply = step(*arguments, **named)
        self.seconds += time.thread_time() - start
        self.sent += len(reply)
        return reply

    def receive(self, message: bytes) -> None:
        self.received += len(message)
