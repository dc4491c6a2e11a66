"""Key agreement, key derivation and the sealing of shares.

Each client draws two X25519 pairs (RFC 7748) a session: one for sealing shares, one for pairwise masks. They
are two, because the mask key of a client that drops is reconstructed by the server, and the shares
that were sealed to it must stay closed. Derivation is HKDF-SHA256 (RFC 5869) with an empty salt; sealing is
AES-256-GCM under a key for one share in one direction of one pair in one session, used for one message with a
zero nonce.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from prism_crypto.errors import PublicKeyError, SealError
from prism_crypto.primitives.context import label, u32
from prism_crypto.primitives.randomness import Rng, draw
from prism_crypto.primitives.secret import Confidential, Secret

__all__ = [
    "KEY_BYTES",
    "SEAL_OVERHEAD",
    "VOUCHER_BYTES",
    "AgreedKey",
    "KeyPair",
    "SealingKeyPair",
    "check_public_key",
    "open_sealed",
    "pair_seed",
    "seal",
    "seal_keys",
    "voucher",
]

KEY_BYTES = 32
SEAL_OVERHEAD = 16
"""Bytes that sealing adds: the tag of AES-GCM."""

VOUCHER_BYTES = 16

_FIELD_ORDER = 2**255 - 19
_EMPTY_SALT = bytes(32)
_ZERO_NONCE = bytes(12)


def check_public_key(public: bytes) -> None:
    """Accept only the one canonical encoding of a u-coordinate.

    X25519 itself ignores the top bit and reduces modulo 2^255 - 19, so that a key has several spellings; here
    public keys are hashed, compared and signed, and one key must be one byte string.

    Raises:
        PublicKeyError: wrong length, or not reduced.
    """
    if len(public) != KEY_BYTES or int.from_bytes(public, "little") >= _FIELD_ORDER:
        raise PublicKeyError("a public key is not the canonical encoding of a point on Curve25519")


class AgreedKey(Confidential):
    """The pseudo-random key that two clients share, extracted from one X25519 agreement."""

    __slots__ = ("_prk",)

    def __init__(self, shared: bytes) -> None:
        """From the 32 bytes that X25519 gives."""
        self._prk = Secret(hmac.digest(_EMPTY_SALT, shared, "sha256"))

    def derive(self, info: bytes) -> bytes:
        """32 bytes for the purpose ``info`` (HKDF-Expand, one block)."""
        return hmac.digest(self._prk.reveal(), info + b"\x01", "sha256")

    def combined(self, secret: bytes) -> AgreedKey:
        """A key that is secret while either this one or ``secret`` is: HKDF-Extract of both.

        Both are in the message, under an empty salt: HMAC is taken for an extractor, or a random oracle.
        """
        return AgreedKey(secret + bytes(self._prk.reveal()))

    def erase(self) -> None:
        """Overwrite the key."""
        self._prk.erase()


class KeyPair(Confidential):
    """One X25519 key pair of one session.

    Attributes:
        public: the canonical 32-byte public key.
    """

    __slots__ = ("_key", "_private", "public")

    def __init__(self, private: bytes | bytearray) -> None:
        self._private = Secret(private)
        self._key: X25519PrivateKey | None = X25519PrivateKey.from_private_bytes(bytes(private))
        self.public = self._key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls, rng: Rng) -> Self:
        """Draw a fresh pair."""
        return cls(draw(rng, KEY_BYTES))

    def private(self) -> bytearray:
        """The private key's bytes, for sharing them out; not a copy."""
        return self._private.reveal()

    def agree(self, public: bytes) -> AgreedKey:
        """Agree on a key with the owner of ``public``.

        Raises:
            PublicKeyError: ``public`` is a point of low order, which would give the same key to everybody.
        """
        if self._key is None:
            raise PublicKeyError("the private key has been erased")
        try:
            shared = self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            shared = None
        if shared is None:
            raise PublicKeyError("a public key of low order agrees on the same key with everybody")
        return AgreedKey(shared)

    def erase(self) -> None:
        """Overwrite the private bytes and drop the key object."""
        self._private.erase()
        self._key = None


