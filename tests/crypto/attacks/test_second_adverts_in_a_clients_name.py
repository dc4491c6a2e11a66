"""Broken if a client proves what it agreed on with honest neighbours that saw another advert in its name.

Who has a copy of a client's identity, or of a folder from before its advert, can advertise as that client.
On a chosen graph a lying server shows this advert to some of the client's honest neighbours. What they deal,
and what they vouch, is right under it and wrong to the client: it complains, or doubts. If it proved what it
agreed on with them, its shares with k - t of its holders would open, and with t - (k - t) more its vector.
So it is, the other way round, where the client itself is shown a second advert in an honest neighbour's name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
import pytest
import reference as wire
from chosen import VOUCHER, choice, chosen_rehearsal, saw
from forgery import refused, take_apart
from rehearsal import HYBRID, Stream, needs_kem

from prism_crypto import MemoryCounter, Stage
from prism_crypto.errors import SealError, SignatureError
from prism_crypto.primitives.keys import KeyPair
from prism_crypto.stages import vouch
from prism_crypto.stages.advert import read_advert
from prism_crypto.wire.messages import encode_statements, encode_views

V, DEGREE, THRESHOLD = 5, 20, 15
SUITES = ["x25519", pytest.param(HYBRID, marks=needs_kem)]


class Thief:
    """A lying server with a copy of V. It shows V's second advert to ``fooled``, honest holders of it.

    ``dealing``: whether they deal to V as well, so that V complains of them; else V doubts their vouchers.
    """

    def __init__(self, suite: str, dealing: bool) -> None:
        self.room = room = chosen_rehearsal(degree=DEGREE, threshold=THRESHOLD, suite=suite)
        self.context0, self.width = room.session.context0, room.session.dealt_bytes
        clone = room.client(V, rng=Stream("the clone"), counter=MemoryCounter())
        self.adverts = {i: take_apart(client.advertise())[2][0] for i, client in room.clients.items()}
        self.other = take_apart(clone.advertise())[2][0]
        self.chosen = {i: choice(room, i) for i in room.ids}
        second = read_advert(self.other, room.session).choice
        holders = [i for i in self.chosen[V] if (V in self.chosen[i]) == dealing and (dealing or i in second)]
        self.fooled = holders[: DEGREE - THRESHOLD]
        assert self.fooled
        self.claimed = {V: self.adverts[V]}
        self._share()
        near = {i for i in room.ids if i != V and (i in second or V in self.chosen[i])}
        seen = {i: self.adverts[i] for i in near} | {V: self.other}
        message = wire.wrap(17, self.context0[:16], b"", wire.write_records(dict(sorted(seen.items()))))
        self.by_clone = wire.read_records(take_apart(clone.share(message))[2][0], self.width)

    def _share(self) -> None:
        self.shown = {i: self._shown(i) for i in self.room.ids}
        self.tags, self.dealt = {}, {}
        for i, client in self.room.clients.items():
            said = client.share(wire.wrap(17, self.context0[:16], b"", wire.write_records(self.shown[i])))
            _, self.tags[i], (sealed, signature) = take_apart(said)
            self.dealt[i] = signature, sealed

    def _near(self, i: int) -> list[int]:
        near = [j for j in self.room.ids if j != i and (j in self.chosen[i] or i in self.chosen[j])]
        return sorted({*near, V}) if i in self.fooled else near

    def _shown(self, i: int) -> dict[int, bytes]:
        seen = {j: self.adverts[j] for j in (i, *self._near(i))}
        return dict(sorted((seen | ({V: self.other} if i in self.fooled else {})).items()))

    def _boxes(self, i: int, near: list[int]) -> bytes:
        boxes = {}
        for j in near:
            if j == V and i in self.fooled:
                boxes |= {V: self.by_clone[i]} if i in self.by_clone else {}
            elif i in self.chosen[j]:
                boxes[j] = wire.read_records(self.dealt[j][1], self.width)[i]
        return wire.write_records(boxes)

    def upload(self, live: list[int]) -> None:
        """V is told of everybody, the others of those in ``live``."""
        self.said, self.statements = {}, {}
        for i in live:
            kind, (words, lacking, vouchers, signature) = self.asked(i, live)
            assert kind == 6
            self.said[i] = wire.read_records(vouchers, VOUCHER)
            statement = hashlib.sha256(words).digest() + wire.u32(len(vouchers)) + vouchers + lacking
            self.statements[i] = signature, statement

    def asked(self, i: int, live: list[int]) -> tuple[int, list[bytes]]:
        """A client's upload, or its stop."""
        near = [j for j in self._near(i) if j in live or i == V]
        ids, n = wire.id_list(sorted([i, *near])), len(self.room.ids)
        message = wire.wrap(18, self.tags[i], n, ids, self._boxes(i, near))
        kind, _, fields = take_apart(self.room.clients[i].upload(message, self.room.values[i]))
        return kind, fields

    def confirm(self) -> None:
        self.counted = {}
        for i in self.said:
            vouchers = {j: self.said[j][i] for j in self._near(i) if i in self.said.get(j, {})}
            message = wire.wrap(22, self.tags[i], len(self.room.ids), wire.write_records(vouchers))
            _, _, (counted, _) = take_apart(self.room.clients[i].confirm(message))
            self.counted[i] = wire.read_records(counted, VOUCHER)

    def unmask(
        self, appeals: Sequence[int], doubts: Sequence[int], lie: bool = False
    ) -> tuple[int, bytes, list[bytes]]:
        """V's last message, cut up. ``lie``: the server shows V views of the adverts that V has seen."""
        counted = {j: said[V] for j, said in self.counted.items() if V in said and j in self.chosen[V]}
        views = {}
        for i in (*appeals, *doubts):
            added = {j: advert for j, advert in self.claimed.items() if lie and j in (V, i)}
            views[i] = saw(self.shown[i] | added)
        fields = [wire.write_records(counted), encode_statements({i: self.dealt[i] for i in appeals})]
        if doubts:
            fields.append(encode_statements({i: self.statements[i] for i in doubts}))
        message = wire.wrap(24 if doubts else 23, self.tags[V], *fields, encode_views(views))
        return take_apart(self.room.clients[V].unmask(message))


