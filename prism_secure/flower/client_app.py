"""prism-secure's own `ClientApp`: one client of a recipe, on the machine that holds its data.

The client's folder holds, beside what `prism_secure.enrolment` lists,

    recipe.toml      the configuration that this client has agreed to; the server has its own copy, and who
                     differs in `[mask]` or `[privacy]` takes part in no sum
    coins.key, state.safetensors, moments, outbox/   what `prism_secure.client.Client` keeps
    ledger.jsonl     what this client has released, and what that cost; charged before an upload can leave

Node configuration: ``folder="…"`` names the folder. ``own-data=true``: all images of `[data]` are this
client's, where otherwise `[data]` is one data set that the recipe shares out among the clients by their ids.
``test-coins="hex"`` (64 digits): known coins; the ledger then claims no epsilon.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import threadpoolctl
import torch
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from prism_privacy import CoinSecret
from prism_secure.client import Broadcast, Client
from prism_secure.config import Config, load_config
from prism_secure.enrolment import Enrolment
from prism_secure.errors import ConfigError, RunFolderError
from prism_secure.flower.client import client_folder, secure_sum
from prism_secure.partition import Partition
from prism_secure.recipe import Recipe
from prism_secure.spending import Spending

app = ClientApp()


def _binding(context: Context) -> bytes:
    return binding(load_config(client_folder(context) / "recipe.toml"))


@secure_sum(app, binding=_binding)
def train(message: Message, context: Context) -> Message:
    """Train from the broadcast; the reply's one array is this client's randomized bits, uint8 (d,)."""
    bits = _member(context).answer(message.content)
    return Message(RecordDict({"bits": ArrayRecord({"bits": Array(bits)})}), reply_to=message)


def binding(config: Config) -> bytes:
    """What all clients must agree on beside the broadcast: how masks are made and randomized."""
    privacy = msgspec.structs.replace(config.privacy, record_store=None)  # a path of one machine
    return msgspec.json.encode({"mask": config.mask, "privacy": privacy})


class OwnData(Recipe):
    """A recipe whose data set belongs to one client alone, in a federation of others with theirs."""

    @cached_property
    def partition(self) -> Partition:
        """All images, whichever client asks."""
        clients, labels = self.config.federation.clients, self.dataset.train_labels.numpy()
        counts = np.bincount(labels, minlength=len(self.dataset.classes))
        return Partition("own", (np.arange(len(labels)),) * clients, np.tile(counts, (clients, 1)))


@dataclass(frozen=True)
class Member:
    """One client of a federation, as long as its process lives.

    Raises:
        ConfigError: the recipe, the roster and the policy don't fit together.
        RunFolderError: the folder is incomplete.
    """

    enrolment: Enrolment
    recipe: Recipe
    coins: CoinSecret | None = None

    def __post_init__(self) -> None:
        config, enrolled = self.recipe.config, self.enrolment
        if enrolled.roster.ids != tuple(range(config.federation.clients)):
            raise ConfigError(
                f"the recipe is for clients 0 to {config.federation.clients - 1}, the roster pins "
                f"{', '.join(map(str, enrolled.roster.ids))}"
            )
        if enrolled.policy.min_cohort < config.cohort:
            raise ConfigError(
                f"epsilon of this recipe assumes sums over {config.cohort} honest clients, this client's "
                f"policy insists on {enrolled.policy.min_cohort} only"
            )
        if config.privacy.record_release == "summed":
            raise ConfigError(
                "privacy.record_release = 'summed' is for `prism-secure run`; across machines each client "
                "makes its own release: 'client'"
            )

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
        client.prepare(self.federation)
        self._charge(broadcast)
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


_members: dict[Path, Member] = {}


def _member(context: Context) -> Member:
    """The client of this node; data, features and network are loaded once in the life of its process."""
    folder = client_folder(context)
    if folder not in _members:
        if not _members:
            _compute_on_one_thread()
        config = load_config(folder / "recipe.toml")
        recipe = OwnData(config) if context.node_config.get("own-data") else Recipe(config)
        _members[folder] = Member(Enrolment.load(folder), recipe, _test_coins(context, folder))
    return _members[folder]


def _test_coins(context: Context, folder: Path) -> CoinSecret | None:
    """Known coins, if the node itself asks for them; what a server sends can't."""
    key = context.node_config.get("test-coins")
    if key is None:
        return None
    return test_coins(bytes.fromhex(str(key)), Enrolment.load(folder).identity.client_id)


def test_coins(key: bytes, client: int) -> CoinSecret:
    """The coins of one client under a test key of all."""
    return CoinSecret.for_test(hashlib.sha256(key + client.to_bytes(4, "big")).digest())


def _compute_on_one_thread() -> None:
    """Sums are added in one order, so a round that is repeated gives the same bits, whatever the machine."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    threadpoolctl.threadpool_limits(1)
