"""Filters refuse before the promise breaks, whatever the parameters were chosen by."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from prism_privacy import (
    Accountant,
    Adjacency,
    BudgetExceeded,
    InvalidParameter,
    MaskRelease,
    RenyiFilter,
    View,
)
from prism_privacy.accounting.kappa.store import ORDERS
from prism_privacy.accounting.renyi import renyi_curve, to_epsilon

SUM, ZERO_OUT = View.SUM, Adjacency.ZERO_OUT
RELEASE = MaskRelease(0.25, 1.0, 100)


@pytest.mark.parametrize("order", [None, 3.0, 8.0])
def test_what_a_filter_admits_stays_within_its_promise_at_the_order_that_it_used(order: float | None) -> None:
    draw = random.Random(3)
    run = RenyiFilter(6.0, 1e-5, SUM, ZERO_OUT, order=order)
    total = np.zeros(ORDERS.shape)
    for _ in range(400):
        release = MaskRelease(draw.choice([0.1, 0.25]), draw.choice([0.3, 1.0, 2.0]), 100)
        if run.admits(release):
            run.spend(release)
            total = total + renyi_curve(release, SUM, ZERO_OUT)
    chosen = np.isin(ORDERS, run.orders)
    within = to_epsilon(total[chosen], 1e-5 / chosen.sum(), ORDERS[chosen])[0]
    assert within <= 6.0
    assert within > 5.5, "the filter stops where it must, not long before"
    assert run.share_left < 0.1


def test_a_refused_round_spends_nothing_and_says_why() -> None:
    run = RenyiFilter(3.0, 1e-5, SUM, ZERO_OUT, order=6.0)
    run.spend(RELEASE, 5)
    left = run.share_left
    with pytest.raises(BudgetExceeded, match=r"promises ε = 3 .* refuses round 6 \(1000 asked for\)"):
        run.spend(RELEASE, 1000)
    assert (run.rounds, run.share_left) == (5, left)
    assert run.admits(RELEASE)
    assert not run.admits(MaskRelease(0.0, 1.0, 100))
    with pytest.raises(BudgetExceeded, match="inf%"):
        run.spend(MaskRelease(0.0, 1.0, 100))


def test_adapting_costs_more_than_a_fixed_plan_and_several_orders_more_than_the_best() -> None:
    rounds = 50
    accountant = Accountant(1e-5)
    accountant.spend(RELEASE, rounds)
    planned = accountant.guarantee(SUM, ZERO_OUT)
    fixed = RenyiFilter(planned.epsilon * 1.0001, 1e-5, SUM, ZERO_OUT, order=planned.order)
    fixed.spend(RELEASE, rounds)
    assert not fixed.admits(RELEASE)
    several = RenyiFilter(planned.epsilon * 1.0001, 1e-5, SUM, ZERO_OUT)
    assert not several.admits(RELEASE, rounds)
    assert several.admits(RELEASE, rounds // 2)


def test_failures_of_the_secure_sum_are_reserved_and_refused_beyond() -> None:
    sparse = MaskRelease(0.25, 0.1, 100, sum_failure=1e-7)
    run = RenyiFilter(3.0, 1e-5, SUM, ZERO_OUT, order=6.0, reserve=1e-6)
    run.spend(sparse, 10)
    with pytest.raises(BudgetExceeded, match="failures of the sum"):
        run.spend(sparse)
    assert not RenyiFilter(3.0, 1e-5, SUM, ZERO_OUT, order=6.0).admits(sparse)
    assert RenyiFilter(30.0, 1e-5, View.UPLOAD, ZERO_OUT, order=2.0).admits(sparse)


def test_a_promise_too_small_for_its_order_is_refused_at_once() -> None:
    with pytest.raises(InvalidParameter, match="use a larger order"):
        RenyiFilter(0.5, 1e-5, SUM, ZERO_OUT, order=2.0)
    with pytest.raises(InvalidParameter, match="reserve"):
        RenyiFilter(0.5, 1e-5, SUM, ZERO_OUT, reserve=1e-5)
    for epsilon in (0.0, -1.0, math.inf):
        with pytest.raises(InvalidParameter, match="epsilon"):
            RenyiFilter(epsilon, 1e-5, SUM, ZERO_OUT)
