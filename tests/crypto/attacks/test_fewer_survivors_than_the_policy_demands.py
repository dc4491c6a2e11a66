"""Broken if a sum of fewer clients than the minimum of survivors opens.

The cohort that an accountant assumes is this number less the colluders. The threshold alone is lower. On a
chosen graph the number is the server's word, and the cohort is what the graph guarantees.
"""

from __future__ import annotations

import pytest
import reference as wire
from chosen import chosen_rehearsal
from forgery import ADVERT_BYTES, SEALED_BYTES, records, refield, refused, survivors, take_apart
from rehearsal import SERVER, Rehearsal

from prism_crypto.errors import MessageError, OutOfOrder, ThresholdError
from prism_crypto.policy import Policy
from prism_crypto.stage import Stage

N, SURVIVORS = 7, 6
MODES = ["active", "semi_honest", "chosen"]


def session(mode: str = "active", **fields) -> Rehearsal:
    """Seven clients, threshold 5 (or 4; of a client's choices 3), and a policy that demands six survivors."""
    if mode == "chosen":
        return chosen_rehearsal(n=N, degree=4, threshold=3, lost=N - SURVIVORS)
    policy = Policy(min_survivors=SURVIVORS, mode=mode)
    rehearsal = Rehearsal(range(N), policy=policy, mode=mode, min_survivors=SURVIVORS, **fields)
    assert rehearsal.session.threshold < SURVIVORS
    return rehearsal


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stage", [Stage.ADVERTISE, Stage.SHARE, Stage.UPLOAD])
def test_the_honest_server_stops_when_two_of_seven_are_gone(stage, mode):
    with refused(ThresholdError, stage, None):
        session(mode).play(drop={5: stage, 6: stage})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stages", [(Stage.SHARE, Stage.UPLOAD), (Stage.ADVERTISE, Stage.UPLOAD)])
def test_losses_at_different_stages_add_up(stages, mode):
    with refused(ThresholdError, Stage.UPLOAD, None):
        session(mode).play(drop=dict(zip((5, 6), stages, strict=True)))


@pytest.mark.parametrize("mode", ["active", "semi_honest"])
def test_clients_that_leave_after_their_upload_are_still_survivors(mode):
    rehearsal = session(mode)
    rehearsal.play(drop={5: Stage.UNMASK, 6: Stage.UNMASK})
    assert rehearsal.server.result.survivors == tuple(range(N))


def too_few_adverts(message: bytes) -> bytes:
    return records(1, ADVERT_BYTES, lambda cut: [cut.pop(5), cut.pop(6)])(message)


def too_few_sharers(message: bytes) -> bytes:
    kind, tag, (_, _, sealed) = take_apart(message)
    kept = {i: box for i, box in wire.read_records(sealed, SEALED_BYTES).items() if i < 5}
    return wire.wrap(kind, tag, 5, wire.id_list([0, 1, 2, 3, 4]), wire.write_records(kept))


@pytest.mark.parametrize(
    ("stage", "change"),
    [
        (Stage.SHARE, too_few_adverts),
        (Stage.UPLOAD, too_few_sharers),
        (Stage.CONFIRM, survivors(0, 1, 2, 3, 4)),
        (Stage.CONFIRM, survivors(0)),
    ],
)
def test_a_client_told_of_too_few_refuses_whatever_the_server_does(stage, change):
    def lie(at, sender, receiver, message):
        return change(message) if at is stage and sender is SERVER else message

    with refused(ThresholdError, stage, None):
        session().play(intercept=lie)


@pytest.mark.parametrize("stage", [Stage.UPLOAD, Stage.CONFIRM])
def test_on_a_chosen_graph_a_client_told_of_too_few_refuses_though_it_sees_enough_neighbours(stage):
    def lie(at, sender, receiver, message):
        if at is stage and sender is SERVER:
            return refield(lambda fields: [5, *fields[1:]])(message)
        return message

    with refused(ThresholdError, stage, None):
        session("chosen").play(intercept=lie)


def test_a_semi_honest_client_told_of_too_few_survivors_keeps_its_shares():
    def lie(at, sender, receiver, message):
        return survivors(0, 1, 2, 3, 4)(message) if at is Stage.UNMASK and sender is SERVER else message

    with refused(ThresholdError, Stage.UNMASK, None):
        session("semi_honest").play(intercept=lie)


def test_a_server_of_its_own_making_does_not_open_five_either():
    """The attacker runs a server for the same session without the minimum, from the uploads on."""
    rehearsal = session()
    kept = {}

    def note(stage, sender, receiver, message):
        kept[stage, sender, receiver] = message
        return message

    rehearsal.play(until=Stage.SHARE, intercept=note)
    uploads = {
        i: rehearsal.clients[i].upload(kept[Stage.UPLOAD, SERVER, i], rehearsal.values[i]) for i in range(N)
    }
    for i in range(5):
        rehearsal.server.receive(i, uploads[i])
    with refused(ThresholdError, Stage.UPLOAD, None):
        rehearsal.server.close()
    context = rehearsal.clients[0]._state.context
    told = wire.wrap(wire.SURVIVORS, context[:16], 5, wire.id_list([0, 1, 2, 3, 4]))
    for i in range(5):
        with refused(ThresholdError, Stage.CONFIRM, None):
            rehearsal.clients[i].confirm(told)


def test_padding_the_count_does_not_help():
    """Seven are said to survive, five are listed."""
    lie = refield(lambda _: [7, wire.id_list([0, 1, 2, 3, 4])])

    def intercept(at, sender, receiver, message):
        return lie(message) if at is Stage.CONFIRM and sender is SERVER else message

    with refused(MessageError, Stage.CONFIRM, None):
        session().play(intercept=intercept)


def test_fewer_confirmations_or_shares_than_the_threshold_open_nothing():
    for stage in (Stage.CONFIRM, Stage.UNMASK):
        rehearsal = session()
        gone = dict.fromkeys((4, 5, 6), stage)
        with pytest.raises(ThresholdError) as caught:
            rehearsal.play(drop=gone)
        assert caught.value.stage is stage
        with pytest.raises(OutOfOrder):
            rehearsal.server.result  # noqa: B018


def test_in_a_sparse_graph_the_number_of_survivors_is_held_against_the_policy():
    policy = Policy(min_survivors=38, mode="semi_honest")
    rehearsal = Rehearsal(
        range(40), policy=policy, mode="semi_honest", graph="harary", dropout=0.05, colluders=2
    )
    assert rehearsal.session.min_survivors == 38

    def lie(at, sender, receiver, message):
        if at is Stage.UNMASK and sender is SERVER:
            return refield(lambda fields: [37, fields[1]])(message)
        return message

    with refused(ThresholdError, Stage.UNMASK, None):
        rehearsal.play(intercept=lie)
