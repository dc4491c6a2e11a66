"""The messages, and their one encoding.

A message is a msgpack array: its kind, the version, the context's tag, and fields that are integers or byte
strings. What repeats (adverts, shares, ids) is a concatenation of records of fixed width, strictly
increasing by client id: there are no containers whose claimed length a decoder could allocate for, and
sets have one spelling. Before a byte is parsed, the whole is held against the longest message that this
session allows; after it, the message must encode to the very same bytes.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, TypeVar

import msgspec

from prism_crypto.errors import ContextMismatch, MessageError
from prism_crypto.keeping.identity import SIGNATURE_BYTES
from prism_crypto.primitives.context import DIGEST_BYTES, encode_ids, tag, u32, variable
from prism_crypto.primitives.keys import SEAL_OVERHEAD
from prism_crypto.primitives.shamir import SHARE_BYTES
from prism_crypto.stage import Stage

__all__ = [
    "DEALING",
    "FRAME_BYTES",
    "ID_BYTES",
    "RECORD",
    "SEALED_BYTES",
    "SEALED_SHARE_BYTES",
    "VERSION",
    "VOUCHED_UPLOAD",
    "AdvertMessage",
    "AdvertsMessage",
    "ConfirmMessage",
    "ConfirmationsMessage",
    "DoubtedConfirmationsMessage",
    "DoubtedUnmaskMessage",
    "Message",
    "OpenedMessage",
    "ShareMessage",
    "SharesMessage",
    "StopMessage",
    "SurvivorsMessage",
    "UnmaskMessage",
    "UploadMessage",
    "VouchedConfirmMessage",
    "VouchedConfirmationsMessage",
    "VouchedSurvivorsMessage",
    "VouchedUploadMessage",
    "confirmation_body",
    "decode",
    "decode_ids",
    "decode_records",
    "decode_statements",
    "encode",
    "encode_records",
    "encode_statements",
    "is_a",
    "read_upload_statement",
    "record_body",
    "share_body",
    "unmask_body",
    "upload_body",
    "upload_statement",
    "vouched_body",
]

VERSION = 2

DEALING = "dealing"
"""The usage of the signature under a client's sealing key over what it deals."""

RECORD = "record"
"""Hybrid sessions: the usage of the signature under a client's sealing key over what one holder gets."""

VOUCHED_UPLOAD = "vouched-upload"
"""The usage of the signature under a client's sealing key over an upload with vouchers."""

FRAME_BYTES = 160
"""More than all of a message but its records: kind, version, tag, lengths, one hash, one signature."""

ID_BYTES = 4
SEALED_SHARE_BYTES = SHARE_BYTES + SEAL_OVERHEAD

