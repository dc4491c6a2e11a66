"""κ(α): the largest Rényi divergence of one coordinate per squared move, certified from a moment table.

    κ(α) = sup over p, q ∈ [f, 1−f], 0 < |p−q| ≤ reach, both directions, of D_α / (p−q)²

Bits of different coordinates are independent given p, so the divergence of a release is Σ_i D_α(coordinate i)
≤ κ(α)·Σ_i Δ_i² ≤ κ(α)·R², whatever the number of coordinates. With λ = Δ/(1−2f) and the notation of
`renyi_moments`, D_α/Δ² = log(1+g)/((α−1)(1−2f)²λ²); the supremum over the continuum of λ is taken here.

On a piece [λa, λb] between two nodes let c ≥ G on the piece (a chord of a convex function). Since
log(1+c·y)/y falls with y = λ²,
    log(1+g)/λ² ≤ log(1+c·λa²)/λa²   (= c at λa = 0).
Independently, g grows with λ (D_α is convex in either argument and zero at λ = 0), so with h ≥ log(1+g(λb))
from a chord of N (forward) or of log(1+g) (backward),
    log(1+g)/λ² ≤ h/λa².
The smaller of the two holds. About `_PIECES` pieces cover the whole range of λ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prism_privacy.accounting.kappa.renyi_moments import MomentTable

__all__ = ["Curve", "curve_from_table", "squared"]

_PIECES = 1200
_SAFE = 1.0 + 1e-12
_LEAST_RADIUS = 1e-150

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """One coordinate's Rényi bounds on a list of orders.

    cohort, flip, reach   n (1: one upload), f, and the largest |p−q|
    orders                α, ascending, shape (A,)
    kappa                 D_α ≤ kappa·(p−q)², shape (A,)
    most                  D_α ≤ most, for every |p−q| ≤ reach, shape (A,)
    """

    cohort: int
    flip: float
    reach: float
    orders: Floats
    kappa: Floats
    most: Floats

    def divergence(self, radius: float, dim: int | None) -> Floats:
        """RDP of a whole release: the smaller of κR² and, where d is known, d times one coordinate's most."""
        with np.errstate(over="ignore"):
            bound = self.kappa * squared(radius)
        return bound if dim is None else np.minimum(bound, float(dim) * self.most * _SAFE)


def squared(radius: float) -> float:
    """The square of a radius > 0, never rounded down: at least 10⁻³⁰⁰, and `inf` where it overflows."""
    radius = max(radius, _LEAST_RADIUS)
    return radius * radius


def _interpolate(points: Floats, nodes: Floats, values: Floats) -> Floats:
    """Chords through (0 and nodes, values): values (A, L+1) at points (P,), shape (A, P)."""
    right = np.clip(np.searchsorted(nodes, points, side="left"), 1, nodes.size - 1)
    share = (points - nodes[right - 1]) / (nodes[right] - nodes[right - 1])
    with np.errstate(invalid="ignore"):
        chord = values.take(right - 1, axis=1)
        chord *= 1.0 - share
        after = values.take(right, axis=1)
        chord += np.multiply(after, share, out=after)
    # inf·0 arises where a node overflowed and the point is the other node.
    chord[np.isnan(chord)] = np.inf
    chord *= _SAFE
    return chord


def _convex_moment(table: MomentTable, log_moment: Floats) -> Floats:
    """G = g/λ² on 0 and the nodes, shape (A, L+1)."""
    with np.errstate(over="ignore"):
        at_zero = 0.5 * table.orders * (table.orders - 1.0) * table.chi2
        g = np.expm1(log_moment) / table.nodes**2
    return np.concatenate((at_zero[:, None], g), axis=1)


def _ratios(low: Floats, convex: Floats, log_high: Floats) -> Floats:
    """The largest log(1+g)/λ² over all pieces, whose lower ends are `low`, shape (A,).

    convex    (A, P+1): bounds on G at the ends of the pieces, inf where there is none
    log_high  (A, P): bounds on log(1+g) at the upper ends
    """
    worst = np.maximum(convex[:, :-1], convex[:, 1:])
    square = low**2
    away = square > 0.0
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratios = worst * square
        ratios = np.divide(np.log1p(ratios, out=ratios), square, out=ratios)
        ratios[:, ~away] = worst[:, ~away]
        by_growth = log_high / square
    by_growth[:, ~away] = np.inf
    return np.asarray(np.minimum(ratios, by_growth, out=ratios).max(axis=1), dtype=np.float64)


def curve_from_table(table: MomentTable, reach: float) -> Curve:
    """κ and the largest divergence for |p−q| ≤ `reach`, from a table that reaches at least as far."""
    width = 1.0 - 2.0 * table.flip
    end = min(reach / width, float(table.nodes[-1]))
    nodes = np.concatenate(([0.0], table.nodes))
    inside = nodes[nodes < end]
    corners = np.append(inside, end)
    parts = max(2, _PIECES // inside.size)
    points = (corners[:-1, None] + np.diff(corners)[:, None] * np.arange(parts) / parts).ravel()
    points = np.append(points, end)
    low = points[:-1]
    orders = table.orders

    def chord(values: Floats) -> Floats:
        return _interpolate(points, nodes, values)

    zeros = np.zeros((orders.size, 1))

    # Forward: G is convex for α ∉ (2, 3); in between, a tangent bound is good near zero. N is always convex.
    convex = chord(_convex_moment(table, table.forward))
    middle = (orders > 2.0) & (orders < 3.0)
    if middle.any():
        alpha = orders[middle, None]
        tangent = alpha * (alpha - 1.0) * (table.chi2 / 2.0 + (alpha - 2.0) * points * table.third / 6.0)
        convex[middle] = tangent * _SAFE
    norm = np.expm1(np.concatenate((zeros, table.forward), axis=1) / orders[:, None])
    log_forward = orders[:, None] * np.log1p(chord(norm))

    # Backward: G and log(1+g) are convex for every order.
    log_backward = chord(np.concatenate((zeros, table.backward), axis=1))
    ratio = np.maximum(
        _ratios(low, convex, log_forward[:, 1:]),
        _ratios(low, chord(_convex_moment(table, table.backward)), log_backward[:, 1:]),
    )
    most = np.maximum(log_forward[:, -1], log_backward[:, -1])
    excess = orders - 1.0
    return Curve(
        cohort=table.cohort,
        flip=table.flip,
        reach=reach,
        orders=orders,
        kappa=ratio / (excess * width**2) * _SAFE,
        most=most / excess * _SAFE,
    )
