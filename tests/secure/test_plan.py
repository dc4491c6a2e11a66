"""Where epsilon is infinite, its cause and its mend are said, and each mend was tried by the accountant."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest

from prism_privacy import Accountant, Adjacency, MaskRelease, MomentRelease, View
from prism_secure.accounting.epsilons import CELLS, Epsilons
from prism_secure.accounting.plan import (
    IMAGE,
    Plan,
    _as_set,
    _harmed,
    _told,
    _why_infinite,
    epsilons_of,
    large_delta,
    why_infinite,
)
from prism_secure.accounting.record_release import RecordRelease
from prism_secure.config import Config, load_config
from prism_secure.errors import ConfigError

DIMENSION = 307_600
"""Of recipe one-shot's masks."""
FEATURES = 1440
BOTH = {"ε(SUM)", "ε(UPLOAD)"}
COHORT = ["federation.clients=1000", "secure_sum.mode=semi_honest", "privacy.record_epsilon=0.75"]
"""A thousand clients of ten images each."""


def plan_of(*overrides: str, images: int = 1000, dimension: int = DIMENSION) -> Plan:
    config = load_config(None, list(overrides))
    return Plan(config, dimension, release_of(*overrides, images=images) if config.record_level else None)


def release_of(*overrides: str, images: int = 1000) -> RecordRelease:
    config = load_config(None, list(overrides))
    return RecordRelease(config, (images,) * config.federation.clients, classes=10, dimension=FEATURES)


def settings_in(text: str) -> list[str]:
    return re.findall(r"[a-z_]+\.[a-z_]+=[^\s,;]+", text)


def masks_alone(config: Config, view: View, rounds: int) -> float:
    accountant = Accountant(delta=config.privacy.delta)
    mask = MaskRelease(config.privacy.flip, config.privacy.clip, cohort=config.cohort, dim=DIMENSION)
    accountant.spend(mask, rounds=rounds)
    return accountant.epsilon(view, Adjacency.ZERO_OUT)


def test_clip_under_opened_moments_is_told_what_makes_it_count() -> None:
    """The README's `runs/clip`: the clip changes no epsilon while the moments of all clients open."""
    overrides = ["privacy.clip=1", "federation.rounds=4"]
    (why,) = plan_of(*overrides).unbounded
    assert why.names == ("ε(SUM)", "ε(UPLOAD)")
    assert "noise for one image" in why.cause
    assert why.remedy == "privacy.record_release=client would make them 26.7 and 52.6"
    mended = plan_of(*overrides, "privacy.record_release=client")
    assert mended.unbounded == ()
    assert mended.epsilon(View.SUM, Adjacency.ZERO_OUT) == pytest.approx(
        masks_alone(load_config(None, overrides), View.SUM, 4)
    )


@pytest.mark.parametrize(
    ("overrides", "images", "names", "settings"),
    [
        ([], 1000, BOTH, ["privacy.record_release=client", "privacy.clip=0.3"]),
        (
            ["privacy.flip=0"],
            1000,
            BOTH,
            ["privacy.record_release=client", "privacy.flip=0.1", "privacy.clip=0.3"],
        ),
        (
            ["privacy.flip=0", "privacy.record_release=client"],
            1000,
            BOTH,
            ["privacy.flip=0.1", "privacy.clip=0.3"],
        ),
        (["privacy.record_epsilon=inf"], 1000, {"ε(image)"}, ["privacy.record_epsilon=2"]),
        (
            ["privacy.record_epsilon=inf", "features.bounded=false"],
            1000,
            {"ε(image)"},
            ["privacy.record_epsilon=2", "features.bounded=true"],
        ),
        (["privacy.record_epsilon=200"], 1, {"ε(image)"}, ["privacy.record_epsilon=2"]),
        (
            ["privacy.record_epsilon=inf", "privacy.flip=0", "mask.score_layers=0.5"],
            1000,
            BOTH,
            ["privacy.flip=0.1", "mask.score_layers=0", "privacy.clip=0.3"],
        ),
        (
            COHORT,
            10,
            {"ε(UPLOAD)"},
            ["privacy.record_cohort=1"],
        ),
    ],
)  # fmt: skip
def test_every_cause_has_the_fewest_settings_that_mend_it(
    overrides: list[str], images: int, names: set[str], settings: list[str]
) -> None:
    found = {why.names: why for why in plan_of(*overrides, images=images).unbounded}
    why = next(why for shown, why in found.items() if names <= set(shown))
    assert why.cause
    assert settings_in(why.remedy) == settings
    assert largest(plan_of(*overrides, *settings, images=images), names) <= 100, "the advice helps"
    for dropped in settings if len(settings) > 1 else ():
        try:
            rest = plan_of(*overrides, *(each for each in settings if each != dropped), images=images)
        except ConfigError:
            continue
        assert largest(rest, names) > 100, f"without {dropped} it would do"


