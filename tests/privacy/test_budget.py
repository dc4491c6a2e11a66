"""A budget refuses before anything is spent, and what it promises holds."""

import math

import pytest

from prism_privacy.accounting.accountant import Accountant
from prism_privacy.accounting.budget import Budget
from prism_privacy.errors import BudgetExceeded, InvalidParameter
from prism_privacy.masks.release import MaskRelease
from prism_privacy.units import Adjacency, View

SUM_ZERO, UPLOAD_ZERO = (View.SUM, Adjacency.ZERO_OUT), (View.UPLOAD, Adjacency.ZERO_OUT)
RELEASE = MaskRelease(flip=0.25, clip=1.0, space="probability", cohort=10)


def epsilon(release, rounds, cell=SUM_ZERO):
    accountant = Accountant(1e-5)
    accountant.spend(release, rounds)
    return accountant.epsilon(*cell)


@pytest.mark.parametrize("limit", [5.0, 12.0, 60.0])
@pytest.mark.parametrize("cell", [SUM_ZERO, (View.SUM, Adjacency.REPLACE_ONE), UPLOAD_ZERO])
def test_equal_rounds_use_the_whole_budget_and_the_next_one_is_refused(limit, cell):
    budget = Budget({cell: limit}, 1e-5)
    fit = budget.rounds_left(RELEASE)
    if fit == 0:
        assert epsilon(RELEASE, 1, cell) > limit
        return
    for _ in range(min(fit, 50)):
        budget.spend(RELEASE)
    if fit > 50:
        budget.spend(RELEASE, rounds=fit - 50)
    assert budget.rounds_left(RELEASE) == 0
    with pytest.raises(BudgetExceeded, match="refuses round"):
        budget.spend(RELEASE)
    assert epsilon(RELEASE, fit, cell) <= limit * (1 + 1e-6)
    # one order fixed beforehand costs nothing when all rounds are equal
    assert epsilon(RELEASE, fit + 1, cell) > limit * (1 - 1e-6)


def test_a_refused_release_changes_nothing():
    budget = Budget({SUM_ZERO: 30.0, UPLOAD_ZERO: 60.0}, 1e-5)
    left = budget.rounds_left(RELEASE)
    assert left >= 1
    with pytest.raises(BudgetExceeded):
        budget.spend(RELEASE, rounds=left + 1)
    assert budget.rounds_left(RELEASE) == left
    assert budget.admits(RELEASE, left)
    assert not budget.admits(RELEASE, left + 1)
    budget.check(RELEASE, left)
    assert budget.rounds_left(RELEASE) == left


def test_the_tightest_limit_decides_and_no_other_is_charged_when_it_refuses():
    both = Budget({SUM_ZERO: 1000.0, UPLOAD_ZERO: 20.0}, 1e-5)
    alone = Budget({UPLOAD_ZERO: 20.0}, 1e-5)
    left = both.rounds_left(RELEASE)
    assert left == alone.rounds_left(RELEASE)
    both.spend(RELEASE, left)
    with pytest.raises(BudgetExceeded, match="upload"):
        both.spend(RELEASE)
    sums = Budget({SUM_ZERO: 1000.0}, 1e-5)
    sums.spend(RELEASE, left)
    assert both._filters[SUM_ZERO].rounds == left
    assert both._filters[SUM_ZERO].share_left == sums._filters[SUM_ZERO].share_left


def test_a_client_charges_the_upload_when_it_leaves_and_the_sum_when_it_opens():
    budget = Budget({SUM_ZERO: 30.0, UPLOAD_ZERO: 60.0}, 1e-5)
    budget.spend(RELEASE, view=View.UPLOAD)
    assert budget._filters[UPLOAD_ZERO].rounds == 1
    assert SUM_ZERO not in budget._filters
    budget.spend(RELEASE, view=View.SUM)
    assert budget._filters[SUM_ZERO].rounds == 1


