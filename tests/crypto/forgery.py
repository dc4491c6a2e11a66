"""Taking messages apart and putting other ones together: the tools of everybody who cheats in the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import reference as wire
from reference_primitives import ed25519_sign
from rehearsal import identity_key

from prism_crypto.errors import SecureSumError
from prism_crypto.stage import Stage

VOUCHED_UPLOAD = 6
"""The kind of a message; the others are in `reference`."""
ADVERT_BYTES, SEALED_BYTES, KEY_BYTES, SIGNATURE_BYTES = 240, 98, 32, 64
"""Widths of the records, without their ids; adverts are signed ones."""


@contextmanager
def refused(error: type[SecureSumError], stage: Stage | None, peer: int | None) -> Iterator[Any]:
    """What happens inside ends in exactly this error, which names this stage and this peer."""
    with pytest.raises(SecureSumError) as caught:
        yield caught
    assert type(caught.value) is error, f"ended in {caught.value!r}"
    assert (caught.value.stage, caught.value.peer) == (stage, peer), f"ended in {caught.value}"
    assert stage is None or f"stage {stage.value}" in str(caught.value)
    assert peer is None or f"client {peer}" in str(caught.value)


def take_apart(data: bytes) -> tuple[int, bytes, list[Any]]:
    """A message's kind, the tag of its context, and its fields."""
    rest, values = bytes(data)[1:], []
    while rest:
        head, rest = rest[0], rest[1:]
        if head < 128:
            values.append(head)
            continue
        width = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}[head]
        number = int.from_bytes(rest[:width], "big")
        rest = rest[width:]
        if head >= 0xCC:
            values.append(number)
        else:
            values.append(rest[:number])
            rest = rest[number:]
    return values[0], values[2], values[3:]


def refield(edit: Callable[[list[Any]], list[Any]]) -> Callable[[bytes], bytes]:
    """Take the message apart, edit its fields after the tag, and wrap it again."""

    def change(data: bytes) -> bytes:
        kind, tag, fields = take_apart(data)
        return wire.wrap(kind, tag, *edit(fields))

    return change


def retag(context: bytes) -> Callable[[bytes], bytes]:
    """Pretend that the message was made in this context."""

    def change(data: bytes) -> bytes:
        kind, _, fields = take_apart(data)
        return wire.wrap(kind, context[:16], *fields)

    return change


def records(position: int, width: int, edit: Callable[[dict[int, bytes]], Any]) -> Callable[[bytes], bytes]:
    """Edit the records in one field; ``edit`` changes the dict, or returns the field's bytes."""

    def change(fields: list[Any]) -> list[Any]:
        cut = wire.read_records(fields[position], width)
        edited = edit(cut)
        fields[position] = edited if isinstance(edited, bytes) else wire.write_records(cut)
        return fields

    return refield(change)


def survivors(*ids: int) -> Callable[[bytes], bytes]:
    """Name another survivor set."""
    return refield(lambda _: [len(ids), wire.id_list(list(ids))])


def flip(offset: int, bit: int = 0) -> Callable[[bytes], bytes]:
    """Flip one bit of the byte at this offset."""

    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[offset] ^= 1 << bit
        return bytes(changed)

    return change


def drop_record(peer: int) -> Callable[[dict[int, bytes]], None]:
    return lambda cut: cut.pop(peer) and None


def alter_record(peer: int, change: Callable[[bytes], bytes]) -> Callable[[dict[int, bytes]], None]:
    return lambda cut: cut.update({peer: change(cut[peer])})


def twice(cut: dict[int, bytes]) -> bytes:
    """The first record twice."""
    first = min(cut)
    return wire.u32(first) + cut[first] + wire.write_records(cut)


def signed(
    context1: bytes, client: int, change: Callable[[bytes], bytes], received: bytes = b"", seed: bytes = b""
) -> Callable[[bytes], bytes]:
    """A malicious client's message of a stage after the first: changed, and under its own signature again.

    For the last stage ``received`` are the records that the client was sent before its upload; for what it
    deals, and uploads on a chosen graph, ``seed`` is that of its sealing key, which signs that.
    """

    def sign(data: bytes) -> bytes:
        kind, tag, fields = take_apart(change(data))
        content = {
            wire.SHARE: ("dealing", wire.hashes(fields[0])),
            wire.UPLOAD: ("upload", wire.hashes(fields[0]) + fields[1] if len(fields) > 1 else b""),
            wire.UNMASK: ("unmask", wire.hashes(received, *fields[:-1])),
        }
        if kind == VOUCHED_UPLOAD:
            content[kind] = "vouched-upload", wire.hashes(fields[0], fields[2]) + fields[1]
        usage, body = content[kind]
        body = wire.label(usage) + context1 + wire.u32(client) + body
        key = seed if kind in (wire.SHARE, VOUCHED_UPLOAD) else identity_key(client)
        return wire.wrap(kind, tag, *fields[:-1], ed25519_sign(key, body))

    return sign


def resigned(context0: bytes, client: int, change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """A malicious client's advert: its own signature under whatever keys and commitment it likes."""

    def edit(fields: list[Any]) -> list[Any]:
        said = change(fields[0][16:112]) + fields[0][112:-64]
        body = wire.label("advertise") + context0 + wire.u32(client) + said
        return [context0[:16] + said + ed25519_sign(identity_key(client), body)]

    return refield(edit)


def only(
    stage: Stage, sender: int | None, receiver: int | None, change: Callable[[bytes], bytes | None]
) -> Callable[[Stage, int | None, int | None, bytes], bytes | None]:
    """An interception that touches this one message."""

    def intercept(at: Stage, source: int | None, target: int | None, message: bytes) -> bytes | None:
        return change(message) if (at, source, target) == (stage, sender, receiver) else message

    return intercept