def largest(plan: Plan, names: set[str]) -> float:
    """Of these epsilons, a client left out."""
    if names == {"ε(image)"}:
        return math.inf if any("ε(image)" in each.names for each in plan.unbounded) else 2.0
    return max(plan.epsilon(view, Adjacency.ZERO_OUT) for view in View if f"ε({view.name})" in names)


def test_remedy_is_tried_with_the_budget_that_is_set() -> None:
    """record_epsilon=2 alone opens moments at ε(SUM) = 20.8: the budget would refuse it."""
    overrides = ["federation.clients=1000", "privacy.clip=0.5", "privacy.record_epsilon=inf"]
    (why,) = plan_of(*overrides, "budget.epsilon=3", images=10).unbounded
    settings = settings_in(why.remedy)
    assert settings == ["privacy.record_epsilon=2", "privacy.record_release=client"]
    plan = plan_of(*overrides, "budget.epsilon=3", *settings, images=10)
    assert (plan.rounds, plan.unbounded) == (10, ())


def test_remedy_that_makes_another_epsilon_worse_says_so_or_is_not_offered() -> None:
    overrides = ["federation.clients=1000", "privacy.clip=0.5", "privacy.record_epsilon=inf"]
    (why,) = plan_of(*overrides, images=10).unbounded
    assert "would take" not in why.remedy
    before = plan_of(*overrides, images=10)
    after = plan_of(*overrides, *settings_in(why.remedy), images=10)
    for cell in CELLS:
        assert after.epsilon(*cell) <= before.epsilon(*cell)
    figures = dict.fromkeys((*CELLS, IMAGE), 1.0)
    worse = figures | {CELLS[0]: 20.81, IMAGE: math.inf}
    name = f"ε({CELLS[0][0].name})"
    assert (
        _told(_harmed(figures, worse))
        == f", but would take {name} from 1.00 to 20.9 and ε(image) from 1.00 to inf"
    )
    assert _told(_harmed(worse, figures)) == ""


def test_figure_that_means_nothing_is_no_remedy() -> None:
    """record_release=client alone gives 1,775,207 and 5,416,781."""
    for overrides in ([], ["federation.clients=3"], ["privacy.flip=0", "privacy.record_epsilon=inf"]):
        (why, *_) = plan_of(*overrides).unbounded
        figures = [float(each.replace(",", "")) for each in re.findall(r" ([\d.,]*\d)", why.remedy)]
        assert figures
        assert max(figures) <= 100
        assert "privacy.clip=" in why.remedy
    (why,) = plan_of("federation.rounds=100000").unbounded
    assert why.remedy == "no settings that were tried make them 100 or less"


def test_refused_budget_is_not_answered_by_a_looser_clip_or_less_noise() -> None:
    overrides = ["federation.clients=1000", "privacy.clip=0.5", "budget.epsilon=3"]
    with pytest.raises(ConfigError) as refused:
        plan_of(*overrides, images=10)
    advised = str(refused.value).rpartition("; ")[2]
    assert advised.startswith("privacy.record_release=client keeps all 10 rounds at 0.71, or ")
    assert "clip" not in advised
    assert "flip" not in advised


def test_settings_are_joined_as_a_list() -> None:
    settings = {"privacy.record_release": "client", "privacy.flip": 0.1, "mask.score_layers": 0.0}
    assert _as_set(settings) == "privacy.record_release=client, privacy.flip=0.1 and mask.score_layers=0"
    assert _as_set({"features.bounded": True}) == "features.bounded=true"


