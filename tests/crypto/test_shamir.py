"""Shamir's sharing against an oracle with fractions, and everything that must be refused."""

from __future__ import annotations

import contextlib
import itertools
import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_crypto.errors import InputError, RandomnessError, ShareError
from prism_crypto.primitives import shamir
from prism_crypto.primitives.shamir import (
    PRIME,
    SHARE_BYTES,
    coefficients,
    combine,
    lagrange_weights,
    off,
    parity_weights,
    recover,
    split,
)

SECRETS = st.binary(min_size=32, max_size=32)
POINTS = st.sets(st.integers(1, 2**32 - 1), min_size=1, max_size=12).map(sorted)


def interpolate_at_zero(points: dict[int, int]) -> int:
    """The textbook formula, one modular inverse a factor."""
    total = 0
    for xi, yi in points.items():
        term = yi
        for xj in points:
            if xj != xi:
                term = term * xj * pow(xj - xi, -1, PRIME) % PRIME
        total = (total + term) % PRIME
    return total


def field_value(share: bytes) -> int:
    return int.from_bytes(share, "big")


def test_prime_is_the_smallest_above_2_256():
    def probably_prime(n: int) -> bool:
        odd, twos = n - 1, 0
        while odd % 2 == 0:
            odd, twos = odd // 2, twos + 1
        for base in range(2, 40):
            x = pow(base, odd, n)
            if x in (1, n - 1):
                continue
            if not any((x := x * x % n) == n - 1 for _ in range(twos - 1)):
                return False
        return True

    assert PRIME == 2**256 + 297
    assert probably_prime(PRIME)
    assert not any(probably_prime(2**256 + i) for i in range(1, 297, 2))


@given(secret=SECRETS, xs=POINTS, data=st.data())
def test_any_threshold_shares_give_the_secret(secret, xs, data):
    threshold = data.draw(st.integers(1, len(xs)))
    shares = split(secret, threshold, xs, os.urandom)
    holders = data.draw(st.permutations(xs))[: data.draw(st.integers(threshold, len(xs)))]
    chosen = {x: shares[x] for x in holders}
    assert combine(chosen, threshold) == secret
    few = {x: field_value(shares[x]) for x in holders[:threshold]}
    assert interpolate_at_zero(few).to_bytes(32, "big") == secret


@given(secret=SECRETS, xs=POINTS, data=st.data())
def test_shares_lie_on_one_polynomial_of_the_degree_claimed(secret, xs, data):
    threshold = data.draw(st.integers(1, len(xs)))
    shares = split(secret, threshold, xs, os.urandom)
    assert set(shares) == set(xs)
    assert all(len(share) == SHARE_BYTES and field_value(share) < PRIME for share in shares.values())
    for chosen in itertools.islice(itertools.combinations(xs, threshold), 20):
        assert interpolate_at_zero({x: field_value(shares[x]) for x in chosen}) == int.from_bytes(
            secret, "big"
        )


@given(xs=POINTS)
def test_weights_agree_with_the_textbook_formula(xs):
    weights = lagrange_weights(tuple(xs))
    for i, x in enumerate(xs):
        assert weights[i] == interpolate_at_zero({point: int(point == x) for point in xs})


def test_one_share_fewer_is_consistent_with_every_secret():
    shares = split(bytes(32), 3, [1, 2, 3], os.urandom)
    for secret in (1, 2**255, 2**256 - 1):
        # The polynomial through two of the shares and (0, secret) exists: two shares exclude nothing.
        third = interpolate_at_zero(
            {x - 3: y for x, y in [(0, secret), *((x, field_value(shares[x])) for x in (1, 2))]}
        )
        forged = {1: shares[1], 2: shares[2], 3: third.to_bytes(SHARE_BYTES, "big")}
        assert combine(forged, 3) == secret.to_bytes(32, "big")


