"""prism-secure's own apps over Flower's messages: the same theta as in one process, dropouts, crashes."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from loop_grid import LoopGrid

from prism_crypto import Policy
from prism_privacy.ledger import verify_ledger
from prism_secure.client import Client
from prism_secure.config import Config, dump_config, load_config
from prism_secure.enrolment import enroll_simulated
from prism_secure.errors import RoundError
from prism_secure.federation import open_securely
from prism_secure.flower import client_app, server_app
from prism_secure.flower.recipe_client import known_coins
from prism_secure.history import read_history
from prism_secure.recipe import Recipe
from prism_secure.run_folder import RunFolder, read_records
from prism_secure.server import Server

KEY = bytes(range(32))
FEDERATION = "four"
TINY = [
    "federation.clients=4",
    "federation.rounds=2",
    "federation.local_steps=1",
    "model.width=2",
    "model.latent=4",
    'features.extractors=["fourier"]',
    "training.batch_size=10",
    "metrics.samples=200",
    "metrics.every=2",
    "secure_sum.min_survivors=3",
    "privacy.record_epsilon=inf",
    "privacy.record_release=client",
]


class Place:
    """Enrolled clients and a server, and the grid between them."""

    def __init__(self, root: Path, *overrides: str, test_coins: bool = True) -> None:
        self.root = root
        self.config = load_config(None, [*TINY, *overrides])
        enroll_simulated(root, FEDERATION, 4, Policy(min_survivors=3, min_cohort=3))
        for client in range(4):
            (root / f"{client:02d}" / "recipe.toml").write_text(dump_config(self.config))
        (root / "recipe.toml").write_text(dump_config(self.config))
        self.out = root / "run"
        self.settings = {
            "folder": str(root / "server"), "out": str(self.out), "recipe": str(root / "recipe.toml"),
            "timeout": 60, "train-timeout": 120, "patience": 20, "test-coins": test_coins,
        }  # fmt: skip
        self.grid = LoopGrid(client_app.app, dict.fromkeys(range(100, 104), root))
        for partition, context in enumerate(self.grid.contexts.values()):
            context.node_config = {"partition-id": partition, "num-partitions": 4}
            if test_coins:
                context.node_config["test-coins"] = KEY.hex()
            context.run_config = {"clients-folder": str(root)}

    def train(self) -> None:
        server_app.main(self.grid, Context(7, 1, {}, RecordDict(), self.settings))

    def theta(self) -> np.ndarray:
        with RunFolder(self.out, self.config) as run:
            server = Server(self.config, FEDERATION, Recipe(self.config).trainer.dimension)
            server.load(run.checkpoint_path)
        return server.theta


@pytest.fixture(autouse=True)
def parties_end_with_the_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """They hold torch and a data set each."""
    with subprocess.Popen(["sleep", "3600"]) as parent:
        monkeypatch.setattr("prism_secure.flower.sum_process_link.os.getppid", lambda: parent.pid)
        yield
        parent.kill()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def garbled(reply: Message) -> Message:
    """What is refused is as good as not sent, and nobody waits for it."""
    reply.content["secure_sum"]["message"] = b"garbage"
    return reply


def in_process(config: Config, folder: Path, present: Callable[[int, int], bool]) -> np.ndarray:
    """The same federation by the loop of `prism-secure run`, over the clients that are present in a round."""
    recipe = Recipe(config)
    clients = []
    for index in range(4):
        (folder / str(index)).mkdir(parents=True)
        coins = known_coins(KEY, index)
        clients.append(Client(index, folder / str(index), recipe, coins=coins, may_miss=True))
    server = Server(config, FEDERATION, recipe.trainer.dimension)
    for _ in range(config.federation.rounds):
        broadcast = server.broadcast()
        there = [client for client in clients if present(client.index, broadcast.round)]
        for client in there:
            client.answer(broadcast)
        bits = [client.bits(broadcast) for client in there]
        opened = open_securely(
            msgspec.structs.replace(
                config, federation=msgspec.structs.replace(config.federation, clients=len(there))
            ),
            broadcast,
            [lambda vector=vector: vector for vector in bits],
        )
        server.absorb(opened.counts, opened.survivors, planned_rounds=config.federation.rounds)
    return server.theta


def test_same_seed_and_coins_give_the_same_theta_as_in_one_process(place: Place, tmp_path: Path) -> None:
    place.train()
    theirs = in_process(place.config, tmp_path / "in-process", lambda client, number: True)
    assert place.theta().tobytes() == theirs.tobytes()
    # whoever knows the coins sees through them: neither side claims an epsilon
    for ledger in (place.out, place.root / "00"):
        entries = verify_ledger(ledger / "ledger.jsonl").entries
        assert [entry.round for entry in entries] == [1, 2]
        assert all(entry.coins == "test" and entry.epsilon is None for entry in entries)
    assert (place.out / "report.html").exists()
    assert (place.out / "model.safetensors").exists()


def test_client_that_dies_in_a_round_and_comes_back(place: Place, tmp_path: Path) -> None:
    """Gone from the upload of round 1 on; back in round 2, from the state that it has."""
    dead = {(102, "train.upload")}
    place.grid.tamper = lambda node, kind, reply: garbled(reply) if (node, kind) in dead else reply
    push = place.grid.push_messages

    def back_in_round_2(messages: list[Message]) -> list[str]:
        if messages[0].metadata.group_id == "2":
            dead.clear()
        return push(messages)

    place.grid.push_messages = back_in_round_2
    place.train()
    assert [record.survivors for record in read_records(place.out)] == [3, 4]
    entries = verify_ledger(place.out / "ledger.jsonl").entries
    assert [entry.metrics["survivors"] for entry in entries] == [[0, 1, 3], [0, 1, 2, 3]]
    # in one process the client that died in round 1 had trained and answered, as it had here
    recipe_state = in_process_with_lost_upload(place.config, tmp_path / "in-process")
    assert place.theta().tobytes() == recipe_state.tobytes()


def in_process_with_lost_upload(config: Config, folder: Path) -> np.ndarray:
    recipe = Recipe(config)
    clients = []
    for index in range(4):
        (folder / str(index)).mkdir(parents=True)
        clients.append(
            Client(index, folder / str(index), recipe, coins=known_coins(KEY, index), may_miss=True)
        )
    server = Server(config, FEDERATION, recipe.trainer.dimension)
    for _ in range(config.federation.rounds):
        broadcast = server.broadcast()
        for client in clients:
            client.answer(broadcast)
        summed = [client for client in clients if (client.index, broadcast.round) != (2, 1)]
        counts = np.sum([client.bits(broadcast) for client in summed], axis=0, dtype=np.int64)
        server.absorb(counts, len(summed), planned_rounds=config.federation.rounds)
    return server.theta


def test_round_that_fails_after_an_upload_has_left_is_lost_and_charged(tmp_path: Path) -> None:
    place = Place(tmp_path, test_coins=False)
    silent = {(node, "train.confirm") for node in (100, 101, 102)}
    place.grid.tamper = lambda node, kind, reply: garbled(reply) if (node, kind) in silent else reply
    push = place.grid.push_messages

    def speaking_in_round_2(messages: list[Message]) -> list[str]:
        if messages[0].metadata.group_id == "2":
            silent.clear()
        return push(messages)

    place.grid.push_messages = speaking_in_round_2
    start = Server(place.config, FEDERATION, Recipe(place.config).trainer.dimension).theta
    place.train()
    history = read_history(place.out)
    assert [record.survivors for record in history.records] == [0, 4]
    assert [entry.round for entry in history.ledger.entries] == [1, 2]
    first, second = (record.epsilon.sum_zero_out for record in history.records)
    assert 0 < first < second < np.inf
    assert place.theta().tobytes() != start.tobytes()
    assert history.status.kind == "done"


def test_run_that_loses_two_rounds_in_a_row_stops_before_it_has_spent_everything(tmp_path: Path) -> None:
    place = Place(tmp_path, "federation.rounds=5")

    def tamper(node: int, kind: str, reply: Message) -> Message:
        return garbled(reply) if kind == "train.upload" and reply.metadata.group_id != "1" else reply

    place.grid.tamper = tamper
    with pytest.raises(RoundError, match="two rounds in a row"):
        place.train()
    assert [record.survivors for record in read_records(place.out)] == [4, 0, 0]
    entries = verify_ledger(place.out / "ledger.jsonl").entries
    assert [entry.kind for entry in entries] == ["round", "aborted", "aborted"]
    assert read_history(place.out).status.kind == "failed"


def test_server_that_stops_between_and_inside_rounds_goes_on(place: Place) -> None:
    """Stopped after round 1, and again in round 2 when uploads have left: round 2 is lost."""
    kill = {"round": "2", "kind": "train.advertise"}
    push = place.grid.push_messages

    def dying(messages: list[Message]) -> list[str]:
        where = messages[0].metadata
        if kill and (where.group_id, where.message_type) == (kill["round"], kill["kind"]):
            raise KeyboardInterrupt
        return push(messages)

    place.grid.push_messages = dying
    with pytest.raises(KeyboardInterrupt):
        place.train()
    after_round_1 = place.theta().tobytes()
    kill["kind"] = "train.confirm"
    with pytest.raises(KeyboardInterrupt):
        place.train()
    assert place.theta().tobytes() == after_round_1
    kill.clear()
    place.train()
    assert [record.survivors for record in read_records(place.out)] == [4, 0]
    assert place.theta().tobytes() == after_round_1


def test_checkpoint_whose_record_was_not_written_is_not_taken(place: Place) -> None:
    place.train()
    checkpoint = place.out / "checkpoint"
    lines = (place.out / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    shutil.copy(checkpoint / "server.safetensors", checkpoint / "next.safetensors")
    (place.out / "DONE").unlink()
    # the kill came after the record and before the checkpoint took its place
    (checkpoint / "server.safetensors").unlink()
    place.train()
    assert (place.out / "metrics.jsonl").read_bytes().splitlines(keepends=True) == lines
    assert not (checkpoint / "next.safetensors").exists()


def test_clients_refuse_a_server_with_another_privacy_setting(place: Place) -> None:
    other = load_config(None, [*TINY, "privacy.flip=0"])
    (place.root / "recipe.toml").write_text(dump_config(other))
    place.settings["patience"] = 0
    with pytest.raises(RoundError, match="does not begin"):
        place.train()
    assert not (place.root / "00" / "state.safetensors").exists() or not read_records(place.out)


def test_policy_that_guarantees_less_than_epsilon_assumes_stops_the_client(tmp_path: Path) -> None:
    place = Place(tmp_path, "secure_sum.min_survivors=4")  # the enrolled policies insist on 3
    place.settings["patience"] = 0
    with pytest.raises(RoundError):
        place.train()
    reasons = [reply.error.reason for reply in place.grid.replies if reply.has_error()]
    assert any("policy insists on 3 only" in reason for reason in reasons)


def test_nothing_but_masked_words_and_the_protocol_leaves(place: Place) -> None:
    place.train()
    for reply in place.grid.replies:
        assert json.dumps(sorted(reply.content)) == '["secure_sum"]'
        assert sorted(reply.content["secure_sum"]) == ["client", "message"]
    assert hashlib.sha256(KEY).hexdigest() not in str(place.grid.replies)
