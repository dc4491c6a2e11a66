"""prism-secure's own apps over Flower's messages: the same theta as in one process, dropouts, crashes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
from flwr.app import Message
from safetensors.numpy import load_file, save_file

from prism_crypto import CountSpec, Policy, ThresholdError
from prism_privacy import NoisySums
from prism_privacy.ledger import verify_ledger
from prism_privacy.moments.store import load_moments
from prism_secure.audit.run_audit import audit_run, summary
from prism_secure.config import Config, dump_config, load_config, sections
from prism_secure.errors import AgreementError, ConfigError, RoundError, RunFolderError
from prism_secure.flower import client_app
from prism_secure.flower.recipe import client as recipe_client
from prism_secure.flower.recipe.client import known_coins, own_data
from prism_secure.flower.recipe.messages import write_broadcast, write_request
from prism_secure.flower.secure_aggregation import client as sum_client
from prism_secure.flower.secure_aggregation.link import ask
from prism_secure.model.model_file import read_model_file, write_model
from prism_secure.rounds.client import Client
from prism_secure.rounds.components import Components
from prism_secure.rounds.server import Server
from prism_secure.run_folder.export import export_run
from prism_secure.run_folder.folder import read_records
from prism_secure.run_folder.history import read_history

from ..secure import tiny_data
from .recipe_place import FEDERATION, KEY, Place, garbled, in_process, recipe_of

pytestmark = pytest.mark.usefixtures("one_client_process")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_same_seed_and_coins_give_the_same_theta_as_in_one_process(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sum_client, "ask", ask)  # from processes of their own
    place.train()
    theirs = in_process(place.config, tmp_path / "in-process", lambda client, number: True)
    assert place.theta().tobytes() == theirs.tobytes()
    # whoever knows the coins sees through them: neither side claims an epsilon
    for ledger in (place.out, place.root / "00"):
        entries = verify_ledger(ledger / "ledger.jsonl").entries
        assert [entry.round for entry in entries if entry.kind == "round"] == [1, 2]
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
    *entries, _ = verify_ledger(place.out / "ledger.jsonl").entries
    assert [entry.metrics["survivors"] for entry in entries] == [[0, 1, 3], [0, 1, 2, 3]]
    # in one process the client that died in round 1 had trained and answered, as it had here
    recipe_state = in_process_with_lost_upload(place.config, tmp_path / "in-process")
    assert place.theta().tobytes() == recipe_state.tobytes()


def in_process_with_lost_upload(config: Config, folder: Path) -> np.ndarray:
    recipe = Components(config)
    clients = []
    for index in range(4):
        (folder / str(index)).mkdir(parents=True)
        clients.append(
            Client(index, folder / str(index), recipe, coins=known_coins(KEY, index), may_miss=True)
        )
    server = Server.of(recipe, FEDERATION)
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
    start = Server.of(Components(place.config), FEDERATION).theta
    place.train()
    history = read_history(place.out)
    assert [record.survivors for record in history.records] == [0, 4]
    assert [entry.kind for entry in history.ledger.entries] == ["round", "round", "end"]
    first, second = (record.epsilon.sum_zero_out for record in history.records)
    assert 0 < first < second < np.inf
    assert place.theta().tobytes() != start.tobytes()
    assert history.status.kind == "done"
    audit = audit_run(place.out)
    assert audit.verdict == "clean", summary(audit)


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


@contextmanager
def in_another_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a client process keeps is not there yet."""
    monkeypatch.setattr(recipe_client, "_clients", {})
    monkeypatch.setattr(recipe_client, "_recipes", {})
    with ExitStack() as process:
        monkeypatch.setattr(recipe_client, "_until_exit", process)
        yield


