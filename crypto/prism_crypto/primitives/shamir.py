"""Shamir's secret sharing of 32-byte secrets over GF(2^256 + 297).

A secret is the constant term of a random polynomial of degree threshold - 1, a share is the polynomial's
value at a public non-zero x (Shamir 1979). 2^256 + 297 is the smallest prime above 2^256, so every 32-byte
string is a field element as it stands, and a share takes 33 bytes, big-endian. One polynomial shares one
secret: two secrets of the same owner get independent polynomials.

Shares carry no proof of their own: a wrong one gives a wrong secret. Whoever combines them compares the
result with what its owner advertised, a hash of the seed or the public half of the key. All shares together
are a word of a Reed-Solomon code, so those that are wrong can be found (`recover`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, combinations, islice
from math import comb, prod
from operator import mul

from prism_crypto.errors import InputError, ShareError
from prism_crypto.primitives.context import label
from prism_crypto.primitives.randomness import Rng, draw

PRIME = 2**256 + 297
"""The field's order."""

SECRET_BYTES = 32
SHARE_BYTES = 33

# A draw of 33 bytes below 255 * PRIME, reduced, is uniform in the field; 1 draw in 256 is rejected.
# Taking 257 bits instead would reject every second one.
_DRAW_LIMIT = (2**264 // PRIME) * PRIME

_MAX_TRIES = 2000
"""So many sets of shares `recover` tries where decoding fails: all for some dozen holders, else a sample."""

_MAX_PRODUCTS = 20_000_000
"""And no more than take so many multiplications, a few seconds: t shares take about t² of them."""


def coefficients(secret: bytes | bytearray, context: bytes, usage: str) -> Rng:
    """The randomness of one polynomial: SHAKE-256 of a secret and a context, read from front to back.

    A client whose state was copied shares the same values again in the same context: what it seals for one
    neighbour under one key is one message. (In a hybrid session each dealing has seal keys of its own, as
    encapsulations are random; the shares in them are the same.)

    Args:
        secret: 32 bytes, drawn for this and revealed to nobody.
        context: ctx1; on a graph that clients choose, that of the dealer's advert alone.
        usage: which polynomial.
    """
    stream = hashlib.shake_256(label(usage) + context + bytes(secret))
    taken = 0

    def read(count: int) -> bytes:
        nonlocal taken
        taken += count
        return stream.digest(taken)[taken - count :]

    return read


def split(secret: bytes | bytearray, threshold: int, xs: Sequence[int], rng: Rng) -> dict[int, bytes]:
    """Share ``secret`` so that any ``threshold`` of the shares give it and fewer say nothing.

    Args:
        secret: 32 bytes.
        threshold: how many shares are needed, 1 ≤ threshold ≤ len(xs).
        xs: the holders' points, distinct, 1 ≤ x < 2^32.
        rng: source of uniform random bytes.

    Returns:
        For each x its share, 33 bytes.

    Raises:
        InputError: an argument is out of the range given above.

    >>> import os
    >>> shares = split(b"thirty-two bytes of a secret key", threshold=2, xs=[1, 2, 3], rng=os.urandom)
    >>> combine({1: shares[1], 3: shares[3]}, threshold=2)
    b'thirty-two bytes of a secret key'
    """
    if len(secret) != SECRET_BYTES:
        raise InputError(f"a shared secret is {SECRET_BYTES} bytes, got {len(secret)}")
    if not 1 <= threshold <= len(xs):
        raise InputError(f"threshold must be in 1..{len(xs)} (the number of holders), got {threshold}")
    if len(set(xs)) != len(xs) or not all(1 <= x < 2**32 for x in xs):
        raise InputError("the holders' points must be distinct integers in 1..2^32-1")

    descending = [*_field_elements(threshold - 1, rng), int.from_bytes(secret)]
    return {x: _value(descending, x).to_bytes(SHARE_BYTES) for x in xs}


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """Recover the secret from ``threshold`` or more shares.

    With more than ``threshold`` shares, the ones at the lowest x are used; all are checked for form. The
    Lagrange weights are remembered, so that many secrets with the same holders cost one weighted sum each.

    Args:
        shares: for each holder's x its share, 33 bytes.
        threshold: how many shares the polynomial was made for.

    Returns:
        The secret, 32 bytes.

    Raises:
        ShareError: fewer than ``threshold`` shares; an x outside 1..2^32-1; a share that is not 33 bytes or
            not below the field's order; or a result that is not a 32-byte string, which no honest owner
            shares.
    """
    if threshold < 1:
        raise InputError(f"threshold must be at least 1, got {threshold}")
    if len(shares) < threshold:
        raise ShareError(f"expected {threshold} shares or more, got {len(shares)}")
    points = {x: _decode(x, share) for x, share in shares.items()}
    xs = tuple(sorted(points)[:threshold])
    weighted = map(mul, lagrange_weights(xs), (points[x] for x in xs))
    secret: int = sum(weighted) % PRIME
    if secret >> 256:
        raise ShareError("the shares combine to a value above 2^256, which no owner can have shared")
    return secret.to_bytes(SECRET_BYTES)


def recover(
    shares: Mapping[int, bytes], threshold: int, accept: Callable[[bytes], bool], rng: Rng
) -> tuple[bytes | None, tuple[int, ...]]:
    """Find the secret although some shares may be wrong, and the shares that are.

    Of m shares ⌊(m - threshold) / 2⌋ may be wrong, whichever they are: the rest is decoded. More, up to
    m - threshold, while all sets of ``threshold`` shares are few enough to be tried, else by luck.

    Args:
        shares: for each holder's x its share; ``threshold`` of them at least.
        threshold: how many shares the polynomial was made for.
        accept: whether a secret is the right one.
        rng: source of randomness, for the check and for the order in which sets of shares are tried.

    Returns:
        The secret, and the x of all shares that are not on its polynomial. If no set of ``threshold`` shares
        that was tried gives the right secret: None, and the x of one such set, the lowest.

    >>> import os
    >>> shares = split(b"thirty-two bytes of a secret key", threshold=2, xs=[1, 2, 3, 4], rng=os.urandom)
    >>> shares[1] = bytes(33)
    >>> recover(shares, 2, lambda secret: secret.startswith(b"thirty"), os.urandom)
    (b'thirty-two bytes of a secret key', (1,))
    """
    lowest = tuple(sorted(shares)[:threshold])
    for xs in _sets(shares, threshold, rng):
        chosen = {x: shares[x] for x in xs}
        try:
            secret = combine(chosen, threshold)
        except ShareError:
            continue
        if accept(secret):
            return secret, tuple(x for x in sorted(shares) if x not in chosen and off(chosen, x, shares[x]))
    return None, lowest


def off(shares: Mapping[int, bytes], x: int, share: bytes) -> bool:
    """Whether a share is not on the polynomial through ``shares``."""
    xs = tuple(sorted(shares))
    value: int = sum(map(mul, lagrange_weights(xs, x), (int.from_bytes(shares[i]) for i in xs)))
    return value % PRIME != int.from_bytes(share)


def _sets(shares: Mapping[int, bytes], threshold: int, rng: Rng) -> Iterator[tuple[int, ...]]:
    """The lowest points; then those that decoding leaves; then all sets if few, else some at random."""
    xs = tuple(sorted(shares))
    yield xs[:threshold]
    wrong = _located(shares, threshold)
    if wrong:
        yield tuple(x for x in xs if x not in wrong)[:threshold]
    tries = min(_MAX_TRIES, _MAX_PRODUCTS // threshold**2)
    if comb(len(xs), threshold) <= tries:
        yield from islice(combinations(xs, threshold), 1, None)
        return
    for _ in range(tries):
        keys = draw(rng, 8 * len(xs))
        shuffled = sorted((keys[8 * i : 8 * i + 8], x) for i, x in enumerate(xs))
        yield tuple(sorted(x for _, x in shuffled[:threshold]))


def _located(shares: Mapping[int, bytes], threshold: int) -> frozenset[int]:
    """The points of the shares off the polynomial that all but ⌊(m - threshold) / 2⌋ or fewer are on.

    Empty if none is wrong, or more are than can be decoded; m = len(shares).

    With w_i = 1 / Π_{j≠i} (x_i - x_j), each sum s_k = Σ w_i x_i^k y_i, k < m - threshold, is 0 for values y_i
    of a polynomial. So s_k = Σ c_i x_i^k over the wrong shares alone, c_i ≠ 0, and the shortest recurrence of
    s has their points as its roots: it is the only one, as s is twice as long (Massey 1969, theorem 3).
    Conversely, if s has a recurrence so short with distinct roots among the points, it is such a sum, and
    changing the shares there puts all on one polynomial. In time m².
    """
    xs = tuple(sorted(shares))
    terms = list(map(mul, _divisors(xs), (int.from_bytes(shares[x]) for x in xs)))
    syndromes = []
    for _ in range(len(xs) - threshold):
        syndromes.append(sum(terms) % PRIME)
        terms = [term * x % PRIME for term, x in zip(terms, xs, strict=True)]
    recurrence = _shortest_recurrence(syndromes)
    roots = frozenset(x for x in xs if _value(recurrence, x) == 0)
    return roots if len(roots) == len(recurrence) - 1 <= len(syndromes) // 2 else frozenset()


def _shortest_recurrence(sequence: Sequence[int]) -> list[int]:
    """The shortest c with c_0 = 1 and Σ_k c_k s_{j-k} = 0 for each j ≥ len(c) - 1 (Massey 1969)."""
    current, previous, inverse, gap = [1], [1], 1, 1
    for j in range(len(sequence)):
        length = len(current) - 1
        discrepancy = sum(map(mul, current, reversed(sequence[j - length : j + 1]))) % PRIME
        if discrepancy:
            before, factor = current, discrepancy * inverse % PRIME
            current = before + [0] * (j + 1 - 2 * length)
            for k, coefficient in enumerate(previous, gap):
                current[k] = (current[k] - factor * coefficient) % PRIME
            if len(current) > len(before):
                previous, inverse, gap = before, pow(discrepancy, -1, PRIME), 0
        gap += 1
    return current


def parity_weights(xs: tuple[int, ...], threshold: int, rng: Rng) -> tuple[int, ...]:
    """Random weights w with Σ w_i f(x_i) = 0 for every polynomial f of degree below ``threshold``.

    For values of no such polynomial the sum is 0 with probability 1/PRIME: w is a uniform word of the dual
    of the Reed-Solomon code, w_i = r(x_i) / Π_{j≠i} (x_i - x_j) with a random r of degree below
    len(xs) - threshold (MacWilliams and Sloane 1977, chapter 10, theorem 4).
    """
    random = _field_elements(len(xs) - threshold, rng)
    return tuple(_value(random, x) * divisor % PRIME for x, divisor in zip(xs, _divisors(xs), strict=True))


@lru_cache(maxsize=256)
def lagrange_weights(xs: tuple[int, ...], at: int = 0) -> tuple[int, ...]:
    """Weights w with f(at) = Σ w_i f(x_i) for every polynomial f of degree below len(xs).

    w_i = Π_{j≠i} (at - x_j) / (x_i - x_j), ``at`` none of the points. The points are public: nothing secret
    is remembered.
    """
    divisors = [(at - x) * difference % PRIME for x, difference in zip(xs, _differences(xs), strict=True)]
    product = prod(at - x for x in xs) % PRIME
    return tuple(product * inverse % PRIME for inverse in _inverted(divisors))


def _value(coefficients: Sequence[int], x: int) -> int:
    """A polynomial's value at a point, the coefficient of the highest power first."""
    value = 0
    for coefficient in coefficients:  # Horner; reduced once: holders' points are small
        value = value * x + coefficient
    return value % PRIME


@lru_cache(maxsize=16)
def _divisors(xs: tuple[int, ...]) -> tuple[int, ...]:
    """1 / Π_{j≠i} (x_i - x_j) for each i."""
    return tuple(_inverted(_differences(xs)))


def _differences(xs: tuple[int, ...]) -> list[int]:
    """Π_{j≠i} (x_i - x_j) for each i, modulo the field's order; in time t² for t points.

    Reduced after every 32 factors: without that the products grow to t words, and the time as t³.
    """
    blocks = [xs[i : i + 32] for i in range(0, len(xs), 32)]
    products = []
    for x in xs:
        product = 1
        for block in blocks:
            product = product * prod([x - other or 1 for other in block]) % PRIME
        products.append(product)
    return products


def _inverted(values: list[int]) -> list[int]:
    """The inverses, modulo the field's order, by one inversion (Montgomery's trick)."""
    before = [1, *accumulate(values, lambda a, b: a * b % PRIME)]
    rest = pow(before.pop(), -1, PRIME)  # of the product of the values not yet peeled off
    inverses = []
    for value, product in zip(reversed(values), reversed(before), strict=True):
        inverses.append(rest * product % PRIME)
        rest = rest * value % PRIME
    return inverses[::-1]


def _decode(x: int, share: bytes) -> int:
    if not 1 <= x < 2**32:
        raise ShareError(f"a share's point must be in 1..2^32-1, got {x}")
    if len(share) != SHARE_BYTES:
        raise ShareError(f"the share at x={x} must be {SHARE_BYTES} bytes, got {len(share)}")
    value = int.from_bytes(share)
    if value >= PRIME:
        raise ShareError(f"the share at x={x} is not below the field's order")
    return value


def _field_elements(count: int, rng: Rng) -> list[int]:
    """``count`` uniform field elements, by rejection sampling."""
    elements: list[int] = []
    while missing := count - len(elements):
        block = draw(rng, SHARE_BYTES * missing)
        draws = (int.from_bytes(block[i : i + SHARE_BYTES]) for i in range(0, len(block), SHARE_BYTES))
        elements += [draw % PRIME for draw in draws if draw < _DRAW_LIMIT]
    return elements
