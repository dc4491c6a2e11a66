"""Broken if parts of masks that somebody forges open a vector, a sum of too few, or get an innocent blamed.

The server puts parts of its own in place of what honest clients sent, with the hashes that go with them, and
with their signatures, which it can't make: here it has their keys. It alters others, so that clients stop and
show a key. Without a key it gets no such part past anybody. It tells each client something else of who shared
and who survived. Then X25519 falls. An observer has the seeds of the masks that are really on each upload,
and works out which sums open. (On the complete graph: `test_clients_that_a_server_makes_stop`.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference as wire
from chosen import Observer, chosen_rehearsal
from forgery import take_apart
from rehearsal import HYBRID, Rehearsal, needs_kem

from prism_crypto import SecureSumError, SignatureError, Stage, SumError
from prism_crypto.primitives.hybrid import Encapsulated, HybridMaskPair, encapsulate_for
from prism_crypto.stages import upload as uploading
from prism_crypto.stages.advert import read_advert

from . import test_chosen_graph_under_a_lying_server as lying

pytestmark = needs_kem

FORGER = HybridMaskPair(bytes([7]) * 32)


class Seer(Observer):
    """What the server knows where it may have broken X25519.

    Attributes:
        seeds_of: for each client and peer the seed that the client used; whether it deals to the peer, and
            whether the peer deals to it.
        forged: dealer and holder, where the holder got a part of the server's own.
        fallen: whether X25519 has fallen.
        own_parts: whether a client's own part hides anything; without, what it guards against is seen.
    """

    seeds_of: dict[tuple[int, int], tuple[bytes, bool, bool]]
    forged: set[tuple[int, int]]
    fallen = own_parts = True

    def _root_open(self, client: int) -> bool:
        return client in self.corrupt or client in self._open(self.keys)

    def _kem_open(self, client: int) -> bool:
        return client in self.corrupt or client in self.keys_open

    def _known(self, client: int, peer: int) -> bool:
        """Whether the server knows the seed on a client's upload for its mask with a peer."""
        if self._root_open(client) or self._root_open(peer):
            return True
        _, deals, is_dealt = self.seeds_of[client, peer]
        ours = not deals or self._kem_open(peer) or not self.own_parts
        theirs = not is_dealt or (peer, client) in self.forged or self._kem_open(client)
        return self.fallen and ours and theirs

    def sums(self) -> list[frozenset[int]]:
        """As `Observer.sums`, of masks that may differ at their two ends."""
        alive = {i for i in self.masked if i not in self.corrupt}
        hidden, together = alive - self.seeds_open, {i: set() for i in alive}
        for i in alive:
            for j in self.masked[i]:
                if self._known(i, j):
                    continue
                if (j, i) in self.seeds_of and self.seeds_of[i, j][0] == self.seeds_of[j, i][0]:
                    together[i].add(j)
                else:
                    hidden.add(i)
        found, left = [], set(alive)
        while left:
            part, queue = set(), {left.pop()}
            while queue:
                part.add(i := queue.pop())
                queue |= together[i] - part
            left -= part
            if not part & hidden:
                found.append(frozenset(part))
        return found


def forged(session: Rehearsal, dealer: int, holder: int, record: bytes) -> bytes:
    """What a dealer deals to a holder, with another part and its hash; public things are enough for these."""
    transcript, ends = session.server._state.transcript, (dealer, holder)
    keys = read_advert(transcript.adverts[holder], session.session).kem_keys
    context = transcript.contexts.between(dealer, holder)
    _, own = encapsulate_for(FORGER, (keys[0], keys[1]), context, ends)
    real = Encapsulated.cut(record[98:])
    changed = own._replace(sealing=real.sealing, secret_hash=real.secret_hash).encode()
    return record[:98] + changed + record[2370:]


class Forger(lying.Stopper):
    """Forges the parts of some dealers for some holders; ``stops`` clients are made to stop."""

    def __init__(self, session: Rehearsal, seed: int, rate: float, groups: int, stops: int, forge: float):
        super().__init__(session, seed, rate, stops)
        lying.Splitter.__init__(self, session, seed, rate, groups)
        self._draw = np.random.default_rng(seed + 999)
        self._rate = forge
        self.forged: set[tuple[int, int]] = set()

    def _sharers(self, client: int, message: bytes) -> bytes:
        kind, tag, (count, ids, blob) = take_apart(super()._sharers(client, message))
        dealt = wire.read_records(blob, self.session.session.dealt_bytes)
        for dealer, record in dealt.items():
            if client in self.victims or dealer in lying.CORRUPT or self._draw.random() >= self._rate:
                continue
            own = forged(self.session, dealer, client, record)
            dealt[dealer] = self.session.signed_record(dealer, client, own)
            self.forged.add((dealer, client))
        return wire.wrap(kind, tag, count, ids, wire.write_records(dealt))


