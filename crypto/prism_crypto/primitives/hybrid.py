"""X25519 and ML-KEM-768 together: keys that last when either of the two falls.

Who records a session today may break X25519 later, on a quantum computer; ML-KEM (FIPS 203) may fall to an
idea. So what two clients agree on by X25519 and what one sends the other by ML-KEM go into one HKDF, and its
output is secret while either input is (the concatenation of draft-ietf-tls-hybrid-design; the ciphertext and,
through ctx1, all public keys are in the derivation, as Giacon, Heuer and Poettering, PKC 2018, ask of a
combiner and X-Wing, draft-connolly-cfrg-xwing-kem, leaves out only where ML-KEM makes it needless).

Nothing rests on ML-KEM alone: where its secrets are known, all is as with X25519.

**The mask key.** What t others reconstruct for a client that drops is a *root* of 32 bytes here. The X25519
mask key and the ML-KEM key for masks are derived from it one way. The root must not be the X25519 key itself:
who takes a discrete logarithm has that, and would have the rest with it.

**The mask.** ML-KEM has no agreement without a message, and the seed of a pairwise mask must be computable
from either one's root and what the server has recorded. So a dealer i derives a *part* for each holder j from
its root, and sends it under what it encapsulates to j's key for masks: i's root gives the part, and j's root
opens it. The mask of two clients depends on the parts of those of the two that deal to the other.

**The seals.** They take a second encapsulation, to j's sealing key, which is derived from nothing that is
shared out: while roots of dropped clients open, the shares that were sealed for them stay closed.

The dealer signs the hash of the secret under its seals, and that of the part. So a holder that complains
shows the secret, and everybody sees that it is the one which the dealer meant (`Encapsulated.shows`).
A holder sees its own record only, so it cannot check a signature over all that is dealt. In active sessions
each record is signed by itself, too, and a holder puts on no mask that its dealer has not signed.

The randomness of an encapsulation is drawn by OpenSSL, whatever ``rng`` a client has.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from functools import cache, lru_cache
from typing import NamedTuple, Self

import cryptography
from cryptography.exceptions import UnsupportedAlgorithm

from prism_crypto.errors import PolicyError, PublicKeyError
from prism_crypto.primitives.context import u32, variable
from prism_crypto.primitives.keys import KEY_BYTES, AgreedKey, KeyPair, SealingKeyPair
from prism_crypto.primitives.randomness import Rng, draw
from prism_crypto.primitives.secret import Confidential, Secret

try:
    from cryptography.hazmat.primitives.asymmetric import mlkem
except ImportError:  # an older `cryptography`: `check_available` says so
    mlkem = None  # type: ignore[assignment]

__all__ = [
    "CIPHERTEXT_BYTES",
    "ENCAPSULATED_BYTES",
    "KEM_KEY_BYTES",
    "KEM_SECRET_BYTES",
    "KEM_SEED_BYTES",
    "Encapsulated",
    "HybridMaskPair",
    "HybridSealingPair",
    "Kem",
    "available",
    "check_available",
    "check_kem_key",
    "encapsulate_for",
    "hybrid_label",
    "hybrid_pair_seed",
    "hybrid_seal_keys",
]

KEM_KEY_BYTES = 1184
KEM_SECRET_BYTES = 32
KEM_SEED_BYTES = 64
CIPHERTEXT_BYTES = 1088

_FORM = struct.Struct(f"{CIPHERTEXT_BYTES}s{CIPHERTEXT_BYTES}s32s32s32s")

ENCAPSULATED_BYTES = _FORM.size
"""What one client adds to the sealed shares for another."""


@cache
def hybrid_label(usage: str) -> bytes:
    """The domain separator of one usage in hybrid sessions: a version string of their own."""
    return b"prism-crypto/v2+ml-kem-768/" + usage.encode() + b"\0"


@cache
def available() -> bool:
    """Whether the `cryptography` that is installed, and the library under it, have ML-KEM-768."""
    try:
        return mlkem is not None and bool(mlkem.MLKEM768PrivateKey.from_seed_bytes(bytes(KEM_SEED_BYTES)))
    except UnsupportedAlgorithm:
        return False


def check_available() -> None:
    """Return if hybrid sessions can be had here.

    Raises:
        PolicyError: they can't; it says what is needed.
    """
    if not available():
        raise PolicyError(
            "hybrid keys need ML-KEM-768, which cryptography "
            f"{cryptography.__version__} does not have here: pip install --upgrade cryptography (50 has it)"
        )


@lru_cache(maxsize=1024)
def _kem_key(public: bytes) -> mlkem.MLKEM768PublicKey:
    """Read once: who checks a key uses it later, and many clients of one process have the same neighbours."""
    return mlkem.MLKEM768PublicKey.from_public_bytes(public)


def check_kem_key(public: bytes) -> None:
    """Accept only an encoding of an ML-KEM-768 public key (FIPS 203, section 7.2: length and modulus).

    Raises:
        PublicKeyError: it is none.
    """
    try:
        _kem_key(public)
    except ValueError:
        pass
    else:
        return
    raise PublicKeyError("a public key is not the encoding of one of ML-KEM-768")


def encapsulate(public: bytes) -> tuple[bytes, bytes]:
    """A fresh secret, 32 bytes, and the ciphertext from which the owner of ``public`` has it."""
    secret, ciphertext = _kem_key(public).encapsulate()
    return secret, ciphertext


class Kem(Confidential):
    """The ML-KEM half of a key pair."""

    __slots__ = ("_key", "public")

    def __init__(self, seed: bytes) -> None:
        self._key: mlkem.MLKEM768PrivateKey | None = mlkem.MLKEM768PrivateKey.from_seed_bytes(seed)
        self.public = self._key.public_key().public_bytes_raw()

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """32 bytes: of a ciphertext that nobody encapsulated, ones that nobody knows (implicit rejection).

        Raises:
            PublicKeyError: the key has been erased.
        """
        if self._key is None:
            raise PublicKeyError("the private key has been erased")
        return self._key.decapsulate(ciphertext)

    def erase(self) -> None:
        self._key = None


class HybridSealingPair(SealingKeyPair):
    """A sealing key, and an ML-KEM key that has nothing to do with it.

    Attributes:
        kem: the ML-KEM half.
    """

    __slots__ = ("kem",)

    def __init__(self, seed: bytes | bytearray, kem_seed: bytes) -> None:
        super().__init__(seed)
        self.kem = Kem(kem_seed)

    @classmethod
    def generate(cls, rng: Rng) -> Self:
        """Draw a fresh pair: 32 bytes, then 64."""
        return cls(draw(rng, KEY_BYTES), draw(rng, KEM_SEED_BYTES))

    def erase(self) -> None:
        """Drop the ML-KEM key, too."""
        super().erase()
        self.kem.erase()


class HybridMaskPair(KeyPair):
    """A mask key and an ML-KEM key, both derived from one root, which is what a client shares out.

    Attributes:
        kem: the ML-KEM half.
    """

    __slots__ = ("_parts", "_root", "kem")

    def __init__(self, root: bytes | bytearray) -> None:
        derived = AgreedKey(bytes(root))
        super().__init__(derived.derive(hybrid_label("mask-key")))
        self._root = Secret(root)
        self._parts = derived
        self.kem = Kem(self.kem_seed())

    def private(self) -> bytearray:
        """The root; not a copy."""
        return self._root.reveal()

    def kem_seed(self) -> bytes:
        """The ML-KEM key's seed, `KEM_SEED_BYTES`: neither the root follows from it, nor the X25519 key."""
        return self._parts.derive(hybrid_label("kem-d")) + self._parts.derive(hybrid_label("kem-z"))

    def part(self, context: bytes, ends: tuple[int, int]) -> bytes:
        """What this client, ``ends[0]``, adds to the seed of its mask with ``ends[1]``: 32 bytes."""
        return self._parts.derive(hybrid_label("part") + _between(context, ends))

    def erase(self) -> None:
        """Overwrite the root and what is derived from it."""
        super().erase()
        self._root.erase()
        self._parts.erase()
        self.kem.erase()


