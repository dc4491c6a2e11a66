"""No data set, however chosen, moves p further than the radii that are accounted for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from prism_privacy.masks.fixed_point import SCALE, box
from prism_privacy.measured import MeasuredRound, answers, public_round, quantise_features
from prism_privacy.measured.integers import RESPONSE_BITS

UNIT = 1 << 20
VALUES = (-UNIT, 0, UNIT)

ROUNDS: dict[str, dict[str, Any]] = {
    "both clips bind": {},
    "the client clip never binds": {"client_clip": 8.0, "clip": 8.0},
    "the box binds": {"clip": 3.0, "client_clip": 0.2},
    "p_t at the edge of the box": {"public": [box(0.25)[0]] * 8 + [box(0.25)[1]] * 8},
    "one direction, one class alone has it": {
        "weights": [[[UNIT], [0], [0]], [[0], [0], [0]]],
        "directions": 1,
    },
    "loose record clip": {"record_clip": 50.0},
}


def every_record(features: int, classes: int) -> list[tuple[tuple[int, ...], int]]:
    return [(x, y) for x in itertools.product(VALUES, repeat=features) for y in range(classes)]


def move(asked: MeasuredRound, sets: list[Any]) -> NDArray[np.int64]:
    """p - p_t of many data sets, each of them a client of one call."""
    rows = [record for records in sets for record in records]
    owners = np.repeat(np.arange(len(sets)), [len(records) for records in sets])
    features = np.array([x for x, _ in rows], dtype=np.int32).reshape(len(rows), asked.directions.features)
    found = asked.answers(features, np.array([y for _, y in rows], dtype=np.int64), owners, len(sets))
    return asked.probabilities(found).astype(np.int64) - asked.public


def furthest(group: NDArray[np.int64]) -> int:
    """The largest squared distance between two rows, exact."""
    return max(int(((group - row) ** 2).sum(axis=1).max()) for row in group)


def exact(radius: float) -> Fraction:
    return (Fraction(radius) * SCALE) ** 2


@pytest.mark.parametrize("name", ROUNDS)
@pytest.mark.parametrize(("features", "records"), [(1, 3), (2, 2), (3, 1)])
def test_over_all_small_data_sets_no_swap_moves_p_beyond_its_radius(
    make_round: Callable[..., MeasuredRound], name: str, features: int, records: int
) -> None:
    values = dict(ROUNDS[name])
    if "weights" in values:
        values["weights"] = np.array(values["weights"])[:, :features]
    asked = make_round(features=features, **values)
    lo, hi = box(asked.release.flip)
    types = every_record(features, 2)
    sets = list(itertools.product(types, repeat=records))
    moved = move(asked, sets)
    k = moved + asked.public
    assert lo <= k.min()
    assert k.max() <= hi
    assert max((moved**2).sum(axis=1)) <= exact(asked.release.clip)
    # sets that differ in one record: all others fixed, it takes every value and every label
    index = np.arange(len(sets)).reshape((len(types),) * records)
    for place in range(records):
        for group in np.moveaxis(index, place, -1).reshape(-1, len(types)):
            assert furthest(moved[group]) <= exact(asked.release.record_radius("swap"))


@pytest.mark.parametrize("name", ROUNDS)
def test_over_all_small_data_sets_adding_a_record_moves_p_within_half_of_it(
    make_round: Callable[..., MeasuredRound], name: str
) -> None:
    values = dict(ROUNDS[name])
    if "weights" in values:
        values["weights"] = np.array(values["weights"])[:, :2]
    asked = make_round(features=2, **values)
    types = every_record(2, 2)
    limit = exact(asked.release.record_radius("add_remove"))
    for others in range(3):
        smaller = list(itertools.product(types, repeat=others)) if others < 2 else [(a, a) for a in types]
        less = move(asked, smaller)
        for start, before in zip(smaller, less, strict=True):
            more = move(asked, [(*start, added) for added in types])
            assert int(((more - before) ** 2).sum(axis=1).max()) <= limit


@pytest.mark.parametrize("adjacency", ["swap", "add_remove"])
def test_the_radii_are_reached_up_to_the_slack(
    make_round: Callable[..., MeasuredRound], adjacency: str
) -> None:
    # two opposite records on one direction, with clips that leave them the whole way
    asked = make_round(
        [[[UNIT], [0]], [[UNIT], [0]]], [[0, 0], [0, 0]], directions=1, record_clip=0.5, client_clip=2.0
    )
    here, there = move(asked, [[((UNIT, 0), 0)], [((-UNIT, 0), 1)] if adjacency == "swap" else []])
    release = asked.release
    distance = math.sqrt(int(((here - there) ** 2).sum())) / SCALE
    radius = release.record_radius(adjacency)  # type: ignore[arg-type]
    # each world loses less than a unit a coordinate, the radius has the slack on top
    assert radius - 4 * release.slack <= distance <= radius


def test_the_client_reaches_its_ball(make_round: Callable[..., MeasuredRound]) -> None:
    asked = make_round(record_clip=50.0, client_clip=0.05)
    moved = move(asked, [[((UNIT, UNIT, UNIT), 0)] * 3])
    total = int((moved**2).sum())
    assert exact(asked.release.clip - asked.release.slack) <= total <= exact(asked.release.clip)


def test_a_move_that_floats_leave_a_hair_outside_the_ball_is_drawn_back(
    make_round: Callable[..., MeasuredRound],
) -> None:
    hits = 0
    for units in range(1000, 1060):
        # every coordinate would move by this many units less a hair, which the product rounds away
        clip = float(np.nextafter(units * math.sqrt(32) / SCALE, 0))
        asked = make_round(
            [[[UNIT]]],
            [[0]],
            directions=1,
            coordinates=32,
            clip=clip,
            client_clip=1.0,
            record_clip=1.0,
            records=1,
        )
        answer = asked.answers(np.array([[UNIT]], dtype=np.int32), np.array([0]))
        bare = np.trunc(asked.embedding.embed(answer) * asked.release.move_gain).astype(np.int64)
        hits += int((bare**2).sum()) > exact(clip)
        moved = asked.probabilities(answer).astype(np.int64) - asked.public
        assert 32 * (units - 1) ** 2 <= int((moved**2).sum()) <= exact(clip)
    assert hits > 5


def no_record_clip(responses: NDArray[np.int64], gain: float) -> NDArray[np.int64]:
    return np.trunc(responses * gain).astype(np.int64)


@pytest.mark.parametrize("bug", ["no record clip", "divided by the private count", "no client clip or ball"])
def test_the_search_finds_a_client_that_leaves_a_clip_out(
    make_round: Callable[..., MeasuredRound], monkeypatch: pytest.MonkeyPatch, bug: str
) -> None:
    asked = make_round(features=2, record_clip=0.3, client_clip=2.0)
    release = asked.release
    if bug == "no record clip":
        monkeypatch.setattr(public_round, "clip_responses", no_record_clip)
    if bug == "divided by the private count":
        asked = make_round(features=2, record_clip=0.3, client_clip=2.0, records=1)
    if bug == "no client clip or ball":
        asked = make_round(features=2, record_clip=50.0, client_clip=0.01, records=1)
        monkeypatch.setattr(answers, "squared_limit", lambda clip: 1 << 100)
        monkeypatch.setattr(answers, "clip_rows", lambda rows, gain, bits: (rows * gain).astype(np.int64))
    moved = move(asked, [[record] for record in every_record(2, 2)])
    assert furthest(moved) > exact(release.record_radius("swap"))
    if bug == "no client clip or ball":
        assert max((moved**2).sum(axis=1)) > exact(release.clip)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    features=st.integers(1, 40),
    directions=st.integers(1, 12),
    log_size=st.integers(4, 9),
    records=st.integers(1, 30),
    own=st.integers(0, 30),
    clips=st.tuples(*(st.floats(-7, 5) for _ in range(3))),
    flip=st.sampled_from([0.05, 0.25, 0.45]),
    spread=st.sampled_from([1e-6, 0.03, 1.0]),
)
def test_a_random_search_finds_no_swap_beyond_the_radius(
    make_round: Callable[..., MeasuredRound],
    seed: int,
    features: int,
    directions: int,
    log_size: int,
    records: int,
    own: int,
    clips: tuple[float, float, float],
    flip: float,
    spread: float,
) -> None:
    rng = np.random.default_rng(seed)
    size, (lo, hi) = 1 << log_size, box(flip)
    clip, client_clip, record_clip = (2.0**x for x in clips)
    asked = make_round(
        rng.integers(-UNIT, UNIT, (3, features, directions)) >> int(rng.integers(0, 12)),
        rng.integers(-UNIT, UNIT, (3, features)),
        directions=directions,
        coordinates=size,
        seed=rng.bytes(32),
        public=rng.integers(lo, hi + 1, size),
        flip=flip,
        clip=clip,
        client_clip=client_clip,
        record_clip=record_clip,
        records=records,
    )
    others = np.rint(rng.normal(0, spread, (own, features)) * UNIT).astype(np.int32)
    ones = rng.choice(np.array([-UNIT, UNIT, 0, 7], dtype=np.int32), (12, features))
    ones[6:] = np.rint(rng.normal(0, spread, (6, features)) * UNIT)
    labels = rng.integers(0, 3, own + 12)
    worlds = []
    for one, label in zip(ones, labels[own:], strict=True):
        found = asked.answers(np.vstack((others, one[None])), np.append(labels[:own], label))
        worlds.append(asked.probabilities(found)[0].astype(np.int64))
    moved = np.array(worlds) - asked.public
    assert furthest(moved) <= exact(asked.release.record_radius("swap"))
    assert max((moved**2).sum(axis=1)) <= exact(clip)


@pytest.mark.parametrize(("features", "directions", "size"), [(1440, 128, 8192), (64, 4096, 4096)])
@pytest.mark.parametrize("seed", range(4))
def test_at_the_size_of_a_real_round_no_aimed_swap_goes_beyond_the_radius(
    make_round: Callable[..., MeasuredRound], seed: int, features: int, directions: int, size: int
) -> None:
    rng = np.random.default_rng(seed)
    classes, own = 10, 10

    def images(count: int) -> NDArray[np.float64]:
        rows = np.abs(rng.normal(size=(count, features)))
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

    rows = images(own + 3)
    labels = rng.integers(0, classes, own)
    # directions aimed at the difference of two images, and the rest of them random
    basis = rng.normal(size=(features, directions))
    basis[:, 0] = rows[own] - rows[own + 1]
    spread = np.linalg.qr(basis)[0] if directions <= features else basis / np.linalg.norm(basis, 2)
    weights = np.stack([spread] * classes)
    release = {"flip": 0.45, "clip": 1.3, "client_clip": 0.1, "record_clip": 0.2, "records": own}
    asked = make_round(
        np.rint(weights * UNIT).astype(np.int64),
        np.rint(images(classes) * UNIT).astype(np.int64),
        directions=directions,
        coordinates=size,
        dimension=114_824,
        seed=rng.bytes(32),
        **release,
    )
    quantised = quantise_features(rows)
    worlds = [
        (np.vstack((quantised[: own - 1], one[None])), np.append(labels[: own - 1], label))
        for one in (*quantised[own - 1 :], *(-quantised[own:]))
        for label in (0, 7)
    ]
    moved = np.concatenate(
        [asked.probabilities(asked.answers(*world)).astype(np.int64) - asked.public for world in worlds]
    )
    limit = exact(asked.release.record_radius("swap"))
    assert limit / 16 < furthest(moved) <= limit
    assert max((moved**2).sum(axis=1)) <= exact(1.3)


def test_without_the_slack_rounding_alone_breaks_the_bound(make_round: Callable[..., MeasuredRound]) -> None:
    # On one direction all 1,024 coordinates move alike, by half a thousandth of a unit a record: the 1,024th
    # or so takes all of them across a unit at once.
    asked = make_round(
        [[[UNIT]]],
        [[0]],
        directions=1,
        coordinates=1024,
        clip=1.0,
        client_clip=1.0,
        record_clip=2.0**-20,
        records=512,
    )
    release = asked.release
    moved = move(asked, [[((UNIT,), 0)] * count for count in range(1000, 1050)])
    furthest_step = max(int(total) for total in (np.diff(moved, axis=0) ** 2).sum(axis=1))
    assert furthest_step == 1024
    assert furthest_step > 900 * exact(release.record_radius("add_remove") - release.slack)
    assert furthest_step <= exact(release.record_radius("add_remove"))


def slow_probabilities(asked: MeasuredRound, records: list[tuple[tuple[int, ...], int]]) -> list[Any]:
    """p in units of 2^-24 by the formulas, in 60 digits, without a rounding."""
    release, embedding = asked.release, asked.embedding
    total = [mpmath.mpf(0)] * release.directions
    for features, label in records:
        answer = [
            mpmath.mpf(
                sum(
                    (x - int(m)) * int(v)
                    for x, m, v in zip(
                        features,
                        asked.directions.reference[label],
                        asked.directions.weights[label][:, j],
                        strict=True,
                    )
                )
            )
            / 2**40
            for j in range(release.directions)
        ]
        norm = mpmath.sqrt(sum(x * x for x in answer))
        factor = min(mpmath.mpf(1), release.record_clip / norm) if norm else mpmath.mpf(1)
        total = [t + factor * x for t, x in zip(total, answer, strict=True)]
    mean = [t / release.records for t in total]
    norm = mpmath.sqrt(sum(x * x for x in mean))
    factor = min(mpmath.mpf(1), release.client_clip / norm) if norm else mpmath.mpf(1)
    lo, hi = box(release.flip)
    found = []
    for i in range(release.coordinates):
        step = sum(
            int(embedding.signs[j, i]) * factor * mean[j] for j in range(release.directions)
        ) / mpmath.sqrt(release.coordinates)
        p = int(asked.public[i]) + step * release.clip / release.client_clip * SCALE
        found.append(min(max(p, mpmath.mpf(lo)), mpmath.mpf(hi)))
    return found


@pytest.mark.parametrize("name", ROUNDS)
def test_the_probabilities_are_those_of_the_formulas_within_one_unit(
    make_round: Callable[..., MeasuredRound], name: str
) -> None:
    asked = make_round(**ROUNDS[name])
    rng = np.random.default_rng(11)
    types = every_record(3, 2)
    release = asked.release
    # a response is exact to a unit of 2^-30 in each direction, and its clip to one of c 2^-30
    a = 5 / release.records * math.sqrt(2) * (1 + release.record_clip) * 2.0**-RESPONSE_BITS
    room = SCALE * release.clip / release.client_clip * a * math.sqrt(2 / release.coordinates)
    assert room < 1
    with mpmath.workdps(60):
        for size in (0, 1, 3, 5):
            records = [types[i] for i in rng.integers(0, len(types), size)]
            got = move(asked, [records])[0]
            for units, wanted, centre in zip(
                got, slow_probabilities(asked, records), asked.public, strict=True
            ):
                real = wanted - int(centre)
                assert abs(units) <= abs(real) + room
                assert abs(real - int(units)) <= 1 + room
