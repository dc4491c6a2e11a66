"""Measured rounds over an auditor's own data, by the real parties, seen as the server sees them.

Clients and server are those of a run: their code, their files, their coins. Only the secure sum is left out,
as it gives the exact sum: the auditor adds the bits up.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from prism_privacy import CoinSecret, MeasuredRound
from prism_secure.config import Config
from prism_secure.config.invitations import invited
from prism_secure.errors import ConfigError
from prism_secure.rounds.behaviours.choice import behaviour_of
from prism_secure.rounds.behaviours.measure import Measure
from prism_secure.rounds.broadcast import Broadcast
from prism_secure.rounds.client import Client
from prism_secure.rounds.components import Components
from prism_secure.rounds.server import Server

FEDERATION = "audit"

Records = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Features (N, D), each in [-1, 1], and labels (N,)."""


def lightly_trained(config: Config) -> Config:
    """A configuration whose server takes one step a round: what is asked follows from opened sums alone."""
    measured = msgspec.structs.replace(config.measured, steps=1, end_steps=0)
    return msgspec.structs.replace(config, measured=measured)


class Planted(Components):
    """A recipe whose clients have what an auditor gives them.

    Args:
        config: with measured rounds; its data say only how many classes and channels there are.
        give: what a client has, by its id; the same whenever it is asked again.
        whose: whose each image of a client is, int64 (N,), where records are persons.
    """

    def __init__(
        self,
        config: Config,
        give: Callable[[int], Records],
        whose: Callable[[int], NDArray[np.int64]] | None = None,
    ) -> None:
        super().__init__(lightly_trained(config))
        self._give, self._whose = give, whose

    def features(self, client: int, *, alike: bool = False) -> Records:
        return self._give(client)

    def persons(self, client: int) -> NDArray[np.int64] | None:
        return None if self._whose is None else self._whose(client)


@dataclass(frozen=True, eq=False)
class Seen:
    """What the server, and the colluders that side with it, see of one round.

    Attributes:
        broadcast: what was sent.
        asked: the same as every party understands it.
        honest: whose bits are hidden in the sum.
        counts: int64 (m,), the sum of their bits: colluders know their own, and take them out.
    """

    broadcast: Broadcast
    asked: MeasuredRound
    honest: tuple[int, ...]
    counts: NDArray[np.int64]


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for files that need not outlive the process: in memory where there is such a place, since
    clients wait for the disk with each answer."""
    memory = Path("/dev/shm")  # noqa: S108 - what is made there has a name of its own, and is the owner's
    return tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None)


class PlayedRounds:
    """A run's rounds one after the other.

    As many clients drop out, and as many side with the server, as epsilon assumes at most.

    Args:
        components: the recipe.
        folder: for the clients' private folders.
        secret: known coins, from which each client has its own.

    Raises:
        ConfigError: rounds are not measured.
    """

    def __init__(self, components: Components, folder: Path, secret: bytes) -> None:
        behaviour = behaviour_of(components)
        if not isinstance(behaviour, Measure):
            raise ConfigError(
                'this audit is for measured rounds, federation.behaviour = "measure", got '
                f"{components.config.federation.behaviour!r}"
            )
        self._components, self._behaviour = components, behaviour
        self.server = Server.of(components, FEDERATION)
        self.clients = [
            Client(index, folder / str(index), components, coins=_coins(secret, index), may_miss=True)
            for index in range(components.config.federation.clients)
        ]

    def checked_round(self) -> MeasuredRound:
        """The next round as every party understands it."""
        return self._behaviour.checked_round(self.server.broadcast())

    def next(self, held: NDArray[np.int64] | None = None) -> Seen:
        """Ask, let clients answer, and let the server go on from the sum.

        Args:
            held: the sum, int64 (m,), that the server goes on from whatever is answered.
        """
        config = self._components.config
        broadcast = self.server.broadcast()
        present = invited(config, broadcast.round)[: config.min_survivors]
        clients = [self.clients[index] for index in present]
        self._behaviour.together(broadcast, [client.side for client in clients])
        asked = self.checked_round()
        counts = np.zeros((2, asked.release.coordinates), np.int64)
        for position, client in enumerate(clients):
            client.answer(broadcast)
            counts[int(position >= config.cohort)] += client.bits(broadcast)
        self.server.absorb(
            counts.sum(axis=0) if held is None else held,
            len(present),
            planned_rounds=self._components.plan.rounds,
        )
        return Seen(broadcast, asked, present[: config.cohort], counts[0])


def _coins(secret: bytes, index: int) -> CoinSecret:
    return CoinSecret.for_test(hashlib.sha256(secret + index.to_bytes(8, "big")).digest())
