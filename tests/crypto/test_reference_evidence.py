"""A second implementation convicts the same clients by the same evidence, and by spoilt evidence nobody."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from chosen import chosen_rehearsal
from liars import Liar, _run, ways_to_lie
from reference_evidence import convicted
from rehearsal import HYBRID, Rehearsal, needs_kem

from prism_crypto import EvidenceError, Policy, SecureSumError, Stage, verify_evidence

VECTORS = Path(__file__).parent.parent / "vectors"


def ours(evidence: bytes, room: Rehearsal) -> int | None:
    try:
        return verify_evidence(evidence, room.roster).client_id
    except EvidenceError:
        return None


def of_liars(names: tuple[str, ...], seed: int) -> tuple[Rehearsal, list[bytes]]:
    draw = random.Random(seed)
    room = Rehearsal(range(10), label=f"evidence {seed}", policy=Policy(min_survivors=7))
    liars = [Liar(i, name, draw, room) for i, name in zip(draw.sample(room.ids, 2), names, strict=False)]
    _run(room, liars, [])
    return room, [blame.evidence for blame in room.server.blamed.values()]


@pytest.mark.parametrize("name", [name for name in ways_to_lie("x25519") if "garbles" not in name])
def test_both_convict_liars_of_every_kind(name):
    room, found = of_liars((name,), 3)
    for evidence in found:
        assert convicted(evidence, room.public_keys()) == ours(evidence, room)
        assert ours(evidence, room) is not None


def test_both_convict_whom_the_published_sessions_blame():
    vector = json.loads((VECTORS / "session_active_with_liars.json").read_text(encoding="ascii"))
    roster = {entry["id"]: bytes.fromhex(entry["public_key"]) for entry in vector["clients"]}
    assert vector["blamed"]
    for client, evidence in vector["blamed"].items():
        assert convicted(bytes.fromhex(evidence), roster) == int(client)


def hybrid_evidence(kind: str) -> tuple[Rehearsal, list[bytes]]:
    from attacks import test_hybrid_keys as cheats

    room = Rehearsal(range(7), suite=HYBRID)
    drop = {}
    if kind == "OtherPart":
        drop = {cheats.LIAR: Stage.UPLOAD}
    room.cheat(cheats.LIAR, getattr(cheats, kind))
    try:
        room.play(refused=[], drop=drop)
    except SecureSumError:
        assert room.server.stage is None
    return room, [blame.evidence for blame in room.server.blamed.values()]


HYBRID_CHEATS = [
    "NotReduced",
    "OneKeyTwice",
    "WrongMasking",
    "WrongPartHash",
    "OtherPart",
    "Garbage",
    "Complains",
]


def voucher_evidence(suite: str) -> tuple[Rehearsal, list[bytes]]:
    from attacks.test_false_vouchers import FalseVouchers

    room = chosen_rehearsal(n=12, degree=8, threshold=6, lost=3, suite=suite)
    try:
        room.play(intercept=FalseVouchers(room, 8))
    except SecureSumError:
        assert room.server.stage is None
    return room, [blame.evidence for blame in room.server.blamed.values()]


@needs_kem
@pytest.mark.parametrize("kind", HYBRID_CHEATS)
def test_both_convict_cheats_of_hybrid_sessions(kind):
    room, found = hybrid_evidence(kind)
    assert len(found) == 1
    assert convicted(found[0], room.public_keys()) == ours(found[0], room) == 2


@pytest.mark.parametrize("suite", ["x25519", pytest.param(HYBRID, marks=needs_kem)])
def test_both_convict_false_vouchers(suite):
    room, found = voucher_evidence(suite)
    assert len(found) == 1
    assert convicted(found[0], room.public_keys()) == ours(found[0], room) == 5


def _spoilt(evidence: bytes, draw: random.Random) -> bytes:
    """One field, or one field of the session, is another, or what it is of another client."""
    cut: list[Any] = msgspec.msgpack.decode(evidence)
    place = draw.randrange(2, len(cut))
    value = cut[place]
    if isinstance(value, dict):
        name = draw.choice(["threshold", "number", "degree", "federation", "suite", "model_hash"])
        new = {"federation": "other", "suite": "x25519", "model_hash": b"m"}
        cut[place] = value | {name: new.get(name, value[name] if isinstance(value[name], str) else 3)}
    elif isinstance(value, int):
        cut[place] = draw.choice([0, 1, 2, 3, 4, 99])
    elif value:
        data = bytearray(value)
        match draw.randrange(3):
            case 0:
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            case 1:
                del data[draw.randrange(len(data)) :]
            case _:
                data += draw.randbytes(4)
        cut[place] = bytes(data)
    return msgspec.msgpack.encode(cut)


def differ(room: Rehearsal, found: list[bytes], times: int, seed: int) -> None:
    draw, accused = random.Random(seed), {ours(evidence, room) for evidence in found}
    for _ in range(times):
        spoilt = _spoilt(draw.choice(found), draw)
        verdict = ours(spoilt, room)
        assert verdict == convicted(spoilt, room.public_keys()), spoilt.hex()
        assert verdict is None or verdict in accused


@pytest.mark.parametrize(
    "name",
    [
        "seals_garbage_for_some",
        "deals_wrong_shares_of_its_seed",
        "complains_of_shares_that_open",
        "advertises_a_useless_key",
        "gives_wrong_keys_at_unmask",
    ],
)
def test_they_agree_about_spoilt_evidence(name):
    room, found = of_liars((name,), 5)
    assert found
    differ(room, found, 40, 1)


@needs_kem
@pytest.mark.parametrize("kind", HYBRID_CHEATS)
def test_they_agree_about_spoilt_evidence_of_hybrid_sessions(kind):
    room, found = hybrid_evidence(kind)
    differ(room, found, 25, 2)


def test_they_agree_about_spoilt_vouchers():
    room, found = voucher_evidence("x25519")
    differ(room, found, 40, 3)