class NeighboursThief(Thief):
    """A lying server with the identities of ``fooled`` alone, which have seen the real V and are honest.

    It shows V an advert in the name of each: the public ones' sealing key and proof, and another mask key.
    """

    def __init__(self, suite: str, dealing: bool) -> None:
        self.room = room = chosen_rehearsal(degree=DEGREE, threshold=THRESHOLD, suite=suite)
        self.context0, self.width = room.session.context0, room.session.dealt_bytes
        self.adverts = {i: take_apart(client.advertise())[2][0] for i, client in room.clients.items()}
        self.chosen = {i: choice(room, i) for i in room.ids}
        holders = [i for i in self.chosen[V] if (V in self.chosen[i]) == dealing]
        self.fooled = holders[: DEGREE - THRESHOLD]
        assert self.fooled
        self.claimed = {i: self._second(i) for i in self.fooled}
        self._share()

    def _second(self, i: int) -> bytes:
        real = read_advert(self.adverts[i], self.room.session)
        second = msgspec.structs.replace(real, mask_key=KeyPair(bytes([i + 1]) * 32).public)
        signature = self.room.identities[i].sign(Stage.ADVERTISE, second.signed_part(self.context0, i))
        return msgspec.structs.replace(second, signature=signature).encode()

    def _near(self, i: int) -> list[int]:
        return [j for j in self.room.ids if j != i and (j in self.chosen[i] or i in self.chosen[j])]

    def _shown(self, i: int) -> dict[int, bytes]:
        seen = {j: self.adverts[j] for j in (i, *self._near(i))}
        return dict(sorted((seen | (self.claimed if i == V else {})).items()))

    def _boxes(self, i: int, near: list[int]) -> bytes:
        dealt = {j: wire.read_records(self.dealt[j][1], self.width)[i] for j in near if i in self.chosen[j]}
        return wire.write_records(dealt)


