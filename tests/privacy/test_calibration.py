"""Calibration returns the side on which the accountant's own ε is at most the target."""

from __future__ import annotations

import math

import pytest

from prism_privacy import (
    Accountant,
    Adjacency,
    Calibration,
    CalibrationError,
    InvalidParameter,
    MaskRelease,
    View,
    calibrate,
)
from prism_privacy.accounting.calibration import _bisect, _Rising

ZERO_OUT = Adjacency.ZERO_OUT


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def spent(found: Calibration, **change: float) -> float:
    accountant = Accountant(found.delta)
    accountant.spend(MaskRelease(**{**found.release.as_dict(), **change}), found.rounds)  # type: ignore[arg-type]
    return accountant.epsilon(found.view, found.adjacency)


@pytest.mark.parametrize("adjacency", list(Adjacency))
@pytest.mark.parametrize(
    ("view", "cohort", "epsilon", "space"),
    [
        (View.SUM, 60, 8.0, "probability"),
        (View.SUM, 60, 0.4, "probability"),
        (View.SUM, 60, 2.0, "score"),
        (View.UPLOAD, None, 20.0, "probability"),
        (View.UPLOAD, None, 20.0, "score"),
    ],
)
def test_the_clip_found_is_the_largest_that_stays_within_epsilon(
    view: View, cohort: int | None, epsilon: float, space: str, adjacency: Adjacency
) -> None:
    found = calibrate(
        epsilon=epsilon,
        delta=1e-5,
        rounds=30,
        cohort=cohort,
        flip=0.2,
        view=view,
        adjacency=adjacency,
        space=space,
    )
    assert found.clip is not None
    assert spent(found) == found.epsilon <= epsilon
    assert spent(found, clip=found.clip * 1.003) > epsilon


def test_the_flip_found_is_the_smallest_that_stays_within_epsilon() -> None:
    found = calibrate(
        epsilon=5.0, delta=1e-5, rounds=20, cohort=50, clip=0.5, view=View.SUM, adjacency=ZERO_OUT
    )
    assert 0.0 < found.flip < 0.5
    assert spent(found) == found.epsilon <= 5.0
    assert spent(found, flip=found.flip * 0.995) > 5.0


def test_the_cohort_found_is_the_smallest_that_stays_within_epsilon() -> None:
    found = calibrate(
        epsilon=5.0, delta=1e-5, rounds=20, clip=1.0, flip=0.25, view=View.SUM, adjacency=ZERO_OUT
    )
    assert spent(found) == found.epsilon <= 5.0
    assert spent(found, cohort=found.cohort - 1) > 5.0


def test_a_target_that_the_box_alone_meets_gives_the_clip_of_the_box() -> None:
    found = calibrate(
        epsilon=9.0, delta=1e-5, rounds=2, flip=0.25, cohort=50, view=View.SUM, adjacency=ZERO_OUT, dim=4
    )
    assert found.clip == pytest.approx(0.5 * math.sqrt(4))
    assert found.epsilon < 9.0


def test_a_target_out_of_reach_names_the_nearest_that_can_be_had() -> None:
    with pytest.raises(
        CalibrationError,
        match=r"no flip between 1e-06 and 0\.4999 reaches ε = 0\.5, and none outside was tried: "
        r"the nearest is flip = 0\.4999",
    ) as error:
        calibrate(epsilon=0.5, delta=1e-5, rounds=100, cohort=10, clip=1.0, view=View.SUM, adjacency=ZERO_OUT)
    assert error.value.nearest is not None
    assert error.value.nearest > 0.5
    assert error.value.at == pytest.approx(0.4999)
    with pytest.raises(CalibrationError, match="ε = inf"):
        calibrate(epsilon=8.0, delta=1e-5, rounds=1, cohort=10, flip=0.0, view=View.SUM, adjacency=ZERO_OUT)