class Encapsulated(NamedTuple):
    """What a dealer encapsulates to a holder, beside the sealed shares for it.

    ``sealing``: ciphertext to its sealing key. ``masking``: that to its key for masks. ``wrapped``: the part
    of their mask's seed, under the latter's secret. ``secret_hash``, ``part_hash``: what binds the dealer.
    """

    sealing: bytes
    masking: bytes
    wrapped: bytes
    secret_hash: bytes
    part_hash: bytes

    @classmethod
    def cut(cls, data: bytes) -> Encapsulated:
        """Read the first `ENCAPSULATED_BYTES` bytes."""
        return cls(*_FORM.unpack_from(data))

    def encode(self) -> bytes:
        """The fields one after another."""
        return b"".join(self)

    def shows(self, secret: bytes, context: bytes, ends: tuple[int, int]) -> bool:
        """Whether this is the secret that the dealer says to have encapsulated for its seals.

        Zeros never are: a holder shows them where it has another secret than the one that was signed, and
        a dealer that signed the hash of zeros would have it convicted of a false complaint.
        """
        hashed = _hash("secret-hash", context, ends, secret)
        return any(secret) and hmac.compare_digest(hashed, self.secret_hash)

    def names(self, part: bytes, context: bytes, ends: tuple[int, int]) -> bool:
        """Whether this is the part that the dealer says to have sent."""
        return hmac.compare_digest(_hash("part-hash", context, ends, part), self.part_hash)

    def part(self, kem: Kem, context: bytes, ends: tuple[int, int]) -> bytes | None:
        """The part, as the owner of ``kem`` has it; None if it is not the one that the dealer signed."""
        part = _wrapped(self.wrapped, kem.decapsulate(self.masking), self.masking, context, ends)
        return part if self.names(part, context, ends) else None


