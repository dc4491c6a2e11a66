"""Who is who: Ed25519 identities and the roster that pins them.

An identity key signs the messages of this protocol and hellos (`prism_crypto.hello`), and nothing else. The
roster maps client ids to public keys; it reaches each client out of band (with the software, from an
administrator, on paper) and never from the server of the sum, who could otherwise invent a cohort of its own.

A client's id is its place in the roster: a number that stays its own, whoever else joins or leaves.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from prism_crypto.errors import IdentityError, SignatureError
from prism_crypto.keeping.guarded_file import PRIVATE, PUBLIC, read_json, write_new
from prism_crypto.primitives.agreement_proof import small_order
from prism_crypto.primitives.context import digest, label, u32
from prism_crypto.primitives.randomness import Rng, checked_rng, draw
from prism_crypto.primitives.secret import Confidential
from prism_crypto.stage import Stage

__all__ = [
    "HELLO",
    "MAX_CLIENT_ID",
    "NO_ROSTER",
    "SIGNATURE_BYTES",
    "Identity",
    "Roster",
    "check_client_id",
    "pinned",
]

HELLO: Final = "hello"
"""The one usage of a signature that is no stage of a session."""

SIGNATURE_BYTES = 64
MAX_CLIENT_ID = 2**32 - 2
"""Ids are below this because id + 1 is the client's point in the sharing polynomials, in four bytes."""

NO_ROSTER = digest("roster", u32(0))
"""Stands for the roster's hash where there is none: semi-honest sessions may do without."""

_IDENTITY_FORMAT = "prism-crypto/v2/identity"
_ROSTER_FORMAT = "prism-crypto/v2/roster"


def check_client_id(client_id: int) -> int:
    """Return ``client_id`` if it can be one.

    Raises:
        IdentityError: it is no integer in 0..2^32-2.
    """
    if not isinstance(client_id, int) or isinstance(client_id, bool) or not 0 <= client_id <= MAX_CLIENT_ID:
        raise IdentityError(f"a client id is an integer in 0..{MAX_CLIENT_ID}, not {client_id!r}")
    return client_id


class Identity(Confidential):
    """One client's Ed25519 key pair.

    Attributes:
        client_id: the client's id in the roster.
        public_key: 32 bytes, what the roster holds.

    >>> identity = Identity.generate(3)
    >>> roster = Roster({3: identity.public_key})
    >>> roster.verify(3, Stage.ADVERTISE, b"body", identity.sign(Stage.ADVERTISE, b"body"))
    """

    __slots__ = ("_key", "client_id", "public_key")

    def __init__(self, client_id: int, private_key: bytes) -> None:
        self.client_id = check_client_id(client_id)
        self._key = Ed25519PrivateKey.from_private_bytes(private_key)
        self.public_key = self._key.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"<Identity of client {self.client_id}, public key {self.public_key.hex()}>"

    @classmethod
    def generate(cls, client_id: int, rng: Rng = os.urandom) -> Identity:
        """Draw a new key pair."""
        return cls(client_id, draw(checked_rng(rng), 32))

    def sign(self, stage: Stage | Literal["hello"], body: bytes) -> bytes:
        """Sign ``body`` for one stage of the protocol: 64 bytes, the same ones for the same body."""
        return self._key.sign(label(str(stage)) + body)

    def save(self, path: str | Path) -> None:
        """Write the key pair to a new file that its owner alone may read (mode 0600).

        Raises:
            IdentityError: the file exists already; identities are not overwritten.
        """
        text = json.dumps(
            {
                "format": _IDENTITY_FORMAT,
                "client_id": self.client_id,
                "private_key": self._key.private_bytes_raw().hex(),
            }
        )
        write_new(Path(path), text, PRIVATE)

    @classmethod
    def load(cls, path: str | Path) -> Identity:
        """Read what `save` wrote.

        Raises:
            IdentityError: no such file; a link or no regular file; not this user's; readable or writable by
                others; or not an identity.
        """
        fields = read_json(Path(path), PRIVATE)
        identity = None
        if isinstance(fields, dict) and fields.get("format") == _IDENTITY_FORMAT and len(fields) == 3:
            try:
                identity = cls(fields["client_id"], bytes.fromhex(fields["private_key"]))
            except (KeyError, TypeError, ValueError, IdentityError):
                identity = None
        del fields
        if identity is None:
            raise IdentityError(f"{path} is no identity file of format {_IDENTITY_FORMAT}")
        return identity


