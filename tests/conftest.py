"""What all tests of sessions share, those of the protocol and those of runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from prism_crypto.keeping import identity
from prism_crypto.primitives import agreement_proof


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
