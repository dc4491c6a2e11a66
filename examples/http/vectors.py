"""What the clients add, and what goes wrong: one is late, one dies, one lies."""

from __future__ import annotations

import os
import sys
import time

import numpy as np

from prism_crypto import CountSpec

DEADLINE = float(os.environ.get("DEADLINE", "5"))  # seconds that a stage may take
SPEC = CountSpec(dimension=1000, bound=255)
LATE, DEAD, LIAR = (1, 2), (2, 4), (3, 3)  # round, client

SHARE = sys.modules["prism_crypto.stages.share"]  # inside the library, where none but a liar has business
SEAL = SHARE.seal


def numbers(number: int, client_id: int) -> np.ndarray:
    """What a client adds in a round."""
    return np.random.default_rng([number, client_id]).integers(0, SPEC.bound, SPEC.dimension)


def vector(number: int, client_id: int) -> np.ndarray:
    """The same, as its process makes it."""
    if (number, client_id) == LATE:
        time.sleep(DEADLINE + 1)
    if (number, client_id) == DEAD:
        os._exit(1)
    if (number + 1, client_id) == LIAR:  # in the next round it seals zeros for client 0, and signs that
        SHARE.seal = lambda key, at, ends, plain: SEAL(key, at, ends, plain) if ends[1] else bytes(49)
    return numbers(number, client_id)
