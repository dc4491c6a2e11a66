"""A filled clip: exactly as long as allowed, in the client's own direction, whatever its steps' length."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_privacy import clip_toward
from prism_privacy.masks.fixed_point import PIECE, Computed
from prism_secure.config import load_config
from prism_secure.errors import ConfigError
from prism_secure.learning import clip_filling
from prism_secure.model.supermask import scores_from_theta
from prism_secure.rounds.broadcast import Broadcast
from prism_secure.rounds.client import Client
from prism_secure.rounds.components import Components

RNG = np.random.default_rng(0)
D, FLIP = 2000, 0.4
THETA = RNG.uniform(0.05, 0.95, D)
TINY = ["privacy.flip=0.25", "model.width=4", "model.latent=8", 'features.extractors=["fourier"]']


def fill_clip(*vectors: np.ndarray, **how: float) -> np.ndarray:
    return np.asarray(clip_filling.fill_clip(*vectors, **how))


def filled_by_halving(values: np.ndarray, theta: np.ndarray, flip: float, clip: float) -> np.ndarray:
    """The same, slow and obvious: the largest scale that is within the clip."""

    def moved(scale: float) -> np.ndarray:
        return np.clip(theta + scale * (values - theta) / np.abs(values - theta).max(), 0, 1)

    low, high = 0.0, 1e12
    for _ in range(100):
        middle = (low + high) / 2
        within = (1 - 2 * flip) * np.linalg.norm(moved(middle) - theta) < clip
        low, high = (middle, high) if within else (low, middle)
    return moved(high)


@pytest.mark.parametrize("size", [1, 2000, PIECE + 1])
@pytest.mark.parametrize("edge", [0.0, 0.05])
@pytest.mark.parametrize("clip", [1e-3, 0.3, 2.0, 10.0, 30.0, 100.0])
def test_the_length_is_that_of_halving(size: int, edge: float, clip: float) -> None:
    rng = np.random.default_rng(size)
    theta = rng.uniform(edge, 1 - edge, size).round(2)
    values = np.clip(theta + 1e-3 * rng.standard_normal(size) ** 3, 0, 1)
    filled = fill_clip(values, theta, flip=0.2, clip=clip)
    assert np.allclose(filled, filled_by_halving(values, theta, 0.2, clip), rtol=0, atol=1e-9)


@pytest.mark.parametrize("fill", ["true", "false"])
def test_a_client_needs_six_bytes_a_coordinate_beside_its_scores(fill: str, tmp_path) -> None:
    config = load_config(None, ["privacy.clip=30", f"training.fill_clip={fill}", *TINY])
    client, theta = Client(0, tmp_path, Components(config)), RNG.uniform(0.05, 0.95, 50 * PIECE)
    scores, broadcast = torch.randn(theta.size), Broadcast("here", 1, theta)
    _ = broadcast.digest
    tracemalloc.start()
    bits = client._release(scores, broadcast)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert bits.nbytes == theta.size
    assert peak < 6 * theta.size


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


def test_after_the_last_pass_a_move_is_short_of_the_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends that are reached one by one would take a pass each: a server that aims at it gains no time."""
    monkeypatch.setattr(clip_filling, "_MOST_PASSES", 5)
    size, passes = 400, 0
    theta = np.full(size, 0.5)
    values = theta + 0.5 * np.geomspace(1.0, 1e-9, size) ** np.linspace(1.0, 2.0, size)
    clip = 0.49999 * size**0.5

    def counted(part: slice) -> np.ndarray:
        nonlocal passes
        passes += part.start == 0
        return values[part]

    filled = fill_clip(Computed(size, counted), theta, flip=0.0, clip=clip)
    assert passes == 1 + 5 + 1
    assert 0 < np.linalg.norm(filled - theta) <= clip


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
    config = load_config(None, ["privacy.clip=1.5", "training.fill_clip=true", *TINY])
    client = Client(0, tmp_path, Components(config))
    theta = np.full(D, 0.5)
    start = scores_from_theta(torch.from_numpy(theta), config.mask.temperature)
    direction = torch.from_numpy(RNG.standard_normal(D)).float()
    broadcast = Broadcast("here", 1, theta)
    short, long = (client._release(start + a * direction, broadcast) for a in (1e-5, 1e-3))
    assert np.mean(short != long) < 0.01
    unfilled = load_config(None, ["privacy.clip=1.5", *TINY])
    weak = Client(0, tmp_path, Components(unfilled))._release(start, broadcast)
    assert np.mean(weak != long) > 0.005


@pytest.mark.parametrize("wrong", [[], ["privacy.clip=4", "privacy.clip_space=score"]])
def test_there_must_be_a_clip_to_fill(wrong: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"training.fill_clip needs a privacy.clip"):
        load_config(None, ["training.fill_clip=true", *wrong])
