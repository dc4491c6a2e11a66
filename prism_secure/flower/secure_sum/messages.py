"""How the secure sum travels in Flower's messages: one `ConfigRecord` beside those of the application."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from prism_crypto import MessageError, Session, Stage

RECORD = "secure_sum"
"""Name of the record; an application that has one of this name can't be summed."""


def message_type(stage: Stage) -> str:
    """The type that routes a stage: ``train.advertise`` to ``train.unmask``."""
    return f"train.{stage.value}"


def packed(message: bytes, client: int | None = None) -> RecordDict:
    """A content that holds one message of the protocol, and says which client wrote it."""
    fields: dict[str, int | bytes] = {"message": message}
    if client is not None:
        fields["client"] = client
    return RecordDict({RECORD: ConfigRecord(fields)})


def unpacked(content: RecordDict) -> bytes:
    """The message of the protocol in a content.

    Raises:
        MessageError: there is none.
    """
    message = _field(content, "message")
    if not isinstance(message, bytes):
        raise MessageError("the Flower message holds no message of the secure sum")
    return message


def sender(content: RecordDict) -> int:
    """The client id that the writer of a content claims.

    Raises:
        MessageError: it claims none.
    """
    client = _field(content, "client")
    if not isinstance(client, int) or isinstance(client, bool):
        raise MessageError("the Flower message does not say which client wrote it")
    return client


def told(session: Session) -> ConfigRecord:
    """What a client's function is told of the session that it is called in."""
    spec = session.spec
    return ConfigRecord({"round": session.round, "dimension": spec.dimension, "bound": spec.bound})


def session_of(content: RecordDict) -> tuple[int, int, int]:
    """Round, dimension and bound of the session that a client's function is called in."""
    fields = content[RECORD]
    assert isinstance(fields, ConfigRecord)
    round, dimension, bound = (fields[name] for name in ("round", "dimension", "bound"))
    assert isinstance(round, int)
    assert isinstance(dimension, int)
    assert isinstance(bound, int)
    return round, dimension, bound


def _field(content: RecordDict, name: str) -> object:
    record = content.get(RECORD)
    return record.get(name) if isinstance(record, ConfigRecord) else None


def digest(content: RecordDict) -> bytes:
    """SHA-256 of all records of the application, as this process holds them: their names, keys and values.

    It is the session's model hash, so clients that were given different models or settings, by a server
    that lies or by accident, can't take part in one sum.
    """
    hashed = hashlib.sha256(b"prism-secure/v1/flower content\0")
    for part in _parts(content):
        hashed.update(len(part).to_bytes(8, "big"))
        hashed.update(part)
    return hashed.digest()


def _parts(content: RecordDict) -> Iterator[bytes]:
    for name in sorted(content):
        if name == RECORD:
            continue
        record = content[name]
        # The number of keys delimits the record; keys in their own order, which the application may rely on.
        yield f"{name}\0{type(record).__name__}\0{len(record)}".encode()
        for key, value in record.items():
            yield key.encode()
            if isinstance(record, ArrayRecord):
                yield f"{value.dtype}\0{list(value.shape)}\0{value.stype}".encode()
                yield value.data
            else:
                yield f"{type(value).__name__}\0{value!r}".encode()
