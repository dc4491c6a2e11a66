"""What client and server agree on: the model, whose turn a layer is, and what a mask gives away."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from prism_privacy import MaskRelease
from prism_secure.plug_in.masked_layers import mask_layers

CLIENTS = 6
LAYERS = ("0.scores", "2.scores", "5.scores")
"""The names of the model's score arrays, as its `named_parameters` gives them."""


def network() -> nn.Module:
    """A convolutional network of 15,816 masked weights; the same frozen weights everywhere."""
    bare = nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2, padding=2, bias=False),
        nn.ReLU(),
        nn.Conv2d(16, 16, 5, stride=2, padding=2, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 7 * 7, 10, bias=False),
    )
    return mask_layers(bare, seed=0)


def turns(client: int, number: int) -> list[str]:
    """The layers that a client sends in a round: all but one, which goes round.

    A function of public numbers, so both sides can work it out, and nobody's data shows in it.
    """
    return [name for place, name in enumerate(LAYERS) if (client + number) % len(LAYERS) != place]


def cohort(layer: str, number: int, clients: tuple[int, ...] = tuple(range(CLIENTS))) -> list[int]:
    """Those of `clients` whose mask of `layer` is in round `number`'s sum."""
    return [client for client in clients if layer in turns(client, number)]


# The cohort is that of the layer with the fewest clients; all of them have to survive (see run.py).
RELEASE = MaskRelease(
    flip=0.1, clip=8.0, cohort=min(len(cohort(layer, number)) for layer in LAYERS for number in range(3))
)


def shapes() -> dict[str, tuple[int, ...]]:
    """Shape of each layer's scores."""
    return {name: tuple(p.shape) for name, p in network().named_parameters() if name in LAYERS}


@torch.no_grad()
def load_theta(model: nn.Module, theta: dict[str, np.ndarray]) -> None:
    """Set the scores to the logits of θ."""
    for name, scores in model.named_parameters():
        if name in theta:
            scores.copy_(torch.from_numpy(theta[name]).logit())
