"""Randomized response without a clip: exact composition, as a binomial sum in log space.

A bit Ber(p) with p ∈ [f, 1−f] is ε₀-differentially private for ε₀ = log((1−f)/f), and every such bit is a
post-processing of randomized response with flip probability f; the same holds for adaptive sequences
(Kairouz, Oh and Viswanath, "The Composition Theorem for Differential Privacy", ICML 2015, theorem 3.3 and its
proof). So k bits are dominated, tightly, by Bin(k, 1−f) against Bin(k, f) with privacy loss (2J−k)·ε₀ at J,
and
    δ(ε) = P(J ≥ j) − e^ε·Q(J ≥ j),    j = the least integer with (2j−k)·ε₀ > ε.
"""

from __future__ import annotations

import math
from functools import lru_cache

from prism_privacy import _validate

__all__ = ["exact_epsilon"]

_EXACT_BITS = 10**10


def _log_tail(trials: int, success: float, least: int) -> float:
    """log P(Bin(trials, success) ≥ least), for 1 ≤ least ≤ trials."""
    from scipy import special

    direct = float(special.betainc(least, trials - least + 1, success))
    if direct > 1e-200:
        return math.log(direct)
    # So far above the mean the terms fall at least geometrically: sum them relative to the first.
    first = (
        math.lgamma(trials + 1)
        - math.lgamma(least + 1)
        - math.lgamma(trials - least + 1)
        + least * math.log(success)
        + (trials - least) * math.log1p(-success)
    )
    odds = success / (1.0 - success)
    total = term = 1.0
    at = least
    while at < trials:
        ratio = (trials - at) / (at + 1.0) * odds
        term *= ratio
        total += term
        at += 1
        if term * ratio < 1e-17 * (1.0 - ratio) * total:
            break
    return first + math.log(total)


@lru_cache(maxsize=4096)
def exact_epsilon(flip: float, bits: int, delta: float) -> float:
    """The smallest ε for which `bits` bits of randomized response are (ε, δ)-private, rounded up.

    The bits may be spread over any number of coordinates and rounds. The answer carries a margin of
    10⁻¹²·bits·ε₀ + 10⁻⁹ for the rounding of log Γ; `inf` for flip = 0.

    Above 10¹⁰ bits it is an upper bound instead: δ(ε) ≤ P((2J−k)·ε₀ > ε), which by Hoeffding's inequality is
    at most δ for ε = ((1−2f)·k + √(2k·log(1/δ)))·ε₀.

    >>> round(exact_epsilon(0.25, 10_000, 1e-5))
    5895
    >>> exact_epsilon(0.0, 1, 1e-5)
    inf
    """
    flip, bits, delta = _validate.flip(flip), _validate.count("bits", bits), _validate.delta(delta)
    if flip == 0.0:
        return math.inf
    # The first form keeps its digits near ½, the second near 0.
    each = math.log1p((1.0 - 2.0 * flip) / flip) if flip > 0.25 else math.log1p(-flip) - math.log(flip)
    if bits > _EXACT_BITS:
        loss = (1.0 - 2.0 * flip) * bits + math.sqrt(2.0 * bits * -math.log(delta))
        return min(loss * (1.0 + 1e-12), float(bits)) * each * (1.0 + 1e-12)

    def tails(least: int) -> tuple[float, float]:
        return _log_tail(bits, 1.0 - flip, least), _log_tail(bits, flip, least)

    def exceeds(least: int) -> bool:
        """Is δ(ε) > δ at ε = (2·least − bits)·ε₀, where the tail begins one above?"""
        log_p, log_q = tails(least + 1)
        loss = (2 * least - bits) * each
        return math.exp(log_p) - math.exp(min(loss + log_q, 0.0)) > delta

    # The losses at or above zero: δ(ε) falls with ε, so bisect for the first that does not exceed δ.
    low, high = (bits + 1) // 2 - 1, bits
    while high - low > 1:
        middle = (low + high) // 2
        if exceeds(middle):
            low = middle
        else:
            high = middle
    log_p, log_q = tails(high)
    # Between the losses at high−1 and at high the tail is {J ≥ high}.
    exact = math.log(math.exp(log_p) - delta) - log_q if math.exp(log_p) > delta else 0.0
    exact = min(exact, (2 * high - bits) * each)
    if exact <= 0.0:
        return 0.0
    return min(exact + 1e-12 * bits * each + 1e-9, bits * each * (1.0 + 1e-15))
