"""MADA, the mask-aware dynamic moving average: how the server moves θ towards a vote on masks.

The secure sum opens counts of n votes, each bit flipped with probability f. Debiased, they are an unbiased
estimate θ̄ of the clients' mean mask probability, with a variance that is *known*: a count of independent bits
whose mean is q varies by at most n·q(1−q), so Var θ̄ ≤ q(1−q)/(n(1−2f)²) for each coordinate. Every rule
blends θ_{t+1} = θ + λ(θ̄ − θ), and they differ in λ, which each makes of a `Vote`:

    "fixed"     a constant
    "schedule"  λ_start until `hold` of the rounds are done, then linearly to λ_end
    "sampled"   PRISM's: the Hamming distance of masks drawn from θ and θ̄ (Seo, Han, Yoo, ICLR 2025, Alg. 1).
                It can't fall under E[2θ(1−θ)], 0.41 at the usual start, agreement or not
    "expected"  its expectation, mean(θ(1−θ̄) + θ̄(1−θ))
    "coupled"   the same with both masks drawn from the same coins: mean|θ̄ − θ|, which does reach 0
    "cosine"    1 − cos(θ, θ̄), the official code's other choice
    "kalman"    noise-aware, each coordinate its own: (innovation² − noise)₊ / innovation² within [floor, 1],
                noise being the known variance above, times the λ of "schedule"
    "kalman_global"  the same from the means over all coordinates: a single λ

The schedule and the gain answer different noise. The gain knows what sampling and randomized response put on
the vote; it cannot know that late in a run most of what clients agree on is their optimizers' own wandering.
Falling λ averages that out. For the gain alone, set lambda_start = lambda_end = 1.

`shrink` first draws θ̄ towards ½, which multiplies its variance by (1 − shrink)² and biases it; with 2f it is
the mean of the bits as they came. `space="logit"` blends log-odds instead of probabilities, as the official
code does. Everything is float64, in numpy, a pure function of its arguments; θ_{t+1} is clamped to
[θ_min, 1 − θ_min].

A rule of one's own is a function of a `Vote`, too: `aggregation.rule = "package.module:name"`. It sees opened
sums alone, so no rule changes an epsilon.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from prism_privacy import debias
from prism_secure.config import Aggregation
from prism_secure.config.plugged import plugged
from prism_secure.config.sections import AggregationRule
from prism_secure.errors import RoundError

__all__ = ["Vote"]

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """θ_{t+1} (d,), the mean λ that made it, the move (d,) for the next round's momentum, and the loss.

    The loss is that of the server's own training on what was opened, where it trains: nothing of a client's
    data but through opened sums may be in it, or ε would not cover it.
    """

    theta: Vector
    mean_lambda: float
    move: Vector
    loss: float | None = None


def vote_variance(counts: NDArray[np.integer], survivors: int, flip: float) -> Vector:
    """An estimate of Var θ̄, float64 (d,): q(1−q)/(n(1−2f)²), q the share of ones after Laplace's rule.

    Laplace's (c + ½)/(n + 1) keeps a unanimous vote from claiming no variance. Under randomized response q
    can't be outside [f, 1−f], so it is clipped to it. Exact for equal clients, an upper bound otherwise.
    """
    share = (np.asarray(counts, dtype=np.float64) + 0.5) / (survivors + 1)
    share = np.clip(share, flip, 1 - flip)
    return share * (1 - share) / (survivors * (1 - 2 * flip) ** 2)


@dataclass(frozen=True)
class Vote:
    """What a rule makes λ of.

    Attributes:
        theta: the broadcast θ_t (d,).
        mean: θ̄ (d,), the debiased vote after `shrink`; its noise may carry it outside [0, 1].
        counts: the opened sums of bits (k,), k ≤ d; of the other coordinates θ̄ carries no known noise.
        survivors: how many clients are in the sums.
        flip: f of the randomized response the bits went through.
        progress: how far the run is: 0 in the first round, 1 in the last.
        settings: the section [aggregation].
        rng: public randomness, for rules that draw; None where the caller has none.
    """

    theta: Vector
    mean: Vector
    counts: NDArray[np.integer]
    survivors: int
    flip: float
    progress: float
    settings: Aggregation
    rng: np.random.Generator | None = None

    @cached_property
    def inside(self) -> Vector:
        """θ̄ (d,) clamped to [0, 1]."""
        return np.clip(self.mean, 0, 1)

    @cached_property
    def noise(self) -> Vector:
        """The known variance of θ̄ (d,), 0 where none is known."""
        found = np.zeros_like(self.theta)
        known = vote_variance(self.counts, self.survivors, self.flip)
        found[: len(self.counts)] = (1 - self.settings.shrink) ** 2 * known
        return found

    @property
    def falling(self) -> float:
        """λ of "schedule"."""
        settings = self.settings
        return scheduled(self.progress, settings.lambda_start, settings.lambda_end, settings.hold)


Rule = Callable[[Vote], float | Vector]
"""λ of a vote: one for all coordinates, or each its own (d,)."""


def fixed(vote: Vote) -> float:
    return vote.settings.lambda_start


def schedule(vote: Vote) -> float:
    return vote.falling


def sampled(vote: Vote) -> float:
    if vote.rng is None:
        raise ValueError("the rule 'sampled' draws masks: give it an rng")
    shape = vote.theta.shape
    return float(np.mean((vote.rng.random(shape) < vote.theta) != (vote.rng.random(shape) < vote.inside)))


def expected(vote: Vote) -> float:
    return float(np.mean(vote.theta * (1 - vote.inside) + vote.inside * (1 - vote.theta)))


def coupled(vote: Vote) -> float:
    return float(np.mean(np.abs(vote.inside - vote.theta)))


def cosine(vote: Vote) -> float:
    norms = float(np.linalg.norm(vote.theta) * np.linalg.norm(vote.inside))
    return 1.0 - float(vote.theta @ vote.inside) / norms if norms else 1.0


def kalman(vote: Vote) -> Vector:
    gain: Vector = vote.falling * _gain((vote.mean - vote.theta) ** 2, vote.noise, vote.settings.floor)
    return gain


def kalman_global(vote: Vote) -> float:
    innovation, noise = np.mean((vote.mean - vote.theta) ** 2), np.mean(vote.noise)
    return float(vote.falling * _gain(innovation, noise, vote.settings.floor))


def _gain(innovation: Vector | np.floating, noise: Vector | np.floating, floor: float) -> Vector:
    signal = np.maximum(innovation - noise, 0)
    gain: Vector = np.clip(signal / np.maximum(innovation, 1e-12), floor, 1)
    return gain


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (fixed, schedule, sampled, expected, coupled, cosine, kalman, kalman_global)
}
assert tuple(RULES) == get_args(AggregationRule), (
    f"AggregationRule in config/sections.py must name the rules in this order: {', '.join(RULES)}; got "
    f"{', '.join(get_args(AggregationRule))}"
)


def rule_of(settings: Aggregation) -> Rule:
    """The rule that `aggregation.rule` names.

    Raises:
        ConfigError: it is one of the user's own that cannot be imported or called.
    """
    return RULES.get(settings.rule) or plugged(settings.rule, "aggregation.rule")


def aggregate(
    theta: Vector,
    counts: NDArray[np.integer],
    *,
    survivors: int,
    flip: float,
    progress: float,
    aggregation: Aggregation,
    theta_min: float,
    move: Vector | None = None,
    rng: np.random.Generator | None = None,
    score_mean: Vector | None = None,
) -> Step:
    """One server step by the rule that `aggregation` names.

    Args:
        theta: the broadcast θ_t (d,).
        counts: the opened sums of bits (k,), k ≤ d; fewer than d where `score_mean` has the others.
        survivors, flip, progress, rng: see `Vote`.
        aggregation: the rule and its numbers.
        theta_min: θ_{t+1} stays within [theta_min, 1 − theta_min].
        move: the last `Step.move`, when momentum is used.
        score_mean: θ̄ of the last d − k coordinates, where those travel as scores; it carries no known noise.

    Raises:
        ValueError: the shapes do not fit, or "sampled" without `rng`.
        ConfigError, RoundError: a rule of one's own cannot be used, or gave no λ.
    """
    theta = np.asarray(theta, dtype=np.float64)
    mean = debias(counts, survivors, flip)
    mean += aggregation.shrink * (0.5 - mean)
    if score_mean is not None:
        mean = np.concatenate([mean, score_mean])
    if theta.shape != mean.shape:
        raise ValueError(f"θ has shape {theta.shape}, the counts {mean.shape}")
    vote = Vote(theta, mean, counts, survivors, flip, progress, aggregation, rng)
    return blend(theta, mean, _checked(rule_of(aggregation), vote), aggregation, theta_min, move)


def _checked(rule: Rule, vote: Vote) -> float | Vector:
    """λ, where the rule gives one: NaN would spoil θ, and every later round with it."""
    found = rule(vote)
    size = np.asarray(found)
    if (
        size.shape not in ((), vote.theta.shape)
        or size.dtype.kind not in "fiu"
        or not np.isfinite(size).all()
    ):
        raise RoundError(
            f"aggregation.rule = {vote.settings.rule!r} must give a finite number, or one for each of "
            f"{len(vote.theta)} coordinates, got {found!r}"
        )
    return found


def blend(
    theta: Vector,
    goal: Vector,
    step_size: float | Vector,
    aggregation: Aggregation,
    theta_min: float,
    move: Vector | None = None,
) -> Step:
    """θ + λ(goal − θ), in the space and with the momentum of `aggregation`."""
    start = theta
    if aggregation.space == "logit":
        start, goal = logit(theta), logit(np.clip(goal, theta_min, 1 - theta_min))
    step = step_size * (goal - start)
    if aggregation.momentum and move is not None:
        step = step + aggregation.momentum * move
    moved = start + step
    if aggregation.space == "logit":
        moved = expit(moved)
    return Step(np.clip(moved, theta_min, 1 - theta_min), float(np.mean(step_size)), step)


def progress(done: int, planned: int) -> float:
    """How far a run is after `done` of `planned` rounds: 0 before the first, 1 before the last and after it.

    >>> [progress(done, 5) for done in range(6)]
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return min(1.0, done / max(planned - 1, 1))


def scheduled(progress: float, start: float, end: float, hold: float) -> float:
    """`start` until `hold`, then linearly to `end` at progress 1.

    >>> [round(scheduled(p, 1.0, 0.2, 0.5), 9) for p in (0.0, 0.5, 0.75, 1.0)]
    [1.0, 1.0, 0.6, 0.2]
    """
    if progress <= hold:
        return start
    return start + (end - start) * (progress - hold) / (1 - hold)
