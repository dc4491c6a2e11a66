"""Before anything is charged: everything is built, and a round in small is made from made-up images.

What fails here would fail later.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from prism_privacy import Accountant, Adjacency, CoinSecret, PrivacyError, View, spent_table
from prism_secure.data import to_float
from prism_secure.data.features import Vgg19Bn
from prism_secure.errors import ConfigError, DataError, FeatureError, PrismError, public_text
from prism_secure.learning.aggregation import rule_of
from prism_secure.rounds.behaviours.choice import behaviour_of
from prism_secure.rounds.client import Client
from prism_secure.rounds.components import Components
from prism_secure.rounds.evaluation import FEW, Evaluation
from prism_secure.rounds.server import Server
from prism_secure.rounds.threads import one_thread


@contextlib.contextmanager
def as_config_error(what: str) -> Iterator[None]:
    """Whatever arithmetic, memory, disk or torch refuses becomes a `ConfigError` that begins with `what`.

    Any other error is a fault of the program, and keeps its traceback, with `what` below it.
    """
    try:
        yield
    except PrismError:
        raise
    except (ArithmeticError, MemoryError, OSError, PrivacyError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{what}: {error}") from error
    except Exception as error:
        error.add_note(f"{what}: a fault of the program, found before anything was charged")
        raise


class MadeUp(Components):
    """A recipe of public images of the same form, one step, and no store that it shares with runs.

    Args:
        components: those that is rehearsed; what it has built is used again.
    """

    def __init__(self, components: Components) -> None:
        config, dataset, release = components.config, components.dataset, components.record_release
        super().__init__(
            msgspec.structs.replace(
                config,
                federation=msgspec.structs.replace(config.federation, local_steps=1),
                training=msgspec.structs.replace(
                    config.training, end_steps=min(1, config.training.end_steps)
                ),
                measured=msgspec.structs.replace(config.measured, steps=1, end_steps=0),
                privacy=msgspec.structs.replace(config.privacy, record_store=None),
            )
        )
        draw = torch.Generator().manual_seed(0)
        count, shape = max(FEW, len(dataset.classes)), dataset.train_images.shape[1:]
        images = torch.randint(0, 256, (2, count, *shape), generator=draw, dtype=torch.uint8)
        labels = torch.arange(count) % len(dataset.classes)
        held_out = min(FEW, len(dataset.test_images))
        self.dataset = replace(
            dataset,
            train_images=images[0],
            train_labels=labels,
            test_images=images[1, :held_out],
            test_labels=labels[:held_out],
        )
        self.partition, self.architecture = components.partition, components.architecture
        self.extractor, self.trainer = components.extractor, components.trainer
        self.metric_network = components.metric_network
        if components.config.measures:
            self.public_basis = components.public_basis
        self.record_release = None if release is None else replace(release, config=self.config)

    def features(self, client: int, *, alike: bool = False) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """As many as the client has, over and over the few made-up ones."""
        features, labels = super().features(client, alike=alike)
        rows = np.arange(self.partition.sizes[client]) % len(features)
        return features[rows], labels[rows]

    def persons(self, client: int) -> NDArray[np.int64] | None:
        """Made-up persons of two images each, where the recipe has persons."""
        return None if self.dataset.persons is None else np.arange(self.partition.sizes[client]) // 2

    def _images(self, client: int) -> tuple[torch.Tensor, torch.Tensor]:
        return to_float(self.dataset.train_images), self.dataset.train_labels


def rehearse(components: Components) -> None:
    """One client's release, step and upload, the server's step and metrics: nothing private, nothing kept.

    Raises:
        ConfigError, DataError, FeatureError: what a run would trip over after it was charged.
    """
    made_up, federation = MadeUp(components), "rehearsal"
    config, release, layers = made_up.config, made_up.record_release, made_up.score_layers
    server = Server.of(made_up, federation)
    broadcast = server.broadcast()
    with tempfile.TemporaryDirectory() as folder, one_thread(config.federation.device):
        client = Client(0, Path(folder), made_up, coins=CoinSecret.for_test(bytes(32)))
        with as_config_error("a round of this configuration cannot be computed"):
            client.prepare(federation)
            if release is not None and release.summed:
                client.moments.receive(release.plan.open(client.moments.share(), 1))
            client.answer(broadcast)
            server.absorb(
                client.bits(broadcast).astype(np.int64),
                1,
                planned_rounds=config.federation.rounds,
                score_mean=None if layers is None else layers.mean_theta(client.scores(broadcast), 1),
                moments=client.moments.targets() if config.training.end_steps else None,
            )
        with as_config_error("the metrics cannot be computed"):
            Evaluation(made_up).rehearse(server.deployed())


def check_components(components: Components) -> None:
    """Build and try everything once, so that what cannot work is said before anything is charged.

    Raises:
        ConfigError, DataError, FeatureError: data, weights, sizes or settings that a run would trip over
            later.
    """
    _ = behaviour_of(components)
    rule_of(components.config.aggregation)
    _find_files(components)
    _ = components.trainer
    _ = components.partition
    privacy = components.config.privacy
    with as_config_error(
        f"what privacy.flip = {privacy.flip:g}, privacy.clip = {privacy.clip}, privacy.record_epsilon = "
        f"{privacy.record_epsilon:g} and privacy.delta = {privacy.delta:g} cost together cannot be "
        "computed; take one that is less extreme"
    ):
        release = components.record_release
        _ = release and release.guarantee
        plan = components.plan
        for view in View:
            for adjacency in Adjacency:
                plan.epsilon(view, adjacency)
        accountant = Accountant(delta=privacy.delta)
        accountant.spend(plan.mask)
        spent_table(accountant, plan.mask)
    rehearse(components)


def _find_files(components: Components) -> None:
    """Load what files hold, and name all that are missing at once, not one after the other is there."""
    missing = list[DataError | FeatureError]()
    needed: list[Callable[[], object]] = [
        lambda: components.dataset,
        lambda: components.metric_network,
    ]
    if "vgg19_bn" in components.config.features.extractors:
        needed.append(Vgg19Bn.weights_file)
    for load_files in needed:
        try:
            load_files()
        except (DataError, FeatureError) as error:
            missing.append(error)
    if missing:
        public = "; ".join(map(public_text, missing))
        raise type(missing[0])("; ".join(map(str, missing)), public=public)
