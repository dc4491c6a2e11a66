"""The second implementation is itself held against published vectors and against `cryptography`."""

from __future__ import annotations

import hashlib

import pytest
import reference_primitives as reference
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def draws(label: str, count: int, length: int = 32) -> list[bytes]:
    return [hashlib.shake_128(f"{label} {i}".encode()).digest(length) for i in range(count)]


def test_x25519_gives_the_vectors_of_rfc_7748():
    scalar = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    u = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    expected = "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    assert reference.x25519(scalar, u).hex() == expected


def test_x25519_agrees_with_the_library():
    for private, other in zip(draws("ours", 4), draws("theirs", 4), strict=True):
        key = X25519PrivateKey.from_private_bytes(private)
        public = reference.x25519_public(other)
        assert reference.x25519_public(private) == key.public_key().public_bytes_raw()
        assert reference.x25519(private, public) == key.exchange(X25519PublicKey.from_public_bytes(public))


def test_ed25519_gives_the_first_vector_of_rfc_8032():
    private = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    assert (
        reference.ed25519_public(private).hex()
        == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    )
    assert reference.ed25519_sign(private, b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b"
    )


def test_ed25519_agrees_with_the_library_and_refuses_what_is_forged():
    for private, message in zip(draws("key", 3), draws("message", 3, 100), strict=True):
        key = Ed25519PrivateKey.from_private_bytes(private)
        signature = reference.ed25519_sign(private, message)
        assert signature == key.sign(message)
        public = reference.ed25519_public(private)
        reference.ed25519_verify(public, message, signature)
        with pytest.raises(reference.Refused):
            reference.ed25519_verify(public, message + b"!", signature)


@pytest.mark.parametrize("length", [0, 1, 16, 66, 100])
def test_gcm_agrees_with_the_library_and_refuses_what_is_altered(length):
    key, text, associated = draws("key", 1)[0], draws("text", 1, length)[0], draws("associated", 1, 41)[0]
    sealed = reference.gcm_seal(key, text, associated)
    assert sealed == AESGCM(key).encrypt(bytes(12), text, associated)
    assert reference.gcm_open(key, sealed, associated) == text
    for altered, data in ((bytes([sealed[0] ^ 1]) + sealed[1:], associated), (sealed, associated + b"!")):
        with pytest.raises(reference.Refused):
            reference.gcm_open(key, altered, data)


def test_hkdf_agrees_with_the_library():
    for secret, info in zip(draws("secret", 3), draws("info", 3, 77), strict=True):
        expected = HKDF(SHA256(), 32, salt=None, info=info).derive(secret)
        assert reference.hkdf_sha256(secret, info) == expected
