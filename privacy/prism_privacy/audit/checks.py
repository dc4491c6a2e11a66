"""What an audit finds, as values: checks with p-values, lower bounds with confidences, a verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from prism_privacy.audit.claim import Claim

__all__ = ["Bound", "Check", "Finding", "Layer", "MechanismAudit", "Verdict", "format_log_p"]


class Layer(StrEnum):
    """Which kind of evidence."""

    LOWER_BOUND = "lower bound"
    """An adversary with canaries achieved more than the claimed ε allows."""
    GOODNESS_OF_FIT = "goodness of fit"
    """The bits do not have the claimed law."""
    STRUCTURE = "structure"
    """Coins, clip or state are not what the composition of rounds and clients needs."""


class Verdict(StrEnum):
    """How an audit ended."""

    CLEAN = "clean"
    FINDING = "finding"
    UNCHECKED = "could not check"


@dataclass(frozen=True)
class Check:
    """One hypothesis test of the claim.

    log_p      natural logarithm of the p-value
    adjusted   the same after Holm's correction within the layer
    found      whether the layer's share of the error allows to call it false
    follows    whether only another rate of flips makes it false: at the measured one it would not be
    fewer      of a check of the rate of flips alone: whether there are fewer than claimed
    evidence   what was counted, and what the claim says of it
    meaning    what it means if the claim is false here
    """

    name: str
    layer: Layer
    evidence: str
    meaning: str
    log_p: float
    adjusted: float = 0.0
    found: bool = False
    follows: bool = False
    fewer: bool | None = None


@dataclass(frozen=True)
class Bound:
    """ε of the `unit` is at least `epsilon`, with `confidence`, if the `assumption` holds."""

    name: str
    unit: str
    epsilon: float
    claimed: float
    delta: float
    confidence: float
    assumption: str
    evidence: str

    @property
    def exceeds(self) -> bool:
        """Is the claimed ε refuted?"""
        return self.epsilon > self.claimed * (1.0 + 1e-9)


@dataclass(frozen=True)
class Finding:
    """One way in which the claim is false, with its evidence and how sure it is.

    follows   the name of the finding that it is a consequence of, or ""
    """

    name: str
    layer: Layer
    evidence: str
    meaning: str
    sure: str
    follows: str = ""


@dataclass(frozen=True)
class MechanismAudit:
    """The result of `audit_mechanism`.

    confidence   a mechanism whose claim is true has no finding at all with at least this probability
    shares       how the error 1 − confidence is split between the layers
    unchecked    what could not be examined, and what would help
    resolution   the smallest change of the flip probability that this audit finds 19 times in 20
    """

    claim: Claim
    dim: int
    trials: int
    calls: int
    seed: int
    confidence: float
    shares: dict[Layer, float]
    checks: tuple[Check, ...]
    bounds: tuple[Bound, ...]
    unchecked: tuple[str, ...]
    resolution: float
    seconds: float

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is false: causes, surest first within each layer, and then what follows from them."""
        cause = self.cause
        found = [
            Finding(
                bound.name,
                Layer.LOWER_BOUND,
                f"ε of one {bound.unit} ≥ {bound.epsilon:.4g} at δ = {bound.delta:g}, "
                f"claimed {bound.claimed:.4g}; {bound.evidence}",
                "the mechanism leaks more than it says",
                f"confidence {bound.confidence:.6g}, {bound.assumption}",
                cause.name if cause and cause.fewer else "",
            )
            for bound in self.bounds
            if bound.exceeds
        ]
        for check in sorted(self.checks, key=lambda check: check.adjusted):
            if check.found:
                tests = sum(other.layer is check.layer for other in self.checks)
                sure = f"p = {format_log_p(check.adjusted)} after correcting for {tests} tests"
                follows = cause.name if cause and check.follows and check is not cause else ""
                found.append(Finding(check.name, check.layer, check.evidence, check.meaning, sure, follows))
        return tuple(
            sorted(found, key=lambda each: (bool(each.follows), cause is None or each.name != cause.name))
        )

    @property
    def cause(self) -> Check | None:
        """The surest finding that the rate of flips is not the claimed one, from which others may follow."""
        rates = [check for check in self.checks if check.found and check.fewer is not None]
        return min(rates, key=lambda check: (check.adjusted, check.log_p), default=None)

    @property
    def verdict(self) -> Verdict:
        """FINDING if there is one; else UNCHECKED if something could not be examined; else CLEAN."""
        if self.findings:
            return Verdict.FINDING
        return Verdict.UNCHECKED if self.unchecked else Verdict.CLEAN

    def as_dict(self) -> dict[str, Any]:
        """JSON-safe: everything, p-values as base-10 logarithms (null: zero)."""
        claim = self.claim
        return {
            "verdict": self.verdict.value,
            "claim": {
                "flip": claim.flip,
                "clip": claim.clip,
                "clip_space": claim.clip_space,
                "input": claim.input,
                "temperature": claim.temperature,
                "epsilon": claim.epsilon_at(self.dim),
                "epsilon_from": "the caller" if claim.epsilon is not None else "the accountant",
                "delta": claim.delta,
                "adjacency": claim.adjacency.value,
            },
            "dim": self.dim,
            "trials": self.trials,
            "calls": self.calls,
            "seed": self.seed,
            "seconds": self.seconds,
            "confidence": self.confidence,
            "error_shares": {layer.value: share for layer, share in self.shares.items()},
            "resolution": self.resolution,
            "findings": [vars(finding) | {"layer": finding.layer.value} for finding in self.findings],
            "lower_bounds": [vars(bound) | {"exceeds": bound.exceeds} for bound in self.bounds],
            "checks": [
                {
                    "name": check.name,
                    "layer": check.layer.value,
                    "found": check.found,
                    "log10_p": _log10(check.log_p),
                    "log10_p_adjusted": _log10(check.adjusted),
                    "evidence": check.evidence,
                    "meaning": check.meaning,
                }
                for check in self.checks
            ],
            "unchecked": list(self.unchecked),
        }


def _log10(log_p: float) -> float | None:
    return None if math.isinf(log_p) else log_p / math.log(10.0)


def format_log_p(log_p: float) -> str:
    """A p-value for people.

    >>> format_log_p(math.log(0.25)), format_log_p(-1000.0), format_log_p(-math.inf)
    ('0.25', '10⁻⁴³⁴', '0')
    """
    if math.isinf(log_p):
        return "0"
    if log_p > math.log(1e-4):
        return f"{math.exp(log_p):.2g}"
    return "10" + f"{log_p / math.log(10.0):.0f}".translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
