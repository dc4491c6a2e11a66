"""Planted defects are found by the layer that should find them, and honest mechanisms are left alone.

One seed each, here; `experiments/audit/rates.py` does a hundred.
"""

from __future__ import annotations

import functools
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prism_privacy import Adjacency, AuditError, InvalidParameter
from prism_privacy.audit import Claim, Layer, MechanismAudit, audit_mechanism, make_seed, read_seed
from prism_privacy.audit.black_box import Seeds
from prism_privacy.audit.law import released_probabilities

sys.path.insert(0, str(Path(__file__).parent))
from planted_mechanisms import HONEST, PLANTED, flips_with, noise_overwritten

CASES = {case.name: case for case in (*HONEST, *PLANTED)}

FOUND_BY = {
    "noise dropped": {
        "one run",
        "independent coordinates",
        "flips of random canaries",
        "coins across rounds",
    },
    "noise dropped (scores)": {"one run", "flips of random canaries"},
    "noise overwritten, as published": {"independent coordinates", "mixed inputs"},
    "flip halved": {"one run", "independent coordinates", "flips of random canaries"},
    "flip doubled": {"flips of random canaries", "flips of one input", "log-likelihood ratios"},
    "flip 4% low": {"one run", "flips of random canaries", "log-likelihood ratios"},
    "flip 4% high": {"flips of random canaries", "log-likelihood ratios"},
    "flip 4% low at f=.02": {"flips of random canaries"},
    "2f/f swapped": {"one run", "flips of random canaries"},
    "coins reused across rounds": {"coins across rounds", "ignored seed bits"},
    "coins reused across clients": {"coins across clients", "dispersion of counts", "ignored seed bits"},
    "coins of 2^16 streams": {"low-entropy coins"},
    "seed modulo 2^16": {"low-entropy coins", "ignored seed bits"},
    "coins from public theta": {"coins across rounds", "coins across clients", "low-entropy coins"},
    "64 coins for an upload": {"log-likelihood ratios"},
    "last bit bare": {"worst coordinate"},
    "clip absent": {"one run", "independent coordinates", "flips of random canaries", "norm"},
    "clip around theta": {"clip centre", "mixed inputs"},
    "clip around theta (scores)": {"clip centre", "mixed inputs"},
    "clip of each coordinate": {"mixed inputs"},
    "clip in bfloat16": {"precision"},
    "error feedback": {"flips of random canaries", "dispersion of counts", "coins across rounds"},
    "complement of the last coin": {"coins across rounds"},
}


@functools.cache
def audited(name: str) -> MechanismAudit:
    case = CASES[name]
    return audit_mechanism(case.make(), case.claim, seed=1, trials=case.trials)


@pytest.mark.parametrize("name", [case.name for case in PLANTED])
def test_a_planted_defect_is_found(name: str) -> None:
    result = audited(name)
    assert {finding.name for finding in result.findings} >= FOUND_BY[name]
    assert result.verdict.value == "finding"
    assert all(finding.evidence and finding.meaning and finding.sure for finding in result.findings)


@pytest.mark.parametrize("name", [case.name for case in HONEST])
def test_an_honest_mechanism_is_clean(name: str) -> None:
    result = audited(name)
    assert result.findings == ()
    assert result.verdict.value == "clean"
    assert not any(bound.exceeds for bound in result.bounds)


def test_too_much_noise_is_invisible_to_lower_bounds_and_plain_to_goodness_of_fit() -> None:
    layers = {finding.layer for finding in audited("flip doubled").findings}
    assert Layer.LOWER_BOUND not in layers
    assert Layer.GOODNESS_OF_FIT in layers


def test_half_the_noise_passes_the_classic_lower_bound() -> None:
    two_worlds = audited("flip halved").bounds[0]
    assert two_worlds.name == "two worlds"
    assert two_worlds.epsilon < 0.01 * two_worlds.claimed
    assert any("half of the claimed noise" in finding.meaning for finding in audited("flip halved").findings)


def test_a_flip_of_24_instead_of_25_percent_has_sixty_zeros() -> None:
    result = audit_mechanism(flips_with(0.24), Claim(flip=0.25), trials=1024)
    flips = next(check for check in result.checks if check.name == "flips of random canaries")
    assert flips.log_p < math.log(1e-60)  # a million bits; half of them would give 1e-60 on average


