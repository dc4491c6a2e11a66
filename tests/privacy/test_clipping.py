"""What a client may say: in the box, near enough to the public point, never rounded away from it."""

import hashlib
import math
import os
import subprocess
import sys
import tracemalloc
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_privacy.errors import InvalidParameter
from prism_privacy.masks.clipping import clip_toward
from prism_privacy.masks.coins import CoinSecret, release_bits
from prism_privacy.masks.fixed_point import PIECE, SCALE, Computed
from prism_privacy.masks.randomized_response import RandomizedResponse

FLIPS = [0.0, 0.05, 0.1, 0.25, 0.4, 0.499]


@st.composite
def vectors(draw):
    size = draw(st.integers(1, 40))
    unit = st.floats(0, 1, allow_nan=False)
    values = draw(st.lists(unit, min_size=size, max_size=size))
    theta = draw(st.lists(unit, min_size=size, max_size=size))
    return np.array(values), np.array(theta)


def exact_norm_squared(k, centre):
    return sum((Fraction(int(a) - int(b), SCALE)) ** 2 for a, b in zip(k, centre, strict=True))


@given(vectors(), st.sampled_from(FLIPS), st.floats(1e-8, 8.0))
def test_the_norm_holds_exactly_and_every_coordinate_stays_in_the_box(pair, flip, clip):
    values, theta = pair
    response = RandomizedResponse(flip)
    lo, hi = response.box
    k = clip_toward(values, theta, flip=flip, clip=clip)
    assert k.dtype == np.uint32
    assert k.min() >= lo
    assert k.max() <= hi
    assert exact_norm_squared(k, response.public_point(theta)) <= Fraction(clip) ** 2


@given(vectors(), st.sampled_from(FLIPS), st.one_of(st.none(), st.floats(1e-3, 8.0)))
def test_rounding_goes_toward_the_public_point_and_is_at_most_one_unit(pair, flip, clip):
    values, theta = pair
    response = RandomizedResponse(flip)
    centre = response.public_point(theta).astype(np.int64)
    k = clip_toward(values, theta, flip=flip, clip=clip).astype(np.int64)
    wanted = np.clip(response.probabilities(values) * SCALE, *response.box) - centre
    norm = np.linalg.norm(wanted)
    if clip is not None and norm > clip * SCALE:
        wanted = wanted * (clip * SCALE / norm)
    slack = 1 + 1e-9 * np.abs(wanted) + 1e-6
    assert (np.abs(k - centre) <= np.abs(wanted) + 1e-6 * slack).all()
    assert (np.abs(k - centre - wanted) <= slack).all()
    assert ((k - centre) * wanted >= 0).all()


def test_a_client_that_agrees_with_the_broadcast_says_exactly_the_public_point():
    theta = np.random.default_rng(0).uniform(0.01, 0.99, 5000)
    for flip in FLIPS:
        centre = RandomizedResponse(flip).public_point(theta)
        for clip in (None, 1e-3, 1.0):
            assert np.array_equal(clip_toward(theta, theta, flip=flip, clip=clip), centre)
            scores = np.log(theta) - np.log1p(-theta)
            again = clip_toward(scores, theta, flip=flip, clip=clip, space="score", temperature=1.0)
            assert np.abs(again.astype(np.int64) - centre).max() == 0


def test_a_long_vector_at_the_clip_uses_nearly_all_of_it_and_never_more():
    rng = np.random.default_rng(1)
    values, theta = rng.random(200_000), rng.uniform(0.01, 0.99, 200_000)
    for clip in (0.01, 1.0, 30.0):
        k = clip_toward(values, theta, flip=0.25, clip=clip)
        centre = RandomizedResponse(0.25).public_point(theta)
        units = k.astype(object) - centre.astype(object)
        total = int((units * units).sum())
        limit = (Fraction(clip) * SCALE) ** 2
        assert total <= limit
        steps_lost = 200_000**0.5 / (clip * SCALE)
        assert total >= limit * (1 - Fraction(2 * steps_lost + 1e-9))


def test_a_norm_that_floats_round_down_is_caught_by_the_exact_check():
    # 16 equal moves: in floats scale * move is the clip exactly, in integers one unit more would exceed it
    for units in range(1, 200):
        clip = units / SCALE
        k = clip_toward(np.full(16, 1.0), np.full(16, 0.5), flip=0.0, clip=clip)
        steps = k.astype(np.int64) - SCALE // 2
        assert (steps**2).sum() <= units**2


def mp_logit(k):
    x = mpmath.mpf(int(k)) / SCALE
    return mpmath.log(x) - mpmath.log(1 - x)


