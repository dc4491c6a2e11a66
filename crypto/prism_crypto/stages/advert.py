"""An advert: what a client says of itself at the start of a session."""

from __future__ import annotations

import struct

import msgspec

from prism_crypto.errors import ContextMismatch, MessageError, ProtocolError, PublicKeyError, SecureSumError
from prism_crypto.keeping.identity import SIGNATURE_BYTES, Roster, pinned
from prism_crypto.primitives.agreement_proof import OWNER_BYTES, check_owner, curve_point
from prism_crypto.primitives.context import TAG_BYTES, encode_ids, tag, u32
from prism_crypto.primitives.hybrid import KEM_KEY_BYTES, check_kem_key
from prism_crypto.primitives.keys import KEY_BYTES, KeyPair, check_public_key
from prism_crypto.session import Session
from prism_crypto.stage import Mode, Stage
from prism_crypto.wire.messages import ID_BYTES, decode_ids

__all__ = [
    "ADVERT_BYTES",
    "Advert",
    "advert_bytes",
    "check_advert",
    "check_usable",
    "owner_body",
    "read_advert",
]

_UNSIGNED_BYTES = TAG_BYTES + 3 * KEY_BYTES
_KEM_BYTES = 2 * KEM_KEY_BYTES
ADVERT_BYTES = _UNSIGNED_BYTES + OWNER_BYTES + SIGNATURE_BYTES
"""A signed advert, without its sender's id, where no neighbours are chosen and keys are of X25519 alone."""


class Advert(msgspec.Struct, frozen=True):
    """Two public keys and a commitment to the self-mask seed, in one context, signed or not.

    In hybrid sessions two ML-KEM keys follow, for seals and for masks. Signed adverts also prove that the
    sender knows the private half of its X25519 sealing key. ``choice`` holds the neighbours that the sender
    has drawn, where clients choose them: increasing ids.
    """

    tag: bytes
    sealing_key: bytes
    mask_key: bytes
    commitment: bytes
    owner: bytes = b""
    choice: tuple[int, ...] = ()
    signature: bytes = b""
    kem_keys: tuple[bytes, ...] = ()

    def signed_part(self, context0: bytes, client_id: int) -> bytes:
        """What the signature covers: the full ctx0, the sender, and all fields between tag and signature."""
        return context0 + u32(client_id) + self._said()

    def encode(self) -> bytes:
        """The fields one after another: 112 bytes, hybrid 2,368 more, and signed 64 of the proof, 4 for each
        choice, 64 more."""
        return self.tag + self._said() + self.signature

    def _said(self) -> bytes:
        keys = self.sealing_key + self.mask_key + self.commitment + b"".join(self.kem_keys)
        return keys + self.owner + encode_ids(self.choice)

    @property
    def keys(self) -> tuple[bytes, ...]:
        """All public keys."""
        return self.sealing_key, self.mask_key, *self.kem_keys

    @classmethod
    def decode(cls, data: bytes, *, signed: bool, choices: int = 0, hybrid: bool = False) -> Advert:
        """Cut an advert into its fields; ``choices`` is how many neighbours it names.

        Raises:
            MessageError: its length is wrong, or the ids of its choice are not in increasing order.
        """
        owner = _UNSIGNED_BYTES + (_KEM_BYTES if hybrid else 0)
        start = owner + (OWNER_BYTES if signed else 0)
        end = start + choices * ID_BYTES
        expected = end + (SIGNATURE_BYTES if signed else 0)
        if len(data) != expected:
            raise MessageError(f"an advert is {expected} bytes, not {len(data)}")
        keys = struct.unpack_from("16s32s32s32s", data)
        choice = decode_ids(data[start:end], stage=None)  # the caller adds it
        kem = data[_UNSIGNED_BYTES:owner]
        kem_keys = tuple(kem[i : i + KEM_KEY_BYTES] for i in range(0, len(kem), KEM_KEY_BYTES))
        return cls(keys[0], keys[1], keys[2], keys[3], data[owner:start], choice, data[end:], kem_keys)


def advert_bytes(session: Session) -> int:
    """Length of an advert in this session."""
    kem = _KEM_BYTES if session.hybrid else 0
    if session.mode is not Mode.ACTIVE:
        return _UNSIGNED_BYTES + kem
    return ADVERT_BYTES + kem + (session.degree * ID_BYTES if session.graph == "chosen" else 0)


def read_advert(data: bytes, session: Session) -> Advert:
    """Cut an advert of this session into its fields.

    Raises:
        MessageError: see `Advert.decode`.
    """
    choices = session.degree if session.graph == "chosen" else 0
    return Advert.decode(data, signed=session.mode is Mode.ACTIVE, choices=choices, hybrid=session.hybrid)


def check_advert(
    data: bytes, client_id: int, session: Session, roster: Roster | None, stage: Stage
) -> Advert:
    """Read one client's advert, as the server and every neighbour do.

    Raises:
        MessageError: wrong length.
        ContextMismatch: made under another ctx0: another session, round, model, policy or cohort.
        PublicKeyError: a key that is not canonical, or one key used as both.
        SignatureError: active mode, and the pinned key did not sign this under this very ctx0.
        ProtocolError: it chose itself, or somebody who is not invited.
        IdentityError: active mode, and the roster does not know the client.
    """
    context0 = session.context0
    try:
        advert = read_advert(data, session)
        if advert.tag != tag(context0):
            raise ContextMismatch(
                f"the advert was made in context {advert.tag.hex()}, here it is {tag(context0).hex()}"
            )
        _check_canonical(advert)
        if advert.choice and (client_id in advert.choice or not session.everyone.issuperset(advert.choice)):
            raise ProtocolError("chose itself, or a client that is not invited, as a neighbour")
        if session.mode is Mode.ACTIVE:
            body = advert.signed_part(context0, client_id)
            pinned(roster).verify(client_id, Stage.ADVERTISE, body, advert.signature)
    except SecureSumError as error:
        error.at(stage, client_id)
        raise
    return advert


def check_usable(advert: Advert, context0: bytes, client_id: int) -> None:
    """What the server checks beside, and a client leaves to the moment when it uses a key: it is costly.

    Raises:
        PublicKeyError: a key that no honest client makes: not canonical, repeated, not on the curve, of low
            order, or, signed, not shown to be its sender's own.
    """
    _check_canonical(advert)
    points = []
    for key in (advert.sealing_key, advert.mask_key):
        points.append(curve_point(key))
        # Points of low order agree on the same key whatever the private key; any will do to find them.
        KeyPair(bytes(range(32))).agree(key)
    if advert.owner:
        check_owner(points[0], owner_body(context0, client_id), advert.owner)


def owner_body(context0: bytes, client_id: int) -> bytes:
    """What the proof of a sealing key's owner is bound to."""
    return context0 + u32(client_id)


def _check_canonical(advert: Advert) -> None:
    check_public_key(advert.sealing_key)
    check_public_key(advert.mask_key)
    for key in advert.kem_keys:
        check_kem_key(key)
    if len(set(advert.keys)) < len(advert.keys):
        raise PublicKeyError("one public key for sealing and for masks")
