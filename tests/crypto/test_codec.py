"""Fixed point: the rounding error is bounded, clipping is exact, and nothing unreal gets in."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_crypto.errors import InputError
from prism_crypto.wire.codec import FixedPoint, WeightedMean

CLIPS = st.floats(1e-6, 1e6)
LEVELS = st.integers(1, 2**40)
REALS = st.floats(allow_nan=False, allow_infinity=False)


@given(
    clip=CLIPS,
    levels=LEVELS,
    vectors=st.lists(st.lists(REALS, min_size=3, max_size=3), min_size=1, max_size=9),
)
def test_a_decoded_sum_is_within_half_a_step_a_client(clip, levels, vectors):
    codec = FixedPoint(clip, levels)
    encoded = [codec.encode(vector) for vector in vectors]
    assert all(code.min() >= 0 and code.max() <= levels for code in encoded)
    decoded = codec.decode_sum(np.sum(encoded, axis=0), len(vectors))
    for j in range(3):
        exact = sum(min(max(Fraction(vector[j]), -Fraction(clip)), Fraction(clip)) for vector in vectors)
        slack = Fraction(clip) * len(vectors) * Fraction(1, 2**48)
        allowed = Fraction(len(vectors)) * Fraction(clip) / levels + slack
        assert abs(Fraction(float(decoded[j])) - exact) <= allowed


@given(clip=CLIPS, levels=LEVELS)
def test_the_clip_itself_maps_to_the_ends_of_the_grid(clip, levels):
    codec = FixedPoint(clip, levels)
    assert codec.encode([-clip, clip, -1e300, 1e300]).tolist() == [0, levels, 0, levels]
    assert codec.decode_sum(np.array([0, levels]), 1).tolist() == pytest.approx([-clip, clip], rel=1e-15)


@given(clip=CLIPS, levels=st.integers(1, 2**30), survivors=st.integers(1, 1000), data=st.data())
def test_decoding_is_the_exact_affine_map(clip, levels, survivors, data):
    count = data.draw(st.integers(0, survivors * levels))
    (value,) = FixedPoint(clip, levels).decode_sum(np.array([count], dtype=np.uint64), survivors)
    exact = Fraction(clip) * (Fraction(2 * count, levels) - survivors)
    assert abs(Fraction(float(value)) - exact) <= abs(exact) * Fraction(1, 2**51)


def test_counts_near_the_top_keep_their_precision():
    codec = FixedPoint(1.0, 2**52)
    survivors = 2**10
    counts = np.array([survivors * 2**51 + 1, survivors * 2**52], dtype=np.uint64)
    assert codec.decode_sum(counts, survivors).tolist() == [2.0 / 2**52, float(survivors)]


def test_zero_is_on_a_grid_with_an_even_number_of_levels():
    codec = FixedPoint(3.0, 10)
    assert codec.decode_sum(codec.encode([0.0]), 1).tolist() == [0.0]
    assert codec.step == pytest.approx(0.6)


def test_shapes_are_kept_and_float32_is_accepted():
    codec = FixedPoint(1.0, 100)
    assert codec.encode(np.zeros((2, 3), dtype=np.float32)).shape == (2, 3)
    assert codec.decode_sum(np.zeros((2, 3), dtype=np.int64), 1).shape == (2, 3)
    assert codec.encode(np.zeros(0)).shape == codec.decode_sum(np.zeros(0, dtype=np.int64), 1).shape == (0,)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_diverged_value_does_not_pass_for_a_clipped_one(value):
    with pytest.raises(InputError, match="got 1 that are not"):
        FixedPoint(1.0, 100).encode([0.0, value])


@pytest.mark.parametrize(
    ("clip", "levels"),
    [(0.0, 1), (-1.0, 1), (float("nan"), 1), (float("inf"), 1), (1.0, 0), (1.0, -5), (1.0, 2**53), (1, 1.5)],
)
def test_impossible_codecs_are_refused(clip, levels):
    with pytest.raises(InputError):
        FixedPoint(clip, levels)


@pytest.mark.parametrize(
    ("counts", "survivors"),
    [([0], 0), ([0], -1), ([-1], 1), ([101], 1), ([201], 2), ([0.5], 1), ([2**63], 1)],
)
def test_counts_that_no_survivors_can_give_are_refused(counts, survivors):
    with pytest.raises(InputError):
        FixedPoint(1.0, 100).decode_sum(np.array(counts), survivors)


@given(
    levels=st.integers(1, 2**20),
    max_weight=st.integers(1, 10**6),
    clients=st.lists(st.tuples(st.integers(0, 10**6), st.floats(-2, 2)), min_size=1, max_size=9),
)
def test_a_weighted_mean_is_within_half_a_step_whatever_the_weights(levels, max_weight, clients):
    mean = WeightedMean(FixedPoint(1.0, levels), max_weight)
    clients = [(min(weight, max_weight), value) for weight, value in clients]
    spec = mean.spec(1)
    encoded = [mean.encode([value], weight) for weight, value in clients]
    assert spec.parts == ((1, levels * max_weight), (1, max_weight)) or levels == 1
    assert all(0 <= vector[0] <= levels * max_weight and vector[1] <= max_weight for vector in encoded)
    total = sum(weight for weight, _ in clients)
    if not total:
        with pytest.raises(InputError, match="add up to 0"):
            mean.decode_sum(np.sum(encoded, axis=0))
        return
    decoded, weight = mean.decode_sum(np.sum(encoded, axis=0))
    exact = sum(Fraction(weight) * Fraction(min(max(value, -1.0), 1.0)) for weight, value in clients) / total
    assert weight == total
    assert abs(Fraction(float(decoded[0])) - exact) <= Fraction(1, levels) + Fraction(1, 2**48)


def test_real_weights_are_on_their_own_grid_and_their_sum_is_real():
    mean = WeightedMean(FixedPoint(1.0, 2**16), FixedPoint(2.0, 2**12))
    total = mean.encode([1.0, 0.0], 1.5) + mean.encode([-1.0, 0.5], 0.5) + mean.encode([1.0, 1.0], 0.0)
    decoded, weight = mean.decode_sum(total)
    assert weight == 2.0
    assert np.allclose(decoded, [0.5, 0.125], atol=1e-4)
    assert mean.encode([0.0], 2.0)[-1] == 2**11 == mean.spec(1).parts[1][1]


def test_sums_near_the_largest_integer_do_not_overflow():
    mean = WeightedMean(FixedPoint(1.0, 2**40), 2**20)
    total = sum(mean.encode([1.0, -1.0, 0.25], 2**20) for _ in range(7))
    assert int(total[0]) == 7 * 2**60
    assert mean.decode_sum(total)[0].tolist() == [1.0, -1.0, 0.25]


@pytest.mark.parametrize("weight", [-1, 11, 2.5, float("nan"), float("inf"), None, "two", 10**400])
def test_a_weight_that_is_none_is_refused_and_not_quoted(weight):
    with pytest.raises(InputError, match=r"whole number in 0\.\.10 \(max_weight\)$"):
        WeightedMean(FixedPoint(1.0, 2), 10).encode([0.0], weight)
    real = WeightedMean(FixedPoint(1.0, 2), FixedPoint(3.0, 8))
    if weight != 2.5:
        with pytest.raises(InputError, match=r"a number in 0\.\.3 \(max_weight\)$"):
            real.encode([0.0], weight)


@pytest.mark.parametrize(
    ("codec", "max_weight"),
    [
        (FixedPoint(1.0, 2), 0),
        (FixedPoint(1.0, 2), 2**53),
        (FixedPoint(1.0, 2), True),
        (FixedPoint(1.0, 2), 1.5),
        (FixedPoint(1.0, 2), FixedPoint(1.0, 1)),
        (FixedPoint(1.0, 2**40), 2**30),
        (2, 2),
    ],
)
def test_means_that_cannot_be_summed_are_refused(codec, max_weight):
    with pytest.raises(InputError):
        WeightedMean(codec, max_weight)


def test_all_that_decoding_depends_on_is_in_the_name_of_the_codec():
    numbers = (1.0, 1.0000000000000002, 1.2345678912345678e-300)
    codecs = [FixedPoint(clip, levels) for clip in numbers for levels in (2, 2**30 - 1)]
    means = [WeightedMean(codec, most) for codec in codecs for most in (2, 3, *codecs[1:4:2])]
    names = {mean.spec(1).codec for mean in means}
    assert len(names) == len(means)