@settings(max_examples=60)
@given(
    st.integers(1, 12).flatmap(
        lambda d: st.tuples(
            st.lists(st.floats(-60, 60), min_size=d, max_size=d),
            st.lists(st.floats(1e-6, 1 - 1e-6), min_size=d, max_size=d),
        )
    ),
    st.sampled_from(FLIPS),
    st.floats(1e-4, 50.0),
    st.sampled_from([0.1, 1.0, 3.0]),
)
def test_the_score_clip_bounds_the_logits_of_what_is_released(pair, flip, clip, temperature):
    scores, theta = (np.array(x) for x in pair)
    k = clip_toward(scores, theta, flip=flip, clip=clip, space="score", temperature=temperature)
    centre = np.clip(RandomizedResponse(flip).public_point(theta), 1, SCALE - 1)
    with mpmath.workdps(60):
        total = sum((mp_logit(a) - mp_logit(b)) ** 2 for a, b in zip(k, centre, strict=True))
        limit = ((1 - 2 * mpmath.mpf(flip)) * mpmath.mpf(clip)) ** 2
        assert total <= limit
    # what the accountant uses under the view of the sum
    assert exact_norm_squared(k, centre) <= (Fraction(clip) * (1 - 2 * Fraction(flip)) / 4) ** 2
    lo, hi = RandomizedResponse(flip).box
    assert k.min() >= lo
    assert k.max() <= hi


def test_the_score_clip_uses_nearly_all_of_its_budget_in_logits_at_flip_zero():
    rng = np.random.default_rng(2)
    theta = rng.uniform(0.2, 0.8, 50_000)
    scores = rng.normal(size=50_000) * 5
    k = (
        clip_toward(scores, theta, flip=0.0, clip=2.0, space="score", temperature=0.5).astype(np.float64)
        / SCALE
    )
    centre = RandomizedResponse(0.0).public_point(theta) / SCALE
    moved = np.log(k / (1 - k)) - np.log(centre / (1 - centre))
    assert 1.99 < np.linalg.norm(moved) <= 2.0


def test_a_score_clip_with_no_flip_keeps_every_probability_off_zero_and_one():
    k = clip_toward(
        np.array([5e4, -5e4]), np.array([0.5, 1e-7]), flip=0.0, clip=1e3, space="score", temperature=0.1
    )
    assert k.tolist() == [SCALE - 1, 1]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_any_float_comes_in_and_binary64_is_used_inside(dtype):
    rng = np.random.default_rng(5)
    values, theta = rng.random(1000).astype(dtype), rng.uniform(0.1, 0.9, 1000).astype(dtype)
    expected = clip_toward(values.astype(np.float64), theta.astype(np.float64), flip=0.1, clip=0.5)
    assert np.array_equal(clip_toward(values, theta, flip=0.1, clip=0.5), expected)


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float32", "float64"])
def test_tensors_of_any_float_are_widened_before_anything_is_computed(name):
    torch = pytest.importorskip("torch")
    dtype = getattr(torch, name)
    values = torch.linspace(0, 1, 101).to(dtype)
    theta = torch.full((101,), 0.3, dtype=dtype).clamp(0.01, 0.99)
    theta[0] = torch.tensor(1.0, dtype=dtype).clamp(0.01, 0.99)
    expected = clip_toward(values.double().numpy(), theta.double().numpy(), flip=0.1, clip=0.5)
    assert np.array_equal(clip_toward(values, theta, flip=0.1, clip=0.5, theta_min=0.01), expected)
    with pytest.raises(InvalidParameter, match="values must hold floats"):
        clip_toward(values.int(), theta, flip=0.1, clip=0.5)


def test_values_that_are_not_finite_are_refused_with_their_number_and_the_first_place():
    values = np.full(10, 0.5)
    values[[3, 7]] = np.nan, np.inf
    with pytest.raises(InvalidParameter, match=r"values must be finite: 2 of 10 .* index 3 \(nan\)"):
        clip_toward(values, np.full(10, 0.5), flip=0.1, clip=1.0)
    with pytest.raises(InvalidParameter, match=r"theta must be finite: 2 of 10"):
        clip_toward(np.full(10, 0.5), values, flip=0.1, clip=1.0)
    with pytest.raises(InvalidParameter, match=r"index \(1, 0\)"):
        clip_toward(np.array([[0.0], [np.nan]]), np.zeros((2, 1)), flip=0.1, clip=1.0)


