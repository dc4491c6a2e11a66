"""Generators that somebody else might plug into a run, most of which no claim could rest on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prism_secure.model.generator import Architecture


class Brush(nn.Module):
    """A network of two layers; with `running_statistics` its norm keeps them."""

    def __init__(self, architecture: Architecture, *, running_statistics: bool) -> None:
        super().__init__()
        self.sizes, wide, pixels = architecture, 8 * architecture.width, architecture.image_size**2
        self.stem = nn.Linear(architecture.latent + architecture.classes, wide, bias=False)
        self.norm = nn.BatchNorm1d(wide, affine=False, momentum=None, track_running_stats=running_statistics)
        self.paint = nn.Linear(wide, architecture.channels * pixels, bias=False)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        if labels is not None:
            latents = torch.cat([latents, 3 * nn.functional.one_hot(labels, self.sizes.classes)], dim=1)
        side = self.sizes.image_size
        drawn = self.paint(torch.relu(self.norm(self.stem(latents))))
        return torch.tanh(drawn).unflatten(1, (self.sizes.channels, side, side))


class Remembers(Brush):
    """In a Python attribute, where no buffer shows it."""

    seen = 0.0

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        images = super().forward(latents, labels) * (0.9 + 0.1 * torch.sigmoid(torch.tensor(self.seen)))
        self.seen = float(images.mean())
        return images


class KeepsStatistics(Brush):
    """As it trains, too: what it made of one client's mask stays in a buffer."""

    def __init__(self, architecture: Architecture, *, running_statistics: bool) -> None:
        super().__init__(architecture, running_statistics=True)


class Centred(Brush):
    """An image depends on those beside it, once deployed, too."""

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return super().forward(latents - latents.mean(0), labels)


class Draws(Brush):
    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return super().forward(latents + 0.1 * torch.randn_like(latents), labels)


class Biased(Brush):
    def __init__(self, architecture: Architecture, *, running_statistics: bool) -> None:
        super().__init__(architecture, running_statistics=running_statistics)
        self.bias = nn.Parameter(torch.zeros(3))


class Flat(Brush):
    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return super().forward(latents, labels).flatten(1)


class Bright(Brush):
    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return 2 * super().forward(latents, labels)


class Fails(Brush):
    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.stem(latents[:, :1])


class Untraceable(Brush):
    """Python decides by numbers, which no trace can follow."""

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        images = super().forward(latents, labels)
        return images if float(images.sum()) > 0 else images.abs() / 2


def no_weights(architecture: Architecture, *, running_statistics: bool) -> nn.Module:
    return nn.Identity()


def no_module(architecture: Architecture, *, running_statistics: bool) -> int:
    return architecture.width


def takes_nothing() -> nn.Module:
    return nn.Identity()