SEALED_BYTES = 2 * SEALED_SHARE_BYTES
"""What one client deals to another: a sealed share of the self-mask seed, then one of the mask key."""


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What all messages start with, after their kind."""

    version: int
    tag: bytes


class AdvertMessage(Message, frozen=True, tag=1):
    """Client to server: its advert (`Advert.encode`); the tag is of ctx0, in all later messages of ctx1."""

    advert: bytes


class ShareMessage(Message, frozen=True, tag=2):
    """Client to server: records (receiver, pair of sealed shares), its own among them; its signature under
    its sealing key."""

    sealed: bytes
    signature: bytes


class UploadMessage(Message, frozen=True, tag=3):
    """Client to server: the masked words, little-endian; whose shares did not open; its signature."""

    words: memoryview
    unopened: bytes
    signature: bytes


class ConfirmMessage(Message, frozen=True, tag=4):
    """Client to server: its signature over who shared and who survived."""

    signature: bytes


class UnmaskMessage(Message, frozen=True, tag=5):
    """Client to server: what opens the sealed shares that the sum needs.

    Records (survivor, key to the share of its seed) and (dropped, key to the share of its mask key), then
    (client whose shares did not open, proof of what was agreed on with it), and the sender's signature.
    """

    seed_keys: bytes
    mask_keys: bytes
    complaints: bytes
    signature: bytes


class VouchedUploadMessage(Message, frozen=True, tag=6):
    """On a chosen graph, client to server: an upload, with records (neighbour, voucher for it)."""

    words: memoryview
    unopened: bytes
    vouchers: bytes
    signature: bytes


class VouchedConfirmMessage(Message, frozen=True, tag=7):
    """On a chosen graph, client to server: records (survivor whose shares it holds, voucher for it)."""

    vouchers: bytes
    signature: bytes


class StopMessage(Message, frozen=True, tag=8):
    """In hybrid sessions, client to server, in place of an upload: the seed of its ML-KEM key for masks.

    A dealer has sent it another part of a mask than it signed, and that shows who. It opens no mask: each
    rests on the X25519 key for masks, too. To the session this is a client that dropped.
    """

    seed: bytes


class DoubtedUnmaskMessage(Message, frozen=True, tag=9):
    """On a chosen graph, client to server: as `UnmaskMessage`, and from whom false vouchers came.

    Records (client, proof of what was agreed on with it). The signature does not cover these: a proof speaks
    for itself.
    """

    seed_keys: bytes
    mask_keys: bytes
    complaints: bytes
    doubts: bytes
    signature: bytes


class AdvertsMessage(Message, frozen=True, tag=17):
    """Server to client: records (sender, advert); the hash of all adverts, for the sparse graph only."""

    digest: bytes
    adverts: bytes


class SharesMessage(Message, frozen=True, tag=18):
    """Server to client: how many shared, who of those it knows, and records (sender, sealed pair)."""

    count: int
    sharers: bytes
    sealed: bytes


class SurvivorsMessage(Message, frozen=True, tag=19):
    """Server to client: how many survived, and who of those it knows."""

    count: int
    survivors: bytes


class ConfirmationsMessage(Message, frozen=True, tag=20):
    """Server to client: records (signer, signature), t of them; and what those have signed whose shares did
    not open at this client."""

    signatures: bytes
    appeals: bytes


class OpenedMessage(Message, frozen=True, tag=21):
    """Server to client: the opened sum, still packed, for applications whose clients want it."""

    count: int
    words: memoryview


class VouchedSurvivorsMessage(Message, frozen=True, tag=22):
    """On a chosen graph, server to client: how many survived, and records (neighbour, its voucher)."""

    count: int
    vouchers: bytes


class VouchedConfirmationsMessage(Message, frozen=True, tag=23):
    """On a chosen graph, server to client: records (holder of its shares, its voucher); and of those whose
    shares did not open, what they have signed, and which adverts they saw, see `encode_views`."""

    vouchers: bytes
    appeals: bytes
    views: bytes


class DoubtedConfirmationsMessage(Message, frozen=True, tag=24):
    """As `VouchedConfirmationsMessage`, and of those whose vouchers the receiver did not believe, what they
    have signed with their uploads; ``views`` holds them, too."""

    vouchers: bytes
    appeals: bytes
    doubts: bytes
    views: bytes


M = TypeVar("M", bound=Message)

_DECODERS: dict[type[Message], msgspec.msgpack.Decoder[Any]] = {
    kind: msgspec.msgpack.Decoder(kind) for kind in Message.__subclasses__()
}


def encode(message: Message) -> bytes:
    """The message's one encoding."""
    return msgspec.msgpack.encode(message)


def is_a(kind: type[Message], data: bytes | bytearray | memoryview) -> bool:
    """Whether bytes say that they are a message of this kind, where two may come: an array's second byte."""
    return len(data) > 1 and data[1] == kind.__struct_config__.tag


