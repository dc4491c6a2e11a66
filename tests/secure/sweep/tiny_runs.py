"""The smallest run that is still a run, for tests of what goes on around runs."""

from __future__ import annotations

from prism_secure.config import Config, load_config

from ..tiny_data import small_images

TINY = [
    "federation.clients=3",
    "federation.workers=1",
    "federation.rounds=3",
    "federation.local_steps=1",
    "model.width=2",
    "model.latent=4",
    'features.extractors=["fourier"]',
    "training.batch_size=20",
    "metrics.samples=200",
    "metrics.utility=off",
    "model.image_size=8",
    "data.source=idx",
    f"data.folder={small_images()}",
]


def tiny_config(*overrides: str) -> Config:
    return load_config(None, [*TINY, *overrides])
