"""What a ledger leaves to an attacker: never less than the best test of explicit worlds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from prism_privacy import (
    Accountant,
    Adjacency,
    Ledger,
    LedgerError,
    LedgerKey,
    MaskRelease,
    MomentRelease,
    RecordGuarantee,
    Spent,
    Unit,
    View,
    spent_table,
    verify_ledger,
)
from prism_privacy.ledger.attacker import FALSE_POSITIVE_RATES, certified, largest_true_positive_rate

DELTA = 1e-5
MOMENTS = MomentRelease.calibrated(epsilon=2.0, delta=DELTA, records=1000, classes=10)


def ledger(
    path: Path, release: MaskRelease, rounds: int, *, record: bool = False, planned: float | None = None
) -> Path:
    accountant = Accountant(DELTA)
    guarantee = RecordGuarantee.of(MOMENTS, DELTA) if record else None
    with Ledger.create(path, LedgerKey(), federation="fed", clients=1000) as kept:
        for number in range(1, rounds + 1):
            accountant.spend(release)
            table = {
                cell: Spent(spent.round, spent.to_date, None if planned is None else planned * spent.to_date)
                for cell, spent in spent_table(accountant, release).items()
            }
            kept.append(round=number, release=release, delta=DELTA, epsilon=table, record=guarantee)
    return path


def best_test(null: Sequence[float], other: Sequence[float], rate: float) -> float:
    """Neyman and Pearson: outcomes by their likelihood ratio, the last one by a coin."""
    left, found = rate, 0.0
    for p, q in sorted(zip(null, other, strict=True), key=lambda pq: pq[0] / pq[1] if pq[1] else math.inf):
        taken = 1.0 if p <= left else left / p
        left, found = left - taken * p, found + taken * q
    return found


def rates_of(path: Path, unit: Unit, view: View | None, adjacency: str) -> dict[float, float]:
    (found,) = [
        each
        for each in certified(verify_ledger(path))
        if (each.unit, each.view, each.adjacency) == (unit, view, adjacency)
    ]
    return dict(zip(FALSE_POSITIVE_RATES, found.rates, strict=True))


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 2.0, 9.0])
@pytest.mark.parametrize("delta", [0.0, 1e-5, 0.02])
def test_one_guarantee_leaves_what_the_worst_mechanism_gives(epsilon: float, delta: float) -> None:
    share = (1 - delta) / (1 + math.exp(epsilon))
    null = [delta, share * math.exp(epsilon), share, 0.0]
    other = [0.0, share, share * math.exp(epsilon), delta]
    for rate in FALSE_POSITIVE_RATES:
        found = largest_true_positive_rate({delta: epsilon}, rate)
        assert found == pytest.approx(best_test(null, other, rate), abs=1e-12)


def test_more_points_of_a_curve_only_lower_the_bound() -> None:
    assert largest_true_positive_rate({1e-5: 2.0, 1e-3: 1.0}, 0.01) < largest_true_positive_rate(
        {1e-5: 2.0}, 0.01
    )
    assert largest_true_positive_rate({1e-5: 2.0, 1e-3: math.inf}, 0.01) == largest_true_positive_rate(
        {1e-5: 2.0}, 0.01
    )


def test_gaussian_noise_leaves_what_the_best_test_of_two_normal_laws_finds(tmp_path: Path) -> None:
    path = ledger(tmp_path / "l.jsonl", MaskRelease(0.25, 1.0, cohort=1000), 1, record=True)
    for rate, found in rates_of(path, Unit.RECORD, None, "swap").items():
        exact = stats.norm.sf(stats.norm.isf(rate) - 1 / MOMENTS.multiplier)
        assert exact <= found < 1.02 * exact
        assert found < largest_true_positive_rate({DELTA: 2.0}, rate), (
            "the curve says more than one point of it"
        )


@pytest.mark.parametrize("flip", [0.1, 0.25, 0.4])
@pytest.mark.parametrize("rounds", [1, 3])
def test_no_test_of_one_bits_uploads_does_better(flip: float, rounds: int, tmp_path: Path) -> None:
    """All outcomes of one bit in some rounds, between its two most different probabilities."""
    path = ledger(tmp_path / "l.jsonl", MaskRelease(flip, None, cohort=1, dim=1), rounds)
    ones = [sum(bits) for bits in itertools.product((0, 1), repeat=rounds)]
    null = [flip**k * (1 - flip) ** (rounds - k) for k in ones]
    other = [(1 - flip) ** k * flip ** (rounds - k) for k in ones]
    for rate, found in rates_of(path, Unit.CLIENT, View.UPLOAD, "replace_one").items():
        assert best_test(null, other, rate) <= found + 1e-12


@pytest.mark.parametrize("cohort", [3, 20])
def test_no_test_of_opened_counts_does_better(cohort: int, tmp_path: Path) -> None:
    """One coordinate of a sum: the client at either end of the box, all others at one end."""
    flip = 0.25
    path = ledger(tmp_path / "l.jsonl", MaskRelease(flip, 1 - 2 * flip, cohort=cohort, dim=1), 1)
    for others in (flip, 1 - flip):
        rest = stats.binom.pmf(np.arange(cohort), cohort - 1, others)
        null, other = (np.convolve(rest, [1 - p, p]) for p in (flip, 1 - flip))
        for rate, found in rates_of(path, Unit.CLIENT, View.SUM, "replace_one").items():
            assert best_test(null, other, rate) <= found + 1e-12


def test_where_not_all_that_was_planned_is_released_the_plan_bounds_the_attack(tmp_path: Path) -> None:
    path = ledger(tmp_path / "l.jsonl", MaskRelease(0.25, 1.0, cohort=1000), 2, planned=3.0)
    for each in certified(verify_ledger(path)):
        assert each.epsilon == pytest.approx(3 * each.to_date)
        assert each.rates == tuple(
            largest_true_positive_rate({DELTA: each.epsilon}, rate) for rate in FALSE_POSITIVE_RATES
        )
    spent = ledger(tmp_path / "m.jsonl", MaskRelease(0.25, 1.0, cohort=1000), 2)
    planned, whole = certified(verify_ledger(path))[0], certified(verify_ledger(spent))[0]
    assert (whole.view, whole.adjacency) == (View.SUM, Adjacency.ZERO_OUT.value)
    assert all(less < more for less, more in zip(whole.rates, planned.rates, strict=True))


def test_a_ledger_that_states_less_than_its_releases_cost_is_refused(tmp_path: Path) -> None:
    release, accountant = MaskRelease(0.25, 1.0, cohort=1000), Accountant(DELTA)
    accountant.spend(release)
    for factor, refused in ((0.5, True), (0.99, True), (1.0, False), (2.0, False)):
        table = {
            cell: Spent(factor * spent.round, factor * spent.to_date)
            for cell, spent in spent_table(accountant, release).items()
        }
        path = tmp_path / f"{factor}.jsonl"
        with Ledger.create(path, LedgerKey(), federation="fed") as kept:
            kept.append(round=1, release=release, delta=DELTA, epsilon=table)
        if refused:
            with pytest.raises(LedgerError, match="its own releases cost"):
                certified(verify_ledger(path))
        else:
            assert len(certified(verify_ledger(path))) == 4


def test_known_coins_and_an_empty_ledger_certify_nothing(tmp_path: Path) -> None:
    with Ledger.create(tmp_path / "empty.jsonl", LedgerKey(), federation="fed"):
        pass
    assert certified(verify_ledger(tmp_path / "empty.jsonl")) == []
    with Ledger.create(tmp_path / "known.jsonl", LedgerKey(), federation="fed") as kept:
        release = MaskRelease(0.25, 1.0, cohort=1000)
        kept.append(round=1, release=release, delta=DELTA, epsilon=None, coins="test")
    assert certified(verify_ledger(tmp_path / "known.jsonl")) == []
