"""What every extractor is, and several of them side by side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from prism_secure.errors import FeatureError


class FeatureExtractor(nn.Module, ABC):
    """Images (N, C, H, W) in [-1, 1] to features (N, `dimension`)."""

    dimension: int

    def freeze(self) -> None:
        """No gradient to the weights, and eval mode for good."""
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> FeatureExtractor:
        """Stays in eval mode whatever `mode` says: a frozen extractor has no training behaviour."""
        return super().train(False)

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] to features (N, dimension)."""

    @torch.no_grad()
    def in_batches(self, images: Tensor) -> Tensor:
        """What `forward` gives, without gradients and in the memory of a few images at once."""
        return torch.cat([self(part) for part in torch.split(images, 250)])


class Concatenated(FeatureExtractor):
    """Several extractors' features side by side."""

    def __init__(self, parts: Sequence[FeatureExtractor]) -> None:
        super().__init__()
        if not parts:
            raise FeatureError("no feature extractor given")
        self.parts = nn.ModuleList(parts)
        self.dimension = sum(part.dimension for part in parts)
        self.freeze()

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([part(images) for part in self.parts], dim=1)
