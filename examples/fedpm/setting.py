"""What every variant shares: images, a network of masked layers, the test, and how many of everything."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from prism_secure.data import load, to_float

CLIENTS = int(os.environ.get("CLIENTS", 10))
ROUNDS = int(os.environ.get("ROUNDS", "10"))
EPOCHS = int(os.environ.get("EPOCHS", 2))
BATCH = int(os.environ.get("BATCH", 50))
RATE = float(os.environ.get("RATE", 0.3))
FULL = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts all 70,000 images; `FULL=1` uses them."""

DATA = load("idx", folder=FULL, image_size=28) if os.environ.get("FULL") else load(image_size=28)
IMAGES = int(os.environ.get("IMAGES", len(DATA.train_images)))
RECORDS = IMAGES // CLIENTS
LOT = int(os.environ.get("LOT", RECORDS // 2))
"""DP-SGD's expected batch: with noise in every step, few steps over many examples serve better."""
STEPS = ROUNDS * EPOCHS * (RECORDS // LOT)
ASKED = 6 * ROUNDS
"""Measured rounds: each is one step, so there are more of them."""
DIRECTIONS = int(os.environ.get("DIRECTIONS", 100))
"""In how many public directions the last layer's scores move, for each class."""
SHARPNESS = 6.0
"""What a mask's logits are multiplied by in measured rounds: its many small weights give small ones."""
STEP = 5000.0
"""Of the measured gradient, in units of scores."""


def shares(clients: int) -> list[tuple[Tensor, Tensor]]:
    """One client's images (N, 1, 28, 28) in [-1, 1] and labels (N,), for each client; all of one size."""
    order = torch.randperm(len(DATA.train_images), generator=torch.Generator().manual_seed(0))[:IMAGES]
    return [(to_float(DATA.train_images[part]), DATA.train_labels[part]) for part in order.chunk(clients)]


def build(conv: type[nn.Module], linear: type[nn.Module]) -> nn.Module:
    """A small convolutional network, 50,080 weights; the same frozen weights in every process."""
    torch.manual_seed(0)
    return nn.Sequential(
        conv(1, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        conv(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        linear(64 * 7 * 7, 10),
    )


@torch.no_grad()
def accuracy(model: nn.Module, theta: dict[str, np.ndarray]) -> float:
    """On the test images, of the one mask that keeps what θ says is kept more often than not."""
    for name, layer in model.named_parameters():
        if name in theta:
            layer.copy_(torch.from_numpy(np.where(theta[name] > 0.5, 100.0, -100.0)))
    predicted = model(to_float(DATA.test_images)).argmax(1)
    return float((predicted == DATA.test_labels).double().mean())
