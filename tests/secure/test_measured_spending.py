"""What measured rounds spend: both units from the same bits, in both views, growing by the round."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from prism_privacy import (
    Accountant,
    Adjacency,
    InvalidParameter,
    Ledger,
    MeasuredRelease,
    RecordGuarantee,
    Unit,
    View,
    verify_ledger,
)
from prism_privacy.ledger.spent_table import spent_table
from prism_secure.accounting.epsilons import CELLS
from prism_secure.accounting.plan import Plan
from prism_secure.accounting.spending import Spending
from prism_secure.commands.config import _growth
from prism_secure.config import Config, load_config
from prism_secure.errors import ConfigError, RunFolderError

SETTINGS = [
    "federation.behaviour=measure", "privacy.record_epsilon=inf", "privacy.flip=0.25", "federation.rounds=4",
    "measured.directions=16", "measured.coordinates=256", "measured.epsilon=inf", "measured.radius=1",
    "privacy.record_release=summed",
]  # fmt: skip
SIZES = (10,) * 10
DIMENSION = 1000


@dataclass(frozen=True)
class Place:
    """Where a ledger is, as a run's folder says."""

    path: Path
    federation: str = "fed"

    @property
    def ledger_path(self) -> Path:
        return self.path / "ledger.jsonl"

    @property
    def ledger_key_path(self) -> Path:
        return self.path / "ledger.key"


def config_of(*more: str) -> Config:
    return load_config(None, [*SETTINGS, *more])


def spending(config: Config, path: Path, finished: int | None = 0, **more: object) -> Spending:
    return Spending(config, Place(path), DIMENSION, finished, sizes=SIZES, **more)  # type: ignore[arg-type]


def composed(releases: list[MeasuredRelease], unit: Unit) -> Accountant:
    accountant = Accountant(delta=1e-5)
    for release in releases:
        accountant.spend(release.release(unit))
    return accountant


def test_each_round_charges_a_client_and_an_image_from_its_own_release(tmp_path: Path) -> None:
    config = config_of("secure_sum.min_survivors=9", "privacy.colluders=1")
    plan = Plan(config, DIMENSION, sizes=SIZES)
    images = []
    with spending(config, tmp_path) as spent:
        assert spent.planned_rounds == 4
        for number in range(1, 5):
            client = spent.charge(number)
            done = list(plan.measured[:number])
            for view, adjacency in CELLS:
                own = composed(done, Unit.CLIENT).epsilon(view, adjacency)
                assert client.at(view, adjacency) == pytest.approx(own)
            assert spent.record is not None
            images.append((spent.record.epsilon, spent.record.upload))
            both = [
                composed(done, Unit.RECORD).epsilon(v, Adjacency.ZERO_OUT) for v in (View.SUM, View.UPLOAD)
            ]
            assert images[-1] == pytest.approx(tuple(both))
            assert (spent.record.view, spent.record.cohort) == ("sum", 8)
    assert images == sorted(set(images))
    report = verify_ledger(tmp_path / "ledger.jsonl")
    assert report.records == 10
    for entry, release in zip(report.entries, plan.measured, strict=True):
        assert MeasuredRelease(**entry.release) == release  # type: ignore[arg-type]
        assert (entry.cohort, entry.colluders, release.cohort) == (8, 1, 8)
        assert entry.record is not None
        assert entry.record.epsilon == plan.image_epsilon(View.SUM)
        assert entry.epsilon is not None
        for cell in CELLS:
            assert entry.epsilon[cell].planned == pytest.approx(plan.epsilon(*cell))


@pytest.mark.parametrize("killed_after", [1, 2, 3])
def test_a_run_that_comes_back_goes_on_from_what_it_spent(tmp_path: Path, killed_after: int) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    whole.mkdir()
    halves.mkdir()
    with spending(config_of(), whole) as spent:
        for number in range(1, 5):
            spent.charge(number)
    with spending(config_of(), halves) as spent:
        for number in range(1, killed_after + 1):
            spent.charge(number)
    with spending(config_of(), halves, killed_after) as spent:
        spent.charge_moments()  # there are none
        assert spent.record is not None
        for number in range(killed_after, 5):
            spent.charge(number)
        spent.charge_moments()
    one, other = (verify_ledger(folder / "ledger.jsonl").entries for folder in (whole, halves))
    assert one == other


@pytest.mark.parametrize(
    "changed",
    ["measured.radius=0.9", "measured.record_clip=1.5", "privacy.flip=0.3", "measured.records=5"],
)
def test_a_ledger_of_other_clips_is_not_written_on(tmp_path: Path, changed: str) -> None:
    with spending(config_of(), tmp_path) as spent:
        spent.charge(1)
    with pytest.raises(RunFolderError, match="of another release"):
        spending(config_of(changed), tmp_path, 1)


