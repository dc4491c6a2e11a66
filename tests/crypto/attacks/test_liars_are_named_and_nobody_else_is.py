"""Broken if a client that lies goes unnamed, an innocent one is named, or a liar costs more than one session.

`liars.py`, run by hand, plays ten thousand such sessions.
"""

from __future__ import annotations

import random
import re
from functools import partial

import pytest
from chosen import chosen_rehearsal
from liars import Liar, play, ways_to_lie
from rehearsal import HYBRID, Rehearsal, needs_kem

from prism_crypto import EvidenceError, OutOfOrder, Policy, SecureSumError, Stage, verify_evidence
from prism_crypto.primitives import shamir
from prism_crypto.primitives.shamir import PRIME, lagrange_weights
from prism_crypto.stages import evidence as evidence_module
from prism_crypto.stages import gathering, share

WAYS = ways_to_lie("x25519")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", WAYS)
def test_one_liar_of_every_kind(name, seed):
    assert play((name,), seed) in ("opened", "opened in the next session")


@needs_kem
@pytest.mark.parametrize("name", ways_to_lie(HYBRID))
def test_one_liar_of_every_kind_in_a_hybrid_session(name):
    assert play((name,), 0, HYBRID) in ("opened", "opened in the next session")


@needs_kem
@pytest.mark.parametrize("seed", range(1000, 1006))
def test_two_liars_at_once_in_a_hybrid_session(seed):
    draw, ways = random.Random(seed), ways_to_lie(HYBRID)
    play((draw.choice(ways), draw.choice(ways)), seed, HYBRID)


@pytest.mark.parametrize("seed", range(1000, 1030))
def test_two_liars_at_once(seed):
    draw = random.Random(seed)
    play((draw.choice(WAYS), draw.choice(WAYS)), seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2000, 2400))
def test_many_sessions_of_two_liars(seed):
    draw = random.Random(seed)
    play((draw.choice(WAYS), draw.choice(WAYS)), seed)


