"""Five clients, each a process, add up vectors over HTTPS in three rounds: one is late, one dies, one lies.

    python run.py

The server is Python's own http.server. Its certificate is made at the start, and each client knows it; a
client shows who it is by signing a challenge.
"""

from __future__ import annotations

import os
import ssl
import sys
import tempfile
import threading
import time
from http.server import ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from certificate import self_signed
from parties import Desk, contribute

from prism_crypto import CountSpec, Identity, Policy, Roster, Session, Stage
from prism_crypto.drive import Admission, Server, enrol

CLIENTS, ROUNDS, DEADLINE = range(5), (1, 2, 3), float(os.environ.get("DEADLINE", "5"))
SPEC = CountSpec(dimension=1000, bound=255)
LATE, DEAD, LIAR = (1, 2), (2, 4), (3, 3)  # round, client


def numbers(number: int, client_id: int) -> np.ndarray:
    """What a client adds in a round."""
    return np.random.default_rng([number, client_id]).integers(0, SPEC.bound, SPEC.dimension)


def vector(number: int, client_id: int) -> np.ndarray:
    """The same, but that making it takes one of them too long, and is the end of another."""
    if (number, client_id) == LATE:
        time.sleep(DEADLINE + 1)
    if (number, client_id) == DEAD:
        os._exit(1)
    return numbers(number, client_id)


def alter(number: int, client_id: int, request: bytes) -> bytes:
    """One of them changes a bit of all that it says."""
    return request[:-1] + bytes([request[-1] ^ 1]) if (number, client_id) == LIAR else request


def opened(number: int, roster: Roster) -> Server:
    """A session for whoever comes; to the first one clients come as their processes start."""
    session = Session.plan(
        SPEC, CLIENTS, federation="http", number=number, round=number, roster=roster, threshold=3
    )
    deadlines = dict.fromkeys(Stage, DEADLINE) | {Stage.ADVERTISE: 60 if number == 1 else DEADLINE}
    Desk.session = Server(session, deadlines, roster=roster)
    return Desk.session


def collected(server: Server) -> bool:
    """Wait for the end, say what has happened, and whether the sum is that of its survivors' vectors."""
    while server.stage is not None or time.monotonic() < server.ended + 1:  # they want to hear it, too
        time.sleep(0.05)
        with Desk.lock:
            server.tick(time.monotonic())
    number, result = server.session.round, server.result
    silent = {stage.value: clients for stage, clients in server.silent.items() if clients}
    exact = np.array_equal(result.counts, sum(numbers(number, i) for i in result.survivors))
    print(f"round {number}: sum of clients {result.survivors}, exact: {exact}; silent: {silent}", flush=True)
    for client_id, error in server.refused.items():
        print(f"round {number}: refused, client {client_id}: {error}", flush=True)
    return exact


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        identities = [Identity.generate(i) for i in CLIENTS]  # once, and out of the server's reach
        roster = Roster({i.client_id: i.public_key for i in identities})
        for identity in identities:
            enrol(folder / str(identity.client_id), identity, roster, Policy(min_survivors=3), "http")
        certificate, key = self_signed(folder)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate, key)
        with ThreadingHTTPServer(("127.0.0.1", 0), Desk) as http:
            # The handshake in the request's own thread: who stalls in it holds up nobody else.
            http.socket = tls.wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
            url = f"https://127.0.0.1:{http.server_port}"
            Desk.door, server = Admission(roster, "http", url), opened(1, roster)
            threading.Thread(target=http.serve_forever, daemon=True).start()
            start, job = get_context("spawn").Process, (url, certificate, SPEC, ROUNDS, vector, alter)
            processes = [start(target=contribute, args=(folder / str(i), *job), daemon=True) for i in CLIENTS]
            for process in processes:
                process.start()
            exact = [collected(server), *(collected(opened(number, roster)) for number in ROUNDS[1:])]
            Desk.session = None
            for process in processes:
                process.join(60)
            http.shutdown()
    return 0 if all(exact) and [i for i in CLIENTS if processes[i].exitcode] == [DEAD[1]] else 1


if __name__ == "__main__":
    sys.exit(main())