def decode(
    kind: type[M],
    data: bytes | bytearray | memoryview,
    context: bytes,
    *,
    limit: int,
    stage: Stage,
    peer: int | None = None,
) -> M:
    """Read a message of one kind, in one context, no longer than ``limit``.

    Args:
        kind: which message is expected.
        data: what came.
        context: ctx0 for the two advert messages, ctx1 for all others.
        limit: the longest that it can be in this session; checked before parsing.
        stage: where we are, for errors.
        peer: the sender, for errors; None for the server.

    Raises:
        MessageError: too long, malformed, of another kind or version, or not canonical.
        ContextMismatch: a message of this kind, but made in another context.
    """
    name = kind.__name__.removesuffix("Message").lower()
    if not isinstance(data, bytes | bytearray | memoryview):
        raise MessageError(f"expected bytes, not {type(data).__name__}", stage=stage, peer=peer)
    if len(data) > limit:
        raise MessageError(
            f"{len(data)} bytes are too long for the {name} message of this session, at most {limit}",
            stage=stage,
            peer=peer,
        )
    message: M | None = None
    try:
        message = _DECODERS[kind].decode(data)
        canonical = msgspec.msgpack.encode(message) == data
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError):
        canonical = False
    if message is None or not canonical:
        raise MessageError(f"not the canonical encoding of the {name} message", stage=stage, peer=peer)
    if message.version != VERSION:
        raise MessageError(
            f"expected version {VERSION} of the {name} message, not {message.version}", stage=stage, peer=peer
        )
    if message.tag != tag(context):
        raise ContextMismatch(
            f"the {name} message was made in context {message.tag.hex()[:32]}, expected {tag(context).hex()}",
            stage=stage,
            peer=peer,
        )
    return message


def encode_records(records: Mapping[int, bytes]) -> bytes:
    """Id and payload of each record, by increasing id."""
    return b"".join(u32(client_id) + records[client_id] for client_id in sorted(records))


def decode_records(blob: bytes, width: int, *, stage: Stage, peer: int | None = None) -> dict[int, bytes]:
    """Cut a concatenation of records; the dict keeps their order, which is increasing.

    Args:
        blob: the records.
        width: bytes of a payload, without the id.

    Raises:
        MessageError: a broken record, or ids that do not strictly increase.
    """
    step = ID_BYTES + width
    if len(blob) % step:
        raise MessageError(
            f"expected records of {step} bytes, got {len(blob)} bytes of them", stage=stage, peer=peer
        )
    records = dict(struct.iter_unpack(f">I{width}s", blob))
    ids = list(records)
    if len(ids) != len(blob) // step or not _increasing(ids):
        raise MessageError("records are not strictly increasing by client id", stage=stage, peer=peer)
    return records


def decode_ids(blob: bytes, *, stage: Stage | None, peer: int | None = None) -> tuple[int, ...]:
    """Read a set of ids.

    Raises:
        MessageError: a broken id, or ids that do not strictly increase.
    """
    if len(blob) % ID_BYTES:
        raise MessageError("expected ids of 4 bytes each", stage=stage, peer=peer)
    ids = struct.unpack(f">{len(blob) // ID_BYTES}I", blob)
    if not _increasing(ids):
        raise MessageError("ids are not strictly increasing", stage=stage, peer=peer)
    return ids


def _increasing(ids: Iterable[int]) -> bool:
    return all(low < high for low, high in pairwise(ids))


def encode_statements(statements: Mapping[int, tuple[bytes, bytes]]) -> bytes:
    """For each client, by increasing id, a signature and what it is under."""
    return b"".join(
        u32(client_id) + signature + variable(sealed)
        for client_id, (signature, sealed) in sorted(statements.items())
    )


def decode_statements(
    blob: bytes, *, stage: Stage, peer: int | None = None
) -> dict[int, tuple[bytes, bytes]]:
    """Read what `encode_statements` wrote.

    Raises:
        MessageError: anything else.
    """
    statements: dict[int, tuple[bytes, bytes]] = {}
    head = ID_BYTES + SIGNATURE_BYTES + 4
    start = 0
    while start < len(blob):
        client_id, signature, length = struct.unpack(
            f">I{SIGNATURE_BYTES}sI", blob[start : start + head].ljust(head)
        )
        end = start + head + length
        statements[client_id] = (signature, blob[start + head : end])
        start = end
    if encode_statements(statements) != blob:
        raise MessageError("not a list of signed statements", stage=stage, peer=peer)
    return statements


