"""Broken if a server that makes clients of a hybrid session stop opens a sum of fewer than must survive.

A client that gets another part of a mask than the signed one stops and shows its ML-KEM key for masks. A
lying server sends it one from a confederate, lists that client as a survivor all the same, and shows the
others as many confirmations as there can be. Here it has more: it signs records with the keys of all dealers.
The masks of those that stopped rest on X25519 alone then, and on parts of the server's own that it passes on
in their names: they come off when X25519 falls.

On a chosen graph nobody sees how many survive. Which sums open there, whoever is made to stop, an observer
works out in `test_chosen_graph_under_a_lying_server` and `test_forged_parts`. Here is what a stop shows.
"""

from __future__ import annotations

from typing import Any

import pytest
import reference as wire
import reference_kem as kem
from chosen import rehearsed
from forgery import take_apart
from rehearsal import HYBRID, Rehearsal, Stream, needs_kem

from prism_crypto import MemoryCounter, Session, Stage
from prism_crypto.errors import MessageError, OutOfOrder, SecureSumError, ThresholdError
from prism_crypto.primitives.hybrid import (
    Encapsulated,
    HybridMaskPair,
    Kem,
    encapsulate_for,
    hybrid_pair_seed,
)
from prism_crypto.primitives.keystream import add_keystream
from prism_crypto.primitives.shamir import combine
from prism_crypto.stages.advert import read_advert
from prism_crypto.stages.evidence import half, open_share

pytestmark = needs_kem

DEALT, PART = 2434, 98 + 2 * 1088


MODES = ["active", "semi_honest", "chosen"]


def room_of(n: int, survivors: int, mode: str = "active", **how: Any) -> Rehearsal:
    """On a small chosen graph there are nine clients, six of whom must survive, instead."""
    if mode == "chosen":
        return rehearsed(mode, suite=HYBRID, **how)
    return Rehearsal(range(n), suite=HYBRID, min_survivors=survivors, mode=mode, **how)


def kem_seed_of(room: Rehearsal, client: int) -> bytes:
    return HybridMaskPair(room.rng[client].taken[96:128]).kem_seed()


def altered(shares: bytes, client: int, room: Rehearsal) -> bytes:
    """The message to a client with one bit of another's part of a mask flipped, and that signed."""
    kind, tag, (count, ids, blob) = take_apart(shares)
    dealt = wire.read_records(blob, room.session.dealt_bytes)
    dealer = next(i for i in dealt if i != client)
    record = bytearray(dealt[dealer])
    record[PART] ^= 1
    dealt[dealer] = room.signed_record(dealer, client, bytes(record))
    return wire.wrap(kind, tag, count, ids, wire.write_records(dealt))


def forged(shares: bytes, client: int, parts: dict[int, HybridMaskPair], room: Rehearsal) -> bytes:
    """The message to a client with parts of the server's own, and their hashes, for those of some dealers."""
    kind, tag, (count, ids, blob) = take_apart(shares)
    dealt, transcript = wire.read_records(blob, DEALT), room.server._state.transcript
    keys = read_advert(transcript.adverts[client], room.session).kem_keys
    for dealer, pair in parts.items():
        real = Encapsulated.cut(dealt[dealer][98:])
        _, own = encapsulate_for(pair, (keys[0], keys[1]), transcript.contexts.common, (dealer, client))
        changed = own._replace(sealing=real.sealing, secret_hash=real.secret_hash)
        dealt[dealer] = room.signed_record(dealer, client, dealt[dealer][:98] + changed.encode())
    return wire.wrap(kind, tag, count, ids, wire.write_records(dealt))