def test_clients_of_one_process_load_data_and_features_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a simulation hundreds share one. What they have agreed to may differ, and their data may."""
    recipe = place.root / "02" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("\nflip = 0.1\n", "\nflip = 0.3\n"))
    with in_another_process(monkeypatch):
        found = [recipe_client.client_of(place.root / f"{client:02d}", {}) for client in range(3)]
        own = recipe_client.client_of(place.root / "03", {"own-data": "60 60 60 60"})
    assert found[0].recipe is found[1].recipe
    assert [client.recipe.config.privacy.flip for client in found] == [0.1, 0.1, 0.3]
    assert [client.enrolment.identity.client_id for client in found] == [0, 1, 2]
    assert own.recipe not in [client.recipe for client in found]


def test_client_refuses_to_go_on_with_other_images_than_before(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for swap in (None, 0):
        tiny_data.write_data(place.root / "data", swap=swap)
        with in_another_process(monkeypatch):
            if swap is None:
                recipe_client.client_of(place.root / "00", {})
                continue
            with pytest.raises(RunFolderError, match="the training images"):
                recipe_client.client_of(place.root / "00", {})


def test_server_refuses_to_go_on_with_other_held_out_images_than_before(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures of its rounds would compare with different ones."""

    def interrupted(messages: list[Message]) -> list[str]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(place.grid, "push_messages", interrupted)
        with pytest.raises(KeyboardInterrupt):
            place.train()
    tiny_data.write_data(place.root / "data", test=39)
    with pytest.raises(RunFolderError, match="the held-out images"):
        place.train()


def stopped_in_round_2(place: Place) -> None:
    """Round 1 is done, and of round 2 nothing has left."""
    push = place.grid.push_messages

    def dying(messages: list[Message]) -> list[str]:
        where = messages[0].metadata
        if (where.group_id, where.message_type) == ("2", "train.advertise"):
            raise KeyboardInterrupt
        return push(messages)

    place.grid.push_messages = dying
    with pytest.raises(KeyboardInterrupt):
        place.train()
    place.grid.push_messages = push


def test_server_folder_that_is_not_whole_is_refused_and_loses_no_round(place: Place) -> None:
    stopped_in_round_2(place)
    kept = {path: path.read_bytes() for path in place.out.rglob("*") if path.is_file()}
    for name, content in {
        "metrics.jsonl": None,
        "checkpoint/server.safetensors": None,
        "checkpoint/uploading": None,
        "checkpoint/uploading ": b"two",
        "federation.id": None,
        "ledger.jsonl": None,
    }.items():
        path = place.out / name.strip()
        path.unlink() if content is None else path.write_bytes(content)
        before = {each: each.read_bytes() for each in place.out.rglob("*") if each.is_file()}
        with pytest.raises(RunFolderError, match=path.name):
            place.train()
        assert {each: each.read_bytes() for each in place.out.rglob("*") if each.is_file()} == before
        path.write_bytes(kept[path])
    place.train()
    assert [record.survivors for record in read_records(place.out)] == [4, 4]


def test_client_that_lacks_something_charges_no_round_that_it_cannot_answer(tmp_path: Path) -> None:
    place = Place(tmp_path, test_coins=False)
    stopped_in_round_2(place)
    (place.root / "00" / "coins.key").unlink()
    shutil.rmtree(place.root / "01" / "outbox")
    ledgers = [place.root / f"{client:02d}" / "ledger.jsonl" for client in range(4)]
    place.train()
    assert [record.survivors for record in read_records(place.out)] == [4, 0]  # two are too few
    rounds = [sum(entry.kind == "round" for entry in verify_ledger(path).entries) for path in ledgers]
    assert rounds == [1, 1, 2, 2]


def test_run_that_no_node_joins_leaves_no_folder(place: Place) -> None:
    place.settings["patience"] = 0
    place.grid.get_node_ids = list
    with pytest.raises(RoundError, match="0 nodes are connected"):
        place.train()
    assert not place.out.exists()


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
    other = recipe_of(place.root / "data", "privacy.flip=0")
    (place.root / "recipe.toml").write_text(dump_config(other))
    place.settings["patience"] = 0
    with pytest.raises(RoundError, match="does not begin"):
        place.train()
    assert not (place.root / "00" / "state.safetensors").exists() or not read_records(place.out)


