"""Broken if two copies of one client, as a forked machine makes them, seal two messages under one key.

Both hold the keys of the advert that has left. The server shows them the same adverts, and they say the same;
or it shows them others, and then every key is another.
"""

from __future__ import annotations

import pytest
from chosen import chosen_rehearsal
from forgery import ADVERT_BYTES, drop_record, records, take_apart
from rehearsal import Rehearsal, Stream

from prism_crypto import MemoryCounter, SecureSumClient
from prism_crypto.primitives import keys
from prism_crypto.stage import Stage

VICTIM = 2


def two_copies(mode: str) -> tuple[Rehearsal, Rehearsal, dict[int, bytes]]:
    """The same client twice, after its advert; what it draws from now on differs."""
    one, other = (Rehearsal(label="the same machine", mode=mode) for _ in range(2))
    adverts = one.play(until=Stage.ADVERTISE)
    other.play(until=Stage.ADVERTISE)
    fork = Stream("after the fork")
    object.__setattr__(other.clients[VICTIM]._state.party, "rng", fork)
    return one, other, adverts


@pytest.mark.parametrize("mode", ["active", "semi_honest"])
def test_in_one_context_both_copies_deal_the_same_bytes(mode):
    one, other, adverts = two_copies(mode)
    assert one.clients[VICTIM].share(adverts[VICTIM]) == other.clients[VICTIM].share(adverts[VICTIM])


def watch_seals(monkeypatch: pytest.MonkeyPatch) -> dict[bytes, set[bytes]]:
    """From now on: what is sealed under each key."""
    sealed: dict[bytes, set[bytes]] = {}
    real = keys.AESGCM

    class Watched:
        def __init__(self, key: bytes) -> None:
            self.key, self.cipher = key, real(key)

        def encrypt(self, nonce: bytes, plain: bytes, associated: bytes) -> bytes:
            sealed.setdefault(self.key, set()).add(plain)
            return self.cipher.encrypt(nonce, plain, associated)

    monkeypatch.setattr(keys, "AESGCM", Watched)
    return sealed


def test_no_key_seals_two_messages_whatever_the_copies_are_shown(monkeypatch):
    one, other, adverts = two_copies("active")
    sealed = watch_seals(monkeypatch)
    one.clients[VICTIM].share(adverts[VICTIM])
    once = len(sealed)
    other.clients[VICTIM].share(records(1, ADVERT_BYTES, drop_record(4))(adverts[VICTIM]))
    assert once == 2 * 5
    assert len(sealed) == once + 2 * 4
    assert all(len(messages) == 1 for messages in sealed.values())


HIDDEN = {"none": (), "one": (0,), "another": (1,), "four": (0, 1, 2, 3)}


def copies_on_a_chosen_graph(hidden: tuple[int, ...]) -> tuple[list[SecureSumClient], list[bytes]]:
    """Two copies of one machine; of the neighbours that it chose the second is not shown some."""
    room = chosen_rehearsal()
    for i, client in room.clients.items():
        room.server.receive(i, client.advertise())
    stream = Stream(f"rehearsal: client {VICTIM}")
    copy = room.client(VICTIM, rng=stream, counter=MemoryCounter())
    assert copy.advertise() == room.clients[VICTIM].resend()
    state = copy._state
    object.__setattr__(state.party, "rng", Stream("after the fork"))
    message = room.server.close()[VICTIM]
    fewer = message
    for place in hidden:
        fewer = records(1, len(state.advert), drop_record(state.choice[place]))(fewer)
    return [room.clients[VICTIM], copy], [message, fewer]


@pytest.mark.parametrize("hidden", HIDDEN.values(), ids=HIDDEN)
def test_no_key_seals_two_messages_where_clients_choose(hidden, monkeypatch):
    copies, shown = copies_on_a_chosen_graph(hidden)
    sealed = watch_seals(monkeypatch)
    for copy, message in zip(copies, shown, strict=True):
        copy.share(message)
    assert len(sealed) == 2 * 12
    assert all(len(messages) == 1 for messages in sealed.values())


def test_shares_of_two_contexts_are_on_other_polynomials():
    """Else t - 1 shares here and one there would be t of one polynomial."""
    one, other, adverts = two_copies("active")
    first = take_apart(one.clients[VICTIM].share(adverts[VICTIM]))[2][0]
    second = take_apart(
        other.clients[VICTIM].share(records(1, ADVERT_BYTES, drop_record(4))(adverts[VICTIM]))
    )[2][0]
    assert first[:102] != second[:102]
