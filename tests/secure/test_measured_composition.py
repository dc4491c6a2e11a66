"""Measured rounds in several ledgers on the same images add up like rounds of one."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prism_privacy import Accountant, Adjacency, MaskRelease, MeasuredRelease, MomentRelease, Unit, View
from prism_privacy.accounting.kappa.store import ORDERS
from prism_privacy.accounting.renyi import renyi_curve, to_epsilon
from prism_privacy.ledger.composition import Charged, ClientTotal, ImageTotal
from prism_privacy.ledger.entry import RecordGuarantee
from prism_secure.audit.spent_ledgers import read_ledgers

from .test_measured_spending import config_of, spending

DELTA = 1e-5
ROUND = MeasuredRelease(
    flip=0.25,
    clip=1.0,
    client_clip=0.1,
    record_clip=0.3,
    records=10,
    coordinates=256,
    directions=16,
    cohort=10,
)


def charged(name: str, rounds: int, release: MeasuredRelease = ROUND, adjacency: str = "swap") -> Charged:
    accountant = Accountant(DELTA)
    image = release.release(Unit.RECORD, adjacency)  # type: ignore[arg-type]
    accountant.spend(image, rounds)
    return Charged(
        name=name,
        masks=(release.release(Unit.CLIENT),) * rounds,
        claims=True,
        record=RecordGuarantee.measured(release, accountant, adjacency),  # type: ignore[arg-type]
        release=name,
        opened=None,
        images=(image,) * rounds,
    )


def moments(epsilon: float) -> Charged:
    release = MomentRelease.calibrated(epsilon=epsilon, delta=DELTA, records=1000)
    record = RecordGuarantee.of(release, DELTA)
    return Charged("moments", (), True, record, "moments", None)


def total_of(*ledgers: Charged, adjacency: str = "swap") -> ImageTotal:
    total = ImageTotal(adjacency)
    for ledger in ledgers:
        total.add(ledger)
    return total


def alone(rounds: dict[MaskRelease, int]) -> float:
    accountant = Accountant(DELTA)
    for release, times in rounds.items():
        accountant.spend(release, times)
    return accountant.epsilon(View.SUM, Adjacency.ZERO_OUT)


def test_one_ledger_states_what_it_states_itself() -> None:
    one = charged("one", 5)
    assert one.record is not None
    assert total_of(one).epsilon(DELTA) == pytest.approx(one.record.epsilon, rel=1e-9)


def test_two_ledgers_cost_an_image_as_all_their_rounds_in_one() -> None:
    other = replace(ROUND, clip=0.5, flip=0.4)
    total = total_of(charged("one", 3), charged("other", 4, other))
    both = {ROUND.release(Unit.RECORD): 3, other.release(Unit.RECORD): 4}
    assert total.epsilon(DELTA) == pytest.approx(alone(both), rel=1e-9)
    assert total.releases == 2


def test_rounds_and_moments_of_the_same_images_add_up_by_their_curves() -> None:
    total = total_of(charged("one", 5), moments(2.0))
    release = MomentRelease.calibrated(epsilon=2.0, delta=DELTA, records=1000)
    squared = (release.sensitivity / release.noise) ** 2
    curve = ORDERS * squared / 2 + 5 * renyi_curve(ROUND.release(Unit.RECORD), View.SUM, Adjacency.ZERO_OUT)
    assert total.epsilon(DELTA) == pytest.approx(to_epsilon(np.asarray(curve), DELTA)[0], rel=1e-3)
    apart = total_of(charged("one", 5)).epsilon(DELTA), total_of(moments(2.0)).epsilon(DELTA)
    assert max(apart) < total.epsilon(DELTA) < sum(apart)


def test_failures_of_the_sum_are_paid_out_of_delta() -> None:
    failing = replace(ROUND, sum_failure=DELTA / 20)
    total = total_of(charged("one", 5, failing), moments(2.0))
    assert total.epsilon(DELTA) > total_of(charged("one", 5), moments(2.0)).epsilon(DELTA)


@pytest.mark.parametrize(
    "ledger",
    [
        charged("added", 2, adjacency="add_remove"),
        replace(charged("silent", 2), record=None, images=()),
        replace(charged("in part", 2), images=(ROUND.release(Unit.RECORD),)),
        replace(charged("coins", 2), claims=False),
    ],
    ids=lambda ledger: ledger.name,
)
def test_what_claims_nothing_for_a_swapped_image_leaves_no_bound(ledger: Charged) -> None:
    total = ImageTotal("swap")
    told = total.add(ledger)
    assert told is not None
    assert told.startswith("no bound")
    assert math.isinf(total.epsilon(DELTA))


def test_ledgers_on_disk_are_composed_for_both_units(tmp_path: Path) -> None:
    releases: list[MeasuredRelease] = []
    for name, radius in (("one", 1.0), ("two", 0.5)):
        (tmp_path / name).mkdir()
        with spending(config_of(f"measured.radius={radius}"), tmp_path / name) as spent:
            for number in range(1, 4):
                spent.charge(number)
            releases += spent._plan.measured[:3]
    found = read_ledgers([tmp_path / "one", tmp_path / "two"], [], tmp_path)
    image, client = ImageTotal("swap"), ClientTotal(View.SUM, Adjacency.ZERO_OUT)
    for ledger in found:
        assert "3 measured rounds" in str(image.add(ledger.charged))
        client.add(ledger.charged)
    for unit, total in ((Unit.RECORD, image), (Unit.CLIENT, client)):
        accountant = Accountant(DELTA)
        for release in releases:
            accountant.spend(release.release(unit))
        expected = accountant.epsilon(View.SUM, Adjacency.ZERO_OUT)
        assert total.epsilon(DELTA) == pytest.approx(expected, rel=1e-9)  # type: ignore[attr-defined]
