"""The primitives under the secure sum, a second time: slow, obvious, in Python integers.

Nothing here is fast, constant-time or meant for use. SHA-2, HMAC and the AES block permutation are taken from
the standard library and `cryptography`; everything above them (X25519, Ed25519, HKDF, counter mode, GCM,
Shamir's sharing, packing) is written out from its specification.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
from collections.abc import Callable
from functools import cache, lru_cache

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes


class Refused(Exception):
    """The reference's one error: whatever it checks did not hold."""


def demand(condition: bool, reason: str) -> None:
    if not condition:
        raise Refused(reason)


# --- curves: RFC 7748 section 5, RFC 8032 section 5.1 ---------------------------------------------------

P25519 = 2**255 - 19
D25519 = -121665 * pow(121666, -1, P25519) % P25519
ORDER = 2**252 + 27742317777372353535851937790883648493


@cache  # every pair agrees twice, and every advert is checked by everybody
def x25519(private: bytes, public: bytes) -> bytes:
    k = int.from_bytes(private, "little")
    k = k & ~7 & (2**255 - 1) | 2**254
    u = int.from_bytes(public, "little") % 2**255
    # Montgomery's ladder on (x2 : z2) = [bits so far] and (x3 : z3) = [bits so far + 1].
    x2, z2, x3, z3 = 1, 0, u, 1
    for bit in f"{k:b}":
        if bit == "1":
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        e = (a * a - b * b) % P25519
        x3, z3 = (d * a + c * b) ** 2 % P25519, u * (d * a - c * b) ** 2 % P25519
        x2, z2 = a * a * b * b % P25519, e * (a * a + 121665 * e) % P25519
        if bit == "1":
            x2, z2, x3, z3 = x3, z3, x2, z2
    return (x2 * pow(z2, P25519 - 2, P25519) % P25519).to_bytes(32, "little")


def x25519_public(private: bytes) -> bytes:
    return x25519(private, (9).to_bytes(32, "little"))


Point = tuple[int, int, int, int]
"""(X, Y, Z, T) with x = X/Z, y = Y/Z, xy = T/Z."""


def edwards_add(p: Point, q: Point) -> Point:
    """RFC 8032, section 5.1.4."""
    a = (p[1] - p[0]) * (q[1] - q[0]) % P25519
    b = (p[1] + p[0]) * (q[1] + q[0]) % P25519
    c = 2 * p[3] * q[3] * D25519 % P25519
    d = 2 * p[2] * q[2] % P25519
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P25519, g * h % P25519, f * g % P25519, e * h % P25519


@lru_cache(64)  # two thirds of the work, and keys and the base point come again and again
def edwards_doublings(p: Point) -> list[Point]:
    """p, 2p, 4p, ..., for each bit of a scalar."""
    return list(itertools.accumulate(range(255), lambda q, _: edwards_add(q, q), initial=p))


def edwards_multiply(k: int, p: Point) -> Point:
    assert k >> 256 == 0
    result = (0, 1, 1, 0)
    for bit, doubled in enumerate(edwards_doublings(p)):
        if k >> bit & 1:
            result = edwards_add(result, doubled)
    return result