def test_the_published_claim_is_refuted_by_canaries_and_by_the_law() -> None:
    result = audited("noise overwritten, as published")
    assert {finding.layer for finding in result.findings} >= {Layer.LOWER_BOUND, Layer.GOODNESS_OF_FIT}
    bound = next(bound for bound in result.bounds if bound.name == "independent coordinates")
    assert bound.claimed == 9.8
    assert bound.epsilon > 1900.0
    # Its real law is that of f = 0.1 at the edges and nowhere between.
    assert "flips of random canaries" not in {finding.name for finding in result.findings}
    assert audit_mechanism(noise_overwritten, Claim(0.25, input="scores"), trials=128).findings


def test_the_clip_that_is_missing_shows_its_norm() -> None:
    norm = next(finding for finding in audited("clip absent").findings if finding.name == "norm")
    assert "between 7.8" in norm.evidence  # 8 = √1024·(1−2f)/2
    assert "claimed at most 1" in norm.evidence


def test_the_centre_of_a_clip_around_theta_is_recognised() -> None:
    centre = next(
        finding for finding in audited("clip around theta").findings if finding.name == "clip centre"
    )
    assert "nearer to θ" in centre.meaning


def test_a_clip_in_score_space_is_audited_in_score_space() -> None:
    case = CASES["product, scores, clip in score space"]
    wrong = Claim(flip=0.25, clip=1.0, input="scores", temperature=0.1)
    assert audit_mechanism(case.make(), wrong, trials=256).findings


def test_replace_one_is_compared_with_the_opposite_input() -> None:
    case = CASES["product, bits, clip"]
    claim = Claim(flip=0.25, clip=1.0, adjacency="replace_one")  # type: ignore[arg-type]
    result = audit_mechanism(case.make(), claim, trials=256)
    assert result.verdict.value == "clean"
    assert result.bounds[0].claimed > 1.5 * audited("product, bits, clip").bounds[0].claimed
    assert result.bounds[2].epsilon > 1.3 * audited("product, bits, clip").bounds[2].epsilon


def test_the_same_seed_gives_the_same_audit() -> None:
    def numbers(seed: int) -> dict[str, Any]:
        result = audit_mechanism(flips_with(0.25), Claim(flip=0.25), dim=64 * 4, trials=128, seed=seed)
        return result.as_dict() | {"seconds": 0.0}

    assert numbers(3) == numbers(3)
    assert numbers(3)["checks"] != numbers(4)["checks"]


def test_the_result_is_json() -> None:
    for name in ("noise dropped", "product, bits, clip"):
        text = json.dumps(audited(name).as_dict(), allow_nan=False)
        assert json.loads(text)["verdict"] in {"clean", "finding"}
    assert audited("noise dropped").as_dict()["error_shares"] == {
        "lower bound": 0.25,
        "goodness of fit": 0.5,
        "structure": 0.25,
    }


def test_what_cannot_be_checked_is_said() -> None:
    tiny = audit_mechanism(flips_with(0.01), Claim(flip=0.01), dim=64, trials=128)
    assert tiny.verdict.value == "could not check"
    assert "--dim" in tiny.unchecked[0]

    for clip in (2.4, 3.0):  # the box of 64 coordinates has a half diagonal of 2, so nothing is ever clipped
        wide = Claim(flip=0.25, clip=clip)
        result = audit_mechanism(flips_with(0.25), wide, dim=64, trials=128)
        assert result.findings == ()
        assert result.verdict.value == "could not check"
        assert any(f"at least {wide.smallest_dim()}" in each for each in result.unchecked)

    almost_fair = Claim(flip=0.4995, clip=0.002)  # no midpoint of two bfloat16 numbers in its box
    result = audit_mechanism(
        lambda bits, theta, seed: (
            np.random.default_rng(seed).random(bits.size) < released_probabilities(almost_fair, bits, theta)
        ),
        almost_fair,
        trials=64,
    )
    assert result.verdict.value == "could not check"
    assert "precision" in result.unchecked[0]

    hidden = np.random.default_rng(11)

    def own_randomness(bits: Any, theta: Any, seed: int) -> Any:
        return bits ^ (hidden.random(bits.size) < 0.25)

    result = audit_mechanism(own_randomness, Claim(flip=0.25), dim=256, trials=128)
    assert result.findings == ()
    assert result.verdict.value == "could not check"
    assert "8 replayed calls" in result.unchecked[0]