def encapsulate_for(
    masking: HybridMaskPair, keys: tuple[bytes, bytes], context: bytes, ends: tuple[int, int]
) -> tuple[bytes, Encapsulated]:
    """What a dealer sends to one holder, and the secret under its seals.

    Args:
        masking: the dealer's.
        keys: the holder's two ML-KEM public keys, for seals and for masks.
        context: ctx1 of the two.
        ends: ids of dealer and holder.

    Raises:
        PublicKeyError: a key is none.
    """
    for key in keys:
        check_kem_key(key)
    secret, sealing = encapsulate(keys[0])
    other, ciphertext = encapsulate(keys[1])
    part = masking.part(context, ends)
    return secret, Encapsulated(
        sealing,
        ciphertext,
        _wrapped(part, other, ciphertext, context, ends),
        _hash("secret-hash", context, ends, secret),
        _hash("part-hash", context, ends, part),
    )


def hybrid_seal_keys(
    agreed: AgreedKey,
    secret: bytes,
    ciphertext: bytes,
    context: bytes,
    ends: tuple[int, int],
    keys: tuple[bytes, bytes],
) -> tuple[bytes, bytes]:
    """As `prism_crypto.primitives.keys.seal_keys`, of what was agreed on and what was encapsulated.

    Args:
        agreed: the agreement of the two X25519 sealing keys.
        secret, ciphertext: of ML-KEM, from ``ends[0]`` to ``ends[1]``.
        context: ctx1 of the two.
        ends: ids of sender and receiver.
        keys: their X25519 sealing keys, in that order.
    """
    both = agreed.combined(secret)
    info = _between(context, ends) + keys[0] + keys[1] + hashlib.sha256(ciphertext).digest()
    pair = both.derive(hybrid_label("seal-seed") + info), both.derive(hybrid_label("seal-key") + info)
    both.erase()
    return pair


def hybrid_pair_seed(
    agreed: AgreedKey,
    parts: tuple[bytes, bytes],
    context: bytes,
    ids: tuple[int, int],
    keys: tuple[bytes, bytes],
) -> bytes:
    """As `prism_crypto.primitives.keys.pair_seed`, of the agreement and the parts of the two.

    Args:
        agreed: the agreement of the two X25519 mask keys.
        parts: what each of the two added, lower id first; empty of one that does not deal to the other.
        context: ctx1 of the two.
        ids: the two ids, lower first.
        keys: their X25519 mask keys, in the same order.
    """
    both = agreed.combined(b"".join(map(variable, parts)))
    seed = both.derive(hybrid_label("pair") + _between(context, ids) + keys[0] + keys[1])
    both.erase()
    return seed


def _between(context: bytes, ends: tuple[int, int]) -> bytes:
    return context + u32(ends[0]) + u32(ends[1])


def _hash(usage: str, context: bytes, ends: tuple[int, int], secret: bytes) -> bytes:
    return hashlib.sha256(hybrid_label(usage) + _between(context, ends) + secret).digest()


def _wrapped(part: bytes, secret: bytes, ciphertext: bytes, context: bytes, ends: tuple[int, int]) -> bytes:
    """The part under a secret that is used for nothing else; the same again takes it off."""
    info = _between(context, ends) + hashlib.sha256(ciphertext).digest()
    stream = AgreedKey(secret).derive(hybrid_label("wrap") + info)
    return bytes(a ^ b for a, b in zip(part, stream, strict=True))
