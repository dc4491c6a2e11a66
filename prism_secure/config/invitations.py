"""Which clients a round invites, where not all of them are.

The choice is public and looks at no data: it is a function of the configuration and the round. Those with the
fewest rounds so far come first, in an order drawn for the round, so no two clients' numbers of rounds
differ by more than one, and after T rounds of m among n nobody took part more than ceil(T m / n) times. The
server knows who takes part, so nothing is gained by chance (no amplification by subsampling): a client is
charged for the rounds that it was in.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from prism_secure.config import Config
from prism_secure.config.public_seed import public_seed


def invited(config: Config, round_number: int) -> tuple[int, ...]:
    """The clients of a round, in order; rounds count from 1 to `federation.rounds`.

    >>> from prism_secure.config import load_config
    >>> some = load_config(None, ["federation.client_fraction=0.5"])
    >>> sorted(invited(some, 1) + invited(some, 2)) == list(range(10))
    True
    """
    if config.everybody:
        return tuple(range(config.federation.clients))
    federation = config.federation
    plan = _schedule(federation.clients, config.invited, federation.seed, federation.rounds)
    return plan[round_number - 1]


def dropped_out(config: Config, round_number: int) -> tuple[int, ...]:
    """Those of a round's clients that `secure_sum.dropouts` has drop out, in order.

    >>> from prism_secure.config import load_config
    >>> some = load_config(None, ["secure_sum.dropouts=0.2", "secure_sum.min_survivors=8"])
    >>> dropped_out(some, 1), dropped_out(some, 2)
    ((2, 4), (8, 9))
    """
    draw = np.random.default_rng(public_seed(config.federation.seed, "dropouts", round_number))
    gone = draw.choice(invited(config, round_number), config.dropping_out, replace=False)
    return tuple(sorted(int(client) for client in gone))


def histories(config: Config) -> tuple[tuple[int, ...], ...]:
    """The rounds that clients are in, each sequence of them once; rounds count from 1."""
    rounds = range(1, config.federation.rounds + 1)
    if config.everybody:
        return (tuple(rounds),)
    own: dict[int, list[int]] = {}
    for number in rounds:
        for client in invited(config, number):
            own.setdefault(client, []).append(number)
    return tuple(sorted({tuple(found) for found in own.values()}))


def most_participations(config: Config, rounds: int) -> int:
    """The most of the first `rounds` rounds that any client is in."""
    return -(-rounds * config.invited // config.federation.clients)


@lru_cache(maxsize=8)
def _schedule(clients: int, invited: int, seed: int, rounds: int) -> tuple[tuple[int, ...], ...]:
    taken = np.zeros(clients, dtype=np.int64)
    chosen = []
    for number in range(1, rounds + 1):
        order = np.random.default_rng(public_seed(seed, "invitations", number)).random(clients)
        picked = np.lexsort((order, taken))[:invited]
        taken[picked] += 1
        chosen.append(tuple(sorted(int(client) for client in picked)))
    return tuple(chosen)
