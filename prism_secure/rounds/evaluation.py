"""Measuring one fixed mask: the one that would be deployed, on held-out images, in eval mode."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from prism_secure.config.plugged import is_reference
from prism_secure.config.public_seed import public_seed
from prism_secure.data import to_float
from prism_secure.model.deployed import DeployedGenerator
from prism_secure.quality.metrics import Evaluator, RealFeatures, nearest
from prism_secure.quality.networks import weights_digest
from prism_secure.quality.samples import encode_png, sample_grid
from prism_secure.quality.utility import IMAGES, accuracy, ceiling, fewest_images, train_classifier
from prism_secure.rounds.components import Components
from prism_secure.run_folder.records import Quality
from prism_secure.storage import write_atomic

COLUMNS = 10
"""Images of each class in a sample grid."""
FEW = 10
"""Images of each kind in a rehearsal: enough for every metric."""


class Evaluation:
    """Metrics of one configuration; the held-out images' features are computed once.

    Attributes:
        real: these features, once something was measured. Whoever has them from another process may set them
            before.
    """

    def __init__(self, components: Components) -> None:
        self._components = components
        self.real: RealFeatures | None = None

    @cached_property
    def _evaluator(self) -> Evaluator:
        evaluator = self._evaluator_of(self._components.dataset.test_images, self.real)
        self.real = evaluator.real
        return evaluator

    def _evaluator_of(self, test_images: torch.Tensor, known: RealFeatures | None = None) -> Evaluator:
        components, dataset = self._components, self._components.dataset
        return Evaluator(
            test_images,
            features=components.metric_network,
            classes=dataset.classes,
            train_images=dataset.train_images if components.config.public_images else None,
            known=known,
        )

    def rehearse(self, mask: NDArray[np.bool_]) -> None:
        """Measure few images against few, and keep nothing: what fails here would fail in a round.

        Raises:
            DataError, FeatureError: see `__call__`.
        """
        count = max(FEW, self._components.architecture.classes)
        self._measured(mask, count, self._evaluator_of(self._components.dataset.test_images[:FEW]))
        architecture = self._components.architecture
        if self._components.config.metrics.utility != "off":
            few = fewest_images(architecture.classes)
            self.utility(mask, few)
            self.ceiling(few)
        shape = architecture.channels, architecture.image_size, architecture.image_size
        torch.empty(self._components.config.metrics.samples, *shape)  # fails where no memory could hold them

    def __call__(self, mask: NDArray[np.bool_], samples: Path, *, utility: bool = False) -> Quality:
        """Generate from `mask`, bool (d,), measure, and write a grid of the images to `samples`.

        The latents come from the public seed and are the same in every round. `utility` takes seconds more:
        see `prism_secure.quality.utility`.

        Raises:
            DataError: the metric's network does not take such images.
            FeatureError: its weights are missing.
            StorageError: the disk refused the grid.
        """
        quality = self.measured(mask, samples, neighbours=utility)
        if utility:
            quality = msgspec.structs.replace(quality, **self.utility(mask), **self.ceiling())
        return quality

    def measured(self, mask: NDArray[np.bool_], samples: Path, *, neighbours: bool) -> Quality:
        """All but the utility; with `neighbours` a second grid, where clients' images are public."""
        count = self._components.config.metrics.samples
        measured, grid, first = self._measured(mask, count, self._evaluator)
        write_atomic(samples, grid)
        if neighbours and self._components.config.public_images:
            beside = samples.with_name(f"neighbours-{samples.name.removeprefix('round-')}")
            write_atomic(beside, self._neighbours(first))
        return measured

    def utility(self, mask: NDArray[np.bool_], count: int = 0) -> dict[str, float]:
        """What a classifier learns from `count` generated images, else `IMAGES`; nothing without labels."""
        components, dataset = self._components, self._components.dataset
        classes = components.architecture.classes
        if classes < 2:
            return {}
        seed = public_seed(components.config.federation.seed, "utility")
        images, labels = self._generator(mask).generate(
            max(count or IMAGES, fewest_images(classes)), seed=seed
        )
        assert labels is not None
        network = train_classifier(images, labels, classes=classes)
        return {"gen2real": accuracy(network, dataset.test_images, dataset.test_labels)}

    def ceiling(self, count: int = 0) -> dict[str, float]:
        """The same of as many of the clients' own images, only where these are declared public."""
        components, dataset = self._components, self._components.dataset
        fewest = fewest_images(classes := components.architecture.classes)
        if classes < 2 or not components.config.public_images or len(dataset.train_images) < fewest:
            return {}
        return {"gen2real_ceiling": ceiling(dataset, max(count or IMAGES, fewest))}

    def _neighbours(self, images: torch.Tensor) -> bytes:
        """The PNG of a few generated images, over those of the clients' images that are nearest to them."""
        train_images = self._components.dataset.train_images
        real = to_float(train_images[nearest(images, train_images)])
        grid = sample_grid(
            torch.cat([images, real]).numpy(),
            np.repeat([0, 1], len(images)),
            names=("generated", "nearest real"),
            columns=COLUMNS,
        )
        return encode_png(grid)

    def _generator(self, mask: NDArray[np.bool_]) -> DeployedGenerator:
        return DeployedGenerator(
            self._components.architecture,
            seed=self._components.model_seed,
            mask=torch.from_numpy(mask.astype(np.float32)),
        )

    def _measured(
        self, mask: NDArray[np.bool_], count: int, evaluator: Evaluator
    ) -> tuple[Quality, bytes, torch.Tensor]:
        """Metrics of `count` images, the PNG of their grid, and the first of them, of a class each."""
        components = self._components
        seed = public_seed(components.config.federation.seed, "evaluation")
        images, labels = self._generator(mask).generate(count, seed=seed)
        measured = evaluator(images, labels)
        shown = COLUMNS * (components.architecture.classes or COLUMNS)
        grid = sample_grid(
            images[:shown].numpy(),
            None if labels is None else labels[:shown].numpy(),
            names=components.dataset.classes,
            columns=COLUMNS,
            scale=2,
        )
        first = images[: min(COLUMNS, components.architecture.classes or COLUMNS)]
        own = is_reference(components.config.metrics.features)
        digest = weights_digest(components.metric_network) if own else None
        return Quality(**measured, features=digest), encode_png(grid), first