@pytest.mark.parametrize("lie", [False, True])
def test_it_complains_of_nobody_in_whose_name_it_was_shown_another_advert(lie):
    thief = NeighboursThief("x25519", dealing=True)
    thief.upload(thief.room.ids)
    thief.confirm()
    assert set(thief.room.clients[V]._state.uploaded.unopened) == set(thief.fooled)
    with refused(SealError, Stage.UNMASK, None) as caught:
        thief.unmask(thief.fooled, (), lie)
    assert lie or "or the server says so" in str(caught.value)  # its list may be made up


@pytest.mark.parametrize("lie", [False, True])
def test_it_proves_nothing_of_those_in_whose_name_it_was_shown_another_advert(lie):
    thief = NeighboursThief("x25519", dealing=False)
    thief.upload(thief.room.ids)
    thief.confirm()
    assert set(thief.room.clients[V]._state.doubted) == set(thief.fooled)
    kind, _, fields = thief.unmask((), thief.fooled, lie)
    assert kind == 5  # without proofs
    assert not set(wire.read_records(fields[0], 32)) & set(thief.fooled)


@pytest.mark.parametrize("lie", [False, True])
def test_it_complains_of_nobody_who_dealt_to_the_second_advert(lie):
    thief = Thief("x25519", dealing=True)
    thief.upload([i for i in thief.room.ids if i not in thief.fooled])
    assert set(thief.room.clients[V]._state.unopened) == set(thief.fooled)
    thief.confirm()
    with refused(SealError, Stage.UNMASK, None):
        thief.unmask(thief.fooled, (), lie)


@needs_kem
@pytest.mark.parametrize("kind_of_thief", [Thief, NeighboursThief])
def test_in_a_hybrid_session_it_leaves_as_nobody_signed_that_for_what_it_was_shown(kind_of_thief):
    thief = kind_of_thief(HYBRID, dealing=True)
    with refused(SignatureError, Stage.UPLOAD, None):
        thief.asked(V, thief.room.ids)


@needs_kem
def test_in_a_hybrid_session_those_who_only_hold_leave_instead():
    thief = NeighboursThief(HYBRID, dealing=False)
    for i in thief.fooled:
        with refused(SignatureError, Stage.UPLOAD, None):
            thief.asked(i, thief.room.ids)


@pytest.mark.parametrize("lie", [False, True])
@pytest.mark.parametrize("suite", SUITES)
def test_it_proves_nothing_of_those_who_vouched_to_the_second_advert(suite, lie):
    thief = Thief(suite, dealing=False)
    thief.upload(thief.room.ids)
    thief.confirm()
    assert set(thief.fooled) <= set(thief.room.clients[V]._state.doubted)
    kind, _, fields = thief.unmask((), thief.fooled, lie)
    assert kind == 5  # without proofs
    assert not set(wire.read_records(fields[0], 32)) & set(thief.fooled)


@pytest.mark.parametrize(
    ("kind_of_thief", "suite"),
    [(Thief, "x25519"), pytest.param(Thief, HYBRID, marks=needs_kem), (NeighboursThief, "x25519")],
)
def test_nothing_else_keeps_it_from_that(kind_of_thief, suite, monkeypatch):
    monkeypatch.setattr(vouch, "_saw_the_same", lambda *_: True)
    thief = kind_of_thief(suite, dealing=False)
    thief.upload(thief.room.ids)
    thief.confirm()
    kind, _, fields = thief.unmask((), thief.fooled)
    assert kind == 9
    assert list(wire.read_records(fields[3], 96)) == thief.fooled


def test_nothing_else_keeps_it_from_complaining_of_them(monkeypatch):
    monkeypatch.setattr(vouch, "_saw_the_same", lambda *_: True)
    thief = Thief("x25519", dealing=True)
    thief.upload([i for i in thief.room.ids if i not in thief.fooled])
    thief.confirm()
    _, _, fields = thief.unmask(thief.fooled, ())
    assert list(wire.read_records(fields[2], 96)) == thief.fooled
