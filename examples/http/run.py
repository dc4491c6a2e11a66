"""Five clients, each a process, add up vectors over HTTPS in four rounds: one is late, one dies, one lies."""

from __future__ import annotations

import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from certificate import self_signed
from client import contribute
from server import Desk, listening
from vectors import DEADLINE, SPEC, numbers, vector

from prism_crypto import Blame, Identity, Policy, Roster, Session, Stage, verify_evidence
from prism_crypto.drive import Admission, Server, enrol

CLIENTS, ROUNDS = range(5), (1, 2, 3, 4)


def opened(number: int, roster: Roster, blamed: dict[int, Blame]) -> Server:
    """A session of all but those who are blamed; to the first one clients come as their processes start."""
    agreed = {"federation": "http", "number": number, "round": number, "roster": roster, "threshold": 3}
    session = Session.plan(SPEC, CLIENTS, excluded=blamed.values(), **agreed)
    deadlines = dict.fromkeys(Stage, DEADLINE) | {Stage.ADVERTISE: 60 if number == 1 else DEADLINE}
    Desk.session = Server(session, deadlines, roster=roster)
    return Desk.session


def summed(server: Server, roster: Roster, blamed: dict[int, Blame]) -> bool:
    """Wait for the end, say what has happened, and whether the sum is that of its survivors' vectors."""
    while server.stage is not None or time.monotonic() < server.ended + 1:  # they want to hear it, too
        time.sleep(0.05)
        with Desk.lock:
            server.tick(time.monotonic())
    number, result = server.session.round, server.result
    silent = {stage.value: clients for stage, clients in server.silent.items() if clients}
    exact = np.array_equal(result.counts, sum(numbers(number, i) for i in result.survivors))
    print(f"round {number}: sum of clients {result.survivors}, exact: {exact}; silent: {silent}", flush=True)
    for blame in server.blamed.values():
        proved = verify_evidence(blame.evidence, roster) == blame  # as whoever has the roster can do
        print(f"round {number}: {blame}; {len(blame.evidence)} bytes prove it: {proved}", flush=True)
        blamed[blame.client_id] = blame
    return exact


def main() -> bool:
    with tempfile.TemporaryDirectory() as name:
        folder, blamed = Path(name), dict[int, Blame]()
        identities = [Identity.generate(i) for i in CLIENTS]  # once, and out of the server's reach
        roster = Roster({i.client_id: i.public_key for i in identities})
        for identity in identities:
            enrol(folder / str(identity.client_id), identity, roster, Policy(min_survivors=3), "http")
        certificate, key = self_signed(folder)
        with listening(Desk, certificate, key) as http:
            address = f"127.0.0.1:{http.server_port}"
            Desk.door, server = Admission(roster, "http", address), opened(1, roster, blamed)
            start, job = get_context("spawn").Process, (address, certificate, SPEC, ROUNDS, vector)
            processes = [start(target=contribute, args=(folder / str(i), *job), daemon=True) for i in CLIENTS]
            for process in processes:
                process.start()
            exact = [summed(server, roster, blamed)]
            exact += [summed(opened(number, roster, blamed), roster, blamed) for number in ROUNDS[1:]]
            Desk.session = None
            for process in processes:
                process.join(60)
            http.shutdown()
    return all(exact)


if __name__ == "__main__":
    sys.exit(not main())