def test_a_broadcast_nearer_to_the_edge_than_agreed_is_refused():
    with pytest.raises(InvalidParameter, match=r"theta must lie in \[0.01, 0.99\]: 1 of 2"):
        clip_toward([0.5, 0.5], [0.5, 0.995], flip=0.1, clip=1.0, theta_min=0.01)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("theta_min", [1e-3, 0.01, 0.1])
def test_a_theta_clamped_in_its_own_dtype_is_accepted(dtype, theta_min):
    theta = np.clip(np.array([0.0, 0.5, 1.0], dtype=dtype), dtype(theta_min), dtype(1 - theta_min))
    clip_toward(np.full(3, 0.5), theta, flip=0.1, clip=1.0, theta_min=theta_min)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"clip": 0.0}, "clip"),
        ({"clip": float("nan")}, "clip"),
        ({"clip": float("inf")}, "clip"),
        ({"space": "logit"}, "space"),
        ({"temperature": 1.0}, "temperature"),
        ({"space": "score"}, "temperature"),
        ({"space": "score", "temperature": 0.0}, "temperature"),
        ({"space": "score", "temperature": 1.0, "theta": np.array([0.0, 0.5])}, "theta"),
        ({"space": "score", "temperature": 1e-300, "values": np.array([1e300, 0.0])}, "temperature"),
        ({"theta_min": 0.5}, "theta_min"),
        ({"flip": 0.5}, "flip"),
        ({"values": np.array([1, 0])}, "values"),
        ({"values": np.array([0.5])}, "shape"),
        ({"values": np.array([1.5, 0.0])}, "values"),
    ],
)
def test_a_parameter_out_of_range_is_named(change, named):
    arguments = {"values": np.array([0.5, 0.5]), "theta": np.array([0.5, 0.5]), "flip": 0.1, "clip": 1.0}
    arguments |= change
    with pytest.raises(InvalidParameter, match=named):
        clip_toward(arguments.pop("values"), arguments.pop("theta"), **arguments)


def test_huge_scores_and_tiny_clips_end_at_the_public_point_or_near_it():
    theta = np.full(4, 0.3)
    centre = RandomizedResponse(0.1).public_point(theta)
    far = np.array([1e300, -1e300, 1e200, 0.0])
    k = clip_toward(far, theta, flip=0.1, clip=1e-12, space="score", temperature=1.0)
    assert np.array_equal(k, centre)
    assert np.array_equal(clip_toward(np.ones(4), theta, flip=0.1, clip=1e-300), centre)
    assert np.array_equal(
        clip_toward(far, theta, flip=0.1, clip=1e-300, space="score", temperature=1.0), centre
    )


@pytest.mark.parametrize("units", [1.45, 2.45, 5.4])
def test_a_public_point_that_rounds_down_a_lot_makes_the_clip_shrink_until_the_logits_fit(units):
    # k_t is below 2^24 p_t, so the same step is a larger step in logits than the score clip allowed
    theta = np.full(3, units / SCALE)
    k = clip_toward(np.zeros(3), theta, flip=0.0, clip=6.0, space="score", temperature=1.0)
    with mpmath.workdps(60):
        moved = mpmath.sqrt(sum((mp_logit(a) - mp_logit(int(units))) ** 2 for a in k))
    assert 5.9 < moved <= 6.0


