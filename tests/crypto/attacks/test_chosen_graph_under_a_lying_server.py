"""Broken if a server opens a sum of fewer than it should on a graph that the clients choose.

Nobody sees all of U2 and U3 there. So a server may tell each client something else: of who advertised, who
shared, who uploaded, who confirmed. An observer who knows everything works out which sums its answers open.
In each of them every client must have t of its own choices, among the clients in the sum and the colluders.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
import reference as wire
from chosen import VOUCHER, Observer, choice, chosen_rehearsal
from forgery import records, take_apart
from rehearsal import HYBRID, Rehearsal, needs_kem

from prism_crypto.errors import SecureSumError
from prism_crypto.stage import Stage
from prism_crypto.stages import advertise as advertising
from prism_crypto.stages import vouch
from prism_crypto.stages.advert import advert_bytes
from prism_crypto.stages.states import Stopped

CORRUPT = frozenset({0})
FORGED = bytes(VOUCHER)


class Liar:
    """A server that tells each client something else. It knows what corrupt clients know, and forges nothing
    that it can't: vouchers of honest clients it can pass on, keep back, or replace by zeros."""

    def __init__(self, session: Rehearsal) -> None:
        self.session = session

    def advertised(self, subject: int, client: int) -> bool:
        """Whether it shows ``client`` the advert of ``subject``."""
        return True

    def shared(self, subject: int, client: int) -> bool:
        """Whether it tells ``client`` that ``subject`` has shared."""
        return True

    def survived(self, subject: int, client: int) -> bool:
        """Whether it tells ``client`` that ``subject`` has survived."""
        return True

    def forges(self, subject: int, client: int) -> bool:
        """Whether it makes up what it lacks of ``subject``'s vouchers for ``client``."""
        return False

    def alters(self, client: int) -> bool:
        """Hybrid: whether all that deal to ``client`` lend their keys, and send parts with which it stops."""
        return False

    def play(self) -> Observer:
        session, clients = self.session, dict(self.session.clients)
        adverts = session.play(until=Stage.ADVERTISE)
        seen = Observer({i: choice(session, i) for i in session.ids}, CORRUPT, session.session.threshold)
        replies = {i: _ask(clients, i, "share", self._adverts(i, adverts[i])) for i in session.ids}
        dealt = {i: take_apart(reply)[1:] for i, reply in replies.items() if reply is not None}
        with suppress(SecureSumError):  # an honest server does not go on where adverts were kept back
            for i, reply in replies.items():
                session.server.receive(i, reply)
            session.server.close()
        shares = {i: self._shares(i, dealt) for i in dealt}

        uploaded: dict[int, dict[int, bytes]] = {}
        for i in list(clients):
            message = _ask(clients, i, "upload", self._sharers(i, shares[i]), session.values[i])
            if message is not None and isinstance(clients[i]._state, Stopped):
                seen.stopped.add(i)
                del clients[i]
            elif message is not None:
                seen.uploaded(i, clients[i]._state)
                uploaded[i] = wire.read_records(take_apart(message)[2][2], VOUCHER)

        counted: dict[int, dict[int, bytes]] = {}
        for i in list(clients):
            near = [j for j in seen.masked[i] if j in uploaded or j in seen.stopped]
            said = {j: uploaded.get(j, {}).get(i) for j in near if self.survived(j, i)}
            lie = wire.wrap(22, _tag(shares[i]), session.session.quorum, self._vouchers(said, i))
            message = _ask(clients, i, "confirm", lie)
            if message is not None:
                counted[i] = wire.read_records(take_apart(message)[2][0], VOUCHER)

        for i in list(clients):
            said = {j: counted[j].get(i) for j in seen.choices[i] if j in counted and j in seen.masked[i]}
            lie = wire.wrap(23, _tag(shares[i]), self._vouchers(said, i), b"", b"")
            message = _ask(clients, i, "unmask", lie)
            if message is not None and i not in CORRUPT:
                seen.unmasked(i, message)
        return seen

    def _adverts(self, client: int, message: bytes) -> bytes:
        width = advert_bytes(self.session.session)

        def keep(cut: dict[int, bytes]) -> None:
            for j in [j for j in cut if j != client and not self.advertised(j, client)]:
                del cut[j]

        return records(1, width, keep)(message)

    def _shares(self, client: int, dealt: dict[int, tuple[bytes, list[bytes]]]) -> bytes:
        """Of those whose adverts a client has seen, but for who chose it and has not seen its own."""
        width, near = self.session.session.dealt_bytes, self.session.clients[client]._state.neighbours
        boxes = {j: wire.read_records(dealt[j][1][0], width).get(client) for j in near if j in dealt}
        listed = sorted([client, *(j for j, box in boxes.items() if box or not near[j].dealer)])
        given = wire.write_records({j: box for j, box in sorted(boxes.items()) if box})
        return wire.wrap(wire.SHARES, dealt[client][0], len(self.session.ids), wire.id_list(listed), given)

    def _sharers(self, client: int, message: bytes) -> bytes:
        kind, tag, (count, listed, sealed) = take_apart(message)
        kept = [j for j in wire.read_ids(listed) if j == client or self.shared(j, client)]
        dealt = wire.read_records(sealed, self.session.session.dealt_bytes)
        boxes = {j: box for j, box in dealt.items() if j in kept}
        if self.alters(client):
            for j, box in boxes.items():
                boxes[j] = self.session.signed_record(j, client, box[:2274] + FORGED + box[2290:])
        return wire.wrap(kind, tag, count, wire.id_list(kept), wire.write_records(boxes))

    def _vouchers(self, said: dict[int, bytes | None], client: int) -> bytes:
        return wire.write_records(
            {j: shown or FORGED for j, shown in said.items() if shown or self.forges(j, client)}
        )


