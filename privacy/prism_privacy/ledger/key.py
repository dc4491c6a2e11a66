"""The key a ledger's writer signs with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from prism_privacy.durable_files import read_secret_file, write_secret_file
from prism_privacy.errors import InvalidParameter, LedgerError

PUBLIC_KEY_BYTES: Final = 32


class LedgerKey:
    """An Ed25519 key pair, kept as PKCS#8 PEM in a file with mode 0600. Cannot be pickled or copied."""

    __slots__ = ("_private",)

    def __init__(self) -> None:
        """A new key in memory only; :meth:`create` keeps it."""
        self._private = Ed25519PrivateKey.generate()

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> LedgerKey:
        """A new key, stored at ``path``.

        Raises:
            LedgerError: the file exists or cannot be kept private.
        """
        key = cls()
        pem = key._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_secret_file(Path(path), pem, LedgerError)
        return key

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LedgerKey:
        """The key stored at ``path``.

        Raises:
            LedgerError: missing, readable by others, or no Ed25519 key in PEM.
        """
        pem = read_secret_file(Path(path), LedgerError)
        try:
            private = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError):
            private = None
        if not isinstance(private, Ed25519PrivateKey):
            raise LedgerError(f"{path} does not hold an Ed25519 private key in PEM")
        key = cls.__new__(cls)
        key._private = private
        return key

    @property
    def public_key(self) -> bytes:
        """The 32 bytes to give to whoever is to verify the ledger."""
        return self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature; deterministic."""
        return self._private.sign(message)

    def __repr__(self) -> str:
        return f"LedgerKey(public_key={self.public_key.hex()})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise LedgerError("a ledger key cannot be pickled or copied; load it from its file")


def public_key_bytes(key: bytes | str | Ed25519PublicKey | LedgerKey) -> bytes:
    """A public key given as 32 bytes, 64 hexadecimal digits or a key object, as 32 bytes."""
    if isinstance(key, LedgerKey):
        return key.public_key
    if isinstance(key, Ed25519PublicKey):
        return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    if isinstance(key, str):
        try:
            key = bytes.fromhex(key)
        except ValueError:
            key = b""
    if not isinstance(key, bytes) or len(key) != PUBLIC_KEY_BYTES:
        raise InvalidParameter(
            "public_key must be 32 bytes or 64 hexadecimal digits of an Ed25519 public key"
        )
    return key


def signature_is_valid(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """True if ``signature`` is ``public_key``'s on ``message``; for callers that raise with a place."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
