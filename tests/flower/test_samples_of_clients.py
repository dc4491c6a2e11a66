"""Rounds over samples of the clients: those of one process, and each client keeps to its own rounds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message

from prism_crypto import CountSpec, ThresholdError
from prism_privacy import Adjacency, CoinSecret, View
from prism_privacy.ledger import verify_ledger
from prism_privacy.ledger.entry import LedgerEntry
from prism_secure.accounting.epsilons import CELLS
from prism_secure.audit.run_audit import audit_run, summary
from prism_secure.config import Config, load_config
from prism_secure.config.invitations import invited
from prism_secure.flower import client_app
from prism_secure.flower.recipe.messages import write_broadcast
from prism_secure.rounds.broadcast import Broadcast
from prism_secure.rounds.components import Components
from prism_secure.rounds.server import Server
from prism_secure.rounds.simulation import run
from prism_secure.run_folder.folder import client_folder, read_records

from .recipe_place import FEDERATION, Place, in_process, recipe_of
from .test_measured_app import MEASURED

CLIENTS = range(8)
HALF = ["federation.clients=8", "federation.client_fraction=0.5", "federation.rounds=3", "metrics.every=3"]
TRAINED = ["privacy.clip=1"]
pytestmark = pytest.mark.usefixtures("one_client_process")
MEASURED_HALF = [*MEASURED, "measured.growth=1.5", *HALF]


def place_of_eight(root: Path, *overrides: str) -> Place:
    return Place(root, *overrides, test_coins=False, images=80)


def charges(folder: Path) -> list[LedgerEntry]:
    """The ledger's rounds; none where there is no ledger."""
    path = folder / "ledger.jsonl"
    found = verify_ledger(path).entries if path.exists() else ()
    return [entry for entry in found if entry.kind in ("round", "aborted")]


def own_charges(place: Place) -> list[list[int]]:
    """The rounds that each client's own ledger has charged, by the federation's number."""
    return [
        [entry.metrics["federation_round"] for entry in charges(place.root / f"{client:02d}")]
        for client in CLIENTS
    ]


def own_rounds(config: Config, client: int) -> list[int]:
    return [number for number in range(1, config.federation.rounds + 1) if client in invited(config, number)]


@pytest.mark.parametrize("recipe", [MEASURED_HALF, [*TRAINED, *HALF]], ids=["measured", "trained"])
def test_the_model_and_its_cost_are_those_of_one_process(tmp_path: Path, recipe: list[str]) -> None:
    place = place_of_eight(tmp_path / "place", *recipe)
    place.train()
    alone = tmp_path / "alone"
    for client in CLIENTS:
        shutil.copy2(place.root / f"{client:02d}" / "coins.key", client_folder(alone, client))
    (alone / "federation.id").write_text(FEDERATION)
    run(place.config, alone)
    for name in ("checkpoint/server.safetensors", "model.safetensors"):
        assert (place.out / name).read_bytes() == (alone / name).read_bytes()
    for one, other in zip(read_records(place.out), read_records(alone), strict=True):
        assert (one.survivors, one.epsilon, one.record) == (4, other.epsilon, other.record)
    for one, other in zip(charges(place.out), charges(alone), strict=True):
        assert (one.release, one.epsilon, one.record) == (other.release, other.epsilon, other.record)
        metrics = dict(one.metrics)
        assert metrics.pop("survivors") == list(invited(place.config, one.round))
        assert metrics == other.metrics
    # Each client has paid for its own rounds, and the run's ledger states the largest of them.
    assert own_charges(place) == [own_rounds(place.config, client) for client in CLIENTS]
    assert {len(rounds) for rounds in own_charges(place)} == {1, 2}
    last = [charges(place.root / f"{client:02d}")[-1] for client in CLIENTS]
    for cell in CELLS:
        assert max(entry.spent(*cell).to_date for entry in last) == charges(alone)[-1].spent(*cell).to_date
    audit = audit_run(place.out)
    assert audit.verdict == "clean", summary(audit)


def test_moments_are_summed_over_all_and_the_rounds_over_samples(tmp_path: Path) -> None:
    summed = ["privacy.record_epsilon=10", "privacy.record_release=summed", "secure_sum.min_survivors=3"]
    place = place_of_eight(tmp_path / "place", *HALF, *summed)
    place.train()
    run(place.config, tmp_path / "alone")
    assert json.loads((place.out / "moments.json").read_text())["survivors"] == 8
    assert [record.survivors for record in read_records(place.out)] == [4, 4, 4]
    ours, theirs = (
        verify_ledger(folder / "ledger.jsonl").entries for folder in (place.out, tmp_path / "alone")
    )
    assert [(entry.kind, entry.epsilon, entry.record, entry.cohort) for entry in ours] == [
        (entry.kind, entry.epsilon, entry.record, entry.cohort) for entry in theirs
    ]
    assert ours[0].cohort == 7, "as many may be missing as in a round, where one of four may"
    assert own_charges(place) == [own_rounds(place.config, client) for client in CLIENTS]


