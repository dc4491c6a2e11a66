"""MADA, the mask-aware dynamic moving average: how the server moves θ towards a vote on masks.

The secure sum opens counts of n votes, each bit flipped with probability f. Debiased, they are an unbiased
estimate θ̄ of the clients' mean mask probability, with a variance that is *known*: a count of independent bits
whose mean is q varies by at most n·q(1−q), so Var θ̄ ≤ q(1−q)/(n(1−2f)²) for each coordinate. Every rule
blends θ_{t+1} = θ + λ(θ̄ − θ), and they differ in λ:

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
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from prism_privacy import debias
from prism_secure.config import Aggregation

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """θ_{t+1} (d,), the mean λ that made it, and the move (d,) for the next round's momentum."""

    theta: Vector
    mean_lambda: float
    move: Vector


def vote_variance(counts: NDArray[np.integer], survivors: int, flip: float) -> Vector:
    """An estimate of Var θ̄, float64 (d,): q(1−q)/(n(1−2f)²), q the share of ones after Laplace's rule.

    Laplace's (c + ½)/(n + 1) keeps a unanimous vote from claiming no variance. Under randomized response q
    can't be outside [f, 1−f], so it is clipped to it. Exact for equal clients, an upper bound otherwise.
    """
    share = (np.asarray(counts, dtype=np.float64) + 0.5) / (survivors + 1)
    share = np.clip(share, flip, 1 - flip)
    return share * (1 - share) / (survivors * (1 - 2 * flip) ** 2)


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
    """One server step.

    Args:
        theta: the broadcast θ_t (d,).
        counts: the opened sums of bits (k,), k ≤ d; fewer than d where `score_mean` has the others.
        survivors: how many clients are in the sums.
        flip: f of the randomized response the bits went through.
        progress: how far the run is: 0 in the first round, 1 in the last ("schedule" reads it).
        aggregation: the rule and its numbers.
        theta_min: θ_{t+1} stays within [theta_min, 1 − theta_min].
        move: the last `Step.move`, when momentum is used.
        rng: public randomness of "sampled"; no other rule draws.
        score_mean: θ̄ of the last d − k coordinates, where those travel as scores; it carries no known noise.

    Raises:
        ValueError: the shapes do not fit, or "sampled" without `rng`.
    """
    theta = np.asarray(theta, dtype=np.float64)
    mean = debias(counts, survivors, flip)
    mean += aggregation.shrink * (0.5 - mean)
    if score_mean is not None:
        mean = np.concatenate([mean, score_mean])
    if theta.shape != mean.shape:
        raise ValueError(f"θ has shape {theta.shape}, the counts {mean.shape}")
    step_size = _lambda(theta, mean, counts, survivors, flip, progress, aggregation, rng)
    if aggregation.space == "theta":
        start, goal = theta, mean
    else:
        start, goal = logit(theta), logit(np.clip(mean, theta_min, 1 - theta_min))
    step = step_size * (goal - start)
    if aggregation.momentum and move is not None:
        step = step + aggregation.momentum * move
    moved = start + step
    if aggregation.space == "logit":
        moved = expit(moved)
    return Step(np.clip(moved, theta_min, 1 - theta_min), float(np.mean(step_size)), step)


def _lambda(
    theta: Vector,
    mean: Vector,
    counts: NDArray[np.integer],
    survivors: int,
    flip: float,
    progress: float,
    aggregation: Aggregation,
    rng: np.random.Generator | None,
) -> float | Vector:
    rule = aggregation.rule
    if rule == "fixed":
        return aggregation.lambda_start
    falling = scheduled(progress, aggregation.lambda_start, aggregation.lambda_end, aggregation.hold)
    if rule == "schedule":
        return falling
    inside = np.clip(mean, 0, 1)
    if rule == "sampled":
        if rng is None:
            raise ValueError("the rule 'sampled' draws masks: give it an rng")
        return float(np.mean((rng.random(theta.shape) < theta) != (rng.random(theta.shape) < inside)))
    if rule == "expected":
        return float(np.mean(theta * (1 - inside) + inside * (1 - theta)))
    if rule == "coupled":
        return float(np.mean(np.abs(inside - theta)))
    if rule == "cosine":
        norms = float(np.linalg.norm(theta) * np.linalg.norm(inside))
        return 1.0 - float(theta @ inside) / norms if norms else 1.0
    innovation = (mean - theta) ** 2
    noise = np.zeros_like(theta)
    noise[: len(counts)] = (1 - aggregation.shrink) ** 2 * vote_variance(counts, survivors, flip)
    if rule == "kalman_global":
        innovation, noise = np.asarray(np.mean(innovation)), np.asarray(np.mean(noise))
    signal = np.maximum(innovation - noise, 0)
    gain = falling * np.clip(signal / np.maximum(innovation, 1e-12), aggregation.floor, 1)
    return float(gain) if rule == "kalman_global" else gain


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
