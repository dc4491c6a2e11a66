"""Dictionaries of layers through the secure sum and the mechanism: exact, in one order, accounted for."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prism_crypto import InputError, Stage, ThresholdError
from prism_privacy import CoinSecret, MaskRelease, debias
from prism_secure.plug_in import Layers, release_mask, secure_counts

SHAPES = st.dictionaries(
    st.text(min_size=1, max_size=3),
    st.lists(st.integers(1, 3), max_size=3).map(tuple),
    min_size=1,
    max_size=4,
)


@given(SHAPES, st.randoms(use_true_random=False))
def test_flatten_and_split_are_inverse_whatever_the_order_of_the_dictionary(shapes, shuffler):
    arrays = {name: np.random.default_rng(1).integers(0, 9, shape) for name, shape in shapes.items()}
    layers = Layers.of(arrays)
    names = list(arrays)
    shuffler.shuffle(names)
    vector = layers.flatten({name: arrays[name] for name in names})
    assert vector.shape == (layers.dimension,)
    assert np.array_equal(vector, layers.flatten(arrays))
    back = layers.split(vector)
    assert set(back) == set(arrays)
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)


def test_layers_that_differ_are_named_and_have_another_digest():
    layers = Layers.of({"a": np.zeros(2), "b": np.zeros((2, 2))})
    other = {"a": np.zeros(2), "b": np.zeros((4,))}
    with pytest.raises(ValueError, match=r"\('b', \(2, 2\)\), \('b', \(4,\)\)"):
        layers.flatten(other)
    with pytest.raises(ValueError, match=r"expected a vector of shape \(6,\), got \(5,\)"):
        layers.split(np.zeros(5))
    assert layers.digest != Layers.of(other).digest
    assert layers.digest == Layers.of({"b": np.ones((2, 2)), "a": np.ones(2)}).digest


def _masks(clients: int) -> list[dict[str, np.ndarray]]:
    draws = np.random.default_rng(3)
    return [{"w": draws.integers(0, 2, (3, 4)), "v": draws.integers(0, 2, 5)} for _ in range(clients)]


def test_counts_are_the_plain_sum_for_arrays_and_tensors():
    masks = _masks(5)
    tensors = [{name: torch.from_numpy(each) for name, each in mask.items()} for mask in masks]
    for given_masks in (masks, tensors):
        counts = secure_counts(given_masks)
        assert all(np.array_equal(counts[name], sum(mask[name] for mask in masks)) for name in ("w", "v"))
    with pytest.raises(InputError):
        secure_counts([{"w": np.array([2])}] * 3)


def test_the_cohort_that_is_accounted_for_is_the_least_number_of_survivors():
    masks = _masks(5)
    release = MaskRelease(flip=0.25, clip=1.0, cohort=4)
    dropping = {1: Stage.UPLOAD}
    with pytest.raises(ThresholdError):
        secure_counts(masks, drop=dropping)
    with pytest.raises(ThresholdError):
        secure_counts(masks, release, drop={1: Stage.UPLOAD, 2: Stage.UPLOAD})
    # ... and what is divided by is those who are in the sum
    left = [masks[i] for i in (0, 2, 3, 4)]
    found = secure_counts(masks, release, drop=dropping)["v"]
    assert np.allclose(found, 4 * debias(sum(mask["v"] for mask in left), 4, 0.25))


def test_a_released_mask_is_random_as_the_release_says_and_repeats_only_with_its_round():
    theta = {"w": np.full((100, 100), 0.5), "v": np.full(10_000, 0.9)}
    mine = {"w": np.full((100, 100), 0.99), "v": np.full(10_000, 0.9)}
    coins = CoinSecret.for_test(bytes(32))
    free = release_mask(mine, theta, MaskRelease(0.25, 1e6), coins, federation="test", round=1)
    # f + (1 - 2f)θ = 0.745 and 0.7; a standard error is 0.0045
    assert abs(free["w"].mean() - 0.745) < 0.02
    assert abs(free["v"].mean() - 0.70) < 0.02
    # a clip of 1 over 10,000 coordinates that all move leaves 0.01 of each
    clipped = release_mask(mine, theta, MaskRelease(0.25, 1.0), coins, federation="test", round=1)
    assert abs(clipped["w"].mean() - 0.51) < 0.02
    again = release_mask(mine, theta, MaskRelease(0.25, 1e6), coins, federation="test", round=1)
    assert np.array_equal(free["w"], again["w"])
    for other in (
        release_mask(mine, theta, MaskRelease(0.25, 1e6), coins, federation="test", round=2),
        release_mask(
            mine,
            theta,
            MaskRelease(0.25, 1e6),
            CoinSecret.for_test(bytes([1]) * 32),
            federation="test",
            round=1,
        ),
        release_mask(mine, theta, MaskRelease(0.25, 1e6), coins, federation="another", round=1),
        release_mask(
            mine,
            theta | {"v": np.full(10_000, 0.8)},
            MaskRelease(0.25, 1e6),
            coins,
            federation="test",
            round=1,
        ),
    ):
        assert 0.3 < (free["w"] != other["w"]).mean() < 0.5


def test_a_release_that_clips_scores_is_refused():
    theta = {"w": np.full(2, 0.5)}
    with pytest.raises(ValueError, match="must be 'probability'"):
        release_mask(
            theta,
            theta,
            MaskRelease(0.25, 1.0, space="score"),
            CoinSecret.for_test(bytes(32)),
            federation="test",
            round=1,
        )


def test_a_second_experiment_on_the_same_coins_does_not_show_what_changed():
    """With the coins of the first, only bits of weights that moved would differ: here 20 of 2,000."""
    coins, theta = CoinSecret.for_test(bytes(32)), {"w": np.full(2000, 0.5)}
    first, second = theta["w"].copy(), theta["w"].copy()
    first[:20], second[:20] = 0.95, 0.05
    bits = [
        release_mask(
            {"w": mine}, theta, MaskRelease(0.25, None, dim=2000), coins, federation="same", round=1
        )["w"]
        for mine in (first, second)
    ]
    assert 0.45 < (bits[0] != bits[1])[20:].mean() < 0.55


def test_plugging_in_does_not_import_torch():
    code = "import sys, prism_secure.plug_in; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_probability_that_overflowed_is_the_broadcasts_and_no_error() -> None:
    """An error would tell the server of the client's data."""
    broadcast, coins = {"head": np.array([0.2, 0.6, 0.9, 0.4])}, CoinSecret.for_test(bytes(32))
    release = MaskRelease(0.1, 0.5)
    bits = [
        release_mask({"head": np.array(mine)}, broadcast, release, coins, federation="tests", round=1)["head"]
        for mine in ([np.nan, np.inf, -np.inf, 0.7], [0.2, 0.6, 0.9, 0.7])
    ]
    assert bits[0].tolist() == bits[1].tolist()
