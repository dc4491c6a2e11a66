"""Whatever the server's objects can reach must be masked words, the opened sum, or public."""

from __future__ import annotations

import gc
import types
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from prism_crypto import (
    CountSpec,
    Identity,
    MemoryCounter,
    Policy,
    Roster,
    SecureSumClient,
    SecureSumServer,
    Session,
    Stage,
)
from prism_crypto.wire.packing import Packing
from prism_secure.config import load_config
from prism_secure.rounds.behaviours.train import VotingServer
from prism_secure.rounds.components import Components
from prism_secure.rounds.server import Server

CLIENTS, DIMENSION = 4, 4096
_CODE = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.FrameType, type)


def _reachable_buffers(root: object) -> Iterator[bytes]:
    """Every bytes, bytearray and array that can be reached from `root` without passing through code."""
    seen, queue = set(), [root]
    while queue:
        item = queue.pop()
        if id(item) in seen or isinstance(item, _CODE):
            continue
        seen.add(id(item))
        if isinstance(item, bytes | bytearray):
            yield bytes(item)
        elif isinstance(item, np.ndarray):
            yield item.tobytes()
            if item.base is not None:
                queue.append(item.base)
        queue.extend(gc.get_referents(item))


def _traces(bits: NDArray[np.uint8]) -> list[bytes]:
    """Every form in which this code base ever holds one client's bits, in part or in whole."""
    words = Packing(DIMENSION, CLIENTS).pack(bits)[:64]
    forms = [np.packbits(bits), bits, bits.astype(np.int64), words]
    return [form.tobytes()[:64] for form in forms]


def _holds(root: object, bits: NDArray[np.uint8]) -> bool:
    buffers = list(_reachable_buffers(root))
    return any(trace in buffer for trace in _traces(bits) for buffer in buffers)


@pytest.fixture
def masks() -> list[NDArray[np.uint8]]:
    draw = np.random.default_rng(5)
    return [draw.integers(0, 2, DIMENSION, dtype=np.uint8) for _ in range(CLIENTS)]


def test_the_search_finds_what_a_careless_server_would_keep(masks: list[NDArray[np.uint8]]) -> None:
    class Careless:
        def __init__(self, kept: object) -> None:
            self.inner = {"uploads": [kept]}

    packed = Packing(DIMENSION, CLIENTS).pack(masks[0])
    for kept in (masks[0], packed, packed.tobytes(), np.packbits(masks[0]).tobytes(), packed[1:].base):
        assert _holds(Careless(kept), masks[0])
    assert not _holds(Careless(masks[1]), masks[0])


def test_secure_sums_server_never_holds_a_clients_bits(masks: list[NDArray[np.uint8]]) -> None:
    identities = [Identity.generate(client) for client in range(CLIENTS)]
    roster = Roster({identity.client_id: identity.public_key for identity in identities})
    session = Session.plan(CountSpec(DIMENSION), range(CLIENTS), federation="memory", number=1, roster=roster)
    policy = Policy(min_survivors=3)
    server = SecureSumServer(session, roster=roster)
    clients = [
        SecureSumClient(
            identity.client_id, session, policy, identity=identity, roster=roster, counter=MemoryCounter()
        )
        for identity in identities
    ]
    inbox = dict.fromkeys(range(CLIENTS), b"")
    while (stage := server.stage) is not None:
        for index, client in enumerate(clients):
            message = inbox[index]
            match stage:
                case Stage.ADVERTISE:
                    reply = client.advertise()
                case Stage.SHARE:
                    reply = client.share(message)
                case Stage.UPLOAD:
                    reply = client.upload(message, masks[index])
                case Stage.CONFIRM:
                    reply = client.confirm(message)
                case Stage.UNMASK:
                    reply = client.unmask(message)
            server.receive(index, reply)
            assert not any(_holds(server, bits) for bits in masks), f"after client {index} at {stage}"
        inbox = server.close()
        assert not any(_holds(server, bits) for bits in masks), f"after {stage}"
    assert server.result.counts.tolist() == np.sum(masks, axis=0, dtype=np.int64).tolist()


def test_federations_server_keeps_probabilities_only(masks: list[NDArray[np.uint8]]) -> None:
    config = load_config(None, [f"federation.clients={CLIENTS}"])
    server = Server(config, "memory", DIMENSION, VotingServer(Components(config)))
    server.absorb(np.sum(masks, axis=0, dtype=np.int64), CLIENTS, planned_rounds=2)
    assert not any(_holds(server, bits) for bits in masks)
    assert server.round == 1
