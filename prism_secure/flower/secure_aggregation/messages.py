"""How the secure sum travels in Flower's messages: one `ConfigRecord` beside those of the application."""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import msgspec
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from prism_crypto import MessageError, Session, Stage
from prism_crypto.session import GraphKind
from prism_secure.errors import AgreementError, ConfigError

RECORD = "secure_sum"
"""Name of the record; an application that has one of this name can't be summed."""

HELLO = "hello"
"""What routes the question who a node is; beside the stages."""

RunConfig: TypeAlias = Mapping[str, bool | int | float | str]

_KINDS = (ArrayRecord, MetricRecord, ConfigRecord)
_DAY = 86400.0


def message_type(stage: Stage | str) -> str:
    """The type that routes a stage: ``train.advertise`` to ``train.unmask``; and ``train.hello``."""
    return f"train.{stage}"


def channel(node: int) -> str:
    """What both ends call the way to a node, in a hello."""
    return f"flower node {node}"


def packed(message: bytes, client: int | None = None) -> RecordDict:
    """A content that holds one message of the protocol, and says which client wrote it."""
    record = ConfigRecord({"message": message})
    if client is not None:
        record["client"] = client
    return RecordDict({RECORD: record})


def offered(content: RecordDict, offer: bytes, run_config: RunConfig) -> RecordDict:
    """`content` with the offer of a session over it."""
    session = ConfigRecord({"message": offer, "run_config": config_digest(run_config)})
    return RecordDict({**content, RECORD: session})


def check_run_config(content: RecordDict, run_config: RunConfig) -> None:
    """Refuse unless the server says that it offers a session under this run configuration.

    It may lie, and then the clients' sessions differ and no sum opens; this is for the server that forgot.

    Raises:
        AgreementError: it says another one.
    """
    if _field(content, "run_config") != config_digest(run_config):
        raise AgreementError(
            "the server sums under another run_config than this node was given: its app passes "
            "run_config=context.run_config to SecureSum or SecureSumGrid, and every node has the same one"
        )


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
    terms = Told(session.round, spec.dimension, spec.bound, session.graph, session.min_cohort)
    return ConfigRecord(msgspec.structs.asdict(terms))


class Told(msgspec.Struct, frozen=True):
    """What a client's function is told of the session that it is called in.

    Attributes:
        round, dimension, bound, graph: see `prism_crypto.Session` and its `spec`.
        cohort: honest clients in the opened sum, at least: the session's `min_cohort`, which the client has
            found sound before it was called.
    """

    round: int
    dimension: int
    bound: int
    graph: GraphKind
    cohort: int


msgspec.json.Decoder(Told)  # prepared at import: not by two threads at once


def session_of(content: RecordDict) -> Told:
    """What `told` has said."""
    return msgspec.convert(dict(content[RECORD]), Told)


def _field(content: RecordDict, name: str) -> object:
    record = content.get(RECORD)
    return record.get(name) if isinstance(record, ConfigRecord) else None


def digest(content: RecordDict) -> bytes:
    """SHA-256 of all records of the application, as this process holds them: their names, keys and values.

    It is the session's model hash, so clients that were given different models or settings, by a server
    that lies or by accident, can't take part in one sum. The order of records and keys counts, because an
    application may rely on it.
    """
    hashed = hashlib.sha256(b"prism-secure/v2/flower content\0")
    for part in _parts(content):
        hashed.update(part)
    return hashed.digest()


def agreement(run_id: int, run_config: RunConfig, binding: bytes) -> bytes:
    """What a session binds beside its content: the run, its configuration, and what the application says.

    A server hands each node a run configuration of its own. One that gave a learning rate of 0 to all but
    one client would read that one's update off the sum, so all clients must have been given the same.

    Raises:
        ConfigError: see `config_digest`.
    """
    parts = (_encoded(run_id), config_digest(run_config), _encoded(binding))
    return hashlib.sha256(b"prism-secure/v1/flower run\0" + b"".join(parts)).digest()


def config_digest(run_config: RunConfig) -> bytes:
    """SHA-256 of keys, types and values, in whatever order: 1, 1.0, "1" and True are four values.

    Raises:
        ConfigError: a value is of another type than Flower's bool, int, float and str.
    """
    hashed = hashlib.sha256(b"prism-secure/v1/flower run_config\0")
    for key, value in sorted(run_config.items()):
        try:
            hashed.update(_encoded(key) + _encoded(value))
        except TypeError:
            raise ConfigError(
                f"run_config[{key!r}] is a {type(value).__name__}; Flower's are bool, int, float and str"
            ) from None
    return hashed.digest()


def as_agreed(message: Message, session: Session) -> None:
    """Leave to the application's function only what is in the session's hash, the same for all clients.

    An application may read the round, or how long it may train, from the message's metadata, and these are
    the server's word to each node. What beside content, round and run is left are ids.
    """
    message.metadata.group_id = str(session.round)
    message.metadata.created_at = time.time()
    message.metadata.ttl = _DAY
    del message.content[RECORD]  # at the end, wherever the server had put it
    message.content[RECORD] = told(session)


def _parts(content: RecordDict) -> Iterator[bytes]:
    for name, record in content.items():
        if name == RECORD:
            continue
        # The number of keys delimits the record.
        kind = next(kind for kind in _KINDS if isinstance(record, kind))
        yield _encoded(name) + _encoded(kind.__name__) + _encoded(len(record))
        for key, value in record.items():
            if isinstance(value, Array):
                shape = [int(size) for size in value.shape]
                yield b"".join(map(_encoded, (key, value.dtype, shape, value.stype, len(value.data))))
                yield value.data  # large, so not copied beside its length
            else:
                yield _encoded(key) + _encoded(value)


def _encoded(value: object) -> bytes:
    """Type, length, value: no two values have one encoding, and none is the beginning of another's.

    Raises:
        TypeError: neither bool, int, float, str, bytes nor a list of them.
    """
    match value:
        case bool():
            kind, body = b"?", b"1" if value else b"0"
        case int():
            kind, body = b"i", str(int(value)).encode()
        case float():
            kind, body = b"f", struct.pack(">d", value)
        case str():
            kind, body = b"s", value.encode("utf-8", "surrogatepass")
        case bytes():
            kind, body = b"b", value
        case list() | tuple():
            kind, body = b"l", b"".join(map(_encoded, value))
        case _:
            raise TypeError(type(value).__name__)
    return kind + str(len(body)).encode() + b":" + body
