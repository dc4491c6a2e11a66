"""The deployed model: one architecture, one seed, one mask, and nothing else.

Batch normalisation has to divide by something fixed once there is no batch. Its statistics are neither
learned nor sent: they are computed from latents that everybody can draw, by one calibration pass, so the same
(architecture, seed, mask) gives the same network on every machine, and it works in eval mode.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from prism_secure.model.generator import Architecture, draw_latents
from prism_secure.model.network import build_network
from prism_secure.model.supermask import Supermask

CALIBRATION_SEED = 20_250_308
CALIBRATION_IMAGES = 800
CALIBRATION_BATCH_SIZE = 200
"""Of images up to 64×64; larger ones go through in smaller batches of as many pixels."""
MOST_FLOATS = 1 << 24
"""Of a batch in one layer, 64 MiB: as many images go through at once. It is what one image may take, too."""


def largest_activation(architecture: Architecture) -> int:
    """float32 numbers of one image in its widest layer.

    A block doubles the side and at most halves the channels, so that is the last, at full resolution; where
    sides are small and labels many, it is the labels' one-hot code, of 64-bit integers.
    """
    channels = max(architecture.stage_channels[-1], architecture.channels)
    return max(architecture.image_size**2 * channels, architecture.latent + 2 * architecture.classes)


def _at_once(architecture: Architecture, most: int) -> int:
    """So many images of `most` that their largest activation stays within bounds."""
    return max(1, min(most, MOST_FLOATS // largest_activation(architecture)))


class DeployedGenerator:
    """A generator in eval mode, built from (architecture, seed, mask); it can't be trained.

    Args:
        architecture: the sizes.
        seed: the model seed that drew the frozen weights.
        mask: bool or 0/1 (d,): one fixed mask (see `supermask.deployed_mask`).
    """

    def __init__(self, architecture: Architecture, *, seed: int, mask: Tensor) -> None:
        self.architecture = architecture
        network = build_network(architecture, running_statistics=True)
        supermask = Supermask(network, seed=seed, law=architecture.weights)
        supermask.load_mask(torch.as_tensor(mask))
        self.network = network
        self._calibrate()

    @torch.no_grad()
    def _calibrate(self) -> None:
        draws = torch.Generator().manual_seed(CALIBRATION_SEED)
        pixels = CALIBRATION_BATCH_SIZE * 64**2
        most = min(CALIBRATION_BATCH_SIZE, pixels // self.architecture.image_size**2)
        size = max(2, _at_once(self.architecture, most))
        self.network.train()
        for _ in range(CALIBRATION_IMAGES // size):
            self.network(*draw_latents(size, self.architecture, draws))
        self.network.eval()

    def generate(
        self, count: int | None = None, *, labels: Tensor | None = None, seed: int, batch_size: int = 250
    ) -> tuple[Tensor, Tensor | None]:
        """Images (N, C, H, W) float32 in [-1, 1], and their labels (N,) or None.

        Give `labels` (N,) to choose them, or `count` for balanced ones (or for an unconditional generator).
        The same seed gives the same images; an image does not depend on the others beside it.
        """
        batches = list(self.batches(count, labels=labels, seed=seed, batch_size=batch_size))
        asked = [each for _, each in batches if each is not None]
        return torch.cat([images for images, _ in batches]), torch.cat(asked) if asked else None

    def batches(
        self, count: int | None = None, *, labels: Tensor | None = None, seed: int, batch_size: int = 250
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """What `generate` gives, so many images at a time: however many there are, few are in memory.

        At most `batch_size`, and fewer where they are so large that a layer of them would be (`MOST_FLOATS`).
        """
        if labels is not None and not self.architecture.classes:
            raise ValueError("an unconditional generator takes no labels")
        if labels is not None:
            labels = torch.as_tensor(labels, dtype=torch.int64)
            if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.architecture.classes:
                raise ValueError(f"labels run from 0 to {self.architecture.classes - 1}")
            if count is not None and count != len(labels):
                raise ValueError(f"count is {count}, but there are {len(labels)} labels")
            count = len(labels)
        if count is None or count < 1:
            raise ValueError("say how many images: a positive count, or labels")
        draws = torch.Generator().manual_seed(seed)
        latents, labels = draw_latents(count, self.architecture, draws, labels)
        batch_size = _at_once(self.architecture, batch_size)
        for start in range(0, count, batch_size):
            part = slice(start, start + batch_size)
            asked = None if labels is None else labels[part]
            with torch.no_grad():
                images = self.network(latents[part], asked)
            yield images, asked
