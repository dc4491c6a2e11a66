"""Broken if a secret turns up where values are printed, logged, pickled, copied or reported as errors.

The clients' randomness is fixed here, so every secret is known, and so is every way of writing it down.
"""

from __future__ import annotations

import base64
import copy
import dataclasses
import logging
import pickle
import traceback

import numpy as np
import pytest
import reference
from chosen import VOUCHER, rehearsed
from forgery import alter_record, drop_record, flip, records
from rehearsal import SERVER, Rehearsal, identity_key

from prism_crypto.errors import SecureSumError, ShareError
from prism_crypto.keeping.identity import Identity
from prism_crypto.primitives.secret import Secret
from prism_crypto.spec import CountSpec
from prism_crypto.stage import Stage
from prism_crypto.stages.states import Finished, Vouchers

CLIENT = 1
MARK = 123_456_789_012  # a value that can't turn up by chance


MODES = ["active", "chosen"]
"""On a chosen graph a client has other states, which hold vouchers."""


def session(mode: str = "active") -> Rehearsal:
    spec = CountSpec(6, 2**40)
    rehearsal = Rehearsal(range(4), spec) if mode == "active" else rehearsed(mode, spec=spec)
    rehearsal.values = {i: np.full(6, MARK + i) for i in rehearsal.ids}
    return rehearsal


def written(secret: bytes) -> list[str]:
    """The ways in which a byte string is likely to be written."""
    return [
        secret.hex(),
        secret.hex().upper(),
        repr(secret)[2:-1],
        repr(bytearray(secret))[12:-2],
        str(int.from_bytes(secret, "big")),
        str(int.from_bytes(secret, "little")),
        base64.b64encode(secret).decode().rstrip("="),
        ", ".join(map(str, secret)),
    ]


def assert_silent(text: str, rehearsal: Rehearsal) -> None:
    taken = rehearsal.rng[CLIENT].taken
    secrets = {"sealing key": taken[:32], "mask key": taken[32:64], "seed": taken[64:96]}
    secrets["identity key"] = identity_key(CLIENT)
    secrets["dealing"] = taken[96:128]
    assert len(taken) <= 128 or rehearsal.session.graph == "chosen"  # after that coins for a public choice
    for name, secret in secrets.items():
        if not secret:  # not drawn yet
            continue
        for form in written(secret):
            assert form not in text, f"the {name} is in: {text[:200]}"
    assert str(MARK + CLIENT) not in text, f"a value of the vector is in: {text[:200]}"


def inside(thing: object, depth: int = 4) -> list[object]:
    """A thing and what its attributes hold."""
    found = [thing]
    if depth and not isinstance(thing, bytes | bytearray | str | int | np.ndarray):
        names = list(getattr(thing, "__dict__", {}))
        for kind in type(thing).__mro__:
            names += [name for name in getattr(kind, "__slots__", ()) if isinstance(name, str)]
        held = [getattr(thing, name) for name in names if hasattr(thing, name)]
        if isinstance(thing, dict):
            held += list(thing.values())
        for one in held:
            if type(one).__module__.startswith("prism_crypto") or isinstance(one, dict):
                found += inside(one, depth - 1)
    return found


@pytest.mark.parametrize("mode", MODES)
def test_no_state_prints_pickles_or_copies_a_secret(mode):
    rehearsal = session(mode)
    looked_at: set[str] = set()

    def look(stage, sender, receiver, message):
        client = rehearsal.clients[CLIENT]
        state = client._state
        things = [client, state, *inside(state)]
        vouchers = [
            said for each in things if isinstance(each, Vouchers) for said in written(each.their_count)
        ]
        for thing in things:
            if isinstance(thing, dict):
                thing = list(thing.values())
            looked_at.add(type(thing).__name__)
            for text in (repr(thing), str(thing), f"{thing}", f"{thing!r:>10}"):
                assert_silent(text, rehearsal)
                assert not any(said in text for said in vouchers)
        for thing in (client, state):
            if isinstance(thing, Finished):  # holds no secret of the session any more
                continue
            for refuse in (pickle.dumps, copy.copy, copy.deepcopy):
                with pytest.raises(TypeError):
                    refuse(thing)
            if dataclasses.is_dataclass(thing):
                with pytest.raises(TypeError):
                    dataclasses.asdict(thing)
        return message

    look(None, SERVER, CLIENT, b"")
    rehearsal.play(intercept=look)
    expected = {
        "SecureSumClient",
        "Ready",
        "Advertised",
        "Shared",
        "Uploaded",
        "Finished",
        "KeyPair",
        "Secret",
    }
    expected |= {"Confirmed"} if mode == "active" else {"Vouched", "Vouchers"}
    assert expected <= looked_at


@pytest.mark.parametrize("mode", MODES)
def test_the_server_prints_and_pickles_no_reconstructed_secret(mode):
    rehearsal = session(mode)

    def look(stage, sender, receiver, message):
        for thing in (rehearsal.server, rehearsal.server._state):
            assert_silent(repr(thing), rehearsal)
            with pytest.raises(TypeError):
                pickle.dumps(thing)
        return message

    rehearsal.play(drop={CLIENT: Stage.UPLOAD}, intercept=look)
    assert_silent(repr(rehearsal.server), rehearsal)


def test_an_identity_prints_its_public_key_alone():
    key = Identity(CLIENT, identity_key(CLIENT))
    for form in written(identity_key(CLIENT)):
        assert form not in repr(key) + str(key)
    assert key.public_key.hex() in repr(key)


