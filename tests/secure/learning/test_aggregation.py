"""The aggregation rules against their definitions, slow and obvious."""

import runpy
from typing import Literal, get_args

import numpy as np
import pytest

from prism_privacy import debias
from prism_secure.config import Aggregation, load_config, meanings, sections
from prism_secure.config.sections import AggregationRule
from prism_secure.errors import ConfigError
from prism_secure.learning import aggregation
from prism_secure.learning.aggregation import aggregate, vote_variance

RULES = get_args(AggregationRule)
RNG = np.random.default_rng(0)
D, N = 4000, 10
THETA = RNG.uniform(0.02, 0.98, D)
COUNTS = RNG.binomial(N, RNG.uniform(0, 1, D))


def _step(
    rule,
    *,
    flip=0.0,
    progress=0.5,
    rng=None,
    move=None,
    theta=THETA,
    counts=COUNTS,
    theta_min=0.01,
    **settings,
):
    return aggregate(
        theta,
        counts,
        survivors=N,
        flip=flip,
        progress=progress,
        aggregation=Aggregation(rule=rule, **settings),
        theta_min=theta_min,
        rng=rng,
        move=move,
    )


def test_debias_undoes_randomized_response_on_average():
    p = 0.8
    counts = np.random.default_rng(1).binomial(N, 0.1 + 0.8 * p, 200_000)
    assert debias(counts, N, 0.1).mean() == pytest.approx(p, abs=0.002)
    assert debias(np.array([0, N]), N, 0.1).tolist() == pytest.approx([-0.125, 1.125])