@pytest.mark.parametrize(
    ("recipe", "policy", "message"),
    [
        ({"privacy.colluders": 1}, {"colluders": 0}, "up to 1 clients collude.*bear 0 only"),
        ({"privacy.colluders": 2}, {"colluders": 1}, "up to 2 clients collude.*bear 1 only"),
        ({"secure_sum.mode": "active"}, {"mode": "semi_honest"}, "policy lets semi_honest ones pass"),
        (
            {"secure_sum.suite": "x25519+ml-kem-768"},
            {},
            "policy lets sessions of x25519 pass; enrol it with",
        ),
        ({"privacy.colluders": 1}, {"colluders": 1, "min_cohort": 7}, "over 8 honest clients.*7 only"),
    ],
)
def test_policy_that_is_weaker_than_the_recipe_is_refused(recipe: dict, policy: dict, message: str) -> None:
    settings = {
        "federation.clients": 10,
        "secure_sum.min_survivors": 9,
        "secure_sum.mode": "active",
        **recipe,
    }
    config = load_config(None, [f"{name}={value}" for name, value in settings.items()])
    with pytest.raises(AgreementError, match=message):
        client_app.check_policy(config, Policy(**{"min_survivors": 9, "min_cohort": config.cohort} | policy))
    enough = {"colluders": config.privacy.colluders, "suite": config.secure_sum.suite}
    client_app.check_policy(config, Policy(min_survivors=9, min_cohort=config.cohort, **enough))


def test_policy_as_weak_as_the_recipe_is_enough() -> None:
    config = load_config(None, ["federation.clients=10", "secure_sum.mode=semi_honest"])
    client_app.check_policy(config, Policy(min_survivors=10, min_cohort=10, mode="semi_honest"))


def test_policy_that_guarantees_less_than_epsilon_assumes_stops_the_client(tmp_path: Path) -> None:
    place = Place(tmp_path, "secure_sum.min_survivors=4")  # the enrolled policies insist on 3
    place.settings["patience"] = 0
    with pytest.raises(RoundError):
        place.train()
    reasons = [reply.error.reason for reply in place.grid.replies if reply.has_error()]
    assert any("policy insists on 3 only" in reason for reason in reasons)


SUMMED = ["privacy.record_epsilon=10", "privacy.record_release=summed"]


def with_moments(
    config: Config, folder: Path, opened: NoisySums, absent: set[tuple[int, int]]
) -> tuple[np.ndarray, list[float | None]]:
    """theta, and the server's loss by round, by clients that are given the opened moments, without Flower.

    `absent`: (client, round).
    """
    recipe = Components(config)
    clients = []
    for index in range(4):
        (folder / str(index)).mkdir(parents=True)
        coins = known_coins(KEY, index)
        clients.append(Client(index, folder / str(index), recipe, coins=coins, may_miss=True))
        clients[-1].moments.receive(opened)
    server, losses = Server.of(recipe, FEDERATION), []
    for _ in range(config.federation.rounds):
        broadcast = server.broadcast()
        there = [client for client in clients if (client.index, broadcast.round) not in absent]
        for client in there:
            client.answer(broadcast)
        counts = np.sum([client.bits(broadcast) for client in there], axis=0, dtype=np.int64)
        moved = server.absorb(
            counts,
            len(there),
            planned_rounds=config.federation.rounds,
            moments=clients[0].moments.targets(),
        )
        losses.append(moved.loss)
    return server.theta, losses


def opened_moments(place: Place) -> NoisySums:
    release = Components(place.config).record_release
    kept = load_moments(
        place.out / "checkpoint" / "release.moments", release.plan.release, release.context(None)
    )
    assert kept is not None
    return kept