class SealingKeyPair(KeyPair):
    """A pair whose owner can sign, and show so that it knows the private half: an Ed25519 key's scalar.

    Both come from one seed (RFC 8032, section 5.1.5), as libsodium converts keys; using the two together is
    sound (Thormarker 2021).
    """

    __slots__ = ("_seed",)

    def __init__(self, seed: bytes | bytearray) -> None:
        super().__init__(hashlib.sha512(seed).digest()[:KEY_BYTES])
        self._seed = Secret(seed)

    def sign(self, usage: str, body: bytes) -> bytes:
        """64 bytes, for `prism_crypto.primitives.agreement_proof.check_key_signature` and `check_owner`."""
        return Ed25519PrivateKey.from_private_bytes(bytes(self._seed.reveal())).sign(label(usage) + body)

    def erase(self) -> None:
        """Overwrite the seed, too."""
        super().erase()
        self._seed.erase()


def seal_keys(
    agreed: AgreedKey, context: bytes, ends: tuple[int, int], keys: tuple[bytes, bytes]
) -> tuple[bytes, bytes]:
    """Keys for the two messages that go from ``ends[0]`` to ``ends[1]`` in this session.

    They are two, because the receiver reveals one of them at unmask, and the other message must stay closed.

    Args:
        agreed: the agreement of the two sealing keys.
        context: ctx1.
        ends: ids of sender and receiver.
        keys: their public sealing keys, in that order.

    Returns:
        32 bytes for the share of the self-mask seed, 32 for the share of the mask key.
    """
    info = context + u32(ends[0]) + u32(ends[1]) + keys[0] + keys[1]
    return agreed.derive(label("seal-seed") + info), agreed.derive(label("seal-key") + info)


def _sealed_for(context: bytes, ends: tuple[int, int]) -> bytes:
    return label("sealed") + context + u32(ends[0]) + u32(ends[1])


def seal(key: bytes, context: bytes, ends: tuple[int, int], plain: bytes) -> bytes:
    """Seal one message; ``key`` is one of `seal_keys` and seals nothing else.

    Returns:
        ``len(plain) + 16`` bytes.
    """
    return AESGCM(key).encrypt(_ZERO_NONCE, plain, _sealed_for(context, ends))


def open_sealed(key: bytes, context: bytes, ends: tuple[int, int], sealed: bytes) -> bytes:
    """Open what `seal` made with the same arguments.

    Raises:
        SealError: it does not open; ``peer`` is the sender.
    """
    try:
        return AESGCM(key).decrypt(_ZERO_NONCE, sealed, _sealed_for(context, ends))
    except InvalidTag:
        pass
    raise SealError(
        f"the share that client {ends[0]} sealed for client {ends[1]} does not open", peer=ends[0]
    )


def pair_seed(agreed: AgreedKey, context: bytes, ids: tuple[int, int], keys: tuple[bytes, bytes]) -> bytes:
    """Seed of the mask that two clients share; the lower id adds it, the higher subtracts it.

    Args:
        agreed: the agreement of the two mask keys.
        context: ctx1.
        ids: the two ids, lower first.
        keys: their public mask keys, in the same order.
    """
    return agreed.derive(label("pair") + context + u32(ids[0]) + u32(ids[1]) + keys[0] + keys[1])


def voucher(agreed: AgreedKey, usage: str, context: bytes, ends: tuple[int, int]) -> bytes:
    """What ``ends[0]`` says to ``ends[1]``: 16 bytes that nobody but these two can compute.

    Args:
        agreed: the agreement of their sealing keys.
        usage: the statement, one of a fixed list.
        context: ctx1 of the two.
        ends: ids of the one who says it and of the one to whom.
    """
    return agreed.derive(label(usage) + context + u32(ends[0]) + u32(ends[1]))[:VOUCHER_BYTES]
