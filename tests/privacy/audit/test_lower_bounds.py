"""Lower bounds on epsilon: the formulas of the papers by brute force, and that they hold where ε is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from prism_privacy import exact_epsilon
from prism_privacy.audit import independent_bound, one_run_bound, two_worlds_bound
from prism_privacy.audit.lower_bounds import one_run_log_p


def as_printed(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """Steinke, Nasr and Jagielski 2023, appendix D: `p_value_DP_audit`, line by line."""
    q = 1 / (1 + math.exp(-epsilon))
    beta = stats.binom.sf(v - 1, r, q)
    alpha, total = 0.0, 0.0
    for i in range(1, v + 1):
        total += stats.binom.pmf(v - i, r, q)
        if total > i * alpha:
            alpha = total / i
    return min(float(beta + alpha * delta * 2 * m), 1.0)


@pytest.mark.parametrize(("m", "r", "v"), [(10, 10, 9), (50, 20, 20), (200, 100, 70), (30, 30, 0)])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("delta", [0.0, 1e-5, 0.01])
def test_the_one_run_p_value_is_the_papers(m: int, r: int, v: int, epsilon: float, delta: float) -> None:
    assert math.exp(one_run_log_p(m, r, v, epsilon, delta)) == pytest.approx(
        as_printed(m, r, v, epsilon, delta), rel=1e-9
    )


def test_the_one_run_bound_is_where_its_p_value_crosses_the_error() -> None:
    bound = one_run_bound(1000, 500, 420, 1e-6, 0.01)
    assert (
        as_printed(1000, 500, 420, bound - 1e-6, 1e-6)
        <= 0.01
        < as_printed(1000, 500, 420, bound + 1e-6, 1e-6)
    )
    assert one_run_bound(1000, 1000, 500, 0.0, 0.01) == 0.0


@pytest.mark.parametrize("flip", [0.05, 0.25, 0.45])
def test_the_one_run_bound_is_wrong_no_more_often_than_it_says(flip: float) -> None:
    # All outcomes of randomized response, whose ε is known: guesses are right with probability 1 − flip.
    epsilon, canaries, error = math.log((1 - flip) / flip), 60, 0.05
    wrong = sum(
        float(stats.binom.pmf(right, canaries, 1 - flip))
        for right in range(canaries + 1)
        if one_run_bound(canaries, canaries, right, 0.0, error) > epsilon
    )
    assert 0.0 < wrong <= error


def test_the_two_worlds_bound_is_wrong_no_more_often_than_it_says() -> None:
    # A Gaussian with μ-GDP curve rounded to integers: exact δ(ε) from its two laws.
    rng, delta, error = np.random.default_rng(5), 1e-3, 0.1
    inside = stats.binom(40, 0.6)
    outside = stats.binom(40, 0.4)
    support = np.arange(41)
    grid = np.linspace(0.0, 20.0, 4001)
    excess = np.maximum(inside.pmf(support) - np.exp(grid)[:, None] * outside.pmf(support), 0.0).sum(axis=1)
    epsilon = float(grid[np.argmax(excess <= delta)])
    bounds = [
        two_worlds_bound(inside.rvs(400, random_state=rng), outside.rvs(400, random_state=rng), delta, error)[
            0
        ]
        for _ in range(200)
    ]
    # 200·0.1 = 20 expected at the very most; ≥ 35 has probability below 0.001 then.
    assert sum(bound > epsilon for bound in bounds) < 35
    assert np.median(bounds) > 2.0  # and it says something


def test_two_worlds_finds_the_better_direction_and_side() -> None:
    rng = np.random.default_rng(6)
    rare = np.where(rng.random(4000) < 0.2, 9, 5)  # only one world ever shows a 9
    never = np.full(4000, 5)
    for inside, outside in ((rare, never), (never, rare), (-rare, -never)):
        bound, p, q = two_worlds_bound(inside, outside, 0.0, 0.05)
        assert bound > 3.5
        assert q == 0
        assert p > 300
    assert two_worlds_bound(never, never, 1e-5, 0.05)[0] == 0.0


@pytest.mark.parametrize(("flip", "dim"), [(0.25, 256), (0.05, 64), (0.4, 1000), (0.01, 2000)])
def test_the_independent_bound_is_the_exact_epsilon_of_randomized_response(flip: float, dim: int) -> None:
    assert independent_bound(dim, 1 - flip, flip, 1e-5) == pytest.approx(
        exact_epsilon(flip, dim, 1e-5), rel=1e-6
    )


@pytest.mark.parametrize(("inside", "outside"), [(0.6, 0.5), (0.9, 0.2), (0.5, 0.45)])
def test_the_independent_bound_is_the_best_of_all_events(inside: float, outside: float) -> None:
    dim, delta = 9, 1e-3
    p, q = (stats.binom.pmf(np.arange(dim + 1), dim, rate) for rate in (inside, outside))
    best = max(
        math.log((p[event].sum() - delta) / q[event].sum())
        for code in range(1, 1 << (dim + 1))
        for event in [[bit for bit in range(dim + 1) if code >> bit & 1]]
        if p[event].sum() > delta
    )
    assert independent_bound(dim, inside, outside, delta) == pytest.approx(best, rel=1e-9)
    assert independent_bound(dim, outside, inside, delta) == 0.0
