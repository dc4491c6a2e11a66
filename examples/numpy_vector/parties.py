"""A client and a server of a secure sum over any connection that can send and receive bytes."""

from __future__ import annotations

from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from prism_crypto import (
    CountSpec,
    Identity,
    Policy,
    Roster,
    SecureSumClient,
    SecureSumResult,
    SecureSumServer,
    Session,
    SessionCounter,
)


def contribute(
    wire: Connection,
    vector: NDArray[np.int64],
    identity: Identity,
    roster: Roster,
    policy: Policy,
    counter: SessionCounter,
    agreed: tuple[CountSpec, str, int],
) -> tuple[NDArray[np.int64], int]:
    """A client: put `vector` (d,) into the sum; the opened sum and the number of vectors in it come back.

    `agreed`: how long and how large vectors are, the federation, and the round that this vector is for. One
    vector in two rounds would be in two sums, whose difference may be it; a bound of the server's choice
    would ask where its largest value lies.
    """
    session = Session.from_offer(wire.recv_bytes())
    asked = session.spec, session.federation, session.round
    if asked != agreed:
        raise ValueError(f"agreed was {agreed}, the server asks for {asked}")
    client = SecureSumClient(
        identity.client_id, session, policy, identity=identity, roster=roster, counter=counter
    )
    wire.send_bytes(client.advertise())
    wire.send_bytes(client.share(wire.recv_bytes()))
    wire.send_bytes(client.upload(wire.recv_bytes(), vector))
    wire.send_bytes(client.confirm(wire.recv_bytes()))
    wire.send_bytes(client.unmask(wire.recv_bytes()))
    return client.opened(wire.recv_bytes())


def open_sum(
    wires: dict[int, Connection], roster: Roster, agreed: tuple[CountSpec, str, int]
) -> SecureSumResult:
    """The server: one session with the clients at the other ends of `wires`."""
    spec, federation, number = agreed
    session = Session.plan(spec, wires, federation=federation, number=number, round=number, roster=roster)
    server = SecureSumServer(session, roster=roster)
    outbox = dict.fromkeys(wires, session.offer())
    while server.stage is not None:
        for peer, message in outbox.items():
            wires[peer].send_bytes(message)
        for peer in outbox:
            server.receive(peer, wires[peer].recv_bytes())
        outbox = server.close()
    for wire in wires.values():
        wire.send_bytes(server.opened())
    return server.result
