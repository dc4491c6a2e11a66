"""The auditor's second opinion: never above the truth by more than its grid, never far below it."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from scipy import integrate

from prism_privacy import Accountant, Adjacency, MaskRelease, MomentRelease, View, exact_epsilon
from prism_secure.audit import oracle
from prism_secure.audit.floors import floor
from prism_secure.audit.oracle import Mask


@pytest.mark.parametrize(
    ("release", "rounds"),
    [
        (MaskRelease(0.25, 1.0, cohort=10), 20),
        (MaskRelease(0.25, 0.2, cohort=10), 1),
        (MaskRelease(0.1, 0.5, cohort=4, dim=3000), 3),
        (MaskRelease(0.1, None, cohort=10, dim=3000), 20),
        (MaskRelease(0.25, 4.0, cohort=9, space="score", dim=10_000), 20),
        (MaskRelease(0.01, 0.5, cohort=12), 5),
        (MaskRelease(0.3, 2.0, cohort=60), 10),
        (MaskRelease(0.25, 1.0, cohort=30, sum_failure=2e-8), 100),
    ],
    ids=str,
)
def test_oracle_agrees_with_the_accountant_within_an_audits_tolerance(
    release: MaskRelease, rounds: int
) -> None:
    """Two computations that share no code; far inside the 1% below and the 5% above that an audit allows."""
    accountant = Accountant(delta=1e-5)
    accountant.spend(release, rounds)
    mask = Mask.of(release.as_dict())
    for view, adjacency in itertools.product(View, Adjacency):
        found = oracle.epsilon(
            {mask: rounds}, 1e-5, summed=view is View.SUM, replaced=adjacency is Adjacency.REPLACE_ONE
        )
        assert 0.998 < accountant.epsilon(view, adjacency) / found < 1.015


@pytest.mark.slow
@pytest.mark.parametrize(("flip", "clip"), [(0.25, 1.0), (0.05, 2.0)])
def test_oracle_agrees_with_the_accountant_for_a_thousand_clients(flip: float, clip: float) -> None:
    test_oracle_agrees_with_the_accountant_within_an_audits_tolerance(
        MaskRelease(flip, clip, cohort=1000), 20
    )


def test_one_coordinate_is_the_largest_divergence_that_brute_force_finds() -> None:
    """Every placement of two other clients on a grid, every move, both directions: n = 3, f = 0.2."""
    flip = 0.2
    found = oracle.coordinate(3, flip, 0.6)
    for at in (20, 60, 90):
        order, worst = float(oracle.ORDERS[at]), 0.0
        ends = np.linspace(flip, 1 - flip, 5)
        for first, second in itertools.combinations_with_replacement(ends, 2):
            rest = np.convolve([1 - first, first], [1 - second, second])
            for p, q in itertools.permutations(np.linspace(flip, 1 - flip, 13), 2):
                one, two = np.convolve(rest, [1 - p, p]), np.convolve(rest, [1 - q, q])
                divergence = math.log(float(np.sum(one**order * two ** (1 - order)))) / (order - 1)
                worst = max(worst, divergence / (p - q) ** 2)
        assert worst <= found.kappa[at] * (1 + 1e-9)
        assert found.kappa[at] <= worst * 1.1


def test_different_rounds_compose_by_their_curves_and_not_by_their_epsilons() -> None:
    masks = [Mask(0.25, 1.0, 10, "probability", None, 0.0), Mask(0.3, 0.5, 20, "probability", None, 0.0)]
    accountant = Accountant(delta=1e-5)
    for mask, rounds in zip(masks, (3, 7), strict=True):
        accountant.spend(MaskRelease(mask.flip, mask.clip, cohort=mask.cohort), rounds)
    together = oracle.epsilon(Counter({masks[0]: 3, masks[1]: 7}), 1e-5, summed=True, replaced=False)
    apart = sum(
        oracle.epsilon({mask: rounds}, 1e-5, summed=True, replaced=False)
        for mask, rounds in zip(masks, (3, 7), strict=True)
    )
    assert together == pytest.approx(accountant.epsilon(View.SUM, Adjacency.ZERO_OUT), rel=5e-3)
    assert together < 0.9 * apart


@pytest.mark.parametrize("bits", [1, 50, 10_000])
def test_unclipped_bits_compose_exactly(bits: int) -> None:
    for flip in (0.05, 0.25, 0.4):
        assert oracle.unclipped(flip, bits, 1e-5) == pytest.approx(exact_epsilon(flip, bits, 1e-5), rel=1e-6)


def test_no_flip_and_no_delta_left_are_infinite() -> None:
    mask = Mask(0.0, 1.0, 10, "probability", None, 0.0)
    assert math.isinf(oracle.epsilon({mask: 1}, 1e-5, summed=True, replaced=False))
    assert oracle.epsilon({}, 1e-5, summed=True, replaced=False) == 0.0
    failing = Mask(0.25, 1.0, 10, "probability", None, 1e-5)
    upload = oracle.epsilon({failing: 1}, 1e-5, summed=False, replaced=False)
    assert oracle.epsilon({failing: 1}, 1e-5, summed=True, replaced=False) == upload


@pytest.mark.parametrize(
    "release",
    [
        {"flip": 0.25, "clip": 1.0, "cohort": 4, "space": "probability", "dim": None},
        {"flip": 0.7, "clip": 1.0, "cohort": 4, "space": "probability", "dim": None, "sum_failure": 0.0},
        {"flip": 0.2, "clip": None, "cohort": 4, "space": "probability", "dim": None, "sum_failure": 0.0},
        {"flip": 0.2, "clip": 1.0, "cohort": 0, "space": "probability", "dim": None, "sum_failure": 0.0},
        {"flip": 0.2, "clip": 1.0, "cohort": 4, "space": "feeling", "dim": None, "sum_failure": 0.0},
    ],
)
def test_release_that_is_not_one_is_refused(release: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a mask's release"):
        Mask.of(release)


def test_gaussian_epsilon_is_where_the_integral_of_the_excess_is_delta() -> None:
    for multiplier in (0.5, 1.0, 4.0):
        epsilon = oracle.gaussian(multiplier, 1e-5)

        def excess(x: float, m: float = multiplier, e: float = epsilon) -> float:
            far = math.exp(-(((x - 1) / m) ** 2) / 2)
            return max(0.0, far - math.exp(e - (x / m) ** 2 / 2)) / (m * math.sqrt(2 * math.pi))

        start = multiplier**2 * epsilon + 0.5
        delta, _ = integrate.quad(excess, start, start + 15 * multiplier + 1, epsabs=1e-15)
        assert delta == pytest.approx(1e-5, rel=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"classes": 10},
        {"second_weight": 0.3, "classes": 10},
        {"second_weight": 0.0, "nonnegative": True, "classes": 3},
        {"adjacency": "add_remove"},
        {"second_weight": 2.0},
    ],
    ids=str,
)
def test_largest_move_of_a_record_is_found_and_its_epsilon_agrees(changes: dict[str, object]) -> None:
    release = MomentRelease(**({"records": 1000, "norm": 1.0, "sigma": 0.003} | changes))
    terms = (release.adjacency, release.classes, release.second_weight, release.count_weight)
    move = oracle.record_move(*terms, release.nonnegative)
    assert move == pytest.approx(release.sensitivity, rel=1e-4)
    assert move <= release.sensitivity
    assert oracle.gaussian(release.noise / move, 1e-5) == pytest.approx(release.epsilon(1e-5), rel=1e-3)


@pytest.mark.parametrize(
    ("mask", "rounds"),
    [
        (Mask(0.25, 1.0, 10, "probability", None, 0.0), 20),
        (Mask(0.25, 1.0, 100, "probability", 5000, 0.0), 5),
        (Mask(0.1, 0.5, 4, "probability", 100, 0.0), 1),
    ],
    ids=str,
)
def test_floor_is_below_the_bound_and_close_enough_to_mean_something(mask: Mask, rounds: int) -> None:
    for summed, replaced in itertools.product((False, True), repeat=2):
        upper = oracle.epsilon({mask: rounds}, 1e-5, summed=summed, replaced=replaced)
        lower = floor(mask, rounds, 1e-5, upper, summed=summed, replaced=replaced)
        if upper > 200:
            assert lower is None
        else:
            assert lower is not None
            assert 0.5 * upper < lower < upper
