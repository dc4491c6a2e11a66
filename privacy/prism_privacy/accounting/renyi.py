"""From a release to its Rényi curve, and from a composed curve to ε.

RDP adds over rounds (Mironov, "Rényi Differential Privacy", CSF 2017, proposition 1), adaptively chosen
inputs included. A score-space clip gives zero-concentrated DP with
    ρ = (1−2f)²C²/8   (ZERO_OUT),   (1−2f)²C²/2   (REPLACE_ONE)
because for Bernoullis with log-odds x and y, (α−1)D_α = A(αy+(1−α)x) − αA(y) + (α−1)A(x) for A = log(1+e^x),
whose second derivative is at most 1/4, so D_α ≤ (α/8)(y−x)²; zCDP is the Rényi curve αρ (Bun and Steinke, TCC
2016), so it adds with the others.
"""

from __future__ import annotations

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

    dp_accounting's `compute_epsilon` converts (Canonne, Kamath and Steinke 2020, proposition 12). It would
    read a NaN or a negative entry as ε = 0, so those are an error here. Where δ ≤ 0 or no order is finite, ε
    is `inf` (at the order 0).
    """
    from dp_accounting.rdp import rdp_privacy_accountant

    if np.isnan(curve).any() or (curve < 0.0).any():
        raise ArithmeticError("a Rényi curve must be non-negative")
    finite = np.isfinite(curve)
    if not curve.any():
        return 0.0, 0.0
    if delta <= 0.0 or not finite.any():
        return float("inf"), 0.0
    chosen = np.asarray(orders, dtype=np.float64)[finite]
    epsilon, order = rdp_privacy_accountant.compute_epsilon(chosen.tolist(), curve[finite].tolist(), delta)
    return float(epsilon) * (1.0 + 1e-9), float(order)
