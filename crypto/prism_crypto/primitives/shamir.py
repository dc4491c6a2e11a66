"""Shamir's secret sharing of 32-byte secrets over GF(2^256 + 297).

A secret is the constant term of a random polynomial of degree threshold - 1, a share is the polynomial's
value at a public non-zero x (Shamir 1979). 2^256 + 297 is the smallest prime above 2^256, so every 32-byte
string is a field element as it stands, and a share takes 33 bytes, big-endian. One polynomial shares one
secret: two secrets of the same owner get independent polynomials.

Shares carry no proof of their own: a wrong one gives a wrong secret. Whoever combines them compares the
result with what its owner advertised, a hash of the seed or the public half of the key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from math import prod
from operator import mul

from prism_crypto.errors import InputError, ShareError
from prism_crypto.primitives.randomness import Rng, draw

PRIME = 2**256 + 297
"""The field's order."""

SECRET_BYTES = 32
SHARE_BYTES = 33

# A draw of 33 bytes below 255 * PRIME, reduced, is uniform in the field; 1 draw in 256 is rejected.
# Taking 257 bits instead would reject every second one.
_DRAW_LIMIT = (2**264 // PRIME) * PRIME


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

    leading, *descending = [*_field_elements(threshold - 1, rng), int.from_bytes(secret)]
    shares = {}
    for x in xs:
        value = leading
        for coefficient in descending:  # Horner; x is small, so one reduction at the end is cheapest
            value = value * x + coefficient
        shares[x] = (value % PRIME).to_bytes(SHARE_BYTES)
    return shares


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


@lru_cache(maxsize=64)
def lagrange_weights(xs: tuple[int, ...]) -> tuple[int, ...]:
    """Weights w with f(0) = Σ w_i f(x_i) for every polynomial f of degree below len(xs).

    w_i = Π_{j≠i} x_j / (x_j - x_i) = Π_j x_j / d_i with d_i = x_i · Π_{j≠i} (x_j - x_i), modulo the field's
    order; the d_i are inverted together by one inversion (Montgomery's trick). The points are public:
    nothing secret is remembered.
    """
    divisors = [xi * prod(xj - xi for xj in xs if xj != xi) % PRIME for xi in xs]
    before = [1, *accumulate(divisors, lambda a, b: a * b % PRIME)]
    rest = prod(xs) * pow(before.pop(), -1, PRIME) % PRIME  # Π x over the divisors not yet peeled off
    weights = []
    for divisor, product in zip(reversed(divisors), reversed(before), strict=True):
        weights.append(rest * product % PRIME)
        rest = rest * divisor % PRIME
    return tuple(reversed(weights))


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
