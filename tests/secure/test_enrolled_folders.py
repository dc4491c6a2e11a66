"""One folder for a client, whoever drives its sessions: `enroll` and `enrol` write the same files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prism_crypto import CountSpec, Identity, Policy, Roster, Session
from prism_crypto.drive import Client, Server, enrol
from prism_secure.run_folder.enrolment import Enrolment, enroll_simulated, read_membership, session_clock


def test_folders_of_prism_secure_are_driven_over_requests_and_responses(tmp_path: Path) -> None:
    roster = enroll_simulated(tmp_path, "both", 3, Policy(min_survivors=3))
    spec, clients = CountSpec(3, 9), [Client(tmp_path / f"{i:02d}") for i in range(3)]
    federation, known = read_membership(tmp_path / "server")
    session = Session.plan(
        spec, range(3), federation=federation, number=session_clock(), round=1, roster=known
    )
    server = Server(session, 60.0, roster=roster)
    requests = {i: client.join(spec, np.array([i, 1, 9]), round=1) for i, client in enumerate(clients)}
    while requests:
        for i, request in list(requests.items()):
            following = clients[i].handle(server.handle(i, request, now=0.0))
            requests = (
                {**requests, i: following} if following else {k: requests[k] for k in requests if k != i}
            )
    assert server.result.counts.tolist() == clients[0].result[0].tolist() == [3, 3, 27]


def test_folders_of_enrol_are_those_of_an_enrolment(tmp_path: Path) -> None:
    identity = Identity.generate(4)
    roster = Roster({4: identity.public_key})
    enrol(tmp_path / "new", identity, roster, Policy(min_survivors=3), "both")
    found = Enrolment.load(tmp_path / "new")
    assert (found.federation, found.roster, found.policy) == ("both", roster, Policy(min_survivors=3))
    assert (found.identity.public_key, found.counter.last) == (identity.public_key, 0)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
