"""A client on a machine of its own: it may miss rounds, it may have test coins, it keeps its own ledger."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from prism_privacy import CoinSecret, OutboxError, ParticipationExceeded
from prism_privacy.ledger import verify_ledger
from prism_secure.accounting.spending import Spending
from prism_secure.config import Config, load_config
from prism_secure.config.invitations import invited
from prism_secure.errors import RunFolderError
from prism_secure.rounds.broadcast import Broadcast
from prism_secure.rounds.client import Client
from prism_secure.rounds.components import Components

TINY = [
    "federation.clients=4",
    "federation.rounds=4",
    "federation.local_steps=1",
    "model.width=2",
    "model.latent=4",
    'features.extractors=["fourier"]',
    "training.batch_size=10",
    "privacy.record_epsilon=inf",
]


@dataclass(frozen=True)
class Place:
    """A client's folder, as far as its ledger is concerned."""

    path: Path
    federation: str = "tests"

    @property
    def ledger_path(self) -> Path:
        return self.path / "ledger.jsonl"

    @property
    def ledger_key_path(self) -> Path:
        return self.path / "ledger.key"


@pytest.fixture(scope="module")
def recipe() -> Components:
    return Components(load_config(None, TINY))


def _broadcast(recipe: Components, number: int) -> Broadcast:
    return Broadcast("tests", number, np.full(recipe.trainer.dimension, 0.5))


def _spending(config: Config, folder: Path, **options) -> Spending:
    return Spending(config, Place(folder), 100, None, client=0, **options)


def test_client_that_sat_out_rounds_goes_on_only_where_that_is_allowed(
    recipe: Components, tmp_path: Path
) -> None:
    client = Client(0, tmp_path, recipe, may_miss=True)
    client.answer(_broadcast(recipe, 1))
    with pytest.raises(RunFolderError, match="after round 1"):
        Client(0, tmp_path, recipe).answer(_broadcast(recipe, 4))
    client.answer(_broadcast(recipe, 4))
    assert client.bits(_broadcast(recipe, 4)).shape == (recipe.trainer.dimension,)
    with pytest.raises(OutboxError):  # the bits of its last round are gone
        client.bits(_broadcast(recipe, 1))


def test_a_client_knows_how_far_the_run_is(
    recipe: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, train = [], recipe.trainer.train
    monkeypatch.setattr(
        recipe.trainer, "train", lambda *given, **how: seen.append(how["progress"]) or train(*given, **how)
    )
    client = Client(0, tmp_path, recipe, may_miss=True)
    rounds = recipe.config.federation.rounds
    for number in (1, 2, rounds):
        client.answer(_broadcast(recipe, number))
    assert seen == [0.0, 1 / (rounds - 1), 1.0]


def test_nobody_goes_back_to_a_round_before_the_last_one(recipe: Components, tmp_path: Path) -> None:
    client = Client(0, tmp_path, recipe, may_miss=True)
    client.answer(_broadcast(recipe, 3))
    with pytest.raises(RunFolderError, match="after round 3"):
        client.answer(_broadcast(recipe, 2))


def test_a_client_that_rounds_leave_out_keeps_to_the_rounds_it_is_invited_to(tmp_path: Path) -> None:
    config = load_config(None, [*TINY, "federation.clients=6", "federation.client_fraction=0.5"])
    recipe = Components(config)
    mine = [number for number in range(1, 5) if 0 in invited(config, number)]
    assert mine != [1, 2, 3, 4]
    assert len(mine) == 2
    Client(0, tmp_path / "kept", recipe).answer(_broadcast(recipe, mine[0]))
    Client(0, tmp_path / "kept", recipe).answer(_broadcast(recipe, mine[1]))
    with pytest.raises(RunFolderError, match="after round 0"):  # its folder is lost, and with it its state
        Client(0, tmp_path / "lost", recipe).answer(_broadcast(recipe, mine[1]))


def test_known_coins_give_the_same_bits_and_leave_no_secret(recipe: Components, tmp_path: Path) -> None:
    bits = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        client = Client(0, tmp_path / name, recipe, coins=CoinSecret.for_test(bytes(32)))
        client.answer(_broadcast(recipe, 1))
        bits.append(client.bits(_broadcast(recipe, 1)))
        assert not (tmp_path / name / "coins.key").exists()
    assert bits[0].tolist() == bits[1].tolist()


def test_ledger_of_test_coins_claims_no_epsilon(recipe: Components, tmp_path: Path) -> None:
    with _spending(recipe.config, tmp_path, coins="test") as spending:
        assert spending.charge(1).sum_zero_out == math.inf
    entry = verify_ledger(tmp_path / "ledger.jsonl").entries[0]
    assert (entry.coins, entry.epsilon) == ("test", None)


def test_ledger_says_who_was_in_a_sum_and_charges_a_lost_round_all_the_same(
    recipe: Components, tmp_path: Path
) -> None:
    with _spending(recipe.config, tmp_path) as spending:
        first = spending.charge(1, metrics={"survivors": [0, 1, 3]})
        lost = spending.charge(2, kind="aborted", metrics={"why": "nobody was left"})
    assert lost.upload_zero_out > first.upload_zero_out
    entries = verify_ledger(tmp_path / "ledger.jsonl").entries
    assert [entry.kind for entry in entries] == ["round", "aborted"]
    assert entries[0].metrics == {"survivors": [0, 1, 3]}
    with _spending(recipe.config, tmp_path) as spending:  # it goes on from there
        assert spending.charged_rounds == 2


def test_a_clients_own_ledger_has_no_more_rounds_than_the_plan_has_for_anybody(tmp_path: Path) -> None:
    config = load_config(None, [*TINY, "federation.clients=6", "federation.client_fraction=0.5"])
    for number in (1, 2):
        with _spending(config, tmp_path) as spending:
            spending.charge(number, federation_round=2 * number)
    with (
        _spending(config, tmp_path) as spending,
        pytest.raises(ParticipationExceeded, match="cap of 2 rounds"),
    ):
        spending.charge(3, federation_round=3)
    assert len(verify_ledger(tmp_path / "ledger.jsonl").entries) == 2
