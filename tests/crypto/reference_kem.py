"""ML-KEM-768 a second time, from FIPS 203: slow, obvious, in Python integers. Not for use.

Beside it, as `docs/secure-sum.md` describes them, the derivations of hybrid sessions.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import cache

from reference_primitives import demand, hkdf_sha256

Q, N, K = 3329, 256, 3
Poly = list[int]


def _reversed7(i: int) -> int:
    return int(f"{i:07b}"[::-1], 2)


ZETAS = [pow(17, _reversed7(i), Q) for i in range(128)]
GAMMAS = [pow(17, 2 * _reversed7(i) + 1, Q) for i in range(128)]


def ntt(f: Poly) -> Poly:
    f, i, length = list(f), 1, 128
    while length >= 2:
        for start in range(0, N, 2 * length):
            zeta, i = ZETAS[i], i + 1
            for j in range(start, start + length):
                t = zeta * f[j + length]
                f[j + length], f[j] = (f[j] - t) % Q, (f[j] + t) % Q
        length //= 2
    return f


def inverse_ntt(f: Poly) -> Poly:
    f, i, length = list(f), 127, 2
    while length <= 128:
        for start in range(0, N, 2 * length):
            zeta, i = ZETAS[i], i - 1
            for j in range(start, start + length):
                t = f[j]
                f[j], f[j + length] = (t + f[j + length]) % Q, zeta * (f[j + length] - t) % Q
        length *= 2
    return [value * 3303 % Q for value in f]


def times(f: Poly, g: Poly) -> Poly:
    out = []
    for i in range(128):
        a, b, c, d = f[2 * i], f[2 * i + 1], g[2 * i], g[2 * i + 1]
        out += [(a * c + b * d * GAMMAS[i]) % Q, (a * d + b * c) % Q]
    return out


def plus(*polys: Poly) -> Poly:
    return [sum(column) % Q for column in zip(*polys, strict=True)]


def dot(row: list[Poly], column: list[Poly]) -> Poly:
    return plus(*(times(f, g) for f, g in zip(row, column, strict=True)))


def encode(f: Poly, bits: int) -> bytes:
    return sum(value << bits * i for i, value in enumerate(f)).to_bytes(32 * bits, "little")


def decode(data: bytes, bits: int) -> Poly:
    number = int.from_bytes(data, "little")
    return [number >> bits * i & (1 << bits) - 1 for i in range(N)]


def compress(f: Poly, bits: int) -> Poly:
    return [((value << bits + 1) + Q) // (2 * Q) % (1 << bits) for value in f]


def decompress(f: Poly, bits: int) -> Poly:
    return [(2 * Q * value + (1 << bits)) >> bits + 1 for value in f]


def small(seed: bytes, number: int) -> Poly:
    """Coefficients from -2 to 2."""
    bits = decode(hashlib.shake_256(seed + bytes([number])).digest(128), 4)
    return [((v & 1) + (v >> 1 & 1) - (v >> 2 & 1) - (v >> 3)) % Q for v in bits]


@cache
def matrix(rho: bytes) -> list[list[Poly]]:
    def uniform(i: int, j: int) -> Poly:
        stream, found = hashlib.shake_128(rho + bytes([j, i])).digest(3 * 400), []
        for a, b, c in zip(stream[::3], stream[1::3], stream[2::3], strict=True):
            found += [value for value in (a + 256 * (b % 16), b // 16 + 16 * c) if value < Q]
        return found[:N]

    return [[uniform(i, j) for j in range(K)] for i in range(K)]


def g(data: bytes) -> tuple[bytes, bytes]:
    hashed = hashlib.sha3_512(data).digest()
    return hashed[:32], hashed[32:]


@cache
def generate(seed: bytes) -> tuple[bytes, tuple[tuple[int, ...], ...]]:
    """The public key, and the secret vector, of 64 bytes d and z; section 5.1."""
    rho, sigma = g(seed[:32] + bytes([K]))
    s, e = ([ntt(small(sigma, start + i)) for i in range(K)] for start in (0, K))
    t = [plus(dot(row, s), e[i]) for i, row in enumerate(matrix(rho))]
    return b"".join(encode(f, 12) for f in t) + rho, tuple(map(tuple, s))


@cache
def encrypt(public: bytes, message: bytes, coins: bytes) -> bytes:
    t, rho = [decode(public[384 * i : 384 * (i + 1)], 12) for i in range(K)], public[384 * K :]
    y = [ntt(small(coins, i)) for i in range(K)]
    columns = list(zip(*matrix(rho), strict=True))
    u = [plus(inverse_ntt(dot(list(columns[i]), y)), small(coins, K + i)) for i in range(K)]
    v = plus(inverse_ntt(dot(t, y)), small(coins, 2 * K), decompress(decode(message, 1), 1))
    return b"".join(encode(compress(f, 10), 10) for f in u) + encode(compress(v, 4), 4)


def encapsulate(public: bytes, message: bytes) -> tuple[bytes, bytes]:
    """Secret and ciphertext, of 32 random bytes."""
    check_key(public)
    secret, coins = g(message + hashlib.sha3_256(public).digest())
    return secret, encrypt(public, message, coins)


def check_key(public: bytes) -> None:
    demand(len(public) == 1184, "an ML-KEM key's length")
    demand(all(v < Q for i in range(K) for v in decode(public[384 * i : 384 * (i + 1)], 12)), "reduced")


@cache
def decapsulate(seed: bytes, ciphertext: bytes) -> bytes:
    public, s = generate(seed)
    u = [ntt(decompress(decode(ciphertext[320 * i : 320 * (i + 1)], 10), 10)) for i in range(K)]
    w = inverse_ntt(dot([list(f) for f in s], u))
    v = decompress(decode(ciphertext[320 * K :], 4), 4)
    message = encode(compress([(a - b) % Q for a, b in zip(v, w, strict=True)], 1), 1)
    secret, coins = g(message + hashlib.sha3_256(public).digest())
    if encrypt(public, message, coins) != ciphertext:
        return hashlib.shake_256(seed[32:] + ciphertext).digest(32)
    return secret


# --- hybrid sessions --------------------------------------------------------------------------------------


def label(usage: str) -> bytes:
    return b"prism-crypto/v2+ml-kem-768/" + usage.encode() + b"\0"


def pair(context: bytes, sender: int, receiver: int) -> bytes:
    return context + sender.to_bytes(4, "big") + receiver.to_bytes(4, "big")


def mask_key(root: bytes) -> bytes:
    return hkdf_sha256(root, label("mask-key"))


def mask_kem_seed(root: bytes) -> bytes:
    return hkdf_sha256(root, label("kem-d")) + hkdf_sha256(root, label("kem-z"))


def part(root: bytes, context: bytes, sender: int, receiver: int) -> bytes:
    return hkdf_sha256(root, label("part") + pair(context, sender, receiver))


def hashed(usage: str, context: bytes, sender: int, receiver: int, secret: bytes) -> bytes:
    return hashlib.sha256(label(usage) + pair(context, sender, receiver) + secret).digest()


def wrapped(value: bytes, secret: bytes, where: bytes, ciphertext: bytes) -> bytes:
    stream = hkdf_sha256(secret, label("wrap") + where + hashlib.sha256(ciphertext).digest())
    return bytes(a ^ b for a, b in zip(value, stream, strict=True))


def combined(secret: bytes, shared: bytes, info: bytes) -> bytes:
    """HKDF of a secret and of what HKDF extracts from an X25519 agreement."""
    return hkdf_sha256(secret + hmac.digest(bytes(32), shared, "sha256"), info)


def seal_keys(
    shared: bytes,
    secret: bytes,
    ciphertext: bytes,
    context: bytes,
    ends: tuple[int, int],
    keys: tuple[bytes, bytes],
) -> list[bytes]:
    info = pair(context, *ends) + keys[0] + keys[1] + hashlib.sha256(ciphertext).digest()
    return [combined(secret, shared, label(usage) + info) for usage in ("seal-seed", "seal-key")]


def pair_seed(
    shared: bytes, parts: list[bytes], context: bytes, ids: tuple[int, int], keys: tuple[bytes, bytes]
) -> bytes:
    both = b"".join(len(each).to_bytes(4, "big") + each for each in parts)
    return combined(both, shared, label("pair") + pair(context, *ids) + keys[0] + keys[1])