def test_coefficients_are_drawn_by_rejection_and_never_reused():
    limit = (2**264 // PRIME) * PRIME
    draws = iter([limit.to_bytes(33, "big") + (limit - 1).to_bytes(33, "big"), (5).to_bytes(33, "big")])
    asked = []

    def rng(count: int) -> bytes:
        asked.append(count)
        return next(draws)

    shares = split(bytes(31) + b"\x07", 3, [1, 2, 3], rng)
    assert asked == [66, 33]  # the first of two draws is refused, so one more is asked for
    a, b = (limit - 1) % PRIME, 5
    assert [field_value(shares[x]) for x in (1, 2, 3)] == [(7 + b * x + a * x * x) % PRIME for x in (1, 2, 3)]


@pytest.mark.parametrize(
    ("secret", "threshold", "xs"),
    [
        (bytes(31), 1, [1]),
        (bytes(33), 1, [1]),
        (bytes(32), 0, [1, 2]),
        (bytes(32), 3, [1, 2]),
        (bytes(32), 2, [1, 1]),
        (bytes(32), 2, [0, 1]),
        (bytes(32), 2, [-1, 1]),
        (bytes(32), 2, [1, 2**32]),
    ],
)
def test_split_refuses_what_would_leak_or_lose_the_secret(secret, threshold, xs):
    with pytest.raises(InputError):
        split(secret, threshold, xs, os.urandom)


def test_split_refuses_a_source_that_gives_too_few_bytes():
    with pytest.raises(RandomnessError):
        split(bytes(32), 2, [1, 2], lambda count: bytes(count - 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({2: None}, "expected 3 shares"),
        ({2: bytes(32)}, "33 bytes"),
        ({2: bytes(34)}, "33 bytes"),
        ({2: b""}, "33 bytes"),
        ({2: PRIME.to_bytes(33, "big")}, "order"),
        ({2: b"\xff" * 33}, "order"),
        ({0: bytes(33)}, "point"),
        ({-1: bytes(33)}, "point"),
        ({2**32: bytes(33)}, "point"),
        ({PRIME + 1: bytes(33)}, "point"),
    ],
)
def test_combine_refuses_malformed_shares(change, message):
    shares = split(bytes(32), 3, [1, 2, 3], os.urandom)
    shares = {x: share for x, share in {**shares, **change}.items() if share is not None}
    with pytest.raises(ShareError, match=message) as caught:
        combine(shares, 3)
    assert not any(share.hex() in str(caught.value) for share in shares.values() if share)


@given(excess=st.integers(0, 296))
def test_combine_refuses_a_result_that_is_no_32_byte_string(excess):
    share = (2**256 + excess).to_bytes(33, "big")
    with pytest.raises(ShareError, match="2\\^256"):
        combine({1: share}, 1)


def test_combine_refuses_a_threshold_below_one():
    with pytest.raises(InputError):
        combine({1: bytes(33)}, 0)


@given(secret=SECRETS, position=st.integers(0, 8), bit=st.integers(0, 263))
@settings(max_examples=50)
def test_a_flipped_bit_never_gives_the_same_secret(secret, position, bit):
    shares = split(secret, 9, range(1, 10), os.urandom)
    share = field_value(shares[position + 1]) ^ (1 << bit)
    shares[position + 1] = share.to_bytes(33, "big")
    with contextlib.suppress(ShareError):
        assert combine(shares, 9) != secret


# --- wrong shares among right ones ----------------------------------------------------------------

SECRET = bytes(range(32))


@given(st.data())
@settings(max_examples=60)
def test_the_secret_is_recovered_while_enough_shares_are_right_and_the_wrong_ones_are_found(data):
    threshold = data.draw(st.integers(1, 7))
    holders = data.draw(st.integers(threshold, 10))
    xs = data.draw(st.lists(st.integers(1, 2**32 - 1), min_size=holders, max_size=holders, unique=True))
    wrong = data.draw(st.lists(st.sampled_from(xs), max_size=holders - threshold, unique=True))
    shares = split(SECRET, threshold, xs, os.urandom)
    for x in wrong:
        shares[x] = data.draw(st.integers(0, PRIME - 1)).to_bytes(SHARE_BYTES)
    changed = tuple(sorted(x for x in wrong if shares[x] != split_again(shares, xs, wrong, threshold, x)))
    assert recover(shares, threshold, SECRET.__eq__, os.urandom) == (SECRET, changed)


def split_again(shares, xs, wrong, threshold, x):
    """What the share at x should be, from those that are right."""
    right = tuple(sorted(i for i in xs if i not in wrong)[:threshold])
    value = sum(w * int.from_bytes(shares[i]) for w, i in zip(lagrange_weights(right, x), right, strict=True))
    return (value % PRIME).to_bytes(SHARE_BYTES)


def test_without_enough_right_shares_nothing_is_recovered_and_a_set_that_fails_is_named():
    shares = split(SECRET, 4, range(1, 8), os.urandom)
    for x in (1, 3, 5, 7):
        shares[x] = bytes(SHARE_BYTES)
    assert recover(shares, 4, SECRET.__eq__, os.urandom) == (None, (1, 2, 3, 4))


@pytest.fixture
def in_a_field_of(monkeypatch):
    """Another field, so small that all words can be tried."""

    def change(prime: int) -> None:
        monkeypatch.setattr(shamir, "PRIME", prime)
        shamir._divisors.cache_clear()

    yield change
    shamir._divisors.cache_clear()


@pytest.mark.parametrize(("prime", "holders"), [(3, 2), (5, 4), (7, 5)])
def test_of_every_word_of_a_small_field_exactly_the_wrong_shares_are_located(prime, holders, in_a_field_of):
    """Held against a list of all polynomials and their distances."""
    in_a_field_of(prime)
    xs = tuple(range(1, holders + 1))
    for threshold in range(1, holders + 1):
        most = (holders - threshold) // 2
        expected = {}
        for polynomial in itertools.product(range(prime), repeat=threshold):
            right = [sum(c * x**k for k, c in enumerate(polynomial)) % prime for x in xs]
            for wrong in itertools.chain.from_iterable(
                itertools.combinations(range(holders), count) for count in range(most + 1)
            ):
                for off_by in itertools.product(range(1, prime), repeat=len(wrong)):
                    word = list(right)
                    for i, error in zip(wrong, off_by, strict=True):
                        word[i] = (word[i] + error) % prime
                    expected[tuple(word)] = frozenset(xs[i] for i in wrong)
        for word in itertools.product(range(prime), repeat=holders):
            shares = {x: y.to_bytes(SHARE_BYTES) for x, y in zip(xs, word, strict=True)}
            assert shamir._located(shares, threshold) == expected.get(word, frozenset())


@pytest.mark.parametrize("holders", range(2, 8))
def test_whichever_of_few_shares_are_wrong_decoding_finds_them(holders, monkeypatch):
    monkeypatch.setattr(shamir, "_MAX_TRIES", 0)
    xs = random.Random(holders).sample(range(1, 2**32), holders)
    for threshold in range(1, holders + 1):
        for count in range((holders - threshold) // 2 + 1):
            for wrong in itertools.combinations(sorted(xs), count):
                shares = split(SECRET, threshold, xs, os.urandom)
                for x in wrong:
                    shares[x] = ((int.from_bytes(shares[x]) + 1) % PRIME).to_bytes(SHARE_BYTES)
                assert recover(shares, threshold, SECRET.__eq__, os.urandom) == (SECRET, wrong)


MANY = [(20, 14), (27, 1), (28, 18), (51, 34), (100, 67), (100, 34), (200, 134), (201, 67)]


@pytest.mark.parametrize(("holders", "threshold"), MANY)
@pytest.mark.parametrize("how", ["anything", "one value", "another polynomial"])
def test_among_many_holders_as_many_wrong_shares_are_found_as_any_decoder_bears(
    holders, threshold, how, monkeypatch
):
    monkeypatch.setattr(shamir, "_MAX_TRIES", 0)
    draw = random.Random(f"{holders} {threshold} {how}")
    xs = range(3, 3 + holders)
    shares, other = (split(secret, threshold, xs, draw.randbytes) for secret in (SECRET, bytes(32)))
    wrong = tuple(sorted(draw.sample(xs, (holders - threshold) // 2)))
    for x in wrong:
        shares[x] = {
            "anything": draw.randrange(PRIME).to_bytes(SHARE_BYTES),
            "one value": bytes(SHARE_BYTES),
            "another polynomial": other[x],
        }[how]
    assert recover(shares, threshold, SECRET.__eq__, os.urandom) == (SECRET, wrong)


@pytest.mark.parametrize(("holders", "threshold"), MANY)
def test_one_wrong_share_more_than_that_is_an_error_that_names_the_lowest_set(
    holders, threshold, monkeypatch
):
    """And where decoding finds another polynomial, its secret is not taken for the right one."""
    monkeypatch.setattr(shamir, "_MAX_TRIES", 0)
    draw = random.Random(f"{holders} {threshold}")
    xs = range(1, 1 + holders)
    shares, other = (split(secret, threshold, xs, draw.randbytes) for secret in (SECRET, bytes(32)))
    lowest = tuple(range(1, threshold + 1))
    wrong = [1, *draw.sample(xs[1:], (holders - threshold) // 2)]
    for x in wrong:
        shares[x] = draw.randrange(PRIME).to_bytes(SHARE_BYTES)
    assert recover(shares, threshold, SECRET.__eq__, draw.randbytes) == (None, lowest)
    shares = other | {wrong[0]: shares[wrong[0]]}
    assert recover(shares, threshold, SECRET.__eq__, draw.randbytes) == (None, lowest)


def test_beyond_that_all_sets_are_tried_where_they_are_few():
    """Three right shares are enough, though decoding finds the polynomial of the five others."""
    xs = range(1, 9)
    shares, other = (split(secret, 3, xs, os.urandom) for secret in (SECRET, bytes(32)))
    shares |= {x: other[x] for x in (1, 2, 3, 5, 7)}
    assert recover(shares, 3, SECRET.__eq__, os.urandom) == (SECRET, (1, 2, 3, 5, 7))
    assert recover(shares, 3, bytes(32).__eq__, os.urandom) == (bytes(32), (4, 6, 8))


def test_beyond_that_some_of_many_sets_are_tried():
    """Of 38,760 sets 120 hold no wrong share; decoding bears three."""
    draw = random.Random(1)
    shares = split(SECRET, 14, range(1, 21), draw.randbytes)
    shares |= {x: bytes(SHARE_BYTES) for x in (1, 7, 8, 19)}
    assert shamir._located(shares, 14) == frozenset()
    assert recover(shares, 14, SECRET.__eq__, draw.randbytes) == (SECRET, (1, 7, 8, 19))


@given(st.data())
@settings(max_examples=40)
def test_parity_tells_one_polynomial_from_none(data):
    threshold = data.draw(st.integers(1, 12))
    xs = tuple(range(3, 3 + data.draw(st.integers(threshold, 20))))
    shares = split(SECRET, threshold, xs, os.urandom)
    weights = parity_weights(xs, threshold, os.urandom)

    def syndrome() -> int:
        return sum(w * int.from_bytes(shares[x]) for w, x in zip(weights, xs, strict=True)) % PRIME

    assert syndrome() == 0
    if len(xs) == threshold:
        assert not any(weights)  # any values are on a polynomial of that degree
        return
    x = data.draw(st.sampled_from(xs))
    shares[x] = ((int.from_bytes(shares[x]) + 1) % PRIME).to_bytes(SHARE_BYTES)
    assert syndrome() != 0
    others = {i: shares[i] for i in xs if i != x}
    chosen = dict(list(others.items())[:threshold])
    assert off(chosen, x, shares[x])


def test_polynomials_are_the_same_in_the_same_context_and_others_in_every_other():
    def polynomial(secret=SECRET, context=b"context", usage="seed"):
        return tuple(split(SECRET, 5, range(1, 9), coefficients(secret, context, usage)).items())

    assert polynomial() == polynomial()
    others = [polynomial(secret=bytes(32)), polynomial(context=b"other"), polynomial(usage="key")]
    assert len({polynomial(), *others}) == 4


def test_coefficients_are_read_from_front_to_back():
    whole = coefficients(SECRET, b"context", "seed")(200)
    parts = coefficients(SECRET, b"context", "seed")
    assert parts(33) + parts(0) + parts(100) + parts(67) == whole


def test_one_liar_among_a_thousand_does_not_keep_the_server_busy(monkeypatch):
    tried = []
    real = shamir.combine
    monkeypatch.setattr(shamir, "combine", lambda *a: (tried.append(1), real(*a))[1])
    shares = split(SECRET, 667, range(1, 1001), os.urandom)
    shares[5] = bytes(SHARE_BYTES)
    shares |= {x: bytes(SHARE_BYTES) for x in range(100, 500)}  # fewer than 667 are right
    assert recover(shares, 667, SECRET.__eq__, os.urandom)[0] is None
    assert 40 < len(tried) < 50
