"""Trains on the CPU and on a second device; prints where results lie and how far they are apart, as JSON."""

from __future__ import annotations

import json
import os

import numpy as np
import second_device  # noqa: F401  makes "card" a device
import torch

from prism_secure.data.features import Concatenated, EfficientNetLite0, RandomFourierFeatures
from prism_secure.learning.measured.server_training import Metric, ServerState, ServerTraining
from prism_secure.learning.moment_matching import MomentMatching
from prism_secure.learning.training import LocalResult, LocalTrainer
from prism_secure.model.generator import Architecture
from prism_secure.model.supermask import initial_theta


def train(device: str, mode: str, averaging: str, classes: int, steps: int) -> LocalResult:
    features = Concatenated([EfficientNetLite0({-1: 4, 2: 2}), RandomFourierFeatures(20)])
    trainer = LocalTrainer(
        Architecture(latent=8, width=2, classes=classes),
        model_seed=1,
        extractor=features,
        mask_mode=mode,
        matching=MomentMatching(averaging=averaging),
        batch_size=10,
        device=device,
    )
    images = torch.rand(40, 1, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1
    target = trainer.targets(images, torch.arange(40) % 10)
    theta = initial_theta(trainer.dimension, seed=3)
    how = {"steps": steps, "progress": 0.5, "seed": 4, "shared": True}
    first = trainer.train(theta, trainer.initial_state(), target, **how)
    # Another client of the same seed takes the images of the first step as they were kept.
    again = trainer.train(theta, trainer.initial_state(), target, **how)
    assert torch.equal(first.scores, again.scores)
    return again


def serve(device: str, classes: int) -> list[torch.Tensor]:
    """Steps of the server of measured rounds."""
    features = RandomFourierFeatures(20)
    trainer = LocalTrainer(
        Architecture(latent=8, width=2, classes=classes),
        model_seed=1,
        extractor=features,
        batch_size=10,
        device=device,
    )
    rows = classes or 1
    metric = Metric(torch.eye(rows), torch.eye(features.dimension), torch.ones(rows, features.dimension))
    state = ServerState.start(trainer, initial_theta(trainer.dimension, seed=3))
    target = np.full((rows, features.dimension), 0.1)
    made = ServerTraining(trainer, steps=10).run(state, target, metric, steps=1, seed=4)
    return [made.scores, made.smoothed, made.first, made.second, made.average]


def tensors(result: LocalResult) -> list[torch.Tensor]:
    averages = result.state.averages
    kept = [result.state.first, result.state.second, averages.first, averages.second, averages.moments]
    return [result.scores, *kept]


def apart(here: torch.Tensor, there: torch.Tensor) -> float:
    """The length of the difference over the length."""
    return float((here - there).norm() / here.norm())


torch.set_num_threads(1)
found = []
settings = (
    ("hard", "ema", 10, 1),
    ("bernoulli", "faithful", 0, 2),
    ("topk", "ema", 10, 1),
    ("annealed", "ema", 0, 1),
)
pairs = [[tensors(train(device, *setting)) for device in ("cpu", "card")] for setting in settings]
pairs += [[serve(device, classes) for device in ("cpu", "card")] for classes in (0, 10)]
for here, there in pairs:
    found.append(
        {
            "devices": sorted({x.device.type for x in there}),
            "apart": max(apart(a, b) for a, b in zip(here, there, strict=True) if len(a)),
            "moved": float((here[0] - here[0].mean()).abs().max()),
        }
    )
print(json.dumps(found), flush=True)
os._exit(0)  # the made-up device's autograd thread may outlive Python, and torch then aborts now and then
