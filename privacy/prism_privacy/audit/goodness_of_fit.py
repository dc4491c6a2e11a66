"""Layer two: do the bits have the claimed law? Two-sided: too much noise is found as well as too little."""

from __future__ import annotations

import math

import numpy as np

from prism_privacy.audit.checks import Check, Layer
from prism_privacy.audit.claim import Claim
from prism_privacy.audit.exact_tests import average_rate, clopper_pearson, distribution, two_sided
from prism_privacy.audit.probes import THETAS, Counts, Group, Repeated

__all__ = ["centre_checks", "group_check", "likelihood_check", "outside", "rate_check", "repeated_checks"]

SHOWN_ERROR = 0.005
"""Intervals in evidence are right 99 times in 100."""


def rate_check(claim: Claim, name: str, agreeing: int, bits: int, rate: float) -> Check:
    """Canaries at the box edge: how often does a bit disagree with its input?"""
    flipped, claimed = bits - agreeing, 1.0 - rate
    low, high = clopper_pearson(flipped, bits, SHOWN_ERROR)
    meaning = "the bits do not have the claimed noise"
    for other, cause in (
        (0.0, "there is no noise at all"),
        (claim.flip, "the clip has no effect"),
        (claimed / 2.0, "half of the claimed noise: is f meant where 2f is written?"),
        (claimed * 2.0, "twice the claimed noise: is 2f meant where f is written?"),
        (0.5, "the bits do not depend on the input"),
    ):
        if low <= other <= high and not math.isclose(other, claimed):
            meaning = cause
            break
    return Check(
        name,
        Layer.GOODNESS_OF_FIT,
        f"{flipped / bits:.4%} of {bits:,} bits differ from their input "
        f"({low:.4%} to {high:.4%}), claimed {claimed:.4%}",
        meaning,
        two_sided(bits, rate, agreeing),
        fewer=flipped < claimed * bits,
    )


def likelihood_check(samples: Counts, dim: int, rate: float) -> Check:
    """Log-likelihood ratios of whole uploads against their exact law.

    For the canary against its opposite an upload with A agreements has the log-likelihood ratio (2A−d)·log(π/
    (1−π)), so its law is that of A, Bin(d, π).
    """
    distance, log_p = distribution(samples, dim, rate)
    spread = math.sqrt(dim * rate * (1.0 - rate))
    return Check(
        "log-likelihood ratios",
        Layer.GOODNESS_OF_FIT,
        f"{samples.size:,} uploads, agreements {samples.mean():.1f} ± {samples.std():.1f} of {dim}, "
        f"claimed {dim * rate:.1f} ± {spread:.1f}; the distribution functions differ by {distance:.4f}",
        "what one upload tells an observer does not have the claimed distribution: another rate, or bits "
        "that depend on each other",
        log_p,
    )


def repeated_checks(seen: Repeated, rate: float) -> list[Check]:
    """Is every coordinate treated alike?"""
    trials, counts = seen.per_call.size, seen.per_coordinate
    dim, log_dim = counts.size, math.log(counts.size)
    lowest, highest = int(counts.min()), int(counts.max())
    extreme = min(two_sided(trials, rate, lowest), two_sided(trials, rate, highest))
    low, high, beyond = outside(trials, rate)
    strange = int(np.count_nonzero((counts < low) | (counts > high)))
    return [
        Check(
            "worst coordinate",
            Layer.GOODNESS_OF_FIT,
            f"agreements of one coordinate lie between {lowest} and {highest} of {trials}, claimed mean "
            f"{trials * rate:.1f}",
            "at least one coordinate does not have the claimed noise",
            min(0.0, extreme + log_dim),
        ),
        Check(
            "all coordinates",
            Layer.GOODNESS_OF_FIT,
            f"{strange} of {dim} coordinates agree fewer than {low} or more than {high} times in {trials}, "
            f"claimed {dim * beyond:.1f}",
            "coordinates have different noise, or coins are shared between uploads",
            two_sided(dim, beyond, strange),
        ),
    ]


def outside(trials: int, rate: float) -> tuple[int, int, float]:
    """(low, high, P(Bin < low or Bin > high)) for about the central 70% of Bin(trials, rate)."""
    from scipy import special, stats

    low, high = (int(stats.binom.ppf(tail, trials, rate)) for tail in (0.15, 0.85))
    below = float(special.bdtr(low - 1, trials, rate)) if low > 0 else 0.0
    above = float(special.bdtrc(high, trials, rate)) if high < trials else 0.0
    return low, high, below + above


def group_check(claim: Claim, group: Group) -> Check:
    """Bits of one θ and one input value."""
    low, high = clopper_pearson(group.ones, group.bits, SHOWN_ERROR)
    centred = claim.clip is not None and claim.input == "scores" and group.value == group.theta
    return Check(
        "clip centre" if centred else "mixed inputs",
        Layer.STRUCTURE if centred else Layer.GOODNESS_OF_FIT,
        f"θ = {group.theta}, input {group.value:g}: {group.ones / group.bits:.4%} ones in {group.bits:,} "
        f"bits ({low:.4%} to {high:.4%}), claimed {group.rate:.4%}",
        _centre_meaning(claim, group.theta, low, high)
        if centred
        else "the probability of a bit does not follow input and θ as claimed",
        two_sided(group.bits, group.rate, group.ones),
    )


def centre_checks(claim: Claim, groups: list[Group]) -> list[Check]:
    """Bits as input: moves cancel over each θ's group, so the mean of all its bits is p_t."""
    checks = []
    for theta in THETAS:
        members = [group for group in groups if group.theta == theta]
        bits = sum(group.bits for group in members)
        ones = sum(group.ones for group in members)
        rate = sum(group.rate * group.bits for group in members) / bits
        low, high = clopper_pearson(ones, bits, SHOWN_ERROR)
        checks.append(
            Check(
                "clip centre",
                Layer.STRUCTURE,
                f"θ = {theta}: moves that cancel leave {ones / bits:.4%} ones ({low:.4%} to {high:.4%}), "
                f"claimed {rate:.4%}",
                _centre_meaning(claim, theta, low, high),
                average_rate(bits, rate, ones),
            )
        )
    return checks


def _centre_meaning(claim: Claim, theta: float, low: float, high: float) -> str:
    public = claim.flip + claim.width * theta
    where = "nearer to θ than to p_t: " if abs((low + high) / 2.0 - theta) < abs(public - theta) / 2.0 else ""
    return f"{where}the clip is not centred on p_t = f + (1−2f)θ = {public:.4f}"