def test_moments_are_summed_once_before_round_1_and_all_train_from_them(tmp_path: Path) -> None:
    place = Place(tmp_path / "place", *SUMMED, "training.end_steps=2")
    place.train()
    opened, recipe = opened_moments(place), Components(place.config)
    # the sum of all clients' features and images per class, and about as much noise as four shares have
    parts = [recipe.features(client) for client in range(4)]
    features, labels = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    exact = np.stack([features[labels == label].sum(0) for label in range(10)])
    noise = (opened.first - exact) / opened.release.noise
    assert 0.9 < noise.std() * np.sqrt(3 / 4) < 1.1  # three shares carry all of it, four are in
    assert np.abs(opened.counts - np.bincount(labels, minlength=10)).max() < 20 * opened.release.noise
    expected, losses = with_moments(place.config, tmp_path / "in-process", opened, set())
    assert place.theta().tobytes() == expected.tobytes()
    assert [record.server_loss for record in read_records(place.out)] == losses
    assert [loss is None for loss in losses] == [True, False]
    # shares are gone where their sum has come back, and the session is there for the report
    assert not list(place.root.glob("0?/share*"))
    assert json.loads((place.out / "moments.json").read_text())["survivors"] == 4


def test_summed_moments_are_charged_by_everybody_before_any_round(tmp_path: Path) -> None:
    place = Place(tmp_path, *SUMMED, test_coins=False)
    place.train()
    for ledger in (place.out, *(place.root / f"{client:02d}" for client in range(4))):
        entries = verify_ledger(ledger / "ledger.jsonl").entries
        over = ["end"] if ledger == place.out else []  # a client can't know that no round follows
        assert [entry.kind for entry in entries] == ["moments", "round", "round", *over]
        assert all(entry.record.epsilon <= 10 + 1e-6 for entry in entries)
        assert entries[0].cohort == 3
    assert read_history(place.out).status.kind == "done"


def test_model_is_the_one_that_the_ledger_signs_or_nobody_takes_it(tmp_path: Path) -> None:
    place = Place(tmp_path, *SUMMED, test_coins=False)
    place.train()
    audit = audit_run(place.out)
    assert audit.verdict == "clean", summary(audit)
    assert {answer.outcome for answer in audit.answers if answer.name == "model"} == {"passed"}
    assert export_run(place.out, tmp_path / "exported").card.privacy.ledger_mask is not None
    # exchanged for another mask, with a checkpoint that deploys it
    checkpoint = place.out / "checkpoint" / "server.safetensors"
    arrays = load_file(checkpoint)
    arrays["theta"] = 1 - arrays["theta"]
    save_file(arrays, checkpoint)
    model = read_model_file(place.out / "model.safetensors")
    write_model(place.out / "model.safetensors", model.architecture, model.seed, arrays["theta"] > 0.5)
    (found,) = audit_run(place.out).findings
    assert "the ledger's last line" in found.text
    with pytest.raises(RunFolderError, match=r"model\.safetensors: mask_sha256 differ"):
        export_run(place.out, tmp_path / "exported again")


def test_run_that_stops_before_it_is_marked_as_done_ends_its_ledger_once(place: Place) -> None:
    place.train()
    before = (place.out / "ledger.jsonl").read_bytes()
    for name in ("DONE", "model.safetensors"):
        (place.out / name).unlink()
    place.train()
    assert (place.out / "ledger.jsonl").read_bytes() == before
    assert (place.out / "model.safetensors").exists()


def test_client_without_a_share_in_the_moments_trains_from_them(tmp_path: Path) -> None:
    place = Place(tmp_path / "place", *SUMMED)

    def late(node: int, kind: str, reply: Message) -> Message:
        return (
            garbled(reply) if (node, kind, reply.metadata.group_id) == (102, "train.upload", "1") else reply
        )

    place.grid.tamper = late
    place.train()
    assert json.loads((place.out / "moments.json").read_text())["survivors"] == 3
    assert [record.survivors for record in read_records(place.out)] == [4, 4]
    expected, _ = with_moments(place.config, tmp_path / "in-process", opened_moments(place), set())
    assert place.theta().tobytes() == expected.tobytes()


