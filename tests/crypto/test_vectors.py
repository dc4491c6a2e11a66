"""Both implementations give the published bytes of every session, and refuse every tampered message."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import reference_chosen
from reference_primitives import Refused, ed25519_public
from rehearsal import encapsulating, needs_kem, play

from prism_crypto import errors, verify_evidence
from prism_crypto.client import SecureSumClient
from prism_crypto.keeping.identity import Identity, Roster
from prism_crypto.keeping.session_counter import MemoryCounter
from prism_crypto.policy import Policy
from prism_crypto.server import SecureSumServer
from prism_crypto.session import Invited, Session
from prism_crypto.spec import CountSpec
from prism_crypto.stage import Mode, Stage

FOLDER = Path(__file__).parent.parent / "vectors"
SESSIONS = [
    pytest.param(path.stem, marks=needs_kem if "hybrid" in path.stem else ())
    for path in sorted(FOLDER.glob("session_*.json"))
]
IMPLEMENTATIONS = ["prism_crypto", "reference"]


def load(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="ascii"))


TAMPERED = load("tampered")


class Tape:
    """The recorded randomness, from front to back and not a byte more."""

    def __init__(self, recorded: str) -> None:
        self.left = bytes.fromhex(recorded)

    def __call__(self, count: int) -> bytes:
        assert count <= len(self.left), "more randomness is drawn than was recorded"
        drawn, self.left = self.left[:count], self.left[count:]
        return drawn


def ours(vector: dict[str, Any]) -> tuple[dict[int, Any], Any]:
    """`prism_crypto`'s clients and server."""
    fields = dict(vector["session"])
    spec = CountSpec(fields.pop("dimension"), fields.pop("bound"), fields.pop("codec"))
    if parts := fields.pop("parts", None):
        spec = CountSpec.of_parts(parts, spec.codec)
    roster = Roster({entry["id"]: bytes.fromhex(entry["public_key"]) for entry in vector["clients"]})
    session = Session(
        **{
            **fields,
            "spec": spec,
            "invited": Invited.of(fields["invited"]),
            "mode": Mode(fields["mode"]),
            "suite": vector.get("suite", "x25519"),
            "roster_hash": roster.hash,
            "model_hash": bytes.fromhex(fields["model_hash"]),
            "binding": bytes.fromhex(fields["binding"]),
        }
    )
    assert session.context0.hex() == vector["context0"]
    assert session.offer().hex() == vector["offer"]
    clients = {
        entry["id"]: SecureSumClient(
            entry["id"],
            session,
            Policy(min_survivors=2, mode=session.mode),
            identity=Identity(entry["id"], bytes.fromhex(entry["identity"])),
            roster=roster,
            counter=MemoryCounter(),
            rng=Tape(entry["randomness"]),
        )
        for entry in vector["clients"]
    }
    return clients, SecureSumServer(session, roster=roster, rng=Tape(vector["server_randomness"]))


def theirs(vector: dict[str, Any]) -> tuple[dict[int, Any], Any]:
    """The slow second implementation's clients and server."""
    fields = {**vector["session"], "roster": {}, "suite": vector.get("suite", "x25519")}
    for name in ("model_hash", "binding"):
        fields[name] = bytes.fromhex(fields[name])
    for entry in vector["clients"]:
        public = ed25519_public(bytes.fromhex(entry["identity"]))
        assert public.hex() == entry["public_key"]
        fields["roster"][entry["id"]] = public
    fields["roster"] = dict(sorted(fields["roster"].items()))
    session = reference.Session(**fields)
    assert session.context0().hex() == vector["context0"]
    implementation = reference_chosen if session.graph == "chosen" else reference
    clients = {
        entry["id"]: implementation.Client(
            entry["id"],
            session,
            bytes.fromhex(entry["identity"]),
            entry["values"],
            Tape(entry["randomness"]),
        )
        for entry in vector["clients"]
    }
    if session.graph == "chosen":
        return clients, reference_chosen.Server(session)
    return clients, reference.Server(session, vector["ring"])


def parties(implementation: str, vector: dict[str, Any]) -> tuple[dict[int, Any], Any, dict[str, Any]]:
    clients, server = ours(vector) if implementation == "prism_crypto" else theirs(vector)
    how = {
        "values": {entry["id"]: np.array(entry["values"]) for entry in vector["clients"]},
        "mode": vector["session"]["mode"],
        "drop": {
            entry["id"]: Stage(entry["silent_from"]) for entry in vector["clients"] if entry["silent_from"]
        },
    }
    return clients, server, how


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", SESSIONS)
def test_every_message_of_the_session_is_the_published_one(name, implementation):
    vector = load(name)
    clients, server, how = parties(implementation, vector)
    expected = iter(vector["messages"])

    def compare(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        entry = next(expected)
        assert (stage.value, sender, receiver) == (entry["stage"], entry["from"], entry["to"])
        if entry.get("lie"):  # what a malicious client made of its own message
            assert bytes(message).hex() != entry["bytes"]
            return bytes.fromhex(entry["bytes"])
        assert bytes(message).hex() == entry["bytes"]
        return message

    coins = Tape(vector.get("encapsulations", ""))
    with encapsulating(name, coins):
        play(clients, server, intercept=compare, **how)
    assert coins.left == b""
    assert next(expected, None) is None
    if implementation == "prism_crypto":
        counts, survivors, opened = server.result.counts.tolist(), server.result.survivors, server.opened()
        roster = Roster({entry["id"]: bytes.fromhex(entry["public_key"]) for entry in vector["clients"]})
        for client, evidence in vector["blamed"].items():
            assert verify_evidence(bytes.fromhex(evidence), roster) == server.blamed[int(client)]
    else:
        counts, survivors, opened = server.counts, server.survivors, server.opened
    assert set(server.blamed) == set(map(int, vector["blamed"]))
    assert counts == vector["counts"]
    assert list(survivors) == vector["survivors"]
    assert opened.hex() == vector["opened"]
    columns = zip(*(entry["values"] for entry in vector["clients"] if entry["id"] in survivors), strict=True)
    assert counts == [sum(column) for column in columns]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("entry", TAMPERED["tampered"], ids=[entry["name"] for entry in TAMPERED["tampered"]])
def test_a_tampered_message_is_refused(entry, implementation):
    clients, server, how = parties(implementation, load(TAMPERED["session"]))
    delivered: list[tuple[str, int | None, int | None]] = []

    def tamper(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        delivered.append((stage.value, sender, receiver))
        return bytes.fromhex(entry["bytes"]) if delivered[-1] == target else message

    target = (entry["stage"], entry["from"], entry["to"])
    error = getattr(errors, entry["error"]) if implementation == "prism_crypto" else Refused
    with pytest.raises(error) as caught:
        play(clients, server, intercept=tamper, **how)
    assert target in delivered
    if entry["refused_at"] == "receive" and entry["to"] is None:
        assert delivered[-1] == target  # the server refuses it when it comes
    if implementation == "prism_crypto":
        assert type(caught.value) is error
        assert (caught.value.stage, caught.value.peer) == (Stage(entry["error_stage"]), entry["peer"])


def test_the_published_files_are_what_the_script_writes():
    specification = importlib.util.spec_from_file_location("generate_vectors", FOLDER / "generate.py")
    generate = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(generate)
    for name, content in generate.vectors().items():
        assert content == load(name), f"{name}.json is stale: run tests/vectors/generate.py"
