"""Layer three: properties that ε over many rounds and clients rests on, and that one upload cannot show."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from prism_privacy.audit.black_box import CLIENT_BITS, ROUND_BITS, SEED_BITS
from prism_privacy.audit.checks import Check, Layer
from prism_privacy.audit.claim import Claim
from prism_privacy.audit.exact_tests import clopper_pearson, log_upper_tail, two_sided
from prism_privacy.audit.goodness_of_fit import SHOWN_ERROR, outside
from prism_privacy.audit.probes import CLIENTS, Federation, Group, Repeated

__all__ = ["coin_checks", "federation_checks", "norm_check", "precision_check"]


def federation_checks(seen: Federation, rate: float) -> list[Check]:
    """XOR across rounds and across clients, and the dispersion of the clients' counts."""
    differ = 2.0 * rate * (1.0 - rate)
    checks = [
        Check(
            f"coins across {what}",
            Layer.STRUCTURE,
            f"{count / seen.compared:.4%} of {seen.compared:,} bits differ between two {what}, "
            f"claimed {differ:.4%}",
            "the same coins are used again" if count < differ * seen.compared else wrong,
            two_sided(seen.compared, differ, count),
        )
        for what, count, wrong in (
            (
                "rounds",
                seen.across_rounds,
                "a round depends on the coins of the one before (error feedback?)",
            ),
            ("clients", seen.across_clients, "one client's coins depend on another's"),
        )
    ]
    low, high, beyond = outside(CLIENTS, rate)
    strange = int(np.count_nonzero((seen.counts < low) | (seen.counts > high)))
    variance, claimed = float(seen.counts.var()), CLIENTS * rate * (1.0 - rate)
    checks.append(
        Check(
            "dispersion of counts",
            Layer.STRUCTURE,
            f"sums over {CLIENTS} clients have variance {variance:.3f}, independent coins {claimed:.3f}; "
            f"{strange} of {seen.counts.size:,} lie outside [{low}, {high}], claimed "
            f"{beyond * seen.counts.size:.1f}",
            "the clients' coins depend on each other, so a sum hides less than its cohort says"
            if variance > claimed
            else "the counts of a cohort do not have the claimed law",
            two_sided(seen.counts.size, beyond, strange),
        )
    )
    return checks


def coin_checks(seen: Repeated, ignored: list[int], rate: float) -> tuple[list[Check], str | None]:
    """How many streams of coins are there? Equal uploads of one input, and seed bits that do nothing.

    Two honest uploads are equal with probability (π²+(1−π)²)^d. Returns the checks, and what is in the way
    where that is not negligible.
    """
    uploads, dim = seen.per_call.size, seen.per_coordinate.size
    log_equal = dim * math.log(rate * rate + (1.0 - rate) ** 2)
    pairs = uploads * (uploads - 1) // 2
    if log_equal + math.log(pairs) > math.log(1e-6):
        return [], (
            f"reused or low-entropy coins: two honest uploads of {dim} bits may be equal by chance; use more "
            "coordinates (--dim)"
        )
    multiplicity = Counter(seen.digests)
    equal = sum(count * (count - 1) // 2 for count in multiplicity.values())
    if len(multiplicity) == 1:
        streams = "one stream of coins for all seeds"
    elif equal:
        streams = f"about {pairs / equal:,.0f} different streams of coins"
    else:
        streams = "no repetition"
    named = ", ".join(_bit_ranges(ignored))
    return [
        Check(
            "low-entropy coins",
            Layer.STRUCTURE,
            f"{equal:,} of {pairs:,} pairs of uploads with different seeds are equal: {streams}",
            "whoever tries all streams reads the input off the upload",
            min(0.0, log_equal + math.log(pairs)) if equal else 0.0,
        ),
        Check(
            "ignored seed bits",
            Layer.STRUCTURE,
            f"changing one bit of the seed changes nothing for {len(ignored)} of {SEED_BITS} bits"
            + (f" ({named})" if ignored else ""),
            "uploads that should have their own coins share them",
            min(0.0, log_equal + math.log(SEED_BITS)) if ignored else 0.0,
        ),
    ], None


def _bit_ranges(ignored: list[int]) -> list[str]:
    parts = Counter(
        "round" if bit < ROUND_BITS else "client" if bit < ROUND_BITS + CLIENT_BITS else "run"
        for bit in ignored
    )
    return [f"{count} of the {part}" for part, count in parts.items()]


def norm_check(claim: Claim, seen: Repeated) -> Check | None:
    """Is ‖p−p_t‖₂ ≤ C? From pairs of uploads of one input, whatever the direction of the move.

    At θ = ½ two independent bits of probability p are equal with probability ½+2(p−½)², so equal bits count
    ‖p−p_t‖². Under the claim their average probability is at most ½+2C²/d, and Hoeffding (1956) bounds their
    number by a binomial. None where the box alone keeps the norm: then the clip goes untested.
    """
    radius, dim = claim.radius(), seen.per_coordinate.size
    if not radius < claim.width / 2.0 * math.sqrt(dim):
        return None
    compared = seen.per_call.size // 2 * dim
    most = 0.5 + 2.0 * radius**2 / dim
    low, high = (
        math.sqrt(max(0.0, (share - 0.5) * dim / 2.0))
        for share in clopper_pearson(seen.pair_agreements, compared, SHOWN_ERROR)
    )
    log_p = log_upper_tail(compared, most, seen.pair_agreements)
    return Check(
        "norm",
        Layer.STRUCTURE,
        f"‖p − p_t‖ is between {low:.4g} and {high:.4g}, claimed at most {radius:.4g}",
        "the clip is missing or too wide (or both uploads of a pair used the same coins)",
        log_p if seen.pair_agreements >= compared * most + 1.0 else 0.0,
    )


def precision_check(group: Group) -> Check:
    """p halfway between two bfloat16 numbers, which have 8 significant bits."""
    low, high = clopper_pearson(group.ones, group.bits, SHOWN_ERROR)
    gap = 2.0 ** (math.frexp(group.rate)[1] - 9)
    return Check(
        "precision",
        Layer.STRUCTURE,
        f"p = {group.rate:.6f} lies halfway between two bfloat16 numbers; "
        f"{group.ones / group.bits:.4%} ones in {group.bits:,} bits ({low:.4%} to {high:.4%})",
        "the clipped probability is rounded to the next bfloat16 number"
        if low < group.rate + gap < high or low < group.rate - gap < high
        else "the clipped probability is not the claimed one, by more or less than bfloat16 explains",
        two_sided(group.bits, group.rate, group.ones),
    )
