"""One call a round: it refuses before it spends, writes what it spends, and says it in numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from prism_privacy import (
    Accountant,
    Adjacency,
    Budget,
    BudgetExceeded,
    InvalidParameter,
    Ledger,
    LedgerError,
    LedgerKey,
    MaskRelease,
    Participation,
    View,
)
from prism_privacy.errors import ParticipationExceeded
from prism_secure.plug_in import track

RELEASE = MaskRelease(flip=0.25, clip=1.0, cohort=8)
KEY = LedgerKey()
CELL = (View.SUM, Adjacency.ZERO_OUT)


def budget(epsilon: float = 12.0) -> Budget:
    return Budget(epsilon, delta=1e-5, view=CELL[0], adjacency=CELL[1])


def ledger(tmp_path: Path) -> Ledger:
    path = tmp_path / "ledger.jsonl"
    return (
        Ledger.open(path, KEY) if path.exists() else Ledger.create(path, KEY, federation="tests", clients=10)
    )


def rounds_of(costs, clients=range(10)) -> list[dict[str, float]]:
    said: list[dict[str, float]] = []
    try:
        while len(said) < 1000:
            said.append(costs.spent(RELEASE, clients))
    except BudgetExceeded:
        return said
    raise AssertionError("nothing was refused")


def test_what_is_said_is_what_the_accountant_says_and_fit_for_a_logger():
    account, same = Accountant(1e-5), Accountant(1e-5)
    costs = track(account, budget())
    for number in (1, 2, 3):
        said = costs.spent(RELEASE, range(10))
        same.spend(RELEASE)
        assert said["round"] == number == account.rounds
        assert (said["clients"], said["delta"], said["budget/sum/zero_out"]) == (10, 1e-5, 12.0)
        for view in View:
            for adjacency in Adjacency:
                assert said[f"epsilon/{view}/{adjacency}"] == same.epsilon(view, adjacency)
        assert all(type(value) in (int, float) for value in said.values())
        json.dumps(said)
    assert "budget/upload/zero_out" not in said
    nothing = track(Accountant(1e-5)).spent(MaskRelease(flip=0.0, clip=1.0), ["a"])
    assert math.isinf(nothing["epsilon/sum/zero_out"])


def test_a_round_beyond_the_budget_is_refused_and_neither_spent_nor_written(tmp_path: Path):
    account, promised = Accountant(1e-5), budget()
    with ledger(tmp_path) as written:
        said = rounds_of(track(account, promised, written))
        assert len(said) == account.rounds == len(written.entries) == budget().rounds_left(RELEASE) > 2
        assert said[-1]["epsilon/sum/zero_out"] <= 12.0
    report = Ledger.verify(tmp_path / "ledger.jsonl", KEY)
    assert [entry.epsilon[CELL].to_date for entry in report.entries] == [
        each["epsilon/sum/zero_out"] for each in said
    ]
    assert report.entries[0].metrics["invited"] == list(range(10))
    assert report.entries[0].epsilon[CELL].budget == 12.0


@pytest.mark.parametrize("sampled", [False, True])
def test_a_restart_goes_on_where_the_ledger_ends(tmp_path: Path, sampled: bool):
    def new():
        return Participation(1e-5) if sampled else Accountant(1e-5)

    whole = rounds_of(track(new(), budget()))
    with ledger(tmp_path) as written:
        costs = track(new(), budget(), written)
        first = [costs.spent(RELEASE, range(10), metrics={"loss": 0.5}) for _ in range(2)]
    with ledger(tmp_path) as written:
        rest = rounds_of(track(new(), budget(), written))
    assert first + rest == whole
    with ledger(tmp_path) as written, pytest.raises(BudgetExceeded):
        track(new(), budget(epsilon=5.0), written)


def test_an_accountant_that_has_spent_is_not_put_on_top_of_a_ledger(tmp_path: Path):
    with ledger(tmp_path) as written:
        account = Accountant(1e-5)
        track(account, ledger=written).spent(RELEASE, range(10))
        with pytest.raises(InvalidParameter, match="takes a new one"):
            track(account, ledger=written)
        book = Participation(1e-5)
        book.spend(RELEASE, [1])
        with pytest.raises(InvalidParameter, match="takes a new one"):
            track(book, ledger=written)


def test_a_ledger_of_something_else_is_refused(tmp_path: Path):
    with ledger(tmp_path) as written:
        written.append(round=1, release=RELEASE, delta=1e-5, epsilon=None)
        with pytest.raises(InvalidParameter, match="'round' that track has not written"):
            track(Accountant(1e-5), ledger=written)


def test_samples_are_charged_to_those_who_were_asked_and_the_largest_is_said():
    book, one = Participation(1e-5), Accountant(1e-5)
    costs = track(book, budget())
    samples = [range(8), range(2, 10), range(8), range(1, 9)]
    for sample in samples:
        said = costs.spent(RELEASE, sample)
    for _ in range(4):  # client 2 to 7 were in all
        one.spend(RELEASE)
    assert [book.rounds_of(client) for client in range(10)] == [2, 3, 4, 4, 4, 4, 4, 4, 2, 1]
    assert said["epsilon/sum/zero_out"] == one.epsilon(*CELL)
    assert said["clients"] == 8


def test_each_client_of_a_sample_has_a_budget_of_its_own():
    costs = track(Participation(1e-5), budget())
    allowed = budget().rounds_left(RELEASE)
    for _ in range(allowed):
        costs.spent(RELEASE, range(8))
    with pytest.raises(BudgetExceeded):
        costs.spent(RELEASE, range(7, 15))  # one of them has nothing left
    for _ in range(allowed):
        costs.spent(RELEASE, range(8, 16))
    with pytest.raises(BudgetExceeded):
        costs.spent(RELEASE, range(8, 16))


def test_a_cap_on_participation_is_refused_before_a_budget_is_touched():
    promised = budget()
    costs = track(Participation(1e-5, cap=1), promised)
    costs.spent(RELEASE, range(8))
    with pytest.raises(ParticipationExceeded):
        costs.spent(RELEASE, range(8))
    assert costs.spent(RELEASE, range(8, 16))["round"] == 2


@pytest.mark.parametrize(
    ("clients", "message"),
    [
        (range(7), "counts on 8 honest clients"),
        ([*range(9), 3], "one twice"),
        (10, "are the ids"),
        ([None] * 8, "are the ids"),
        ([[1]] * 8, "are the ids"),
    ],
)
def test_clients_that_are_none_or_too_few_spend_nothing(tmp_path: Path, clients, message: str):
    account = Accountant(1e-5)
    with ledger(tmp_path) as written:
        costs = track(account, budget(), written)
        with pytest.raises(InvalidParameter, match=message):
            costs.spent(RELEASE, clients)
        with pytest.raises(InvalidParameter, match="no JSON form"):
            costs.spent(RELEASE, range(10), metrics={"odd": object()})
        assert account.rounds == len(written.entries) == 0
        assert costs.spent(RELEASE, np.arange(10))["round"] == 1


def test_what_can_not_be_written_down_is_an_error_and_counts_as_spent(tmp_path: Path):
    account = Accountant(1e-5)
    written = ledger(tmp_path)
    costs = track(account, ledger=written)
    written.close()
    with pytest.raises(LedgerError):
        costs.spent(RELEASE, range(10))
    assert account.rounds == 1


@pytest.mark.parametrize(("asked", "colluders"), [(10, 3), (8, 1), (9, 9)])
def test_colluders_are_not_of_the_cohort_that_epsilon_counts_on(asked: int, colluders: int):
    account = Accountant(1e-5)
    costs = track(account, budget(), colluders=colluders)
    with pytest.raises(InvalidParameter, match=f"{asked} are asked to upload, {colluders} of them colluders"):
        costs.spent(RELEASE, range(asked))
    assert account.rounds == 0
    assert costs.spent(RELEASE, range(8 + colluders))["clients"] == 8 + colluders


@pytest.mark.parametrize("colluders", [-1, 1.5, True, None])
def test_colluders_are_a_number_of_clients(colluders: object):
    with pytest.raises(InvalidParameter, match="colluders is a number of clients"):
        track(Accountant(1e-5), colluders=colluders)
