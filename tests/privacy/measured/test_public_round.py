"""Everything public is checked before data are read, and bound into one digest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from prism_privacy import CoinSecret, InvalidParameter, RandomizedResponse, release_bits
from prism_privacy.masks.fixed_point import box
from prism_privacy.measured import Directions, HadamardEmbedding, MeasuredRelease, MeasuredRound

Make = Callable[..., MeasuredRound]
SECRET = CoinSecret.for_test(bytes(range(32)))
SIDE = np.arange(12).reshape(2, 3, 2) * 1000


def changed(values: Any, place: tuple[int, ...]) -> Any:
    other = np.array(values)
    other[place] += 1
    return other


CHANGES: dict[str, dict[str, Any]] = {
    "one entry of V by one unit": {"weights": changed(SIDE, (1, 2, 1))},
    "V of another shape with the same bytes": {"weights": SIDE.reshape(2, 2, 3), "directions": 3},
    "one entry of m by one unit": {"reference": changed(np.zeros((2, 3), int), (0, 1))},
    "the range of features": {"limit": (1 << 20) - 1},
    "the seed of E": {"seed": bytes(31) + b"\1"},
    "the mask's dimension": {"dimension": 40},
    "m": {"coordinates": 32, "public": [1 << 23] * 32},
    "p_t by one unit": {"public": [*[1 << 23] * 15, (1 << 23) + 1]},
    "f": {"flip": 0.2500000001},
    "C": {"clip": np.nextafter(0.5, 1)},
    "A": {"client_clip": 0.41},
    "c": {"record_clip": 0.51},
    "N": {"records": 4},
    "the round": {"round": 2},
    "the federation": {"federation": "tes"},
}


def plain(make_round: Make, **change: Any) -> MeasuredRound:
    return make_round(**({"weights": SIDE, "reference": np.zeros((2, 3), int), "dimension": 39} | change))


@pytest.mark.parametrize("name", CHANGES)
def test_whatever_public_changes_changes_the_digest_and_the_coins(make_round: Make, name: str) -> None:
    change = CHANGES[name]
    if name.startswith("V of another shape"):
        change = change | {"reference": np.zeros((2, 2), int)}
    one, other = plain(make_round), plain(make_round, **change)
    assert one.digest == plain(make_round).digest
    assert len(one.digest) == 32
    assert one.digest != other.digest
    half = np.full(256, 1 << 23, dtype=np.uint32)
    bits = [release_bits(half, SECRET.stream("test", 1, asked.digest, "mask")) for asked in (one, other)]
    assert 80 < int((bits[0] != bits[1]).sum()) < 176


def test_all_digests_differ_from_each_other(make_round: Make) -> None:
    changes = [c for name, c in CHANGES.items() if not name.startswith("V of another")]
    assert len({plain(make_round, **change).digest for change in changes}) == len(changes)


def test_what_each_party_assumes_for_itself_is_not_in_the_digest(make_round: Make) -> None:
    assumed = plain(make_round, cohort=3, sum_failure=2**-40, sigma_max=1.5)
    assert assumed.digest == plain(make_round).digest


def test_the_digest_is_of_values_not_of_dtypes_or_layout(make_round: Make) -> None:
    other = plain(
        make_round,
        weights=np.asfortranarray(SIDE.astype(np.uint16)),
        public=np.full(16, 1 << 23, dtype=np.uint32),
        records=np.int32(3),
        round=np.int64(1),
    )
    assert other.digest == plain(make_round).digest


def test_the_digest_and_the_embedding_are_those_of_the_vector() -> None:
    # what every party computes: a change here is a change of the protocol and needs another version string
    embedding = HadamardEmbedding(b"7" * 32, dimension=50, size=16, directions=2)
    assert embedding.coordinates.tolist() == [3, 5, 7, 14, 17, 18, 23, 24, 27, 28, 29, 32, 42, 43, 46, 49]
    assert ["".join("-+"[int(x > 0)] for x in row) for row in embedding.signs] == [
        "-+--+----++-+---",
        "-+---+++-++--+++",
    ]
    release = MeasuredRelease(0.25, 0.5, 0.4, 0.5, 3, 16, 2)
    asked = MeasuredRound(release, Directions(SIDE, SIDE[:, :, 0]), embedding, np.full(16, 1 << 23), "x", 1)
    assert asked.digest.hex() == "72b9b32c8b7c49141fa5e9386a99c97135c479776ab0e19670b497fce374cad6"


def test_public_values_are_copies_that_nobody_can_change(make_round: Make) -> None:
    weights = SIDE.astype(np.int64)
    asked = plain(make_round, weights=weights)
    digest = asked.digest
    weights[0, 0, 0] += 1
    assert asked.directions.weights[0, 0, 0] == 0
    for array in (
        asked.directions.weights,
        asked.directions.reference,
        asked.public,
        asked.embedding.signs,
        asked.embedding.coordinates,
    ):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    assert replace(asked).digest == digest


BAD: dict[str, dict[str, Any]] = {
    "V of floats": {"weights": SIDE * 1.0},
    "V without classes": {"weights": SIDE[0]},
    "V of another k": {"weights": SIDE[:, :, :1]},
    "V empty": {"weights": SIDE[:, :0], "reference": np.zeros((2, 0), int)},
    "V too large for exact products": {"weights": SIDE + (1 << 33)},
    "V of the least int64": {"weights": np.full((2, 3, 2), -(1 << 63))},
    "V beyond int64": {"weights": np.full((2, 3, 2), (1 << 64) - 1, dtype=np.uint64)},
    "m of another D": {"reference": np.zeros((2, 4), int)},
    "m of another K": {"reference": np.zeros((3, 3), int)},
    "m of floats": {"reference": np.zeros((2, 3))},
    "m too large": {"reference": np.full((2, 3), 1 << 40)},
    "m of the least int64": {"reference": np.full((2, 3), -(1 << 63))},
    "a range too large": {"limit": 1 << 50},
    "no range": {"limit": 0},
    "p_t below the box": {"public": [box(0.25)[0] - 1] * 16},
    "p_t above the box": {"public": [box(0.25)[1] + 1] * 16},
    "p_t of another m": {"public": [1 << 23] * 15},
    "p_t of floats": {"public": [0.5] * 16},
    "no federation": {"federation": ""},
    "no string": {"federation": b"x"},
    "a round below zero": {"round": -1},
    "a round of a fraction": {"round": 1.0},
    "a round beyond 2^63": {"round": 1 << 63},
    "m no power of two": {"coordinates": 12, "public": [1 << 23] * 12},
    "m above d": {"dimension": 15},
    "k above m": {"coordinates": 1, "public": [1 << 23]},
    "a short seed": {"seed": bytes(31)},
}


@pytest.mark.parametrize("name", BAD)
def test_bad_public_values_are_refused_before_there_is_any_data(make_round: Make, name: str) -> None:
    with pytest.raises(InvalidParameter):
        plain(make_round, **BAD[name])


def test_parts_of_two_rounds_do_not_make_one(make_round: Make) -> None:
    one, other = make_round(), make_round(coordinates=32, public=[1 << 23] * 32)
    with pytest.raises(InvalidParameter, match="same coordinates"):
        replace(one, embedding=other.embedding)
    with pytest.raises(InvalidParameter, match="directions"):
        replace(one, directions=make_round(directions=1).directions)


def test_the_largest_allowed_range_is_exact_and_one_more_is_refused(make_round: Make) -> None:
    reference = np.full((2, 3), -(1 << 20))
    most = (1 << 53) // (3 * (1 << 21))
    asked = make_round(np.full((2, 3, 2), most), reference)
    features = np.full((1, 3), 1 << 20, dtype=np.int32)
    answer = asked.real(asked.answers(features, np.array([0])))
    assert np.isfinite(answer).all()
    with pytest.raises(InvalidParameter, match="exact"):
        make_round(np.full((2, 3, 2), most + 1), reference)


def test_nothing_in_a_record_raises_or_warns(make_round: Make) -> None:
    asked = make_round(clip=0.5, record_clip=1e-9, client_clip=1e-9, records=1)
    wild = np.array([[-(1 << 31)] * 3, [(1 << 31) - 1] * 3, [0, 1, -1], [0, 0, 0]], dtype=np.int32)
    for features in (wild, wild.astype(np.int64) << 31):
        for labels in ([0, 1, 0, 1], [-1, 2, 1 << 40, -(1 << 63)], [1, 1, 1, 1]):
            p = asked.probabilities(asked.answers(features, np.array(labels)))
            assert p.shape == (1, 16)
    outside = asked.answers(wild, np.array([-1, 2, 1 << 40, -(1 << 63)]))
    assert not outside.any()
    inside = np.clip(wild, -(1 << 20), 1 << 20)
    labels = np.array([0, 1, 0, 1])
    assert np.array_equal(asked.answers(wild, labels), asked.answers(inside, labels))


NONE_OF_A_CLASS = [2**63, 2**64, 10**400, -(2**63) - 1, -1, 2, 0.5, np.nan, np.inf, None, "0", [0]]


@pytest.mark.parametrize("strange", NONE_OF_A_CLASS)
def test_a_label_of_a_list_that_is_none_answers_0_and_moves_no_other(make_round: Make, strange: Any) -> None:
    asked = make_round()
    features = np.array([[1 << 20, 0, 0], [0, -(1 << 19), 5]], dtype=np.int32)
    with_it = asked.answers(features, [1, strange], [0, 1], 2)
    assert not with_it[1].any()
    assert np.array_equal(with_it[0], asked.answers(features[:1], np.array([1]))[0])


@pytest.mark.parametrize("strange", NONE_OF_A_CLASS)
def test_a_person_of_a_list_joins_or_parts_no_others_and_never_raises(make_round: Make, strange: Any) -> None:
    """As floats, which NumPy would make of some of these lists, 2^53 and 2^53 + 1 were one person."""
    asked = make_round(record_clip=2.0**-10, client_clip=0.4)
    features = np.array([[1 << 20, 0, 0], [0, -(1 << 19), 5], [7, 7, 7]], dtype=np.int32)
    features[2] = features[0]
    others = [2**53, 2**53 + 1]
    alone = asked.answers(features[:2], LABELS[:2], persons=np.array(others))
    there = asked.answers(features, [0, 0, -1], persons=[*others, strange])
    assert np.array_equal(there, alone)  # the third record answers 0


def test_persons_beyond_int64_are_the_persons_that_their_numbers_say(make_round: Make) -> None:
    asked = make_round(record_clip=2.0**-10, client_clip=0.4)
    big = np.array([2**63, 2**63, 2**64 - 1, 5], dtype=np.uint64)
    features = np.array([[1 << 20, 0, 0], [0, 5, 5], [9, 9, 1 << 18], [1, 2, 3]], dtype=np.int32)
    small = asked.answers(features, LABELS, persons=np.array([0, 0, 1, 2]))
    assert np.array_equal(asked.answers(features, LABELS, persons=big), small)
    assert np.array_equal(asked.answers(features, LABELS, persons=big.tolist()), small)


def test_a_client_without_records_says_the_public_point(make_round: Make) -> None:
    asked = make_round(public=np.arange(16) + (1 << 23))
    nothing = np.zeros((0, 3), dtype=np.int32)
    p = asked.probabilities(asked.answers(nothing, np.zeros(0, dtype=np.int64), clients=2))
    assert np.array_equal(p, np.tile(asked.public, (2, 1)))


ROWS = np.zeros((4, 3), dtype=np.int32)
LABELS = np.zeros(4, dtype=np.int64)


@pytest.mark.parametrize(
    "wrong",
    [
        (ROWS[:, :2], LABELS),
        (ROWS.astype(np.float32), LABELS),
        (ROWS[0], LABELS),
        (ROWS, LABELS[:3]),
        (ROWS, LABELS * 1.0),
        (ROWS, LABELS, [0, 0, 0, 1], 1),
        (ROWS, LABELS, [0, 0, 0, -1], 2),
        (ROWS, LABELS, [0, 0, 0], 1),
        (ROWS, LABELS, None, 0),
        (ROWS, LABELS, None, 1, [1, 2]),
        (ROWS, LABELS, None, 1, LABELS + 0.5),
    ],
)
def test_shapes_that_do_not_fit_are_refused(make_round: Make, wrong: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidParameter):
        make_round().answers(*wrong)


@pytest.mark.parametrize(
    "wrong", [np.zeros(2, np.int64), np.zeros((1, 3), np.int64), np.zeros((1, 2)), [[0, 0]]]
)
def test_probabilities_of_what_is_no_answer_are_refused(make_round: Make, wrong: Any) -> None:
    with pytest.raises(InvalidParameter, match="answers"):
        make_round().probabilities(wrong)


def test_bits_of_a_round_come_from_theta_s_public_point(make_round: Make) -> None:
    theta = np.random.default_rng(0).uniform(0.2, 0.8, 19)
    embedding = HadamardEmbedding(bytes(32), 19, 16, 2)
    public = RandomizedResponse(0.25).public_point(theta)[embedding.coordinates]
    asked = make_round(dimension=19, public=public)
    assert np.array_equal(asked.embedding.coordinates, embedding.coordinates)
    p = asked.probabilities(asked.answers(ROWS, LABELS))
    bits = release_bits(p[0], SECRET.stream("test", 1, asked.digest, "mask"))
    assert bits.shape == (16,)


def test_directions_from_real_numbers_are_rounded_to_the_nearest_unit() -> None:
    asked = Directions.of(np.array([[[0.5, -1 / 3]]]), np.array([[0.25]]), limit=2.0)
    assert asked.weights.tolist() == [[[1 << 19, -349525]]]
    assert asked.reference.tolist() == [[1 << 18]]
    assert asked.limit == 1 << 21
    assert (asked.weights / 2.0**20).tolist() == [[[0.5, -349525 / 2**20]]]
    assert (asked.reference / 2.0**20).tolist() == [[0.25]]
    for wrong in (np.array([[[np.nan]]]), np.array([[[np.inf]]]), np.array([[[2.0**21]]]), np.array([[[1]]])):
        with pytest.raises(InvalidParameter, match="weights"):
            Directions.of(wrong, np.array([[0.0]]))


def test_a_release_of_another_size_is_refused_with_both_sizes(make_round: Make) -> None:
    asked = make_round()
    values = asked.release.as_dict() | {"coordinates": 32}
    with pytest.raises(InvalidParameter, match=r"\(32, 2\) and \(16, 2\)"):
        replace(asked, release=MeasuredRelease(**values))  # type: ignore[arg-type]