def attack(monkeypatch: pytest.MonkeyPatch, label: str, *how: float) -> tuple[Forger, Seer]:
    session = chosen_rehearsal(label=label, suite=HYBRID)
    seeds_of, real = {}, uploading._pair_seed

    def spied(state, peer, part):
        seed, neighbour = real(state, peer, part), state.neighbours[peer]
        seeds_of[state.party.client_id, peer] = bytes(seed), neighbour.holder, neighbour.dealer
        return seed

    monkeypatch.setattr(uploading, "_pair_seed", spied)
    monkeypatch.setattr(lying, "Observer", Seer)
    liar = Forger(session, 0, *how)
    seen = liar.play()
    seen.seeds_of, seen.forged = seeds_of, liar.forged
    return liar, seen


@pytest.mark.parametrize(
    ("rate", "groups", "stops", "forge"),
    [
        (0, 1, 0, 0),
        (0, 1, 0, 0.05),
        (0, 1, 0, 1),
        (0, 1, 2, 0.3),
        (0, 1, 4, 1),
        (0.1, 1, 2, 1),
        (0, 2, 2, 0.3),
    ],
)
def test_no_part_that_is_forged_opens_a_vector_or_a_sum_of_too_few(monkeypatch, rate, groups, stops, forge):
    liar, seen = attack(monkeypatch, f"{rate} {groups} {stops} {forge}", rate, groups, stops, forge)
    assert seen.stopped == liar.victims if groups == 1 else seen.stopped < liar.victims
    assert bool(liar.forged) == bool(forge)
    for seen.fallen in (False, True):
        assert not seen.breaches()
        assert not seen.seeds_open & (seen.keys_open - seen.stopped)
        if not (rate or stops or forge) and groups == 1:
            assert seen.sums() == [frozenset(seen.masked) - seen.corrupt]


def test_a_client_whose_part_was_forged_for_a_holder_is_in_no_sum(monkeypatch):
    _, seen = attack(monkeypatch, "some", 0, 1, 0, 0.05)
    spoilt = {i for ends in seen.forged for i in ends} - seen.corrupt
    for seen.fallen in (False, True):
        assert not any(spoilt & part for part in seen.sums())
    for dealer, holder in seen.forged:
        assert seen.seeds_of[dealer, holder][0] != seen.seeds_of[holder, dealer][0]


def test_a_clients_own_part_is_what_keeps_its_masks_closed(monkeypatch):
    """Were it known, everybody's vector would open by itself: the observer does see such a breach."""
    _, seen = attack(monkeypatch, "own part", 0, 1, 0, 1)
    assert seen.sums() == []
    seen.own_parts = False
    assert {len(part) for part in seen.breaches()} == {1}


def altered(session: Rehearsal, message: bytes, dealer: int, change: Callable[[int, bytes], bytes]) -> bytes:
    """What the server sends one client to upload by, with the record of one dealer changed on the way."""
    kind, tag, (count, ids, blob) = take_apart(message)
    dealt = wire.read_records(blob, session.session.dealt_bytes)
    dealt[dealer] = change(dealer, dealt[dealer])
    return wire.wrap(kind, tag, count, ids, wire.write_records(dealt))


def first_dealer(session: Rehearsal, message: bytes, holder: int) -> int:
    """The first that dealt something to a client but itself."""
    _, _, (_, _, blob) = take_apart(message)
    return next(i for i in wire.read_records(blob, session.session.dealt_bytes) if i != holder)


