"""What an observer of explicit instances really learns, by their exact laws: a floor under every epsilon.

Nothing of the accountant is used: laws of counts are convolutions, losses are composed on a grid, rounded
down, so what comes out is at most the true epsilon of the instance and at most what may be certified.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from prism_privacy import Accountant, Adjacency, Unit, View, calibrate_measured
from prism_privacy.masks.fixed_point import SCALE, box
from prism_privacy.measured import HadamardEmbedding, MeasuredRound

UNIT, DELTA, STEP = 1 << 20, 1e-5, 2e-5
ROUNDS, TARGET, CLIENTS, RECORDS, SIZE = 20, 2.0, 10, 10, 4
Floats = NDArray[np.float64]


def law(probabilities: list[float]) -> Floats:
    """The law of a sum of independent bits."""
    counts = np.ones(1)
    for p in probabilities:
        counts = np.convolve(counts, [1 - p, p])
    return counts


def exact_epsilon(pairs: list[tuple[Floats, Floats, int]]) -> float:
    """A lower bound on epsilon at DELTA of observing, independently, each pair's law so many times."""
    half = 1 << 20
    total = np.ones(half + 1, dtype=np.complex128)
    for first, second, times in pairs:
        cells = np.floor(np.log(first / second) / STEP).astype(np.int64)
        grid = np.zeros(2 * half)
        np.add.at(grid, cells, first)  # a negative loss wraps around
        total *= np.fft.rfft(grid) ** times
    mass = np.roll(np.fft.irfft(total, 2 * half), half)
    losses = (np.arange(2 * half) - half) * STEP
    low, high = 0.0, losses[-1]
    while high - low > 1e-5:
        middle = (low + high) / 2
        above = losses > middle
        delta = float((mass[above] * -np.expm1(middle - losses[above])).sum())
        low, high = (middle, high) if delta > DELTA else (low, middle)
    return float(low)


def instance(
    make_round: Callable[..., MeasuredRound], unit: Unit, clip: float
) -> tuple[MeasuredRound, Floats, Floats]:
    """The worst worlds that clients can really bring about, and what all others say: (2, m) and (m,).

    V is E^T, so features are moves. A record turns one coordinate's whole radius round, near one edge of the
    box, while all others are at the other; a client moves away from the edge, as all others do.
    """
    seed = bytes(32)
    signs = HadamardEmbedding(seed, SIZE, SIZE, SIZE).signs.astype(np.int64)
    record = unit is Unit.RECORD
    # from here one record reaches the edge, or from the edge the client moves away
    edge = box(0.25)[0] + int(clip / RECORDS * SCALE) + 1 if record else box(0.45)[0]
    asked = make_round(
        (signs.T * (UNIT // 2))[None],
        np.zeros((1, SIZE), dtype=np.int64),
        dimension=SIZE,
        seed=seed,
        coordinates=SIZE,
        directions=SIZE,
        flip=0.25 if record else 0.45,
        clip=clip,
        client_clip=0.5 if record else 1.0,
        record_clip=0.5 if record else 2.0,
        records=RECORDS if record else 1,
        cohort=CLIENTS,
        public=[edge] * SIZE,
    )
    if record:
        one = np.array([UNIT // 2, 0, 0, 0], dtype=np.int32)
        sets = [[one], [-one], [one] * RECORDS]
    else:
        away = np.full(SIZE, UNIT // 2, dtype=np.int32)
        sets = [[away], [0 * away], [away]]
    owners = np.repeat(np.arange(3), [len(rows) for rows in sets])
    features = np.array([row for rows in sets for row in rows], dtype=np.int32)
    answers = asked.answers(features, np.zeros(len(features), dtype=np.int64), owners, 3)
    p = asked.probabilities(answers) / SCALE
    return asked, p[:2], p[2]


def floor_of(worlds: Floats, others: Floats, clients: int) -> float:
    """The exact epsilon of ROUNDS such rounds under the counts of so many clients."""
    found = []
    for first, second in (worlds, worlds[::-1]):
        pairs, times = np.unique(np.stack((first, second, others)), axis=1, return_counts=True)
        laws = [
            (law([p, *[q] * (clients - 1)]), law([other, *[q] * (clients - 1)]), int(many) * ROUNDS)
            for (p, other, q), many in zip(pairs.T, times, strict=True)
        ]
        found.append(exact_epsilon(laws))
    return max(found)


@pytest.mark.parametrize("view", list(View))
@pytest.mark.parametrize("unit", list(Unit))
def test_the_certified_epsilon_is_above_the_exact_one_and_not_far(
    make_round: Callable[..., MeasuredRound], unit: Unit, view: View
) -> None:
    asked, *_ = instance(make_round, unit, 0.4)
    found = calibrate_measured(
        [asked.release] * ROUNDS,
        epsilon=TARGET,
        delta=DELTA,
        unit=unit,
        view=view,
        adjacency="swap" if unit is Unit.RECORD else Adjacency.ZERO_OUT,
    )
    asked, worlds, others = instance(make_round, unit, found.releases[0].clip)
    accountant = Accountant(delta=DELTA)
    accountant.spend(asked.release.release(unit), ROUNDS)
    certified = accountant.epsilon(view, Adjacency.ZERO_OUT)
    assert certified == pytest.approx(TARGET, abs=0.005)
    exact = floor_of(worlds, others, CLIENTS if view is View.SUM else 1)
    assert 0.85 * certified <= exact <= certified


def test_the_floor_is_that_of_a_gaussian_where_moves_are_small_and_clients_many() -> None:
    # 400 coordinates, 50 clients at 1/2, moves of 0.05: mu = 0.05 * 20 / sqrt(50 / 4)
    from dp_accounting import gaussian_mechanism

    first, second = law([0.55, *[0.5] * 49]), law([0.5] * 50)
    mu = 0.05 * 400**0.5 / (50 / 4) ** 0.5
    wanted = gaussian_mechanism.get_epsilon_gaussian(1 / mu, DELTA)
    assert exact_epsilon([(first, second, 400)]) == pytest.approx(wanted, rel=0.02)


def test_the_floor_finds_an_uncharged_sigma_max(make_round: Callable[..., MeasuredRound]) -> None:
    asked, worlds, others = instance(make_round, Unit.RECORD, 0.5)
    accountant = Accountant(delta=DELTA)
    accountant.spend(asked.release.release(Unit.RECORD), ROUNDS)
    certified = accountant.epsilon(View.SUM, Adjacency.ZERO_OUT)
    assert floor_of(worlds, others, CLIENTS) <= certified
    stretched = worlds[1] + 3 * (worlds - worlds[1])
    assert floor_of(stretched, others, CLIENTS) > 1.5 * certified
