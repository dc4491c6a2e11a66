"""κ against independent oracles: enumeration, random search, 60 digits."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.special import logsumexp

from prism_privacy.accounting.kappa.curve import curve_from_table
from prism_privacy.accounting.kappa.edge_counts import TAIL, _binomial, edge_blocks, edge_counts
from prism_privacy.accounting.kappa.renyi_moments import (
    OrderGrid,
    _block_moments,
    _configurations,
    _moments,
    moment_table,
)
from prism_privacy.accounting.kappa.store import GRID, ORDERS, coordinate_curve, kappa
from prism_privacy.errors import InvalidParameter

Floats = NDArray[np.float64]
SOME_ORDERS = (1.05, 1.3, 2.0, 2.4, 2.7, 3.0, 4.5, 8.0, 20.0)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def poisson_binomial(probabilities: Floats | list[float]) -> Floats:
    counts = np.ones(1)
    for p in probabilities:
        counts = np.convolve(counts, [1.0 - p, p])
    return counts


def renyi(p: Floats, q: Floats, order: float) -> float:
    return float(logsumexp(order * np.log(p) + (1.0 - order) * np.log(q)) / (order - 1.0))


@pytest.mark.parametrize(("cohort", "flip"), [(1, 0.25), (1, 0.02), (2, 0.25), (3, 0.1), (4, 0.3)])
def test_no_configuration_of_clients_on_a_grid_beats_kappa(cohort: int, flip: float) -> None:
    grid = np.linspace(flip, 1.0 - flip, 4 if cohort < 4 else 3)
    bounds = {order: kappa(order, cohort, flip, 1.0) for order in SOME_ORDERS}
    worst = dict.fromkeys(SOME_ORDERS, 0.0)
    moves = [0.01, 0.03, 0.07, 0.15, 0.4, 0.6, 0.9] if cohort < 3 else [0.01, 0.15, 0.5, 0.9]
    fine = np.concatenate((grid, flip + (1.0 - 2.0 * flip) * np.array(moves)))
    for others in itertools.combinations_with_replacement(grid, cohort - 1):
        rest = poisson_binomial(list(others))
        for p, q in itertools.permutations(fine, 2):
            if abs(p - q) < 1e-9:
                continue
            first, second = np.convolve(rest, [1 - p, p]), np.convolve(rest, [1 - q, q])
            for order in SOME_ORDERS:
                worst[order] = max(worst[order], renyi(first, second, order) / (p - q) ** 2)
    for order in SOME_ORDERS:
        # 10^-9 is the rounding of this oracle at its smallest moves.
        assert worst[order] <= bounds[order] * (1.0 + 1e-9)
        assert bounds[order] <= worst[order] * 1.35, "the enumeration comes close to the bound"


@pytest.mark.parametrize(
    ("cohort", "flip", "loose"), [(1, 0.25, 1.005), (5, 0.05, 1.02), (10, 0.25, 1.006), (60, 0.1, 1.02)]
)
def test_kappa_is_the_supremum_over_all_vertices_to_a_few_tenths_of_a_percent(
    cohort: int, flip: float, loose: float
) -> None:
    moves = np.geomspace(2e-3, 1.0, 120)
    for order in (1.05, 1.5, 2.0, 2.5, 3.0, 5.0, 10.0, 20.0):
        best = 0.0
        for at_low in range(1, cohort + 1):
            still = poisson_binomial([flip] * at_low + [1 - flip] * (cohort - at_low))
            other = poisson_binomial([flip] * (at_low - 1) + [1 - flip] * (cohort - at_low + 1))
            mixed = (1.0 - moves[:, None]) * still + moves[:, None] * other
            for p, q in ((mixed, still), (still, mixed)):
                moment = logsumexp(order * np.log(p) + (1 - order) * np.log(q), axis=1) / (order - 1.0)
                best = max(best, float((moment / ((1 - 2 * flip) * moves) ** 2).max()))
        certified = kappa(order, cohort, flip, 1.0)
        assert best <= certified * (1.0 + 1e-8)
        assert certified <= best * loose


def test_ten_thousand_random_instances_do_not_violate_kappa() -> None:
    """Random cohorts, edges, moves and directions, drawn close to where the supremum lies, at every order."""
    rng = np.random.default_rng(7)
    tried, closest = 0, 0.0
    for _ in range(60):
        cohort = int(rng.choice([1, 2, 3, 5, 8, 13, 30]))
        flip = float(rng.choice([0.01, 0.05, 0.1, 0.25, 0.4, 0.49]))
        width = 1.0 - 2.0 * flip
        reach = width * float(rng.choice([1.0, 0.5, 0.2]))
        bound, orders = coordinate_curve(cohort, flip, reach).kappa[::6], ORDERS[::6]
        for _ in range(180):
            tried += 1
            edge = rng.random(cohort - 1) < rng.random()
            others = np.where(edge, flip, 1.0 - flip)
            inner = rng.random(cohort - 1) < rng.choice([0.0, 0.0, 0.1, 0.5])
            others = np.where(inner, flip + width * rng.beta(0.3, 0.3, cohort - 1), others)
            move = reach * max(float(rng.beta(2.0, 0.5)), 0.02)
            low = flip + (width - move) * float(rng.choice([0.0, 1.0, rng.random()]))
            pair = (low, low + move) if rng.random() < 0.5 else (low + move, low)
            rest = poisson_binomial(others)
            p, q = (np.convolve(rest, [1.0 - at, at]) for at in pair)
            log_p, log_q = np.log(p), np.log(q)
            moment = logsumexp(orders[:, None] * log_p + (1.0 - orders[:, None]) * log_q, axis=1)
            ratio = moment / ((orders - 1.0) * move**2)
            # logsumexp of numbers near zero is good to 2^-50, which matters only where α is near 1.
            slip = 2.0**-50 * (1 + orders * 5) / ((orders - 1.0) * move**2)
            assert (ratio - slip <= bound).all()
            closest = max(closest, float((ratio / bound)[5:10].max()))
    assert tried >= 10_000
    assert closest > 0.95, "a search that stays far from the bound shows nothing"


@pytest.mark.parametrize("dim", [2, 3])
def test_several_coordinates_together_stay_below_kappa_times_the_squared_radius(dim: int) -> None:
    rng = np.random.default_rng(dim)
    cohort, flip, clip = 3, 0.1, 0.6
    curve = coordinate_curve(cohort, flip, clip)
    bound = curve.divergence(clip, None)
    for _ in range(300):
        direction = rng.normal(size=dim)
        move = clip * direction / np.linalg.norm(direction)
        if (np.abs(move) > 1 - 2 * flip).any():
            continue
        low = np.maximum(flip, flip - move)
        high = np.minimum(1 - flip, 1 - flip - move)
        start = low + (high - low) * rng.choice([0.0, 1.0], size=dim)
        # The joint law over all coordinates, built as one table of (cohort+1)^dim cells.
        joint_p = joint_q = np.ones(1)
        for i in range(dim):
            rest = poisson_binomial(list(rng.choice([flip, 1 - flip], size=cohort - 1)))
            joint_p = np.outer(
                joint_p, np.convolve(rest, [1 - start[i] - move[i], start[i] + move[i]])
            ).ravel()
            joint_q = np.outer(joint_q, np.convolve(rest, [1 - start[i], start[i]])).ravel()
        for k in range(20, ORDERS.size - 40, 12):
            assert renyi(joint_p, joint_q, float(ORDERS[k])) <= bound[k] * (1 + 1e-9)


def exact_moments(
    others: list[mpmath.mpf], flip: mpmath.mpf, move: mpmath.mpf, order: float
) -> tuple[float, float, float]:
    """g forward, g backward and E X² at 60 digits."""
    pad = [mpmath.mpf(0), *others, mpmath.mpf(0)]
    forward = backward = chi2 = mpmath.mpf(0)
    for i in range(len(others) + 1):
        still = (1 - flip) * pad[i + 1] + flip * pad[i]
        other = flip * pad[i + 1] + (1 - flip) * pad[i]
        mixed = (1 - move) * still + move * other
        log_ratio = mpmath.log(mixed / still)
        forward += still * mpmath.exp(order * log_ratio)
        backward += still * mpmath.exp((1 - order) * log_ratio)
        chi2 += (other - still) ** 2 / still
    return float(forward - 1), float(backward - 1), float(chi2)


def exact_binomial(trials: int, success: mpmath.mpf) -> list[mpmath.mpf]:
    term = (1 - success) ** trials
    terms = [term]
    for k in range(trials):
        term = term * (trials - k) / (k + 1) * success / (1 - success)
        terms.append(term)
    return terms


@pytest.mark.parametrize(
    ("at_low", "at_high", "flip"),
    [
        (0, 0, 0.25),
        (0, 0, 0.001),
        (9, 0, 0.05),
        (30, 29, 0.1),
        (999, 0, 0.25),
        (2999, 0, 0.01),
    ],
)
def test_moments_agree_with_sixty_digits_within_the_stated_slack(
    at_low: int, at_high: int, flip: float
) -> None:
    moves = np.array([0.004, 0.06, 1.0])
    grid = OrderGrid((0.0125, 0.021), 12)
    with mpmath.workdps(60):
        f = mpmath.mpf(flip)
        low, high = exact_binomial(at_low, f), exact_binomial(at_high, 1 - f)
        others = [mpmath.mpf(0)] * (at_low + at_high + 1)
        for i, a in enumerate(low):
            for j, b in enumerate(high):
                others[i + j] += a * b
        kept = edge_counts(at_low, at_high, flip)
        forward, backward, chi2, _ = _moments(kept, flip, grid, moves)
        orders = grid.orders
        for at, k in ((0, 0), (1, 13), (2, 14), (1, orders.size - 1)):
            ahead, behind, second = exact_moments(others, f, mpmath.mpf(moves[at]), float(orders[k]))
            sd = math.sqrt(second)
            slack = 2.0**-53 * 64 * (kept.size + 64) * (orders[k] + 1.0 / (moves[at] * sd))
            # An eighth of the slack is already enough: the argument for it is not sharp.
            assert forward[k, at] == pytest.approx(ahead, rel=slack / 8, abs=0)
            assert backward[k, at] == pytest.approx(behind, rel=slack / 8, abs=0)
            assert chi2 == pytest.approx(second, rel=slack / 8, abs=0)
            assert slack < 1e-5


def test_counts_at_the_edges_are_right_in_the_far_tails() -> None:
    with mpmath.workdps(60):
        flip = mpmath.mpf(0.05)
        low, high = exact_binomial(300, flip), exact_binomial(60, 1 - flip)
        exact = [mpmath.mpf(0)] * 361
        for i, a in enumerate(low):
            for j, b in enumerate(high):
                exact[i + j] += a * b
        kept = edge_counts(300, 60, 0.05)
        first = next(i for i, value in enumerate(exact) if value > 1e-290)
        cut = mpmath.fsum(exact[:first]) + mpmath.fsum(exact[first + kept.size :])
        assert 0 <= cut < TAIL
        for k in range(kept.size):
            if kept[k] < 1e-270:
                continue  # what was cut from a factor shows here; it is part of TAIL
            assert kept[k] == pytest.approx(float(exact[first + k]), rel=1e-12, abs=0)


@pytest.mark.parametrize(("cohort", "flip"), [(1000, 0.25), (1000, 0.02), (777, 0.4)])
def test_intervals_of_configurations_bound_every_single_one(cohort: int, flip: float) -> None:
    grid = OrderGrid((0.05, 1.5), 5)
    table = moment_table(cohort, flip, 1.0, grid)
    rng = np.random.default_rng(cohort)
    best = np.zeros((grid.orders.size, table.nodes.size))
    for at_low in [1, 2, 3, cohort // 2, cohort - 1, cohort, *rng.integers(1, cohort, 6)]:
        others = edge_counts(int(at_low) - 1, cohort - int(at_low), flip)
        forward, backward, chi2, third = _moments(others, flip, grid, table.nodes)
        assert (np.log1p(forward) <= table.forward).all()
        assert (np.log1p(backward) <= table.backward).all()
        assert chi2 <= table.chi2
        assert third <= table.third
        best = np.maximum(best, np.maximum(np.log1p(forward), np.log1p(backward)))
    assert (np.maximum(table.forward, table.backward) <= best * 1.006).all()


@pytest.mark.parametrize(
    ("at_low", "at_high", "flip", "length"),
    [(400, 300, 0.25, 2), (0, 900, 0.1, 3), (900, 0, 0.1, 2), (350, 350, 0.05, 2)],
)
def test_blocks_of_counts_bound_the_moments_at_sixty_digits(
    at_low: int, at_high: int, flip: float, length: int
) -> None:
    moves, grid = np.array([0.01, 0.3, 1.0]), OrderGrid((0.0125, 0.021), 12)
    forward, backward, chi2, _, size = _block_moments(at_low, at_high, flip, length, grid, moves)
    with mpmath.workdps(60):
        f = mpmath.mpf(flip)
        others = [mpmath.mpf(0)] * (at_low + at_high + 1)
        high = exact_binomial(at_high, 1 - f)
        for i, a in enumerate(exact_binomial(at_low, f)):
            for j, b in enumerate(high):
                others[i + j] += a * b
        sd = math.sqrt((at_low + at_high) * flip * (1 - flip))
        loose = (length / sd) ** 2 / 2
        for at, k in ((0, 0), (1, 13), (2, 14), (2, 20)):
            ahead, behind, second = exact_moments(others, f, mpmath.mpf(moves[at]), float(grid.orders[k]))
            slack = 2.0**-50 * (size + 64) * (grid.orders[k] + 1.0 / (moves[at] * math.sqrt(second)))
            for bound, exact in (
                (forward[k, at], ahead),
                (backward[k, at], behind),
                (chi2, second),
            ):
                assert exact * (1 - slack) <= bound <= exact * (1 + loose * grid.orders[k])


@pytest.mark.parametrize(
    ("at_low", "at_high", "flip", "length"),
    [(3000, 7000, 0.25, 5), (9999, 0, 0.1, 4), (0, 9999, 0.3, 5), (12_000, 11_999, 0.02, 2)],
)
def test_blocks_are_sums_of_the_counts_in_them(at_low: int, at_high: int, flip: float, length: int) -> None:
    blocks, first, last = edge_blocks(at_low, at_high, flip, length)
    counts = np.convolve(_binomial(at_low, flip)[1], _binomial(at_high, flip)[1][::-1])
    counts = np.append(counts / counts.sum(), np.zeros(-counts.size % length)).reshape(-1, length)
    sums = counts.sum(axis=1)
    start = int(sums.argmax() - blocks.argmax())
    kept = slice(start, start + blocks.size)
    assert blocks == pytest.approx(sums[kept], rel=1e-13, abs=0)
    assert first == pytest.approx(counts[kept, 0], rel=1e-13, abs=0)
    assert last == pytest.approx(counts[kept, -1], rel=1e-13, abs=0)
    assert sums[:start].sum() + sums[start + blocks.size :].sum() < TAIL


@pytest.mark.parametrize(
    ("cohort", "flip"),
    [(1_500, 0.35), (3_001, 0.25), (10_000, 0.05), (12_345, 0.25), (20_001, 0.03), (11_000, 0.45)],
)
def test_in_blocks_kappa_is_a_percent_above_single_configurations(cohort: int, flip: float) -> None:
    grid = OrderGrid((0.05, 1.5), 5)
    table = moment_table(cohort, flip, 1.0, grid)
    best = np.zeros((grid.orders.size, table.nodes.size))
    for at_low in (0, 1, cohort // 3, cohort // 2, cohort - 2, cohort - 1):
        others = edge_counts(at_low, cohort - 1 - at_low, flip)
        forward, backward, chi2, third = _moments(others, flip, grid, table.nodes)
        assert (np.log1p(forward) <= table.forward).all()
        assert (np.log1p(backward) <= table.backward).all()
        assert chi2 <= table.chi2
        assert third <= table.third
        best = np.maximum(best, np.maximum(np.log1p(forward), np.log1p(backward)))
    assert (np.maximum(table.forward, table.backward) <= best * 1.012).all()


@pytest.mark.parametrize("flip", [0.25, 0.001, 1e-5])
def test_a_cohort_of_a_million_has_a_bound_that_holds(flip: float) -> None:
    """Against scipy's binomials with all others at one edge; a smaller cohort never has the smaller κ."""
    curves = [coordinate_curve(cohort, flip, 0.5) for cohort in (10**6, 300_000, 100_000, 20_000)]
    for large, small in itertools.pairwise(curves):
        assert (large.kappa <= small.kappa)[: np.searchsorted(ORDERS, 100.0)].all()
    rest = stats.binom.pmf(np.arange(10**6), 10**6 - 1, flip)
    for move in (0.5, 0.1):
        pair = [np.convolve(rest, [1.0 - at, at]) for at in (flip, flip + move)]
        seen = np.minimum(*pair) > 1e-250
        logs = [np.log(law[seen]) for law in pair]
        for log_p, log_q in (logs, logs[::-1]):
            for k in range(0, ORDERS.size, 18):
                order = ORDERS[k]
                moment = float(logsumexp(order * log_p + (1.0 - order) * log_q))
                slip = 2.0**-36 * (1 + order)
                assert moment - slip <= curves[0].kappa[k] * (order - 1.0) * move**2
    if flip == 0.25:
        usual = ORDERS < 100.0
        limit = ORDERS / (2 * 10**6 * flip * (1 - flip))
        assert (curves[0].kappa[usual] <= 1.015 * limit[usual]).all()
        assert (curves[0].kappa[usual] >= limit[usual]).all()