def test_without_a_clip_the_score_space_is_the_box_alone():
    scores, theta = np.array([-30.0, 0.0, 30.0]), np.full(3, 0.5)
    k = clip_toward(scores, theta, flip=0.25, clip=None, space="score", temperature=1.0)
    assert k.tolist() == pytest.approx([SCALE // 4, SCALE // 2, 3 * SCALE // 4], abs=1)


@pytest.mark.parametrize("clip", [5e-324, 1e-162, 1e160, 1.7e308])
@pytest.mark.parametrize("flip", [0.0, 1e-300, 0.25, 0.5 - 1e-13])
def test_a_clip_of_any_size_ends_at_the_public_point_or_leaves_the_box_alone(clip, flip):
    theta, scores = np.linspace(0.1, 0.9, 9), np.linspace(3.0, -3.0, 9)
    for arguments, values in (
        ({}, 1.0 / (1.0 + np.exp(-scores))),
        ({"space": "score", "temperature": 1.0}, scores),
    ):
        k = clip_toward(values, theta, flip=flip, clip=clip, **arguments).astype(np.int64)
        alone = clip_toward(values, theta, flip=flip, clip=None, **arguments).astype(np.int64)
        wanted = RandomizedResponse(flip).public_point(theta) if clip < 1.0 else alone
        assert np.abs(k - wanted).max() <= 1


def whole(values, theta, flip, clip):
    """The same on whole vectors, step by step; the norm in exact fractions of what floats say."""
    response = RandomizedResponse(flip)
    centre = response.public_point(theta).astype(np.float64)
    move = np.clip(response.probabilities(values) * SCALE, *response.box) - centre
    scale = 1.0
    if clip is not None and move.any():
        largest = np.abs(move).max()
        scale = min(1.0, clip * SCALE / largest / math.sqrt(math.fsum((move / largest) ** 2)))
    return (centre + np.trunc(scale * move)).astype(np.uint32)


@pytest.mark.parametrize("size", [0, 1, 8192, 8193, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 17])
@pytest.mark.parametrize("clip", [None, 1e-3, 1.0, 1e4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pieces_give_what_whole_vectors_do(size, clip, dtype):
    rng = np.random.default_rng(size)
    values, theta = rng.random(size).astype(dtype), rng.uniform(0.01, 0.99, size).astype(dtype)
    k = clip_toward(values, theta, flip=0.1, clip=clip)
    off = k.astype(np.int64) - whole(values, theta, 0.1, clip)
    if clip is None or clip > 1e3:
        assert not off.any()
    assert np.count_nonzero(off) <= 2  # where a norm differs in its last digit
    assert np.abs(off).max(initial=0) <= 1
    lazy = Computed(size, lambda piece: values[piece])
    assert np.array_equal(clip_toward(lazy, theta, flip=0.1, clip=clip), k)


@pytest.mark.parametrize(("clip", "seen"), [(None, "21a76631bfe0b35d"), (1.0, "707288e2ae74b77f")])
def test_what_was_released_stays_the_same_to_the_last_bit(clip, seen):
    """A client that was killed makes its upload again, perhaps with a newer version."""
    values = (np.arange(70_001) * 2654435761 % 2**32) / 2**32
    theta = 0.01 + 0.98 * ((np.arange(70_001) * 40503 % 2**16) / 2**16)
    k = clip_toward(values, theta, flip=0.2, clip=clip)
    assert hashlib.sha256(k.astype("<u4").tobytes()).hexdigest()[:16] == seen


@pytest.mark.parametrize(("space", "how"), [("probability", ""), ("score", "temperature=1.0")])
def test_bits_do_not_depend_on_the_number_of_threads(space, how):
    """A last digit of the norm moves no bit in most vectors, so the sums that it comes from are compared."""
    code = (
        "import hashlib, numpy as np; from prism_privacy.masks import clipping\n"
        "scale = clipping._scale_to_norm\n"
        "clipping._scale_to_norm = lambda norms, radius: (print(norms), scale(norms, radius))[1]\n"
        "rng = np.random.default_rng(0)\n"
        "values, theta = rng.random(300_000), rng.uniform(0.1, 0.9, 300_000)\n"
        f"k = clipping.clip_toward(values, theta, flip=0.1, clip=1.0, space={space!r}, {how})\n"
        "print(hashlib.sha256(k.tobytes()).hexdigest())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2", "3")
    }
    assert len(said) == 1
    assert said.pop().count("\n") == 2


@pytest.mark.parametrize(("space", "clip"), [("probability", None), ("probability", 1.0), ("score", 1.0)])
@pytest.mark.parametrize("size", [1_000_000, 2_000_000])
def test_a_release_needs_six_bytes_a_coordinate_beside_its_input(size, space, clip):
    rng = np.random.default_rng(0)
    values, theta = rng.random(size, dtype=np.float32), np.full(size, 0.5, dtype=np.float32)
    coins = CoinSecret.for_test(bytes(32)).stream("tests", 1, bytes(32), "mask")
    how = {"temperature": 1.0} if space == "score" else {}
    tracemalloc.start()
    release_bits(clip_toward(values, theta, flip=0.25, clip=clip, space=space, **how), coins)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 5 * size + 3_000_000  # integers, bits, and what does not grow


@pytest.mark.parametrize("at", [0, PIECE - 1, PIECE, 2 * PIECE + 5])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1.5])
@pytest.mark.parametrize("which", ["values", "theta"])
def test_a_bad_number_in_any_piece_is_named_with_its_place(which, bad, at):
    given = {"values": np.full(2 * PIECE + 6, 0.5), "theta": np.full(2 * PIECE + 6, 0.5)}
    given[which][at] = bad
    for clip in (None, 1.0):
        with pytest.raises(InvalidParameter, match=rf"{which} must .* index {at} "):
            clip_toward(given["values"], given["theta"], flip=0.1, clip=clip)