def test_a_mechanism_that_fails_or_answers_something_else_is_named() -> None:
    claim = Claim(flip=0.25)

    def fails(bits: Any, theta: Any, seed: int) -> Any:
        raise KeyError("coins")

    for mechanism, words in (
        (fails, "KeyError: 'coins'"),
        (lambda bits, theta, seed: bits[:-1], r"shape \(1024,\), got \(1023,\)"),
        (lambda bits, theta, seed: 2 * bits, "zeros and ones, got 2"),
        (lambda bits, theta, seed: bits * math.nan, "zeros and ones, got nan"),
    ):
        with pytest.raises(AuditError, match=words):
            audit_mechanism(mechanism, claim)


def test_the_mechanism_cannot_rewrite_the_question() -> None:
    def clears_its_arguments(bits: Any, theta: Any, seed: int) -> Any:
        out = bits ^ (np.random.default_rng(seed).random(bits.size) < 0.25)
        bits[:], theta[:] = 0, 0.0
        return out

    assert not audit_mechanism(clears_its_arguments, Claim(flip=0.25), dim=256, trials=128).findings


@pytest.mark.parametrize(
    "wrong",
    [{"dim": 63}, {"trials": 62}, {"trials": 101}, {"confidence": 0.5}, {"confidence": 1.0}, {"seed": -1}],
)
def test_arguments_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter, match=next(iter(wrong))):
        audit_mechanism(flips_with(0.25), Claim(flip=0.25), **wrong)


@pytest.mark.parametrize(
    "claim", [Claim(0.25), Claim(0.25, 1.0), Claim(0.25, 1.0, adjacency=Adjacency.REPLACE_ONE)], ids=str
)
def test_progress_counts_every_call_up_to_the_announced_number(claim: Claim) -> None:
    seen: list[tuple[int, int, str]] = []
    result = audit_mechanism(
        flips_with(0.25), claim, dim=256, trials=64, progress=lambda *told: seen.append(told)
    )
    assert [done for done, _, _ in seen] == sorted({done for done, _, _ in seen})
    assert {total for _, total, _ in seen} == {result.calls}
    assert seen[-1][0] == result.calls


def test_seeds_name_run_client_and_round_and_are_never_given_twice() -> None:
    assert read_seed(make_seed(32767, 255, 254)) == (32767, 255, 254)
    seeds = Seeds(np.random.default_rng(0))
    federation = seeds.federation(16, 16)
    drawn = [seed for client in federation for seed in client] + [seeds.fresh() for _ in range(2000)]
    assert len(set(drawn)) == len(drawn)
    assert all(0 <= seed < 1 << 31 for seed in drawn)
    parts = [[read_seed(seed) for seed in client] for client in federation]
    assert [[(part.client, part.round) for part in client] for client in parts] == [
        [(client, round_number) for round_number in range(16)] for client in range(16)
    ]
    assert len({part.run for client in parts for part in client}) == 1


def one_stream_of_coins(flip: float):
    def release(bits, theta, seed):
        return bits ^ (np.random.default_rng(7).random(bits.size) < flip)

    return release


@pytest.mark.parametrize("flip", [0.24, 0.125, 0.4, 0.0])
def test_a_wrong_flip_is_the_cause_and_coins_are_not_called_reused_for_it(flip: float) -> None:
    result = audit_mechanism(flips_with(flip), Claim(flip=0.25), dim=256, trials=1024)
    first, *others = result.findings
    assert first.name in ("flips of random canaries", "flips of one input")
    assert not first.follows
    alone = {finding.name for finding in others if not finding.follows}
    if flip:  # without any coins, uploads repeat, and seeds do nothing
        assert alone == set()
    assert not alone & {"coins across rounds", "coins across clients", "dispersion of counts", "two worlds"}
    assert {"coins across rounds", "coins across clients"} & {f.name for f in others} or flip == 0.24
    assert {finding.follows for finding in others if finding.follows} <= {first.name}


@pytest.mark.parametrize("flip", [0.25, 0.125])
def test_coins_that_are_used_again_are_found_beside_a_wrong_flip(flip: float) -> None:
    result = audit_mechanism(one_stream_of_coins(flip), Claim(flip=0.25), dim=256, trials=1024)
    alone = {finding.name for finding in result.findings if not finding.follows}
    assert {"coins across rounds", "coins across clients", "low-entropy coins"} <= alone


def test_an_honest_audit_has_no_cause() -> None:
    assert audit_mechanism(flips_with(0.25), Claim(flip=0.25), dim=256, trials=256).cause is None
