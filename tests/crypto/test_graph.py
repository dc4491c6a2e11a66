"""The graphs' shape, and the tail bounds against simulation and against a slow oracle."""

from __future__ import annotations

import math
import os
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_crypto.errors import InputError
from prism_crypto.primitives.graph import complete, harary, harary_degree, uniform_permutation


def reachable(neighbours, start: int, alive: set[int]) -> set[int]:
    seen, queue = {start}, [start]
    while queue:
        for other in neighbours[queue.pop()]:
            if other in alive and other not in seen:
                seen.add(other)
                queue.append(other)
    return seen


@given(st.integers(1, 40))
def test_in_the_complete_graph_everybody_else_is_a_neighbour(n):
    assert complete(n) == tuple(tuple(sorted(set(range(n)) - {i})) for i in range(n))


@given(data=st.data(), n=st.integers(3, 60))
@settings(max_examples=60)
def test_harary_graphs_are_regular_symmetric_and_survive_any_degree_minus_one_losses(data, n):
    degree = 2 * data.draw(st.integers(1, (n - 1) // 2))
    order = data.draw(st.permutations(range(n)))
    neighbours = harary(n, degree, order)
    for client, others in enumerate(neighbours):
        assert len(others) == degree
        assert client not in others
        assert list(others) == sorted(set(others))
        assert all(client in neighbours[other] for other in others)
    gone = data.draw(st.sets(st.integers(0, n - 1), max_size=degree - 1))
    alive = set(range(n)) - gone
    assert reachable(neighbours, min(alive), alive) == alive


def test_neighbours_are_the_next_ones_on_the_ring():
    assert harary(7, 4, [6, 5, 4, 3, 2, 1, 0])[3] == (1, 2, 4, 5)
    assert harary(5, 4, range(5)) == complete(5)


@pytest.mark.parametrize(
    ("n", "degree", "permutation"),
    [
        (6, 3, range(6)),
        (6, 0, range(6)),
        (6, 6, range(6)),
        (6, 2, range(5)),
        (6, 2, [0, 1, 2, 3, 4, 4]),
        (6, 2, range(1, 7)),
    ],
)
def test_impossible_graphs_are_refused(n, degree, permutation):
    with pytest.raises(InputError):
        harary(n, degree, permutation)


@pytest.mark.parametrize("n", [0, -1, 2**32])
def test_impossible_cohorts_are_refused(n):
    with pytest.raises(InputError):
        complete(n)


@given(st.integers(1, 50))
def test_a_permutation_holds_everybody_once(n):
    assert sorted(uniform_permutation(n, os.urandom)) == list(range(n))


def test_every_order_is_equally_likely():
    rng = np.random.default_rng(5).bytes
    draws = 6_000
    seen = Counter(uniform_permutation(4, rng) for _ in range(draws))
    assert len(seen) == 24
    statistic = sum((count - draws / 24) ** 2 / (draws / 24) for count in seen.values())
    assert statistic < 60  # chi-square with 23 degrees of freedom: 3.7e-5


def test_a_value_above_the_last_whole_multiple_is_drawn_again():
    values = iter([2**64 - 1, 5, 0])
    assert uniform_permutation(3, lambda count: next(values).to_bytes(count, "big")) == (1, 0, 2)


def slow_tail_above(n: int, corrupt: int, degree: int, threshold: int) -> Fraction:
    """P[X ≥ t], neighbour by neighbour: the chance of each hit count after each draw without replacement."""
    law = {0: Fraction(1)}
    for drawn in range(degree):
        following: dict[int, Fraction] = {}
        for hits, weight in law.items():
            marked = Fraction(corrupt - hits, n - 1 - drawn)
            following[hits + 1] = following.get(hits + 1, Fraction(0)) + weight * marked
            following[hits] = following.get(hits, Fraction(0)) + weight * (1 - marked)
        law = following
    return sum((weight for hits, weight in law.items() if hits >= threshold), Fraction(0))


@pytest.mark.parametrize(
    ("n", "share", "degree"), [(1000, 0.1, 46), (1000, 0.2, 98), (300, 0.1, 36), (10_000, 0.1, 54)]
)
def test_degree_and_threshold_meet_the_three_bounds_and_the_next_smaller_do_not(n, share, degree):
    found = harary_degree(n, share, share)
    assert found.degree == degree

    def bounds_hold(k: int, t: int) -> bool:
        corrupt = gone = round(share * n)
        return (
            n * slow_tail_above(n, corrupt, k, t) < Fraction(1, 2**40)
            and n * (1 - slow_tail_above(n, n - gone - 1, k, t)) < Fraction(1, 2**20)
            and n**2 * (Fraction(corrupt + gone, n)) ** k < Fraction(1, 2**40)
        )

    assert bounds_hold(degree, found.threshold)
    assert not bounds_hold(degree, found.threshold - 1)  # the least threshold
    # Only thresholds near the middle can satisfy both tails.
    assert not any(bounds_hold(degree - 2, t) for t in range(found.threshold - 2, found.threshold + 2))


def test_the_degree_grows_with_the_logarithm_of_the_cohort():
    degrees = [harary_degree(n, 0.1, 0.1).degree for n in (1000, 10_000, 100_000)]
    assert degrees == [46, 54, 58]
    assert degrees[-1] / degrees[0] < math.log(100_000) / math.log(1000)


def test_a_simulated_server_and_its_clients_break_no_more_sessions_than_the_bounds_allow():
    """Monte Carlo at relaxed exponents: 2^-3 for breaches, 2^-3 for sessions that can't finish."""
    n, share, bits, trials = 60, 0.2, 3, 400
    degree, threshold = harary_degree(n, share, share, security=bits, correctness=bits)
    rng = np.random.default_rng(11)
    opened, stuck, split = Counter(), Counter(), 0
    for _ in range(trials):
        neighbours = harary(n, degree, uniform_permutation(n, rng.bytes))
        order = rng.permutation(n)
        corrupt, gone = set(order[:12].tolist()), set(order[12:24].tolist())
        honest, staying = set(range(n)) - corrupt, set(range(n)) - gone
        most_corrupt = max(len(corrupt.intersection(neighbours[i])) for i in honest)
        fewest_alive = min(len(staying.intersection(neighbours[i])) for i in staying)
        for t in (threshold - 3, threshold, threshold + 3):
            opened[t] += most_corrupt >= t
            stuck[t] += fewest_alive < t
        alive = honest - gone
        split += reachable(neighbours, min(alive), alive) != alive
    # Each true rate is below 2^-3 by the bound; 400 trials exceed 0.2 with probability below 1e-4.
    assert opened[threshold] / trials < 0.2
    assert stuck[threshold] / trials < 0.2
    assert split / trials < 0.2
    # The bounds are not vacuous: thresholds a little off are broken often.
    assert opened[threshold - 3] / trials > 0.2
    assert stuck[threshold + 3] / trials > 0.2


def test_shares_given_as_floats_are_not_rounded_down():
    assert harary_degree(1000, 0.29, 0.1) == harary_degree(1000, 0.29000000001, 0.1)


@pytest.mark.parametrize(
    ("n", "dropout", "colluding"),
    [
        (2, 0.1, 0.1),
        (1000, -0.1, 0.1),
        (1000, 0.1, -0.1),
        (1000, 0.5, 0.5),
        (1000, float("nan"), 0.1),
        (20, 0.1, 0.1),
    ],
)
def test_parameters_without_a_sparse_graph_are_refused(n, dropout, colluding):
    with pytest.raises(InputError):
        harary_degree(n, dropout, colluding)


@pytest.mark.parametrize("bits", [{"security": 0}, {"correctness": 0}])
def test_exponents_that_promise_nothing_are_refused(bits):
    with pytest.raises(InputError):
        harary_degree(1000, 0.1, 0.1, **bits)


def test_without_colluders_one_share_opens_nothing_by_itself():
    degree, threshold = harary_degree(1000, 0.1, 0.0)
    assert threshold == 1
    assert Fraction(1, 10) ** degree * 1000**2 < Fraction(1, 2**40)
