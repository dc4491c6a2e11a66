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

Vectors are worked through in pieces that stay in cache, once without a clip and twice with one (for the norm,
for the integers), so that no other array is as long as them. The norm is put together from pieces that BLAS
adds up in one thread, so it is the same on every number of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prism_privacy import _validate
from prism_privacy.errors import InvalidParameter
from prism_privacy.masks.fixed_point import (
    PIECE,
    SCALE,
    Computed,
    Widened,
    as_float64,
    check_range,
    pieces,
    rounded_like,
    squared_limit,
    sum_of_squares,
)
from prism_privacy.masks.randomized_response import RandomizedResponse

Space = Literal["probability", "score"]

_MARGIN = 2.0**-40
"""Relative room in the check of the score clip. Its float error: every term is |log1p(x)| with x >= 0 from
exact integers, relative error below 8 * 2^-53 (log1p has condition number <= 1 on x >= 0); squaring
doubles that; pairwise summation of the 2^15 terms of a piece adds less than 200 * 2^-53, and the pieces are
summed exactly. In all below 2^-45."""

_SERIAL = 1 << 13
"""Terms of a sum of squares that BLAS adds up in one thread, in whatever machine."""


def clip_toward(
    values: ArrayLike | Computed,
    theta: ArrayLike | Computed,
    *,
    flip: float,
    clip: float | None,
    space: Space = "probability",
    temperature: float | None = None,
    theta_min: float = 0.0,
) -> NDArray[np.uint32]:
    """The probabilities a client's bits are drawn with, in units of 2^-24.

    Args:
        values: shape (d,) or any other, floats of any width, or :class:`Computed`. In ``probability`` space
            the client's mask probabilities sigma(s / tau) in [0, 1]; in ``score`` space its scores s.
        theta: the broadcast theta_t, same shape as ``values``, in [theta_min, 1 - theta_min]. One that is
            :class:`Computed` counts as binary64.
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
    private, public = Widened(values, "values"), Widened(theta, "theta")
    if private.shape != public.shape:
        raise InvalidParameter(
            f"values and theta must have one shape, got {private.shape} and {public.shape}"
        )
    tau = None
    if space == "score":
        tau = _validate.positive("temperature (which space='score' needs)", temperature)
    elif temperature is not None:
        raise InvalidParameter(
            "temperature belongs to space='score', where values are scores; in space='probability' "
            "values are probabilities already"
        )
    low, high = (rounded_like(edge, theta) for edge in (theta_min, 1.0 - theta_min))
    room = _Rooms(private.size)

    def read_theta(piece: slice) -> NDArray[np.float64]:
        wide = public.read(piece, room.theta)
        if not (wide.min() >= low and wide.max() <= high):
            check_range(as_float64(theta, "theta"), low, high, "theta")
        if tau is not None and not (wide.min() > 0.0 and wide.max() < 1.0):
            raise InvalidParameter(
                "space='score' needs theta strictly between 0 and 1: its logit is the score"
            )
        return wide

    def read_values(piece: slice) -> NDArray[np.float64]:
        wide = private.read(piece, room.values)
        if tau is None:
            if not (wide.min() >= 0.0 and wide.max() <= 1.0):
                check_range(as_float64(values, "values"), 0.0, 1.0, "values")
            return wide
        with np.errstate(over="ignore"):
            wide /= tau
        if not np.isfinite([wide.min(), wide.max()]).all():
            with np.errstate(over="ignore"):
                as_float64(as_float64(values, "values") / tau, "values / temperature")
        return wide

    k = np.empty(private.size, dtype=np.uint32)
    if tau is None or radius is None:
        _in_probability_space(k, read_values, read_theta, response, radius, scores=tau is not None)
    else:
        _in_score_space(k, read_values, read_theta, response, radius)
    return k.reshape(private.shape)


_Tried = TypeVar("_Tried")
_Square = TypeVar("_Square", int, float)
_Read = Callable[[slice], NDArray[np.float64]]


class _Rooms:
    """Where a piece of each vector lies in binary64."""

    def __init__(self, size: int) -> None:
        self.theta, self.values = np.empty(min(size, PIECE)), np.empty(min(size, PIECE))


def _in_probability_space(
    k: NDArray[np.uint32],
    values: _Read,
    theta: _Read,
    response: RandomizedResponse,
    clip: float | None,
    *,
    scores: bool,
) -> None:
    """Fills k. ``scores``: the values are scores over their temperature."""
    if scores:
        from scipy.special import expit
    lo, hi = response.box
    # Times a power of two, which rounds nothing: these are the units of f + (1 - 2f) v.
    base, slope = response.flip * SCALE, (1.0 - 2.0 * response.flip) * SCALE

    def centre(piece: slice) -> NDArray[np.float64]:
        return _units(theta(piece), base, slope, lo, hi, nearest=True)

    def move(piece: slice, centre: NDArray[np.float64]) -> NDArray[np.float64]:
        own = values(piece)
        if scores:
            expit(own, out=own)
        own = _units(own, base, slope, lo, hi, nearest=False)
        own -= centre
        return own

    if clip is None:
        for piece in pieces(k.size):
            middle = centre(piece)
            steps = move(piece, middle)
            np.trunc(steps, out=steps)
            steps += middle
            k[piece] = steps
        return

    limit = squared_limit(clip)

    def quantise(piece: slice, centre: NDArray[np.float64], scale: float) -> tuple[NDArray[np.float64], int]:
        steps = move(piece, centre)
        steps *= scale
        np.trunc(steps, out=steps)
        return steps, _sum_of_squares(steps)

    def excess(squares: list[int]) -> float:
        total = sum(squares)
        return 0.0 if total <= limit else math.sqrt(total / limit) if limit else math.inf

    _fill(k, centre, move, quantise, excess, clip * SCALE)


def _units(
    values: NDArray[np.float64], base: float, slope: float, lo: int, hi: int, *, nearest: bool
) -> NDArray[np.float64]:
    """f + (1 - 2f) v in units within the box, where v was."""
    values *= slope
    values += base
    if nearest:
        np.rint(values, out=values)
    return np.clip(values, lo, hi, out=values)


def _sum_of_squares(steps: NDArray[np.float64]) -> int:
    """Exact: below 2^53 the floats' sum of squares is, whatever its order, as no part of it is larger."""
    found = float(steps.dot(steps))
    return int(found) if found < 2.0**53 else sum_of_squares(steps.astype(np.int64))


