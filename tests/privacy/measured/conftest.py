"""Small measured rounds for tests, every part of which can be given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from prism_privacy.measured import Directions, HadamardEmbedding, MeasuredRelease, MeasuredRound

PLAIN: dict[str, Any] = {
    "flip": 0.25,
    "clip": 0.5,
    "client_clip": 0.4,
    "record_clip": 0.5,
    "records": 3,
    "coordinates": 16,
    "directions": 2,
    "cohort": 10,
}


def _make_round(
    weights: Any = None,
    reference: Any = None,
    *,
    classes: int = 2,
    features: int = 3,
    dimension: int | None = None,
    seed: bytes = bytes(32),
    public: Any = None,
    federation: str = "test",
    round: int = 1,
    limit: int = 1 << 20,
    **release: Any,
) -> MeasuredRound:
    values = PLAIN | release
    size, count = values["coordinates"], values["directions"]
    if weights is None:
        rng = np.random.default_rng(5)
        weights = np.rint(rng.uniform(-1, 1, (classes, features, count)) * 2**20).astype(np.int64)
    weights = np.asarray(weights)
    if reference is None:
        reference = np.full(weights.shape[:2], 1 << 16, dtype=np.int64)
    return MeasuredRound(
        MeasuredRelease(**values),
        Directions(weights, np.asarray(reference), limit),
        HadamardEmbedding(seed, size + 3 if dimension is None else dimension, size, count),
        np.full(size, 1 << 23) if public is None else np.asarray(public),
        federation,
        round,
    )


@pytest.fixture
def make_round() -> Callable[..., MeasuredRound]:
    return _make_round
