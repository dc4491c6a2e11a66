"""What a session binds: the hashes over everything that all parties must see alike.

Each hash input starts with ``prism-crypto/v2/`` and its usage, so that no value made for one purpose is valid
for another; the plain SHA-256 of a long field (an advert, records) stands only inside such an input or, as a
`sighting`, in a list that makes one. Integers are big-endian of fixed width, variable fields carry their
length, sets are strictly increasing: an input has one parse.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from functools import cache

__all__ = [
    "DIGEST_BYTES",
    "SIGHTING_BYTES",
    "TAG_BYTES",
    "advert_digest",
    "context1",
    "digest",
    "encode_ids",
    "label",
    "pair_context",
    "self_mask_commitment",
    "sighting",
    "tag",
    "u32",
    "u64",
    "variable",
    "view_digest",
]

DIGEST_BYTES = 32
SIGHTING_BYTES = 4 + DIGEST_BYTES
TAG_BYTES = 16
"""Messages name their context by the first 16 bytes of its hash: enough to tell sessions apart."""


@cache
def label(usage: str) -> bytes:
    """The domain separator of one usage: ``prism-crypto/v2/<usage>`` and a zero byte."""
    return b"prism-crypto/v2/" + usage.encode() + b"\0"


def u32(value: int) -> bytes:
    """Four bytes, big-endian."""
    return value.to_bytes(4)


def u64(value: int) -> bytes:
    """Eight bytes, big-endian."""
    return value.to_bytes(8)


def variable(value: bytes) -> bytes:
    """A field of variable length, after its length in four bytes."""
    return u32(len(value)) + value


def encode_ids(ids: Sequence[int]) -> bytes:
    """Client ids, four bytes each, in the order given (all callers give them strictly increasing)."""
    return struct.pack(f">{len(ids)}I", *ids)


def digest(usage: str, *fields: bytes) -> bytes:
    """SHA-256 over the usage's label and the fields, which the caller makes self-delimiting."""
    return hashlib.sha256(label(usage) + b"".join(fields)).digest()


def tag(context: bytes) -> bytes:
    """The short name of a context that messages carry."""
    return context[:TAG_BYTES]


def advert_digest(records: Iterable[bytes], count: int) -> bytes:
    """Hash of all adverts of the session, in the order of their ids."""
    return digest("adverts", u32(count), *records)


def context1(context0: bytes, adverts: bytes) -> bytes:
    """ctx1: everything in ctx0, and exactly these adverts (their `advert_digest`).

    On a chosen graph those that a client has seen (their `view_digest`).

    All keys and signatures after the adverts depend on it: clients to whom a server showed different adverts
    can't open each other's shares.
    """
    return digest("context1", context0, adverts)


def sighting(client_id: int, advert: bytes) -> bytes:
    """That somebody has seen this advert: id and plain SHA-256, `SIGHTING_BYTES`."""
    return u32(client_id) + hashlib.sha256(advert).digest()


def view_digest(sightings: Iterable[bytes]) -> bytes:
    """What `advert_digest` is to the other graphs, on one that clients choose: of the adverts that one saw.

    It is over their hashes, so that who shows what somebody saw need not show the adverts.
    """
    return digest("view", *sorted(sightings))


def pair_context(context0: bytes, first: bytes, second: bytes) -> bytes:
    """ctx1 of two clients on a graph that clients choose: ctx0, and the adverts of both.

    Args:
        context0: ctx0.
        first, second: the `sighting` of each, in either order.
    """
    return context1(context0, view_digest((first, second)))


def self_mask_commitment(context0: bytes, client_id: int, seed: bytes | bytearray) -> bytes:
    """What an advert says about its sender's self-mask seed, so that a wrong reconstruction is seen.

    It hides the seed because the seed is 32 uniform bytes.
    """
    return digest("self", context0, u32(client_id), bytes(seed))
