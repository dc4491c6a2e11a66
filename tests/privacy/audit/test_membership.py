"""The membership picture: exact where it can be computed, and never better than the certified epsilon."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from prism_privacy import Accountant, Adjacency, MaskRelease, View
from prism_privacy.audit.membership import Membership, certified_tpr, recovery, roc, scores
from prism_privacy.errors import InvalidParameter

FPR = np.geomspace(1e-3, 0.5, 20)


def test_one_bit_has_the_roc_of_two_coins() -> None:
    """UPLOAD, one coordinate, one round: a one passes with ½ without the client and ½ + move with it."""
    worlds = Membership(flip=0.2, clip=0.25, cohort=5)
    assert worlds.coordinates == 1
    without, present = scores(worlds, View.UPLOAD, 40_000, np.random.default_rng(1))
    assert {*np.round(without, 12)} == {*np.round(np.log([0.5, 1.5]), 12)}
    curve = roc(without, present, np.array([0.4, 0.7]), confidence=0.9999)
    assert curve.tpr[0] == 0.0  # half of all worlds pass any threshold, so 0.4 is not to be had
    assert curve.low[1] <= 0.75 <= curve.high[1]
    assert curve.fpr_low[1] <= 0.5 <= curve.fpr_high[1]


def test_scores_of_uploads_have_the_law_of_a_binomial() -> None:
    """All coordinates and rounds are one binomial, so the ROC is exact at every threshold."""
    worlds = Membership(flip=0.25, clip=1.0, cohort=3, rounds=2)
    draws = worlds.coordinates * worlds.rounds
    without, present = scores(worlds, View.UPLOAD, 40_000, np.random.default_rng(2))
    step = np.log((0.5 + worlds.move) / (0.5 - worlds.move))
    ones = np.rint((present - draws * np.log(1 - 2 * worlds.move)) / step)
    for least in range(draws // 2, draws):
        exact = stats.binom.sf(least - 1, draws, 0.5 + worlds.move)
        error = 5 * np.sqrt(exact * (1 - exact) / len(ones)) + 1e-9
        assert abs(np.mean(ones >= least) - exact) < error
    assert without.mean() < 0 < present.mean()


def test_counts_of_a_cohort_of_one_are_its_uploads() -> None:
    worlds = Membership(flip=0.25, clip=0.5, cohort=1)
    for one, other in zip(worlds.laws(View.SUM), worlds.laws(View.UPLOAD), strict=True):
        np.testing.assert_allclose(one, other)


@pytest.mark.parametrize(("cohort", "rounds", "clip", "theta"), [
    (10, 1, 1.0, 0.5), (10, 5, 0.5, 0.01), (100, 20, 1.0, 0.5), (1000, 20, 1.0, 0.01),
])  # fmt: skip
@pytest.mark.parametrize("view", View)
def test_attack_never_beats_the_certified_epsilon(
    cohort: int, rounds: int, clip: float, theta: float, view: View
) -> None:
    worlds = Membership(0.25, clip, cohort, rounds, theta)
    accountant = Accountant(delta=1e-5)
    accountant.spend(MaskRelease(0.25, clip, cohort=cohort), rounds)
    epsilon = accountant.epsilon(view, Adjacency.ZERO_OUT)
    curve = roc(*scores(worlds, view, 20_000, np.random.default_rng(3)), FPR, confidence=1 - 1e-6)
    assert (curve.low <= certified_tpr(curve.fpr_high, epsilon, 1e-5) + 1e-12).all()
    assert (curve.tpr >= curve.fpr * 0.5).all()


def test_uploads_show_what_sums_hide() -> None:
    worlds = Membership(flip=0.25, clip=1.0, cohort=100, rounds=5)
    at = np.array([1e-2])
    rng = np.random.default_rng(4)
    found = {view: roc(*scores(worlds, view, 20_000, rng), at) for view in View}
    assert found[View.UPLOAD].low[0] > 5 * found[View.SUM].high[0]
    bits = recovery(worlds, 20_000, rng)
    assert bits.upload > 0.85
    assert 0.5 < bits.sum < 0.57


def test_recovery_of_one_upload_is_one_half_and_the_move() -> None:
    worlds = Membership(flip=0.2, clip=0.3, cohort=4)
    bits = recovery(worlds, 200_000, np.random.default_rng(5))
    assert bits.upload == pytest.approx(0.5 + worlds.move, abs=0.005)


def test_recovery_of_one_sum_is_half_of_the_distance_of_its_laws() -> None:
    worlds = Membership(flip=0.2, clip=0.3, cohort=7)
    rest = stats.binom.pmf(np.arange(7), 6, 0.5)
    one, other = (np.convolve(rest, [0.5 - move, 0.5 + move]) for move in (-0.3, 0.3))
    bits = recovery(worlds, 200_000, np.random.default_rng(6))
    assert bits.sum == pytest.approx(0.5 + np.abs(one - other).sum() / 4, abs=0.005)


@pytest.mark.parametrize(
    "change", [{"flip": 0.0}, {"flip": 0.5}, {"clip": 0.0}, {"cohort": 0}, {"rounds": 0}, {"theta": 1.0}]
)
def test_worlds_out_of_range_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(InvalidParameter):
        Membership(**({"flip": 0.25, "clip": 1.0, "cohort": 10} | change))


def test_recovery_needs_room_on_both_sides() -> None:
    with pytest.raises(InvalidParameter, match="leaves no room"):
        recovery(Membership(0.25, 1.0, 10, theta=0.01), 10, np.random.default_rng(7))


def test_certified_curve_is_that_of_the_definition() -> None:
    """No point of it breaks either inequality of (epsilon, delta), and it touches one of them."""
    fpr = np.geomspace(1e-6, 0.999, 50)
    for epsilon in (0.0, 0.5, 3.0, 10.0):
        tpr = certified_tpr(fpr, epsilon, 1e-5)
        assert (tpr <= 1.0).all()
        assert (np.log(np.maximum(tpr - 1e-5, 1e-300)) <= epsilon + np.log(fpr) + 1e-9).all()
        assert (1 - fpr <= np.exp(min(epsilon, 700)) * (1 - tpr) + 1e-5 + 1e-9).all()
