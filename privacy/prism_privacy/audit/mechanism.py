"""The audit of a black box: probes, the three layers, and the error of all their tests together."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np

from prism_privacy import _validate
from prism_privacy.audit import goodness_of_fit, structure
from prism_privacy.audit.black_box import BlackBox, Mechanism, Progress, Seeds
from prism_privacy.audit.checks import Bound, Check, Layer, MechanismAudit
from prism_privacy.audit.claim import Claim
from prism_privacy.audit.exact_tests import clopper_pearson, holm
from prism_privacy.audit.lower_bounds import independent_bound, one_run_bound, two_worlds_bound
from prism_privacy.audit.probes import Counts, Group, Probes, Repeated
from prism_privacy.errors import InvalidParameter

__all__ = ["SHARES", "TRIALS", "audit_mechanism"]

TRIALS = 2048
"""Calls of one probe. 2048 seeds collide 32 times among 2^16 streams (never: probability e^-32)."""

SHARES = {Layer.LOWER_BOUND: 0.25, Layer.GOODNESS_OF_FIT: 0.5, Layer.STRUCTURE: 0.25}
"""How the error is split: Bonferroni between the layers and between bounds, Holm within the other two."""


def audit_mechanism(
    mechanism: Mechanism,
    claim: Claim,
    *,
    dim: int | None = None,
    trials: int = TRIALS,
    confidence: float = 0.99,
    seed: int = 0,
    progress: Progress | None = None,
) -> MechanismAudit:
    """Try to refute a claim about a function (input, theta, seed) -> bits.

    Args:
        mechanism: called with the input, int64 0/1 or float64 scores, shape (d,); theta, float64 (d,), in
            [0.1, 0.9]; and a seed, an int in [0, 2^31) that stands for all randomness of the upload
            (`make_seed` has its parts). Answers with d zeros and ones (anything that NumPy reads as such).
        dim: d ≥ 64; None: `claim.smallest_dim()`.
        trials: calls of one probe, ≥ 64 and even; an audit makes four to six times as many and a few hundred.
        confidence: an honest mechanism has no finding at all with at least this probability.
        seed: of the auditor's own choices. Same seed, same audit.
        progress: told (calls done, most calls, name of the probe).

    Raises:
        AuditError: the mechanism failed, or answered with something else than d bits.
        InvalidParameter: an argument out of range.

    >>> def honest(bits, theta, seed):
    ...     return bits ^ (np.random.default_rng(seed).random(bits.size) < 0.25)
    >>> audit_mechanism(honest, Claim(flip=0.25), dim=256, trials=256).verdict.value
    'clean'
    >>> audit_mechanism(honest, Claim(flip=0.3), dim=256, trials=256).verdict.value
    'finding'
    """
    size = claim.smallest_dim() if dim is None else _validate.count("dim", dim, least=64)
    if _validate.count("trials", trials, least=64) % 2:
        raise InvalidParameter(f"trials must be even, got {trials}")
    error = 1.0 - _validate.real("confidence", confidence)
    if not 1e-12 < error < 0.5:
        raise InvalidParameter(f"confidence must be in (0.5, 1 − 10⁻¹²), got {confidence!r}")
    started = time.monotonic()
    rng = np.random.default_rng(_validate.count("seed", seed, least=0))
    box = BlackBox(mechanism, Probes.calls(claim, trials), progress)
    probes = Probes(claim, box, size, trials, rng, Seeds(rng))

    rate = probes.agreement()
    repeated, random = probes.repeated(), probes.random_signs()
    neighbour, groups = probes.neighbour(), probes.mixed()
    halfway, federation = probes.halfway(), probes.federation()
    ignored, changed = probes.ignored_seed_bits(), probes.replays_that_differ()

    bits = trials * size

    def of_the_law(rate: float, groups: list[Group]) -> list[Check]:
        return [
            goodness_of_fit.rate_check(claim, "flips of random canaries", int(random.sum()), bits, rate),
            goodness_of_fit.rate_check(claim, "flips of one input", repeated.total, bits, rate),
            goodness_of_fit.likelihood_check(repeated.per_call, size, rate),
            *goodness_of_fit.repeated_checks(repeated, rate),
            *(goodness_of_fit.group_check(claim, group) for group in groups),
            *structure.federation_checks(federation, rate),
        ]

    checks = of_the_law(rate, groups)
    law = len(checks)
    if claim.clip is not None and claim.input == "bits":
        checks += goodness_of_fit.centre_checks(claim, groups)
    if halfway is not None:
        checks.append(structure.precision_check(halfway))
    norm = structure.norm_check(claim, repeated)
    if norm is not None:
        checks.append(norm)
    coins, in_the_way = structure.coin_checks(repeated, ignored, rate)
    checks = _decided(checks + coins, error)
    if any(check.found and check.fewer is not None for check in checks):
        seen = (int(random.sum()) + repeated.total) / (2 * bits)
        seen = min(max(seen, 0.5 / bits), 1.0 - 0.5 / bits)  # a rate of 0 or 1 allows for no other answer
        at_seen = _decided(of_the_law(seen, _at_rate(claim, groups, seen)), error)
        checks[:law] = [
            replace(check, follows=check.found and not other.found)
            for check, other in zip(checks[:law], at_seen, strict=True)
        ]

    unchecked = [in_the_way] if in_the_way else []
    if claim.clip is not None and norm is None:
        unchecked.append(
            f"the clip does not bind at --dim {size}, so nothing tested it: use at least "
            f"{claim.smallest_dim()}"
        )
    elif claim.clip is not None and halfway is None:
        unchecked.append("precision of the clip: no θ puts p between two bfloat16 numbers at this --dim")
    if changed:
        unchecked.append(
            f"{changed} replayed calls of the same input, theta and seed gave other bits: the mechanism "
            "keeps a state or has randomness of its own, so independence of its calls cannot be vouched for"
        )
    bounds = _bounds(claim, size, repeated, random, neighbour, rate, error)
    return MechanismAudit(
        claim,
        size,
        trials,
        box.calls,
        seed,
        confidence,
        dict(SHARES),
        tuple(checks),
        bounds,
        tuple(unchecked),
        _resolution(rate, bits, error),
        time.monotonic() - started,
    )


def _at_rate(claim: Claim, groups: list[Group], rate: float) -> list[Group]:
    """What groups would be claimed to be if bits agreed at this rate; a clip leaves them as they are."""
    if claim.clip is not None:
        return groups
    return [replace(group, rate=1.0 - rate + (2.0 * rate - 1.0) * group.value) for group in groups]


def _decided(checks: list[Check], error: float) -> list[Check]:
    """Holm within each layer, at the layer's share of the error."""
    decided = []
    for layer in (Layer.GOODNESS_OF_FIT, Layer.STRUCTURE):
        members = [check for check in checks if check.layer is layer]
        level = math.log(error * SHARES[layer])
        for check, adjusted in zip(members, holm([check.log_p for check in members]), strict=True):
            decided.append(replace(check, adjusted=adjusted, found=adjusted <= level))
    return decided


