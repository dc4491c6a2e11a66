"""From a release to its Rényi curve, and from a composed curve to ε.

RDP adds over rounds (Mironov, "Rényi Differential Privacy", CSF 2017, proposition 1), adaptively chosen
inputs included. A score-space clip gives zero-concentrated DP with
    ρ = (1−2f)²C²/8   (ZERO_OUT),   (1−2f)²C²/2   (REPLACE_ONE)
because for Bernoullis with log-odds x and y, (α−1)D_α = A(αy+(1−α)x) − αA(y) + (α−1)A(x) for A = log(1+e^x),
whose second derivative is at most 1/4, so D_α ≤ (α/8)(y−x)²; zCDP is the Rényi curve αρ (Bun and Steinke, TCC
2016), so it adds with the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from prism_privacy.accounting.kappa.curve import Curve, squared
from prism_privacy.accounting.kappa.renyi_moments import LEAST_MOVE
from prism_privacy.accounting.kappa.store import ORDERS, coordinate_curve
from prism_privacy.masks.release import MaskRelease
from prism_privacy.units import Adjacency, View

__all__ = ["renyi_curve", "to_epsilon"]

Floats = NDArray[np.float64]

_LEAST_ORDER = 1.01
"""Nearer to 1 the conversion loses its digits, and is of no use."""


@lru_cache(maxsize=4096)
def renyi_curve(
    release: MaskRelease,
    view: View,
    adjacency: Adjacency,
    coordinate: Callable[[int, float, float], Curve] = coordinate_curve,
) -> Floats:
    """D_α of one round on `ORDERS`, shape (A,); read-only. All `inf` for flip = 0.

    Every bound that holds is used, the smallest at each order: κ(α)R², d·(one coordinate's most) where d is
    known, zCDP in score space, and for SUM whatever holds for UPLOAD, of which it is a function.

    coordinate   where one coordinate's bounds come from; another source than the default is an estimate
    """
    radius = release.radius(adjacency)
    # Not `release.reach`: the curve knows how far a coordinate moves, and for flips near ½ allows more.
    reach = min(max(radius, LEAST_MOVE), 1.0)
    curve = coordinate(1, release.flip, reach).divergence(radius, release.dim)
    if release.space == "score" and release.clip is not None and release.flip > 0.0:
        rho = squared(release.width * release.clip) / (8.0 if adjacency is Adjacency.ZERO_OUT else 2.0)
        curve = np.minimum(curve, ORDERS * rho)
    if view is View.SUM and release.cohort > 1:
        summed = coordinate(release.cohort, release.flip, reach).divergence(radius, release.dim)
        curve = np.minimum(curve, summed)
    curve = np.array(curve)
    curve.flags.writeable = False
    return curve


def to_epsilon(curve: Floats, delta: float, orders: Sequence[float] | Floats = ORDERS) -> tuple[float, float]:
    """The smallest ε that the curve gives at δ, rounded up, and its order.

    The conversion of Canonne, Kamath and Steinke 2020, proposition 12, as in dp_accounting's
    `compute_epsilon`, whose import takes longer than most of what is asked here; tests hold the two to the
    last digit. A divergence D at any order bounds the one at 1, so δ ≥ √(1−e^(−D)) needs no ε at all. A NaN
    or a negative entry is an error. Where δ ≤ 0 or no order is finite, ε is `inf` (at the order 0).
    """
    if np.isnan(curve).any() or (curve < 0.0).any():
        raise ArithmeticError("a Rényi curve must be non-negative")
    finite = np.isfinite(curve)
    if not curve.any():
        return 0.0, 0.0
    if delta <= 0.0 or not finite.any():
        return math.inf, 0.0
    terms, late = _terms(delta, tuple(np.asarray(orders).tolist()))
    with np.errstate(invalid="ignore"):  # inf − inf where neither the curve nor the order is of use
        epsilons = (curve + terms[0]) - terms[1]
    epsilons[~(finite & late)] = math.inf
    epsilons[finite & (delta**2 + np.expm1(-curve) > 0.0)] = 0.0
    best = int(epsilons.argmin())
    if not epsilons[best] < math.inf:
        return math.inf, 0.0
    return max(0.0, float(epsilons[best])) * (1.0 + 1e-9), float(orders[best])


@lru_cache(maxsize=64)
def _terms(delta: float, orders: tuple[float, ...]) -> tuple[Floats, NDArray[np.bool_]]:
    """What the conversion adds at each order and takes off, (2, A), and where it is of use, (A,)."""
    late = [order > _LEAST_ORDER for order in orders]
    found = [
        (math.log1p(-1.0 / order), math.log(delta * order) / (order - 1.0)) if used else (0.0, 0.0)
        for order, used in zip(orders, late, strict=True)
    ]
    return np.array(found).T, np.array(late)