def _in_score_space(
    k: NDArray[np.uint32], values: _Read, theta: _Read, response: RandomizedResponse, clip: float
) -> None:
    """Fills k; the values are scores over their temperature."""
    from scipy.special import expit, logit

    lo, hi = response.box
    lo, hi = max(lo, 1), min(hi, SCALE - 1)
    slope = 1.0 - 2.0 * response.flip
    # A product, which overflows to inf; a power would raise.
    limit = (slope * clip) * (slope * clip) * (1.0 - _MARGIN)

    def centre(piece: slice) -> NDArray[np.float64]:
        return np.clip(response.public_point(theta(piece)).astype(np.float64), lo, hi)

    def start(piece: slice) -> NDArray[np.float64]:
        public = theta(piece)
        return logit(public, out=public)

    def move(piece: slice, centre: NDArray[np.float64]) -> NDArray[np.float64]:
        own = values(piece)
        own -= start(piece)
        return own

    def quantise(
        piece: slice, centre: NDArray[np.float64], scale: float
    ) -> tuple[NDArray[np.float64], float]:
        public, own = start(piece), values(piece)
        own -= public
        own *= scale
        own += public
        expit(own, out=own)
        own -= expit(public, out=public)
        own *= slope * SCALE
        np.trunc(own, out=own)
        own += centre
        np.clip(own, lo, hi, out=own)
        square = _squared_logit_distance(centre, own)
        own -= centre
        return own, square

    def excess(squares: list[float]) -> float:
        total = math.fsum(squares) * (1.0 + _MARGIN)
        return 0.0 if total <= limit else math.sqrt(total / limit) if limit else math.inf

    _fill(k, centre, move, quantise, excess, clip)


def _fill(
    k: NDArray[np.uint32],
    centre: Callable[[slice], NDArray[np.float64]],
    move: Callable[[slice, NDArray[np.float64]], NDArray[np.float64]],
    quantise: Callable[[slice, NDArray[np.float64], float], tuple[NDArray[np.float64], _Square]],
    excess: Callable[[list[_Square]], float],
    radius: float,
) -> None:
    """k = the public point and as much of the move as fits the radius.

    Args:
        k: filled, shape (d,).
        centre: the public point of a piece.
        move: what is limited, of a piece, given its public point.
        quantise: the move times a scale in whole units, and what it adds to the squared norm.
        excess: as in `shrink_until_within`, of all that was added.
        radius: of the moves' norm.
    """
    room = np.empty(min(k.size, PIECE))
    parts = pieces(k.size)

    def public(piece: slice) -> NDArray[np.float64]:
        known = room[: piece.stop - piece.start]
        np.copyto(known, k[piece])
        return known

    norms: list[tuple[float, float]] = []  # largest move, and the squared norm in units of it
    for piece in parts:
        middle = centre(piece)
        k[piece] = middle
        own = move(piece, middle)
        largest = max(float(own.max()), -float(own.min()))
        if largest > 0.0:
            own /= largest
            for start in range(0, own.size, _SERIAL):
                part = own[start : start + _SERIAL]
                norms.append((largest, float(part.dot(part))))
    scale = _scale_to_norm(norms, radius)
    taken = False

    def tried(scale: float) -> list[_Square]:
        nonlocal taken
        squares = []
        for piece in parts:
            if taken:  # k holds the last attempt
                k[piece] = centre(piece)
            middle = public(piece)
            steps, square = quantise(piece, middle, scale)
            squares.append(square)
            steps += middle
            k[piece] = steps
        taken = True
        return squares

    shrink_until_within(tried, excess, scale)


def _scale_to_norm(norms: list[tuple[float, float]], radius: float) -> float:
    """min(1, radius / norm) without overflow for any finite vector; ``norms`` as `_fill` has them."""
    largest = max((each for each, _ in norms), default=0.0)
    if largest == 0.0:
        return 1.0
    square = math.fsum(dot * (each / largest) ** 2 for each, dot in norms)
    return min(1.0, radius / largest / math.sqrt(square))


def _squared_logit_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Sum of (logit a - logit b)^2 for units strictly between 0 and 2^24.

    logit(high) - logit(low) = log(1 + (high - low) / (low (1 - high))): integers below 2^48 but for it.
    """
    low, ratio = np.minimum(a, b), np.maximum(a, b)
    below = SCALE - ratio
    ratio -= low
    ratio *= SCALE
    below *= low
    ratio /= below
    np.log1p(ratio, out=ratio)
    return float(np.sum(np.square(ratio, out=ratio)))


def shrink_until_within(
    quantise: Callable[[float], _Tried], excess: Callable[[_Tried], float], scale: float
) -> _Tried:
    """``quantise(scale)`` at the first scale whose ``excess`` is 0; each step gives up twice as much more."""
    give_up = _MARGIN
    while True:
        steps = quantise(scale)
        ratio = excess(steps)
        if ratio == 0.0:
            return steps
        give_up = min(1.0, 2.0 * give_up)
        scale *= (1.0 - give_up) / ratio
