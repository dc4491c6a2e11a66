"""The mechanism as the auditor sees it: a function that is called and answers with bits.

Seeds are how a black box without rounds or clients shows both. A seed is an integer below 2^31,

    seed = run · 2^16 + client · 2^8 + round,    run < 2^15, client < 2^8, round < 2^8,

and "stands for all randomness" of one upload: a wrapper of a real federation reads the three parts with
`read_seed` (a secret for each (run, client), a stream for each round of it); a function that has nothing to
do with rounds seeds its generator with the whole integer. Either way, different seeds must give independent
coins and equal arguments equal bits. The round varies fastest, and the auditor asks for the rounds of one
client in order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from prism_privacy.errors import AuditError

__all__ = ["BlackBox", "Mechanism", "Progress", "SeedParts", "Seeds", "make_seed", "read_seed"]

Bits: TypeAlias = NDArray[np.uint8]
Mechanism: TypeAlias = Callable[[NDArray[Any], NDArray[np.float64], int], Any]
Progress: TypeAlias = Callable[[int, int, str], None]
"""Told (calls done, calls in all, what is being probed)."""

ROUND_BITS = CLIENT_BITS = 8
RUN_BITS = 15
SEED_BITS = RUN_BITS + CLIENT_BITS + ROUND_BITS


class SeedParts(NamedTuple):
    """What a seed says: which federation, which client of it, which round."""

    run: int
    client: int
    round: int


def make_seed(run: int, client: int, round: int) -> int:
    """The seed of one upload.

    >>> make_seed(run=1, client=2, round=3)
    66051
    """
    return run << (CLIENT_BITS + ROUND_BITS) | client << ROUND_BITS | round


def read_seed(seed: int) -> SeedParts:
    """The inverse of `make_seed`, for mechanisms that have clients and rounds.

    >>> read_seed(66051)
    SeedParts(run=1, client=2, round=3)
    """
    mask = (1 << ROUND_BITS) - 1
    return SeedParts(seed >> (CLIENT_BITS + ROUND_BITS), seed >> ROUND_BITS & mask, seed & mask)


class Seeds:
    """Seeds for an audit, none of them twice."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._used: set[int] = set()

    def fresh(self) -> int:
        """A seed drawn uniformly from those that were not used."""
        while (seed := int(self._rng.integers(1 << SEED_BITS))) in self._used:
            pass
        self._used.add(seed)
        return seed

    def federation(self, clients: int, rounds: int) -> list[list[int]]:
        """Seeds of one run: for each client its rounds in order."""
        run = int(self._rng.integers(1 << RUN_BITS))
        seeds = [[make_seed(run, client, round) for round in range(rounds)] for client in range(clients)]
        self._used.update(seed for client in seeds for seed in client)
        return seeds


class BlackBox:
    """Calls the mechanism, checks what it answers, and counts.

    `total` is how many calls are planned, for `progress`.
    """

    def __init__(self, mechanism: Mechanism, total: int, progress: Progress | None) -> None:
        self._mechanism = mechanism
        self._total = total
        self._progress = progress
        self.calls = 0

    def __call__(self, values: NDArray[Any], theta: NDArray[np.float64], seed: int, probe: str) -> Bits:
        """The bits of one upload, uint8 (d,).

        Raises:
            AuditError: the mechanism raised, or its answer is not d zeros and ones.
        """
        where = f"call {self.calls + 1} (probe '{probe}', seed {seed})"
        try:  # copies: a mechanism that writes into its arguments must not rewrite the question
            answer = np.asarray(self._mechanism(values.copy(), theta.copy(), seed))
        except Exception as error:
            raise AuditError(f"the mechanism failed in {where}: {type(error).__name__}: {error}") from error
        if answer.shape != theta.shape:
            raise AuditError(
                f"the mechanism must answer with shape {theta.shape}, got {answer.shape}, {where}"
            )
        ones = answer == 1
        if not np.all(ones | (answer == 0)):
            strange = answer[~(ones | (answer == 0))].reshape(-1)[0].item()
            raise AuditError(f"the mechanism must answer with zeros and ones, got {strange!r}, {where}")
        self.calls += 1
        if self._progress is not None and (self.calls % 64 == 0 or self.calls == self._total):
            self._progress(self.calls, self._total, probe)
        return np.asarray(ones).view(np.uint8)