def test_no_second_shares_are_given_once_the_sum_of_moments_is_lost(tmp_path: Path) -> None:
    place = Place(tmp_path, *SUMMED)
    silent = {(node, "train.unmask") for node in (100, 101, 102)}
    place.grid.tamper = lambda node, kind, reply: garbled(reply) if (node, kind) in silent else reply
    for _ in range(2):  # lost; and still lost when the same command is tried again
        with pytest.raises(RoundError, match="sum of the noisy moments is lost"):
            place.train()
        silent.clear()
    assert sum(kind == "train.upload" for _, kind in place.grid.sent) == 4
    assert not read_records(place.out)


def test_server_that_stops_after_the_moments_does_not_ask_for_them_again(tmp_path: Path) -> None:
    place = Place(tmp_path / "place", *SUMMED)
    push = place.grid.push_messages

    def dying(messages: list[Message]) -> list[str]:
        if messages[0].metadata.group_id == "2":
            raise KeyboardInterrupt
        return push(messages)

    place.grid.push_messages = dying
    with pytest.raises(KeyboardInterrupt):
        place.train()
    opened = opened_moments(place)
    place.grid.push_messages = push
    place.train()
    assert sum(kind == "train.upload" for _, kind in place.grid.sent) == 12
    expected, _ = with_moments(place.config, tmp_path / "in-process", opened, set())
    assert place.theta().tobytes() == expected.tobytes()


def test_client_whose_recipe_plans_other_moments_gives_no_share(tmp_path: Path) -> None:
    place = Place(tmp_path, *SUMMED)
    place.settings["patience"] = 0
    other = recipe_of(place.root / "data", *SUMMED, "training.variance_weight=1")
    for client in range(4):
        (place.root / f"{client:02d}" / "recipe.toml").write_text(dump_config(other))
    with pytest.raises(RoundError, match="noisy moments"):
        place.train()
    assert any(
        "not what the recipe plans" in reply.error.reason for reply in place.grid.replies if reply.has_error()
    )
    assert not list(place.root.glob("0?/share*"))


def test_images_of_their_own_are_counted_for_one_release_over_all(tmp_path: Path) -> None:
    config = recipe_of(tmp_path / "data", *SUMMED)
    assert own_data(config, False) is None
    assert own_data(config, "5 6 7 8").sizes == (5, 6, 7, 8)
    for declared in (True, "5 6 7", "5 6 7 many"):
        with pytest.raises(ConfigError, match="own-data"):
            own_data(config, declared)
    with pytest.raises(ConfigError, match="own-data says 6 images for client 1, found 60"):
        own_data(config, "5 6 7 8").check_size(1)


@pytest.mark.parametrize(("release", "declared"), [("summed", "60 70 80 90"), ("client", True)])
def test_images_of_their_own_are_what_the_run_folder_speaks_of(
    tmp_path: Path, release: str, declared: str | bool
) -> None:
    """And not the public ones, that the server has for its metrics."""

    recipe = ["privacy.record_epsilon=10", f"privacy.record_release={release}"]
    place = Place(tmp_path / "place", *recipe, test_coins=False)
    place.settings["own-data"] = declared
    for client, context in enumerate(place.grid.contexts.values()):
        context.node_config["own-data"] = declared
        theirs = recipe_of(tmp_path / f"images of {client}", *recipe, images=60 + 10 * client)
        (place.root / f"{client:02d}" / "recipe.toml").write_text(dump_config(theirs))
    place.train()
    audit = audit_run(place.out)
    assert audit.verdict == "clean", summary(audit)
    card = export_run(place.out, tmp_path / "exported").card
    assert card.data.training_images == (300 if release == "summed" else None)
    assert card.data.partition == "each has images of its own"
    assert (card.privacy.record is None) == (release == "client")  # the server can't claim what others did
    for client in range(4):
        own = verify_ledger(place.root / f"{client:02d}" / "ledger.jsonl")
        assert own.entries[0].kind == "moments"
        assert own.entries[0].record.epsilon <= 10 + 1e-6


