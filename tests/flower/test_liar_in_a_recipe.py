"""A recipe over Flower one of whose ten clients breaks the protocol: it goes on as nine, or says why not."""

from __future__ import annotations

from pathlib import Path

import lying_recipe
import pytest

from prism_crypto import Policy, Roster
from prism_privacy.ledger import verify_ledger
from prism_secure.audit.run_audit import audit_run, summary
from prism_secure.errors import RoundError
from prism_secure.flower.secure_aggregation import client as sum_client
from prism_secure.flower.secure_aggregation.blamed import read_blamed
from prism_secure.flower.secure_aggregation.link import ask
from prism_secure.run_folder.folder import read_records

from .recipe_place import FEDERATION, Place
from .test_measured_app import MEASURED

CLIENTS, LIAR = 10, lying_recipe.LIAR
HONEST = [client for client in range(CLIENTS) if client != LIAR]


@pytest.fixture(autouse=True)
def one_client_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sum_client, "ask", lambda _, *request: ask(str(tmp_path), *request))


def place_of_ten(root: Path, *, least: int, rounds: int) -> Place:
    """Ten clients that demand the survivors that epsilon counts on; client 2 deals garbage to all others."""
    place = Place(
        root,
        *MEASURED,
        f"federation.clients={CLIENTS}",
        f"federation.rounds={rounds}",
        f"secure_sum.min_survivors={least}",
        test_coins=False,
        images=100,
        policy=Policy(min_survivors=least, min_cohort=least),
        app=lying_recipe.app,
    )
    (root / "lies").touch()
    return place


def test_a_federation_of_ten_with_a_liar_goes_on_as_nine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = place_of_ten(tmp_path, least=9, rounds=3)
    place.train()
    records = read_records(place.out)
    assert [record.survivors for record in records] == [0, 9, 9]
    assert f"secure sum: client {LIAR} at share: what it sealed for client 0 does not open" in caplog.text
    # Nobody was enrolled anew, and what convicts the liar is kept beside the run.
    roster = Roster.load(tmp_path / "server" / "roster.json")
    assert roster.ids == tuple(range(CLIENTS))
    assert read_blamed(place.out / "checkpoint" / "blamed", roster, FEDERATION).keys() == {LIAR}
    # Epsilon counted on nine from the start: the same plan, as far as it has got.
    *entries, _ = verify_ledger(place.out / "ledger.jsonl").entries
    assert [entry.kind for entry in entries] == ["round"] * 3
    assert {entry.cohort for entry in entries} == {9}
    assert [entry.metrics["survivors"] for entry in entries] == [list(range(CLIENTS)), HONEST, HONEST]
    for client in range(CLIENTS):
        own = verify_ledger(tmp_path / f"{client:02d}" / "ledger.jsonl").entries
        assert [entry.metrics["federation_round"] for entry in own] == ([1] if client == LIAR else [1, 2, 3])
        assert {entry.cohort for entry in own} == {9}
    audit = audit_run(place.out)
    assert audit.verdict == "clean", summary(audit)


def test_a_federation_that_needs_all_ten_says_in_one_sentence_why_it_does_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = place_of_ten(tmp_path, least=10, rounds=3)
    with pytest.raises(RoundError, match="two rounds in a row were lost"):
        place.train()
    assert [record.survivors for record in read_records(place.out)] == [0, 0]
    (said,) = (line for line in caplog.messages if "can't be left out" in line)
    assert said == (
        f"secure sum: client {LIAR} can't be left out, beside 0 others: 10 must survive (min_survivors, "
        "threshold), and no more are invited"
    )
    assert {entry.cohort for entry in verify_ledger(place.out / "ledger.jsonl").entries} == {10}
