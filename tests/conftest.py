"""What all tests of sessions share, those of the protocol and those of runs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from types import SimpleNamespace
from typing import ClassVar

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from prism_crypto.keeping import identity
from prism_crypto.primitives import agreement_proof, keys


class _VerifiesOnce:
    """A public key that knows what it has verified: n clients in one process all check the same n adverts."""

    verified: ClassVar[set[tuple[bytes, bytes, bytes]]] = set()

    def __init__(self, key: bytes) -> None:
        self._key, self._real = key, Ed25519PublicKey.from_public_bytes(key)

    @classmethod
    def from_public_bytes(cls, key: bytes) -> _VerifiesOnce:
        return cls(key)

    def verify(self, signature: bytes, message: bytes) -> None:
        asked = self._key, bytes(signature), bytes(message)
        if asked not in self.verified:
            self._real.verify(signature, message)
            self.verified.add(asked)


@pytest.fixture(autouse=True, scope="session")
def signatures_verified_once() -> Iterator[None]:
    """A fifth of what tests of sessions take; what does not verify is checked each time."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (identity, agreement_proof):
            patch.setattr(module, "Ed25519PublicKey", _VerifiesOnce)
        yield


@pytest.fixture(autouse=True, scope="module")
def verified_signatures_forgotten() -> Iterator[None]:
    yield
    _VerifiesOnce.verified.clear()


_pair = lru_cache(2_000)(X25519PrivateKey.from_private_bytes)


@lru_cache(20_000)
def _agreed(private: bytes, public: bytes) -> bytes:
    return _pair(private).exchange(X25519PublicKey.from_public_bytes(public))


class _AgreesOnce:
    """A private key that knows what it has agreed on: clients of the same seeds meet in many sessions."""

    def __init__(self, private: bytes) -> None:
        self._private = private

    @classmethod
    def from_private_bytes(cls, private: bytes) -> _AgreesOnce:
        return cls(private)

    def public_key(self) -> X25519PublicKey:
        return _pair(self._private).public_key()

    def exchange(self, public: X25519PublicKey) -> bytes:
        return _agreed(self._private, public.public_bytes_raw())


@pytest.fixture(autouse=True, scope="session")
def keys_read_and_agreed_once() -> Iterator[None]:
    """Another sixth. The same two keys agree on the same; one of low order is refused each time."""
    signing = SimpleNamespace(from_private_bytes=lru_cache(2_000)(Ed25519PrivateKey.from_private_bytes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "X25519PrivateKey", _AgreesOnce)
        patch.setattr(keys, "Ed25519PrivateKey", signing)
        yield
