"""Measured rounds that invite some of the clients: each pays for its own, and the largest is stated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from safetensors.numpy import load

from prism_privacy import (
    Accountant,
    Adjacency,
    MeasuredRelease,
    Unit,
    View,
    verify_ledger,
)
from prism_privacy.ledger.composition import charging_one_client, mask_releases
from prism_secure.accounting import measured as plans
from prism_secure.accounting.epsilons import CELLS
from prism_secure.accounting.measured import calibrate_measured
from prism_secure.accounting.plan import Plan
from prism_secure.accounting.spending import Spending
from prism_secure.audit.run_audit import audit_run, summary
from prism_secure.config import Config, load_config
from prism_secure.config.invitations import invited
from prism_secure.rounds.simulation import run
from prism_secure.run_folder.folder import read_records

from .test_measured_rounds import MEASURED
from .test_measured_spending import DIMENSION, SIZES, Place
from .tiny_data import TINY, killed_in_round, outcome, same_secrets, write_data

SOME = [
    "federation.behaviour=measure", "privacy.record_epsilon=inf", "privacy.flip=0.25", "federation.rounds=7",
    "federation.clients=10", "federation.client_fraction=0.4", "measured.directions=16",
    "measured.coordinates=256", "measured.growth=1.3", "secure_sum.min_survivors=4", "privacy.colluders=1",
    "secure_sum.threshold=3",
]  # fmt: skip
FIXED = ["measured.epsilon=inf", "measured.radius=1"]


def config_of(*more: str) -> Config:
    return load_config(None, [*SOME, *more])


def own_rounds(config: Config, client: int, rounds: int) -> list[int]:
    return [number for number in range(1, rounds + 1) if client in invited(config, number)]


def brute_force(
    config: Config,
    releases: Sequence[MeasuredRelease],
    rounds: int,
    unit: Unit,
    view: View,
    adjacency: Adjacency,
) -> float:
    return max(each_by_itself(config, releases, rounds, unit, view, adjacency))


def each_by_itself(
    config: Config,
    releases: Sequence[MeasuredRelease],
    rounds: int,
    unit: Unit,
    view: View,
    adjacency: Adjacency,
) -> list[float]:
    """Every client with an accountant of its own."""
    found = []
    for client in range(config.federation.clients):
        accountant = Accountant(delta=config.privacy.delta)
        for number in own_rounds(config, client, rounds):
            accountant.spend(releases[number - 1].release(unit))
        found.append(accountant.epsilon(view, adjacency))
    return found


def test_the_plan_is_that_of_the_client_whose_rounds_cost_most() -> None:
    config = config_of(*FIXED)
    plan = Plan(config, DIMENSION, sizes=SIZES)
    assert {release.cohort for release in plan.measured} == {3}, "honest ones of the four invited"
    for view, adjacency in CELLS:
        expected = brute_force(config, plan.measured, 7, Unit.CLIENT, view, adjacency)
        assert plan.epsilon(view, adjacency) == pytest.approx(expected, rel=1e-12)
    for view in View:
        expected = brute_force(config, plan.measured, 7, Unit.RECORD, view, Adjacency.ZERO_OUT)
        assert plan.image_epsilon(view) == pytest.approx(expected, rel=1e-12)
    everybody = Accountant(delta=config.privacy.delta)
    for release in plan.measured:
        everybody.spend(release.release(Unit.CLIENT))
    alone = Accountant(delta=config.privacy.delta)
    alone.spend(plan.measured[-1].release(Unit.CLIENT))
    cell = View.SUM, Adjacency.ZERO_OUT
    assert alone.epsilon(*cell) < plan.epsilon(*cell) < everybody.epsilon(*cell)


@pytest.mark.parametrize(("unit", "named"), [(Unit.CLIENT, "client"), (Unit.RECORD, "image")])
def test_the_client_whose_rounds_cost_most_meets_the_epsilon(unit: Unit, named: str) -> None:
    config = config_of(f"measured.unit={named}", "measured.epsilon=3")
    releases = plans.releases(config, DIMENSION, SIZES)
    costs = each_by_itself(config, releases, 7, unit, View.SUM, Adjacency.ZERO_OUT)
    assert 0.99 * 3 < max(costs) <= 3
    # The others' clips alone would let it pass: the calibrations of the dearest and of the cheapest.
    dearest, cheapest = (
        calibrate_measured(
            [releases[number - 1] for number in own_rounds(config, costs.index(cost), 7)],
            epsilon=3, delta=config.privacy.delta, unit=unit, view=View.SUM,
            adjacency=Adjacency.ZERO_OUT if unit is Unit.CLIENT else "swap",
        ).factor
        for cost in (max(costs), min(costs))
    )  # fmt: skip
    assert dearest == pytest.approx(1, rel=2e-3)
    assert cheapest > 1.01


def test_the_smallest_calibration_counts_in_whatever_order_clients_come() -> None:
    """Also where the largest sum of squares is not the dearest."""
    config = config_of(*FIXED)
    each = plans.releases(config, DIMENSION, SIZES)[0]
    measured, delta = msgspec.structs.replace(config.measured, epsilon=4.0), config.privacy.delta
    clients = [
        [replace(each, clip=clip) for clip in clips] for clips in ([0.4, 0.4], [0.5], [0.3] * 4, [0.2])
    ]
    factors = [plans._calibrated([own], measured, delta).factor for own in clients]
    for order in (clients, clients[::-1]):
        assert plans._calibrated(order, measured, delta).factor == pytest.approx(min(factors), rel=2e-3)


def test_a_budget_is_that_of_the_largest(tmp_path: Path) -> None:
    config = config_of(*FIXED)
    plan = Plan(config, DIMENSION, sizes=SIZES)
    limit = 1.0001 * brute_force(config, plan.measured, 4, Unit.CLIENT, View.SUM, Adjacency.ZERO_OUT)
    shorter = Plan(config_of(*FIXED, f"budget.epsilon={limit}"), DIMENSION, sizes=SIZES)
    assert shorter.rounds == 4
    assert shorter.epsilon(View.SUM, Adjacency.ZERO_OUT) <= limit


def test_entries_state_the_largest_to_date_and_resume_alike(tmp_path: Path) -> None:
    config = config_of(*FIXED)
    plan = Plan(config, DIMENSION, sizes=SIZES)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    whole.mkdir()
    halves.mkdir()
    with Spending(config, Place(whole), DIMENSION, 0, sizes=SIZES) as spent:
        for number in range(1, 8):
            table = spent.charge(number).table
            for view, adjacency in CELLS:
                expected = brute_force(config, plan.measured, number, Unit.CLIENT, view, adjacency)
                assert table[view, adjacency] == pytest.approx(expected, rel=1e-12)
            image = [
                brute_force(config, plan.measured, number, Unit.RECORD, view, Adjacency.ZERO_OUT)
                for view in (View.SUM, View.UPLOAD)
            ]
            assert spent.record is not None
            assert [spent.record.epsilon, spent.record.upload] == pytest.approx(image, rel=1e-12)
    with Spending(config, Place(halves), DIMENSION, 0, sizes=SIZES) as spent:
        for number in range(1, 4):
            spent.charge(number)
    with Spending(config, Place(halves), DIMENSION, 3, sizes=SIZES) as spent:
        for number in range(3, 8):
            spent.charge(number)
    entries, others = (verify_ledger(folder / "ledger.jsonl").entries for folder in (whole, halves))
    assert entries == others
    for number, entry in enumerate(entries, 1):
        assert entry.metrics["invited"] == list(invited(config, number))
        assert entry.release == plan.measured[number - 1].as_dict()
        assert entry.record is not None
        assert entry.record.epsilon == plan.image_epsilon(View.SUM)
        assert entry.epsilon is not None
        for cell in CELLS:
            assert entry.epsilon[cell].planned == plan.epsilon(*cell)
    # What is added up over several ledgers covers every client.
    masks, images = mask_releases(charging_one_client(entries))
    for unit, found in ((Unit.CLIENT, masks), (Unit.RECORD, images)):
        assert len(found) == 3, "four of ten in seven rounds: nobody more than three times"
        accountant = Accountant(delta=config.privacy.delta)
        for mask in found:
            accountant.spend(mask)
        cell = View.SUM, Adjacency.ZERO_OUT
        assert accountant.epsilon(*cell) >= brute_force(config, plan.measured, 7, unit, *cell)


def test_a_clients_own_ledger_charges_its_own_rounds_of_the_plan_of_all(tmp_path: Path) -> None:
    config = config_of(*FIXED)
    plan = Plan(config, DIMENSION, sizes=SIZES)
    to_date = []
    for client in range(10):
        folder = tmp_path / str(client)
        folder.mkdir()
        mine = own_rounds(config, client, 7)
        for number in mine:
            with Spending(config, Place(folder), DIMENSION, None, sizes=SIZES, client=client) as spent:
                assert spent.planned_rounds == plan.rounds == 7
                spent.charge(spent.charged_rounds + 1, federation_round=number)
        entries = verify_ledger(folder / "ledger.jsonl").entries
        assert [entry.metrics for entry in entries] == [{"federation_round": number} for number in mine]
        assert charging_one_client(entries) == list(entries)
        for view, adjacency in CELLS:
            each = each_by_itself(config, plan.measured, 7, Unit.CLIENT, view, adjacency)
            assert entries[-1].epsilon[view, adjacency].to_date == pytest.approx(each[client], rel=1e-12)
            assert entries[-1].epsilon[view, adjacency].planned == plan.epsilon(view, adjacency)
        assert entries[-1].record.epsilon == plan.image_epsilon(View.SUM), "what is planned"
        to_date.append(entries[-1].record.spent[View.SUM].to_date)
    assert max(to_date) == plan.image_epsilon(View.SUM) > min(to_date)


def test_a_clients_own_ledger_adds_up_whatever_the_client_answers(tmp_path: Path) -> None:
    """Also a round that does not invite it: nobody else's account is its own."""
    config = config_of(*FIXED)
    client = invited(config, 1)[0]
    assert client not in invited(config, 2)
    with Spending(config, Place(tmp_path), DIMENSION, None, sizes=SIZES, client=client) as spent:
        for number in (1, 2):
            to_date = spent.charge(number, federation_round=number)
    both = Accountant(delta=config.privacy.delta)
    for release in Plan(config, DIMENSION, sizes=SIZES).measured[:2]:
        both.spend(release.release(Unit.CLIENT))
    for cell in CELLS:
        assert to_date.table[cell] == pytest.approx(both.epsilon(*cell), rel=1e-12)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "images")