def test_releases_that_change_are_covered_by_one_promise():
    budget = Budget(20.0, 1e-5, view=View.SUM, adjacency=Adjacency.ZERO_OUT)
    spent = Accountant(1e-5)
    for clip in (1.0, 0.5, 1.5, 0.25, 0.7) * 40:
        release = MaskRelease(flip=0.25, clip=clip, cohort=10)
        if budget.admits(release):
            budget.spend(release)
            spent.spend(release)
    assert spent.rounds > 20
    assert spent.epsilon(*SUM_ZERO) <= 20.0
    assert not budget.admits(MaskRelease(flip=0.25, clip=1.5, cohort=10))


def test_without_noise_no_budget_admits_anything():
    budget = Budget(1e9, 1e-5, view=View.SUM, adjacency=Adjacency.ZERO_OUT)
    bare = MaskRelease(flip=0.0, clip=1.0, cohort=10)
    assert not budget.admits(bare)
    assert budget.rounds_left(bare) == 0
    with pytest.raises(BudgetExceeded, match=r"a single round of .* would pass it"):
        budget.spend(bare)
    assert budget.admits(RELEASE)


def test_failures_of_the_secure_sum_are_paid_out_of_a_reserve():
    harary = MaskRelease(flip=0.25, clip=1.0, cohort=10, sum_failure=2.0**-40)
    with_failures = Budget({SUM_ZERO: 40.0}, 1e-5).rounds_left(harary)
    without = Budget({SUM_ZERO: 40.0}, 1e-5).rounds_left(RELEASE)
    assert without - 2 <= with_failures <= without
    # a budget whose first release could not fail keeps nothing for one that can
    surprised = Budget({SUM_ZERO: 40.0}, 1e-5)
    surprised.spend(RELEASE)
    with pytest.raises(BudgetExceeded, match="failures of the sum"):
        surprised.spend(harary)


def test_what_it_promises_can_be_read():
    budget = Budget(2.0, 1e-5, view="sum", adjacency="zero_out")
    assert budget.limits == {SUM_ZERO: 2.0}
    assert budget.delta == 1e-5
    assert repr(budget) == "Budget(sum/zero_out ε ≤ 2, δ = 1e-05)"


@pytest.mark.parametrize(
    ("epsilon", "delta", "more"),
    [
        (2.0, 1e-5, {}),
        (2.0, 1e-5, {"view": View.SUM}),
        (2.0, 1e-5, {"view": "counts", "adjacency": Adjacency.ZERO_OUT}),
        ({}, 1e-5, {}),
        ({SUM_ZERO: 2.0}, 1e-5, {"view": View.SUM}),
        ({SUM_ZERO: 0.0}, 1e-5, {}),
        ({SUM_ZERO: math.inf}, 1e-5, {}),
        ({SUM_ZERO: 2.0}, 0.0, {}),
    ],
)
def test_a_budget_that_says_nothing_is_refused(epsilon, delta, more):
    with pytest.raises(InvalidParameter):
        Budget(epsilon, delta, **more)


def test_arguments_of_another_form_are_refused():
    budget = Budget({SUM_ZERO: 20.0}, 1e-5)
    for bad in (0, -1, 1.5):
        with pytest.raises(InvalidParameter, match="rounds"):
            budget.spend(RELEASE, rounds=bad)
    with pytest.raises(InvalidParameter, match="view"):
        budget.spend(RELEASE, view="counts")


@pytest.mark.parametrize("clip", [5e-324, 1e-160, 1e-50])
def test_rounds_that_cost_next_to_nothing_can_be_counted(clip):
    budget = Budget(2.0, 1e-5, view=View.SUM, adjacency=Adjacency.ZERO_OUT)
    tiny = MaskRelease(flip=0.25, clip=clip, cohort=10)
    left = budget.rounds_left(tiny)
    assert left > 10**18
    assert budget.admits(tiny, left)


@pytest.mark.parametrize(("flip", "clip"), [(1e-300, 1.0), (0.25, 1e160), (0.25, 1.7e308)])
def test_rounds_without_protection_are_refused_as_such(flip, clip):
    budget = Budget(2.0, 1e-5, view=View.SUM, adjacency=Adjacency.ZERO_OUT)
    with pytest.raises(BudgetExceeded, match="a single round"):
        budget.spend(MaskRelease(flip=flip, clip=clip, cohort=10))
