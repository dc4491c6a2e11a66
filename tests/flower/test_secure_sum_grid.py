"""The secure sum over Flower's messages, with real parties and without Flower's own processes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import bits_app
import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.serverapp.strategy import FedAvg
from loop_grid import LoopGrid

from prism_crypto import CountSpec, Policy, Stage, ThresholdError
from prism_secure.errors import ConfigError
from prism_secure.flower import SecureSum, SecureSumGrid
from prism_secure.flower.secure_sum import messages as sum_messages
from prism_secure.run_folder.enrolment import enroll_simulated

CLIENTS = 4
SHAPES = {"conv": (3, 2), "bias": (5,)}


class Federation:
    """Four enrolled clients and their grid; rounds go on from test to test, as they do in a federation."""

    def __init__(self, root: Path) -> None:
        self.roster = enroll_simulated(root, "tests", CLIENTS, Policy(min_survivors=3, min_cohort=3))
        self.grid = LoopGrid(bits_app.app, {100 + i: root / f"{i:02d}" for i in range(CLIENTS)})
        self.rounds = itertools.count(1)

    def open(self, content: RecordDict | None = None, **options):
        options = {"round": next(self.rounds), **options}
        summed = SecureSum(self.grid, self.roster, "tests", timeout=options.pop("timeout", 300), poll=0.01)
        return summed.open(content or model(), CountSpec(11), **options)


def model(**config: float | str) -> RecordDict:
    arrays = ArrayRecord({name: _array(shape) for name, shape in SHAPES.items()})
    return RecordDict({"arrays": arrays, "config": ConfigRecord(config)})


def _array(shape: tuple[int, ...]):
    return ArrayRecord([np.zeros(shape, np.float32)])["0"]


def unavailable(reply: Message) -> Message:
    """What Flower answers for a node that it has lost."""
    reply.__dict__ |= {"_content": None, "_error": Error(5, "node unavailable")}
    return reply


def expected(clients: tuple[int, ...]) -> np.ndarray:
    each = [
        np.concatenate([bits_app.bits_of(client, name, shape).reshape(-1) for name, shape in SHAPES.items()])
        for client in clients
    ]
    return np.sum(each, axis=0, dtype=np.int64)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return Federation(tmp_path_factory.mktemp("federation"))


@pytest.fixture
def federation(shared: Federation) -> Iterator[Federation]:
    yield shared
    shared.grid.tamper = lambda node, kind, reply: reply
    shared.grid.sent.clear()
    shared.grid.replies.clear()


def test_sum_is_exact_and_goes_through_five_message_types(federation: Federation) -> None:
    stages = []
    result = federation.open(closed=lambda stage, clients: stages.append((stage, clients)))
    assert result.counts.tolist() == expected((0, 1, 2, 3)).tolist()
    assert [stage for stage, _ in stages] == list(Stage)
    assert {kind for _, kind in federation.grid.sent} == {f"train.{stage}" for stage in Stage}


def test_nothing_of_the_reply_leaves_but_masked_words(federation: Federation) -> None:
    federation.open()
    for reply in federation.grid.replies:
        assert set(reply.content) == {sum_messages.RECORD}
        assert set(reply.content[sum_messages.RECORD]) == {"message", "client"}


def test_training_goes_on_while_adverts_and_shares_travel(federation: Federation, tmp_path: Path) -> None:
    """It ends only when both stages are over: a client that trained first would never get there."""
    gate = tmp_path / "gate"
    result = federation.open(
        model(gate=str(gate)), closed=lambda stage, _: gate.touch() if stage is Stage.SHARE else None
    )
    assert result.survivors == (0, 1, 2, 3)


def test_context_state_is_kept_from_round_to_round(federation: Federation) -> None:
    before = [context.state.get("seen", {"rounds": 0})["rounds"] for context in _contexts(federation)]
    federation.open()
    after = [context.state["seen"]["rounds"] for context in _contexts(federation)]
    assert after == [rounds + 1 for rounds in before]


def _contexts(federation: Federation):
    return list(federation.grid.contexts.values())


@pytest.mark.parametrize("stage", list(Stage))
def test_client_is_left_out_if_it_drops_before_its_upload(federation: Federation, stage: Stage) -> None:
    def lost(node: int, kind: str, reply: Message) -> Message:
        gone = (node, kind) == (102, sum_messages.message_type(stage))
        return unavailable(reply) if gone else reply

    federation.grid.tamper = lost
    result = federation.open()
    survivors = (0, 1, 3) if stage in (Stage.ADVERTISE, Stage.SHARE, Stage.UPLOAD) else (0, 1, 2, 3)
    assert result.survivors == survivors
    assert result.counts.tolist() == expected(survivors).tolist()


def test_silent_client_holds_the_others_up_for_no_longer_than_the_timeout(federation: Federation) -> None:
    federation.grid.tamper = lambda node, kind, reply: (
        None if (node, kind) == (102, "train.unmask") else reply
    )
    began = {}
    result = federation.open(timeout=10, closed=lambda stage, _: began.setdefault(stage, time.monotonic()))
    assert result.survivors == (0, 1, 2, 3)
    assert 10 <= began[Stage.UNMASK] - began[Stage.CONFIRM] < 100


@pytest.mark.parametrize("stage", [Stage.ADVERTISE, Stage.UPLOAD])
def test_garbage_is_refused_and_its_sender_is_left_out(federation: Federation, stage: Stage) -> None:
    garbled = sum_messages.message_type(stage)

    def tamper(node: int, kind: str, reply: Message) -> Message:
        if (node, kind) == (101, garbled):
            reply.content = sum_messages.packed(b"\x93garbage", 1)
        return reply

    federation.grid.tamper = tamper
    result = federation.open()
    assert result.survivors == (0, 2, 3)
    assert result.counts.tolist() == expected((0, 2, 3)).tolist()


def test_node_that_takes_anothers_name_does_not_push_it_out(federation: Federation) -> None:
    def tamper(node: int, kind: str, reply: Message) -> Message:
        if node == 101:
            reply.content[sum_messages.RECORD]["client"] = 0
        return reply

    federation.grid.tamper = tamper
    assert federation.open().survivors == (0, 2, 3)


@pytest.mark.parametrize("how", ["failing", "unreadable", "misused", "poisoning"])
def test_client_whose_training_fails_drops_out_and_says_nothing_of_its_data(
    federation: Federation, how: str
) -> None:
    assert federation.open(model(**{how: 3})).survivors == (0, 1, 2)
    reasons = [reply.error.reason for reply in federation.grid.replies if reply.has_error()]
    assert len(reasons) == 1
    assert "a record of" not in reasons[0]


def test_clients_let_no_server_choose_the_largest_value(federation: Federation) -> None:
    summed = SecureSum(federation.grid, federation.roster, "tests", timeout=300, poll=0.01)
    with pytest.raises(ThresholdError):
        summed.open(model(), CountSpec(11, 3), round=next(federation.rounds))
    reasons = [reply.error.reason for reply in federation.grid.replies if reply.has_error()]
    assert len(reasons) == CLIENTS
    assert all("integers up to 1, not up to 3" in reason for reason in reasons)


def test_clients_refuse_a_second_session_of_a_round_whose_upload_has_left(federation: Federation) -> None:
    number = next(federation.rounds)
    federation.open(round=number)
    with pytest.raises(ThresholdError):
        federation.open(round=number)
    assert all("not above" in reply.error.reason for reply in federation.grid.replies if reply.has_error())


def test_clients_that_are_sent_different_models_take_part_in_no_sum(federation: Federation) -> None:
    push = federation.grid.push_messages

    def lying(messages):
        messages = list(messages)
        for message in messages:
            if message.metadata.dst_node_id == 103 and "arrays" in message.content:
                other = RecordDict(dict(message.content))
                other["arrays"] = ArrayRecord({name: _array(shape) for name, shape in SHAPES.items()})
                other["config"] = ConfigRecord({"other": 1})
                message.content = other
        return push(messages)

    federation.grid.push_messages = lying
    try:
        # its advert is signed over another hash of the model: the server sees that, and so would the clients
        assert federation.open().survivors == (0, 1, 2)
    finally:
        federation.grid.push_messages = push


def test_foreign_federation_is_refused(federation: Federation) -> None:
    summed = SecureSum(federation.grid, federation.roster, "others", timeout=300, poll=0.01)
    with pytest.raises(ThresholdError):
        summed.open(model(), CountSpec(11), round=next(federation.rounds))
    assert all("enrolled in 'tests'" in reply.error.reason for reply in federation.grid.replies)


def test_server_that_lowers_what_clients_demand_gets_no_advert(federation: Federation) -> None:
    summed = SecureSum(
        federation.grid, federation.roster, "tests", mode="semi_honest", timeout=300, poll=0.01
    )
    with pytest.raises(ThresholdError):
        summed.open(model(), CountSpec(11), round=next(federation.rounds))
    assert all("PolicyError" in reply.error.reason for reply in federation.grid.replies)


def test_a_stage_that_is_asked_for_twice_is_answered_once(federation: Federation) -> None:
    """The server repeats a stage in a message of its own: one party, one state, one answer."""
    replies: list[Message] = []

    def tamper(node: int, kind: str, reply: Message) -> Message:
        if (node, kind) == (100, "train.confirm"):
            again = Message(federation.grid.last[node], node, kind)
            again.metadata.__dict__["_message_id"] = "again"
            try:
                bits_app.app(again, federation.grid.contexts[node])
            except Exception as error:
                replies.append(error)
        return reply

    handle = federation.grid._handle
    federation.grid.last = {}

    def remember(message: Message):
        federation.grid.last[message.metadata.dst_node_id] = message.content
        return handle(message)

    federation.grid._handle = remember
    federation.grid.tamper = tamper
    try:
        federation.open()
    finally:
        federation.grid._handle = handle
    assert len(replies) == 1
    assert "out of order" in str(replies[0])


def test_strategy_runs_unchanged_on_the_wrapped_grid(federation: Federation) -> None:
    """Two lines of an app change: this wrapper and the client's decorator."""
    grid = SecureSumGrid(
        federation.grid, federation.roster, "tests", rounds_before=next(federation.rounds), poll=0.01
    )
    next(federation.rounds)
    strategy = FedAvg(min_train_nodes=4, min_evaluate_nodes=4, min_available_nodes=4)
    arrays = model()["arrays"]
    result = strategy.start(grid, arrays, num_rounds=1, timeout=300)
    flat = np.concatenate([array.reshape(-1) for array in result.arrays.to_numpy_ndarrays()])
    assert np.allclose(flat, expected((0, 1, 2, 3)) / 4)
    assert [a.shape for a in result.arrays.to_numpy_ndarrays()] == list(SHAPES.values())
    assert all(a.dtype == np.float32 for a in result.arrays.to_numpy_ndarrays())


def test_lost_round_is_no_reply_and_not_an_error_of_the_strategy(federation: Federation) -> None:
    def lost(node: int, kind: str, reply: Message) -> Message:
        return unavailable(reply) if node in (100, 101) else reply

    federation.grid.tamper = lost
    grid = SecureSumGrid(
        federation.grid,
        federation.roster,
        "tests",
        rounds_before=next(federation.rounds),
        timeout=300,
        poll=0.01,
    )
    messages = [Message(model(), node, "train") for node in federation.grid.get_node_ids()]
    assert grid.send_and_receive(messages, timeout=300) == []
    next(federation.rounds)


def test_messages_that_differ_are_no_sum(federation: Federation) -> None:
    grid = SecureSumGrid(federation.grid, federation.roster, "tests")
    messages = [Message(model(), 100, "train"), Message(model(other=1), 101, "train")]
    with pytest.raises(ConfigError, match="same message"):
        grid.send_and_receive(messages)
