"""A configuration of measured rounds, and the releases that each of its rounds comes to."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace as replace_struct

from prism_privacy import Accountant, Adjacency, MeasuredRelease, Unit, View
from prism_secure.accounting import measured as plans
from prism_secure.config import load_config
from prism_secure.data.partition import partition
from prism_secure.errors import ConfigError

from .tiny_data import TINY, write_data

MEASURE = ["federation.behaviour=measure", "privacy.record_epsilon=inf", "privacy.flip=0.25"]
SMALL = [*MEASURE, "federation.rounds=4", "measured.directions=16", "measured.coordinates=256"]
SIZES = (10,) * 10
BOX = "privacy.flip alone limits how far a client moves its bits, to {:.3g}: the plan would allow C = {:,.6g}"


def spent(releases: tuple[MeasuredRelease, ...], unit: Unit, view: View = View.SUM) -> float:
    accountant = Accountant(delta=1e-5)
    for release in releases:
        accountant.spend(release.release(unit))
    return accountant.epsilon(view, Adjacency.ZERO_OUT)


@pytest.mark.parametrize(("unit", "named"), [(Unit.CLIENT, "client"), (Unit.RECORD, "image")])
@pytest.mark.parametrize("epsilon", [0.7, 3.0])
def test_all_rounds_together_reach_the_epsilon_and_do_not_pass_it(
    unit: Unit, named: str, epsilon: float
) -> None:
    config = load_config(None, [*SMALL, f"measured.unit={named}", f"measured.epsilon={epsilon}"])
    releases = plans.releases(config, 1000, SIZES)
    assert len(releases) == 4
    assert 0.99 * epsilon < spent(releases, unit) <= epsilon
    assert spent(releases, unit, View.UPLOAD) > epsilon
    assert {release.cohort for release in releases} == {10}


def test_a_cohort_is_who_must_survive_less_who_may_collude() -> None:
    config = load_config(None, [*SMALL, "secure_sum.min_survivors=9", "privacy.colluders=2"])
    fewer = plans.releases(config, 1000, SIZES)
    assert {release.cohort for release in fewer} == {7}
    assert fewer[1].clip < plans.releases(load_config(None, SMALL), 1000, SIZES)[1].clip


def test_rounds_share_the_budget_by_the_rule() -> None:
    rule = ["measured.first_round=0.5", "measured.growth=1.2"]
    fixed = ["measured.epsilon=inf", "measured.radius=1.2", "measured.record_clip=2.5"]
    releases = plans.releases(load_config(None, [*SMALL, *rule, *fixed]), 1000, SIZES)
    assert [each.clip for each in releases] == pytest.approx([0.347222, 0.833333, 1.0, 1.2], rel=1e-5)
    assert max(each.clip for each in releases) == 1.2
    assert {(each.client_clip, each.record_clip) for each in releases} == {(1.0, 2.5)}


@pytest.mark.parametrize(
    ("unit", "records", "clip"), [("client", 10, 3.16228), ("client", 1, 1.0), ("image", 1000, 1.0)]
)
def test_an_image_answers_as_much_of_a_clients_answer_as_its_unit_needs(
    unit: str, records: int, clip: float
) -> None:
    config = load_config(None, [*SMALL, f"measured.unit={unit}", f"measured.records={records}"])
    assert {each.record_clip for each in plans.releases(config, 1000, SIZES)} == {clip}


@pytest.mark.parametrize(
    ("sizes", "given", "records"),
    [((8, 12, 10), 0, 10), ((1, 1, 2), 0, 1), ((0, 0, 1), 0, 1), ((8, 12, 10), 25, 25), (None, 25, 25)],
)
def test_records_are_a_public_number(sizes: tuple[int, ...] | None, given: int, records: int) -> None:
    fixed = ["measured.epsilon=inf", "measured.radius=1", f"measured.records={given}"]
    assert plans.releases(load_config(None, [*SMALL, *fixed]), 1000, sizes)[0].records == records


def test_records_that_nobody_knows_are_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"measured\.records must be given"):
        plans.releases(load_config(None, SMALL), 1000, None)


@pytest.mark.parametrize(
    ("dimension", "asked", "found"),
    [(256, 256, 256), (1000, 0, 512), (1024, 0, 1024), (1 << 22, 0, 1 << 20), (511, 0, 256)],
)
def test_bits_fit_the_mask(dimension: int, asked: int, found: int) -> None:
    config = load_config(None, [*SMALL, f"measured.coordinates={asked}"])
    assert plans.coordinates(config.measured, dimension) == found


@pytest.mark.parametrize("dimension", [255, 100, 1])
def test_a_mask_that_is_too_short_is_told_what_it_has_room_for(dimension: int) -> None:
    most = 1 << (dimension.bit_length() - 1)
    with pytest.raises(ConfigError, match=f"at most {most} coordinates"):
        plans.releases(load_config(None, SMALL), dimension, SIZES)


def test_more_directions_than_the_longest_vector_that_fits_are_refused() -> None:
    config = load_config(None, [*MEASURE, "measured.coordinates=0"])
    with pytest.raises(ConfigError, match="no more directions than coordinates, got 64 and 128"):
        plans.releases(config, 100, SIZES)


def test_every_party_finds_the_same_clips() -> None:
    """Another process, with hash seeds of its own and fewer threads, finds the same numbers."""
    code = (
        "from prism_secure.accounting.measured import releases\n"
        "from prism_secure.config import load_config\n"
        f"print([each.as_dict() for each in releases(load_config(None, {SMALL}), 1000, {SIZES})])"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"}
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    here = plans.releases(load_config(None, SMALL), 1000, SIZES)
    assert other.stdout.strip() == str([each.as_dict() for each in here])
    for each in here:  # a last digit that a processor rounds otherwise is rounded away
        assert replace(each, clip=float(f"{each.clip:.4g}")) == each


@pytest.mark.parametrize("epsilon", [1e-9, 1e4, 1e9])
def test_an_epsilon_that_no_clips_reach_is_refused(epsilon: float) -> None:
    config = load_config(None, [*SMALL, f"measured.epsilon={epsilon}"])
    with pytest.raises(ConfigError, match=r"is reached by no clips of 4 rounds"):
        plans.releases(config, 1000, SIZES)


@pytest.mark.parametrize(
    ("overrides", "mend"),
    [
        (["privacy.record_epsilon=2"], "privacy.record_epsilon must be inf"),
        (["privacy.clip=1"], "privacy.clip must be none"),
        (["privacy.flip=0"], "privacy.flip must be above 0"),
        (["privacy.flip=0", "mask.score_layers=0.5"], "privacy.flip must be above 0"),
        (["features.bounded=false"], "features.bounded must be true"),
        (["training.variance_weight=1"], "training.variance_weight must be 0"),
        (["measured.radius=1"], "epsilon is inf or radius is none; got 2 and 1"),
        (["measured.epsilon=inf"], "or radius is none; got inf and none"),
        (["measured.coordinates=100"], "measured.coordinates must be a power of two"),
        (["measured.coordinates=64"], "at least directions = 128"),
        (["measured.record_clip=0"], "measured.record_clip must be from 2^-20"),
        (["measured.margin=0"], "measured.margin must be from 0.01"),
        (["measured.concentration=1.5"], "measured.concentration must be in (0, 1]"),
        (["measured.rows=-1"], "measured.rows must be from 1"),
        (["measured.prior=inf"], "measured.prior must be a positive number"),
        (["measured.smoothing=1.0"], "measured.smoothing must be in [0, 1)"),
        (["aggregation.rule=kalman"], "aggregation.rule = 'kalman' has no effect with"),
        (["aggregation.lambda_end=0.5"], "leave it at the default 0.2"),
        (["training.latent_groups=2"], "training.latent_groups = 2 has no effect with"),
        (
            ["training.averaging=faithful"],
            "the server trains on its own (measured.steps, measured.end_steps)",
        ),
        (
            ["federation.behaviour=measured"],
            "must be 'train' | 'measure' | 'package.module:name' of your own",
        ),
    ],
)
def test_what_does_not_go_with_measured_rounds_is_refused_with_the_mend(
    overrides: list[str], mend: str
) -> None:
    load_config(None, MEASURE)
    with pytest.raises(ConfigError) as error:
        load_config(None, [*MEASURE, *overrides])
    assert mend in str(error.value)


@pytest.mark.parametrize(
    ("settings", "images"),
    [
        ([], 20),
        (["data.partition=shards", "data.shards_per_client=2"], 20),
        (["data.partition=shards", "data.shards_per_client=20"], 20),
        (["data.partition=dirichlet", "data.dirichlet_alpha=0.5"], 200),
    ],
)
def test_class_shares_are_expected_as_they_are_dealt(settings: list[str], images: int) -> None:
    data = (config := load_config(None, [*SMALL, *settings])).data
    drawn = partition(
        np.arange(20_000) % 10, 20_000 // images, data.partition,
        shards_per_client=data.shards_per_client, dirichlet_alpha=data.dirichlet_alpha,
    )  # fmt: skip
    shares = drawn.class_counts / drawn.class_counts.sum(1, keepdims=True)
    found = np.square(shares).sum(1).mean()
    assert plans.concentration(config, images, 10) == pytest.approx(found, rel=0.1)


def test_a_concentration_that_is_set_comes_before_the_rule() -> None:
    config = load_config(None, [*SMALL, "data.partition=shards", "measured.concentration=0.3"])
    assert plans.concentration(config, 10, 10) == 0.3


def test_a_budget_for_an_image_is_for_measured_rounds() -> None:
    assert load_config(None, [*MEASURE, "budget.image_epsilon=1"]).budget.image_epsilon == 1
    with pytest.raises(ConfigError, match=r"budget\.image_epsilon must be none unless"):
        load_config(None, ["budget.image_epsilon=1"])


@pytest.mark.parametrize("other", ["measured.record_clip=2.0", "measured.epsilon=3", "federation.rounds=5"])
def test_clients_that_would_answer_under_other_clips_share_no_session(other: str) -> None:
    app = pytest.importorskip("prism_secure.flower.client_app", exc_type=ImportError)
    mine = load_config(None, SMALL)
    assert app.binding(mine) == app.binding(load_config(None, [*SMALL, "federation.workers=7"]))
    assert app.binding(mine) != app.binding(load_config(None, [*SMALL, other]))


def test_a_client_on_a_machine_of_its_own_never_takes_its_own_count(tmp_path: Path) -> None:
    """Where nobody has told how many images each has, N is not what lies here."""
    own_data = pytest.importorskip("prism_secure.flower.recipe.client", exc_type=ImportError).OwnData
    config = load_config(
        None, [*TINY, *SMALL, "federation.local_steps=32", f"data.folder={write_data(tmp_path / 'data')}"]
    )
    alone, told = own_data(config, None), own_data(config, (20, 30, 25))
    assert alone.partition.sizes == (60, 60, 60), "all that lies here"
    with pytest.raises(ConfigError, match=r"measured\.records must be given"):
        plans.releases(config, 1000, alone.public_sizes)
    assert {release.records for release in plans.releases(config, 1000, told.public_sizes)} == {25}


@pytest.mark.parametrize(
    ("flip", "radius", "coordinates"), [(0.45, 9.0, 16384), (0.25, 6.0, 256), (0.3, 4.0, 1024)]
)
def test_bits_that_meet_their_limits_are_told_with_what_gives_them_room(
    flip: float, radius: float, coordinates: int
) -> None:
    """The share of the signal that is lost is that of simulated moves; with what is advised, little is."""
    measured = ["measured.epsilon=inf", f"measured.radius={radius}", f"measured.coordinates={coordinates}"]
    config = load_config(None, [*MEASURE, "measured.directions=16", f"privacy.flip={flip}", *measured])
    plan, draw = plans.releases(config, 1 << 20, SIZES), np.random.default_rng(0)
    told = plans.cut_off(plan, config.measured)
    moves = draw.standard_normal(200_000) * radius / coordinates**0.5
    kept = np.sum(moves * np.clip(moves, flip - 0.5, 0.5 - flip)) / np.sum(moves**2)
    assert float(told.split("%")[0]) / 100 == pytest.approx(1 - kept, abs=0.015)
    enough = int(told.split("measured.coordinates = ")[1].split(",")[0])
    assert plans.cut_off([replace(each, coordinates=enough) for each in plan], config.measured) == ""
    assert plans.cut_off([replace(each, coordinates=enough // 4) for each in plan], config.measured)
    widest = [replace(each, clip=each.clip * 1000) for each in plan]
    assert "a smaller privacy.flip or measured.epsilon gives" in plans.cut_off(widest, config.measured)
    image = replace_struct(config.measured, unit="image")
    assert plans.cut_off(plan, image) == "", "how long answers are is not known before round 1"
    spans = (1 - 2 * flip) * coordinates**0.5
    for clip, named in ((0.99 * spans, False), (1.01 * spans, True)):
        told = plans.cut_off([replace(each, clip=clip) for each in plan], image)
        assert told == (BOX.format(spans, clip) if named else "")
    for settings in (config.measured, image):
        endless = [replace(each, clip=999_900.0) for each in plan]
        assert BOX.format(spans, 999_900) in plans.cut_off(endless, settings)