def sum_without(room: Rehearsal, stopped: set[int]) -> list[int]:
    """What a server opens that makes these stop, says that all have survived, and breaks X25519.

    The errors of clients that refuse fly out of here.
    """
    clients, server, session = room.clients, room.server, room.session
    inbox = room.play(until=Stage.SHARE)
    transcript, shown_keys = server._state.transcript, {}
    parts = {i: HybridMaskPair(bytes([i]) * 32) for i in stopped}
    for i in room.ids:
        if i in stopped:
            stop = clients[i].upload(altered(inbox[i], i, room), room.values[i])
            kind, _, (seed,) = take_apart(stop)
            assert (kind, len(seed)) == (8, 64)
            shown_keys[i] = Kem(seed)
        else:
            vector = [room.values[i]] if not isinstance(clients[i], wire.Client) else []
            server.receive(i, clients[i].upload(forged(inbox[i], i, parts, room), *vector))
    total, context = server._state._total, transcript.contexts.common
    others = [i for i in room.ids if i not in stopped]
    everybody = wire.wrap(wire.SURVIVORS, context[:16], len(room.ids), wire.id_list(room.ids))
    signed = {i: take_apart(clients[i].confirm(everybody))[2][0] for i in others}
    shown = wire.wrap(wire.CONFIRMATIONS, context[:16], wire.write_records(signed), b"")
    keys = {i: wire.read_records(take_apart(clients[i].unmask(shown))[2][0], 32) for i in others}

    for owner in others:
        shares = {}
        for holder in others:
            record = wire.read_records(transcript.received[holder], DEALT)[owner]
            shares[holder + 1] = open_share(keys[holder][owner], context, (owner, holder), half(record, 0))
        add_keystream(total, combine(shares, session.threshold), subtract=True)
    for gone, shown_key in shown_keys.items():
        broken = HybridMaskPair(room.rng[gone].taken[96:128])  # for its X25519 key
        for peer in others:
            record = wire.read_records(transcript.received[gone], DEALT)[peer]
            theirs = Encapsulated.cut(record[98:]).part(shown_key, context, (peer, gone))
            each = {gone: parts[gone].part(context, (gone, peer)), peer: theirs}
            public = {gone: broken.public, peer: read_advert(transcript.adverts[peer], session).mask_key}
            low, high = sorted(each)
            agreed = broken.agree(public[peer])
            both, ends = (each[low], each[high]), (public[low], public[high])
            add_keystream(
                total, hybrid_pair_seed(agreed, both, context, (low, high), ends), subtract=peer < gone
            )
    return session.packing.unpack(total, survivors=len(others), bound=session.spec.bound).tolist()


def second_implementation(room: Rehearsal, stopped: set[int]) -> None:
    for i in set(room.ids) - stopped:
        room.cheat(i, wire.Client)


@pytest.mark.parametrize(
    ("n", "survivors", "stopped"), [(7, 7, {6}), (7, 7, {0, 3}), (7, 6, {1, 2}), (4, 4, {3})]
)
def test_it_opens_nothing_if_fewer_confirm_than_must_survive(n, survivors, stopped):
    room, came = room_of(n, survivors), n - len(stopped)
    assert came >= room.session.threshold
    said = f"{came} clients confirmed, this session needs {survivors} "
    with pytest.raises(ThresholdError, match=said) as caught:
        sum_without(room, stopped)
    assert (caught.value.stage, caught.value.peer) == (Stage.UNMASK, None)


def test_the_second_implementation_opens_nothing_either():
    room = room_of(4, 4)
    second_implementation(room, {3})
    with pytest.raises(wire.Refused, match="enough signatures"):
        sum_without(room, {3})


@pytest.mark.parametrize("second", [False, True])
def test_nothing_else_keeps_it_from_that_sum(second, monkeypatch):
    """With t confirmations, as in sessions of X25519, it has the sum of t where all believe in four."""
    for kind in (Session, wire.Session):
        monkeypatch.setattr(kind, "confirmations", property(lambda session: session.threshold))
    room = room_of(4, 4)
    if second:
        second_implementation(room, {3})
    assert sum_without(room, {3}) == room.expected((0, 1, 2))


def test_what_it_opens_is_a_sum_of_as_many_as_must_survive():
    room = room_of(7, 5)
    assert sum_without(room, {0, 5}) == room.expected((1, 2, 3, 4, 6))


def test_an_honest_server_says_how_many_confirmed_and_how_many_must():
    needs = r"3 clients confirmed, this session needs 4 \(threshold 3, min_survivors 4\)"
    with pytest.raises(ThresholdError, match=needs):
        room_of(4, 4).play(drop={1: Stage.CONFIRM})
    classical = Rehearsal(range(4), min_survivors=4)
    classical.play(drop={1: Stage.CONFIRM})
    assert classical.server.result.survivors == (0, 1, 2, 3)


@pytest.mark.parametrize("silent", [Stage.CONFIRM, Stage.UNMASK])
def test_clients_of_either_implementation_and_the_other_server_need_as_many(silent):
    room = room_of(4, 4)
    room.server = wire.Server(room.reference_session())
    if silent is Stage.CONFIRM:
        with pytest.raises(wire.Refused, match="enough clients"):
            room.play(drop={1: silent})
    else:
        room.play(drop={1: silent})
        assert room.server.counts == room.expected(tuple(room.ids))
    room = room_of(4, 4)
    second_implementation(room, {2})
    if silent is Stage.CONFIRM:
        with pytest.raises(ThresholdError, match="3 clients confirmed, this session needs 4"):
            room.play(drop={1: silent})
    else:
        room.play(drop={1: silent})
        assert room.server.result.counts.tolist() == room.expected(tuple(room.ids))