@pytest.mark.parametrize("flip", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_vote_variance_is_the_variance_of_the_debiased_vote(flip, p):
    counts = np.random.default_rng(2).binomial(100, flip + (1 - 2 * flip) * p, 100_000)
    truth = debias(counts, 100, flip).var()
    assert vote_variance(counts, 100, flip).mean() == pytest.approx(truth, rel=0.12)


def test_fixed_lambda_one_takes_the_vote_and_clamps_it():
    step = _step("fixed", lambda_start=1.0, theta_min=0.05)
    assert step.theta == pytest.approx(np.clip(COUNTS / N, 0.05, 0.95))
    assert step.mean_lambda == 1


def test_schedule_falls_only_after_the_hold():
    gains = [
        _step("schedule", progress=p, lambda_start=1.0, lambda_end=0.2, hold=0.6).mean_lambda
        for p in (0, 0.6, 0.8, 1)
    ]
    assert gains == pytest.approx([1, 1, 0.6, 0.2])


def test_hamming_forms_agree_with_their_definitions():
    bar = COUNTS / N
    expected = np.mean(THETA * (1 - bar) + bar * (1 - THETA))
    assert _step("expected").mean_lambda == pytest.approx(expected)
    sampled = [_step("sampled", rng=np.random.default_rng(s)).mean_lambda for s in range(20)]
    assert np.mean(sampled) == pytest.approx(expected, abs=0.005)
    assert _step("coupled").mean_lambda == pytest.approx(np.abs(bar - THETA).mean())
    cosine = 1 - THETA @ bar / np.linalg.norm(THETA) / np.linalg.norm(bar)
    assert _step("cosine").mean_lambda == pytest.approx(cosine)


def test_under_agreement_the_coupled_form_reaches_zero_and_the_expected_one_does_not():
    theta = np.full(D, 0.5)
    counts = np.full(D, 5)
    assert _step("coupled", theta=theta, counts=counts).mean_lambda == 0
    assert _step("expected", theta=theta, counts=counts).mean_lambda == pytest.approx(0.5)


def test_sampled_needs_public_randomness():
    with pytest.raises(ValueError, match="rng"):
        _step("sampled")


@pytest.mark.parametrize("rule", ["kalman", "kalman_global"])
def test_kalman_ignores_noise_and_follows_signal(rule):
    rng = np.random.default_rng(3)
    theta = np.full(D, 0.5)
    noise = rng.binomial(N, 0.1 + 0.8 * 0.5, D)
    signal = rng.binomial(N, 0.1 + 0.8 * 0.99, D)
    quiet = _step(rule, theta=theta, counts=noise, flip=0.1, floor=0.0).mean_lambda
    loud = _step(rule, theta=theta, counts=signal, flip=0.1, floor=0.0).mean_lambda
    assert quiet < 0.25
    assert loud > 0.85


def test_kalman_is_nearer_to_the_truth_than_taking_the_vote_under_noise():
    rng = np.random.default_rng(4)
    theta = rng.uniform(0.05, 0.95, D)
    truth = np.where(rng.random(D) < 0.1, 1 - theta, theta)
    counts = rng.binomial(N, 0.25 + 0.5 * truth)
    error = {
        rule: np.mean((_step(rule, theta=theta, counts=counts, flip=0.25).theta - truth) ** 2)
        for rule in ("fixed", "kalman")
    }
    assert error["kalman"] < 0.6 * error["fixed"]


@pytest.mark.parametrize("rule", ["kalman", "kalman_global"])
def test_the_schedule_scales_the_kalman_gain(rule):
    early = _step(rule, progress=0.0, lambda_end=0.25).mean_lambda
    late = _step(rule, progress=1.0, lambda_end=0.25).mean_lambda
    assert late == pytest.approx(0.25 * early)


def test_logit_space_blends_log_odds():
    step = _step("fixed", space="logit", lambda_start=0.25, theta_min=0.02)
    bar = np.clip(COUNTS / N, 0.02, 0.98)
    odds = (THETA / (1 - THETA)) ** 0.75 * (bar / (1 - bar)) ** 0.25
    assert step.theta == pytest.approx(np.clip(odds / (1 + odds), 0.02, 0.98))


def test_shrinking_by_twice_the_flip_takes_the_bits_as_they_came():
    step = _step("fixed", flip=0.2, shrink=0.4, theta_min=1e-9)
    assert step.theta == pytest.approx(np.clip(COUNTS / N, 1e-9, 1 - 1e-9))


def test_kalman_knows_that_a_shrunk_vote_is_less_noisy():
    theta = np.full(D, 0.5)
    counts = np.random.default_rng(3).binomial(N, 0.1 + 0.8 * 0.7, D)
    gains = [
        _step("kalman_global", theta=theta, counts=counts, flip=0.1, shrink=s).mean_lambda for s in (0, 0.3)
    ]
    assert gains[0] == pytest.approx(gains[1])


def test_momentum_adds_a_share_of_the_last_move():
    first = _step("fixed", lambda_start=0.3)
    plain = _step("fixed", lambda_start=0.3, theta=first.theta)
    heavy = _step("fixed", lambda_start=0.3, theta=first.theta, momentum=0.5, move=first.move)
    assert heavy.move == pytest.approx(plain.move + 0.5 * first.move)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("space", ["theta", "logit"])
@pytest.mark.parametrize("flip", [0.0, 0.3])
def test_every_rule_stays_within_its_bounds_is_pure_and_repeats(rule, space, flip):
    theta, counts = THETA.copy(), COUNTS.copy()
    settings = {"space": space, "theta_min": 0.03, "flip": flip, "momentum": 0.4, "move": np.ones(D)}
    a = _step(rule, rng=np.random.default_rng(7), theta=theta, counts=counts, **settings)
    b = _step(rule, rng=np.random.default_rng(7), theta=theta, counts=counts, **settings)
    assert np.array_equal(a.theta, b.theta)
    assert a.theta.min() >= 0.03
    assert a.theta.max() <= 0.97
    assert 0 <= a.mean_lambda <= 1
    assert np.array_equal(theta, THETA)
    assert np.array_equal(counts, COUNTS)


@pytest.mark.parametrize(
    "wrong",
    ["rule=median", "space=odds", "lambda_start=1.5", "momentum=1.0", "floor=-0.1", "hold=2.0", "shrink=1.1"],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"aggregation.{wrong.partition('=')[0]} must be"):
        load_config(None, [f"aggregation.{wrong}"])


def test_a_vote_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="shape"):
        _step("fixed", counts=COUNTS[:-1])
    with pytest.raises(ValueError, match="flip"):
        debias(COUNTS, N, 0.5)
    with pytest.raises(ValueError, match="survivors"):
        debias(COUNTS, 0, 0.1)


def test_the_setting_explains_every_rule_in_order_and_no_other():
    """What `config --explain` prints below `rule`: the names, then one's own."""
    listed = meanings()["aggregation", "rule"].partition(" is made of: ")[2].partition(", or a function")[0]
    assert listed.split(", ") == list(aggregation.RULES)


@pytest.mark.parametrize("named", [RULES[::-1], RULES[:-1], (*RULES, "median")])
def test_rules_that_the_setting_does_not_name_in_order_are_said_in_words(named, monkeypatch):
    monkeypatch.setattr(sections, "AggregationRule", Literal[named])
    with pytest.raises(AssertionError, match=rf"in this order: fixed, schedule, .*; got {', '.join(named)}$"):
        runpy.run_path(aggregation.__file__)
