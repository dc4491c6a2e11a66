"""Measured rounds over Flower's messages: the same model as in one process, and what a client refuses."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from client_processes import end_client_processes
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto

from prism_privacy import Accountant, Adjacency, CoinSecret, Unit, View
from prism_privacy.ledger import verify_ledger
from prism_secure.audit.run_audit import audit_run, summary
from prism_secure.config import Config
from prism_secure.errors import AgreementError, ConfigError
from prism_secure.flower import client_app
from prism_secure.flower.recipe.client import RecipeClient, known_coins, own_data
from prism_secure.flower.recipe.messages import read_broadcast, write_broadcast
from prism_secure.flower.secure_aggregation.messages import RECORD
from prism_secure.rounds.behaviours.choice import behaviour_of
from prism_secure.rounds.broadcast import Broadcast
from prism_secure.rounds.components import Components
from prism_secure.rounds.server import Server
from prism_secure.rounds.simulation import run
from prism_secure.run_folder.folder import client_folder, read_records

from .recipe_place import FEDERATION, KEY, Place, garbled, in_process, recipe_of

MEASURED = [
    "federation.behaviour=measure",
    "federation.local_steps=32",  # the default: nobody reads it
    "privacy.record_release=summed",
    "privacy.flip=0.25",
    "measured.epsilon=inf",
    "measured.radius=20",
    "measured.directions=8",
    "measured.coordinates=256",
    "measured.steps=1",
    "measured.end_steps=1",
]


def test_the_model_and_its_cost_are_those_of_one_process(tmp_path: Path) -> None:
    """With coins that nobody knows, and all client processes killed between the rounds."""
    place = Place(tmp_path / "place", *MEASURED, "secure_sum.min_survivors=3", test_coins=False)
    push, killed = place.grid.push_messages, []

    def killing(messages: list[Message]) -> list[str]:
        where = messages[0].metadata
        if (where.group_id, where.message_type) == ("2", "train.advertise") and not killed:
            killed.append(end_client_processes())
        return push(messages)

    place.grid.push_messages = killing
    place.train()
    assert killed[0] > 0
    alone = tmp_path / "alone"
    for client in range(4):
        shutil.copy2(place.root / f"{client:02d}" / "coins.key", client_folder(alone, client))
    (alone / "federation.id").write_text(FEDERATION)
    run(place.config, alone)
    for name in ("checkpoint/server.safetensors", "model.safetensors"):
        assert (place.out / name).read_bytes() == (alone / name).read_bytes()
    theirs, ours = (read_records(folder) for folder in (place.out, alone))
    for one, other in zip(theirs, ours, strict=True):
        assert one.survivors == 4
        for name in (
            "survivors",
            "epsilon",
            "record",
            "bits_per_parameter",
            "step",
            "changed",
            "server_loss",
        ):
            assert getattr(one, name) == getattr(other, name)
        assert one.server_loss is not None
    ledgers = [place.out, alone, *(place.root / f"{client:02d}" for client in range(4))]
    charged = [
        [
            (entry.release, entry.epsilon, entry.record)
            for entry in verify_ledger(folder / "ledger.jsonl").entries
            if entry.kind == "round"
        ]
        for folder in ledgers
    ]
    assert all(each == charged[0] for each in charged)
    assert len(charged[0]) == 2
    audit = audit_run(place.out)
    assert audit.verdict == "clean", summary(audit)


@pytest.mark.usefixtures("one_client_process")
def test_who_misses_a_round_pays_for_its_own_and_a_lost_round_is_charged(tmp_path: Path) -> None:
    """Client 2 is not there in round 1; round 2 does not open; the third goes by its own plan."""
    place = Place(tmp_path / "place", *MEASURED, "federation.rounds=3", test_coins=False)
    nodes, begun = place.grid.get_node_ids, set[str]()
    place.grid.get_node_ids = lambda: [node for node in nodes() if node != 102 or begun]
    push = place.grid.push_messages

    def noted(messages: list[Message]) -> list[str]:
        where = messages[0].metadata
        if where.message_type == "train.unmask":
            begun.add(where.group_id)
        return push(messages)

    def tamper(node: int, kind: str, reply: Message) -> Message:
        lost = kind == "train.upload" and reply.metadata.group_id == "2"
        return garbled(reply) if lost else reply

    place.grid.push_messages, place.grid.tamper = noted, tamper
    place.train()
    assert [record.survivors for record in read_records(place.out)] == [3, 0, 4]
    plan = Components(place.config).plan
    planned = [release.as_dict() for release in plan.measured]
    assert planned[0] != planned[1]
    *entries, _ = verify_ledger(place.out / "ledger.jsonl").entries
    assert [entry.release for entry in entries] == planned
    assert [entry.kind for entry in entries] == ["round", "aborted", "round"]
    for client in range(4):
        rounds = (2, 3) if client == 2 else (1, 2, 3)
        own = verify_ledger(place.root / f"{client:02d}" / "ledger.jsonl").entries
        assert [entry.metrics["federation_round"] for entry in own] == list(rounds)
        assert [entry.release for entry in own] == [planned[number - 1] for number in rounds]
        for unit in Unit:
            accountant = Accountant(delta=place.config.privacy.delta)
            for number in rounds:
                accountant.spend(plan.measured[number - 1].release(unit))
            for view in View:
                table = own[-1].epsilon if unit is Unit.CLIENT else None
                spent = own[-1].record.spent[view] if table is None else table[view, Adjacency.ZERO_OUT]
                assert spent.to_date == pytest.approx(accountant.epsilon(view, Adjacency.ZERO_OUT))
    present = {1: {0, 1, 3}, 2: set(), 3: {0, 1, 2, 3}}
    theirs = in_process(
        place.config,
        tmp_path / "in-process",
        lambda client, number: client in present[number],
        coins_of=lambda client: CoinSecret.load(place.root / f"{client:02d}" / "coins.key"),
    )
    assert place.theta().tobytes() == theirs.tobytes()
    audit = audit_run(place.out)
    assert audit.verdict == "clean", summary(audit)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return recipe_of(tmp_path_factory.mktemp("data") / "images", *MEASURED)


@pytest.fixture(scope="module")
def recipe(config: Config) -> Components:
    return Components(config)


@pytest.fixture(scope="module")
def honest(recipe: Components) -> Broadcast:
    return Server.of(recipe, FEDERATION).broadcast()


def content_of(broadcast: Broadcast, *, round: int = 1, dimension: int = 256) -> RecordDict:
    """As it arrives, with what the secure sum says of its session."""
    sent = recorddict_from_proto(recorddict_to_proto(write_broadcast(broadcast)))
    sent[RECORD] = ConfigRecord(
        {"round": round, "dimension": dimension, "bound": 1, "graph": "complete", "cohort": 3}
    )
    return sent


def client_at(folder: Path, recipe: Components) -> RecipeClient:
    identity, counter = SimpleNamespace(client_id=0), SimpleNamespace(last_round=0)
    enrolled = SimpleNamespace(folder=folder, federation=FEDERATION, identity=identity, counter=counter)
    folder.mkdir()
    return RecipeClient(enrolled, recipe, known_coins(KEY, 0))


def kept(client: RecipeClient) -> list[Path]:
    return [path for path in client.enrolment.folder.rglob("*") if path.is_file()]


@pytest.mark.usefixtures("one_client_process")
def test_where_the_last_round_is_lost_the_server_still_trains_to_the_end(tmp_path: Path) -> None:
    place = Place(tmp_path / "place", *MEASURED, "measured.end_steps=3")

    def tamper(node: int, kind: str, reply: Message) -> Message:
        return garbled(reply) if kind == "train.upload" and reply.metadata.group_id == "2" else reply

    place.grid.tamper = tamper
    place.train()
    first, last = read_records(place.out)
    assert not first.lost
    assert last.lost
    assert last.quality is not None, "the model that is deployed is measured"
    assert last.changed > 0
    expected = in_process(place.config, tmp_path / "alone", lambda client, number: number == 1)
    assert place.theta().tobytes() == expected.tobytes()


def test_a_broadcast_arrives_with_all_that_coins_are_bound_to(recipe: Components, honest: Broadcast) -> None:
    found = read_broadcast(FEDERATION, content_of(honest), len(honest.theta))
    assert found.digest == honest.digest
    assert {name: array.dtype for name, array in found.public.items()} == {
        name: array.dtype for name, array in honest.public.items()
    }
    behaviour_of(recipe).check(found)


def with_public(broadcast: Broadcast, **changed: np.ndarray | None) -> RecordDict:
    public = {name: array for name, array in {**broadcast.public, **changed}.items() if array is not None}
    return content_of(Broadcast(broadcast.federation, broadcast.round, broadcast.theta, public))


@pytest.mark.parametrize(
    "name", ["nothing public", "one missing", "one more", "another type", "text", "garbage", "c", "N",
             "a longer model", "more beside theta", "the session's size", "a round that is none",
             "the mask's"]
)  # fmt: skip
def test_what_is_no_round_of_the_plan_is_refused_before_anything_is_read_or_charged(
    name: str, recipe: Components, honest: Broadcast, tmp_path: Path
) -> None:
    terms = honest.public["terms"].copy()
    terms[{"c": 3, "N": 4}.get(name, 0)] *= 2
    theta = np.concatenate([honest.theta, honest.theta])
    sent = {
        "nothing public": lambda: content_of(Broadcast(FEDERATION, 1, honest.theta)),
        "one missing": lambda: with_public(honest, reference=None),
        "one more": lambda: with_public(honest, more=np.zeros(3)),
        "another type": lambda: with_public(honest, by_class=honest.public["by_class"].astype(np.float64)),
        "text": lambda: with_public(honest, unit=np.array(["one"])),
        "c": lambda: with_public(honest, terms=terms),
        "N": lambda: with_public(honest, terms=terms),
        "a longer model": lambda: content_of(Broadcast(FEDERATION, 1, theta, honest.public)),
        "the session's size": lambda: content_of(honest, dimension=128),
        "the mask's": lambda: content_of(honest, dimension=len(honest.theta)),
        "a round that is none": lambda: content_of(
            Broadcast(FEDERATION, 3, honest.theta, honest.public), round=3
        ),
    }.get(name, lambda: content_of(honest))()
    if name == "garbage":
        sent["public"]["basis"] = Array("int16", (1,), "numpy.ndarray", b"no array")
    if name == "more beside theta":
        sent["round 1"] = ArrayRecord({"theta": Array(honest.theta), "theta2": Array(honest.theta)})
    client = client_at(tmp_path / "0", recipe)
    with pytest.raises(AgreementError):
        client.answer(sent)
    assert not kept(client)


@pytest.mark.parametrize("name", ["A", "V", "m", "E"])
def test_what_a_server_may_change_draws_other_coins(
    name: str, recipe: Components, honest: Broadcast, tmp_path: Path
) -> None:
    key = {"A": "terms", "V": "by_class", "m": "reference", "E": "embedding"}[name]
    value = honest.public[key].copy()
    if name == "A":
        value[2:4] *= 2  # with its c: otherwise the round is refused
    else:
        value.flat[0] += 1
    bits = [
        client_at(tmp_path / str(number), recipe).answer(sent)
        for number, sent in enumerate((content_of(honest), with_public(honest, **{key: value})))
    ]
    assert len(bits[0]) == 256
    assert 0.35 < np.mean(bits[0] != bits[1]) < 0.65


def test_a_client_that_trains_is_sent_theta_alone(config: Config, honest: Broadcast, tmp_path: Path) -> None:
    trains = Components(recipe_of(Path(config.data.folder)))
    client = client_at(tmp_path / "0", trains)
    with pytest.raises(AgreementError, match="expected theta alone, got basis"):
        client.answer(content_of(honest, dimension=len(honest.theta)))
    assert not kept(client)


def test_how_many_images_there_are_is_what_all_were_told(config: Config) -> None:
    assert {each.records for each in own_data(config, "10 20 30 40").plan.measured} == {25}
    with pytest.raises(ConfigError, match=r"for three clients, or measured\.records = 1000"):
        own_data(config, True)
    told = recipe_of(Path(config.data.folder), *MEASURED, "measured.records=70")
    assert {each.records for each in own_data(told, True).plan.measured} == {70}


def test_a_recipe_of_measured_rounds_is_for_many_machines(config: Config) -> None:
    client_app.check_recipe(config, SimpleNamespace(ids=(0, 1, 2, 3)))


@pytest.mark.usefixtures("one_client_process")
def test_whose_upload_is_lost_pays_for_the_round_and_the_others_sum_opens(tmp_path: Path) -> None:
    """Client 2's answers of round 1 left it and never arrived; it is back in round 2."""
    place = Place(tmp_path / "place", *MEASURED, test_coins=False)

    def tamper(node: int, kind: str, reply: Message) -> Message:
        lost = (node, kind, reply.metadata.group_id) == (102, "train.upload", "1")
        return garbled(reply) if lost else reply

    place.grid.tamper = tamper
    place.train()
    assert [record.survivors for record in read_records(place.out)] == [3, 4]
    planned = [release.as_dict() for release in Components(place.config).plan.measured]
    *entries, _ = verify_ledger(place.out / "ledger.jsonl").entries
    assert [entry.metrics["survivors"] for entry in entries] == [[0, 1, 3], [0, 1, 2, 3]]
    assert [entry.release for entry in entries] == planned
    for client in range(4):  # the straggler as the others: its upload had left it
        own = verify_ledger(place.root / f"{client:02d}" / "ledger.jsonl").entries
        assert [entry.metrics["federation_round"] for entry in own] == [1, 2]
        assert [(entry.release, entry.epsilon, entry.record) for entry in own] == [
            (entry.release, entry.epsilon, entry.record) for entry in entries
        ]
    theirs = in_process(
        place.config,
        tmp_path / "in-process",
        lambda client, number: (client, number) != (2, 1),
        coins_of=lambda client: CoinSecret.load(place.root / f"{client:02d}" / "coins.key"),
    )
    assert place.theta().tobytes() == theirs.tobytes()
    audit = audit_run(place.out)
    assert audit.verdict == "clean", summary(audit)
