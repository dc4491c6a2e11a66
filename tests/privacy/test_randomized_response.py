"""The box, the public point and the debiased mean."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_privacy.errors import InvalidParameter
from prism_privacy.masks.fixed_point import SCALE, squared_limit, sum_of_squares
from prism_privacy.masks.randomized_response import RandomizedResponse, debias

flips = st.floats(0.0, 0.499, allow_nan=False)


@given(flips)
def test_the_box_lies_inside_the_real_box_and_within_one_unit_of_it(flip):
    lo, hi = RandomizedResponse(flip).box
    assert Fraction(lo, SCALE) >= Fraction(flip)
    assert Fraction(lo - 1, SCALE) < Fraction(flip)
    assert lo + hi == SCALE
    assert lo <= hi


@pytest.mark.parametrize("flip", [-1e-9, 0.5, 0.7, float("nan"), float("inf"), "0.25", None, True])
def test_a_flip_that_is_no_randomized_response_is_refused(flip):
    with pytest.raises(InvalidParameter, match="flip"):
        RandomizedResponse(flip)


@given(flips, st.lists(st.floats(0, 1, allow_nan=False), min_size=1, max_size=20))
def test_the_public_point_is_the_nearest_unit_put_into_the_box(flip, theta):
    response = RandomizedResponse(flip)
    lo, hi = response.box
    point = response.public_point(np.array(theta))
    assert point.dtype == np.uint32
    for value, k in zip(theta, point.tolist(), strict=True):
        exact = Fraction(flip) + (1 - 2 * Fraction(flip)) * Fraction(value)
        nearest = min(max(exact * SCALE, lo), hi)
        assert lo <= k <= hi
        assert abs(k - nearest) <= Fraction(1, 2) + Fraction(1, 1 << 20)


def test_the_public_point_is_the_same_whatever_holds_theta():
    theta = np.random.default_rng(3).random(1000).astype(np.float32)
    response = RandomizedResponse(0.1)
    expected = response.public_point(theta)
    assert np.array_equal(response.public_point(theta.astype(np.float64)), expected)
    assert np.array_equal(response.public_point(theta[::-1])[::-1], expected)
    assert np.array_equal(response.public_point(theta.reshape(10, 100)).ravel(), expected)


def test_probabilities_are_refused_outside_the_unit_interval():
    with pytest.raises(InvalidParameter, match=r"2 of 4 values do not, the first at index 1 \(1.5\)"):
        RandomizedResponse(0.25).probabilities([0.5, 1.5, 0.2, -0.1])


def test_debias_inverts_the_mean_of_randomized_response_exactly():
    for flip in (0.0, 0.05, 0.25, 0.4):
        values = np.linspace(0, 1, 11)
        expected_counts = (
            (RandomizedResponse(flip).probabilities(values) * 10_000_000).round().astype(np.int64)
        )
        assert debias(expected_counts, 10_000_000, flip) == pytest.approx(values, abs=1e-6)


def test_debias_is_unbiased_over_all_outcomes_and_its_clip_is_not():
    from scipy.stats import binom

    n, flip, v = 10, 0.25, 0.95
    p = flip + (1 - 2 * flip) * v
    law = binom.pmf(np.arange(n + 1), n, p)
    assert law @ debias(np.arange(n + 1), n, flip) == pytest.approx(v, abs=1e-12)
    clipped = law @ debias(np.arange(n + 1), n, flip, clip=True)
    assert clipped < v - 0.05
    sd = np.sqrt(p * (1 - p) / n) / (1 - 2 * flip)
    assert v - clipped < 0.4 * sd


@pytest.mark.parametrize(
    ("counts", "survivors", "named"),
    [([0, 5], 4, "counts"), ([-1], 4, "counts"), ([1.0], 4, "counts"), ([0], 0, "survivors"),
     ([0], 2.0, "survivors"), ([0], True, "survivors")],
)  # fmt: skip
def test_counts_that_no_sum_of_survivors_gives_are_refused(counts, survivors, named):
    with pytest.raises(InvalidParameter, match=named):
        debias(np.array(counts), survivors, 0.25)


def test_debias_takes_unsigned_and_signed_counts_of_any_shape():
    counts = np.array([[0, 1], [2, 3]])
    expected = debias(counts, 4, 0.1)
    assert np.array_equal(debias(counts.astype(np.uint8), 4, 0.1), expected)
    assert np.array_equal(RandomizedResponse(0.1).debias(counts, 4), expected)


@given(st.floats(1e-9, 1e4))
def test_the_squared_limit_is_the_exact_floor(radius):
    exact = (Fraction(radius) * SCALE) ** 2
    assert squared_limit(radius) <= exact < squared_limit(radius) + 1


def test_a_sum_of_squares_beyond_int64_is_exact():
    units = np.full(100_000, SCALE, dtype=np.int64)
    units[::3] = -(SCALE - 1)
    assert sum_of_squares(units) == sum(int(u) ** 2 for u in units.tolist())
    assert sum_of_squares(units) > 2**63
    assert sum_of_squares(np.array([], dtype=np.int64)) == 0