def report(rehearsal: Rehearsal, call) -> str:
    """What a crash reporter would send: the whole traceback with all local variables, causes and notes."""
    try:
        call()
    except SecureSumError as error:
        chain = [error, error.__cause__, error.__context__]
        parts = [repr(part) + str(part) + repr(getattr(part, "args", "")) for part in chain]
        parts += [repr(vars(error)), repr(getattr(error, "__notes__", ""))]
        parts += traceback.TracebackException.from_exception(error, capture_locals=True).format()
        return "\n".join(parts)
    raise AssertionError("nothing was refused")


BROKEN = {
    "active": {
        Stage.SHARE: records(1, 240, alter_record(3, flip(170))),
        Stage.UPLOAD: records(2, 98, alter_record(CLIENT, flip(3))),
        Stage.CONFIRM: flip(-1, 7),
        Stage.UNMASK: records(0, 64, alter_record(0, flip(3))),
    },
    "chosen": {
        Stage.SHARE: records(1, 264, alter_record(3, flip(170))),
        Stage.UPLOAD: records(2, 98, drop_record(0)),
        Stage.CONFIRM: records(1, VOUCHER, lambda cut: cut.clear()),
        Stage.UNMASK: records(0, VOUCHER, lambda cut: cut.clear()),
    },
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stage", [stage for stage in Stage if stage is not Stage.ADVERTISE])
@pytest.mark.parametrize("garbage", [False, True])
def test_an_exception_carries_no_secret_in_any_of_its_frames(stage, garbage, mode):
    rehearsal = session(mode)
    kept = {}

    class Halt(Exception):
        pass

    def halt(at, sender, receiver, message):
        if (at, sender, receiver) == (stage, SERVER, CLIENT):
            kept[at] = b"\x93garbage" if garbage else BROKEN[mode][stage](message)
            raise Halt
        return message

    with pytest.raises(Halt):
        rehearsal.play(intercept=halt)

    def call():
        client = rehearsal.clients[CLIENT]
        if stage is Stage.UPLOAD:
            return client.upload(kept[stage], rehearsal.values[CLIENT])
        return getattr(client, stage.value)(kept[stage])

    held = secrets_of(rehearsal.clients[CLIENT]._state)
    assert_silent(report(rehearsal, call), rehearsal)
    # And what the client held is overwritten.
    assert not any(any(value) for value in held)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stage", [stage for stage in Stage if stage is not Stage.UNMASK])
def test_a_client_that_leaves_overwrites_what_it_holds(stage, mode):
    rehearsal = session(mode)
    rehearsal.play(until=stage)
    held = secrets_of(rehearsal.clients[CLIENT]._state)
    rehearsal.clients[CLIENT].abort()
    assert not any(any(value) for value in held)


def secrets_of(state: object) -> list[bytearray]:
    """The very bytes of all secrets in a state, not copies."""
    found = [thing.reveal() for thing in inside(state) if isinstance(thing, Secret)]
    assert found
    assert any(any(value) for value in found)
    return found


@pytest.mark.parametrize("values", [np.full(6, 2**40 + MARK), np.full(5, MARK + CLIENT), np.full(6, -MARK)])
def test_a_refused_vector_is_not_quoted(values):
    rehearsal = session()
    inbox = rehearsal.play(until=Stage.SHARE)

    def call():
        rehearsal.clients[CLIENT].upload(inbox[CLIENT], rehearsal.values[CLIENT])

    rehearsal.values[CLIENT] = values
    text = report(rehearsal, call)
    assert_silent(text, rehearsal)
    assert str(MARK) not in text
    assert str(2**40 + MARK) not in text


@pytest.mark.parametrize("mode", MODES)
def test_a_wrong_reconstruction_is_reported_without_what_came_out(mode):
    rehearsal = session(mode)

    class AnotherSeed(reference.Client):
        """Commits to one seed and shares another."""

        def share(self, data):
            self.seed = bytes(31) + b"\1"
            return super().share(data)

    rehearsal.cheat(CLIENT, AnotherSeed)
    with pytest.raises(ShareError) as caught:
        rehearsal.play()
    # The server's own frames: those of this test hold the whole rehearsal.
    frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    ours = [frame for frame in frames if "prism_crypto" in frame]
    assert ours
    assert_silent("\n".join(ours) + str(caught.value), rehearsal)


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_logged_or_printed(mode, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    session(mode).play(drop={3: Stage.UPLOAD})
    assert caplog.records == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("mode", MODES)
def test_secrets_are_overwritten_as_soon_as_they_have_been_used(mode):
    """On a chosen graph a client keeps its sealing key until it has seen that no voucher is false."""
    rehearsal = session(mode)
    client = rehearsal.clients[CLIENT]
    inbox = rehearsal.play(until=Stage.SHARE)
    used = [client._state.seed.reveal(), client._state.masking.private()]
    assert all(any(value) for value in used)
    for i, one in rehearsal.clients.items():
        rehearsal.server.receive(i, one.upload(inbox[i], rehearsal.values[i]))
    assert not any(any(value) for value in used)
    sealing = [] if mode == "active" else [client._state.sealing.private()]
    assert all(any(value) for value in sealing)
    for stage in (Stage.CONFIRM, Stage.UNMASK):
        inbox = rehearsal.server.close()
        shares = secrets_of(client._state)
        for i, one in rehearsal.clients.items():
            rehearsal.server.receive(i, getattr(one, stage.value)(inbox[i]))
        assert not any(any(value) for value in sealing)
    assert not any(any(value) for value in shares)