class Roster:
    """The pinned public keys of all clients that may ever take part.

    Args:
        keys: for each client id its Ed25519 public key, 32 bytes.

    Attributes:
        hash: SHA-256 over all ids and keys; bound into every session.

    Raises:
        IdentityError: an id out of range, a key that is none or of small order, or one key under two ids.
    """

    __slots__ = ("_keys", "_verifiers", "hash")

    def __init__(self, keys: Mapping[int, bytes]) -> None:
        self._keys = {check_client_id(client_id): bytes(keys[client_id]) for client_id in sorted(keys)}
        owners: dict[bytes, int] = {}
        for client_id, key in self._keys.items():
            if len(key) != 32:
                raise IdentityError(f"the public key must be 32 bytes, not {len(key)}", peer=client_id)
            if small_order(key):
                raise IdentityError(
                    "the public key is not canonical or of small order: a signature under it says nothing",
                    peer=client_id,
                )
            if key in owners:
                raise IdentityError(f"the same public key as client {owners[key]}", peer=client_id)
            owners[key] = client_id
        self._verifiers: dict[int, Ed25519PublicKey] = {}
        entries = (u32(client_id) + key for client_id, key in self._keys.items())
        self.hash = digest("roster", u32(len(self._keys)), *entries)

    def __repr__(self) -> str:
        return f"<Roster of {len(self._keys)} clients, {self.hash.hex()[:16]}>"

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, client_id: object) -> bool:
        return client_id in self._keys

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Roster) and self._keys == other._keys

    def __hash__(self) -> int:
        return hash(self.hash)

    @property
    def ids(self) -> tuple[int, ...]:
        """All client ids, increasing."""
        return tuple(self._keys)

    def public_key(self, client_id: int) -> bytes:
        """The pinned key of one client.

        Raises:
            IdentityError: the roster does not know the client.
        """
        if client_id not in self._keys:
            raise IdentityError("not in the roster", peer=client_id)
        return self._keys[client_id]

    def verify(self, client_id: int, stage: Stage | Literal["hello"], body: bytes, signature: bytes) -> None:
        """Check a signature made by `Identity.sign`.

        Raises:
            SignatureError: it does not verify under the pinned key.
            IdentityError: the roster does not know the client.
        """
        verifier = self._verifiers.get(client_id)
        if verifier is None:
            verifier = Ed25519PublicKey.from_public_bytes(self.public_key(client_id))
            self._verifiers[client_id] = verifier
        try:
            verifier.verify(signature, label(str(stage)) + body)
        except InvalidSignature:
            pass
        else:
            return
        raise SignatureError(
            f"the {stage} signature does not verify; something on the way may have altered what it is under",
            peer=client_id,
        )

    def save(self, path: str | Path) -> None:
        """Write the roster to a new file (mode 0644).

        Raises:
            IdentityError: the file exists already.
        """
        keys = {str(client_id): key.hex() for client_id, key in self._keys.items()}
        write_new(Path(path), json.dumps({"format": _ROSTER_FORMAT, "keys": keys}, indent=1), PUBLIC)

    @classmethod
    def load(cls, path: str | Path) -> Roster:
        """Read what `save` wrote.

        Raises:
            IdentityError: no such file; not this user's or root's; writable by others; or not a roster.
        """
        fields = read_json(Path(path), PUBLIC)
        try:
            if fields["format"] == _ROSTER_FORMAT and len(fields) == 2:
                return cls({_decimal(name): bytes.fromhex(key) for name, key in fields["keys"].items()})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise IdentityError(f"{path} is no roster file of format {_ROSTER_FORMAT}") from error
        raise IdentityError(f"{path} is no roster file of format {_ROSTER_FORMAT}")


def pinned(roster: Roster | None) -> Roster:
    """The roster, where there must be one.

    Raises:
        IdentityError: there is none. Nothing is ever taken as verified for want of a key.
    """
    if roster is None:
        raise IdentityError("no pinned roster to verify with")
    return roster


def _decimal(name: str) -> int:
    value = int(name)
    if str(value) != name:
        raise ValueError(name)
    return value
