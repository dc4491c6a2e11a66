"""A client's influence on one round, limited exactly.

What a client may say is a vector of probabilities p in the box [f, 1 - f]^d. In the world where it is
zeroed out it says the public p_t instead, so its influence is p - p_t and that is what is clipped: around
p_t, not around theta_t. Two limits are offered:

``probability``
    ||p - p_t||_2 <= C. The integers satisfy sum (k - k_t)^2 <= floor((C 2^24)^2), checked in integers.
``score``
    ||s - s_t||_2 / tau <= C_s with s_t = tau logit(theta_t). What accounting needs of it is
    ||logit p - logit p_t||_2 <= (1 - 2f) C_s, which follows for real numbers because x -> logit(f +
    (1 - 2f) sigma(x)) is (1 - 2f)-Lipschitz (its slope is (1-2f) s (1-s) / (p (1-p)), and p (1-p) >=
    s (1-s) for p between s and 1/2). It is checked on the *quantised* p, with a margin far above the
    rounding of the check. As |p - q| <= |logit p - logit q| / 4, ||p - p_t||_2 <= (1 - 2f) C_s / 4 too.

Rounding moves every coordinate towards p_t, so it can only lower an influence. If the check still fails
(a float norm was rounded down) the vector is scaled down a little more and quantised again; the loop
ends because at scale zero p = p_t.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prism_privacy import _validate
from prism_privacy.errors import InvalidParameter
from prism_privacy.masks.fixed_point import (
    SCALE,
    as_float64,
    check_range,
    rounded_like,
    squared_limit,
    sum_of_squares,
)
from prism_privacy.masks.randomized_response import RandomizedResponse

Space = Literal["probability", "score"]

_MARGIN = 2.0**-40
"""Relative room in the check of the score clip. Its float error: every term is |log1p(x)| with x >= 0 from
exact integers, relative error below 8 * 2^-53 (log1p has condition number <= 1 on x >= 0); squaring
doubles that; pairwise summation of d < 2^40 terms adds less than 200 * 2^-53. In all below 2^-45."""


def clip_toward(
    values: ArrayLike,
    theta: ArrayLike,
    *,
    flip: float,
    clip: float | None,
    space: Space = "probability",
    temperature: float | None = None,
    theta_min: float = 0.0,
) -> NDArray[np.uint32]:
    """The probabilities a client's bits are drawn with, in units of 2^-24.

    Args:
        values: shape (d,) or any other, floats of any width. In ``probability`` space the client's mask
            probabilities sigma(s / tau) in [0, 1]; in ``score`` space its scores s.
        theta: the broadcast theta_t, same shape as ``values``, in [theta_min, 1 - theta_min].
        flip: f, in [0, 1/2).
        clip: C (or C_s), > 0; None: no clip, the box alone.
        space: where the norm is limited.
        temperature: tau > 0 that ties scores to probabilities; needed in ``score`` space and only there.
        theta_min: how near to 0 and 1 the server may put theta. It and 1 - theta_min are rounded to
            theta's own dtype first, as a clamp in that dtype would have done.

    Returns:
        k with p = k / 2^24, uint32, the shape of ``values``, within the box of
        :class:`RandomizedResponse`. In ``score`` space also 1 <= k <= 2^24 - 1, so that logits exist.

    Raises:
        InvalidParameter: a value that is not finite or out of range (how many, and where the first is),
            shapes that differ, or a parameter out of range.

    >>> clip_toward([1.0, 0.5], [0.5, 0.5], flip=0.25, clip=None) / 2**24
    array([0.75, 0.5 ])
    >>> clip_toward([1.0, 0.5], [0.5, 0.5], flip=0.25, clip=0.125) / 2**24
    array([0.625, 0.5  ])
    """
    response = RandomizedResponse(flip)
    if space not in get_args(Space):
        raise InvalidParameter(f"space must be one of {', '.join(map(repr, get_args(Space)))}, got {space!r}")
    radius = None if clip is None else _validate.positive("clip", clip)
    if not 0.0 <= _validate.real("theta_min", theta_min) < 0.5:
        raise InvalidParameter(f"theta_min must lie in [0, 0.5), got {theta_min!r}")
    private = as_float64(values, "values")
    public = _public_theta(theta, theta_min)
    if private.shape != public.shape:
        raise InvalidParameter(
            f"values and theta must have one shape, got {private.shape} and {public.shape}"
        )

    if space == "probability":
        if temperature is not None:
            raise InvalidParameter(
                "temperature belongs to space='score', where values are scores; in space='probability' "
                "values are probabilities already"
            )
        return _in_probability_space(private, public, response, radius)
    tau = _validate.positive("temperature (which space='score' needs)", temperature)
    if public.size and not (public.min() > 0.0 and public.max() < 1.0):
        raise InvalidParameter("space='score' needs theta strictly between 0 and 1: its logit is the score")
    with np.errstate(over="ignore"):
        scaled = as_float64(private / tau, "values / temperature")
    if radius is None:
        from scipy.special import expit

        return _in_probability_space(expit(scaled), public, response, None)
    return _in_score_space(scaled, public, response, radius)


def _public_theta(theta: ArrayLike, theta_min: float) -> NDArray[np.float64]:
    wide = as_float64(theta, "theta")
    low, high = (rounded_like(edge, theta) for edge in (theta_min, 1.0 - theta_min))
    check_range(wide, low, high, "theta")
    return wide


def _in_probability_space(
    values: NDArray[np.float64],
    theta: NDArray[np.float64],
    response: RandomizedResponse,
    clip: float | None,
) -> NDArray[np.uint32]:
    lo, hi = response.box
    centre = response.public_point(theta).astype(np.int64)
    target = np.clip(response.probabilities(values) * SCALE, lo, hi) - centre
    if clip is None:
        return (centre + _towards_zero(target)).astype(np.uint32)

    limit = squared_limit(clip)

    def excess(steps: NDArray[np.int64]) -> float:
        total = sum_of_squares(steps)
        return 0.0 if total <= limit else math.sqrt(total / limit) if limit else math.inf

    scale = _scale_to_norm(target, clip * SCALE)
    steps = shrink_until_within(lambda s: _towards_zero(s * target), excess, scale)
    return (centre + steps).astype(np.uint32)


def _in_score_space(
    scaled_scores: NDArray[np.float64],
    theta: NDArray[np.float64],
    response: RandomizedResponse,
    clip: float,
) -> NDArray[np.uint32]:
    from scipy.special import expit, logit

    lo, hi = response.box
    lo, hi = max(lo, 1), min(hi, SCALE - 1)
    centre = np.clip(response.public_point(theta).astype(np.int64), lo, hi)
    start = logit(theta)
    move = scaled_scores - start
    slope = 1.0 - 2.0 * response.flip
    # A product, which overflows to inf; a power would raise.
    limit = (slope * clip) * (slope * clip) * (1.0 - _MARGIN)

    def quantise(scale: float) -> NDArray[np.int64]:
        wanted = slope * SCALE * (expit(start + scale * move) - expit(start))
        inside: NDArray[np.int64] = np.clip(centre + _towards_zero(wanted), lo, hi)
        return inside - centre

    def excess(steps: NDArray[np.int64]) -> float:
        total = _squared_logit_distance(centre, centre + steps) * (1.0 + _MARGIN)
        return 0.0 if total <= limit else math.sqrt(total / limit) if limit else math.inf

    return (centre + shrink_until_within(quantise, excess, _scale_to_norm(move, clip))).astype(np.uint32)


def _scale_to_norm(move: NDArray[np.float64], radius: float) -> float:
    """min(1, radius / ||move||_2), without overflow for any finite vector."""
    largest = float(np.abs(move).max(initial=0.0))
    if largest == 0.0:
        return 1.0
    return min(1.0, radius / largest / float(np.linalg.norm(move / largest)))


def _squared_logit_distance(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """Sum of (logit a - logit b)^2 for units strictly between 0 and 2^24.

    logit(high) - logit(low) = log(1 + (high - low) / (low (1 - high))), all exact until the division.
    """
    low, high = np.minimum(a, b), np.maximum(a, b)
    ratio = ((high - low) * SCALE).astype(np.float64) / (low * (SCALE - high)).astype(np.float64)
    return float(np.sum(np.square(np.log1p(ratio)).reshape(-1)))


def shrink_until_within(
    quantise: Callable[[float], NDArray[np.int64]],
    excess: Callable[[NDArray[np.int64]], float],
    scale: float,
) -> NDArray[np.int64]:
    """``quantise(scale)`` at the first scale whose ``excess`` is 0; each step gives up twice as much more."""
    give_up = _MARGIN
    while True:
        steps = quantise(scale)
        ratio = excess(steps)
        if ratio == 0.0:
            return steps
        give_up = min(1.0, 2.0 * give_up)
        scale *= (1.0 - give_up) / ratio


def _towards_zero(values: NDArray[np.float64]) -> NDArray[np.int64]:
    steps: NDArray[np.int64] = np.trunc(values).astype(np.int64)
    return steps