def test_client_gives_the_same_bits_in_no_second_session(place: Place) -> None:
    """A server that runs a round's broadcast again, in a session of the next round or of none."""
    config, summed = place.config, place.sums()
    broadcast = Server.of(Components(config), FEDERATION).broadcast()

    def ask(number: int) -> None:
        spec, binding = CountSpec(len(broadcast.theta)), client_app.binding(config)
        summed.open(write_broadcast(broadcast), spec, round=number, binding=binding)

    with pytest.raises(ThresholdError):
        ask(0)
    ask(1)
    with pytest.raises(ThresholdError):
        ask(2)
    reasons = [reply.error.reason for reply in place.grid.replies if reply.has_error()]
    assert len(reasons) == 8
    assert all("belongs to a session of round 1, of" in reason for reason in reasons)


def test_client_gives_its_share_of_the_moments_in_no_second_session(tmp_path: Path) -> None:
    place = Place(tmp_path, *SUMMED)
    release = Components(place.config).record_release
    summed = place.sums()

    def ask(number: int) -> None:
        spec, binding = CountSpec(release.plan.size, release.plan.bound), client_app.binding(place.config)
        summed.open(write_request(release), spec, round=number, binding=binding)

    ask(1)
    for number in (1, 2):
        with pytest.raises(ThresholdError):
            ask(number)
    assert sum(kind == "train.upload" for _, kind in place.grid.sent) == 8


def test_nothing_but_masked_words_and_the_protocol_leaves(place: Place) -> None:
    place.train()
    for reply in place.grid.replies:
        assert json.dumps(sorted(reply.content)) == '["secure_sum"]'
        assert sorted(reply.content["secure_sum"]) == ["client", "message"]
    assert hashlib.sha256(KEY).hexdigest() not in str(place.grid.replies)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (
            ["privacy.record_epsilon=2", "privacy.record_release=summed", "privacy.record_store=s"],
            "record_store",
        ),
        (["mask.score_layers=0.2", "privacy.flip=0", "privacy.record_epsilon=inf"], "score_layers"),
        (["secure_sum.simulate=true"], "secure_sum.simulate is for `prism-secure run`"),
        (["secure_sum.dropouts=0.1", "secure_sum.min_survivors=9"], "clients drop out by themselves"),
        (["federation.behaviour=my.own:Behaviour", "privacy.record_epsilon=inf"], "federation.behaviour"),
    ],
)
def test_recipe_that_is_for_one_machine_is_refused(overrides: list[str], named: str) -> None:
    config = load_config(None, overrides)
    with pytest.raises(ConfigError, match=named):
        client_app.check_recipe(config, SimpleNamespace(ids=tuple(range(config.federation.clients))))


def test_one_more_built_in_behaviour_is_for_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the clients' agreement holds what its bits depend on."""
    monkeypatch.setattr(sections, "Behaviour", Literal["train", "measure", "third"])
    config = load_config(None, ["federation.behaviour=third"], recipe="prism")
    with pytest.raises(ConfigError, match=r"must be 'train' or 'measure' across machines.*got 'third'"):
        client_app.check_recipe(config, SimpleNamespace(ids=tuple(range(config.federation.clients))))


def test_semi_honest_recipe_trains_once_nodes_have_said_whose_they_are(tmp_path: Path) -> None:
    place = Place(tmp_path, "secure_sum.mode=semi_honest")
    for client in range(4):
        policy = tmp_path / f"{client:02d}" / "policy.json"
        policy.unlink()
        Policy(min_survivors=3, min_cohort=3, mode="semi_honest").save(policy)
    place.train()
    assert [record.survivors for record in read_records(place.out)] == [4, 4]
    hellos = [node for node, kind in place.grid.sent if kind == "train.hello"]
    assert sorted(hellos) == [100, 101, 102, 103]  # once for all rounds