def test_a_client_that_misses_rounds_pays_for_those_that_it_is_in(tmp_path: Path) -> None:
    """Its own ledger counts 1, 2, ...; what a round costs goes by the federation's number."""
    plan = Plan(config_of(), DIMENSION, sizes=SIZES)
    for number, asked in ((1, 2), (2, 4)):
        with spending(config_of(), tmp_path, None) as spent:
            spent.charge(number, federation_round=asked)
    entries = verify_ledger(tmp_path / "ledger.jsonl").entries
    assert [entry.release for entry in entries] == [plan.measured[at].as_dict() for at in (1, 3)]
    done = [plan.measured[at] for at in (1, 3)]
    for view in View:
        found = composed(done, Unit.RECORD).epsilon(view, Adjacency.ZERO_OUT)
        assert entries[-1].record.spent[view].to_date == pytest.approx(found)  # type: ignore[union-attr, index]
    with (
        spending(config_of(), tmp_path, None) as spent,
        pytest.raises(RunFolderError, match="round 5 is not one"),
    ):
        spent.charge(3, federation_round=5)


def test_a_client_that_is_asked_twice_in_one_round_has_no_plan_that_holds(tmp_path: Path) -> None:
    with spending(config_of("measured.growth=1.5"), tmp_path, None) as spent:
        spent.charge(1, federation_round=3)
        spent.charge(2, federation_round=3)
    entry = verify_ledger(tmp_path / "ledger.jsonl").entries[-1]
    assert entry.record is not None
    assert entry.record.spent is not None
    assert entry.record.spent[View.SUM].planned is None
    assert entry.record.epsilon == entry.record.spent[View.SUM].to_date


def test_aborted_rounds_cost_what_others_do_and_test_coins_claim_nothing(tmp_path: Path) -> None:
    with spending(config_of(), tmp_path) as spent:
        spent.charge(1)
        before = spent.record
        spent.charge(2, kind="aborted")
        assert before is not None
        assert spent.record is not None
        assert spent.record.epsilon > before.epsilon
    (tmp_path / "test").mkdir()
    with spending(config_of(), tmp_path / "test", coins="test") as spent:
        spent.charge(1)
        assert spent.record is None
    with spending(config_of(), tmp_path / "test", 1, coins="test") as spent:
        spent.charge(2)


@pytest.mark.parametrize(
    ("key", "unit"), [("budget.epsilon", Unit.CLIENT), ("budget.image_epsilon", Unit.RECORD)]
)
def test_a_budget_of_either_unit_ends_the_plan_before_it_is_passed(key: str, unit: Unit) -> None:
    measured = Plan(config_of(), DIMENSION, sizes=SIZES).measured
    cost = [
        composed(list(measured[:n]), unit).epsilon(View.SUM, Adjacency.ZERO_OUT)
        for n in range(1, len(measured) + 1)
    ]
    for rounds in (1, 2, 3):
        limit = (cost[rounds - 1] + cost[rounds]) / 2
        plan = Plan(config_of(f"{key}={limit}"), DIMENSION, sizes=SIZES)
        assert plan.rounds == rounds
        assert plan.account(unit).epsilon(View.SUM, Adjacency.ZERO_OUT) <= limit
    with pytest.raises(ConfigError, match=rf"{key.replace('.', chr(92) + '.')} = .* admits no round"):
        Plan(config_of(f"{key}={cost[0] / 2}"), DIMENSION, sizes=SIZES)


def test_the_tighter_of_two_budgets_counts() -> None:
    plan = Plan(config_of(), DIMENSION, sizes=SIZES)
    client, image = plan.epsilon(View.SUM, Adjacency.ZERO_OUT), plan.image_epsilon(View.SUM)
    both = config_of(f"budget.epsilon={client * 2}", f"budget.image_epsilon={image * 0.9}")
    assert Plan(both, DIMENSION, sizes=SIZES).rounds < 4
    assert both.limits == f"budget.epsilon = {client * 2} and budget.image_epsilon = {image * 0.9}"


def test_growth_is_told_for_both_units() -> None:
    plan = Plan(config_of(), DIMENSION, sizes=SIZES)
    lines = [line.split() for line in _growth(plan, "image")[3:]]
    assert [int(line[0]) for line in lines] == [1, 2, 4]
    for column in (3, 4, 5, 6):
        values = [float(line[column]) for line in lines]
        assert values == sorted(set(values))
    assert _growth(Plan(load_config(None, ["privacy.record_epsilon=inf"]), DIMENSION), "image") == []


def test_what_the_ledger_refuses_spending_never_writes(tmp_path: Path) -> None:
    """The books of an image that leave out a round are no ledger's."""
    with spending(config_of(), tmp_path) as spent:
        for number in (1, 2):
            spent.charge(number)
        plan, ledger = spent._plan, spent._ledger
        client, image = (
            composed(list(plan.measured[:3]), Unit.CLIENT),
            composed([plan.measured[2]], Unit.RECORD),
        )
        assert isinstance(ledger, Ledger)
        with pytest.raises(InvalidParameter, match=r"is stated as|changes from"):
            ledger.append(
                round=3,
                release=plan.measured[2],
                delta=1e-5,
                epsilon=spent_table(client, plan.measured[2].release(Unit.CLIENT)),
                record=RecordGuarantee.measured(plan.measured[2], image),
            )