def without(
    session: Rehearsal, victim: int, change: Callable[[int, bytes], bytes], *, own: bool = False
) -> tuple[Any, set[int]]:
    """Play with the first record for one client, or its own, changed on the way: its error, who is not in
    the sum."""
    errors = []

    def carry(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes | None:
        if (stage, receiver) != (Stage.UPLOAD, victim):
            return message
        dealer = victim if own else first_dealer(session, message, victim)
        try:
            session.clients[victim].upload(altered(session, message, dealer, change), session.values[victim])
        except SecureSumError as error:
            errors.append(error)
        return None  # it has left

    session.play(intercept=carry)
    result = session.server.result
    assert result.counts.tolist() == session.expected(result.survivors)
    assert session.server.blamed == session.server.unproved == {}
    [error] = errors
    return error, set(session.ids) - set(result.survivors)


def session_of(graph: str) -> Rehearsal:
    return Rehearsal(range(10), suite=HYBRID) if graph == "complete" else chosen_rehearsal(suite=HYBRID)


@pytest.mark.parametrize("graph", ["complete", "chosen"])
def test_one_part_replaced_on_the_way_costs_one_client_and_no_sum(graph):
    """Whoever carries one message to one client can make parts, and hashes, but no signature."""
    session = session_of(graph)
    error, lost = without(session, 4, lambda dealer, record: forged(session, dealer, 4, record))
    assert (type(error), error.stage, error.peer) == (SignatureError, Stage.UPLOAD, None)
    assert "something on the way may have altered" in str(error)
    assert lost == {4}


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("place", [0, 98, 1186, 2274, 2306, 2338, 2370, 2433])
def test_no_byte_of_a_record_can_be_altered_on_the_way(place, own):
    """Nor of a client's own, most of which it does not open: what it says it received would not be that."""

    def flip(_: int, record: bytes) -> bytes:
        return record[:place] + bytes([record[place] ^ 1]) + record[place + 1 :]

    error, lost = without(session_of("complete"), 4, flip, own=own)
    assert (type(error), error.stage, error.peer, lost) == (SignatureError, Stage.UPLOAD, None, {4})


@pytest.mark.parametrize("graph", ["complete", "chosen"])
@pytest.mark.parametrize("whose", ["another holder's", "another dealer's", "the holder's own"])
def test_a_record_that_was_signed_for_another_two_is_refused(whose, graph):
    session = session_of(graph)

    def other(dealer: int, record: bytes) -> bytes:
        transcript, width = session.server._state.transcript, session.session.dealt_bytes
        dealt = {i: wire.read_records(said, width) for i, (_, said) in transcript.dealt.items()}
        other_dealer = max(i for i in dealt.keys() - {4, dealer} if 4 in dealt[i])
        return {
            "another holder's": dealt[dealer][max(dealt[dealer].keys() - {4})],
            "another dealer's": dealt[other_dealer][4],
            "the holder's own": dealt[4][min(dealt[4].keys() - {4})],
        }[whose]

    error, lost = without(session, 4, other)
    assert (type(error), error.peer, lost) == (SignatureError, None, {4})


@pytest.mark.parametrize("graph", ["complete", "chosen"])
def test_the_signature_is_all_that_keeps_a_forged_part_from_costing_the_sum(graph, monkeypatch):
    monkeypatch.setattr(uploading, "_check_records", lambda *_: None)
    session, refusals = session_of(graph), []

    def carry(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        if (stage, receiver) != (Stage.UPLOAD, 4):
            return message
        dealer = first_dealer(session, message, 4)
        return altered(session, message, dealer, lambda dealer, record: forged(session, dealer, 4, record))

    with pytest.raises(SumError):
        session.play(intercept=carry, refused=refusals)
    assert [(type(error), error.peer) for error in refusals] == [(SignatureError, 4)]
    assert session.server.blamed == session.server.unproved == {}


@pytest.mark.parametrize("drop", [{}, {0: Stage.UPLOAD}])
@pytest.mark.parametrize("graph", ["complete", "chosen"])
def test_a_dealer_that_signs_two_records_for_one_holder_costs_a_sum_and_frames_nobody(graph, drop):
    """With a confederate on the way; as if it had uploaded a wrong vector. The documents say so."""
    session, refusals = session_of(graph), []

    def carry(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        if (stage, receiver) != (Stage.UPLOAD, 4):
            return message
        return altered(
            session, message, 0, lambda _, record: session.signed_record(0, 4, forged(session, 0, 4, record))
        )

    with pytest.raises(SumError):
        session.play(intercept=carry, refused=refusals, drop=drop)
    assert [(type(error), error.stage, error.peer) for error in refusals] == [
        (SignatureError, Stage.UNMASK, 4)
    ]
    assert session.server.blamed == session.server.unproved == {}
