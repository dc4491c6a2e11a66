"""From a configuration to the objects it stands for; built once per process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cached_property
from typing import TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh

from prism_privacy import View
from prism_secure.accounting.measured import cut_off, image_view
from prism_secure.accounting.plan import Plan, large_delta
from prism_secure.accounting.record_release import RecordRelease
from prism_secure.config import Config
from prism_secure.config.dimensions import check_batch
from prism_secure.config.public_seed import public_seed
from prism_secure.data import Dataset, load, to_float
from prism_secure.data.features import (
    POOLED_TAPS,
    BoundedFeatures,
    Concatenated,
    EfficientNetLite0,
    FeatureExtractor,
    OwnFeatures,
    RandomFourierFeatures,
    Vgg19Bn,
    WithProducts,
)
from prism_secure.data.partition import Partition, partition
from prism_secure.data.public_images import dead_leaves
from prism_secure.data.sources import features_caveat
from prism_secure.errors import ConfigError
from prism_secure.learning.measured.rows import SPECTRUM
from prism_secure.learning.moment_matching import FeatureMoments, MomentMatching
from prism_secure.learning.score_layers import ScoreLayers
from prism_secure.learning.training import LocalTrainer
from prism_secure.model.generator import Architecture
from prism_secure.model.network import architecture_of, check_network
from prism_secure.quality.networks import MetricFeatures, metric_features
from prism_secure.rounds.threads import one_thread
from prism_secure.run_folder.environment import Facts
from prism_secure.wording import SUM_NOT_RUN, format_epsilon

Made = TypeVar("Made")

FEW_HELD_OUT = 200
"""Metrics over fewer held-out images come with a word of warning."""
PUBLIC_IMAGES = 1000
"""How many public images bounded features take their units from."""
BASIS_IMAGES = 3000
"""How many the basis of measured rounds comes from."""
FOURIER_WEIGHT = 0.6
"""Of random Fourier features, where they are bounded: pixels count less than what is seen in them."""


class Components:
    """Data, network, features and trainer of one configuration, each built when first asked for."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._made: dict[Callable[[Components], object], object] = {}

    def once(self, make: Callable[[Components], Made]) -> Made:
        """`make(self)`, made by the first call and given again by every other: what builds on components."""
        if make not in self._made:
            self._made[make] = make(self)
        return cast(Made, self._made[make])

    @cached_property
    def dataset(self) -> Dataset:
        """All clients' images and the held-out ones.

        Raises:
            DataError: missing or unreadable.
        """
        data = self.config.data
        return load(
            data.source,
            folder=data.folder,
            download=data.download,
            image_size=self.config.model.image_size,
            channels=data.channels or None,
            attribute=data.attribute,
            skip_bad=data.skip_bad,
            person=data.person,
            person_file=data.person_file,
        )

    @cached_property
    def partition(self) -> Partition:
        """Which client holds which images."""
        config = self.config
        return partition(
            self.dataset.train_labels,
            config.federation.clients,
            config.data.partition,
            seed=public_seed(config.federation.seed, "partition"),
            shards_per_client=config.data.shards_per_client,
            dirichlet_alpha=config.data.dirichlet_alpha,
            persons=self.dataset.persons,
        )

    @cached_property
    def architecture(self) -> Architecture:
        """The generator's sizes, from the model's settings and the data's channels and classes."""
        classes = len(self.dataset.classes) if self.config.model.conditional else 0
        return architecture_of(self.config, channels=self.dataset.channels, classes=classes)

    @property
    def facts(self) -> Facts:
        """What the report says of the model and the data."""
        return Facts(
            parameters=self.trainer.dimension,
            training_images=len(self.dataset.train_images),
            persons=sum(self.partition.persons or ()) or None,
            held_out_images=len(self.dataset.test_images),
            skipped_images=len(self.dataset.skipped),
            drowned="" if self.record_release is None else self.record_release.drowned,
        )

    @cached_property
    def plan(self) -> Plan:
        """How many rounds there will be, and what they cost.

        Raises:
            ConfigError: the budget does not admit a single round.
        """
        return Plan(
            self.config,
            self.trainer.dimension,
            self.record_release,
            sizes=self.public_sizes,
            persons=self.partition.persons,
        )

    @property
    def public_sizes(self) -> tuple[int, ...] | None:
        """Images of each client, where that is public; None where nobody says."""
        return self.partition.sizes

    @property
    def notes(self) -> list[str]:
        """What whoever starts a run should know before round 1."""
        release = self.record_release
        found = list(map(str, self.plan.unbounded))
        if release is not None:
            found.insert(0, f"ε(image) = {format_epsilon(release.guarantee.epsilon)} {release.view}")
        if self.plan.measured:
            view = image_view(self.config, self.plan.image_epsilon(View.UPLOAD))
            planned = format_epsilon(self.plan.image_epsilon(View.SUM))
            found.insert(
                0,
                f"ε({self.config.record}) grows by the round; after all of them it is {planned} {view}",
            )
            found += filter(None, [cut_off(self.plan.measured, self.config.measured)])
        delta = large_delta(self.config, max(self.partition.sizes))
        if self.config.secure_sum.simulate:
            found.append(SUM_NOT_RUN)
        told = [self.facts.drowned, delta, self._few_held_out, self._flat, self.uncovered]
        told.append(features_caveat(self.config))
        return [*found, *filter(None, told)]

    @property
    def uncovered(self) -> str:
        """What one picture may change that no ε covers: that of an image, or any of measured rounds; "" if
        nothing, or if there is no such ε."""
        data, found = self.config.data, []
        if data.source == "images" and not data.channels:
            found.append("that one colour picture makes all of them colour (declare data.channels = 1 or 3)")
        if data.source == "idx":
            found.append("how many classes there are, which the highest label says")
        if data.source in ("images", "celeba") and data.skip_bad:
            found.append("how many pictures can be read (data.skip_bad)")
        if not found or not (self.config.record_level or self.config.measures):
            return ""
        return f"{'ε' if self.config.measures else 'ε(image)'} does not cover {', nor '.join(found)}"

    @property
    def _flat(self) -> str:
        """A word for pictures of one class, which may have been meant as several; "" where there are more."""
        if self.config.data.source != "images" or len(self.dataset.classes) > 1:
            return ""
        return "all pictures are of one class; for several, data.folder must hold a folder for each class"

    @property
    def _few_held_out(self) -> str:
        """What metrics over few held-out images are worth; "" where there are enough."""
        number = len(self.dataset.test_images)
        if number >= FEW_HELD_OUT:
            return ""
        return (
            f"{number} images are held out: FID and the other metrics over fewer than {FEW_HELD_OUT} say "
            "little, and compare with no other run's"
        )

    @property
    def model_seed(self) -> int:
        """Draws the frozen weights."""
        return public_seed(self.config.federation.seed, "weights")

    @cached_property
    def extractor(self) -> FeatureExtractor:
        """The frozen features that are matched."""
        size, channels = self.config.model.image_size, self.dataset.channels
        parts: list[FeatureExtractor] = []
        for name in self.config.features.extractors:
            if name == "efficientnet_lite0":
                parts.append(EfficientNetLite0(image_size=size))
            elif name == "efficientnet_lite0_pooled":
                parts.append(EfficientNetLite0(POOLED_TAPS, image_size=size))
            elif name == "fourier":
                seed = public_seed(self.config.federation.seed, "fourier")
                parts.append(RandomFourierFeatures(channels=channels, seed=seed))
            elif name in self.config.own_features:
                parts.append(OwnFeatures.of(name, image_size=size, channels=channels))
            else:
                parts.append(Vgg19Bn(image_size=size, layers=self.config.features.vgg_layers))
        if not self.config.features.bounded:
            return Concatenated(parts)
        public = dead_leaves(
            PUBLIC_IMAGES,
            side=size,
            channels=channels,
            seed=public_seed(self.config.federation.seed, "public images"),
        )
        weights = [FOURIER_WEIGHT if isinstance(part, RandomFourierFeatures) else 1.0 for part in parts]
        bounded = BoundedFeatures(parts, public, weights=weights)
        if not self.config.features.products:
            return bounded
        with one_thread():  # all parties must mean the same directions, to the last digits
            return WithProducts(bounded, public, self.config.features.products)

    @cached_property
    def trainer(self) -> LocalTrainer:
        """Trains any client's scores, one after the other."""
        config, training, classes = self.config, self.config.training, self.architecture.classes
        check_batch(config, classes)
        check_network(self.architecture)
        device = torch.device(config.federation.device)
        if device.type == "cuda" and (device.index or 0) >= (cards := torch.cuda.device_count()):
            raise ConfigError(
                f"federation.device is {config.federation.device!r}, but torch {torch.__version__} finds "
                f"{cards} graphics cards here; `prism-secure doctor` says which"
            )
        return LocalTrainer(
            self.architecture,
            model_seed=self.model_seed,
            extractor=self.extractor,
            mask_mode=config.mask.mode,
            temperature=config.mask.temperature,
            density=config.mask.density,
            optimizer=training.optimizer,
            learning_rate=training.learning_rate,
            betas=training.betas,
            batch_size=training.batch_size,
            matching=MomentMatching(
                averaging=training.averaging,
                variance_weight=training.variance_weight,
                scaled=not config.features.bounded,
                tracking_rate=training.tracking_rate,
                betas=training.betas,
            ),
            device=device,
        )

    @cached_property
    def metric_network(self) -> MetricFeatures:
        """In whose features generated images are compared with held-out ones.

        Raises:
            FeatureError: its weights are missing.
        """
        return metric_features(self.config.metrics.features)

    @cached_property
    def score_layers(self) -> ScoreLayers | None:
        """Which layers send scores instead of bits; None: none does."""
        return ScoreLayers.of(self.config.mask, self.trainer.supermask.layer_sizes)

    @property
    def sent_bits(self) -> int:
        """How many bits a client sends in a round: one a weight of the mask, or of those before the layers
        that send scores; in measured rounds m, whatever the mask's length is."""
        if self.config.measures:
            return self.plan.measured[0].coordinates
        layers = self.score_layers
        return self.trainer.dimension if layers is None else layers.start

    @cached_property
    def record_release(self) -> RecordRelease | None:
        """What clients train from instead of their images; None without a record-level claim."""
        if not self.config.record_level:
            return None
        return RecordRelease(
            self.config,
            sizes=self.partition.sizes,
            classes=self.architecture.classes or 1,
            dimension=self.extractor.dimension,
        )

    @cached_property
    def public_basis(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What measured rounds ask along: principal directions of public images' features, the first
        `measured.rows` of them; all that the rule for rows looks at, where it chooses.

        Returns:
            (rows float64 (r, D), orthonormal, the longest first; the variance along each, (r,)).
        """
        images = dead_leaves(
            BASIS_IMAGES,
            side=self.config.model.image_size,
            channels=self.dataset.channels,
            seed=public_seed(self.config.federation.seed, "basis"),
        )
        with one_thread():  # a run that is cut short and goes on must ask along the same
            found = self.extractor.in_batches(images).double().numpy()
            centred = found - found.mean(0)
            dimension = centred.shape[1]
            most = min(dimension, BASIS_IMAGES - 1, self.config.measured.rows or SPECTRUM)
            sizes, axes = eigh(
                centred.T @ centred / len(centred), subset_by_index=[dimension - most, dimension - 1]
            )
        known = sizes[::-1] > 1e-9 * sizes[-1]
        return np.ascontiguousarray(axes[:, ::-1].T[known]), sizes[::-1][known]

    def targets(self, client: int) -> FeatureMoments:
        """The exact moments of one client's images: all it reads of them, without a record-level claim."""
        return self.trainer.targets(*self._images(client))

    def features(self, client: int, *, alike: bool = False) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Features (N, D) of one client's images and their labels (N,): what its release is made of.

        Args:
            alike: compute in batches of one size, the last filled with blank images, on one thread: an
                image's features depend neither on how many others there are nor on its place among them.
        """
        images, labels = self._images(client)
        count, size = len(images), min(50, self.plan.measured[0].records) if alike else 250
        if alike and count % size:
            images = torch.cat([images, torch.zeros(size - count % size, *images.shape[1:])])
        with one_thread() if alike else contextlib.nullcontext(), torch.no_grad():
            parts = [self.extractor(part) for part in torch.split(images, size)]
        return torch.cat(parts)[:count].numpy(), labels.to(torch.int64).numpy()

    def persons(self, client: int) -> NDArray[np.int64] | None:
        """Whose each of one client's images is, (N,); None where each is for itself."""
        persons = self.dataset.persons
        return None if persons is None else persons.numpy()[self.partition.indices[client]]

    def _images(self, client: int) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.from_numpy(self.partition.indices[client])
        return to_float(self.dataset.train_images[chosen]), self.dataset.train_labels[chosen]
