"""The radii, what they cost, and the clips that reach an epsilon."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from prism_privacy import (
    Accountant,
    Adjacency,
    Budget,
    CalibrationError,
    InvalidParameter,
    MaskRelease,
    MeasuredRelease,
    Unit,
    View,
    calibrate,
    calibrate_measured,
    spent_table,
)

ZERO_OUT = Adjacency.ZERO_OUT
TEN = MeasuredRelease(
    flip=0.25,
    clip=49.865,
    client_clip=0.3,
    record_clip=0.3,
    records=1000,
    coordinates=1 << 16,
    directions=128,
    cohort=10,
)
"""Ten clients of a thousand images, none of which is clipped beyond its record's clip."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def epsilon(
    release: MeasuredRelease, unit: Unit = Unit.RECORD, view: View = View.SUM, rounds: int = 20, **kind: Any
) -> float:
    accountant = Accountant(delta=1e-5)
    accountant.spend(release.release(unit, **kind), rounds)
    return accountant.epsilon(view, ZERO_OUT)


def test_radii_are_those_of_the_theorem() -> None:
    release = MeasuredRelease(0.25, 0.5, 0.2, 0.3, 10, 1024, 8, cohort=7, sum_failure=2**-40, sigma_max=1.5)
    slack = 2**-24 * 32 + 2**-30 * 1.5 * 0.5
    assert release.slack == pytest.approx(slack, rel=1e-12)
    swap = 0.5 / 0.2 * 1.5 * 2 * 0.3 / 10
    assert release.record_radius() == pytest.approx(swap + slack, rel=1e-12)
    assert release.record_radius() >= swap + slack
    assert release.record_radius("add_remove") == pytest.approx(swap / 2 + slack, rel=1e-12)
    assert release.release(Unit.CLIENT) == MaskRelease(0.25, 0.5, 7, dim=1024, sum_failure=2**-40)
    for adjacency in ("swap", "add_remove"):
        mask = release.release(Unit.RECORD, adjacency)  # type: ignore[arg-type]
        assert mask.radius(ZERO_OUT) == release.record_radius(adjacency)  # type: ignore[arg-type]
        assert (mask.cohort, mask.sum_failure, mask.dim, mask.flip) == (7, 2**-40, 1024, 0.25)
    client = release.release(Unit.CLIENT)
    assert (client.radius(ZERO_OUT), client.radius(Adjacency.REPLACE_ONE)) == (0.5, 1.0)


def test_a_record_moves_no_further_than_its_client() -> None:
    release = MeasuredRelease(0.25, 0.5, 0.2, 3.0, 2, 1024, 8)
    for adjacency in ("swap", "add_remove"):
        assert release.record_radius(adjacency) == 1.0  # type: ignore[arg-type]


def test_what_a_server_or_a_careless_client_changes_shows_in_epsilon() -> None:
    assert epsilon(TEN) == pytest.approx(2.0, abs=0.005)
    assert epsilon(TEN, view=View.UPLOAD) == pytest.approx(5.09, abs=0.02)
    # another E than one of orthonormal columns, not charged for: 2.0 would have been 6.1
    assert epsilon(replace(TEN, sigma_max=3.0)) == pytest.approx(6.1, abs=0.05)
    # the private count of 100 images in place of the public 1,000
    assert epsilon(replace(TEN, records=100)) == pytest.approx(23.9, abs=0.1)
    assert epsilon(TEN, adjacency="add_remove") < epsilon(TEN) / 2
    # colluders are not hidden by each other: the cohort is what is left without them
    assert epsilon(replace(TEN, cohort=5)) > 1.3 * epsilon(TEN)


@pytest.mark.parametrize("unit", list(Unit))
@pytest.mark.parametrize("view", list(View))
def test_epsilon_grows_round_by_round_in_the_accountant_as_it_is(unit: Unit, view: View) -> None:
    release = replace(TEN, clip=1.0, client_clip=0.01, records=20)
    accountant = Accountant(delta=1e-5)
    accountant.plan(release.release(unit), 6)
    accountant.spend(release.release(unit), 5)
    to_date = [point.to_date.epsilon for point in accountant.curve(view, ZERO_OUT)]
    assert to_date == sorted(set(to_date))
    assert math.isfinite(to_date[-1])
    assert accountant.planned(view, ZERO_OUT).epsilon > to_date[-1]
    table = spent_table(accountant, release.release(unit), None)
    assert table[view, ZERO_OUT].to_date == to_date[-1]
    budget = Budget(to_date[-1], delta=1e-5, view=view, adjacency=ZERO_OUT)
    assert 1 <= budget.rounds_left(release.release(unit)) <= 5


