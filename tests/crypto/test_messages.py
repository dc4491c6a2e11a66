"""The wire format: one encoding, held against the session's limits before anything is parsed."""

from __future__ import annotations

import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_crypto.errors import ContextMismatch, MessageError
from prism_crypto.primitives.context import tag, u32
from prism_crypto.stage import Stage
from prism_crypto.wire.messages import (
    FRAME_BYTES,
    VERSION,
    AdvertMessage,
    AdvertsMessage,
    ConfirmationsMessage,
    ConfirmMessage,
    OpenedMessage,
    ShareMessage,
    SharesMessage,
    SurvivorsMessage,
    UnmaskMessage,
    UploadMessage,
    confirmation_body,
    decode,
    decode_ids,
    decode_records,
    decode_views,
    encode,
    encode_records,
    encode_views,
)

CONTEXT = bytes(range(32))
WHERE = {"limit": 4096, "stage": Stage.SHARE, "peer": 4}
T = tag(CONTEXT)
EXAMPLES = [
    AdvertMessage(VERSION, T, b"advert"),
    ShareMessage(VERSION, T, b"sealed", b"signature"),
    UploadMessage(VERSION, T, memoryview(b"words"), b"ids", b"signature"),
    ConfirmMessage(VERSION, T, b"signature"),
    UnmaskMessage(VERSION, T, b"seeds", b"keys", b"proofs", b"signature"),
    AdvertsMessage(VERSION, T, b"digest", b"adverts"),
    SharesMessage(VERSION, T, 3, b"ids", b"sealed"),
    SurvivorsMessage(VERSION, T, 3, b"ids"),
    ConfirmationsMessage(VERSION, T, b"signatures", b"appeals"),
    OpenedMessage(VERSION, T, 3, memoryview(b"words")),
]
NAMES = [type(message).__name__ for message in EXAMPLES]


@pytest.mark.parametrize("message", EXAMPLES, ids=NAMES)
def test_a_message_reads_back_from_bytes_of_any_kind(message):
    data = encode(message)
    for form in (data, bytearray(data), memoryview(data)):
        assert encode(decode(type(message), form, CONTEXT, **WHERE)) == data


@pytest.mark.parametrize("message", EXAMPLES, ids=NAMES)
def test_every_truncation_extension_and_other_kind_is_refused(message):
    data = encode(message)
    spoiled = [data[:length] for length in range(len(data))] + [data + b"\0", data * 2]
    spoiled += [encode(other) for other in EXAMPLES if type(other) is not type(message)]
    for bad in spoiled:
        with pytest.raises(MessageError) as caught:
            decode(type(message), bad, CONTEXT, **WHERE)
        assert (caught.value.stage, caught.value.peer) == (Stage.SHARE, 4)


@pytest.mark.parametrize("message", EXAMPLES, ids=NAMES)
def test_a_longer_spelling_of_the_same_message_is_refused(message):
    data = encode(message)
    size = data[0] & 0x0F
    longer = [
        b"\xdc\x00" + bytes([size]) + data[1:],  # array 16 instead of fixarray
        data[:1] + b"\xcc" + data[1:],  # kind as uint 8 instead of fixint
        data[:2] + b"\xcc" + data[2:],  # version as uint 8
        data[:3] + b"\xc5\x00\x10" + data[5:],  # tag as bin 16 instead of bin 8
    ]
    for bad in longer:
        with pytest.raises(MessageError, match="canonical"):
            decode(type(message), bad, CONTEXT, **WHERE)


@pytest.mark.parametrize("message", EXAMPLES, ids=NAMES)
def test_another_version_or_context_is_named_as_such(message):
    with pytest.raises(MessageError, match=r"expected version 2 .* not 1"):
        decode(type(message), encode(msgspec.structs.replace(message, version=1)), CONTEXT, **WHERE)
    other = msgspec.structs.replace(message, tag=b"\xff" * 16)
    with pytest.raises(ContextMismatch, match="ff" * 16) as caught:
        decode(type(message), encode(other), CONTEXT, **WHERE)
    assert (caught.value.stage, caught.value.peer) == (Stage.SHARE, 4)


def test_the_limit_holds_before_parsing():
    data = encode(EXAMPLES[0])
    decode(AdvertMessage, data, CONTEXT, limit=len(data), stage=Stage.SHARE)
    with pytest.raises(MessageError, match="too long"):
        decode(AdvertMessage, data, CONTEXT, limit=len(data) - 1, stage=Stage.SHARE)


