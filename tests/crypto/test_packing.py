"""Radix packing against digit-by-digit Python integers, and every sum that must be refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prism_crypto.errors import InputError, SumError
from prism_crypto.wire.packing import Packing, PartedPacking

TOTALS = st.one_of(
    st.integers(1, 300), st.integers(1, 2**63 - 1), st.sampled_from([2**32 - 1, 2**32, 2**31, 3, 255])
)


def slow_pack(values: list[int], largest_total: int) -> list[int]:
    """One digit at a time."""
    base = largest_total + 1
    k = 0
    while base ** (k + 1) <= 2**64:
        k += 1
    width = math.ceil(len(values) / k)
    words = [0] * width
    for j, value in enumerate(values):
        words[j % width] += value * base ** (j // width)
    return [*words, 1, sum(values) % 2**64]


@st.composite
def sessions(draw):
    """Clients' vectors with a bound, and the packing for them."""
    clients = draw(st.integers(1, 12))
    bound = draw(st.one_of(st.just(1), st.integers(1, 2**63 // clients - 1)))
    dimension = draw(st.integers(1, 150))
    kind = np.uint64 if bound > 2**31 else draw(st.sampled_from([np.int64, np.uint64, np.int32, np.uint32]))
    vectors = [
        draw(
            hnp.arrays(
                kind,
                dimension,
                elements=st.one_of(st.integers(0, min(bound, 2**31 - 1)), st.just(bound))
                if bound < 2**31
                else st.integers(0, bound),
            )
        )
        for _ in range(clients)
    ]
    return Packing(dimension, clients * bound), bound, vectors


@given(sessions())
@settings(max_examples=150)
def test_sums_of_packed_vectors_unpack_to_the_exact_counts(session):
    packing, bound, vectors = session
    total = np.zeros(packing.length, dtype=np.uint64)
    for vector in vectors:
        words = packing.pack(vector, bound=bound)
        assert words.dtype == np.uint64
        assert words.tolist() == slow_pack([int(value) for value in vector], packing.largest_total)
        total += words
    counts = packing.unpack(total, len(vectors), bound=bound)
    assert counts.dtype == np.int64
    assert counts.tolist() == [sum(int(vector[j]) for vector in vectors) for j in range(packing.dimension)]


@given(sessions(), st.integers(0, 2**64 - 1))
def test_masks_that_cancel_modulo_2_64_leave_the_sum_exact(session, mask):
    packing, bound, vectors = session
    total = packing.pack(vectors[0], bound=bound) + np.uint64(mask)
    for vector in vectors[1:]:
        total += packing.pack(vector, bound=bound)
    total -= np.uint64(mask)
    assert packing.unpack(total, len(vectors)).tolist() == [
        sum(map(int, column)) for column in zip(*vectors, strict=True)
    ]


@given(TOTALS)
def test_digits_per_word_is_the_largest_that_fits(largest_total):
    k = Packing(1, largest_total).digits_per_word
    assert (largest_total + 1) ** k <= 2**64 < (largest_total + 1) ** (k + 1)


@pytest.mark.parametrize(("clients", "bits"), [(10, 3.6), (100, 7.2), (1000, 10.7)])
def test_bits_a_coordinate_stay_close_to_the_entropy_floor(clients, bits):
    packing = Packing(10**6, clients)
    assert math.log2(clients + 1) <= packing.bits_per_coordinate <= bits


@pytest.mark.parametrize(
    "kind",
    [
        np.bool_,
        np.uint8,
        np.int8,
        np.uint16,
        np.int16,
        np.int32,
        np.uint32,
        np.int64,
        np.uint64,
        ">i4",
        ">u8",
    ],
)
def test_every_integer_type_packs_alike(kind):
    bits = np.arange(1000) % 3 == 0
    packing = Packing(1000, 7)
    assert np.array_equal(packing.pack(bits.astype(kind), bound=1), packing.pack(bits, bound=1))


@st.composite
def long_vectors(draw):
    """A vector of many columns, in any type that holds its values, and the packing for it."""
    clients = draw(st.sampled_from([1, 2, 3, 10, 11, 100, 1000]))
    bound = draw(st.sampled_from([0, 1, 2, 3, 12, 100, 255, 256, 1000, 65_535, 2**20, 2**33]))
    packing = Packing(1, max(clients * bound, 1))
    # Around the number of columns from which on whole rows are joined, and lengths that leave a rest.
    columns = draw(st.one_of(st.integers(1, 600), st.integers(4000, 6000)))
    digits = packing.digits_per_word
    dimension = columns * digits - draw(st.integers(0, digits - 1))
    values = np.random.default_rng(draw(st.integers(0, 9))).integers(0, bound, dimension, endpoint=True)
    values[draw(st.integers(0, dimension - 1))] = bound
    sizes = [kind for kind in "?bBhHiIlL" if (kind == "?" and bound <= 1) or bound <= _largest(kind)]
    values = values.astype(draw(st.sampled_from(sizes)))
    if draw(st.booleans()):
        values = np.repeat(values, 3)[::3]
    return Packing(dimension, packing.largest_total), bound, values


def _largest(kind: str) -> int:
    return 1 if kind == "?" else int(np.iinfo(kind).max)


@given(long_vectors())
@settings(max_examples=150, deadline=None)
def test_long_vectors_pack_as_digit_by_digit_with_a_bound_and_without(case):
    packing, bound, values = case
    expected = np.zeros(packing.length, dtype=np.uint64)
    for digit in range(packing.digits_per_word):
        row = values[digit * packing.words : (digit + 1) * packing.words].astype(np.uint64)
        expected[: row.size] += row * np.uint64((packing.largest_total + 1) ** digit)
    expected[-2:] = 1, values.astype(np.uint64).sum()
    assert np.array_equal(packing.pack(values, bound=bound), expected)
    assert np.array_equal(packing.pack(values), expected)


@given(long_vectors(), st.data())
@settings(max_examples=50, deadline=None)
def test_one_value_out_of_range_in_a_long_vector_is_refused(case, data):
    packing, bound, values = case
    kind = values.dtype.kind
    low = -1 if kind == "i" else bound + 1
    if low > 0 and (kind == "b" or low > _largest(values.dtype.char)):
        return  # this type holds no value that is out of range
    values = values.copy()
    values[data.draw(st.integers(0, values.size - 1))] = low
    with pytest.raises(InputError, match=rf"^values must be in 0\.\.{bound}, 1 of {values.size} are not$"):
        packing.pack(values, bound=bound)


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.int16, np.uint64])
@pytest.mark.parametrize("bound", [None, 0, 1])
@pytest.mark.parametrize("largest_total", [255, 256, 2**16, 2**32, 2**62])
def test_zeros_pack_whatever_the_base(largest_total, bound, kind):
    packing = Packing(5000, largest_total)
    words = packing.pack(np.zeros(5000, kind), bound=bound)
    assert words.tolist() == slow_pack([0] * 5000, largest_total)


@given(st.integers(1, 3), st.integers(0, 255), st.integers(4000, 70_000))
@settings(max_examples=40, deadline=None)
def test_the_checksum_of_many_narrow_values_is_their_sum(width, largest, size):
    """Rows of narrow values are added in their own type, where as many as fit cannot overflow."""
    for dtype in (np.uint8, np.uint16, np.uint32):
        most = min(largest * 256 ** (width - 1) + 255 * (width > 1), int(np.iinfo(dtype).max))
        values = np.full(size, most, dtype=dtype)
        assert Packing(size, 2**40).pack(values, bound=most)[-1] == size * most


def test_packing_leaves_its_input_alone_and_takes_strided_views():
    values = np.arange(20, dtype=np.int16) % 4
    values.flags.writeable = False
    packing = Packing(10, 9)
    assert packing.pack(values[::2]).tolist() == slow_pack(values[::2].tolist(), 9)


def test_blocks_of_words_join_without_a_seam():
    rng = np.random.default_rng(1)
    packing = Packing(300_001, 2**20)  # three digits a word: 100,001 words, four blocks
    values = rng.integers(0, 2**20, 300_001, endpoint=True)
    words = packing.pack(values)
    assert words.tolist() == slow_pack(values.tolist(), 2**20)
    assert np.array_equal(packing.unpack(words, 1), values)


@pytest.mark.parametrize(
    ("values", "bound", "message"),
    [
        (np.array([0, 2, 7]), 1, r"^values must be in 0\.\.1, 2 of 3 are not$"),
        (np.array([0, -7, 1]), 1, r"^values must be in 0\.\.1, 1 of 3 are not$"),
        (np.array([0, 77, -7], dtype=np.int8), None, r"^values must be in 0\.\.10, 2 of 3 are not$"),
        (np.array([0, 1]), None, "shape"),
        (np.zeros((3, 1), dtype=int), None, "shape"),
        (np.array([0.0, 1.0, 1.0]), None, "float64"),
        (np.array([0, 1, 1], dtype=object), None, "object"),
        (np.array([0, 1, 1]), 11, "bound"),
        (np.array([0, 1, 1]), -1, "bound"),
        (np.array([0, 1, 2**64 - 1], dtype=np.uint64), None, r"^values must be in 0\.\.10, 1 of 3 are not$"),
    ],
)
def test_input_that_would_spill_into_other_coordinates_is_refused(values, bound, message):
    with pytest.raises(InputError, match=message):
        Packing(3, 10).pack(values, bound=bound)


@pytest.mark.parametrize(("dimension", "largest_total"), [(0, 1), (-1, 1), (1, 0), (1, 2**63), (1, -1)])
def test_impossible_sessions_are_refused(dimension, largest_total):
    with pytest.raises(InputError):
        Packing(dimension, largest_total)


def opened(packing: Packing, survivors: int) -> np.ndarray:
    ones = packing.pack(np.ones(packing.dimension, dtype=np.uint8), bound=1)
    return ones * np.uint64(survivors)


@pytest.mark.parametrize("counted", [0, 2, 4, 2**64 - 1])
def test_a_sentinel_that_does_not_count_the_survivors_is_refused(counted):
    packing = Packing(100, 5)
    words = opened(packing, 3)
    words[-2] = counted
    with pytest.raises(SumError, match=f"counts {counted} uploads, expected those of 3"):
        packing.unpack(words, 3)


def test_a_word_with_more_than_its_digits_is_refused():
    packing = Packing(100, 4)
    words = opened(packing, 3)
    words[1] = 5**packing.digits_per_word
    with pytest.raises(SumError, match="largest total of all its digits"):
        packing.unpack(words, 3)


def test_padding_that_is_not_zero_is_refused():
    packing = Packing(28, 4)  # 27 digits a word, so two words and the last 26 digits of padding
    words = opened(packing, 3)
    words[1] += np.uint64(5 ** (packing.digits_per_word - 1))
    with pytest.raises(SumError, match="padding"):
        packing.unpack(words, 3)


def test_a_count_above_what_the_survivors_can_reach_is_refused():
    packing = Packing(10, 5)
    words = opened(packing, 3)
    words[0] += np.uint64(1)
    words[-1] += np.uint64(1)
    assert packing.unpack(words, 3)[0] == 4
    with pytest.raises(SumError, match="count of 4, at most 3"):
        packing.unpack(words, 3, bound=1)


@given(st.integers(0, 11), st.integers(0, 63))
def test_random_words_almost_never_pass_for_a_sum(word, bit):
    packing = Packing(270, 4)
    words = opened(packing, 3)
    words[word] ^= np.uint64(1 << bit)
    try:
        counts = packing.unpack(words, 3, bound=1)
    except SumError:
        return
    assert counts.max() <= 3
    assert counts.sum() == 810


@pytest.mark.parametrize("clients", [3, 10, 100])
@pytest.mark.parametrize("excess", [1, 2, 7])
@pytest.mark.parametrize("share", [0.01, 0.94, 1.0])
def test_values_that_carry_into_other_coordinates_are_seen(clients, excess, share):
    """One client adds M + excess to many of its values, and to its checksum: honest arithmetic, no bound."""
    packing = Packing(2000, clients)
    rng = np.random.default_rng(clients)
    total = sum(packing.pack(rng.integers(0, 2, 2000)) for _ in range(clients))
    added = [0] * packing.length
    for j in np.flatnonzero(rng.random(2000) < share):
        added[j % packing.words] += (clients + excess) * (clients + 1) ** (int(j) // packing.words)
        added[-1] += clients + excess
    total += np.array([word % 2**64 for word in added], dtype=np.uint64)
    with pytest.raises(SumError, match="an upload holds something else than a packed vector"):
        packing.unpack(total, clients, bound=1)


def test_what_is_the_same_word_as_an_honest_one_is_not_seen():
    """M + 1 in one digit is 1 in the next: nobody can tell, and no check claims to."""
    packing = Packing(100, 4)
    words = opened(packing, 3)
    words[0] += np.uint64(5)
    words[-1] += np.uint64(1)
    counts = packing.unpack(words, 3)
    assert counts[packing.words] == 4
    assert counts.sum() == 301


@pytest.mark.parametrize(
    "words", [np.zeros(4, dtype=np.uint64), np.zeros(3, dtype=np.int64), np.zeros((3, 1), dtype=np.uint64)]
)
def test_words_of_another_session_are_refused(words):
    with pytest.raises(InputError):
        Packing(10, 5).unpack(words, 1)


def test_bools_with_other_bits_than_one_are_refused():
    """np.frombuffer makes such bools of any file; each prints as True and would add 2 or 255."""
    for byte in (2, 128, 255):
        raw = np.frombuffer(bytes([0, byte, 1]), dtype=np.bool_)
        assert raw.tolist() == [False, True, True]
        with pytest.raises(InputError, match=r"must be in 0\.\.1, 1 of 3 are not"):
            Packing(3, 10).pack(raw, bound=1)


def test_values_under_a_mask_are_checked_too():
    masked = np.ma.masked_array([0, 9, 1], mask=[False, True, False])
    with pytest.raises(InputError, match=r"must be in 0\.\.1, 1 of 3 are not"):
        Packing(3, 10).pack(masked, bound=1)


def test_the_largest_signed_value_is_not_mistaken_for_a_negative_one():
    largest = 2**63 - 1
    packing = Packing(2, largest)
    assert packing.pack(np.array([largest, 0], dtype=np.int64)).tolist() == [largest, 0, 1, largest]


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
def test_a_negative_value_that_reads_as_an_allowed_unsigned_one_is_refused(
    dtype: type[np.signedinteger],
) -> None:
    """-100 as int8 has the bits of 156: reading it as unsigned would let it through a bound of 200."""
    packing = Packing(4, 2**62)
    bound = 2 ** (8 * np.dtype(dtype).itemsize - 1) + 100 if dtype is not np.int64 else 2**62
    values = np.array([1, 0, -100, 2], dtype=dtype)
    with pytest.raises(InputError, match=r"must be in .*, 1 of 4 are not"):
        packing.pack(values, bound=bound)


@st.composite
def parted_sessions(draw):
    """Clients' vectors of parts with bounds of their own, and the packing for them."""
    clients = draw(st.integers(1, 12))
    part = st.tuples(st.integers(1, 40), st.sampled_from([1, 2, 255, 10_000, 2**40]))
    parts = tuple(draw(st.lists(part, min_size=1, max_size=5)))
    bounds = [bound for length, bound in parts for _ in range(length)]
    vectors = [np.array([draw(st.integers(0, bound)) for bound in bounds]) for _ in range(clients)]
    return PartedPacking(parts, clients), vectors


@given(parted_sessions())
@settings(max_examples=50)
def test_parts_are_packed_as_if_each_were_alone_and_open_to_the_exact_counts(session):
    packing, vectors = session
    total = np.zeros(packing.length, dtype=np.uint64)
    for vector in vectors:
        words, expected, start = packing.pack(vector), [], 0
        for length, bound in packing.parts:
            expected += slow_pack(vector[start : start + length].tolist(), packing.clients * bound)
            start += length
        assert words.tolist() == expected
        total += words
    assert packing.unpack(total, len(vectors)).tolist() == np.sum(vectors, axis=0).tolist()
    with pytest.raises(SumError, match="counts"):
        packing.unpack(total, len(vectors) + 1)


def test_a_value_above_its_own_parts_bound_is_refused_though_another_part_may_have_it():
    packing = PartedPacking(((3, 1), (1, 10_000)), clients=3)
    assert packing.unpack(packing.pack(np.array([1, 0, 1, 10_000])), 1).tolist() == [1, 0, 1, 10_000]
    for odd in ([2, 0, 0, 0], [0, 0, 0, 10_001], [0, -1, 0, 0]):
        with pytest.raises(InputError):
            packing.pack(np.array(odd))
    with pytest.raises(InputError):
        packing.pack(np.array([0, 0, 0, 5000]), bound=4999)
    for shape in ((3,), (5,), (4, 1)):
        with pytest.raises(InputError, match="shape"):
            packing.pack(np.zeros(shape, int))


def test_a_count_that_one_part_cannot_reach_is_refused_though_another_can():
    packing = PartedPacking(((1, 1), (1, 10_000)), clients=3)
    words = packing.pack(np.array([1, 7])) + packing.pack(np.array([1, 7]))
    words[0] += np.uint64(1)  # three of two
    with pytest.raises(SumError, match="count of 3, at most 2"):
        packing.unpack(words, 2)
    with pytest.raises(InputError, match="6 words"):
        packing.unpack(words[:2], 2)