def test_a_release_survives_the_json_of_a_ledger() -> None:
    release = replace(TEN, sum_failure=2**-40)
    assert MeasuredRelease(**json.loads(json.dumps(release.as_dict()))) == release


@pytest.mark.parametrize(
    "wrong",
    [
        {"flip": 0.5},
        {"flip": -0.1},
        {"clip": 0.0},
        {"clip": math.inf},
        {"clip": 2.0**-65},
        {"client_clip": math.nan},
        {"client_clip": -1.0},
        {"record_clip": 0},
        {"record_clip": 2.0**65},
        {"records": 0},
        {"coordinates": 0},
        {"coordinates": (1 << 20) + 1},
        {"directions": 0},
        {"directions": 4097},
        {"coordinates": 64},
        {"cohort": 0},
        {"sum_failure": 2.0},
        {"sigma_max": 0.99},
        {"sigma_max": math.inf},
    ],
)
def test_a_release_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(
        InvalidParameter, match=next(iter(wrong)) if wrong != {"coordinates": 64} else "directions"
    ):
        replace(TEN, **wrong)


def test_an_adjacency_of_the_other_unit_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="swap"):
        TEN.release(Unit.RECORD, Adjacency.ZERO_OUT)  # type: ignore[arg-type]
    for unit, adjacency in ((Unit.RECORD, ZERO_OUT), (Unit.RECORD, "none"), (Unit.CLIENT, "swap")):
        with pytest.raises(InvalidParameter):
            calibrate_measured(
                [TEN],
                epsilon=1.0,
                delta=1e-5,
                unit=unit,
                view=View.SUM,
                adjacency=adjacency,  # type: ignore[arg-type]
            )
    with pytest.raises(InvalidParameter, match="at least one round"):
        calibrate_measured([], epsilon=1.0, delta=1e-5, unit=Unit.CLIENT, view=View.SUM, adjacency=ZERO_OUT)


def test_the_client_s_clip_found_is_that_of_calibrate() -> None:
    plan = [replace(TEN, clip=3.0, coordinates=8192)] * 7
    found = calibrate_measured(
        plan, epsilon=3.0, delta=1e-5, unit=Unit.CLIENT, view=View.SUM, adjacency=Adjacency.REPLACE_ONE
    )
    other = calibrate(
        epsilon=3.0,
        delta=1e-5,
        rounds=7,
        cohort=10,
        flip=0.25,
        view=View.SUM,
        adjacency=Adjacency.REPLACE_ONE,
        dim=8192,
    )
    assert found.releases[0].clip == pytest.approx(other.clip, rel=1e-3)
    assert found.epsilon <= 3.0


@pytest.mark.parametrize("view", list(View))
@pytest.mark.parametrize("adjacency", ["swap", "add_remove"])
def test_the_factor_found_is_the_largest_that_stays_within_epsilon(view: View, adjacency: Any) -> None:
    # clips A that fall by a public rule, a first round at half the budget's scale, a flip that changes
    plan = [
        replace(TEN, clip=clip, client_clip=max(0.1, 0.3 * 0.7**t), record_clip=0.3, flip=0.25 if t else 0.2)
        for t, clip in enumerate((0.5, 1.0, 1.0, 1.5))
    ]
    found = calibrate_measured(
        plan, epsilon=2.0, delta=1e-5, unit=Unit.RECORD, view=view, adjacency=adjacency
    )

    def spent(factor: float) -> float:
        accountant = Accountant(delta=1e-5)
        for release in found.releases:
            accountant.spend(release.scaled(factor).release(Unit.RECORD, adjacency))
        return accountant.epsilon(view, ZERO_OUT)

    assert spent(1.0) == found.epsilon <= 2.0
    assert spent(1.003) > 2.0
    ratios = [release.clip / old.clip for release, old in zip(found.releases, plan, strict=True)]
    assert ratios == pytest.approx([found.factor] * 4)
    assert [release.client_clip for release in found.releases] == [old.client_clip for old in plan]


def test_an_epsilon_that_no_clip_reaches_says_what_the_nearest_is() -> None:
    with pytest.raises(CalibrationError, match="factor on the clips") as caught:
        calibrate_measured(
            [replace(TEN, flip=0.0)],
            epsilon=1.0,
            delta=1e-5,
            unit=Unit.CLIENT,
            view=View.SUM,
            adjacency=ZERO_OUT,
        )
    assert caught.value.nearest == math.inf