@pytest.mark.parametrize(
    ("name", "stage", "blamed_at"),
    [
        ("advertises_a_useless_key", Stage.ADVERTISE, Stage.ADVERTISE),
        ("advertises_one_key_for_both", Stage.ADVERTISE, Stage.ADVERTISE),
        ("signs_a_dealing_of_another_form", Stage.SHARE, Stage.SHARE),
    ],
)
def test_who_is_blamed_on_the_way_into_the_sum_does_not_come_into_it(name, stage, blamed_at):
    """It says what convicts it, and then what it should have said."""
    room = Rehearsal(range(10), label="twice", policy=Policy(min_survivors=7), min_survivors=7)
    liar, first, refused = Liar(3, name, random.Random(1), room), [], []

    def intercept(at: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes | None:
        said = liar(at, sender, receiver, message)
        if (at, sender) == (stage, 3):
            with pytest.raises(SecureSumError) as caught:
                room.server.receive(3, said)
            first.append(caught.value)
            assert 3 not in room.server.waiting  # nobody is to wait for it
            return message
        return said

    room.play(intercept=intercept, refused=refused)
    assert [type(error) for error in first] != [OutOfOrder]
    [error] = refused
    assert (type(error), error.peer, error.stage) == (OutOfOrder, 3, stage)
    assert room.server.blamed[3].reason in error.message
    assert room.server.blamed[3].stage is blamed_at
    result = room.server.result
    assert result.survivors == tuple(i for i in room.ids if i != 3)
    assert result.counts.tolist() == room.expected(result.survivors)


def test_what_a_blamed_client_gives_at_unmask_is_checked_and_taken():
    """Its vector is in the sum, and each of its keys opens what was signed, or nothing."""
    room = Rehearsal(range(10), label="accused", policy=Policy(min_survivors=7), min_survivors=7)
    liar, refused = Liar(4, "seals_garbage_for_some", random.Random(1), room), []
    room.play(intercept=liar, refused=refused)
    assert min(liar.victims) < 4  # it is blamed when its turn comes
    assert refused == []
    assert list(room.server.blamed) == [4]


SPOILS_A_SHARE = [
    "seals_garbage_for_some",
    "gives_wrong_keys_at_unmask",
    "deals_a_twin_of_its_key_to_the_last_and_drops_out",
]


def _session(name: str, **how: str) -> tuple[Rehearsal, Liar]:
    room = Rehearsal(range(10), label="accused", policy=Policy(min_survivors=7), min_survivors=7, **how)
    liar = Liar(4, name, random.Random(1), room)
    room.play(intercept=liar)
    return room, liar


@pytest.mark.parametrize("name", SPOILS_A_SHARE)
def test_an_accusation_that_proves_nothing_does_not_lose_a_sum_that_opens(name, monkeypatch):
    refused = []

    def nothing(evidence, roster):
        refused.append(evidence)
        raise EvidenceError("this evidence proves nothing")

    monkeypatch.setattr(gathering, "verify_evidence", nothing)
    room, _ = _session(name)
    result = room.server.result
    assert refused
    assert room.server.blamed == {}
    assert room.server.unproved == {4: "this evidence proves nothing"}
    assert result.counts.tolist() == room.expected(result.survivors)


@pytest.mark.parametrize("suite", ["x25519", pytest.param(HYBRID, marks=needs_kem)])
@pytest.mark.parametrize("name", ["seals_garbage_for_some", "gives_wrong_keys_at_unmask"])
def test_evidence_that_is_too_long_is_told_and_not_lost_in_silence(name, suite, monkeypatch):
    monkeypatch.setattr(evidence_module, "_MAX_BYTES", 3000)
    room, _ = _session(name, suite=suite)
    assert room.server.blamed == {}
    [(accused, reason)] = room.server.unproved.items()
    assert accused == 4
    assert re.fullmatch(r"this evidence proves nothing: expected 3000 bytes at most, got \d{4,6}", reason)
    told = room.server._hall.named()
    assert told == f"; there is evidence against client 4 that convicts nobody: {reason}"


def test_who_is_convicted_after_all_is_not_among_the_unproved(monkeypatch):
    """The first complaint's evidence is refused, the second one's is not."""
    tries = []

    def late(evidence, roster):
        tries.append(evidence)
        if len(tries) == 1:
            raise EvidenceError("this evidence proves nothing")
        return verify_evidence(evidence, roster)

    monkeypatch.setattr(gathering, "verify_evidence", late)
    room, liar = _session("seals_garbage_for_some")
    assert len(liar.victims) > 1
    assert len(tries) == 2
    assert set(room.server.blamed) == {4}
    assert room.server.unproved == {}


def test_nobody_is_accused_twice(monkeypatch):
    accused = []

    def noted(evidence, roster):
        blame = verify_evidence(evidence, roster)
        accused.append(blame.client_id)
        return blame

    monkeypatch.setattr(gathering, "verify_evidence", noted)
    room, liar = _session("seals_garbage_for_some")
    assert len(liar.victims) > 1  # each of them complains
    assert accused == list(room.server.blamed) == [4]


@pytest.mark.parametrize("victim", [0, 3, -1])
def test_on_a_chosen_graph_a_twin_of_the_mask_key_convicts_its_dealer(victim, monkeypatch):
    room, liar, real = chosen_rehearsal(label="twin"), 5, share.split

    def split(secret, threshold, xs, rng):
        shares = real(secret, threshold, xs, rng)
        if bytes(secret) == room.rng[liar].taken[32:64]:
            wrong = sorted(xs)[victim]
            points = tuple(sorted([wrong, *[x for x in sorted(xs) if x != wrong][: threshold - 1]]))
            step = ((secret[0] ^ 1) - secret[0]) << 248
            weight = lagrange_weights(points)[points.index(wrong)]
            value = int.from_bytes(shares[wrong]) + step * pow(weight, -1, PRIME)
            shares[wrong] = (value % PRIME).to_bytes(33)
        return shares

    monkeypatch.setattr(share, "split", split)
    room.play(drop={liar: Stage.UPLOAD})
    [blame] = room.server.blamed.values()
    assert (blame.client_id, blame.stage) == (liar, Stage.SHARE)
    assert verify_evidence(blame.evidence, room.roster) == blame
    result = room.server.result
    assert result.survivors == tuple(i for i in room.ids if i != liar)
    assert result.counts.tolist() == room.expected(result.survivors)


@pytest.mark.parametrize(
    ("room", "wrong", "tries"),
    [
        (partial(Rehearsal, range(100)), 12, 2000),
        (partial(Rehearsal, range(100)), 16, 0),
        (chosen_rehearsal, 2, 0),
    ],
    ids=["100 clients", "as many as can be decoded", "chosen graph"],
)
def test_wrong_shares_among_many_cost_nothing_and_their_dealers_are_named(room, wrong, tries, monkeypatch):
    """One deals them of its seed, one of its mask key, and drops out; the lowest points are among them."""
    room, real, dealt = room(label="many"), share.split, []

    def split(secret, threshold, xs, rng):
        shares = real(secret, threshold, xs, rng)
        for i, at in ((5, 64), (7, 32)):
            if bytes(secret) == room.rng[i].taken[at : at + 32]:
                assert wrong <= (len(xs) - threshold) // 2
                spoilt = sorted(xs)[:1] + random.Random(i).sample(sorted(xs)[1:], wrong - 1)
                shares |= {x: bytes(33) for x in spoilt}
                dealt.append(i)
        return shares

    monkeypatch.setattr(share, "split", split)
    monkeypatch.setattr(shamir, "_MAX_TRIES", tries)
    room.play(drop={7: Stage.UPLOAD})
    assert dealt == [5, 7]
    blamed = room.server.blamed
    assert {i: blame.stage for i, blame in blamed.items()} == {5: Stage.SHARE, 7: Stage.SHARE}
    assert all(verify_evidence(blame.evidence, room.roster) == blame for blame in blamed.values())
    result = room.server.result
    assert result.survivors == tuple(i for i in room.ids if i != 7)
    assert result.counts.tolist() == room.expected(result.survivors)
