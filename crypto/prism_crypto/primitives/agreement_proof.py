"""Proof that a value is the X25519 agreement of two public keys, without either private key.

A client that was sent something else than a share must show it to people who hold no secret. It reveals
what it agreed on with the sender, one point S of Curve25519, and proves that S is what its own key and the
sender's give: equality of two discrete logarithms (Chaum and Pedersen, CRYPTO 1992), made non-interactive by
a hash (Fiat and Shamir 1986). Nothing but S leaves, and the sender knows S already: its advert carries a
proof that it knows its private key (`check_owner`), without which it could advertise a multiple of a victim's
key, and S would tell what the victim agreed on; and what it sent is signed with that key
(`check_key_signature`), so nobody else has said it in its name.

X25519 knows points by their u-coordinate alone; here they are points (x, y) of the birationally equivalent
Edwards curve (RFC 7748, section 4.1), with the even x. A private key is a multiple of 8, a = 8·a'. With A and
B the two public keys as points, G the base point and ℓ its prime order, A = a'·8G and S = a'·8B. All four lie
in the subgroup of order ℓ, also where a cheat has added a point of small order to B, so a' mod ℓ is one
number and S is the only point for which the proof exists. A key that is no point of the curve but of its
twist has no proof: no honest client makes one (`curve_point`).

Arithmetic is in Python integers, some milliseconds a proof. Proofs are made when somebody cheats, else never.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from functools import lru_cache
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from prism_crypto.errors import PublicKeyError, SignatureError
from prism_crypto.primitives.context import label

__all__ = [
    "OWNER_BYTES",
    "PROOF_BYTES",
    "KeyVerifier",
    "agreed_point",
    "check_key_signature",
    "check_owner",
    "claimed_agreement",
    "curve_point",
    "prove_agreement",
    "small_order",
]

OWNER_BYTES = 64
"""An Ed25519 signature."""

PROOF_BYTES = 96
"""S as an Edwards point (RFC 8032, section 5.1.2), the challenge, the response: 32 bytes each."""

_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_ROOT = pow(2, (_P - 1) // 4, _P)
"""A square root of -1."""

Point: TypeAlias = tuple[int, int, int, int]
"""(X, Y, Z, T) with x = X/Z, y = Y/Z and xy = T/Z."""

_NEUTRAL: Point = (0, 1, 1, 0)


@lru_cache(maxsize=1024)
def curve_point(public: bytes) -> Point:
    """The Edwards point of even x with this u-coordinate: y = (u-1)/(u+1).

    Args:
        public: a canonical u-coordinate, 32 bytes.

    Raises:
        PublicKeyError: it is that of no point of Curve25519: of its twist, or -1.
    """
    u = int.from_bytes(public, "little")
    point = None if u >= _P - 1 else _with_x((u - 1) * pow(u + 1, -1, _P) % _P, 0)
    if point is None:
        raise PublicKeyError("a public key is no point of Curve25519")
    return point


def check_owner(point: Point, body: bytes, proof: bytes) -> None:
    """Return if whoever made the proof knows the private half of an X25519 key.

    The proof is an Ed25519 signature, and so one of knowledge of a discrete logarithm (Schnorr 1991), under
    the Edwards point with the key's u-coordinate: of the two, one is the signer's.

    Args:
        point: `curve_point` of the key.
        body: what the proof is bound to: ctx0 and the owner's id.
        proof: of `prism_crypto.primitives.keys.SealingKeyPair.sign`, for the usage ``"owner"``.

    Raises:
        PublicKeyError: it shows no such thing.
    """
    if not any(_verifies(signer, label("owner") + body, proof) for signer in _both_points(point[1])):
        raise PublicKeyError("nothing shows that its sender knows the private half of a public key")


class KeyVerifier:
    """Checks what the owner of an X25519 key has signed, as in `check_owner`; the second time is quicker.

    Args:
        public: the key, 32 bytes.
    """

    __slots__ = ("_signers",)

    def __init__(self, public: bytes) -> None:
        y = _edwards_y(public)
        self._signers = _both_points(y) if y else []

    def check(self, usage: str, body: bytes, signature: bytes) -> None:
        """Return if the owner has signed this.

        Args:
            usage, body: what was signed.
            signature: of `prism_crypto.primitives.keys.SealingKeyPair.sign`.

        Raises:
            SignatureError: it does not verify under that key.
        """
        message = label(usage) + body
        for signer in self._signers:
            if _verifies(signer, message, signature):
                # First the next time. The other one stays: who knows the one scalar signs under both, and
                # what counts as signed may not depend on what was checked before.
                self._signers.sort(key=lambda each: each != signer)
                return
        raise SignatureError(
            f"the {usage} signature does not verify under the advertised sealing key; something on the way "
            "may have altered what it is under"
        )


def check_key_signature(public: bytes, usage: str, body: bytes, signature: bytes) -> None:
    """`KeyVerifier.check` of one signature under a key."""
    KeyVerifier(public).check(usage, body, signature)


@lru_cache(maxsize=1024)
def _edwards_y(public: bytes) -> int:
    """Worked out once: many clients of one process have the same neighbours.

    u = -1 has no y; 0 is that of a key of low order, which has signed nothing.
    """
    u = int.from_bytes(public, "little")
    return (u - 1) * pow(u + 1, -1, _P) % _P if (u + 1) % _P else 0


def _both_points(y: int) -> list[bytes]:
    """The encodings of the two Edwards points with this y."""
    return [encoded.to_bytes(32, "little") for encoded in (y, y | 1 << 255)]


def _verifies(signer: bytes, message: bytes, signature: bytes) -> bool:
    with suppress(InvalidSignature, ValueError):
        Ed25519PublicKey.from_public_bytes(signer).verify(signature, message)
        return True
    return False


def small_order(encoded: bytes) -> bool:
    """Whether 32 bytes encode an Edwards point of order 1, 2, 4 or 8, or are no canonical encoding.

    With such an Ed25519 public key there are signatures that hold for many messages, or for all.
    """
    y = int.from_bytes(encoded, "little") & (2**255 - 1)
    if y >= _P:
        return True
    # y = 0 has order 4, y = ±1 order 2 and 1; a point of order 8 doubles to one with y = 0: with
    # x² = -y² that is d·y⁴ + 2·y² - 1 = 0.
    return y in {0, 1, _P - 1} or (_D * pow(y, 4, _P) + 2 * y * y - 1) % _P == 0


def prove_agreement(private: bytes | bytearray, ours: bytes, theirs: bytes, context: bytes) -> bytes:
    """Show what the owner of ``ours`` agrees on with the owner of ``theirs``.

    Args:
        private: 32 bytes, the X25519 private key of ``ours``.
        ours: this client's public key.
        theirs: the other one's, of the curve.
        context: ctx1; a proof is good for one session.

    Returns:
        96 bytes, for `agreed_point`.

    Raises:
        PublicKeyError: ``theirs`` is on the twist, or of low order.
    """
    scalar = (int.from_bytes(private, "little") & (2**255 - 8) | 2**254) >> 3
    base, other = _times(8, _BASE), _times(8, curve_point(theirs))
    if _encoded(other) == _encoded(_NEUTRAL):
        raise PublicKeyError("a public key of low order agrees on the same key with everybody")
    if _encoded(_times(scalar, base)) != _encoded(curve_point(ours)):
        scalar = -scalar  # of the two points with this u-coordinate, the other one
    scalar %= _ORDER
    shared = _encoded(_times(scalar, other))
    # Derived, not drawn: no two statements ever share a nonce (RFC 8032, section 5.1.6, does so too).
    secret = hashlib.sha512(label("agreement-nonce") + bytes(private) + theirs + context).digest()
    nonce = int.from_bytes(secret, "little") % _ORDER
    challenge = _challenge(
        context, ours, theirs, shared, _encoded(_times(nonce, base)), _encoded(_times(nonce, other))
    )
    answer = (nonce + challenge * scalar) % _ORDER
    return shared + challenge.to_bytes(32, "little") + answer.to_bytes(32, "little")


def agreed_point(proof: bytes, ours: bytes, theirs: bytes, context: bytes) -> bytes:
    """What two public keys agree on: 32 bytes, as X25519 gives them, if the proof holds.

    Args:
        proof: of `prove_agreement`.
        ours: public key of the one who made the proof.
        theirs: the other public key.
        context: ctx1.

    Raises:
        PublicKeyError: it does not hold, or there can be none for these keys.
    """
    if len(proof) != PROOF_BYTES:
        raise PublicKeyError(f"a proof of agreement is {PROOF_BYTES} bytes, not {len(proof)}")
    shared = _decoded(proof[:32])
    challenge, answer = (int.from_bytes(proof[i : i + 32], "little") for i in (32, 64))
    own, other = curve_point(ours), _times(8, curve_point(theirs))
    if shared is None or answer >= _ORDER or challenge >= _ORDER or any(map(_outside, (shared, own))):
        raise PublicKeyError("the proof of agreement is malformed")
    first = _plus(_times(answer, _times(8, _BASE)), _times(_ORDER - challenge, own))
    second = _plus(_times(answer, other), _times(_ORDER - challenge, shared))
    if challenge != _challenge(context, ours, theirs, proof[:32], _encoded(first), _encoded(second)):
        raise PublicKeyError("the proof of agreement does not hold")
    return claimed_agreement(proof)


def claimed_agreement(proof: bytes) -> bytes:
    """What a proof says that two keys agree on, 32 bytes as X25519 gives them, whether it holds or not."""
    y = int.from_bytes(proof[:32], "little") & (2**255 - 1)
    return ((1 + y) * pow(1 - y, _P - 2, _P) % _P).to_bytes(32, "little")


def _challenge(context: bytes, *points: bytes) -> int:
    hashed = hashlib.sha512(label("agreement") + context + b"".join(points)).digest()
    return int.from_bytes(hashed, "little") % _ORDER


def _outside(point: Point) -> bool:
    """Whether a point is not in the subgroup of order ℓ, or is neutral."""
    return _encoded(_times(_ORDER, point)) != _encoded(_NEUTRAL) or _encoded(point) == _encoded(_NEUTRAL)


def _decoded(encoded: bytes) -> Point | None:
    """The point that `_encoded` wrote, None if it wrote none such."""
    value = int.from_bytes(encoded, "little")
    y = value & (2**255 - 1)
    return None if y >= _P else _with_x(y, value >> 255)


def _with_x(y: int, odd: int) -> Point | None:
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT % _P
    if (x * x - square) % _P or (x == 0 and odd):
        return None
    if x % 2 != odd:
        x = _P - x
    return x, y, 1, x * y % _P


def _encoded(point: Point) -> bytes:
    inverse = pow(point[2], -1, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | x % 2 << 255).to_bytes(32, "little")


def _plus(p: Point, q: Point) -> Point:
    """RFC 8032, section 5.1.4; complete: any two points, equal ones too."""
    a = (p[1] - p[0]) * (q[1] - q[0]) % _P
    b = (p[1] + p[0]) * (q[1] + q[0]) % _P
    c = 2 * p[3] * q[3] * _D % _P
    d = 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _twice(p: Point) -> Point:
    """RFC 8032, section 5.1.4: half of an addition."""
    a, b = p[0] * p[0] % _P, p[1] * p[1] % _P
    h, g = a + b, a - b
    e, f = h - (p[0] + p[1]) ** 2 % _P, 2 * p[2] * p[2] % _P + g
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _times(scalar: int, point: Point) -> Point:
    result = _NEUTRAL
    while scalar:
        if scalar & 1:
            result = _plus(result, point)
        point, scalar = _twice(point), scalar >> 1
    return result


_BASE = curve_point((9).to_bytes(32, "little"))