def _bounds(
    claim: Claim,
    dim: int,
    repeated: Repeated,
    random: Counts,
    neighbour: Counts,
    rate: float,
    error: float,
) -> tuple[Bound, ...]:
    """Three lower bounds, each wrong with a third of the layer's share at most."""
    share = error * SHARES[Layer.LOWER_BOUND] / 3.0
    sure, claimed = 1.0 - share, claim.epsilon_at(dim)
    achieved, hits, alarms = two_worlds_bound(repeated.per_call, neighbour, claim.delta, share)
    half = repeated.per_call.size // 2
    canaries, right = random.size * dim, int(random.sum())
    inside = clopper_pearson(repeated.total, canaries, share / 2.0)[0]
    outside = clopper_pearson(int(neighbour.sum()), canaries, share / 2.0)[1]
    return (
        Bound(
            "two worlds",
            "upload",
            achieved,
            claimed,
            claim.delta,
            sure,
            "whatever the mechanism does",
            f"{hits} of {half} uploads in one world against {alarms} of {half} in the other, threshold from "
            "another half (Clopper–Pearson)",
        ),
        Bound(
            "one run",
            "coordinate",
            one_run_bound(canaries, canaries, right, 0.0, share),
            math.log(rate) - math.log1p(-rate),
            0.0,
            sure,
            "however coordinates are coupled",
            f"{right:,} of {canaries:,} random canaries guessed from their own bit",
        ),
        Bound(
            "independent coordinates",
            "upload",
            independent_bound(dim, inside, outside, claim.delta),
            claimed,
            claim.delta,
            sure,
            "if the bits of an upload are independent and alike",
            f"bits agree with the canary at a rate ≥ {inside:.5f} in one world, ≤ {outside:.5f} in the other",
        ),
    )


def _resolution(rate: float, bits: int, error: float) -> float:
    """The smallest change of the rate of flips that the first check finds with probability 95%, roughly."""
    from scipy import stats

    tests = 10.0
    level = error * SHARES[Layer.GOODNESS_OF_FIT] / tests
    quantiles = float(stats.norm.isf(level / 2.0) + stats.norm.isf(0.05))
    return quantiles * math.sqrt(rate * (1.0 - rate) / bits)
