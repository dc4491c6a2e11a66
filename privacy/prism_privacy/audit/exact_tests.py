"""Exact tails and bounds: every p-value of an audit is one of these.

All are valid at any sample size: no central limit theorem, no simulation. p-values are natural logarithms,
because the p-value of a real defect has thousands of zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "average_rate",
    "clopper_pearson",
    "distribution",
    "holm",
    "log_lower_tail",
    "log_upper_tail",
    "two_sided",
]


def log_upper_tail(trials: int, rate: float, least: int) -> float:
    """log P(Bin(trials, rate) ≥ least).

    >>> round(math.exp(log_upper_tail(3, 0.5, 3)), 6)
    0.125
    """
    from scipy import special

    if least <= 0:
        return 0.0
    if least > trials or rate <= 0.0:
        return -math.inf
    if rate >= 1.0:
        return 0.0
    direct = float(special.betainc(least, trials - least + 1, rate))
    if direct > 1e-200:
        return math.log(direct)
    # So far out the terms fall from the first on, at least geometrically: add them relative to it.
    first = (
        float(special.gammaln(trials + 1) - special.gammaln(least + 1) - special.gammaln(trials - least + 1))
        + least * math.log(rate)
        + (trials - least) * math.log1p(-rate)
    )
    odds = rate / (1.0 - rate)
    start = (trials - least) / (least + 1.0) * odds
    steps = min(trials - least, math.ceil(40.0 / max(1.0 - start, 1e-6)))
    at = least + np.arange(steps, dtype=np.float64)
    return first + math.log1p(float(np.cumprod((trials - at) / (at + 1.0) * odds).sum()))


def log_lower_tail(trials: int, rate: float, most: int) -> float:
    """log P(Bin(trials, rate) ≤ most)."""
    return log_upper_tail(trials, 1.0 - rate, trials - most)


def two_sided(trials: int, rate: float, seen: int) -> float:
    """log p of `seen` successes in `trials` independent ones of probability `rate`: twice the smaller tail.

    >>> round(math.exp(two_sided(3, 0.5, 3)), 6)
    0.25
    """
    tail = min(log_upper_tail(trials, rate, seen), log_lower_tail(trials, rate, seen))
    return min(0.0, math.log(2.0) + tail)


def average_rate(trials: int, rate: float, seen: int) -> float:
    """`two_sided` where only the *average* of the trials' probabilities is `rate`; still an upper bound of p.

    Beyond one success from its mean, a sum of independent Bernoullis has lighter tails than the binomial of
    the average probability (Hoeffding, "On the distribution of the number of successes in independent
    trials", 1956, theorem 4).
    """
    return 0.0 if abs(seen - trials * rate) < 1.0 else two_sided(trials, rate, seen)


def clopper_pearson(seen: int, trials: int, error: float) -> tuple[float, float]:
    """(low, high) for a success probability; each side is wrong with probability at most `error`.

    Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    1934.

    >>> low, high = clopper_pearson(0, 10, 0.05)
    >>> low, round(high, 4)
    (0.0, 0.2589)
    """
    from scipy import special

    low = 0.0 if seen == 0 else float(special.betaincinv(seen, trials - seen + 1, error))
    high = 1.0 if seen == trials else float(special.betainccinv(seen + 1, trials - seen, error))
    return low, high


def distribution(samples: NDArray[np.int64], trials: int, rate: float) -> tuple[float, float]:
    """(D, log p): are the samples, shape (N,), independent draws of Bin(trials, rate)?

    D is the largest distance between the two distribution functions. P(D ≥ t) ≤ 2·exp(−2Nt²) for every N
    and every law, discrete ones included (Massart 1990).
    """
    from scipy import special

    counts = np.bincount(samples, minlength=trials + 1)
    empirical = np.cumsum(counts) / samples.size
    exact = special.bdtr(np.arange(trials + 1, dtype=np.float64), trials, rate)
    distance = float(np.abs(empirical - exact).max())
    return distance, min(0.0, math.log(2.0) - 2.0 * samples.size * distance**2)


def holm(log_ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (as logarithms), in the order given.

    Rejecting those ≤ log(α) makes any false rejection at most α likely, whatever the tests' dependence
    (Holm, "A simple sequentially rejective multiple test procedure", 1979).

    >>> [round(math.exp(p), 3) for p in holm([math.log(0.01), math.log(0.5), math.log(0.02)])]
    [0.03, 0.5, 0.04]
    """
    order = sorted(range(len(log_ps)), key=lambda index: log_ps[index])
    adjusted = [0.0] * len(log_ps)
    worst = -math.inf
    for rank, index in enumerate(order):
        worst = max(worst, min(0.0, log_ps[index] + math.log(len(log_ps) - rank)))
        adjusted[index] = worst
    return adjusted
