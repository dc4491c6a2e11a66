"""A server that knows every other record and aims at one finds nothing in the others' answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from prism_privacy import InvalidParameter
from prism_privacy.masks.fixed_point import SCALE
from prism_privacy.measured import Directions, MeasuredRound, answers, integers, quantise_features
from prism_privacy.measured.integers import (
    EXACT,
    RESPONSE_BITS,
    clip_rows,
    squared_norms,
    sums_by,
    toward_zero,
)
from prism_privacy.measured.records import clip_responses, record_responses

UNIT = 1 << 20
FEATURES, DIRECTIONS, OTHERS, CLASSES = 96, 8, 60, 2


def unit_rows(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    rows = rng.normal(size=(count, FEATURES))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def aimed(residuals: NDArray[np.float64], largest: int) -> NDArray[np.int64]:
    """Integer directions, as large as allowed, nearly orthogonal to every residual the server knows."""
    null = np.linalg.svd(residuals)[2][len(residuals) :][:DIRECTIONS].T
    return np.rint(null / np.abs(null).max() * largest).astype(np.int64)


@pytest.fixture
def attack(
    make_round: Callable[..., MeasuredRound],
) -> tuple[MeasuredRound, NDArray[np.int32], NDArray[np.int64]]:
    """A round aimed at one record, and the other records, all of them of class 0."""
    rng = np.random.default_rng(3)
    features = quantise_features(unit_rows(rng, OTHERS))
    reference = quantise_features(unit_rows(rng, CLASSES)).astype(np.int64)
    largest = EXACT // (FEATURES * (UNIT + int(np.abs(reference).max())))
    weights = aimed((features - reference[0]) / UNIT, largest)
    asked = make_round(
        np.stack((weights, -weights)),
        reference,
        directions=DIRECTIONS,
        coordinates=64,
        record_clip=0.01,
        client_clip=0.02,
        records=OTHERS + 1,
    )
    return asked, features, np.zeros(OTHERS, dtype=np.int64)


def victims() -> list[tuple[NDArray[np.int32], int]]:
    rng = np.random.default_rng(4)
    wild = np.array([np.nan, np.inf, -np.inf, 1e38, -1e38, 0.0] * (FEATURES // 6), dtype=np.float32)
    rows = [*unit_rows(rng, 4), np.ones(FEATURES), -np.ones(FEATURES), np.zeros(FEATURES), wild]
    return [(quantise_features(np.asarray(row)), label) for row in rows for label in (0, 1, -5, 1 << 40)]


def test_every_other_response_is_the_same_bits_whatever_one_image_is_and_wherever_it_stands(
    attack: tuple[MeasuredRound, NDArray[np.int32], NDArray[np.int64]],
) -> None:
    asked, features, labels = attack
    alone = np.concatenate(
        [record_responses(asked.directions, features[i : i + 1], labels[i : i + 1]) for i in range(OTHERS)]
    )
    alone = clip_responses(alone, asked.release.record_gain)
    assert np.abs(alone).max() > 0  # the rounding of V is left: the server did not miss
    for one, label in victims():
        for place in (0, 1, 31, OTHERS):
            rows, classes = np.insert(features, place, one, axis=0), np.insert(labels, place, label)
            responses = record_responses(asked.directions, rows, classes)
            clipped = clip_responses(responses, asked.release.record_gain)
            assert np.array_equal(np.delete(clipped, place, axis=0), alone)
    order = np.random.default_rng(0).permutation(OTHERS)
    shuffled = record_responses(asked.directions, np.tile(features[order], (90, 1)), np.tile(labels, 90))
    assert np.array_equal(clip_responses(shuffled, asked.release.record_gain)[-OTHERS:], alone[order])


def test_under_the_attack_p_moves_within_the_radius(
    attack: tuple[MeasuredRound, NDArray[np.int32], NDArray[np.int64]],
) -> None:
    asked, features, labels = attack
    worlds = np.concatenate(
        [
            asked.probabilities(asked.answers(np.vstack((one[None], features)), np.append(label, labels)))
            for one, label in victims()
        ]
    ).astype(np.int64)
    moved = max(int(((worlds - world) ** 2).sum(axis=1).max()) for world in worlds)
    radius = asked.release.record_radius("swap")
    assert moved <= (Fraction(radius) * SCALE) ** 2
    assert moved > (Fraction(radius) * SCALE) ** 2 / 2  # it is an attack: the victim's own move is nearly all


def float_answers(features: NDArray[np.float32], weights: NDArray[np.float32], clip: float) -> Any:
    """The client as it must not be: float32, each row summed in the order that its place in a tile gives.

    Matrix products do just that at the edges of their tiles: with OpenBLAS the same attack finds 1 to 3 times
    the bound at random directions.
    """
    total = np.empty((len(features), weights.shape[1]), dtype=np.float32)
    for place, row in enumerate(features):
        order = np.roll(np.arange(len(row)), -7 * (place % 4))
        total[place] = np.cumsum(row[order, None] * weights[order], axis=0, dtype=np.float32)[-1]
    norm = np.linalg.norm(total.astype(np.float64), axis=1, keepdims=True)
    return total * np.minimum(1.0, clip / np.maximum(norm, 1e-300))


def test_a_float_client_breaks_the_bound_many_times_over_and_the_integers_do_not() -> None:
    rng, clip = np.random.default_rng(5), 0.3
    features = unit_rows(rng, OTHERS).astype(np.float32)
    victim = unit_rows(rng, 1).astype(np.float32)
    # Products go class by class: where the victim is of another class, the others' rows move up.
    first, second = np.vstack((victim, features)), features
    found = []
    for null in np.linalg.svd(features.astype(np.float64))[2][OTHERS:]:
        weights = (null[:, None] * 2.0**60).astype(np.float32)
        here, there = float_answers(first, weights, clip)[1:], float_answers(second, weights, clip)
        found.append(float(np.linalg.norm((here - there).sum(axis=0))) / (2 * clip))
        whole = Directions.of(null[None, :, None], np.zeros((1, FEATURES)))
        exact_here, exact_there = (
            clip_responses(
                record_responses(whole, quantise_features(rows), np.zeros(len(rows), dtype=np.int64)),
                1 / clip,
            )
            for rows in (first, second)
        )
        assert np.array_equal(exact_here[1:], exact_there)
    # the server, which knows the others, takes the direction that shows most
    assert max(found) > 5


def test_a_call_for_many_clients_gives_each_the_bits_of_a_call_of_its_own(
    make_round: Callable[..., MeasuredRound], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(6)
    for values in ({}, {"clip": 3.0, "client_clip": 0.1}, {"record_clip": 1e-3}):
        asked = make_round(classes=3, features=20, directions=5, coordinates=1 << 12, **values)
        counts = rng.integers(0, 12, 40)
        owners = np.repeat(np.arange(40), counts)
        features = quantise_features(rng.normal(0, 0.4, (len(owners), 20)))
        labels = rng.integers(0, 3, len(owners))
        order = rng.permutation(len(owners))
        together = asked.answers(features[order], labels[order], owners[order], 40)
        monkeypatch.setattr(answers, "_CELLS", 7 << 12)  # blocks of seven clients
        moved = asked.probabilities(together)
        for client in range(40):
            own = owners == client
            alone = asked.answers(features[own], labels[own])
            assert np.array_equal(alone[0], together[client])
            assert np.array_equal(asked.probabilities(alone)[0], moved[client])


def test_a_person_with_many_records_moves_no_further_than_one_record(
    make_round: Callable[..., MeasuredRound],
) -> None:
    asked = make_round([[[UNIT], [0]], [[UNIT], [0]]], [[0, 0], [0, 0]], directions=1, client_clip=2.0)
    features = np.array([[UNIT, 0]] * 20 + [[-UNIT, 0]], dtype=np.int32)
    labels, persons = np.zeros(21, dtype=np.int64), np.array([7] * 20 + [3])
    other = np.where(features == UNIT, -UNIT, features)
    here, there = (
        asked.probabilities(asked.answers(rows, labels, persons=persons)).astype(np.int64)
        for rows in (features, other)
    )
    limit = (Fraction(asked.release.record_radius("swap")) * SCALE) ** 2
    assert limit * Fraction(99, 100) < int(((here - there) ** 2).sum()) <= limit
    bare = asked.probabilities(asked.answers(features, labels)).astype(np.int64)
    assert int(((bare - there) ** 2).sum()) > 4 * limit  # without the person's clip it would be 20 records
    # a person in two clients is two persons
    split = asked.answers(features, labels, np.arange(21) % 2, 2, persons)
    assert (split[0] == asked.answers(features[::2], labels[::2], persons=persons[::2])[0]).all()


def test_a_clipped_response_is_within_c_exactly_at_every_rounding_of_the_norm() -> None:
    rng = np.random.default_rng(7)
    ball = 1 << (2 * RESPONSE_BITS)
    for count in (1, 2, 3, 50, 4096):
        rows = np.concatenate(
            [rng.integers(-(1 << bits), (1 << bits) + 1, (400, count)) for bits in (1, 20, 30, 31, 43, 52)]
        )
        for gain in (2.0**-10, 1.0, 1 / 3, 2.0**20):
            clipped = clip_responses(rows, gain)
            totals = [sum(x * x for x in row) for row in clipped[::37].tolist()]
            assert max(totals) <= ball
            # toward zero, and no shorter than rounding makes it
            norms = np.maximum(np.linalg.norm(rows[::37] * 1.0, axis=1), 0.5)
            wanted = rows[::37] * np.minimum(gain, 2.0**RESPONSE_BITS / norms)[:, None]
            assert (np.abs(clipped[::37]) <= np.abs(wanted) * (1 + 1e-12)).all()
            assert (np.abs(clipped[::37] - wanted) <= 1 + 2.0**-9).all()


def test_a_sum_beyond_the_exact_range_is_clipped_like_any_other() -> None:
    # a person with so many records, say: no error, no longer than the ball, and in the same direction
    rows = np.array([[1 << 62, -(1 << 62)], [1 << 62, 1], [-(1 << 63) + 1, 0]])
    clipped = clip_responses(rows, 1.0)
    assert ((clipped**2).sum(axis=1) <= 1 << 60).all()
    assert ((clipped**2).sum(axis=1) > (1 << 60) * (1 - 2.0**-20)).all()
    assert (np.sign(clipped) * np.sign(rows) >= 0).all()


@pytest.mark.parametrize("row", [[1 << 30, 1], [1 << 30, *[1] * 60], [-(1 << 30), 5, 3], [1, -2, 1 << 30, 0]])
def test_a_norm_that_floats_round_down_is_caught_in_integers(row: list[int]) -> None:
    rows = np.array([row, row], dtype=np.int64)
    assert (clip_rows(rows, 1.0, RESPONSE_BITS) == rows).all()  # 2^60 + 1 is 2^60 in binary64
    clipped = clip_responses(rows, 1.0)
    assert ((clipped**2).sum(axis=1) <= 1 << 60).all()
    assert (clipped**2).sum(axis=1).min() > (1 << 60) * (1 - 2.0**-28)


@pytest.mark.parametrize("size", [1, 5, 1024, 1025, 4096])
def test_squared_norms_are_those_of_python_integers(size: int) -> None:
    rng = np.random.default_rng(8)
    edge = 1 << 52
    rows = np.vstack((rng.integers(-edge, edge + 1, (20, size)), np.full((2, size), [[-edge], [edge - 1]])))
    for row, found in zip(rows.tolist(), squared_norms(rows), strict=True):
        truth = sum(x * x for x in row)
        assert abs(Fraction(float(found)) - truth) <= Fraction(truth, 1 << 50)
    order = rng.permutation(size)
    assert np.array_equal(squared_norms(rows[:, order]), squared_norms(rows))


def test_sums_are_exact_and_empty_groups_are_zero() -> None:
    rows = np.array([[1 << 60, 1], [1, 2], [-(1 << 60), 3]])
    assert sums_by(rows, np.array([2, 0, 2]), 4).tolist() == [[1, 2], [0, 0], [0, 4], [0, 0]]
    assert sums_by(rows[:0], np.zeros(0, dtype=np.int64), 2).tolist() == [[0, 0], [0, 0]]


def test_shifts_go_toward_zero() -> None:
    assert toward_zero(np.array([-1025, -1024, -1023, 1023, 1024]), 10).tolist() == [-1, -1, 0, 0, 1]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_no_feature_value_raises_and_each_is_rounded_by_itself(dtype: Any) -> None:
    with np.errstate(over="ignore"):
        row = np.array([np.nan, -np.nan, np.inf, -np.inf, 6e4, -6e4, 1e-7, -0.0, 0.5, 1 / 3], dtype=dtype)
        snan = np.array([0x7F800001], dtype=np.uint32).view(np.float32)
    units = quantise_features(row)
    assert units.dtype == np.int32
    assert units[:9].tolist() == [0, 0, UNIT, -UNIT, UNIT, -UNIT, 0, 0, UNIT // 2]
    assert abs(int(units[9]) - UNIT / 3) < UNIT * 2.0**-11
    assert quantise_features(snan).tolist() == [0]
    assert quantise_features(np.array([0.7, -0.7]), limit=0.3).tolist() == [math.floor(0.3 * UNIT)] * 1 + [
        -math.floor(0.3 * UNIT)
    ]
    assert np.array_equal(quantise_features(np.tile(row, (3, 1))), np.tile(units, (3, 1)))


@pytest.mark.parametrize("wrong", [np.array([1, 2]), np.array(["a"]), np.array([1j])])
def test_what_holds_no_floats_is_refused_by_its_dtype(wrong: Any) -> None:
    with pytest.raises(InvalidParameter, match="floats"):
        quantise_features(wrong)


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan, math.inf, 2000.0, 2.0**-21])
def test_a_range_that_is_no_range_is_refused(limit: float) -> None:
    with pytest.raises(InvalidParameter, match="limit"):
        quantise_features(np.zeros(1), limit)


def test_rounding_in_blocks_is_rounding_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(9).normal(size=(5, 7)).astype(np.float32)
    whole = quantise_features(rows)
    monkeypatch.setattr(integers, "_BLOCK", 4)
    assert np.array_equal(quantise_features(rows), whole)
    assert np.array_equal(quantise_features(rows.T), whole.T)
    assert np.array_equal(whole, np.rint(np.clip(rows.astype(np.float64), -1, 1) * UNIT))