def test_a_client_of_the_sample_that_is_away_pays_nothing_and_the_round_opens(tmp_path: Path) -> None:
    place = place_of_eight(tmp_path / "place", *MEASURED_HALF)
    away, *others = invited(place.config, 1)
    assert away in invited(place.config, 3), "it comes back"
    nodes, begun = place.grid.get_node_ids, set[str]()
    place.grid.get_node_ids = lambda: [node for node in nodes() if node != 100 + away or begun]
    push = place.grid.push_messages

    def noted(messages: list[Message]) -> list[str]:
        if messages[0].metadata.message_type == "train.unmask":
            begun.add(messages[0].metadata.group_id)
        return push(messages)

    place.grid.push_messages = noted
    place.train()
    assert [record.survivors for record in read_records(place.out)] == [3, 4, 4]
    entries = charges(place.out)
    assert [entry.metrics["invited"] for entry in entries] == [
        list(invited(place.config, number)) for number in (1, 2, 3)
    ]
    assert entries[0].metrics["survivors"] == others
    expected = [own_rounds(place.config, client) for client in CLIENTS]
    expected[away].remove(1)
    assert own_charges(place) == expected
    theirs = in_process(
        place.config,
        tmp_path / "alone",
        lambda client, number: client in invited(place.config, number) and (client, number) != (away, 1),
        coins_of=lambda client: CoinSecret.load(place.root / f"{client:02d}" / "coins.key"),
    )
    assert place.theta().tobytes() == theirs.tobytes()
    audit = audit_run(place.out)
    assert audit.verdict == "clean", summary(audit)


def asked_for(place: Place, broadcast: Broadcast, invite: str | tuple[int, ...]) -> tuple[int, ...]:
    """The clients in the sum that a server opens which asks whom it likes for a round."""
    spec, binding = CountSpec(len(broadcast.theta)), client_app.binding(place.config)
    summed = place.sums()
    return summed.open(
        write_broadcast(broadcast), spec, round=broadcast.round, binding=binding, invite=invite
    ).survivors


def refusals(place: Place) -> list[str]:
    return [reply.error.reason for reply in place.grid.replies if reply.has_error()]


def test_a_client_that_a_round_leaves_out_answers_no_server_that_asks_for_it(tmp_path: Path) -> None:
    place = place_of_eight(tmp_path, *TRAINED, *HALF)
    *sample, _ = invited(place.config, 1)
    stranger = invited(place.config, 2)[0]
    broadcast = Server.of(Components(place.config), FEDERATION).broadcast()
    assert asked_for(place, broadcast, (*sample, stranger)) == tuple(sample)
    (refused,) = refusals(place)
    assert f"round 1 is one that does not invite client {stranger}" in refused
    assert own_charges(place) == [[1] if client in sample else [] for client in CLIENTS]


def test_a_client_answers_no_round_beyond_those_that_its_epsilon_counts_on(tmp_path: Path) -> None:
    """A budget has room for two rounds, one for each client; a server begins a third."""
    two = recipe_of(tmp_path / "data", *TRAINED, *HALF, "federation.rounds=2", images=80)
    limit = 1.01 * Components(two).plan.epsilon(View.SUM, Adjacency.ZERO_OUT)
    place = place_of_eight(tmp_path, *TRAINED, *HALF, f"budget.epsilon={limit}")
    first = Server.of(Components(place.config), FEDERATION).broadcast()
    sample, third = (invited(place.config, number) for number in (1, 3))
    assert asked_for(place, first, sample) == sample
    for number in (3, 4):  # one that the recipe names, and one that nobody does
        with pytest.raises(ThresholdError):
            asked_for(place, Broadcast(FEDERATION, number, first.theta), third)
    found = refusals(place)
    assert len(found) == 8
    assert all("there are 2 rounds, asked for" in reason for reason in found)
    assert own_charges(place) == [[1] if client in sample else [] for client in CLIENTS]


def place_of_four(root: Path) -> tuple[Place, np.ndarray]:
    place = Place(root, *TRAINED, "federation.rounds=3", test_coins=False)
    return place, Server.of(Components(place.config), FEDERATION).broadcast().theta


def test_a_round_that_comes_back_out_of_its_order_is_charged_once(tmp_path: Path) -> None:
    """A server begins round 3 with a theta that nobody takes, then has rounds 1 to 3."""
    place, theta = place_of_four(tmp_path)
    with pytest.raises(ThresholdError):
        asked_for(place, Broadcast(FEDERATION, 3, theta + 1), "roster")
    for number in (1, 2, 3):
        assert asked_for(place, Broadcast(FEDERATION, number, theta), "roster") == (0, 1, 2, 3)
    assert own_charges(place)[:4] == [[3, 1, 2]] * 4


def test_a_client_whose_ledger_is_an_older_copy_answers_no_more(tmp_path: Path) -> None:
    """Put back from a backup, as all but the counter may be, it has rounds that it does not add up."""
    place, theta = place_of_four(tmp_path)
    asked_for(place, Broadcast(FEDERATION, 1, theta), "roster")
    books = [place.root / "00" / name for name in ("ledger.jsonl", "ledger.jsonl.head")]
    kept = [book.read_bytes() for book in books]
    asked_for(place, Broadcast(FEDERATION, 2, theta), "roster")
    for book, content in zip(books, kept, strict=True):
        book.write_bytes(content)
    assert asked_for(place, Broadcast(FEDERATION, 3, theta), "roster") == (1, 2, 3)
    assert own_charges(place)[:4] == [[1], *[[1, 2, 3]] * 3]


def test_who_is_in_which_round_is_what_all_have_agreed_on() -> None:
    agreed = client_app.binding(load_config(None, HALF))
    for other in ("federation.seed=1", "federation.client_fraction=0.75", "federation.rounds=4"):
        assert client_app.binding(load_config(None, [*HALF, other])) != agreed
    assert client_app.binding(load_config(None, [*HALF, "federation.workers=1"])) == agreed
