"""FedPM's layers, for a code base without prism-secure: frozen weights, trained scores, Bernoulli masks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Bernoulli(torch.autograd.Function):
    """A draw forward, the gradient of its probability backward (straight-through)."""

    @staticmethod
    def forward(ctx: Any, theta: Tensor) -> Tensor:
        return torch.bernoulli(theta)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def freeze(layer: nn.Linear | nn.Conv2d) -> None:
    with torch.no_grad():
        layer.weight.copy_(layer.weight.sign() * math.sqrt(2 / layer.weight[0].numel()))
    layer.weight.requires_grad_(False)
    layer.scores = nn.Parameter(torch.randn(layer.weight.shape))


class MaskedLinear(nn.Linear):
    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes, bias=False)
        freeze(self)

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input, self.weight * Bernoulli.apply(self.scores.sigmoid()))


class MaskedConv2d(nn.Conv2d):
    def __init__(self, *sizes: int, **options: Any) -> None:
        super().__init__(*sizes, bias=False, **options)
        freeze(self)

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight * Bernoulli.apply(self.scores.sigmoid()), None)
