"""A whole session of real clients and a real server in one place, with somebody in the middle.

Everything goes through one loop, `play`, and every message through one function, ``intercept``, which may
change it, lose it, or keep it for later. An attacker is such a function.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
import pytest
import reference
import reference_chosen
import reference_kem

from prism_crypto.client import SecureSumClient
from prism_crypto.keeping.identity import Identity, Roster
from prism_crypto.keeping.session_counter import MemoryCounter
from prism_crypto.policy import Policy
from prism_crypto.primitives import hybrid
from prism_crypto.primitives.keys import SealingKeyPair
from prism_crypto.server import SecureSumServer
from prism_crypto.session import Session
from prism_crypto.spec import CountSpec
from prism_crypto.stage import Mode, Stage

HYBRID = "x25519+ml-kem-768"
needs_kem = pytest.mark.skipif(not hybrid.available(), reason="this cryptography has no ML-KEM-768")

SERVER = None
"""The server's name as sender or receiver."""

Intercept = Callable[[Stage, int | None, int | None, bytes], bytes | None]
"""``intercept(stage, sender, receiver, message)``: what arrives, None for nothing. A message belongs to the
stage at which its receiver reads it, so the adverts that the server sends around belong to share."""


def untouched(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
    return message


class Stream:
    """Fixed randomness: SHAKE-256 of a label, read from front to back. ``taken`` is what has been read."""

    def __init__(self, label: str) -> None:
        self.label, self.taken = label, b""

    def __call__(self, count: int) -> bytes:
        end = len(self.taken) + count
        drawn = hashlib.shake_256(self.label.encode()).digest(end)[len(self.taken) :]
        self.taken += drawn
        return drawn


@contextmanager
def encapsulating(label: str, coins: Callable[[int], bytes] | None = None) -> Iterator[Any]:
    """Fixed randomness for ML-KEM as well, in both implementations: the second one encapsulates for both."""
    coins = coins or Stream(f"{label}: encapsulations")
    ours, theirs = hybrid.encapsulate, reference.Client.coins
    hybrid.encapsulate = lambda public: reference_kem.encapsulate(public, coins(32))
    reference.Client.coins = staticmethod(coins)
    try:
        yield coins
    finally:
        hybrid.encapsulate, reference.Client.coins = ours, staticmethod(theirs)


def stages(mode: str) -> list[Stage]:
    return [stage for stage in Stage if mode != "semi_honest" or stage is not Stage.CONFIRM]


def play(
    clients: Mapping[int, Any],
    server: Any,
    values: Mapping[int, Any],
    *,
    mode: str = "active",
    drop: Mapping[int, Stage] | None = None,
    intercept: Intercept = untouched,
    until: Stage | None = None,
    refused: list[Exception] | None = None,
) -> dict[int, bytes]:
    """Run a session to its end, or to the end of stage ``until``.

    A client in ``drop`` is silent from that stage on. Errors of clients and server fly out of here; with a
    list ``refused`` the server's refusals of single messages are collected instead.

    Returns:
        What the server sent last.
    """
    drop = drop or {}
    inbox: dict[int, bytes | None] = dict.fromkeys(clients)
    for stage in stages(mode):
        for client_id, message in inbox.items():
            if client_id in drop and stage.number >= drop[client_id].number:
                continue
            arguments = [] if message is None else [message]
            if stage is Stage.UPLOAD and isinstance(clients[client_id], SecureSumClient):
                arguments.append(values[client_id])
            reply = getattr(clients[client_id], stage.value)(*arguments)
            reply = intercept(stage, client_id, SERVER, reply)
            if reply is None:
                continue
            try:
                server.receive(client_id, reply)
            except Exception as error:
                if refused is None:
                    raise
                refused.append(error)
        following = Stage.UNMASK if stage is Stage.UNMASK else stages(mode)[stages(mode).index(stage) + 1]
        outbound = {
            client_id: intercept(following, SERVER, client_id, message)
            for client_id, message in server.close().items()
        }
        inbox = {client_id: message for client_id, message in outbound.items() if message is not None}
        if stage is until:
            break
    return inbox


class Rehearsal:
    """One session with all its parties.

    Args:
        ids: the clients.
        spec: what is summed.
        rng: for each client its randomness; by default fixed and different for each ``label``.
        policy: each client's policy; by default two survivors.
        session: fields of `Session.plan`.
    """

    def __init__(
        self,
        ids: range | list[int] = range(5),
        spec: CountSpec | None = None,
        *,
        label: str = "rehearsal",
        policy: Policy | None = None,
        identities: dict[int, Identity] | None = None,
        counters: dict[int, Any] | None = None,
        **session: Any,
    ) -> None:
        self.identities = identities or {i: identity(i) for i in ids}
        self.roster = Roster(self.public_keys())
        session.setdefault("federation", "rehearsal")
        session.setdefault("number", 1)
        self.session = Session.plan(spec or CountSpec(40), ids, roster=self.roster, **session)
        self.ids = [i for i in ids if i in (self.session.invited.ids or ())]  # without the excluded
        self.active = self.session.mode is Mode.ACTIVE
        self.policy = policy or Policy(min_survivors=2, mode=self.session.mode)
        self.rng = {i: Stream(f"{label}: client {i}") for i in self.ids}
        self.server_rng = Stream(f"{label}: server")
        self.counters = counters or {i: MemoryCounter() for i in self.ids}
        self.clients = {i: self.client(i) for i in self.ids}
        self.server = SecureSumServer(self.session, roster=self.roster, rng=self.server_rng)
        bits = np.random.default_rng(0)
        whole = self.session.spec
        parts = ((whole.dimension, whole.bound),) if whole.parts is msgspec.UNSET else whole.parts
        self.values = {
            i: np.concatenate([bits.integers(0, bound, length, endpoint=True) for length, bound in parts])
            for i in self.ids
        }

    def client(self, client_id: int, **changes: Any) -> SecureSumClient:
        """A client of this session, with changes to what it is made of."""
        arguments = {
            "client_id": client_id,
            "session": self.session,
            "policy": self.policy,
            "identity": self.identities[client_id],
            "roster": self.roster,
            "counter": self.counters[client_id],
            "rng": self.rng[client_id],
            **changes,
        }
        return SecureSumClient(**arguments)

    def reference_session(self) -> reference.Session:
        """The same parameters for the slow second implementation."""
        spec, fields = self.session.spec, msgspec.structs.asdict(self.session)
        fields |= {
            "dimension": spec.dimension,
            "bound": spec.bound,
            "codec": spec.codec,
            "parts": None if spec.parts is msgspec.UNSET else list(spec.parts),
            "mode": fields["mode"].value,
        }
        fields |= {
            "invited": list(self.session.invited.ids or ()),
            "roster": dict(sorted(self.public_keys().items())),
        }
        return reference.Session(**{name: fields[name] for name in reference.Session.__annotations__})

    def key_signature(self, client_id: int, usage: str, body: bytes) -> bytes:
        """What a client signs with its sealing key, the first 32 bytes that it has drawn."""
        return SealingKeyPair(self.rng[client_id].taken[:32]).sign(usage, body)

    def signed_record(self, dealer: int, holder: int, record: bytes) -> bytes:
        """What somebody else makes of a record; in hybrid sessions under its dealer's own key again.

        That is more than a lying server has, unless the dealer is its confederate.
        """
        if not (self.active and self.session.hybrid):
            return record
        dealt = record[: 98 + hybrid.ENCAPSULATED_BYTES]
        state: Any = self.server._state
        context = getattr(state, "transcript", state).contexts.between(dealer, holder)
        ends = reference.u32(dealer) + reference.u32(holder)
        return dealt + self.key_signature(dealer, "record", context + ends + reference.hashes(dealt))

    def public_keys(self) -> dict[int, bytes]:
        return {i: key.public_key for i, key in self.identities.items()}

    def cheat(self, client_id: int, kind: type[reference.Client]) -> reference.Client:
        """Let a malicious client, made from the slow second implementation, take an honest one's place.

        On a chosen graph it is what ``kind`` makes of the client that chooses.
        """
        if self.session.graph == "chosen":
            kind = type(kind.__name__, (kind, reference_chosen.Client), {})
        values = [int(value) for value in self.values[client_id]]
        client = kind(
            client_id, self.reference_session(), identity_key(client_id), values, self.rng[client_id]
        )
        self.clients[client_id] = client
        return client

    def play(self, **how: Any) -> dict[int, bytes]:
        return play(self.clients, self.server, self.values, mode=self.session.mode.value, **how)

    def expected(self, survivors: tuple[int, ...]) -> list[int]:
        """The sum that must come out."""
        return np.sum([self.values[i] for i in survivors], axis=0).tolist()


def identity(client_id: int) -> Identity:
    """A client's fixed identity."""
    return Identity(client_id, identity_key(client_id))


def identity_key(client_id: int) -> bytes:
    return hashlib.sha256(f"identity of client {client_id}".encode()).digest()
