"""Measuring one fixed mask: the one that would be deployed, on held-out images, in eval mode."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from prism_secure.model.deployed import DeployedGenerator
from prism_secure.public_seed import public_seed
from prism_secure.quality.metrics import Evaluator
from prism_secure.quality.samples import encode_png, sample_grid
from prism_secure.rounds.components import Components
from prism_secure.run_folder.records import Quality
from prism_secure.storage import write_atomic

COLUMNS = 10
"""Images of each class in a sample grid."""
FEW = 10
"""Images of each kind in a rehearsal: enough for every metric."""


class Evaluation:
    """Metrics of one configuration; the held-out images' features are computed once."""

    def __init__(self, components: Components) -> None:
        self._components = components

    @cached_property
    def _evaluator(self) -> Evaluator:
        return self._evaluator_of(self._components.dataset.test_images)

    def _evaluator_of(self, test_images: torch.Tensor) -> Evaluator:
        components = self._components
        return Evaluator(test_images, features=components.metric_network, classes=components.dataset.classes)

    def rehearse(self, mask: NDArray[np.bool_]) -> None:
        """Measure few images against few, and keep nothing: what fails here would fail in a round.

        Raises:
            DataError, FeatureError: see `__call__`.
        """
        count = max(FEW, self._components.architecture.classes)
        self._measured(mask, count, self._evaluator_of(self._components.dataset.test_images[:FEW]))
        architecture = self._components.architecture
        shape = architecture.channels, architecture.image_size, architecture.image_size
        torch.empty(self._components.config.metrics.samples, *shape)  # fails where no memory could hold them

    def __call__(self, mask: NDArray[np.bool_], samples: Path) -> Quality:
        """Generate from `mask`, bool (d,), measure, and write a grid of the images to `samples`.

        The latents come from the public seed and are the same in every round.

        Raises:
            DataError: the metric's network does not take such images.
            FeatureError: its weights are missing.
            StorageError: the disk refused the grid.
        """
        measured, grid = self._measured(mask, self._components.config.metrics.samples, self._evaluator)
        write_atomic(samples, grid)
        return measured

    def _measured(self, mask: NDArray[np.bool_], count: int, evaluator: Evaluator) -> tuple[Quality, bytes]:
        """Metrics of `count` images, and the PNG of their grid."""
        components = self._components
        seed = public_seed(components.config.federation.seed, "evaluation")
        generator = DeployedGenerator(
            components.architecture,
            seed=components.model_seed,
            mask=torch.from_numpy(mask.astype(np.float32)),
        )
        images, labels = generator.generate(count, seed=seed)
        measured = evaluator(images, labels)
        shown = COLUMNS * (components.architecture.classes or COLUMNS)
        grid = sample_grid(
            images[:shown].numpy(),
            None if labels is None else labels[:shown].numpy(),
            names=components.dataset.classes,
            columns=COLUMNS,
            scale=2,
        )
        return Quality(**measured), encode_png(grid)