def test_figures_are_not_told_where_the_length_of_a_mask_is_not_known() -> None:
    (why,) = why_infinite(load_config(), None, 1000)
    assert why.remedy == "privacy.record_release=client and privacy.clip=0.3 would make them finite"
    for dimension in (1, 77, 114_824, 1 << 30):
        advised = {"privacy.record_release": "client", "privacy.clip": 0.3}
        figures = epsilons_of(load_config(), advised, dimension, 1000)
        assert all(figures[cell] <= 100 for cell in CELLS[::2]), "a client left out"
    (why,) = why_infinite(load_config(None, ["privacy.clip=0.5"]), None, 1000)
    assert why.remedy == "privacy.record_release=client would make them finite"


def test_settings_that_do_not_go_together_have_no_epsilons() -> None:
    config = load_config()
    assert epsilons_of(config, {"privacy.flip": 0.7}, DIMENSION, 1000) == {}
    assert epsilons_of(config, {}, DIMENSION, 1000)[IMAGE] == pytest.approx(2.0)


def test_finite_epsilons_need_no_words() -> None:
    assert plan_of("privacy.record_release=client").unbounded == ()


@pytest.mark.parametrize(
    "overrides",
    [
        ["budget.epsilon=8"],
        ["budget.epsilon=8", "privacy.clip=1"],
        ["budget.epsilon=8", "privacy.record_epsilon=inf"],
        ["budget.epsilon=8", "privacy.record_epsilon=inf", "privacy.flip=0"],
        ["budget.epsilon=8", "privacy.record_release=client", "privacy.clip=1", "privacy.flip=0.001"],
        ["budget.epsilon=5", *COHORT],
    ],
)  # fmt: skip
def test_advice_of_a_refused_budget_is_admitted_for_all_rounds(overrides: list[str]) -> None:
    images = 10 if "federation.clients=1000" in overrides else 1000
    with pytest.raises(ConfigError, match="admits no round") as refused:
        plan_of(*overrides, images=images)
    text = str(refused.value)
    assert "raise privacy.flip" not in text
    advised = re.split(r", or ", text.rpartition("; ")[2])
    assert advised
    for each in advised:
        settings = settings_in(each)
        assert settings, text
        plan = plan_of(*overrides, *settings, images=images)
        assert plan.rounds == load_config().federation.rounds
        assert f"all {plan.rounds} rounds" in each


def test_budget_that_nothing_keeps_gets_no_advice() -> None:
    with pytest.raises(ConfigError, match="no clip, flip or record_epsilon that was tried is within it"):
        plan_of("budget.epsilon=1e-9")


def test_less_moments_are_not_advised_where_their_noise_would_drown_the_images() -> None:
    """record_epsilon = 0.0052 would keep ε(SUM) below 8: of ten thousand images nothing were left."""
    with pytest.raises(ConfigError) as refused:
        plan_of("budget.epsilon=8")
    assert "privacy.record_epsilon" not in str(refused.value)
    with pytest.raises(ConfigError, match=r"privacy\.record_epsilon=0\.5\d? keeps"):
        plan_of("budget.epsilon=5", *COHORT, images=10)


def test_image_has_a_view_and_costs_more_with_every_colluder() -> None:
    """By the formula: k of h honest clients who tell their noise leave 1 - k/h of its variance."""
    release = release_of()
    assert release.view.words == "against an observer of the opened sums, while all 10 clients are honest"
    told = dict(release.view.weaker)
    alone = MomentRelease(**release.guarantee.release)
    for who, left in (("1 colluder", 9), ("3 colluders", 7), ("its client's share seen in the clear", 1)):
        assert told[who] == pytest.approx(
            replace(alone, sigma=alone.sigma * math.sqrt(left / 10)).epsilon(1e-5)
        )
    assert told["5 colluders and an honest-but-curious server"] == pytest.approx(2.95, abs=0.01)
    assert [round(epsilon, 2) for epsilon in told.values()] == [2.12, 2.44, 2.95, 7.54]
    assert release.guarantee.view is View.SUM
    assert release.guarantee.cohort == 10


