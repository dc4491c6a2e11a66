"""Write the test vectors of the secure sum: whole sessions with fixed randomness, and tampered messages.

Run ``python tests/vectors/generate.py`` after a deliberate change of the protocol or its encoding;
the version in the labels and in the messages changes with it. Byte strings are hexadecimal.
``tests/crypto/test_vectors.py`` holds `prism_crypto` and the slow second implementation against every file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "crypto")]

import reference  # noqa: E402
from chosen import chosen_rehearsal  # noqa: E402
from forgery import alter_record, flip, records, signed, take_apart  # noqa: E402
from msgspec import UNSET  # noqa: E402
from rehearsal import (  # noqa: E402
    HYBRID,
    Intercept,
    Rehearsal,
    Stream,
    encapsulating,
    identity_key,
    untouched,
)
from tampered import Tampered, tampered  # noqa: E402

from prism_crypto.errors import SecureSumError  # noqa: E402
from prism_crypto.primitives.graph import uniform_permutation  # noqa: E402
from prism_crypto.primitives.hybrid import available  # noqa: E402
from prism_crypto.spec import CountSpec  # noqa: E402
from prism_crypto.stage import Stage  # noqa: E402

SESSIONS: dict[str, dict[str, Any]] = {
    "active": {"ids": range(4)},
    "active_drop_at_upload": {"ids": range(4), "drop": {2: Stage.UPLOAD}},
    "active_scattered_ids_and_drops": {
        "ids": [0, 3, 17, 4096, 70000, 4294967294, 5, 6],
        "spec": CountSpec(100, 5, "five-levels"),
        "drop": {17: Stage.SHARE, 5: Stage.UPLOAD},
        "federation": "a federation with ünicode",
        "number": 2**33,
        "round": 300,
        "colluders": 1,
        "min_cohort": 4,
        "model_hash": bytes(range(32)),
        "binding": b"flip=0.25",
    },
    "active_parts": {
        "ids": range(4),
        "spec": CountSpec.of_parts([(70, 1), (3, 1000), (1, 2**40)]),
        "drop": {0: Stage.UPLOAD},
    },
    "active_with_liars": {"ids": range(7), "liars": True},
    "active_drops_after_upload": {"ids": range(7), "drop": {1: Stage.CONFIRM, 6: Stage.UNMASK}},
    "semi_honest": {"ids": range(3), "mode": "semi_honest"},
    "semi_honest_drops": {
        "ids": range(5),
        "mode": "semi_honest",
        "spec": CountSpec(9, 2**40),
        "drop": {0: Stage.UPLOAD, 4: Stage.UNMASK},
    },
    "harary": {
        "ids": range(20),
        "mode": "semi_honest",
        "graph": "harary",
        "dropout": 0.05,
        "colluders": 1,
        "spec": CountSpec(30),
        "drop": {7: Stage.UPLOAD, 8: Stage.UNMASK},
    },
    "hybrid": {"ids": range(3), "suite": HYBRID},
    "hybrid_drops": {
        "ids": [0, 2, 7, 300],
        "suite": HYBRID,
        "spec": CountSpec(12, 3),
        "drop": {2: Stage.UPLOAD},
    },
    "hybrid_semi_honest": {
        "ids": range(3),
        "suite": HYBRID,
        "mode": "semi_honest",
        "drop": {0: Stage.UPLOAD},
    },
    "hybrid_chosen": {
        "graph": "chosen",
        "suite": HYBRID,
        "n": 6,
        "degree": 4,
        "threshold": 3,
        "lost": 2,
        "drop": {1: Stage.UPLOAD},
    },
    "chosen": {
        "graph": "chosen",
        "n": 9,
        "degree": 6,
        "threshold": 4,
        "lost": 3,
        "drop": {1: Stage.UPLOAD, 6: Stage.CONFIRM},
    },
    "chosen_with_liars": {
        "graph": "chosen",
        "n": 8,
        "degree": 6,
        "threshold": 4,
        "lost": 2,
        "liars": True,
    },
}


def build(name: str) -> tuple[Rehearsal, dict[int, Stage]]:
    """One session with its parties, and who drops out when."""
    fields = dict(SESSIONS[name])
    drop = fields.pop("drop", {})
    fields.pop("liars", None)
    if fields.get("graph") == "chosen":
        del fields["graph"]
        return chosen_rehearsal(label=f"vector {name}", **fields), drop
    return Rehearsal(label=f"vector {name}", **fields), drop


def record(name: str) -> tuple[Rehearsal, list[dict[str, Any]], dict[str, Any]]:
    """Play one session; return it, its messages, and all of it as JSON."""
    rehearsal, drop = build(name)
    lying = SESSIONS[name].get("liars", False)
    messages: list[dict[str, Any]] = []
    lie = untouched
    if lying:
        lie = (_chosen_liars if rehearsal.session.graph == "chosen" else _liars)(rehearsal)

    def note(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        said = lie(stage, sender, receiver, message)
        entry = {"stage": stage.value, "from": sender, "to": receiver, "bytes": bytes(said).hex()}
        messages.append(entry | ({"lie": True} if said != message else {}))
        return said

    with encapsulating(f"vector {name}") as coins:
        rehearsal.play(drop=drop, intercept=note)
    result, session = rehearsal.server.result, rehearsal.session
    if result.counts.tolist() != rehearsal.expected(result.survivors):
        raise AssertionError(f"{name}: the sum is wrong")
    ring = None
    if session.graph == "harary":
        ring = list(uniform_permutation(session.invited.count, Stream(rehearsal.server_rng.label)))
    public = {
        "federation": session.federation,
        "number": session.number,
        "round": session.round,
        "dimension": session.spec.dimension,
        "bound": session.spec.bound,
        "codec": session.spec.codec,
        **({} if session.spec.parts is UNSET else {"parts": list(map(list, session.spec.parts))}),
        "mode": session.mode.value,
        "threshold": session.threshold,
        "min_survivors": session.min_survivors,
        "min_cohort": session.min_cohort,
        "colluders": session.colluders,
        "graph": session.graph,
        "degree": session.degree,
        "invited": list(session.invited.ids or ()),
        "model_hash": session.model_hash.hex(),
        "binding": session.binding.hex(),
    }
    clients = [
        {
            "id": i,
            "identity": identity_key(i).hex(),
            "public_key": rehearsal.identities[i].public_key.hex(),
            "randomness": rehearsal.rng[i].taken.hex(),
            "values": rehearsal.values[i].tolist(),
            "silent_from": drop[i].value if i in drop else None,
        }
        for i in rehearsal.ids
    ]
    everything = {
        "name": name,
        "session": public,
        "offer": session.offer().hex(),
        "context0": session.context0.hex(),
        "clients": clients,
        "ring": ring,
        "server_randomness": rehearsal.server_rng.taken.hex(),
        "messages": messages,
        "survivors": list(result.survivors),
        "counts": result.counts.tolist(),
        "opened": rehearsal.server.opened().hex(),
        **({"suite": session.suite, "encapsulations": coins.taken.hex()} if session.hybrid else {}),
        "blamed": {str(i): blame.evidence.hex() for i, blame in rehearsal.server.blamed.items()},
    }
    return rehearsal, messages, everything


def _liars(rehearsal: Rehearsal) -> Intercept:
    """Client 1 seals garbage for 0 and 4, and client 3 gives a wrong key to its share of client 2's seed."""
    context = received = b""

    def lie(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        nonlocal context, received
        if stage is Stage.SHARE and sender is not None:
            context = rehearsal.clients[sender]._state.context
        if (stage, receiver) == (Stage.UPLOAD, 3):
            received = take_apart(message)[2][2]
        if (stage, sender) == (Stage.SHARE, 1):
            seed = rehearsal.rng[1].taken[:32]
            return signed(context, 1, records(0, 98, garbage), seed=seed)(message)
        if (stage, sender) == (Stage.UNMASK, 3):
            return signed(context, 3, records(0, 32, alter_record(2, flip(0))), received)(message)
        return message

    def garbage(cut: dict[int, bytes]) -> None:
        cut[0] = flip(3)(cut[0])  # the share of the seed
        cut[4] = flip(60)(cut[4])  # the share of the mask key

    return lie


def _chosen_liars(rehearsal: Rehearsal) -> Intercept:
    """Clients 1 and 4: the first holder of 1 gets garbage for a seal, that of 4 a false voucher."""

    def lie(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        if (stage, sender) == (Stage.SHARE, 1):
            return signed(context(1), 1, records(0, 98, first), seed=rehearsal.rng[1].taken[:32])(message)
        if (stage, sender) == (Stage.UPLOAD, 4):
            holder = min(i for i, each in rehearsal.clients[4]._state.vouchers.items() if each.holder)
            false = records(2, 16, alter_record(holder, flip(0)))
            return signed(context(4), 4, false, seed=rehearsal.rng[4].taken[:32])(message)
        return message

    def first(cut: dict[int, bytes]) -> None:
        alter_record(min(cut), flip(3))(cut)

    def context(client_id: int) -> bytes:
        return rehearsal.clients[client_id]._state.context

    return lie


def provoke(name: str, case: Tampered) -> dict[str, Any]:
    """Play the session with one message changed; it must end as the case says."""
    rehearsal, drop = build(name)
    changed = None

    def tamper(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        nonlocal changed
        if (stage, sender, receiver) == (case.stage, case.sender, case.receiver):
            changed = case.change(bytes(message))
            return changed
        return message

    failure = None
    try:
        rehearsal.play(drop=drop, intercept=tamper)
    except SecureSumError as error:
        failure = error
    if failure is None or changed is None:
        raise AssertionError(f"{case.name}: nothing was refused")
    stage = case.stage if case.refused_at == "receive" else Stage.UNMASK
    if (type(failure).__name__, failure.stage, failure.peer) != (case.error, stage, case.peer):
        raise AssertionError(f"{case.name}: ended in {failure!r} at {failure.stage}, peer {failure.peer}")
    return {
        "name": case.name,
        "stage": case.stage.value,
        "from": case.sender,
        "to": case.receiver,
        "bytes": changed.hex(),
        "refused_at": case.refused_at,
        "error": case.error,
        "error_stage": stage.value,
        "peer": case.peer,
    }


def vectors() -> dict[str, dict[str, Any]]:
    """All files: name and content."""
    names = [name for name, fields in SESSIONS.items() if "suite" not in fields or available()]
    files = {f"session_{name}": record(name)[2] for name in names}
    base = "active_drop_at_upload"
    rehearsal, messages, _ = record(base)

    def sent(stage: Stage, receiver: int, field: int) -> bytes:
        """A field of what the server sent to a client."""
        message = next(
            m for m in messages if (m["stage"], m["from"], m["to"]) == (stage.value, None, receiver)
        )
        return take_apart(bytes.fromhex(message["bytes"]))[2][field]

    context0 = rehearsal.session.context0
    adverts = reference.all_adverts(reference.read_records(sent(Stage.SHARE, 0, 1), 240))
    context1 = reference.context1(context0, adverts)
    cases = tampered(context0, context1, received=sent(Stage.UPLOAD, 0, 2), seed=rehearsal.rng[0].taken[:32])
    files["tampered"] = {
        "comment": "each entry replaces one message of the session and must be refused",
        "session": f"session_{base}",
        "tampered": [provoke(base, case) for case in cases],
    }
    return files


def main() -> None:
    for name, content in vectors().items():
        path = HERE / f"{name}.json"
        path.write_text(json.dumps(content, indent=1, ensure_ascii=True) + "\n", encoding="ascii")
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
