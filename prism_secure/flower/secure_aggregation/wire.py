"""What the process of a Flower message and the client process say to each other, and how, over a socket.

A session begins with the whole message of Flower, the model in it. Its arrays travel beside the rest, as the
bytes that they are: Flower's own serialization would copy a model of 4 MB some ten times on the way.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import TypeAlias

import msgspec
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.common.serde import (  # type: ignore[attr-defined]
    message_from_proto,
    metadata_to_proto,  # in all versions, though newer ones do not say so
    recorddict_to_proto,
)
from flwr.proto.message_pb2 import Message as MessageProto

from prism_crypto import Stage

_LENGTH = struct.Struct(">Q")


class Begin(msgspec.Struct, frozen=True, tag=True):
    """Enter a session: the function that trains, as ``module:name``, and what Flower handed over."""

    folder: str
    train: str
    path: list[str]
    message: bytes
    """Without the contents of its arrays; these are `sizes` bytes long, and follow."""
    sizes: list[int]
    context: bytes


class Step(msgspec.Struct, frozen=True, tag=True):
    """Go on with the session of a client."""

    folder: str
    stage: Stage
    message: bytes


class Reply(msgspec.Struct, frozen=True):
    """What the client process answers: a message of the protocol, or why there is none."""

    client: int = 0
    message: bytes = b""
    context: bytes = b""
    error: str = ""


Request: TypeAlias = Begin | Step

_REQUESTS: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Begin | Step)
_REPLIES = msgspec.msgpack.Decoder(Reply)


def send(connection: socket.socket, said: Request | Reply, arrays: list[bytes] | None = None) -> None:
    """Send one request or reply, and the contents of the arrays that a `Begin` announces."""
    packed = msgspec.msgpack.encode(said)
    connection.sendall(_LENGTH.pack(len(packed)) + packed)
    for content in arrays or ():
        connection.sendall(content)


def receive_request(connection: socket.socket) -> tuple[Request, list[bytes]]:
    """One request, and the contents of its arrays.

    Raises:
        EOFError: the other end has closed.
    """
    request = _REQUESTS.decode(_received(connection))
    return request, [_exactly(connection, size) for size in getattr(request, "sizes", ())]


def receive_reply(connection: socket.socket) -> Reply:
    """One reply.

    Raises:
        EOFError: the other end has closed.
    """
    return _REPLIES.decode(_received(connection))


def apart(message: Message) -> tuple[bytes, list[bytes]]:
    """A message without the contents of its arrays, and these, in their order."""
    bare = RecordDict()
    for name, record in message.content.items():
        if isinstance(record, ArrayRecord):
            record = ArrayRecord({key: _holding(array, b"") for key, array in record.items()})
        bare[name] = record
    proto = MessageProto(metadata=metadata_to_proto(message.metadata), content=recorddict_to_proto(bare))
    return proto.SerializeToString(), [array.data for array in _arrays(message.content)]


def together(message: bytes, contents: list[bytes]) -> Message:
    """The inverse of `apart`."""
    whole = message_from_proto(MessageProto.FromString(message))
    for array, content in zip(_arrays(whole.content), contents, strict=True):
        array.data = content
    return whole


def _arrays(content: RecordDict) -> Iterator[Array]:
    for record in content.values():
        if isinstance(record, ArrayRecord):
            yield from record.values()


def _holding(like: Array, content: bytes) -> Array:
    return Array(like.dtype, like.shape, like.stype, content)


def _received(connection: socket.socket) -> bytes:
    return _exactly(connection, *_LENGTH.unpack(_exactly(connection, _LENGTH.size)))


def _exactly(connection: socket.socket, size: int) -> bytes:
    """So many bytes: as a rule in one piece, which the kernel writes into place."""
    parts = []
    while size:
        part = connection.recv(size, socket.MSG_WAITALL)
        if not part:
            raise EOFError("the other end has closed")
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
