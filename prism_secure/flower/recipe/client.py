"""One client of a recipe in a federation across machines: its data, its coins, its ledger."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from logging import INFO
from pathlib import Path

import msgspec
import numpy as np
from flwr.app import RecordDict
from flwr.common.logger import log
from numpy.typing import NDArray

from prism_privacy import CoinSecret
from prism_privacy.ledger.entry import Coins
from prism_secure.accounting.record_release import RecordRelease
from prism_secure.accounting.spending import Spending
from prism_secure.config import Config, dump_config, load_config
from prism_secure.config.invitations import invited
from prism_secure.data.fingerprint import keep_fingerprint
from prism_secure.data.partition import Partition
from prism_secure.data.skipped import keep_skipped
from prism_secure.errors import AgreementError, ConfigError, RunFolderError
from prism_secure.flower.recipe import messages as recipe_messages
from prism_secure.rounds.behaviours.choice import behaviour_of
from prism_secure.rounds.broadcast import Broadcast
from prism_secure.rounds.client import Client
from prism_secure.rounds.components import Components
from prism_secure.rounds.moment_sum import MOMENTS_GRAPH
from prism_secure.rounds.threads import one_thread
from prism_secure.run_folder.enrolment import Enrolment
from prism_secure.run_folder.environment import Facts


class OwnData(Components):
    """A recipe whose data set belongs to one client alone, in a federation of others with theirs.

    Args:
        sizes: how many images each client has, where all have told each other; else None.
    """

    def __init__(self, config: Config, sizes: tuple[int, ...] | None) -> None:
        super().__init__(config)
        self.sizes = sizes

    @property
    def facts(self) -> Facts:
        """The server's own images are public ones for its metrics: none of them is trained with."""
        if self.sizes is None:
            return msgspec.structs.replace(super().facts, training_images=None, own_data=True, drowned="")
        return msgspec.structs.replace(super().facts, training_images=sum(self.sizes), own_data=True)

    @cached_property
    def record_release(self) -> RecordRelease | None:
        """One over all clients needs to know how many images there are."""
        release = super().record_release
        if release is None or self.sizes is None:
            return release
        return replace(release, sizes=self.sizes)

    @property
    def public_sizes(self) -> tuple[int, ...] | None:
        """As all have told each other: how many images lie here is known here alone."""
        return self.sizes

    def check_size(self, client: int) -> None:
        """Refuse unless this client has as many images as the others were told.

        Raises:
            ConfigError: it has not.
        """
        found = len(self.dataset.train_labels)
        if self.sizes is not None and self.sizes[client] != found:
            raise ConfigError(f"own-data says {self.sizes[client]} images for client {client}, found {found}")

    @cached_property
    def partition(self) -> Partition:
        """All images, whichever client asks; how many persons the others have, nobody says."""
        clients, labels = self.config.federation.clients, self.dataset.train_labels.numpy()
        counts = np.bincount(labels, minlength=len(self.dataset.classes))
        return Partition((np.arange(len(labels)),) * clients, np.tile(counts, (clients, 1)))


