"""Epsilon of a sum for cohorts that nothing is known of yet, and the search for a clip."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from unittest.mock import patch

from dp_accounting import GaussianDpEvent, SelfComposedDpEvent
from dp_accounting.mechanism_calibration import ExplicitBracketInterval, calibrate_dp_mechanism
from dp_accounting.pld import PLDAccountant

from prism_crypto.bench.rows import Row, in_turn
from prism_privacy import Accountant, Adjacency, MaskRelease, View, calibrate
from prism_privacy.accounting.kappa.store import _curve, _table
from prism_privacy.accounting.renyi import renyi_curve

DELTA, FLIP, CLIP, ROUNDS = 1e-5, 0.2371, 0.877, 20
"""Of which no table is shipped."""


def rows(tries: int, *, quick: bool = False) -> Iterator[Row]:
    """Cold: no table is shipped for this flip, and none is kept."""
    for cohort in (100,) if quick else (100, 1_000, 10_000, 100_000, 1_000_000):
        ours, other = in_turn(
            min(tries, 3), partial(_cold, partial(_epsilon, cohort)), partial(_by_loss_distributions, cohort),
            least=0.0,
        )  # fmt: skip
        yield Row(
            name=f"ε(SUM) of 20 rounds, cohort {cohort:,}, cold",
            unit="s",
            ours=ours,
            instead="dp_accounting's PLD of Gaussian noise as large, which is no bound",
            other=other,
        )
    for cohort in (10,) if quick else (10, 1_000):
        ours, other = in_turn(min(tries, 3), partial(_cold, partial(_clip, cohort)), _noise, least=0.0)
        yield Row(
            name=f"the clip for ε = 2, cohort {cohort:,}, cold",
            unit="s",
            ours=ours,
            instead="dp_accounting's search for Gaussian noise, the same, which is no bound",
            other=other,
        )


def _cold(ask: Callable[[], float]) -> float:
    """As in a new process, on a machine where nobody has asked before."""
    for known in (_curve, _table, renyi_curve):
        known.cache_clear()
    with tempfile.TemporaryDirectory() as empty, patch.dict(os.environ, {"XDG_CACHE_HOME": empty}):
        return ask()


def _epsilon(cohort: int) -> float:
    accountant = Accountant(DELTA)
    accountant.spend(MaskRelease(FLIP, CLIP, cohort=cohort), rounds=ROUNDS)
    return accountant.epsilon(View.SUM, Adjacency.ZERO_OUT)


def _clip(cohort: int) -> float:
    return calibrate(
        epsilon=2.0, delta=DELTA, rounds=ROUNDS, flip=FLIP, cohort=cohort, view=View.SUM,
        adjacency=Adjacency.ZERO_OUT,
    ).clip or 0.0  # fmt: skip


def _by_loss_distributions(cohort: int) -> float:
    """Of Gaussian noise with the sum's variance: near the truth in large cohorts, and certified by nobody."""
    accountant = PLDAccountant(value_discretization_interval=1e-3)
    accountant.compose(GaussianDpEvent(math.sqrt(cohort * FLIP * (1.0 - FLIP)) / CLIP), ROUNDS)
    return float(accountant.get_epsilon(DELTA))


def _noise() -> float:
    """The noise over the clip for ε = 2, whatever the cohort."""
    return float(
        calibrate_dp_mechanism(
            lambda: PLDAccountant(value_discretization_interval=1e-3),
            lambda noise: SelfComposedDpEvent(GaussianDpEvent(noise), ROUNDS),
            2.0,
            DELTA,
            ExplicitBracketInterval(1.0, 100.0),
        )
    )