def _tag(message: bytes) -> bytes:
    return take_apart(message)[1]


def _ask(clients, i, stage, *arguments):
    """The client's answer; a client that refuses is out."""
    try:
        return getattr(clients[i], stage)(*arguments)
    except SecureSumError:
        del clients[i]
        return None


class Splitter(Liar):
    """Splits the clients into groups, and hides more of them from one another at random."""

    def __init__(self, session: Rehearsal, seed: int, rate: float, groups: int, kept_back: float = 0) -> None:
        super().__init__(session)
        draw = np.random.default_rng(seed)
        group = draw.integers(groups, size=len(session.ids))
        self._hidden = (draw.random((2, group.size, group.size)) < rate) | (group[:, None] != group)
        self._forged = draw.random((group.size, group.size)) < rate
        self.kept_back = draw.random((group.size, group.size)) < kept_back

    def advertised(self, subject: int, client: int) -> bool:
        return not self.kept_back[subject, client] or bool({subject, client} & CORRUPT)

    def shared(self, subject: int, client: int) -> bool:
        return not self._hidden[0, subject, client] or bool({subject, client} & CORRUPT)

    def survived(self, subject: int, client: int) -> bool:
        return not self._hidden[1, subject, client] or bool({subject, client} & CORRUPT)

    def forges(self, subject: int, client: int) -> bool:
        return bool(self._forged[subject, client])


@pytest.mark.parametrize(("rate", "groups"), [(0.0, 1), (0.05, 1), (0.15, 1), (0.3, 1), (0.0, 2), (0.05, 2)])
def test_no_lie_opens_a_sum_in_which_somebody_lacks_t_of_its_choices(rate, groups):
    opened = given = 0
    for seed in range(4):
        session = chosen_rehearsal(label=f"lies {seed}")
        seen = Splitter(session, seed, rate, groups).play()
        assert not seen.seeds_open & seen.keys_open
        assert not seen.breaches()
        opened += len(seen.sums())
        given += len(seen.seeds)
    if rate < 0.1 and groups == 1:
        assert given  # the clients do go on with a few lies among them
    if not rate and groups == 1:
        assert opened == 4  # who tells the truth opens one sum a session


@pytest.mark.parametrize(
    ("kept_back", "rate", "mutual"), [(0.06, 0, True), (0.03, 0, False), (0.1, 0.05, False)]
)
def test_nor_do_adverts_that_are_kept_back_from_some(kept_back, rate, mutual):
    """Two clients don't know that they are neighbours; or one does, and they disagree on who deals."""
    given = 0
    for seed in range(2):
        liar = Splitter(chosen_rehearsal(label=f"lies {seed}"), seed, rate, 1, kept_back)
        if mutual:
            liar.kept_back |= liar.kept_back.T
        seen = liar.play()
        disagree = any(
            j in seen.masked and i not in seen.masked[j] for i in seen.masked for j in seen.masked[i]
        )
        assert disagree != mutual
        assert not seen.seeds_open & seen.keys_open
        assert not seen.breaches()
        assert [len(part) for part in seen.sums()] == ([23] if mutual else [])
        given += len(seen.seeds)
    assert given  # the clients do go on


