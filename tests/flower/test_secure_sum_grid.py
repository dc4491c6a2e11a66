"""The secure sum over Flower's messages, with real parties and without Flower's own processes."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import bits_app
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from forked_starts import forked_starts
from loop_grid import LoopGrid

from prism_crypto import (
    Blame,
    CountSpec,
    FixedPoint,
    Identity,
    InputError,
    Policy,
    PolicyError,
    Roster,
    SecureSumClient,
    Stage,
    ThresholdError,
)
from prism_crypto.hello import say_hello
from prism_crypto.primitives.hybrid import available
from prism_crypto.session import Suite
from prism_crypto.stages import evidence
from prism_privacy import (
    Accountant,
    Adjacency,
    Budget,
    BudgetExceeded,
    InvalidParameter,
    MaskRelease,
    Participation,
    View,
)
from prism_secure.errors import ConfigError, DataError, RoundError, RunFolderError
from prism_secure.flower import SecureSum, SecureSumGrid, secure_sum
from prism_secure.flower.secure_aggregation import messages as sum_messages
from prism_secure.flower.secure_aggregation import process, server
from prism_secure.flower.secure_aggregation.blamed import keep_blamed
from prism_secure.flower.secure_aggregation.terms import Terms
from prism_secure.plug_in import track
from prism_secure.run_folder.enrolment import enroll_simulated

CLIENTS = 4
SHAPES = {"conv": (3, 2), "bias": (5,)}


class Federation:
    """Four enrolled clients and their grid; rounds go on from test to test, as they do in a federation."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.roster = enroll_simulated(root, "tests", CLIENTS, Policy(min_survivors=3, min_cohort=3))
        self.grid = LoopGrid(bits_app.app, {100 + i: root / f"{i:02d}" for i in range(CLIENTS)})
        self.rounds = itertools.count(1)

    def open(self, content: RecordDict | None = None, **options):
        options = {"round": next(self.rounds), **options}
        summed = SecureSum(
            self.grid,
            self.roster,
            "tests",
            run_config=options.pop("run_config", None),
            timeout=options.pop("timeout", 300),
            poll=0.01,
        )
        return summed.open(content or model(), options.pop("spec", CountSpec(11)), **options)


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


@pytest.fixture(autouse=True, scope="module")
def client_processes_start_at_once() -> Iterator[None]:
    with forked_starts():
        yield


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return Federation(tmp_path_factory.mktemp("federation"))


@pytest.fixture
def federation(shared: Federation) -> Iterator[Federation]:
    yield shared
    shared.grid.tamper = lambda node, kind, reply: reply
    shared.grid.app = bits_app.app
    for context in _contexts(shared):
        context.run_config, context.run_id = {}, 7
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


@pytest.fixture
def lies(federation: Federation) -> Iterator[Path]:
    """Client 2 seals garbage for all others, and signs that, while this file is there."""
    federation.grid.app = bits_app.lying_app
    path = federation.root / "02" / "lies"
    path.touch()
    yield path
    path.unlink(missing_ok=True)


