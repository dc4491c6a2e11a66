"""The statistics of an audit against slow and obvious ones: mpmath, scipy, enumeration of all outcomes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator

import mpmath
import numpy as np
import pytest
from scipy import stats

from prism_privacy.audit.exact_tests import (
    average_rate,
    clopper_pearson,
    distribution,
    holm,
    log_lower_tail,
    log_upper_tail,
    two_sided,
)


def exact_tail(trials: int, rate: float, least: int) -> mpmath.mpf:
    p = mpmath.mpf(rate)
    terms = (
        mpmath.binomial(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(max(least, 0), trials + 1)
    )
    return mpmath.fsum(terms)


@pytest.mark.parametrize(
    ("trials", "rate", "least"),
    [
        (10, 0.3, 4),
        (1000, 0.25, 250),
        (1000, 0.25, 700),
        (1000, 0.01, 999),
        (3000, 0.5, 2900),
        (500, 1e-9, 3),
    ],
)
def test_tails_have_every_digit_however_far_out(trials: int, rate: float, least: int) -> None:
    with mpmath.workdps(60):
        assert log_upper_tail(trials, rate, least) == pytest.approx(
            float(mpmath.log(exact_tail(trials, rate, least))), rel=1e-9
        )


def test_tails_at_the_ends() -> None:
    assert log_upper_tail(5, 0.5, 0) == 0.0
    assert log_upper_tail(5, 0.5, 6) == -math.inf
    assert log_upper_tail(5, 0.0, 1) == -math.inf
    assert log_upper_tail(5, 1.0, 5) == 0.0
    assert math.exp(log_lower_tail(5, 0.5, 0)) == pytest.approx(1 / 32)


def test_a_million_bits_keep_a_tail_of_a_hundred_thousand_zeros() -> None:
    # Chernoff: P(Bin(n, q) ≥ pn) lies between e^(−nD)/(n+1) and e^(−nD), D the divergence of p from q.
    trials, claimed, seen = 1_000_000, 0.25, 0.5
    divergence = seen * math.log(seen / claimed) + (1 - seen) * math.log((1 - seen) / (1 - claimed))
    log_p = log_upper_tail(trials, claimed, int(seen * trials))
    assert -trials * divergence - math.log(trials + 1) < log_p < -trials * divergence


def assert_valid(outcomes: Iterable[tuple[float, float]]) -> None:
    """(probability, log p) of every outcome: P(p ≤ a) ≤ a for every a."""
    pairs = sorted((log_p, weight) for weight, log_p in outcomes)
    total = 0.0
    for (log_p, weight), following in itertools.zip_longest(pairs, pairs[1:]):
        total += weight
        if following is None or following[0] > log_p:
            assert total <= math.exp(log_p) * (1 + 1e-9) + 1e-12
    assert total == pytest.approx(1.0)


def bernoulli_sums(rates: list[float]) -> Iterator[tuple[float, int]]:
    for outcome in itertools.product((0, 1), repeat=len(rates)):
        yield math.prod(r if x else 1 - r for x, r in zip(outcome, rates, strict=True)), sum(outcome)


@pytest.mark.parametrize("rate", [0.02, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("trials", [1, 2, 7, 30])
def test_two_sided_p_values_are_valid_for_every_outcome(trials: int, rate: float) -> None:
    assert_valid(
        (float(stats.binom.pmf(k, trials, rate)), two_sided(trials, rate, k)) for k in range(trials + 1)
    )


@pytest.mark.parametrize(
    "rates", [[0.1] * 4 + [0.9] * 5, [0.3, 0.5, 0.5, 0.7, 0.05, 0.95], [0.0, 1.0, 0.5, 0.5]]
)
def test_a_sum_of_unlike_bernoullis_is_no_more_extreme_than_the_binomial_of_their_mean(
    rates: list[float],
) -> None:
    mean = sum(rates) / len(rates)
    assert_valid((weight, average_rate(len(rates), mean, total)) for weight, total in bernoulli_sums(rates))


@pytest.mark.parametrize(("samples", "trials", "rate"), [(3, 3, 0.4), (6, 1, 0.3), (4, 4, 0.8)])
def test_the_distribution_test_is_valid_for_every_sample(samples: int, trials: int, rate: float) -> None:
    pmf = stats.binom.pmf(np.arange(trials + 1), trials, rate)
    assert_valid(
        (float(np.prod(pmf[list(drawn)])), distribution(np.array(drawn), trials, rate)[1])
        for drawn in itertools.product(range(trials + 1), repeat=samples)
    )


def test_the_distribution_test_measures_the_largest_gap() -> None:
    distance, log_p = distribution(np.array([0, 0, 1, 3]), 3, 0.5)
    assert distance == pytest.approx(0.5 - 0.125)  # at 0: 2 of 4 against 1/8
    assert log_p == pytest.approx(min(0.0, math.log(2.0) - 8.0 * 0.375**2))


@pytest.mark.parametrize(("seen", "trials"), [(0, 5), (5, 5), (3, 10), (499, 1000), (1, 100_000)])
@pytest.mark.parametrize("error", [0.05, 1e-4])
def test_clopper_pearson_is_scipys(seen: int, trials: int, error: float) -> None:
    expected = stats.binomtest(seen, trials).proportion_ci(1.0 - 2.0 * error, method="exact")
    assert clopper_pearson(seen, trials, error) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_holm_rejects_what_the_step_down_procedure_rejects() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        log_ps = np.log(rng.random(6) ** 4)
        level = float(rng.random())
        rejected = set()
        for step, index in enumerate(np.argsort(log_ps)):
            if log_ps[index] > math.log(level / (6 - step)):
                break
            rejected.add(int(index))
        adjusted = holm(log_ps.tolist())
        assert {index for index in range(6) if adjusted[index] <= math.log(level)} == rejected