def test_planned_colluders_are_not_counted_twice() -> None:
    release = release_of("privacy.colluders=1")
    assert "9 of the 10" in release.view.words
    assert [who.split()[0] for who, _ in release.view.weaker][:2] == ["2", "4"]
    assert release.guarantee.epsilon == pytest.approx(2.0)


@pytest.mark.parametrize("override", ["privacy.record_cohort=1", "privacy.record_release=client"])
def test_image_that_counts_on_nobody_else_has_no_table(override: str) -> None:
    release = release_of(override)
    assert release.view.weaker == ()
    assert "anybody" in release.view.words
    assert (release.guarantee.view, release.guarantee.cohort) == (View.UPLOAD, None)


def test_more_colluders_than_the_threshold_stands_are_one_case_with_the_share_seen() -> None:
    """threshold 6 of 10 semi-honest clients: with six of them the server opens any share."""
    colluders = [who for who, _ in release_of("secure_sum.mode=semi_honest").view.weaker[:-1]]
    assert colluders == ["1 colluder", "3 colluders", "5 colluders"]
    colluders = [who for who, _ in release_of("privacy.record_cohort=4").view.weaker[:-1]]
    assert all(int(who.split()[0]) < 7 for who in colluders), "the active threshold"


@pytest.mark.parametrize(
    ("overrides", "images", "drowned"),
    [
        ([], 1000, False),
        (["privacy.record_release=client"], 1000, False),
        (["privacy.record_cohort=1"], 1000, False),
        ([], 24, True),
        (["privacy.record_release=client"], 300, True),
        (["privacy.record_epsilon=0.1"], 1000, True),
    ],
)
def test_noise_longer_than_all_images_can_be_is_told(
    overrides: list[str], images: int, drowned: bool
) -> None:
    release = release_of(*overrides, images=images)
    shares = 1 if release.summed and "privacy.record_cohort=1" not in overrides else 10
    noise = MomentRelease(**release.guarantee.release).noise * math.sqrt(shares * FEATURES)
    assert drowned == (noise > images), "ten clients' images, a tenth of them in a class"
    assert bool(release.drowned) == drowned
    if drowned:
        assert f"its norm is {noise:,.0f}" in release.drowned
        enough = int(re.findall(r"([\d,]+) images would be enough", release.drowned)[0].replace(",", ""))
        assert not release_of(*overrides, images=math.ceil(enough / 10)).drowned
        assert release_of(*overrides, images=math.floor(enough / 10 * 0.99)).drowned
        for advised in settings_in(release.drowned):
            assert not release_of(*overrides, advised, images=images).drowned


def test_names_of_epsilons_and_cells_are_each_others_inverse() -> None:
    table = {cell: float(number) for number, cell in enumerate(CELLS, start=1)}
    epsilons = Epsilons.of(table)
    assert epsilons.table == table
    assert (
        epsilons.upload_replace_one
        == epsilons.at("upload", "replace_one")
        == table[View.UPLOAD, Adjacency.REPLACE_ONE]
    )


def test_runs_of_a_sweep_that_differ_in_nothing_of_epsilon_are_accounted_for_once() -> None:
    before = _why_infinite.cache_info().misses
    for seed in range(3):
        for rate in (0.01, 0.03):
            settings = [f"federation.seed={seed}", f"training.learning_rate={rate}", "privacy.flip=0.123"]
            assert why_infinite(load_config(None, settings), 77, 1000)
    assert _why_infinite.cache_info().misses == before + 1
    assert why_infinite(load_config(None, ["privacy.flip=0.123", "federation.rounds=3"]), 77, 1000)
    assert _why_infinite.cache_info().misses == before + 2


@pytest.mark.parametrize(
    ("delta", "clients", "images", "word"),
    [(0.5, 10, 1, "1/clients = 0.1"), (0.01, 10, 1000, "1/images of a client = 0.001"), (1e-5, 10, 1000, "")],
)
def test_delta_that_lets_everything_of_one_be_given_away_is_told(
    delta: float, clients: int, images: int, word: str
) -> None:
    text = large_delta(load_config(None, [f"privacy.delta={delta}", f"federation.clients={clients}"]), images)
    assert bool(text) == bool(word)
    assert word in text
