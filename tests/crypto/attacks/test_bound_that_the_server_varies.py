"""Broken if a server can learn where a client's largest value lies, by offers of different bounds.

A client refuses a vector with a value above the bound of the session, and the refusal is seen. The server
offers one round again and again, with a higher bound each time, until the client uploads.
"""

from __future__ import annotations

import numpy as np
import pytest
from chosen import SMALL, rehearsed
from forgery import refused
from rehearsal import Rehearsal

from prism_crypto.errors import InputError, StateError
from prism_crypto.keeping.session_counter import MemoryCounter
from prism_crypto.spec import CountSpec
from prism_crypto.stage import Stage

VICTIM = 3


def offer(mode: str, number: int, bound: int, counters) -> Rehearsal:
    spec, label = CountSpec(dimension=40, bound=bound), f"session {number}"
    return rehearsed(mode, spec=spec, counters=counters, number=number, round=1, label=label)


@pytest.mark.parametrize("mode", ["active", "chosen"])
def test_a_refused_vector_costs_the_round(mode):
    counters = {i: MemoryCounter() for i in range(SMALL["n"])}
    low = offer(mode, 1, 10, counters)
    shares = low.play(until=Stage.SHARE)
    with pytest.raises(InputError, match=r"outside 0\.\.10"):
        low.clients[VICTIM].upload(shares[VICTIM], np.full(40, 17))
    with refused(StateError, Stage.ADVERTISE, None):
        offer(mode, 2, 20, counters).clients[VICTIM].advertise()
