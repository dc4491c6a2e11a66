"""A filled clip: exactly as long as allowed, in the client's own direction, whatever its steps' length."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_privacy import clip_toward
from prism_secure.config import load_config
from prism_secure.errors import ConfigError
from prism_secure.learning.clip_filling import fill_clip
from prism_secure.model.supermask import scores_from_theta
from prism_secure.rounds.broadcast import Broadcast
from prism_secure.rounds.client import Client
from prism_secure.rounds.components import Components

RNG = np.random.default_rng(0)
D, FLIP = 2000, 0.4
THETA = RNG.uniform(0.05, 0.95, D)


@pytest.mark.parametrize("step", [1e-9, 1e-3, 0.05])
@pytest.mark.parametrize("clip", [0.3, 2.0])
def test_moves_of_any_length_leave_with_the_whole_clip(step: float, clip: float) -> None:
    direction = RNG.standard_normal(D)
    values = np.clip(THETA + step * direction, 0, 1)
    filled = fill_clip(values, THETA, flip=FLIP, clip=clip)
    p = clip_toward(filled, THETA, flip=FLIP, clip=clip) / 2**24
    centre = clip_toward(THETA, THETA, flip=FLIP, clip=clip) / 2**24
    length = np.linalg.norm(p - centre)
    assert 0.999 * clip < length <= clip
    inside = (filled > 0) & (filled < 1)
    ratio = (filled - THETA)[inside] / (values - THETA)[inside]
    assert ratio == pytest.approx(np.full(ratio.shape, np.median(ratio)), rel=1e-4)


def test_a_clip_that_the_box_cannot_fill_ends_at_the_box() -> None:
    values = THETA + np.where(np.arange(D) < D // 2, 1e-3, 0)
    filled = fill_clip(values, THETA, flip=FLIP, clip=100.0)
    assert filled[: D // 2] == pytest.approx(1)
    assert np.array_equal(filled[D // 2 :], THETA[D // 2 :])


def test_no_move_stays_no_move() -> None:
    assert np.array_equal(fill_clip(THETA.copy(), THETA, flip=FLIP, clip=1.0), THETA)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 0.99)), min_size=1, max_size=8),
    st.floats(0.01, 10),
    st.floats(0, 0.49),
)
@settings(deadline=None, max_examples=200)
def test_never_longer_than_the_clip_nor_outside_the_box(
    pairs: list[tuple[float, float]], clip: float, flip: float
) -> None:
    values, theta = (np.array(column) for column in zip(*pairs, strict=True))
    filled = fill_clip(values, theta, flip=flip, clip=clip)
    assert filled.min() >= 0
    assert filled.max() <= 1
    assert (1 - 2 * flip) * np.linalg.norm(filled - theta) <= clip * (1 + 1e-6)
    assert np.all((filled - theta) * (values - theta) >= 0)


def test_a_client_of_a_filled_clip_releases_the_direction_alone(tmp_path) -> None:
    """Two clients with the same coins whose steps differ in length only send the same bits."""
    tiny = ["privacy.clip=1.5", "privacy.flip=0.25", "model.width=4", "model.latent=8"]
    config = load_config(None, [*tiny, 'features.extractors=["fourier"]', "training.fill_clip=true"])
    client = Client(0, tmp_path, Components(config))
    theta = np.full(D, 0.5)
    start = scores_from_theta(torch.from_numpy(theta), config.mask.temperature)
    direction = torch.from_numpy(RNG.standard_normal(D)).float()
    broadcast = Broadcast("here", 1, theta)
    short, long = (client._release(start + a * direction, broadcast) for a in (1e-5, 1e-3))
    assert np.mean(short != long) < 0.01
    unfilled = load_config(None, [*tiny, 'features.extractors=["fourier"]'])
    weak = Client(0, tmp_path, Components(unfilled))._release(start, broadcast)
    assert np.mean(weak != long) > 0.005


@pytest.mark.parametrize("wrong", [[], ["privacy.clip=4", "privacy.clip_space=score"]])
def test_there_must_be_a_clip_to_fill(wrong: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"training.fill_clip needs a privacy.clip"):
        load_config(None, ["training.fill_clip=true", *wrong])
