"""Exact integer noise, and the epsilon that is claimed for it."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from dp_accounting import gaussian_mechanism
from dp_accounting.pld import privacy_loss_distribution
from scipy import stats

from prism_privacy.errors import InvalidParameter
from prism_privacy.masks.coins import CoinSecret
from prism_privacy.moments import discrete_gaussian
from prism_privacy.moments.discrete_gaussian import (
    LARGEST,
    _bernoulli_exp,
    _uniform_below,
    _uniform_is_below_exp,
    gaussian_epsilon,
    gaussian_multiplier,
    sample_discrete_gaussian,
)


def coins(purpose):
    return CoinSecret.for_test(b"d" * 32).stream("tests", 0, bytes(32), purpose)


@pytest.mark.parametrize("sigma", [1, 2, 5, 9])
def test_draws_fit_the_law_value_by_value(sigma):
    size = 400_000
    draws = sample_discrete_gaussian(sigma, size, coins(f"fit {sigma}"))
    reach = 3 * sigma
    values = np.arange(-20 * sigma, 20 * sigma + 1)
    mass = np.exp(-(values**2) / (2 * sigma**2))
    mass /= mass.sum()
    inner = np.abs(values) <= reach
    expected = np.append(mass[inner], mass[~inner].sum()) * size
    counts = np.append(
        [np.count_nonzero(draws == v) for v in values[inner]], np.count_nonzero(np.abs(draws) > reach)
    )
    assert expected.min() > 100
    assert stats.chisquare(counts, expected).pvalue > 1e-4


@pytest.mark.parametrize("sigma", [1000, 2**21, 2**41, LARGEST])
def test_large_draws_fit_the_normal_law_they_hardly_differ_from(sigma):
    draws = sample_discrete_gaussian(sigma, 100_000, coins(f"large {sigma}"))
    assert stats.kstest(draws / sigma, "norm").pvalue > 1e-3
    assert (draws % 2).mean() == pytest.approx(0.5, abs=0.01)


def test_the_same_coins_give_the_same_noise_and_other_coins_other_noise():
    a, b = (sample_discrete_gaussian(50, 1000, coins("one")) for _ in range(2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, sample_discrete_gaussian(50, 1000, coins("two")))
    assert sample_discrete_gaussian(50, 0, coins("one")).shape == (0,)


def test_the_exact_path_decides_as_the_fast_one(monkeypatch):
    fast = sample_discrete_gaussian(37, 1500, coins("path"))
    monkeypatch.setattr(discrete_gaussian, "_MARGIN", 1.0)  # nothing is left to binary64
    assert np.array_equal(sample_discrete_gaussian(37, 1500, coins("path")), fast)


class Bits:
    """A coin stream with given bytes."""

    def __init__(self, *words):
        self.left = list(words)

    def bytes(self, count):
        assert count == 8
        return self.left.pop(0).to_bytes(8, "little")


@pytest.mark.parametrize("gamma", [Fraction(1), Fraction(1, 3), Fraction(7, 2), Fraction(123456789, 10**7)])
def test_a_tie_in_the_first_bits_is_decided_by_the_next_ones(gamma):
    with mpmath.workdps(120):
        bits = int(
            mpmath.floor(mpmath.exp(-mpmath.mpf(gamma.numerator) / gamma.denominator) * mpmath.mpf(2) ** 192)
        )
    first, second, third = bits >> 128, bits >> 64 & (2**64 - 1), bits & (2**64 - 1)
    assert _uniform_is_below_exp(first, gamma, Bits(second - 1))
    assert not _uniform_is_below_exp(first, gamma, Bits(second + 1))
    assert _uniform_is_below_exp(first, gamma, Bits(second, third - 1))
    assert not _uniform_is_below_exp(first, gamma, Bits(second, third + 1))
    assert _uniform_is_below_exp(first - 1, gamma, Bits())
    assert not _uniform_is_below_exp(first + 1, gamma, Bits())


def test_binary64_never_decides_within_its_own_error():
    # the margin is far above the error of gamma and exp for every argument the sampler forms
    rng = np.random.default_rng(0)
    for s in (1, 3, 1000, 2**41, 2**54):
        t = s + 1
        y = (rng.random(300) * 64 * s).astype(np.int64)
        z = y / s - s / t
        fast = np.exp(-z * z / 2.0)
        with mpmath.workdps(60):
            for value, k in zip(fast.tolist(), y.tolist(), strict=True):
                exact = mpmath.exp(-((k - mpmath.mpf(s) * s / t) ** 2) / (2 * mpmath.mpf(s) ** 2))
                assert abs(value - exact) < 2.0**-39


def test_bernoulli_frequencies_and_uniform_rejection_are_right():
    gamma = np.full(200_000, 0.7)
    hits = int(_bernoulli_exp(gamma, lambda _: Fraction(7, 10), coins("b")).sum())
    assert stats.binomtest(hits, 200_000, math.exp(-0.7)).pvalue > 1e-3
    for t in (1, 2, 3, 7, 8, 1000):
        draws = _uniform_below(t, 50_000, coins(f"u{t}"))
        assert draws.size >= 24_000
        assert draws.min() == 0
        assert draws.max() == t - 1
        if t > 1:
            assert stats.chisquare(np.bincount(draws, minlength=t)).pvalue > 1e-3


@pytest.mark.parametrize(("sigma", "size"), [(0, 1), (-1, 1), (1.5, 1), (LARGEST + 1, 1), (1, -1), (True, 1)])
def test_noise_of_another_form_is_refused(sigma, size):
    with pytest.raises(InvalidParameter):
        sample_discrete_gaussian(sigma, size, coins("x"))


def exact_delta(multiplier, epsilon):
    with mpmath.workdps(60):
        m, e = mpmath.mpf(multiplier), mpmath.mpf(epsilon)
        return mpmath.ncdf(1 / (2 * m) - e * m) - mpmath.exp(e) * mpmath.ncdf(-1 / (2 * m) - e * m)


@pytest.mark.parametrize("multiplier", [0.03, 0.1, 0.3, 0.5, 1.0, 2.0, 3.7, 10.0, 100.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-9, 1e-15])
def test_epsilon_is_never_below_the_truth_and_hardly_above(multiplier, delta):
    epsilon = gaussian_epsilon(multiplier, delta)
    assert exact_delta(multiplier, epsilon) <= delta
    below = epsilon * (1 - 1e-6) - 1e-6
    assert below <= 0 or exact_delta(multiplier, below) > delta


@pytest.mark.parametrize("delta", [0.3, 1e-5, 1e-12, 1e-100])
def test_epsilon_and_multiplier_are_those_of_dp_accounting(delta):
    for multiplier in np.geomspace(1e-4, 1e6, 25).tolist():
        with np.errstate(all="ignore"):
            theirs = gaussian_mechanism.get_epsilon_gaussian(multiplier, delta * (1.0 - 1e-9))
        assert gaussian_epsilon(multiplier, delta) == theirs * (1.0 + 1e-9) + 1e-9
    for epsilon in np.geomspace(1e-6, 1e6, 25).tolist():
        with np.errstate(all="ignore"):
            theirs = gaussian_mechanism.get_sigma_gaussian(epsilon, delta)
        assert gaussian_multiplier(epsilon, delta) == theirs


def test_without_noise_epsilon_is_infinite():
    assert gaussian_epsilon(0.0, 1e-5) == math.inf


@pytest.mark.parametrize(("sigma", "shift"), [(10, 7), (16, 33), (40, 20)])
def test_the_exact_loss_of_discrete_noise_stays_below_the_smoothed_gaussian(sigma, shift):
    """The claim of the module on explicit instances: one coordinate, computed from the masses themselves."""
    x = np.arange(-60 * sigma, 60 * sigma + 1, dtype=np.float64)
    mass = np.exp(-(x**2) / (2 * sigma**2))
    mass /= mass.sum()
    loss = (2 * x * shift - shift**2) / (2 * sigma**2)  # log p(x) / p(x - shift) mirrored
    for delta in (1e-3, 1e-5, 1e-8):
        smoothed = gaussian_epsilon(math.sqrt(sigma**2 - 9) / shift, delta)
        exact = float((mass * -np.expm1(np.minimum(smoothed - loss, 0.0))).sum())
        assert exact <= delta
        # and the bound is not far off: the Gaussian of the full sigma is the limit
        assert smoothed <= gaussian_epsilon(sigma / shift, delta) * 1.1


def test_the_library_gives_the_same_for_a_discrete_gaussian():
    sigma, shift, delta = 30.0, 15, 1e-5
    pld = privacy_loss_distribution.from_discrete_gaussian_mechanism(
        sigma, sensitivity=shift, value_discretization_interval=1e-4
    )
    upper = gaussian_epsilon(math.sqrt(sigma**2 - 9) / shift, delta)
    assert pld.get_epsilon_for_delta(delta) == pytest.approx(upper, rel=0.01)


@pytest.mark.parametrize("shares", [2, 3, 10])
def test_a_sum_of_shares_has_the_law_of_one_discrete_gaussian(shares):
    s = 5
    x = np.arange(-400, 401)
    one = np.exp(-(x**2) / (2 * s**2))
    one /= one.sum()
    total = one
    for _ in range(shares - 1):
        total = np.convolve(total, one)
    k = np.arange(total.size) - total.size // 2
    whole = np.exp(-(k**2) / (2 * shares * s**2))
    whole /= whole.sum()
    near = np.abs(k) < 6 * s * math.sqrt(shares)
    assert np.abs(np.log(total[near] / whole[near])).max() < 1e-12