@pytest.mark.parametrize(
    ("question", "largest"),
    [
        ({}, 0.0314),
        ({"sum_failure": 1e-6}, 0.0314),
        ({"sum_failure": 0.5, "space": "score"}, 0.3124),
        ({"sum_failure": 2e-6, "adjacency": Adjacency.REPLACE_ONE}, 0.0157),
        ({"epsilon": 5.0, "delta": 1e-12, "cohort": 300, "sum_failure": 2.0**-40}, 0.0879),
        ({"sum_failure": 0.99e-6}, 0.0523),
    ],
)
def test_where_failures_of_the_sum_take_all_of_delta_the_clip_comes_from_the_uploads(
    question: dict[str, float], largest: float
) -> None:
    asked = {"epsilon": 1.0, "delta": 1e-5, "cohort": 10, "sum_failure": 1.1e-6, "adjacency": ZERO_OUT}
    found = calibrate(**{**asked, **question}, rounds=10, flip=0.25, view=View.SUM)  # type: ignore[arg-type]
    assert found.clip == pytest.approx(largest, rel=2e-2)
    assert spent(found) == found.epsilon <= found.target
    assert spent(found, clip=found.clip * 1.001) > found.target  # type: ignore[operator]


@pytest.mark.parametrize("failure", [1e-6, 1.1e-6, 1.0])
def test_so_do_the_flip_and_the_cohort(failure: float) -> None:
    asked = {"epsilon": 8.0, "delta": 1e-5, "rounds": 10, "clip": 0.2, "sum_failure": failure}
    flip = calibrate(**asked, cohort=10, view=View.SUM, adjacency=ZERO_OUT)  # type: ignore[arg-type]
    assert spent(flip) == flip.epsilon <= 8.0 < spent(flip, flip=flip.flip * 0.999)
    cohort = calibrate(**asked, flip=0.25, view=View.SUM, adjacency=ZERO_OUT)  # type: ignore[arg-type]
    assert cohort.cohort == 1, "the upload alone is within ε, so any cohort is"
    assert spent(cohort) == cohort.epsilon <= 8.0


@pytest.mark.parametrize(
    "question",
    [
        {"flip": 0.25, "cohort": 10},
        {"clip": 1.0, "cohort": 10},
        {"flip": 0.25, "clip": 1.0},
    ],
)
def test_a_failed_search_claims_no_more_than_it_tried(question: dict[str, float]) -> None:
    """Smaller clips, flips nearer to ½ and larger cohorts than are tried may well reach the target."""
    with pytest.raises(
        CalibrationError, match=r"between .* and .* reaches .* none outside was tried"
    ) as error:
        calibrate(epsilon=1e-12, delta=1e-5, rounds=10, view=View.SUM, adjacency=ZERO_OUT, **question)  # type: ignore[arg-type]
    assert error.value.nearest is not None
    assert error.value.nearest > 1e-12


def test_a_box_below_the_smallest_clip_is_searched_too() -> None:
    found = calibrate(
        epsilon=1e-3, delta=1e-9, rounds=1, flip=0.49999, cohort=2, view=View.SUM, adjacency=ZERO_OUT, dim=1
    )
    assert found.clip == pytest.approx(2e-5)


@pytest.mark.parametrize(
    "given",
    [
        {"flip": 0.25, "clip": 1.0, "cohort": 10},
        {"flip": 0.25},
        {},
        {"flip": 0.25, "clip": 1.0, "view": View.UPLOAD},
        {"flip": 0.7, "cohort": 10},
        {"flip": 0.25, "cohort": 10, "epsilon": 0.0},
        {"flip": 0.25, "cohort": 10, "rounds": 0},
    ],
)
def test_exactly_one_parameter_is_free(given: dict[str, object]) -> None:
    question: dict[str, object] = {
        "epsilon": 1.0,
        "delta": 1e-5,
        "rounds": 5,
        "view": View.SUM,
        "adjacency": ZERO_OUT,
    }
    with pytest.raises(InvalidParameter):
        calibrate(**{**question, **given})  # type: ignore[arg-type]


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("kind", ["smooth", "steps", "a jump", "infinite above"])
def test_secants_find_what_bisection_does_with_a_fraction_of_the_values(kind: str, power: float) -> None:
    def epsilon(x: float) -> float:
        asked.append(x)
        if kind == "steps":
            x = math.floor(40.0 * x) / 40.0
        if kind == "infinite above" and x > 3.0:
            return math.inf
        return math.exp(power * x) * (5.0 if kind == "a jump" and x > 1.0 else 1.0)

    asked: list[float] = []
    rising = _Rising(epsilon)
    for target in (1e-12, 0.02, 2.0, 2.1, 30.0, 1e9):
        plain = _bisect(-10.0, 10.0, lambda x, target=target: epsilon(x) <= target, 1e-4)  # type: ignore[misc]
        before = len(asked)
        assert rising.largest(-10.0, 10.0, target) == plain
        assert len(asked) - before <= 24
    assert kind != "smooth" or len(asked) <= 6 * 18 + 6 * 8
