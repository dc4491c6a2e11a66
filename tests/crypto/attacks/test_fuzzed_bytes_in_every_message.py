"""Broken if bytes from outside crash a party, make it hang, or make it allocate what they claim to be.

Every message of a session is replaced by altered ones. Each must be taken for a message or end in a typed
error; nothing else may happen.
"""

from __future__ import annotations

import contextlib
import random
import tracemalloc
from collections.abc import Callable
from functools import partial

import pytest
from chosen import rehearsed
from fuzz_decoders import scrambled
from rehearsal import SERVER, Rehearsal, stages

from prism_crypto.errors import MessageError, SecureSumError
from prism_crypto.session import Session
from prism_crypto.stage import Stage

HOSTILE = [
    b"",
    b"\x00",
    b"\xc0",
    b"\x90",
    b"\xc6\xff\xff\xff\xff",  # a byte string of 4 GiB
    b"\xdd\xff\xff\xff\xff",  # an array of 4 G items
    b"\xdf\xff\xff\xff\xff",  # a map of 4 G items
    b"\xdb\xff\xff\xff\xff",  # a text of 4 GiB
    b"\xc9\xff\xff\xff\xff\x01",  # an extension of 4 GiB
    b"\x94\x01\x01\xc6\xff\xff\xff\xff",
    b"\x94\x01\x01\xc4\x10" + bytes(16) + b"\xc6\xff\xff\xff\xff",
    b"\x91" * 200,
    b"\x91" * 100_000,  # nested beyond any stack
    b"\x81" * 100_000,
    b"\xff" * 64,
    bytes(range(256)) * 4,
    b"\x94\xcf\xff\xff\xff\xff\xff\xff\xff\xff\x01\xc4\x00\xc4\x00",
    b"\x94\xd3\x80\x00\x00\x00\x00\x00\x00\x00\x01\xc4\x00\xc4\x00",
]


def variants(message: bytes, seed: int, count: int) -> list[bytes]:
    draw = random.Random(seed)
    return [*HOSTILE, *(scrambled(message, draw) for _ in range(count))]


@contextlib.contextmanager
def frugally(message: bytes):
    """What happens inside needs little memory beyond a few copies of the message."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 400_000 + 8 * len(message), f"{peak} bytes for a message of {len(message)}"


def failure(message: bytes, call: Callable[[], object]) -> SecureSumError | None:
    """How the call ends: well, or in a typed error; and it takes little memory."""
    try:
        with frugally(message):
            call()
    except SecureSumError as error:
        return error
    return None


MESSAGES = [(mode, stage) for mode in ("active", "semi_honest", "chosen") for stage in stages(mode)]


@pytest.mark.parametrize(("mode", "stage"), MESSAGES)
def test_the_server_survives_whatever_a_client_sends(mode, stage):
    session = rehearsed(mode)
    outcomes: list[str] = []

    def flood(at, sender, receiver, message):
        if (at, sender, receiver) != (stage, 1, SERVER):
            return message
        for bytes_ in variants(bytes(message), 7, 150):
            if 1 not in session.server.waiting:
                break  # it was taken for a message: words may be any words
            error = failure(bytes_, partial(session.server.receive, 1, bytes_))
            assert error is None or (error.stage, error.peer) == (stage, 1)
            outcomes.extend([] if error is None else [type(error).__name__])
        return message if 1 in session.server.waiting else None

    with contextlib.suppress(SecureSumError):
        session.play(intercept=flood)
    assert len(outcomes) >= len(HOSTILE)


BORNE = {
    # Without signatures a peer's key may be any key.
    ("semi_honest", Stage.SHARE),
    # Without one share a client goes on, until it sees whether its dealer has signed what came.
    ("active", Stage.UPLOAD),
    ("chosen", Stage.UPLOAD),
    # Without one voucher, too: it gives nothing of whom it does not believe.
    ("chosen", Stage.CONFIRM),
    ("chosen", Stage.UNMASK),
}
"""What an altered message may leave standing."""


@pytest.mark.parametrize(("mode", "stage"), [case for case in MESSAGES if case[1] is not Stage.ADVERTISE])
def test_a_client_survives_whatever_the_server_sends(mode, stage):
    recorded = {}

    def note(at, sender, receiver, message):
        recorded[at, sender, receiver] = bytes(message)
        return message

    few = {} if mode == "chosen" else {"ids": range(3)}
    rehearsed(mode, **few).play(intercept=note)
    refused = 0
    for i, bytes_ in enumerate(variants(recorded[stage, SERVER, 1], 8, 30)):
        session = rehearsed(mode, **few)
        client = session.clients[1]
        for earlier in stages(mode):
            arguments = [] if earlier is Stage.ADVERTISE else [recorded[earlier, SERVER, 1]]
            if earlier is Stage.UPLOAD:
                arguments.append(session.values[1])
            if earlier is stage:
                arguments[0] = bytes_
                break
            getattr(client, earlier.value)(*arguments)
        error = failure(bytes_, partial(getattr(client, stage.value), *arguments))
        if error is None:
            assert (mode, stage) in BORNE or bytes_ == recorded[stage, SERVER, 1], f"variant {i} was accepted"
        else:
            refused += 1
            assert error.stage is stage
            assert client.stage is None
    assert refused > 10


def test_a_finished_client_survives_whatever_is_said_to_be_the_sum():
    session = Rehearsal(range(3))
    session.play()
    message = session.server.opened()
    counts, survivors = session.clients[1].opened(message)
    assert (counts.tolist(), survivors) == (session.expected((0, 1, 2)), 3)
    for bytes_ in variants(message, 9, 150):
        with contextlib.suppress(SecureSumError), frugally(bytes_):
            session.clients[1].opened(bytes_)


@pytest.mark.parametrize("size", [3, 30])
def test_a_client_survives_whatever_is_said_to_be_an_offer(size):
    offer = Rehearsal(range(size)).session.offer()
    assert Session.from_offer(offer).invited.count == size
    for bytes_ in variants(offer, 10, 300):
        with contextlib.suppress(SecureSumError), frugally(bytes_):
            Session.from_offer(bytes_)


@pytest.mark.parametrize("wrong", [None, 5, "text", [1], object()])
def test_what_is_no_bytes_is_refused_too(wrong):
    session = Rehearsal(range(3))
    with pytest.raises(MessageError):
        session.server.receive(1, wrong)
    session.clients[1].advertise()
    with pytest.raises(MessageError):
        session.clients[1].share(wrong)
