"""Directions along rows of one basis: exact, from one record alone, and what does not fit is refused."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from prism_privacy import InvalidParameter
from prism_privacy.measured import (
    Directions,
    HadamardEmbedding,
    MeasuredRelease,
    MeasuredRound,
    RowDirections,
)

D, R, K, COUNT = 24, 5, 3, 7
UNIT = 1 << 20


def asked(seed: int = 0, scale: float = 1.0) -> RowDirections:
    draw = np.random.default_rng(seed)
    basis = np.linalg.qr(draw.standard_normal((D, R)))[0].T * scale
    return RowDirections.of(
        basis, draw.integers(0, R, COUNT), draw.uniform(-1, 1, (K, COUNT)), draw.uniform(-0.3, 0.3, (K, D))
    )


def round_of(directions: Any, **changes: Any) -> MeasuredRound:
    release = MeasuredRelease(
        flip=0.3, clip=0.5, client_clip=0.4, record_clip=0.6, records=10, coordinates=64, directions=COUNT
    )
    embedding = HadamardEmbedding(bytes(32), dimension=80, size=64, directions=COUNT)
    return MeasuredRound(
        replace(release, **changes), directions, embedding, np.full(64, 1 << 23), "federation", 1
    )


def toward_zero(value: Fraction) -> int:
    size = abs(value)
    return (size.numerator // size.denominator) * (1 if value > 0 else -1)


def test_each_response_is_the_exact_product_rounded_twice_toward_zero() -> None:
    directions, draw = asked(), np.random.default_rng(1)
    features = draw.integers(-UNIT, UNIT + 1, (20, D))
    for label in range(K):
        found = directions.responses(features, label)
        for record in range(20):
            for j in range(COUNT):
                row = directions.basis[directions.rows[j]]
                residual = features[record] - directions.reference[label]
                product = sum(int(a) * int(b) for a, b in zip(row, residual, strict=True))
                once = toward_zero(Fraction(product, 1 << 10))
                twice = toward_zero(Fraction(once * int(directions.by_class[label, j]), 1 << 20))
                assert found[record, j] == twice


def test_they_are_the_dense_directions_up_to_rounding() -> None:
    rows, draw = asked(), np.random.default_rng(2)
    dense = np.stack([rows.by_class[c] * rows.basis[rows.rows].T for c in range(K)]) / UNIT**2
    whole = Directions.of(dense, rows.reference / UNIT)
    features, labels = draw.integers(-UNIT, UNIT + 1, (50, D)).astype(np.int32), draw.integers(0, K, 50)
    ours, theirs = (round_of(each).answers(features, labels) for each in (rows, whole))
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()
    assert np.abs(theirs).max() > 1 << 30
    assert round_of(rows).digest != round_of(whole).digest


@pytest.mark.parametrize("aim", ["null space", "large"])
def test_other_records_answer_the_same_bits_whatever_stands_beside_them(aim: str) -> None:
    """Where a server aims at the null space of the others, floats would leave rounding that tells of rows."""
    draw = np.random.default_rng(3)
    others = draw.integers(-UNIT, UNIT + 1, (D - 1, D))
    if aim == "null space":
        *_, axes = np.linalg.svd(others.astype(float))
        directions = RowDirections.of(
            axes[-1:] / np.abs(axes[-1]).max(), np.zeros(COUNT, int), np.ones((1, COUNT)), np.zeros((1, D))
        )
    else:
        directions = RowDirections.of(
            np.full((1, D), 1.0), np.zeros(COUNT, int), np.ones((1, COUNT)), np.zeros((1, D))
        )
    target = draw.integers(-UNIT, UNIT + 1, (2, D))
    for place in (0, 5, D - 1):
        found = [
            np.delete(directions.responses(np.insert(others, place, each, axis=0), 0), place, axis=0)
            for each in target
        ]
        assert np.array_equal(*found)
        alone = np.concatenate([directions.responses(each[None], 0) for each in others])
        assert np.array_equal(found[0], alone)


def test_the_largest_numbers_that_are_taken_do_not_overflow() -> None:
    """At the very edge of both checks, against integers of any length."""
    limit, entry = 1 << 20, (1 << 53) // (2 * (1 << 20))
    factor = ((1 << 72) // (2 * limit * entry)) & ~1
    for sign in (1, -1):
        directions = RowDirections(
            np.full((1, 2), sign * entry), np.zeros(1, int), np.array([[-factor]]), np.zeros((1, 2), int)
        )
        found = directions.responses(np.full((1, 2), limit), 0)
        exact = toward_zero(
            Fraction(toward_zero(Fraction(2 * limit * entry * sign, 1 << 10)) * -factor, UNIT)
        )
        assert found.tolist() == [[exact]]
    with pytest.raises(InvalidParameter, match="at most 2\\^53"):
        RowDirections(
            np.full((1, 2), entry + 1), np.zeros(1, int), np.ones((1, 1), int), np.zeros((1, 2), int)
        )
    with pytest.raises(InvalidParameter, match="at most 2\\^72"):
        RowDirections(
            np.full((1, 2), entry), np.zeros(1, int), np.full((1, 1), factor + 2), np.zeros((1, 2), int)
        )


@pytest.mark.parametrize("part", ["basis", "rows", "by_class", "reference", "limit"])
def test_everything_is_in_the_digest(part: str) -> None:
    directions = asked()
    if part == "limit":
        other = replace(directions, limit=directions.limit - 1)
    else:
        array = np.array(getattr(directions, part))
        array.flat[0] = (array.flat[0] + 1) % R
        other = replace(directions, **{part: array})
    assert round_of(directions).digest == round_of(asked()).digest != round_of(other).digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": np.array([R] * COUNT)}, r"rows must lie in \[0, 5\)"),
        ({"rows": np.array([-1] * COUNT)}, r"rows must lie in \[0, 5\)"),
        ({"rows": np.zeros(0, int), "by_class": np.zeros((K, 0), int)}, "1 to 4096 directions"),
        ({"rows": np.zeros(4097, int), "by_class": np.zeros((K, 4097), int)}, "1 to 4096 directions"),
        ({"by_class": np.zeros((K, COUNT + 1), int)}, r"by_class must have the shape \(any, 7\)"),
        ({"reference": np.zeros((K, D + 1), int)}, "reference must have the shape"),
        ({"basis": np.zeros((R, D))}, "basis must hold integers"),
        ({"limit": 1 << 70, "basis": np.zeros((R, D), int)}, "limit must be at most 2\\^30"),
        ({"limit": 0}, "limit"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        replace(asked(), **change)


@pytest.mark.parametrize("name", ["basis", "by_class", "reference"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 2.0**21])
def test_real_numbers_that_are_no_numbers_are_refused(name: str, value: float) -> None:
    parts = {"basis": np.ones((1, 2)), "by_class": np.ones((1, 1)), "reference": np.zeros((1, 2))}
    parts[name] = np.full_like(parts[name], value)
    with pytest.raises(InvalidParameter, match=f"{name} must be finite"):
        RowDirections.of(parts["basis"], [0], parts["by_class"], parts["reference"])
