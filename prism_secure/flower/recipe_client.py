"""One client of a recipe in a federation across machines: its data, its coins, its ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import threadpoolctl
import torch
from flwr.app import Array, ArrayRecord, RecordDict
from numpy.typing import NDArray

from prism_privacy import CoinSecret
from prism_secure.client import Broadcast, Client
from prism_secure.config import load_config
from prism_secure.enrolment import Enrolment
from prism_secure.errors import ConfigError, RunFolderError
from prism_secure.partition import Partition
from prism_secure.recipe import Recipe
from prism_secure.spending import Spending


class OwnData(Recipe):
    """A recipe whose data set belongs to one client alone, in a federation of others with theirs."""

    @cached_property
    def partition(self) -> Partition:
        """All images, whichever client asks."""
        clients, labels = self.config.federation.clients, self.dataset.train_labels.numpy()
        counts = np.bincount(labels, minlength=len(self.dataset.classes))
        return Partition("own", (np.arange(len(labels)),) * clients, np.tile(counts, (clients, 1)))


@dataclass(frozen=True)
class RecipeClient:
    """One client of a federation, as long as its process lives."""

    enrolment: Enrolment
    recipe: Recipe
    coins: CoinSecret | None = None

    @property
    def federation(self) -> str:
        return self.enrolment.federation

    @property
    def ledger_path(self) -> Path:
        return self.enrolment.folder / "ledger.jsonl"

    @property
    def ledger_key_path(self) -> Path:
        return self.enrolment.folder / "ledger.key"

    def answer(self, content: RecordDict) -> NDArray[np.uint8]:
        """Charge the round to this client's ledger, train, and return its bits, uint8 (d,)."""
        broadcast = read_broadcast(self.federation, content)
        client = Client(
            self.enrolment.identity.client_id,
            self.enrolment.folder,
            self.recipe,
            coins=self.coins,
            may_miss=True,
        )
        self._charge(broadcast)  # before a noisy release is drawn, which a kill would leave uncharged
        client.prepare(self.federation)
        client.answer(broadcast)
        return client.bits(broadcast)

    def _charge(self, broadcast: Broadcast) -> None:
        folder = self.enrolment.folder
        if (folder / "state.safetensors").exists() and not self.ledger_path.exists():
            raise RunFolderError(f"{self.ledger_path} is gone, but this client has answered rounds")
        release = self.recipe.record_release
        coins = "test" if self.coins is not None else "secret"
        dimension = len(broadcast.theta)
        with Spending(self.recipe.config, self, dimension, None, release, coins) as spending:
            spending.charge_moments()
            if spending.last_metrics.get("federation_round") != broadcast.round:
                asked = {"federation_round": broadcast.round}
                spending.charge(spending.charged_rounds + 1, metrics=asked)


def write_broadcast(broadcast: Broadcast) -> RecordDict:
    """What the server sends: theta, float64 (d,), under the number of its round."""
    return RecordDict({f"round {broadcast.round}": ArrayRecord({"theta": Array(broadcast.theta)})})


def read_broadcast(federation: str, content: RecordDict) -> Broadcast:
    """The inverse, completed with the federation that this client is enrolled in.

    Raises:
        ConfigError: it is no broadcast.
    """
    try:
        ((name, record),) = content.items()
        word, number = name.split()
        theta = cast(ArrayRecord, record)["theta"].numpy()
        if word != "round" or theta.dtype != np.float64 or theta.ndim != 1:
            raise ValueError(name)
        return Broadcast(federation, int(number), theta)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError("the server's message is no broadcast of a round") from None


_clients: dict[Path, RecipeClient] = {}


def client_of(folder: Path, node_config: Mapping[str, object]) -> RecipeClient:
    """The client of a folder; data, features and network are loaded once in the life of a process.

    Args:
        folder: its own, see `prism_secure.flower.client_app`.
        node_config: what the node was started with; nothing that a server sends is in it.
    """
    if folder not in _clients:
        if not _clients:
            _compute_on_one_thread()
        config, enrolment = load_config(folder / "recipe.toml"), Enrolment.load(folder)
        recipe = OwnData(config) if node_config.get("own-data") else Recipe(config)
        key = node_config.get("test-coins")
        coins = None if key is None else known_coins(bytes.fromhex(str(key)), enrolment.identity.client_id)
        _clients[folder] = RecipeClient(enrolment, recipe, coins)
    return _clients[folder]


def known_coins(key: bytes, client: int) -> CoinSecret:
    """The coins of one client under a test key of all."""
    return CoinSecret.for_test(hashlib.sha256(key + client.to_bytes(4, "big")).digest())


def _compute_on_one_thread() -> None:
    """Sums are added in one order, so a round that is repeated gives the same bits, whatever the machine."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    threadpoolctl.threadpool_limits(1)