def test_node_that_lies_where_the_evidence_is_too_long_is_told_and_not_blamed(
    federation: Federation, lies: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.setattr(evidence, "_MAX_BYTES", 1000)
    summed = SecureSum(federation.grid, federation.roster, "tests", min_survivors=3, timeout=300, poll=0.01)
    with pytest.raises(ThresholdError, match="evidence against client 2 that convicts nobody"):
        summed.open(model(), CountSpec(11), round=next(federation.rounds))
    assert summed.blamed == {}
    assert "evidence against client 2 convicts nobody: this evidence proves nothing" in caplog.text


@pytest.mark.parametrize(("min_survivors", "left_out"), [(3, True), (4, False)])
def test_node_that_lies_costs_one_round_and_is_left_out_where_enough_are_left(
    federation: Federation, lies: Path, min_survivors: int, left_out: bool, caplog
) -> None:
    summed = SecureSum(
        federation.grid, federation.roster, "tests", min_survivors=min_survivors, timeout=300, poll=0.01
    )
    with pytest.raises(ThresholdError, match="blamed: client 2 at share"):
        summed.open(model(), CountSpec(11), round=next(federation.rounds))
    assert summed.blamed.keys() == {2}
    lies.unlink()  # it has thought better of it
    if left_out:
        result = summed.open(model(), CountSpec(11), round=next(federation.rounds))
        assert result.survivors == (0, 1, 3)
        assert result.counts.tolist() == expected((0, 1, 3)).tolist()
        return
    result = summed.open(model(), CountSpec(11), round=next(federation.rounds))
    assert result.survivors == (0, 1, 2, 3)
    assert "client 2 can't be left out" in caplog.text


def test_who_has_lied_is_left_out_by_a_server_that_starts_again_too(
    federation: Federation, lies: Path, tmp_path: Path
) -> None:
    how = {"min_survivors": 3, "timeout": 300, "poll": 0.01, "kept": tmp_path / "blamed"}
    first = SecureSum(federation.grid, federation.roster, "tests", **how)
    assert first.blamed == {}
    with pytest.raises(ThresholdError, match="blamed: client 2 at share"):
        first.open(model(), CountSpec(11), round=next(federation.rounds))
    second = SecureSum(federation.grid, federation.roster, "tests", **how)
    assert second.blamed == first.blamed
    result = second.open(model(), CountSpec(11), round=next(federation.rounds))
    assert result.survivors == (0, 1, 3)
    # Kept evidence says nothing about other federations, nor under a roster with another key.
    assert SecureSum(federation.grid, federation.roster, "others", **how).blamed == {}
    keys = {i: federation.roster.public_key(i) for i in federation.roster.ids}
    anew = Roster(keys | {2: Identity.generate(2).public_key})
    assert SecureSum(federation.grid, anew, "tests", **how).blamed == {}
    # Nor does it get lost where it can't be checked: more is written beside it.
    keep_blamed(tmp_path / "blamed", [])
    assert SecureSum(federation.grid, federation.roster, "tests", **how).blamed == first.blamed


@pytest.mark.parametrize("content", [b"", b"\x91", b"\x92\xc4\x01a", b"\x81\x01\x02", b"no msgpack"])
def test_a_file_that_holds_no_evidence_is_refused(
    federation: Federation, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "blamed").write_bytes(content)
    with pytest.raises(RunFolderError, match="must hold evidence against clients"):
        SecureSum(federation.grid, federation.roster, "tests", kept=tmp_path / "blamed")


@pytest.mark.skipif(not available(), reason="this cryptography has no ML-KEM-768")
def test_a_hybrid_sum_opens_and_clients_may_demand_one(tmp_path: Path) -> None:
    hybrid: Suite = "x25519+ml-kem-768"
    roster = enroll_simulated(tmp_path, "tests", CLIENTS, Policy(min_survivors=3, suite=hybrid))
    grid = LoopGrid(bits_app.app, {100 + i: tmp_path / f"{i:02d}" for i in range(CLIENTS)})
    with pytest.raises(ThresholdError):  # every client refuses
        SecureSum(grid, roster, "tests", timeout=300, poll=0.01).open(model(), CountSpec(11), round=1)
    summed = SecureSum(grid, roster, "tests", suite=hybrid, timeout=300, poll=0.01)
    result = summed.open(model(), CountSpec(11), round=2)
    assert result.counts.tolist() == expected(tuple(range(CLIENTS))).tolist()
    assert result.uplink_bytes[0] > 9_000


def planned_without(
    clients: int, blamed: dict[int, int], *, least: int | None = None, invited: range | None = None
) -> tuple[int, ...]:
    """Whom a session leaves out, of those to blame with so many bytes of evidence above 100."""
    identities = {i: Identity.generate(i) for i in range(clients)}
    roster = Roster({i: identity.public_key for i, identity in identities.items()})
    summed = SecureSum(SimpleNamespace(), roster, "tests", min_survivors=least)
    summed._number = 1
    for i, size in blamed.items():
        summed.blamed[i] = Blame(i, Stage.ADVERTISE, "it lied", "tests", 1, bytes(100 + size))
    among = tuple(roster.ids if invited is None else invited)
    session = summed._planned(CountSpec(11), among, 1, model_hash=b"", binding=b"")
    return tuple(i for i in among if i not in session.everyone)


def test_as_many_liars_are_left_out_as_an_offer_holds(caplog) -> None:
    assert planned_without(60, dict.fromkeys(range(16), 0)) == tuple(range(16))
    assert "can't be left out" not in caplog.text
    assert planned_without(60, dict.fromkeys(range(18), 0)) == tuple(range(16))
    for client in (16, 17):
        assert f"client {client} can't be left out, beside 16 others" in caplog.text
    assert "an offer holds no more evidence" in caplog.text


def test_liars_with_much_evidence_stand_in_nobody_s_way(caplog) -> None:
    assert planned_without(20, {0: 2**22, 1: 2**21 - 8, 2: 5, 3: 2**21 - 9, 4: 0}) == (2, 3, 4)
    assert "client 1 can't be left out, beside 3 others" in caplog.text
    assert "client 0 can't be left out, beside 3 others" in caplog.text


def test_as_many_liars_are_left_out_as_the_floor_allows(caplog) -> None:
    assert planned_without(10, dict.fromkeys(range(3), 0), least=8) == (0, 1)
    assert "client 2 can't be left out, beside 2 others" in caplog.text
    assert "min_survivors" in caplog.text


def test_liars_who_are_not_invited_take_no_room() -> None:
    blamed = dict.fromkeys(range(17), 0) | {30: 9, 31: 9}
    assert planned_without(60, blamed, invited=range(20, 40)) == (30, 31)


class Clock:
    """Time that passes where somebody sleeps."""

    now = 0.0
    time_ns = staticmethod(time.time_ns)

    def monotonic(self) -> float:
        self.now += 0.001
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


def test_silent_client_holds_the_others_up_for_no_longer_than_the_timeout(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(server, "time", clock)
    federation.grid.tamper = lambda node, kind, reply: (
        None if (node, kind) == (102, "train.unmask") else reply
    )
    began = {}
    result = federation.open(timeout=10, closed=lambda stage, _: began.setdefault(stage, clock.now))
    assert result.survivors == (0, 1, 2, 3)
    assert 10 <= began[Stage.UNMASK] - began[Stage.CONFIRM] < 11


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
    asked = [reply for reply in federation.grid.replies if reply.metadata.message_type != "train.hello"]
    assert len(asked) == CLIENTS
    assert all("PolicyError" in reply.error.reason for reply in asked)


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


def strategy_over(federation: Federation, rounds: int = 1, *, fraction_train: float = 1.0, **options):
    """FedAvg over the wrapped grid; rounds of the federation go on behind it."""
    before = next(federation.rounds) - 1
    for _ in range(rounds - 1):
        next(federation.rounds)
    options = {"rounds_before": before, "timeout": 300, "poll": 0.01, **options}
    grid = SecureSumGrid(federation.grid, federation.roster, "tests", **options)
    least = {"min_train_nodes": 2, "fraction_evaluate": 0.0, "min_available_nodes": 2}
    strategy = FedAvg(fraction_train=fraction_train, **least)
    return strategy.start(grid, model()["arrays"], num_rounds=rounds, timeout=300)


def mean_of(result) -> np.ndarray:
    return np.concatenate([array.reshape(-1) for array in result.arrays.to_numpy_ndarrays()])


@pytest.mark.parametrize("lost", ["raise", "skip"])
def test_run_whose_only_round_is_lost_does_not_end_well_with_an_empty_model(
    federation: Federation, lost: str
) -> None:
    federation.grid.tamper = lambda node, kind, reply: unavailable(reply) if node in (100, 101) else reply
    with pytest.raises(RoundError, match=r"is lost.*2 of 4 clients advertised"):
        strategy_over(federation, lost=lost)


@pytest.mark.parametrize("lost", ["raise", "skip"])
def test_round_that_is_lost_later_is_an_error_or_skipped_by_name(federation: Federation, lost: str) -> None:
    advertised = []

    def tamper(node: int, kind: str, reply: Message) -> Message:
        advertised.extend([node] if kind == "train.advertise" else [])
        return unavailable(reply) if len(advertised) > CLIENTS and node in (100, 101) else reply

    federation.grid.tamper = tamper
    if lost == "raise":
        with pytest.raises(RoundError, match=r'is lost.*lost="skip"'):
            strategy_over(federation, 2, lost=lost)
    else:
        result = strategy_over(federation, 2, lost=lost)
        assert np.allclose(mean_of(result), expected((0, 1, 2, 3)) / 4), "that of the round that opened"


def test_strategy_that_samples_opens_sums_of_its_samples(federation: Federation) -> None:
    """Three of four, whoever they are; and no session counts the fourth as one that has dropped out."""
    charged: list[tuple[int, ...]] = []
    means = [mean_of(strategy_over(federation, fraction_train=0.75, charge=charged.append)) for _ in range(5)]
    for mean, clients in zip(means, charged, strict=True):
        assert len(clients) == 3
        assert np.allclose(mean, expected(clients) / 3)
    hellos = [node for node, kind in federation.grid.sent if kind == "train.hello"]
    assert len(hellos) == 5 * 3  # each grid asks a node once
    assert {kind for _, kind in federation.grid.sent} == {
        "train.hello",
        *(f"train.{stage}" for stage in Stage),
    }


def test_nodes_say_whose_they_are_once_for_all_rounds_of_a_grid(federation: Federation) -> None:
    summed = SecureSum(federation.grid, federation.roster, "tests", timeout=300, poll=0.01)
    for nodes, clients in (
        ([100, 101, 103], (0, 1, 3)),
        ([103, 101, 100], (0, 1, 3)),
        ([101, 102, 103], (1, 2, 3)),
    ):
        result = summed.open(
            model(), CountSpec(11), round=next(federation.rounds), nodes=nodes, invite="asked"
        )
        assert result.survivors == clients
        assert result.counts.tolist() == expected(clients).tolist()
    hellos = [node for node, kind in federation.grid.sent if kind == "train.hello"]
    assert sorted(hellos) == [100, 101, 102, 103]


def test_clients_that_are_named_are_invited_wherever_they_are(tmp_path: Path) -> None:
    """Who of them is away has dropped out, and no other is asked."""
    federation = Federation(tmp_path)
    federation.grid.contexts[99] = federation.grid.contexts.pop(100)  # client 0 has another node
    federation.grid.contexts[99].node_id = 99
    nodes = federation.grid.get_node_ids
    for away, invite, clients in (((), (0, 1, 3), (0, 1, 3)), ((102,), range(4), (0, 1, 3))):
        federation.grid.sent.clear()
        federation.grid.get_node_ids = lambda away=away: [node for node in nodes() if node not in away]
        summed = SecureSum(federation.grid, federation.roster, "tests", timeout=300, poll=0.01)
        result = summed.open(model(), CountSpec(11), round=next(federation.rounds), invite=invite)
        assert result.survivors == clients
        assert result.counts.tolist() == expected(clients).tolist()
        assert summed.session.everyone == frozenset(invite)
        assert sorted(node for node, kind in federation.grid.sent if kind == "train.advertise") == [
            99,
            101,
            103,
        ]


@pytest.mark.parametrize("fraction", [0.5, 0.6])
@pytest.mark.parametrize("lost", ["raise", "skip"])
def test_sample_that_no_sum_can_open_is_a_lost_round_before_anything_is_sent(
    federation: Federation, fraction: float, lost: str
) -> None:
    with pytest.raises(RoundError, match="2 nodes are asked, this session needs 3"):
        strategy_over(federation, fraction_train=fraction, lost=lost)
    assert not federation.grid.sent


def test_sample_below_what_the_clients_policies_demand_opens_nothing(tmp_path: Path) -> None:
    roster = enroll_simulated(tmp_path, "tests", 4, Policy(min_survivors=4))
    grid = LoopGrid(bits_app.app, {100 + i: tmp_path / f"{i:02d}" for i in range(4)})
    summed = SecureSum(grid, roster, "tests", timeout=300, poll=0.01)
    with pytest.raises(ThresholdError, match="0 of 3 clients advertised"):
        summed.open(model(), CountSpec(11), round=1, nodes=[100, 101, 102], invite="asked")


@pytest.mark.parametrize("how", ["another's signature", "another's name", "garbage", "silent", "lost"])
def test_node_that_does_not_prove_whose_it_is_is_not_invited(federation: Federation, how: str) -> None:
    replies: dict[int, Message] = {}

    def tamper(node: int, kind: str, reply: Message) -> Message | None:
        if kind != "train.hello" or node != 101:
            return reply
        record = reply.content[sum_messages.RECORD]
        if how == "silent":
            return None
        if how == "lost":
            return unavailable(reply)
        if how == "garbage":
            record["message"] = b"\0" * 64
        if how == "another's name":
            record["client"] = 2
        if how == "another's signature":  # client 2's, for another node
            other = federation.grid.contexts[102].node_config["folder"]
            signature = say_hello(
                Identity.load(Path(other) / "identity.json"), "tests", bytes(32), "flower node 101"
            )
            record["client"], record["message"] = 2, signature
        replies[node] = reply
        return reply

    federation.grid.tamper = tamper
    summed = SecureSum(federation.grid, federation.roster, "tests", timeout=2, poll=0.01)
    result = summed.open(
        model(), CountSpec(11), round=next(federation.rounds), nodes=[100, 101, 102, 103], invite="asked"
    )
    assert result.survivors == (0, 2, 3)
    assert (101, "train.advertise") not in federation.grid.sent


@pytest.mark.parametrize(
    ("stage", "mode", "invite"),
    [
        *itertools.product([Stage.ADVERTISE], ["active", "semi_honest"], ["roster", "asked"]),
        (Stage.SHARE, "active", "roster"),
        (Stage.UPLOAD, "semi_honest", "roster"),
        (Stage.UNMASK, "semi_honest", "asked"),
    ],
)
def test_node_that_answers_as_another_client_is_taken_for_silent(
    tmp_path: Path, stage: Stage, mode: str, invite: str, caplog
) -> None:
    """Client 0 is away, and node 101, of client 1, answers in its place, from this stage on."""
    roster = enroll_simulated(tmp_path, "tests", CLIENTS, Policy(min_survivors=2, min_cohort=2, mode=mode))
    grid = LoopGrid(bits_app.app, {100 + i: tmp_path / f"{i:02d}" for i in range(CLIENTS)})
    kinds = [sum_messages.message_type(each) for each in Stage]
    answered: list[str] = []

    def tamper(node: int, kind: str, reply: Message) -> Message | None:
        if kind not in kinds[list(Stage).index(stage) :] or node not in (100, 101) or reply.has_error():
            return reply
        if node == 100:
            return unavailable(reply)
        reply.content[sum_messages.RECORD]["client"] = 0
        answered.append(kind)
        return reply

    grid.tamper = tamper
    summed = SecureSum(grid, roster, "tests", mode=mode, min_survivors=2, timeout=300, poll=0.01)
    seen: dict[Stage, tuple[int, ...]] = {}
    options = {"nodes": list(grid.contexts), "invite": invite, "closed": seen.__setitem__}
    with pytest.raises(ThresholdError):  # two of four are left
        summed.open(model(), CountSpec(11), round=1, **options)
    assert answered[0] == sum_messages.message_type(stage)
    assert all(set(clients) == {0, 1, 2, 3} for clients in seen.values()), "those before"
    assert len(seen) == list(Stage).index(stage) - (stage is Stage.UNMASK and mode == "semi_honest")
    refusal = (
        "is refused" if (stage, mode, invite) == (Stage.ADVERTISE, "active", "roster") else "says that it"
    )
    assert any("node 101" in line and refusal in line for line in caplog.messages)


@pytest.mark.parametrize("away", ["no node of its own", "said no hello"])
def test_node_that_answers_as_a_client_that_said_no_hello_is_taken_for_silent(
    tmp_path: Path, away: str, caplog
) -> None:
    """Only hellos are signed: node 101 says its own, and goes on as client 0, of which it has nothing."""
    mode, policy = "semi_honest", Policy(min_survivors=2, min_cohort=2, mode="semi_honest")
    roster = enroll_simulated(tmp_path, "tests", CLIENTS, policy)
    first = 1 if away == "no node of its own" else 0
    grid = LoopGrid(bits_app.app, {100 + i: tmp_path / f"{i:02d}" for i in range(first, CLIENTS)})
    summed = SecureSum(grid, roster, "tests", mode=mode, min_survivors=2, timeout=300, poll=0.01)
    forged: list[SecureSumClient] = []

    def tamper(node: int, kind: str, reply: Message) -> Message | None:
        if node == 100:
            return unavailable(reply)
        if node == 101 and kind == sum_messages.message_type(Stage.ADVERTISE):
            assert summed.session is not None
            forged.append(SecureSumClient(0, summed.session, policy))
            record = reply.content[sum_messages.RECORD]
            record["client"], record["message"] = 0, forged[0].advertise()
        return reply

    grid.tamper = tamper
    seen: dict[Stage, tuple[int, ...]] = {}
    with pytest.raises(ThresholdError):  # two of four are left
        summed.open(model(), CountSpec(11), round=1, closed=seen.__setitem__)
    assert forged
    assert seen == {}
    assert any("node 101 says that it is client 0" in line for line in caplog.messages)


def test_client_that_has_moved_to_another_node_is_found_there(federation: Federation) -> None:
    summed = SecureSum(federation.grid, federation.roster, "tests", timeout=300, poll=0.01)

    def opened(nodes: list[int]):
        return summed.open(
            model(), CountSpec(11), round=next(federation.rounds), nodes=nodes, invite="asked"
        ).survivors

    assert opened([100, 101, 102]) == (0, 1, 2)
    contexts = dict(federation.grid.contexts)
    moved = Context(7, 200, contexts[100].node_config, RecordDict(), {})
    federation.grid.contexts = {**contexts, 200: moved}
    try:
        assert opened([200, 101, 102]) == (0, 1, 2)
        assert opened([100, 101, 102, 103]) == (0, 1, 2, 3)  # back again: it is asked again
    finally:
        federation.grid.contexts = contexts


class OverBudget(Exception):
    pass


def test_what_a_charge_raises_ends_the_run_before_an_upload_is_asked_for(federation: Federation) -> None:
    def refuse(clients: tuple[int, ...]) -> None:
        assert clients == (0, 1, 2, 3)
        raise OverBudget

    with pytest.raises(OverBudget):
        strategy_over(federation, charge=refuse, lost="skip")
    assert {kind for _, kind in federation.grid.sent} == {"train.advertise", "train.share"}


def test_samples_are_charged_to_those_who_were_asked_until_a_budget_ends_the_run(
    federation: Federation,
) -> None:
    release, book = MaskRelease(flip=0.25, clip=1.0, cohort=3), Participation(1e-5)
    promise = Budget(20.0, 1e-5, view=View.SUM, adjacency=Adjacency.ZERO_OUT)
    costs, said = track(book, promise), []
    with pytest.raises(BudgetExceeded):
        strategy_over(
            federation,
            50,
            fraction_train=0.75,
            charge=lambda clients: said.append(costs.spent(release, clients)),
        )
    most = promise.rounds_left(release)
    assert 0 < max(map(book.rounds_of, range(4))) == most <= len(said) <= 4 * most
    assert sum(map(book.rounds_of, range(4))) == 3 * len(said)
    uploads = [node for node, kind in federation.grid.sent if kind == "train.upload"]
    assert len(uploads) == 3 * len(said), "nobody was asked to upload in the round that was refused"


@pytest.mark.parametrize(
    ("cohort", "colluders", "options"),
    [
        (4, 0, {}),
        (4, 0, {"min_survivors": 3}),
        (3, 1, {"min_survivors": 4}),  # the session counts on no colluder
        (4, 0, {"min_survivors": 4, "colluders": 1}),
    ],
)
def test_epsilon_is_not_charged_for_a_cohort_that_the_session_does_not_guarantee(
    federation: Federation, cohort: int, colluders: int, options: dict
) -> None:
    costs = track(Accountant(1e-5), colluders=colluders)
    release = MaskRelease(flip=0.25, clip=1.0, cohort=cohort)
    with pytest.raises(InvalidParameter, match=f"it needs min_survivors={cohort + colluders} "):
        strategy_over(federation, charge=lambda clients: costs.spent(release, clients), **options)
    assert {kind for _, kind in federation.grid.sent} == {"train.advertise", "train.share"}


def test_a_charge_is_told_the_cohort_that_the_session_guarantees(federation: Federation) -> None:
    told = []
    strategy_over(federation, charge=told.append)
    costs = track(Accountant(1e-5), colluders=1)
    release = MaskRelease(flip=0.25, clip=1.0, cohort=3)
    said = []
    enough = {"min_survivors": 4, "colluders": 1}
    strategy_over(federation, charge=lambda clients: said.append(costs.spent(release, clients)), **enough)
    assert (told[0], told[0].cohort, told[0].colluders) == ((0, 1, 2, 3), 3, 0)
    assert said[0]["clients"] == 4


@pytest.mark.parametrize("odd", [0.03, -7.0, 2.0, float("nan"), float("inf")])
@pytest.mark.parametrize("weight", ["uniform", "examples"])
def test_what_is_no_sign_is_not_made_one(odd: float, weight: str) -> None:
    """A sign() that was forgotten; the server hears the type of the error alone."""
    terms = Terms.of(1, "signs", weight, None if weight == "uniform" else 10, None)
    metrics = MetricRecord({"examples": 2})
    with pytest.raises(InputError, match="-1, 0 and \\+1"):
        terms.vector(ArrayRecord([np.array([1.0, odd], np.float32)]), metrics)
    signs = ArrayRecord([np.array([1.0, -1.0, 0.0], np.float32)])
    vector = terms.vector(signs, metrics)
    assert terms.mean(vector * 3, 3)[0].tolist() == [1.0, -1.0, 0.0]


def reals(clients: tuple[int, ...]) -> np.ndarray:
    """The weighted mean of what `bits_app.real_app`'s clients reply."""
    each = [
        np.concatenate([bits_app.reals_of(client, name, shape).reshape(-1) for name, shape in SHAPES.items()])
        for client in clients
    ]
    return np.average(each, axis=0, weights=[bits_app.examples_of(client) for client in clients])


def test_weighted_mean_of_floats_opens_with_its_metrics_and_nothing_of_any_client(
    federation: Federation,
) -> None:
    federation.grid.app = bits_app.real_app
    result = strategy_over(federation, **bits_app.REAL)
    assert np.allclose(mean_of(result), reals((0, 1, 2, 3)), atol=1e-5)
    (metrics,) = result.train_metrics_clientapp.values()
    weights = [bits_app.examples_of(client) for client in range(4)]
    losses = np.average([0.5 * client for client in range(4)], weights=weights)
    assert np.isclose(metrics["loss"], losses, atol=1e-4)
    assert metrics["correct"] == 0 + 7 + 14 + 21
    assert set(metrics) == {"loss", "correct"}  # Flower drops the weight
    for reply in federation.grid.replies:
        assert set(reply.content) == {sum_messages.RECORD}


def test_weighted_mean_over_a_sample_is_that_of_the_sample(federation: Federation) -> None:
    federation.grid.app = bits_app.real_app
    charged: list[tuple[int, ...]] = []
    result = strategy_over(federation, fraction_train=0.75, charge=charged.append, **bits_app.REAL)
    assert np.allclose(mean_of(result), reals(charged[0]), atol=1e-5)


OTHER_TERMS = [
    {"codec": FixedPoint(4.0, 2**19)},
    {"codec": FixedPoint(2.0, 2**20)},
    {"max_weight": 999},
    {"metrics": {}},
    {"metrics": {"loss": FixedPoint(9.0, 2**20), "correct": 100}},
    {"metrics": {"loss": FixedPoint(10.0, 2**20), "correct": 101}},
    {"weight": "correct", "metrics": {"loss": FixedPoint(10.0, 2**20), "num-examples": 100}},
]


@pytest.mark.parametrize("other", OTHER_TERMS)
def test_server_of_other_terms_is_told_so_and_gets_no_advert(federation: Federation, other: dict) -> None:
    federation.grid.app = bits_app.real_app
    with pytest.raises(RoundError, match="0 of 4 clients advertised"):
        strategy_over(federation, **bits_app.REAL | other)
    reasons = [reply.error.reason for reply in federation.grid.replies if reply.has_error()]
    assert len(reasons) == CLIENTS
    assert all("codec, weight, max_weight and metrics are the same" in reason for reason in reasons)


@pytest.mark.parametrize("terms", [{"codec": FixedPoint(1.0, 1)}, {"metrics": {"my-examples": 100}}])
def test_clients_that_add_bits_take_no_other_terms_from_a_server(federation: Federation, terms: dict) -> None:
    with pytest.raises(RoundError, match="0 of 4 clients advertised"):
        strategy_over(federation, **terms)


def test_reply_with_num_examples_and_no_word_about_weights_is_refused(federation: Federation) -> None:
    """FedAvg would have weighed by it; a uniform mean in its place is another algorithm."""
    federation.grid.app = bits_app.unweighed_app
    with pytest.raises(RoundError):
        strategy_over(federation)
    reasons = [reply.error.reason for reply in federation.grid.replies if reply.has_error()]
    assert len(reasons) == CLIENTS
    assert all("weight='num-examples'" in reason and 'weight="uniform"' in reason for reason in reasons)
    federation.grid.app = bits_app.uniform_app
    assert np.allclose(mean_of(strategy_over(federation)), expected((0, 1, 2, 3)) / 4)


@pytest.mark.parametrize("how", ["diverging", "heavy", "negative", "fractional", "countless", "boundless"])
def test_value_out_of_range_drops_its_client_and_says_nothing_of_it(federation: Federation, how: str) -> None:
    federation.grid.app = bits_app.real_app
    content = model(**{how: 3})
    terms = Terms(**bits_app.REAL)
    result = federation.open(content, spec=terms.spec(11))
    assert result.survivors == (0, 1, 2)
    reasons = [reply.error.reason for reply in federation.grid.replies if reply.has_error()]
    assert len(reasons) == 1
    assert "the client's own code raised InputError: its log says more" in reasons[0]


def test_weights_that_add_up_to_0_are_no_mean() -> None:
    terms = Terms(**bits_app.REAL)
    with pytest.raises(InputError, match="add up to 0"):
        terms.mean(np.zeros(14, np.int64), 3)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"bound": 7, "codec": FixedPoint(1.0, 2)}, "leave out bound"),
        ({"codec": "sign"}, 'a FixedPoint.clip, levels. or "signs"'),
        ({"codec": 1.0}, 'a FixedPoint.clip, levels. or "signs"'),
        ({"weight": "num-examples"}, "needs codec="),
        ({"weight": "num-examples", "codec": FixedPoint(1.0, 2)}, "max_weight="),
        ({"max_weight": 10}, "max_weight= is for weight="),
        ({"max_weight": 10, "weight": "uniform", "codec": FixedPoint(1.0, 2)}, "max_weight= is for weight="),
        ({"metrics": {"loss": 0.5}}, r"metrics\['loss'\]"),
        ({"metrics": {"loss": True}}, r"metrics\['loss'\]"),
        ({"metrics": {"correct": 0}}, r"metrics\['correct'\]"),
        ({"bound": None, "metrics": {"correct": 9}}, "bound=None"),
        (bits_app.REAL | {"metrics": {"num-examples": 9}}, "its sum opens anyway"),
    ],
)
def test_terms_that_contradict_each_other_are_refused_on_both_sides(
    federation: Federation, terms: dict, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        SecureSumGrid(federation.grid, federation.roster, "tests", **terms)
    with pytest.raises(ConfigError, match=message):
        secure_sum(ClientApp(), **terms)


def test_real_numbers_without_weight_are_a_uniform_mean(federation: Federation) -> None:
    federation.grid.app = bits_app.sign_app
    result = strategy_over(federation, codec="signs")
    signs = [
        np.concatenate([bits_app.signs_of(c, name, shape).reshape(-1) for name, shape in SHAPES.items()])
        for c in range(4)
    ]
    assert mean_of(result).tolist() == np.mean(signs, axis=0).tolist()


def test_fewer_nodes_than_a_sum_needs_are_refused_before_anything_is_sent(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ThresholdError, match="2 nodes are asked, this session needs 3"):
        federation.open(nodes=[100, 101])
    monkeypatch.setattr(federation.grid, "get_node_ids", lambda: [102, 103])
    with pytest.raises(RoundError, match="2 nodes are asked, this session needs 3"):
        strategy_over(federation)
    assert not federation.grid.sent


def test_node_that_is_not_connected_is_no_sample(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(federation.grid, "get_node_ids", lambda: [100, 102, 103])
    assert np.allclose(mean_of(strategy_over(federation)), expected((0, 2, 3)) / 3)


def test_unsound_settings_of_a_server_are_no_lost_round(federation: Federation) -> None:
    with pytest.raises(PolicyError):
        strategy_over(federation, threshold=2)
    with pytest.raises(ConfigError, match='"raise" or "skip", got \'ignore\''):
        strategy_over(federation, lost="ignore")


@pytest.mark.parametrize("named", ["folder", "clients-folder"])
def test_grid_of_an_enrolled_server_binds_its_run_config(federation: Federation, named: str) -> None:
    root = Path(federation.grid.contexts[100].node_config["folder"]).parent
    config = {named: str(root / "server" if named == "folder" else root), "rate": 1}
    for context in _contexts(federation):
        context.run_config = config
    before = next(federation.rounds) - 1
    grid = SecureSumGrid.enrolled(
        federation.grid, Context(7, 1, {}, RecordDict(), config), rounds_before=before, poll=0.01
    )
    strategy = FedAvg(min_train_nodes=4, fraction_evaluate=0.0, min_available_nodes=4)
    assert np.allclose(
        mean_of(strategy.start(grid, model()["arrays"], num_rounds=1)), expected((0, 1, 2, 3)) / 4
    )
    with pytest.raises(ConfigError, match="must name the server's folder"):
        SecureSumGrid.enrolled(federation.grid, Context(7, 1, {}, RecordDict(), {"rate": 1}))
    with pytest.raises(RunFolderError, match="is not enrolled"):
        SecureSumGrid.enrolled(federation.grid, Context(7, 1, {}, RecordDict(), {"folder": "/nowhere"}))


def told_apart(federation: Federation, change) -> None:
    """From now on `change(node, message)` alters what a server sends each node; undone with the test."""
    push = federation.grid.push_messages

    def lying(messages):
        messages = list(messages)
        for message in messages:
            if message.metadata.message_type == "train.advertise":
                change(message.metadata.dst_node_id, message)
        return push(messages)

    federation.grid.push_messages = lying


@pytest.fixture
def told(federation: Federation) -> Iterator[Federation]:
    yield federation
    federation.grid.__dict__.pop("push_messages", None)


@pytest.mark.parametrize("lying", [False, True], ids=["plainly", "vouching for each"])
@pytest.mark.parametrize("rates", [(0.0, 1.0), (0, 1), (False, True), ("0", "1")])
def test_run_config_that_is_not_the_same_for_all_opens_nothing(
    told: Federation, rates: tuple, lying: bool
) -> None:
    """With a rate of 0 for all but client 3 the sum would be what client 3 has learned."""
    for node, context in told.grid.contexts.items():
        context.run_config = {"rate": rates[node == 103]}
    if lying:

        def vouch(node: int, message: Message) -> None:
            content = RecordDict(dict(message.content))
            fields = dict(content[sum_messages.RECORD])
            fields["run_config"] = sum_messages.config_digest(told.grid.contexts[node].run_config)
            content[sum_messages.RECORD] = ConfigRecord(fields)
            message.content = content

        told_apart(told, vouch)
    with pytest.raises(ThresholdError, match="1 of 4 clients advertised"):
        told.open(run_config={"rate": rates[1]})
    if not lying:
        reasons = [reply.error.reason for reply in told.grid.replies if reply.has_error()]
        assert len(reasons) == 3
        assert all("run_config=context.run_config" in reason for reason in reasons)


def test_run_config_that_all_share_is_no_obstacle_in_any_order(federation: Federation) -> None:
    config = {"rate": 1, "clients-folder": "x", "smoothing": 0.5, "fast": True}
    for context in _contexts(federation):
        context.run_config = dict(reversed(config.items()))
    assert federation.open(run_config=config).survivors == (0, 1, 2, 3)
    assert mean_of(strategy_over(federation, run_config=config)).any()


def test_server_that_forgets_its_run_config_is_told_so(federation: Federation) -> None:
    for context in _contexts(federation):
        context.run_config = {"rate": 1}
    with pytest.raises(RoundError):
        strategy_over(federation)
    reasons = [reply.error.reason for reply in federation.grid.replies if reply.has_error()]
    assert len(reasons) == CLIENTS
    assert all("run_config=context.run_config" in reason for reason in reasons)


def test_another_run_of_one_node_is_left_out(federation: Federation) -> None:
    federation.grid.contexts[103].run_id = 8
    assert federation.open().survivors == (0, 1, 2)


def test_group_and_times_of_a_message_say_nothing_that_differs_from_node_to_node(told: Federation) -> None:
    """An app that reads the round from the group, or until when it may train, would do as the server bids."""

    def change(node: int, message: Message) -> None:
        message.metadata.group_id = str(1000 + node)
        message.metadata.ttl = 200.0 + node
        message.metadata.created_at = 1e9 + node

    told_apart(told, change)
    number = next(told.rounds)
    told.open(round=number)
    seen = [dict(context.state["seen"]) for context in _contexts(told)]
    assert {each["group"] for each in seen} == {number}
    assert len({each["seconds"] for each in seen}) == 1


@pytest.mark.parametrize("bindings", [(b"preprocessing 2", True), (b"preprocessing 1", False), (b"", False)])
def test_binding_of_a_grid_is_that_of_the_clients_or_nothing_opens(federation: Federation, bindings) -> None:
    binding, opens = bindings
    federation.grid.app = bits_app.bound_app
    if opens:
        assert mean_of(strategy_over(federation, binding=binding)).any()
        assert federation.open(binding=binding).survivors == (0, 1, 2, 3)
    else:
        with pytest.raises(RoundError):
            strategy_over(federation, binding=binding)


def test_values_that_look_alike_are_not_one_run_config() -> None:
    alike = [1, 1.0, True, "1", "True", "1.0", 0, 0.0, -0.0, False, "", "\0"]
    digests = {sum_messages.config_digest({"key": value}) for value in alike}
    assert len(digests) == len(alike)
    for one, other in (
        ({"a": "b", "c": "d"}, {"a": "bs1:cs1:d"}),
        ({"a": "b\0c"}, {"a\0b": "c"}),
        ({}, {"": ""}),
        ({"a": 1}, {"b": 1}),
    ):
        assert sum_messages.config_digest(one) != sum_messages.config_digest(other)
    assert sum_messages.config_digest({"a": 1, "b": 2}) == sum_messages.config_digest({"b": 2, "a": 1})
    with pytest.raises(ConfigError, match=r"run_config\['a'\] is a NoneType"):
        sum_messages.config_digest({"a": None})


def test_run_config_is_apart_from_run_and_binding() -> None:
    digests = {
        sum_messages.agreement(run, config, binding)
        for run in (1, 2)
        for config in ({}, {"a": 1})
        for binding in (b"", b"a")
    }
    assert len(digests) == 8


def test_no_two_contents_have_one_hash() -> None:
    """Found in the encoding: whatever was joined with NULs could be cut elsewhere."""

    def arrays(dtype: str, shape: tuple[int, ...], stype: str, data: bytes = b"") -> RecordDict:
        return RecordDict({"a": ArrayRecord({"x": Array(dtype, shape, stype, data)})})

    one = ArrayRecord({"x": Array("<f4", (1,), "s", bytes(4))})
    two = ArrayRecord({"x": Array("<f4", (1,), "s", bytes([1] * 4))})
    settings = ConfigRecord({"k": 1}), MetricRecord({"k": 1})
    values = (True, 1.0, "1", b"1", [1], [1.0], [True], [1, 1], ["1"], [b"1"], ["1i1:1"], [])
    contents = [
        arrays("<f4\0[2]\0x", (3,), "s"),
        arrays("<f4", (2,), "x\0[3]\0s"),
        arrays("<f4", (2,), "s", b"i1:1"),
        arrays("<f4", (2,), "s"),
        arrays("<f4", (2, 1), "s"),
        RecordDict({"a": one, "b": two}),
        RecordDict({"b": two, "a": one}),
        RecordDict({"a": two, "b": one}),
        RecordDict({"a": settings[0]}),
        RecordDict({"a": settings[1]}),
        RecordDict({"a": settings[0], "b": ConfigRecord()}),
        RecordDict({"a": ConfigRecord(), "b": settings[0]}),
        *(RecordDict({"a": ConfigRecord({"k": value})}) for value in values),
        RecordDict({"a": ConfigRecord({"k": 1, "l": 2})}),
        RecordDict({"a": ConfigRecord({"l": 2, "k": 1})}),
        RecordDict(),
    ]
    assert len({sum_messages.digest(content) for content in contents}) == len(contents)


def test_messages_that_differ_are_no_sum(federation: Federation) -> None:
    grid = SecureSumGrid(federation.grid, federation.roster, "tests")
    messages = [Message(model(), 100, "train"), Message(model(other=1), 101, "train")]
    with pytest.raises(ConfigError, match="same message"):
        grid.send_and_receive(messages)


@pytest.mark.parametrize("error", [DataError, RunFolderError, PermissionError, KeyError])
def test_the_server_is_sent_no_text_of_an_error_about_a_clients_own_files(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: type[Exception],
):
    def fail(self, request):
        raise error("/ward 7/Jane Doe.png cannot be read")

    monkeypatch.setattr(process._Client, "step", fail)
    reply = process.ClientProcess(os.getpid()).answer(SimpleNamespace(folder=str(tmp_path)), [])
    assert reply.error == f"the client's own code raised {error.__name__}: its log says more"
    assert "Jane Doe" in capsys.readouterr().err