def tiny(data: Path, *overrides: str) -> Config:
    some = ["federation.clients=6", "federation.client_fraction=0.5", "federation.rounds=3",
            "metrics.every=3", "measured.growth=1.5", "measured.coordinates=256"]  # fmt: skip
    return load_config(None, [*TINY, *MEASURED, f"data.folder={data}", *some, *overrides])


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("some") / "run"
    run(tiny(data), out)
    return out


def test_a_run_is_charged_as_planned_and_the_auditor_agrees(finished: Path) -> None:
    assert [record.survivors for record in read_records(finished)] == [3, 3, 3]
    audit = audit_run(finished)
    assert audit.verdict == "clean", summary(audit)


def test_workers_change_nothing(finished: Path, data: Path, tmp_path: Path) -> None:
    out = same_secrets(finished, tmp_path / "run")
    run(tiny(data, "federation.workers=2"), out)
    assert outcome(out) == outcome(finished)


def test_a_killed_run_goes_on_to_the_same_model(finished: Path, data: Path, tmp_path: Path) -> None:
    """kill -9, in the second round, when its uploads are on disk and the sum is not open."""
    out = same_secrets(finished, tmp_path / "run")
    killed_in_round(2, tiny(data), out)
    assert load((out / "checkpoint" / "server.safetensors").read_bytes())["round"] == 1
    run(tiny(data), out)
    assert outcome(out) == outcome(finished)