class Stopper(Splitter):
    """Makes some clients stop beside, and tells everybody that they have survived."""

    def __init__(self, session: Rehearsal, seed: int, rate: float, count: int) -> None:
        super().__init__(session, seed, rate, 1)
        ids = sorted(set(session.ids) - CORRUPT)
        self.victims = set(np.random.default_rng(seed + 100).choice(ids, count, replace=False).tolist())

    def alters(self, client: int) -> bool:
        return client in self.victims

    def forges(self, subject: int, client: int) -> bool:
        return subject in self.victims or super().forges(subject, client)


@needs_kem
@pytest.mark.parametrize(("rate", "count"), [(0.0, 0), (0.0, 2), (0.0, 6), (0.0, 14), (0.1, 4)])
def test_clients_that_stop_are_none_of_the_t_that_anybody_in_a_sum_has(rate, count):
    """Whoever counts on them refuses: a stop tells no voucher. So the cohort is what it is without them."""
    opened = []
    for seed in range(2):
        session = chosen_rehearsal(label=f"stops {seed}", suite=HYBRID)
        liar = Stopper(session, seed, rate, count)
        seen = liar.play()
        assert seen.stopped == liar.victims
        assert not seen.stopped & set(seen.masked)
        assert not seen.seeds_open & (seen.keys_open - seen.stopped)
        assert not seen.breaches()
        opened += seen.sums()
    if count <= 2 and not rate:
        assert opened  # t of each client's choices are left
    if count == 14:
        assert not opened  # and here of nobody's


def rig(monkeypatch, graph: dict[int, list[int]]) -> Rehearsal:
    """A session in which clients choose what we need: the worst graph, not a likely one."""
    for i, chosen in graph.items():
        assert len(set(chosen) - {i}) == 12, i
    monkeypatch.setattr(advertising, "choose", lambda ids, me, degree, rng: tuple(sorted(graph[me])))
    return chosen_rehearsal(n=len(graph), degree=12, threshold=7, lost=len(graph) - 3)


class HelpersWithoutMasks(Liar):
    """Some clients S do not mask with H, who help to open them; D, with whom S masks, is dropped.

    Without the vouchers of uploads: S masks with S and D alone, since it thinks that H has not shared. H
    counts S as survivors and D as dropped: the keys of D open, and four vectors are left under no mask.
    """

    S, D, H = range(1, 5), range(5, 12), range(12, 24)

    @classmethod
    def graph(cls) -> dict[int, list[int]]:
        graph = {0: [*cls.H]}
        for i in cls.S:
            graph[i] = [*(j for j in cls.S if j != i), *cls.D[:4], *cls.H[:5]]
        graph |= {d: [*cls.H] for d in cls.D}
        return graph | {h: [*(j for j in cls.H if j != h), 0] for h in cls.H}

    def shared(self, subject: int, client: int) -> bool:
        return not (subject in self.H and client in self.S)

    def survived(self, subject: int, client: int) -> bool:
        return not (subject in self.D and client in self.H)

    def forges(self, subject: int, client: int) -> bool:
        return subject in self.S and client in self.H


class HelpersThatAreDropped(Liar):
    """H helps to open S, and is itself dropped: G, whom H chose, gives the keys of H.

    Without the vouchers of those who count H as survivors: each vector of S is left under no mask at all.
    """

    S, H, G = range(1, 5), range(5, 17), range(17, 29)

    @classmethod
    def graph(cls) -> dict[int, list[int]]:
        graph = {i: [*cls.H] for i in (0, *cls.S)} | {h: [*cls.G] for h in cls.H}
        return graph | {g: [*(j for j in cls.G if j != g), 0] for g in cls.G}

    def survived(self, subject: int, client: int) -> bool:
        return not (subject in self.H and client in self.G)

    def forges(self, subject: int, client: int) -> bool:
        return subject in self.G and client in self.H


@pytest.mark.parametrize("liar", [HelpersWithoutMasks, HelpersThatAreDropped])
@pytest.mark.parametrize("checked", [True, False])
def test_a_server_that_likes_the_graph_is_stopped_by_vouchers_and_by_nothing_else(monkeypatch, liar, checked):
    session = rig(monkeypatch, liar.graph())
    if not checked:
        monkeypatch.setattr(vouch.hmac, "compare_digest", lambda *_: True)
    seen = liar(session).play()
    victims = [part for part in seen.breaches() if part <= set(liar.S)]
    assert frozenset(liar.S) == frozenset().union(*victims) if not checked else not victims
    assert not seen.seeds_open & seen.keys_open
    if checked:
        assert not seen.breaches()
