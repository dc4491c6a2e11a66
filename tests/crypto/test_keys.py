"""Key agreement, derivation and sealing, against the library's own HKDF and RFC 7748's bad points."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from prism_crypto.errors import PublicKeyError, SealError
from prism_crypto.primitives.keys import KeyPair, check_public_key, open_sealed, pair_seed, seal, seal_keys

ALICE, BOB = KeyPair(b"\x11" * 32), KeyPair(b"\x22" * 32)
CONTEXT = b"\xcc" * 32
ENDS, KEYS = (1, 2), (ALICE.public, BOB.public)
P = 2**255 - 19

LOW_ORDER = [
    value.to_bytes(32, "little")
    for value in (
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        P - 1,
    )
]


def hkdf(shared: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(shared)


def library_agreement() -> bytes:
    ours = X25519PrivateKey.from_private_bytes(b"\x11" * 32)
    return ours.exchange(X25519PublicKey.from_public_bytes(BOB.public))


def test_both_ends_derive_what_hkdf_derives():
    info = b"prism-crypto/v2/pair\0" + CONTEXT + b"\0\0\0\1" + b"\0\0\0\2" + ALICE.public + BOB.public
    expected = hkdf(library_agreement(), info)
    assert pair_seed(ALICE.agree(BOB.public), CONTEXT, ENDS, KEYS) == expected
    assert pair_seed(BOB.agree(ALICE.public), CONTEXT, ENDS, KEYS) == expected


def keys_of(pair: KeyPair, public: bytes, context=CONTEXT, ends=ENDS, keys=KEYS) -> tuple[bytes, bytes]:
    return seal_keys(pair.agree(public), context, ends, keys)


def test_both_ends_derive_the_same_two_keys_for_one_direction():
    info = CONTEXT + b"\0\0\0\1" + b"\0\0\0\2" + ALICE.public + BOB.public
    expected = tuple(
        hkdf(library_agreement(), b"prism-crypto/v2/" + usage + b"\0" + info)
        for usage in (b"seal-seed", b"seal-key")
    )
    assert keys_of(ALICE, BOB.public) == keys_of(BOB, ALICE.public) == expected


def test_sealing_is_gcm_with_the_ends_as_associated_data():
    associated = b"prism-crypto/v2/sealed\0" + CONTEXT + b"\0\0\0\1" + b"\0\0\0\2"
    for key in keys_of(ALICE, BOB.public):
        sealed = seal(key, CONTEXT, ENDS, b"shares")
        assert sealed == AESGCM(key).encrypt(bytes(12), b"shares", associated)
        assert open_sealed(key, CONTEXT, ENDS, sealed) == b"shares"


@pytest.mark.parametrize(
    ("context", "ends", "keys"),
    [
        (b"\xcd" * 32, ENDS, KEYS),
        (CONTEXT, (2, 1), KEYS),
        (CONTEXT, (1, 3), KEYS),
        (CONTEXT, ENDS, KEYS[::-1]),
    ],
    ids=["another session", "sent back to its sender", "misdirected", "keys exchanged"],
)
def test_what_was_sealed_elsewhere_does_not_open(context, ends, keys):
    first, second = keys_of(ALICE, BOB.public)
    sealed = seal(first, CONTEXT, ENDS, b"shares")
    others = keys_of(BOB, ALICE.public, context, ends, keys)
    assert not {first, second} & set(others)
    for key in (second, *others):
        with pytest.raises(SealError) as caught:
            open_sealed(key, CONTEXT, ENDS, sealed)
        assert caught.value.peer == ENDS[0]
        assert caught.value.__context__ is None
    if keys == KEYS:
        with pytest.raises(SealError):  # the right key, said to be for another session or other ends
            open_sealed(first, context, ends, sealed)


def test_every_flipped_bit_is_seen():
    key, _ = keys_of(ALICE, BOB.public)
    sealed = seal(key, CONTEXT, ENDS, b"shares")
    for position in range(8 * len(sealed)):
        altered = bytearray(sealed)
        altered[position // 8] ^= 1 << position % 8
        with pytest.raises(SealError):
            open_sealed(key, CONTEXT, ENDS, bytes(altered))


@pytest.mark.parametrize("public", LOW_ORDER)
def test_points_of_low_order_are_refused(public):
    check_public_key(public)
    with pytest.raises(PublicKeyError, match="low order"):
        ALICE.agree(public)


@pytest.mark.parametrize(
    "public",
    [
        b"",
        bytes(31),
        bytes(33),
        P.to_bytes(32, "little"),
        (P + 1).to_bytes(32, "little"),
        (2**255 - 1).to_bytes(32, "little"),
        ALICE.public[:31] + bytes([ALICE.public[31] | 0x80]),
    ],
)
def test_a_second_spelling_of_a_public_key_is_refused(public):
    with pytest.raises(PublicKeyError, match="canonical"):
        check_public_key(public)


def test_generated_pairs_are_what_the_source_says():
    pair = KeyPair.generate(lambda count: b"\x11" * count)
    assert pair.public == ALICE.public
    assert pair.private() == b"\x11" * 32
