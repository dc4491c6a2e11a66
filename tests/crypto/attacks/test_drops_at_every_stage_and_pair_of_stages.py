"""Broken if a dropout ends in anything but the exact sum over the survivors or a clean abort.

Dropping at a stage means that this message and all later ones are missing. An answer that comes late is the
same as silence: it is not read.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

import pytest
from chosen import choice, chosen_rehearsal, rehearsed
from forgery import refused, take_apart
from rehearsal import HYBRID, SERVER, Rehearsal, needs_kem, stages

from prism_crypto.errors import OutOfOrder, ThresholdError
from prism_crypto.secure_sum import secure_sum
from prism_crypto.stage import Stage
from prism_crypto.stages import advertise as advertising

PAIRS = list(itertools.combinations_with_replacement(list(Stage), 2))


def expectation(session: Rehearsal, drop: dict[int, Stage]) -> tuple[Stage | None, tuple[int, ...]]:
    """The stage at which too few are left, if any; and the survivors."""
    plan = session.session
    for stage in stages(plan.mode.value):
        here = [i for i in session.ids if i not in drop or stage.before(drop[i])]
        least = plan.threshold if stage in (Stage.CONFIRM, Stage.UNMASK) else plan.quorum
        if len(here) < least:
            return stage, ()
    return None, tuple(i for i in session.ids if i not in drop or Stage.UPLOAD.before(drop[i]))


def check(session: Rehearsal, drop: dict[int, Stage], late: bool) -> None:
    if session.session.mode.value == "semi_honest":
        drop = {i: Stage.UNMASK if stage is Stage.CONFIRM else stage for i, stage in drop.items()}
    at, survivors = expectation(session, drop)
    held: dict[int, bytes] = {}

    def delay(stage, sender, receiver, message):
        if receiver is not SERVER:
            return message
        for peer, kept in list(held.items()):
            if drop[peer].before(stage):
                with refused(OutOfOrder, stage, peer):
                    session.server.receive(peer, held.pop(peer))
                assert kept
        if sender in drop and stage is drop[sender]:
            held[sender] = message
            return None
        return message

    how = {"intercept": delay} if late else {"drop": drop}
    if at is None:
        session.play(**how)
        result = session.server.result
        assert result.survivors == survivors
        assert result.counts.tolist() == session.expected(survivors)
        for peer, message in held.items():
            with refused(OutOfOrder, None, peer):
                session.server.receive(peer, message)
        return
    with pytest.raises(ThresholdError) as caught:
        session.play(**how)
    assert caught.value.stage is at
    with pytest.raises(OutOfOrder):
        session.server.result  # noqa: B018


@pytest.mark.parametrize("late", [False, True], ids=["silent", "late"])
@pytest.mark.parametrize("mode", ["active", "semi_honest"])
@pytest.mark.parametrize("stage", list(Stage))
def test_one_drop_at_any_stage(stage, mode, late):
    for victim in (0, 4):
        check(Rehearsal(range(5), mode=mode), {victim: stage}, late)


@pytest.mark.parametrize("late", [False, True], ids=["silent", "late"])
@pytest.mark.parametrize("mode", ["active", "semi_honest"])
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_two_drops_at_any_pair_of_stages(first, second, mode, late):
    check(Rehearsal(range(7), mode=mode), {1: first, 5: second}, late)  # enough remain
    check(Rehearsal(range(4), mode=mode), {1: first, 3: second}, late)  # too few remain, in active mode


@needs_kem
@pytest.mark.parametrize("late", [False, True], ids=["silent", "late"])
@pytest.mark.parametrize("mode", ["active", "semi_honest"])
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_two_drops_in_a_hybrid_session(first, second, mode, late):
    check(Rehearsal(range(7), mode=mode, suite=HYBRID), {1: first, 5: second}, late)
    check(Rehearsal(range(4), mode=mode, suite=HYBRID), {1: first, 3: second}, late)


@pytest.mark.parametrize("mode", ["active", "semi_honest"])
def test_three_drops_at_three_stages_with_just_enough_left(mode):
    for trio in itertools.combinations(list(Stage), 3):
        check(Rehearsal(range(8), mode=mode), dict(zip((0, 3, 7), trio, strict=True)), False)


@pytest.mark.parametrize("suite", ["x25519", pytest.param(HYBRID, marks=needs_kem)])
@pytest.mark.parametrize("stage", list(Stage))
def test_in_a_sparse_graph_too(stage, suite):
    how = {"graph": "harary", "dropout": 0.05, "colluders": 2, "suite": suite}
    session = Rehearsal(range(40), mode="semi_honest", **how)
    check(session, {7: stage, 8: Stage.UNMASK}, False)


@pytest.mark.parametrize("at", [None, *Stage])
def test_a_client_that_nobody_chose_is_in_the_sum_or_drops(at, monkeypatch):
    """It deals, and holds nothing: its last message is empty."""
    lonely, last = 4, []

    def choose(ids, me, degree, rng):
        return tuple([i for i in ids if i not in (me, lonely)][:degree])

    def note(stage, sender, receiver, message):
        if (stage, sender) == (Stage.UNMASK, lonely):
            last.append(take_apart(message)[2][:3])
        return message

    monkeypatch.setattr(advertising, "choose", choose)
    session = rehearsed("chosen")
    session.play(drop={lonely: at} if at else {}, intercept=note)
    dropped = at is not None and at.before(Stage.CONFIRM)
    survivors = tuple(i for i in session.ids if i != lonely or not dropped)
    assert session.server.result.survivors == survivors
    assert session.server.result.counts.tolist() == session.expected(survivors)
    assert last == ([] if at else [[b"", b"", b""]])


@pytest.mark.parametrize("mode", ["active", "semi_honest"])
def test_all_drops_in_one_call(mode):
    """The same through `secure_sum`, whose survivors are those that uploaded."""
    session = Rehearsal(range(7))
    values = [session.values[i] for i in session.ids]
    for first, second in PAIRS:
        drop = {1: first, 5: second}
        result = secure_sum(values, drop=drop, mode=mode)
        alive = tuple(i for i in range(7) if i not in drop or Stage.UPLOAD.before(drop[i]))
        assert result.survivors == alive
        assert result.counts.tolist() == session.expected(alive)


def ends_before_a_key_leaves(session: Rehearsal, gone: Iterable[int], at: Stage, message: str) -> None:
    """The server says at the very stage how many are left; no client has given a key by then."""
    given = []

    def see(stage: Stage, sender: int | None, receiver: int | None, sent: bytes) -> bytes:
        if stage is Stage.UNMASK and sender is not SERVER:
            given.append(sender)
        return sent

    with pytest.raises(ThresholdError) as caught:
        session.play(drop=dict.fromkeys(gone, at), intercept=see)
    assert not given
    assert (caught.value.stage, caught.value.peer) == (at, None)
    assert re.fullmatch(message, caught.value.message), caught.value.message


@pytest.mark.parametrize("suite", ["x25519", pytest.param(HYBRID, marks=needs_kem)])
@pytest.mark.parametrize(
    ("graph", "n", "gone", "message"),
    [
        ("complete", 10, 4, r"6 clients confirmed, this session needs 7 \(.*\)"),
        ("chosen", 10, 2, r"8 of 10 survivors confirmed; secrets with fewer than 5 holders left: \d+"),
        ("chosen", 40, 9, r"31 of 40 survivors confirmed; secrets with fewer than 14 holders left: \d+"),
        ("chosen", 40, 39, r"1 of 40 survivors confirmed; secrets with fewer than 14 holders left: \d+"),
    ],
)
def test_where_too_few_confirm_nobody_gives_a_key_in_vain(graph, n, gone, message, suite):
    session = Rehearsal(range(n), graph=graph, suite=suite)
    ends_before_a_key_leaves(session, range(gone), Stage.CONFIRM, message)


@pytest.mark.parametrize("suite", ["x25519", pytest.param(HYBRID, marks=needs_kem)])
@pytest.mark.parametrize("gone", [4, 5])
def test_where_too_few_holders_of_a_secret_upload_nobody_gives_a_key_in_vain(gone, suite):
    """Of 24 clients 18 must survive, of each secret's 12 holders 8: five of these are too many."""
    session = chosen_rehearsal(suite=suite)
    session.play(until=Stage.ADVERTISE)
    silent = choice(session, 0)[:gone]
    session = chosen_rehearsal(suite=suite)
    if gone == 4:
        session.play(drop=dict.fromkeys(silent, Stage.UPLOAD))
        assert session.server.result.survivors == tuple(i for i in session.ids if i not in silent)
        return
    message = r"19 of 24 clients uploaded; secrets with fewer than 8 holders left: \d+"
    ends_before_a_key_leaves(session, silent, Stage.UPLOAD, message)