def test_who_confirmed_may_be_silent_at_unmask():
    room = room_of(7, 7)
    room.play(drop={1: Stage.UNMASK, 6: Stage.UNMASK})
    assert room.server.result.counts.tolist() == room.expected(tuple(room.ids))


FEWER = "5 of 7 clients uploaded, this session needs 6"


@pytest.mark.parametrize(
    ("mode", "stopped", "lost"),
    [
        ("active", {2}, ""),
        ("active", {2, 5}, FEWER),
        ("semi_honest", {2}, ""),
        ("semi_honest", {2, 5}, FEWER),
        ("chosen", {2, 5}, ""),
        ("chosen", {0, 2, 5}, "6 of 9 clients uploaded; secrets with fewer than 4 holders left: 5"),
        ("chosen", {0, 2, 5, 7}, "5 of 9 clients uploaded, this session needs 6"),
    ],
)
def test_a_server_that_lists_none_of_those_that_stop_opens_the_sum_of_the_rest_or_none(mode, stopped, lost):
    room, refusals = room_of(7, 6, mode), []

    def alter(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        return altered(message, receiver, room) if stage is Stage.UPLOAD and receiver in stopped else message

    if lost:
        with pytest.raises(ThresholdError, match=lost):
            room.play(intercept=alter, refused=refusals)
    else:
        room.play(intercept=alter, refused=refusals)
        assert room.server.result.survivors == tuple(i for i in room.ids if i not in stopped)
        assert room.server.result.counts.tolist() == room.expected(room.server.result.survivors)
    assert {error.peer for error in refusals} == stopped
    assert room.server.blamed == {}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("at", list(Stage))
def test_a_client_stops_in_place_of_its_upload_and_never_later(mode, at):
    """So no key of a stop is open beside a vector, nor does the server take one at another stage."""
    room, shares, tried = room_of(4, 4, mode), [], []

    def again(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        if (stage, receiver) == (Stage.UPLOAD, 1):
            shares.append(altered(message, 1, room))
        if stage is at and sender == 1:
            if at is not Stage.UPLOAD:
                stop = wire.wrap(8, take_apart(message)[1], kem_seed_of(room, 1))
                with pytest.raises(MessageError):
                    room.server.receive(1, stop)
            if shares:
                with pytest.raises(OutOfOrder):
                    room.clients[1].upload(shares[0], room.values[1])
            tried.append(at)
        return message

    room.play(intercept=again)
    assert room.server.result.counts.tolist() == room.expected(tuple(room.ids))
    assert tried == [at] or (mode, at) == ("semi_honest", Stage.CONFIRM)


@pytest.mark.parametrize("mode", ["active", "chosen"])
def test_a_stop_of_one_that_has_uploaded_is_refused(mode):
    room = room_of(4, 4, mode)
    inbox = room.play(until=Stage.SHARE)
    client = room.clients[1]
    room.server.receive(1, client.upload(inbox[1], room.values[1]))
    with pytest.raises(SecureSumError):
        room.server.receive(1, wire.wrap(8, client._state.context[:16], kem_seed_of(room, 1)))
    assert room.server.waiting == tuple(i for i in room.ids if i != 1)


@pytest.mark.parametrize("mode", ["active", "chosen"])
def test_a_copied_machine_whose_one_copy_stops_shows_no_mask_of_what_the_other_uploads(mode):
    """The two have the same keys, so what a stop shows must open none of the masks, nor any share."""
    room, pair = room_of(4, 4, mode), HybridMaskPair(Stream("rehearsal: client 3")(128)[96:])
    copy = room.client(3, rng=Stream("rehearsal: client 3"), counter=MemoryCounter())
    copy.advertise()
    stops: list[bytes] = []

    def show(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        if (stage, receiver) == (Stage.SHARE, 3):
            copy.share(message)
        if (stage, receiver) == (Stage.UPLOAD, 3):
            stops.append(copy.upload(altered(message, 3, room), room.values[3]))
        return message

    room.play(intercept=show)
    assert room.server.result.survivors == tuple(room.ids)
    [stop] = stops
    assert take_apart(stop)[2] == [pair.kem_seed()]
    mask_key = kem.mask_key(bytes(pair.private()))
    assert bytes(pair.private()) not in stop
    assert mask_key not in stop
    assert Kem(pair.kem_seed()).public == pair.kem.public