@dataclass(frozen=True)
class RecipeClient:
    """One client of a federation, as long as its process lives."""

    enrolment: Enrolment
    recipe: Components
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

    def answer(self, content: RecordDict) -> NDArray[np.integer]:
        """What this client adds to the sum that the server asks for; charged to its ledger beforehand.

        Returns:
            Its bits of a round, uint8 (d,), or (m,) of a measured one; or its share of the noisy moments,
            int64 (size,).
        """
        client = Client(
            self.enrolment.identity.client_id,
            self.enrolment.folder,
            self.recipe,
            coins=self.coins,
            may_miss=True,
        )
        config, release = self.recipe.config, self.recipe.record_release
        summed = release is not None and release.summed
        if recipe_messages.asks_for_moments(content):
            recipe_messages.check_plan(content, release)
            assert release is not None
            plan = release.plan
            recipe_messages.check_session(
                content,
                round=1,
                dimension=plan.size,
                bound=plan.bound,
                graph=MOMENTS_GRAPH,
                cohort=plan.cohort,
            )
            self._charge(None)  # before noise is drawn, which a kill would leave uncharged
            client.prepare(self.federation)
            return client.moments.share()
        broadcast = recipe_messages.read_broadcast(self.federation, content, self.recipe.trainer.dimension)
        # The same bits in two sessions would be two sums, whose difference could be those of one client.
        recipe_messages.check_session(
            content,
            round=broadcast.round + summed,
            dimension=self.recipe.sent_bits,
            bound=1,
            graph=config.graph,
            cohort=config.cohort,
        )
        self._check_invited(broadcast.round)
        behaviour_of(self.recipe).check(broadcast)
        client.check(self.federation, broadcast.round - 1, broadcast.round)
        self._charge(broadcast)
        if release is not None and summed:
            # A client that joins late did not contribute to it, and trains from it all the same.
            client.moments.receive(recipe_messages.read_moments(content, release))
        else:
            client.prepare(self.federation)
        client.answer(broadcast)
        return client.bits(broadcast)

    def _check_invited(self, round_number: int) -> None:
        """Refuse a round that is not in the plan, or that the plan has without this client.

        It answers each of the others once, so it is in no more than its epsilon counts on, whoever asks.

        Raises:
            AgreementError: it is such a round.
        """
        client, rounds = self.enrolment.identity.client_id, self.recipe.plan.rounds
        if not 1 <= round_number <= rounds:
            raise AgreementError(f"there are {rounds} rounds, asked for {round_number}")
        if client not in invited(self.recipe.config, round_number):
            raise AgreementError(f"round {round_number} is one that does not invite client {client}")

    def _charge(self, broadcast: Broadcast | None) -> None:
        """The record-level release, if that is not charged yet, and the round; None: no round."""
        folder = self.enrolment.folder
        if (folder / "state.safetensors").exists() and not self.ledger_path.exists():
            raise RunFolderError(f"{self.ledger_path} is gone, but this client has answered rounds")
        recipe = self.recipe
        coins: Coins = "test" if self.coins is not None else "secret"
        with Spending(
            recipe.config,
            self,
            recipe.trainer.dimension,
            None,
            recipe.record_release,
            coins,
            sizes=recipe.public_sizes,
            client=self.enrolment.identity.client_id,
            persons=recipe.partition.persons,
        ) as spending:
            spending.charge_moments()
            # Rounds are charged before uploads leave, of which the counter, never put back, has the last.
            charged = spending.federation_rounds
            answered = self.enrolment.counter.last_round - (recipe.plan.summed is not None)
            if answered > max(charged, default=0):
                raise RunFolderError(
                    f"{self.ledger_path} is an older copy: it lacks round {answered}, which was answered"
                )
            if broadcast and broadcast.round not in charged:
                spending.charge(spending.charged_rounds + 1, federation_round=broadcast.round)


_clients: dict[Path, RecipeClient] = {}
_recipes: dict[tuple[str, str], Components] = {}  # one for all clients of a simulation's worker
_until_exit = contextlib.ExitStack()


def client_of(folder: Path, node_config: Mapping[str, object]) -> RecipeClient:
    """The client of a folder; data, features and network are loaded once in the life of a process.

    Args:
        folder: its own, see `prism_secure.flower.client_app`.
        node_config: what the node was started with; nothing that a server sends is in it.
    """
    if folder not in _clients:
        config, enrolment = load_config(folder / "recipe.toml"), Enrolment.load(folder)
        if not _clients:
            _until_exit.enter_context(one_thread(config.federation.device))
        declared = node_config.get("own-data")
        agreed = dump_config(config), repr(declared)
        if agreed not in _recipes:
            _recipes[agreed] = own_data(config, declared) or Components(config)
        recipe = _recipes[agreed]
        if isinstance(recipe, OwnData):
            recipe.check_size(enrolment.identity.client_id)
        begun = (folder / "ledger.jsonl").exists()
        keep_fingerprint(folder, config.data, recipe.dataset, partial(log, INFO), begun=begun)
        keep_skipped(folder, recipe.dataset.skipped, partial(log, INFO))
        if recipe.uncovered:
            log(INFO, recipe.uncovered)
        key = node_config.get("test-coins")
        coins = None if key is None else known_coins(bytes.fromhex(str(key)), enrolment.identity.client_id)
        _clients[folder] = RecipeClient(enrolment, recipe, coins)
    return _clients[folder]


def own_data(config: Config, declared: object) -> OwnData | None:
    """The recipe where each client has data of its own; None where there is one data set for all.

    Args:
        declared: false; true; or how many images each client has, by id: ``"1200 950 1000"``.

    Raises:
        ConfigError: it is not one of these, or one release over all clients needs the numbers.
    """
    if not declared:
        return None
    if declared is True:
        if config.opens_moments:
            raise ConfigError(
                "one release of all clients' noisy moments depends on how many images each has: "
                "own-data='1200 950 1000' for three clients (or privacy.record_release = 'client')"
            )
        if config.measures and not config.measured.records:
            raise ConfigError(
                "measured rounds divide each client's answers by one public number of images: "
                "own-data='1200 950 1000' for three clients, or measured.records = 1000"
            )
        return OwnData(config, None)
    sizes = tuple(int(word) for word in str(declared).split() if word.isdecimal())
    if len(sizes) != len(str(declared).split()) or len(sizes) != config.federation.clients or min(sizes) < 1:
        raise ConfigError(f"own-data must be {config.federation.clients} numbers of images, got {declared!r}")
    return OwnData(config, sizes)


def known_coins(key: bytes, client: int) -> CoinSecret:
    """The coins of one client under a test key of all."""
    return CoinSecret.for_test(hashlib.sha256(key + client.to_bytes(4, "big")).digest())