@pytest.mark.parametrize("data", ["text", None, 7, [1, 2]])
def test_what_is_not_bytes_is_refused(data):
    with pytest.raises(MessageError, match="expected bytes"):
        decode(AdvertMessage, data, CONTEXT, **WHERE)


@pytest.mark.parametrize(
    "hostile",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\x94\x01\x01\xc6\xff\xff\xff\xff",
        b"\x94\x01\x01\xc4\x10" + T + b"\xc6\x7f\xff\xff\xff",
        b"\x94\x01\x01\xdf\xff\xff\xff\xff",
        b"\x91" * 4000,
        b"\x94\x01\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    ],
)
def test_a_claimed_length_allocates_nothing(hostile):
    tracemalloc.start()
    try:
        for message in EXAMPLES:
            with pytest.raises(MessageError):
                decode(type(message), hostile, CONTEXT, **WHERE)
        assert tracemalloc.get_traced_memory()[1] < 256 * 1024
    finally:
        tracemalloc.stop()


def test_the_frame_allowance_covers_every_frame():
    for message in EXAMPLES:
        empty = {
            field: type(getattr(message, field))(b"")
            for field in message.__struct_fields__[2:]
            if not isinstance(getattr(message, field), int)
        }
        bare = msgspec.structs.replace(message, **empty)
        if isinstance(bare, AdvertsMessage):
            bare = msgspec.structs.replace(bare, digest=bytes(32))
        if hasattr(bare, "count"):
            bare = msgspec.structs.replace(bare, count=2**32 - 1)
        # A byte string of 64 KiB or more has five bytes before it, an empty one two.
        assert len(encode(bare)) + 3 * len(empty) <= FRAME_BYTES


@given(st.dictionaries(st.integers(0, 2**32 - 2), st.binary(min_size=5, max_size=5), max_size=20))
def test_records_read_back_in_increasing_order(records):
    blob = encode_records(records)
    read = decode_records(blob, 5, stage=Stage.SHARE)
    assert read == records
    assert list(read) == sorted(records)


@pytest.mark.parametrize(
    "blob",
    [
        b"\0",
        u32(1) + b"12",
        u32(1) + b"123" + u32(1) + b"123",
        u32(2) + b"123" + u32(1) + b"123",
        u32(1) + b"123" + u32(2) + b"123" + u32(1) + b"456",
    ],
)
def test_records_out_of_order_or_broken_are_refused(blob):
    with pytest.raises(MessageError) as caught:
        decode_records(blob, 3, stage=Stage.SHARE, peer=9)
    assert (caught.value.stage, caught.value.peer) == (Stage.SHARE, 9)


def test_what_clients_saw_reads_back_and_in_one_form_only():
    one, two = u32(1) + bytes(32), u32(2) + bytes([7]) * 32
    blob = encode_views({5: one + two, 3: b""})
    assert blob == u32(3) + u32(0) + u32(5) + u32(72) + one + two
    assert decode_views(blob, stage=Stage.UNMASK) == {3: {}, 5: {1: bytes(32), 2: bytes([7]) * 32}}
    for bad in (
        blob[:-1],
        blob + b"\0",
        u32(5) + u32(72) + two + one,  # not by increasing id
        u32(5) + u32(72) + one + one,
        u32(5) + u32(0) + u32(3) + u32(0),
        u32(5) + u32(2**32 - 1) + one,
        u32(5) + u32(35) + one[:-1],
    ):
        with pytest.raises(MessageError):
            decode_views(bad, stage=Stage.UNMASK)


@pytest.mark.parametrize("blob", [b"\0\0\0", u32(1) + u32(1), u32(2) + u32(1)])
def test_sets_out_of_order_or_broken_are_refused(blob):
    with pytest.raises(MessageError):
        decode_ids(blob, stage=Stage.UPLOAD)
    assert decode_ids(u32(1) + u32(7), stage=Stage.UPLOAD) == (1, 7)


def test_a_confirmation_body_has_one_parse():
    bodies = {
        confirmation_body(CONTEXT, (1, 2), (3,)),
        confirmation_body(CONTEXT, (1,), (2, 3)),
        confirmation_body(CONTEXT, (1, 2, 3), ()),
        confirmation_body(bytes(32), (1, 2), (3,)),
    }
    assert len(bodies) == 4
