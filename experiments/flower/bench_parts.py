"""What each call of a session costs, client by client and at the server, without Flower's messages.

    python experiments/flower/bench_parts.py --clients 4 --dimension 1000000

Processor milliseconds, means over the rounds after three of warm-up; a client's are the mean over clients.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict

from prism_crypto import CountSpec, Mode, Policy, SecureSumClient, SecureSumServer, Session, Stage
from prism_secure.flower.secure_aggregation import messages as sum_messages
from prism_secure.run_folder.enrolment import Enrolment, enroll_simulated

WARM_UP = 3
spent: dict[tuple[str, str], float] = defaultdict(float)


def timed(party: str, what: str, action: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    began = time.thread_time()
    result = action(*arguments, **options)
    spent[party, what] += 1000 * (time.thread_time() - began)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--dimension", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, options.rounds + 1):
            if number == 1:
                enroll_simulated(Path(folder), "bench", options.clients, Policy(min_survivors=3))
            if number == WARM_UP + 1:
                spent.clear()
            one_round(Path(folder), number, options.clients, options.dimension)
    share = {"a client": options.clients, "the server": 1}
    for (party, what), milliseconds in spent.items():
        each = milliseconds / (options.rounds - WARM_UP) / share[party]
        print(f"{party:<12}{what:<24}{each:8.2f} ms")
    for party, count in share.items():
        total = sum(milliseconds for (whose, _), milliseconds in spent.items() if whose == party)
        print(f"{party:<12}{'all':<24}{total / (options.rounds - WARM_UP) / count:8.2f} ms")


def one_round(folder: Path, number: int, clients: int, dimension: int) -> None:
    model = RecordDict({"arrays": ArrayRecord({"x": Array(np.zeros(dimension, np.float32))})})
    roster = Enrolment.load(folder / "00").roster
    session = Session.plan(
        CountSpec(dimension), roster.ids, federation="bench", number=time.time_ns(), round=number,
        mode=Mode.ACTIVE, graph="complete", roster=roster, binding=b"",
        model_hash=timed("the server", "hash the model", sum_messages.digest, model),
    )  # fmt: skip
    server = timed("the server", "begin", SecureSumServer, session, roster=roster)
    bits = [
        np.random.default_rng(client).integers(0, 2, dimension, dtype=np.uint8) for client in range(clients)
    ]
    parties, messages = {}, {}
    for client in range(clients):
        enrolment = timed("a client", "read the enrolment", Enrolment.load, folder / f"{client:02d}")
        digest = timed("a client", "hash the model", sum_messages.digest, model)
        offered = Session.from_offer(session.offer(), model_hash=digest, binding=b"")
        parties[client] = SecureSumClient(
            client, offered, enrolment.policy, identity=enrolment.identity, roster=enrolment.roster,
            counter=enrolment.counter, resends=False,
        )  # fmt: skip
        messages[client] = timed("a client", Stage.ADVERTISE.value, parties[client].advertise)
    while (stage := server.stage) is not None:
        for client, message in messages.items():
            timed("the server", f"receive {stage.value}", server.receive, client, message)
        inbox = timed("the server", f"close {stage.value}", server.close)
        messages = {}
        for client, message in inbox.items():
            step = getattr(parties[client], server.stage.value)
            given = (message, bits[client]) if server.stage is Stage.UPLOAD else (message,)
            messages[client] = timed("a client", server.stage.value, step, *given)
    assert np.array_equal(server.result.counts, np.sum(bits, axis=0, dtype=np.int64))


if __name__ == "__main__":
    main()