def encode_views(views: Mapping[int, bytes]) -> bytes:
    """For each client, by increasing id, the records (id, hash) of the adverts that it saw."""
    return b"".join(u32(client_id) + variable(view) for client_id, view in sorted(views.items()))


def decode_views(blob: bytes, *, stage: Stage) -> dict[int, dict[int, bytes]]:
    """Read what `encode_views` wrote: for each client the hashes of adverts, by id.

    Raises:
        MessageError: anything else.
    """
    views: dict[int, bytes] = {}
    start = 0
    while start < len(blob):
        client_id, length = struct.unpack(">2I", blob[start : start + 8].ljust(8))
        views[client_id] = blob[start + 8 : start + 8 + length]
        start += 8 + length
    if encode_views(views) != blob:
        raise MessageError("not a list of what clients saw", stage=stage)
    return {client_id: decode_records(view, DIGEST_BYTES, stage=stage) for client_id, view in views.items()}


def share_body(context: bytes, client_id: int, sealed: bytes) -> bytes:
    """What a client's dealing signs: ctx1, its id, the hash of the records."""
    return context + u32(client_id) + _hash(sealed)


def record_body(context: bytes, ends: tuple[int, int], dealt: bytes) -> bytes:
    """What a record of a hybrid dealing signs: ctx1 of dealer and holder, their ids, the hash of the rest."""
    return context + u32(ends[0]) + u32(ends[1]) + _hash(dealt)


def upload_body(
    context: bytes, client_id: int, words: memoryview, unopened: bytes, vouchers: bytes | None = None
) -> bytes:
    """What an upload signs: ctx1, its sender's id, the hash of the words (on a chosen graph, that of the
    vouchers), whose shares did not open."""
    vouched = b"" if vouchers is None else _hash(vouchers)
    return context + u32(client_id) + _hash(words) + vouched + unopened


def upload_statement(words: memoryview, vouchers: bytes, unopened: bytes) -> bytes:
    """What an upload on a chosen graph signs beside context and id, in a form that is kept: its hash, the
    vouchers after their length, whose shares did not open."""
    return _hash(words) + variable(vouchers) + unopened


def read_upload_statement(statement: bytes) -> tuple[bytes, bytes]:
    """What an upload's signature covers after context and id, and the vouchers in it.

    Raises:
        MessageError: that is no `upload_statement`.
    """
    start = DIGEST_BYTES + 4
    end = start + int.from_bytes(statement[DIGEST_BYTES:start])
    vouchers = statement[start:end]
    if len(statement) < end or len(statement) < start:
        raise MessageError("not what an upload signs")
    return statement[:DIGEST_BYTES] + _hash(vouchers) + statement[end:], vouchers


def vouched_body(context: bytes, client_id: int, vouchers: bytes) -> bytes:
    """What a confirmation on a chosen graph signs: ctx1, its sender's id, the hash of the vouchers."""
    return context + u32(client_id) + _hash(vouchers)


def unmask_body(
    context: bytes, client_id: int, received: bytes, seed_keys: bytes, mask_keys: bytes, complaints: bytes
) -> bytes:
    """What the last message signs: ctx1, its sender's id, the hashes of the records that the sender received
    before its upload, and of the message's own three fields."""
    return context + u32(client_id) + b"".join(map(_hash, (received, seed_keys, mask_keys, complaints)))


def _hash(content: bytes | memoryview) -> bytes:
    return hashlib.sha256(content).digest()


def confirmation_body(context: bytes, sharers: tuple[int, ...], survivors: tuple[int, ...]) -> bytes:
    """What a confirmation signs: ctx1, U2 and U3, each set after its size."""
    return context + u32(len(sharers)) + encode_ids(sharers) + u32(len(survivors)) + encode_ids(survivors)