@pytest.mark.parametrize("cohort", [10_001, 10_002, 12_345, 77_777, 10**6])
def test_coarse_configurations_cover_every_count_of_clients_too(cohort: int) -> None:
    reached = 1
    for low, last in sorted((at_low + 1, cohort - at_high) for at_low, at_high in _configurations(cohort)):
        assert low <= reached <= last + 1, "a count of clients is left out"
        assert last - low <= cohort / 120
        reached = last + 1
    assert reached == cohort + 1


@pytest.mark.parametrize("cohort", [1, 2, 249, 250, 251, 500, 1234, 10_000])
def test_configurations_cover_every_count_of_clients_at_the_lower_edge(cohort: int) -> None:
    covered: set[int] = set()
    for at_low, at_high in _configurations(cohort):
        low, high = at_low + 1, cohort - at_high  # m from m0 to m1
        assert high - low <= cohort / 250
        covered.update(range(low, high + 1))
    assert covered == set(range(1, cohort + 1))


@pytest.mark.parametrize("adjacent", [0.3, 0.05])
def test_kappa_between_nodes_covers_moves_that_are_no_nodes(adjacent: float) -> None:
    """A table is exact at its nodes only: at 400 moves in between, every bound still holds."""
    for cohort in (1, 6, 40):
        table = moment_table(cohort, 0.1, 1.0, GRID)
        for reach in (0.8, adjacent):
            curve = curve_from_table(table, reach)
            moves = reach / 0.8 * np.linspace(0.003, 1.0, 400)
            for at_low in {0, cohort // 2, cohort - 1}:
                others = edge_counts(at_low, cohort - 1 - at_low, 0.1)
                forward, backward, _, _ = _moments(others, 0.1, GRID, moves)
                for g in (forward, backward):
                    divergence = np.log1p(g) / (ORDERS - 1.0)[:, None]
                    bound = curve.kappa[:, None] * (0.8 * moves) ** 2
                    fine = np.isfinite(divergence)
                    assert (divergence[fine] <= bound[fine] * (1 + 1e-9)).all()
                    last = np.isfinite(divergence[:, -1])
                    assert (divergence[last, -1] <= curve.most[last] * (1 + 1e-9)).all()


def test_kappa_grows_with_the_order_and_the_reach_and_falls_with_the_cohort_and_the_flip() -> None:
    values = [kappa(order, 20, 0.2, 0.6) for order in (1.01, 1.5, 2.0, 2.5, 3.0, 10.0, 100.0)]
    assert values == sorted(values)
    # Chords between nodes may be looser on one side than on the other by a fraction of a percent.
    for order in (1.5, 4.0, 12.0):
        assert kappa(order, 20, 0.2, 0.1) <= kappa(order, 20, 0.2, 0.6) * 1.005
        assert kappa(order, 21, 0.2, 0.6) < kappa(order, 20, 0.2, 0.6)
        assert kappa(order, 20, 0.21, 0.6) < kappa(order, 20, 0.2, 0.6)


def test_at_a_large_cohort_kappa_is_that_of_a_gaussian() -> None:
    """α/(2n f(1−f)), the central limit; at n·f = 5 it is off by a factor, so it is no bound."""
    assert kappa(4.0, 5000, 0.25, 0.1) == pytest.approx(4.0 / (2 * 5000 * 0.25 * 0.75), rel=0.02)
    assert kappa(8.0, 100, 0.05, 1.0) > 8.0 / (2 * 100 * 0.05 * 0.95) * 20


def test_the_tempting_closed_form_for_uploads_is_too_small() -> None:
    order, flip = 8.0, 0.05
    assert kappa(order, 1, flip, 0.9) > 2.0 * order / (2 * flip * (1 - flip))
    assert kappa(2.0, 1, flip, 0.9) == pytest.approx(2.0 / (2 * flip * (1 - flip)))


def test_without_flips_nothing_is_protected() -> None:
    assert kappa(2.0, 1000, 0.0, 0.5) == math.inf
    assert np.isinf(coordinate_curve(10, 0.0, 1.0).kappa).all()


@pytest.mark.parametrize(
    "question",
    [
        {"order": 1.0},
        {"order": math.nan},
        {"cohort": 0},
        {"cohort": 2.5},
        {"cohort": 10**7},
        {"flip": 0.5},
        {"flip": -0.1},
        {"reach": 0.0},
    ],
)
def test_questions_outside_the_range_are_refused(question: dict[str, float]) -> None:
    fine: dict[str, float] = {"order": 2.0, "cohort": 10, "flip": 0.25, "reach": 0.5}
    with pytest.raises(InvalidParameter):
        kappa(**{**fine, **question})  # type: ignore[arg-type]


@pytest.mark.parametrize("cohort", [1, 7])
def test_kappa_at_the_far_ends_is_above_a_search_at_sixty_digits_and_not_far(cohort: int) -> None:
    """Flips near ½ and moves near 0, where differences of doubles have no digits left."""
    for flip in (0.25, 0.499, 0.49999, 0.5 - 1e-9):
        for reach in (1e-3, 1e-7, 1e-13):
            with mpmath.workdps(60):
                f, move = mpmath.mpf(flip), mpmath.mpf(min(reach, 1.0 - 2.0 * flip))
                for order in (1.5, 4.0, 40.0):
                    worst = 0.0
                    for at_low in range(cohort):
                        rest = [mpmath.mpf(0)] * cohort
                        for i, low in enumerate(exact_binomial(at_low, f)):
                            for j, high in enumerate(exact_binomial(cohort - 1 - at_low, 1 - f)):
                                rest[i + j] += low * high
                        for g in exact_moments(rest, f, move / (1 - 2 * f), order)[:2]:
                            worst = max(worst, float(mpmath.log1p(g) / ((order - 1) * move**2)))
                    assert worst <= kappa(order, cohort, flip, reach) <= worst * 1.05


@pytest.mark.parametrize("order", [math.nextafter(1.0, 2.0), 1e6, 1e20, 1e300])
def test_kappa_has_an_answer_at_every_order(order: float) -> None:
    for flip in (0.25, 1e-50, 0.5 - 1e-10):
        assert kappa(min(order, 100.0), 10, flip, 0.5) <= kappa(order, 10, flip, 0.5) or order < 1.1
        assert kappa(order, 10, flip, 0.5) > 0.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cohort", "flip"), [(300, 0.02), (1000, 0.25), (1000, 0.05), (3000, 0.4), (10_000, 0.1)]
)
def test_large_cohorts_do_not_violate_kappa_either(cohort: int, flip: float) -> None:
    """Several hundred vertices and moves each, with scipy's binomials instead of this package's."""
    rng = np.random.default_rng(cohort)
    width = 1.0 - 2.0 * flip
    for reach in (width, 0.3 * width):
        bound = coordinate_curve(cohort, flip, reach).kappa[::4]
        orders = ORDERS[::4]
        for attempt in range(150):
            low_clients = (0, cohort - 1, int(rng.integers(cohort)))[min(attempt % 4, 2)]
            low = stats.binom.pmf(np.arange(low_clients + 1), low_clients, flip)
            high = stats.binom.pmf(np.arange(cohort - low_clients), cohort - 1 - low_clients, 1.0 - flip)
            rest = np.convolve(low, high)
            move = reach * float(rng.choice([1.0, 0.7, rng.random()]))
            start = float(rng.choice([flip, 1.0 - flip - move]))
            p, q = np.convolve(rest, [1 - start - move, start + move]), np.convolve(rest, [1 - start, start])
            seen = np.minimum(p, q) > 1e-250
            log_p, log_q = np.log(p[seen]), np.log(q[seen])
            if rng.random() < 0.5:
                log_p, log_q = log_q, log_p
            moment = logsumexp(orders[:, None] * log_p + (1.0 - orders[:, None]) * log_q, axis=1)
            slip = 2.0**-40 * (1 + orders) / ((orders - 1.0) * move**2)
            assert (moment / ((orders - 1.0) * move**2) - slip <= bound).all()