def edwards_x(y: int, odd: int) -> int:
    square = (y * y - 1) * pow(D25519 * y * y + 1, -1, P25519) % P25519
    x = pow(square, (P25519 + 3) // 8, P25519)
    if (x * x - square) % P25519:
        x = x * pow(2, (P25519 - 1) // 4, P25519) % P25519
    demand((x * x - square) % P25519 == 0, "not a point of the curve")
    return x if x % 2 == odd else P25519 - x


BASE_Y = 4 * pow(5, -1, P25519) % P25519
BASE = (edwards_x(BASE_Y, 0), BASE_Y, 1, edwards_x(BASE_Y, 0) * BASE_Y % P25519)


def edwards_encode(p: Point) -> bytes:
    inverse = pow(p[2], -1, P25519)
    x, y = p[0] * inverse % P25519, p[1] * inverse % P25519
    return (y | (x % 2) << 255).to_bytes(32, "little")


def edwards_decode(data: bytes) -> Point:
    value = int.from_bytes(data, "little")
    y = value % 2**255
    demand(y < P25519, "not a reduced coordinate")
    x = edwards_x(y, value >> 255)
    return x, y, 1, x * y % P25519


def _ed25519_scalar(private: bytes) -> tuple[int, bytes]:
    expanded = hashlib.sha512(private).digest()
    return int.from_bytes(expanded[:32], "little") & ~7 & (2**255 - 1) | 2**254, expanded[32:]


def _ed25519_challenge(r: bytes, public: bytes, message: bytes) -> int:
    return int.from_bytes(hashlib.sha512(r + public + message).digest(), "little") % ORDER


def ed25519_public(private: bytes) -> bytes:
    return edwards_encode(edwards_multiply(_ed25519_scalar(private)[0], BASE))


@cache
def ed25519_sign(private: bytes, message: bytes) -> bytes:
    scalar, prefix = _ed25519_scalar(private)
    public = edwards_encode(edwards_multiply(scalar, BASE))
    nonce = int.from_bytes(hashlib.sha512(prefix + message).digest(), "little") % ORDER
    r = edwards_encode(edwards_multiply(nonce, BASE))
    s = (nonce + _ed25519_challenge(r, public, message) * scalar) % ORDER
    return r + s.to_bytes(32, "little")


@cache
def ed25519_verify(public: bytes, message: bytes, signature: bytes) -> None:
    demand(len(signature) == 64, "a signature is 64 bytes")
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    demand(s < ORDER, "a signature's scalar is not reduced")
    left = edwards_multiply(s, BASE)
    right = edwards_add(
        edwards_decode(r), edwards_multiply(_ed25519_challenge(r, public, message), edwards_decode(public))
    )
    demand(edwards_encode(left) == edwards_encode(right), "the signature does not verify")


def check_owner(public: bytes, message: bytes, signature: bytes) -> None:
    """An Ed25519 signature under one of the two points with this u-coordinate: y = (u - 1) / (u + 1)."""
    u, p = int.from_bytes(public, "little"), 2**255 - 19
    y = (u - 1) * pow(u + 1, -1, p) % p
    try:
        ed25519_verify(y.to_bytes(32, "little"), message, signature)
    except Refused:
        ed25519_verify((y + 2**255).to_bytes(32, "little"), message, signature)


# --- symmetric: RFC 5869, SP 800-38A, SP 800-38D --------------------------------------------------------


def hkdf_sha256(secret: bytes, info: bytes) -> bytes:
    """HKDF-SHA256 with no salt and 32 bytes of output."""
    extracted = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


def aes_block(key: bytes) -> Callable[[int], int]:
    """The AES permutation under ``key``, on 128-bit big-endian numbers."""
    cipher = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return lambda block: int.from_bytes(cipher.update(block.to_bytes(16, "big")), "big")


def keystream_words(seed: bytes, count: int) -> list[int]:
    """AES-256 of the counters 0, 1, 2, ..., as little-endian 64-bit words."""
    demand(len(seed) == 32, "a seed is 32 bytes")
    permute = aes_block(seed)
    stream = b"".join(permute(i).to_bytes(16, "big") for i in range((count + 1) // 2))
    return [int.from_bytes(stream[8 * i : 8 * i + 8], "little") for i in range(count)]


def _gcm_multiply(x: int, y: int) -> int:
    """GF(2^128) with the bits of SP 800-38D: the leftmost is the constant term."""
    result = 0
    for i in range(127, -1, -1):
        if x >> i & 1:
            result ^= y
        y = y >> 1 ^ (0xE1 << 120 if y & 1 else 0)
    return result


def _gcm(key: bytes, text: bytes, associated: bytes, *, encrypting: bool) -> tuple[bytes, bytes]:
    """The other text and the tag, for the all-zero 96-bit nonce."""
    permute = aes_block(key)
    stream = b"".join(permute(2 + i).to_bytes(16, "big") for i in range(-(-len(text) // 16)))
    other = bytes(a ^ b for a, b in zip(text, stream, strict=False))
    cipher_text = other if encrypting else text
    padded = [data + bytes(-len(data) % 16) for data in (associated, cipher_text)]
    lengths = (8 * len(associated)).to_bytes(8, "big") + (8 * len(cipher_text)).to_bytes(8, "big")
    data, h, state = b"".join(padded) + lengths, permute(0), 0
    for i in range(0, len(data), 16):
        state = _gcm_multiply(state ^ int.from_bytes(data[i : i + 16], "big"), h)
    return other, (state ^ permute(1)).to_bytes(16, "big")


def gcm_seal(key: bytes, plain: bytes, associated: bytes) -> bytes:
    sealed, tag = _gcm(key, plain, associated, encrypting=True)
    return sealed + tag


def gcm_open(key: bytes, sealed: bytes, associated: bytes) -> bytes:
    demand(len(sealed) >= 16, "shorter than a tag")
    plain, tag = _gcm(key, sealed[:-16], associated, encrypting=False)
    demand(tag == sealed[-16:], "the sealed message does not open")
    return plain


# --- sharing and packing --------------------------------------------------------------------------------

FIELD = 2**256 + 297


def field_elements(count: int, rng: Callable[[int], bytes]) -> list[int]:
    """33 bytes a draw, all that are missing at once; draws of 255·FIELD and above are dropped."""
    found: list[int] = []
    while len(found) < count:
        drawn = rng(33 * (count - len(found)))
        for i in range(0, len(drawn), 33):
            value = int.from_bytes(drawn[i : i + 33], "big")
            if value < 255 * FIELD:
                found.append(value % FIELD)
    return found


def shamir_split(
    secret: bytes, threshold: int, xs: list[int], rng: Callable[[int], bytes]
) -> dict[int, bytes]:
    """The first coefficient drawn is that of the highest power."""
    coefficients = [int.from_bytes(secret, "big"), *reversed(field_elements(threshold - 1, rng))]
    return {
        x: (sum(c * x**power for power, c in enumerate(coefficients)) % FIELD).to_bytes(33, "big") for x in xs
    }


def shamir_combine(shares: dict[int, bytes], threshold: int) -> bytes:
    demand(len(shares) >= threshold, "too few shares")
    points = {}
    for x, share in shares.items():
        demand(0 < x < 2**32, "a share's point is out of range")
        demand(len(share) == 33, "a share is 33 bytes")
        points[x] = int.from_bytes(share, "big")
        demand(points[x] < FIELD, "a share is not below the field's order")
    xs = sorted(points)[:threshold]
    secret = 0
    for xi in xs:
        term = points[xi]
        for xj in xs:
            if xj != xi:
                term = term * xj * pow(xj - xi, -1, FIELD) % FIELD
        secret = (secret + term) % FIELD
    demand(secret < 2**256, "the shares give no 32-byte string")
    return secret.to_bytes(32, "big")


def digits_per_word(largest_total: int) -> int:
    k = 0
    while (largest_total + 1) ** (k + 1) <= 2**64:
        k += 1
    return k


def word_count(dimension: int, largest_total: int) -> int:
    """Words that hold coordinates; the sentinel comes after them."""
    return -(-dimension // digits_per_word(largest_total))


def pack(values: list[int], largest_total: int, bound: int) -> list[int]:
    width = word_count(len(values), largest_total)
    words = [0] * width
    for j, value in enumerate(values):
        demand(0 <= value <= bound, "a value is out of range")
        words[j % width] += value * (largest_total + 1) ** (j // width)
    return [*words, 1, sum(values) % 2**64]


def unpack(words: list[int], dimension: int, largest_total: int, bound: int, survivors: int) -> list[int]:
    demand(words[-2] == survivors, "the sentinel does not count the survivors")
    width, base = word_count(dimension, largest_total), largest_total + 1
    counts = []
    for digit in range(digits_per_word(largest_total)):
        counts += [word // base**digit % base for word in words[:width]]
    demand(
        all(word < base ** digits_per_word(largest_total) for word in words[:width]), "a word is too large"
    )
    demand(not any(counts[dimension:]), "padding is not zero")
    demand(all(count <= bound * survivors for count in counts), "a count is too large")
    demand(words[-1] == sum(counts) % 2**64, "the checksum is not the sum of the counts")
    return counts[:dimension]
