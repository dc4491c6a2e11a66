"""Enrolled clients of a recipe, a server and the grid between them; and the same without Flower."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from loop_grid import LoopGrid

from prism_crypto import Policy
from prism_privacy import CoinSecret
from prism_secure.config import Config, dump_config, load_config
from prism_secure.flower import SecureSum, client_app, server_app
from prism_secure.flower.recipe.client import known_coins
from prism_secure.rounds.client import Client
from prism_secure.rounds.components import Components
from prism_secure.rounds.server import Server
from prism_secure.rounds.simulation import open_securely
from prism_secure.run_folder.enrolment import enroll_simulated, read_membership
from prism_secure.run_folder.folder import RunFolder

from ..secure import tiny_data

KEY = bytes(range(32))
FEDERATION = "four"
TINY = [
    *tiny_data.TINY,
    "federation.clients=4",
    "federation.local_steps=1",
    "model.width=2",
    "model.latent=4",
    "training.batch_size=10",
    "metrics.every=2",
    "secure_sum.min_survivors=3",
    "privacy.record_epsilon=inf",
    "privacy.record_release=client",
]


def recipe_of(folder: Path, *overrides: str, images: int = 60) -> Config:
    """A recipe whose few images lie in `folder`."""
    if not folder.exists():
        tiny_data.write_data(folder, train=images)
    return load_config(None, [*TINY, f"data.folder={folder}", *overrides])


class Place:
    """Enrolled clients and a server, and the grid between them."""

    def __init__(
        self,
        root: Path,
        *overrides: str,
        test_coins: bool = True,
        images: int = 60,
        policy: Policy = Policy(min_survivors=3, min_cohort=3),  # noqa: B008 - a frozen value
        app: ClientApp = client_app.app,
    ) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        self.config = recipe_of(root / "data", *overrides, images=images)
        clients = self.config.federation.clients
        enroll_simulated(root, FEDERATION, clients, policy)
        for client in range(clients):
            (root / f"{client:02d}" / "recipe.toml").write_text(dump_config(self.config))
        (root / "recipe.toml").write_text(dump_config(self.config))
        self.out = root / "run"
        self.settings = {
            "folder": str(root / "server"), "out": str(self.out), "recipe": str(root / "recipe.toml"),
            "timeout": 300, "train-timeout": 600, "patience": 20, "test-coins": test_coins,
            "clients-folder": str(root),
        }  # fmt: skip
        self.grid = LoopGrid(app, dict.fromkeys(range(100, 100 + clients), root))
        for partition, context in enumerate(self.grid.contexts.values()):
            context.node_config = {"partition-id": partition, "num-partitions": clients}
            if test_coins:
                context.node_config["test-coins"] = KEY.hex()
            context.run_config = self.settings

    def train(self) -> None:
        server_app.main(self.grid, Context(7, 1, {}, RecordDict(), self.settings))

    def sums(self) -> SecureSum:
        """A server that asks for what it likes."""
        _, roster = read_membership(self.root / "server")
        return SecureSum(
            self.grid, roster, FEDERATION, run_config=self.settings, min_survivors=3, timeout=300, poll=0.01
        )

    def theta(self) -> np.ndarray:
        with RunFolder(self.out, self.config) as run:
            server = Server.of(Components(self.config), FEDERATION)
            server.load(run.checkpoint_path)
        return server.theta


def garbled(reply: Message) -> Message:
    """What is refused is as good as not sent, and nobody waits for it."""
    reply.content["secure_sum"]["message"] = b"garbage"
    return reply


def in_process(
    config: Config,
    folder: Path,
    present: Callable[[int, int], bool],
    *,
    coins_of: Callable[[int], CoinSecret] | None = None,
) -> np.ndarray:
    """The same federation by the loop of `prism-secure run`, over the clients that are present in a round.

    A round in which nobody is present is lost.
    """
    recipe = Components(config)
    clients = []
    for index in range(config.federation.clients):
        (folder / str(index)).mkdir(parents=True)
        coins = known_coins(KEY, index) if coins_of is None else coins_of(index)
        clients.append(Client(index, folder / str(index), recipe, coins=coins, may_miss=True))
    server = Server.of(recipe, FEDERATION)
    for _ in range(config.federation.rounds):
        broadcast = server.broadcast()
        there = [client for client in clients if present(client.index, broadcast.round)]
        if not there:
            server.lose()
            continue
        for client in there:
            client.answer(broadcast)
        bits = [client.bits(broadcast) for client in there]
        opened = open_securely(
            msgspec.structs.replace(
                config,
                federation=msgspec.structs.replace(
                    config.federation, clients=len(there), client_fraction=1.0
                ),
            ),
            broadcast,
            [lambda vector=vector: vector for vector in bits],
        )
        server.absorb(opened.counts, len(opened.survivors), planned_rounds=config.federation.rounds)
    return server.theta
