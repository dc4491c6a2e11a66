"""What one client's guarantee gives to k clients who change together.

Three bounds hold, and the smallest is used.

1. **From (ε, δ).** k steps from world to world: (kε′, δ) with δ = δ′·(e^(kε′) − 1)/(e^ε′ − 1), where (ε′, δ′)
   is any point of the single client's curve (Vadhan, "The Complexity of Differential Privacy", lemma 2.2).
2. **From the Rényi curve**, by induction on k with
       D_α^(k) ≤ (kα/(kα−1))·D^(k−1) at order (kα−1)/(k−1)  +  D at order kα
   (Bun and Steinke, TCC 2016, lemma B.2; it turns αρ into αk²ρ, their proposition 1.9). Orders between those
   on the grid come from the convexity of (α−1)D_α in α, with the value 0 at α = 1.
3. **From the uploads**, which are independent given the past: their curves add, k times one client's. This
   bounds SUM as well, which is a function of the uploads.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from prism_privacy.accounting.kappa.store import ORDERS
from prism_privacy.accounting.renyi import to_epsilon

__all__ = ["group_epsilon"]

Floats = NDArray[np.float64]


def _at(orders: Floats, curve: Floats) -> Floats:
    """The curve at orders > 1 between those of the grid; `inf` above its last."""
    known = np.concatenate(([1.0], ORDERS))
    moment = np.concatenate(([0.0], (ORDERS - 1.0) * curve))
    finite = np.isfinite(moment)
    value = np.interp(orders, known[finite], moment[finite], right=np.inf) / (orders - 1.0)
    return np.asarray(np.where(orders > known[finite][-1], np.inf, value * (1.0 + 1e-12)), dtype=np.float64)


def _group_at(orders: Floats, curve: Floats, clients: int) -> Floats:
    total, factor = np.zeros(orders.shape), np.ones(orders.shape)
    while clients > 1 and np.isfinite(total).any():
        high = clients * orders
        total = total + factor * _at(high, curve)
        factor = factor * (high / (high - 1.0))
        clients -= 1
        orders = (high - 1.0) / clients
    return total + factor * _at(orders, curve)


def _from_points(clients: int, delta: float, single: Callable[[float], float]) -> float:
    """Bound 1: bisect for the largest δ′ whose group δ is at most δ; each δ′ that was tried is valid."""

    def grown(log_delta: float) -> tuple[float, float]:
        epsilon = single(math.exp(log_delta))
        if math.isinf(epsilon):
            return math.inf, math.inf
        if epsilon == 0.0:
            return 0.0, log_delta + math.log(clients)
        # log((e^kε − 1)/(e^ε − 1)), without overflow
        growth = (clients - 1) * epsilon + math.log1p(-math.exp(-clients * epsilon))
        return epsilon, log_delta + growth - math.log1p(-math.exp(-epsilon))

    best = math.inf
    low, high = -700.0, math.log(delta)
    for _ in range(40):
        middle = (low + high) / 2.0
        epsilon, log_group = grown(middle)
        if log_group <= math.log(delta) - 1e-9:
            best = min(best, clients * epsilon)
            low = middle
        else:
            high = middle
    return best


def group_epsilon(
    clients: int,
    delta: float,
    *,
    single: Callable[[float], float],
    curve: Floats,
    uploads: Floats,
    failing: float,
) -> float:
    """ε for `clients` ≥ 2 clients who change together, at δ.

    single    ε of one client as a function of δ
    curve     one client's composed Rényi curve under the view asked for, shape (A,)
    uploads   the same under UPLOAD
    failing   the part of δ that the secure sum's own failure takes
    """
    together, _ = to_epsilon(clients * uploads, delta)
    by_orders, _ = to_epsilon(_group_at(ORDERS, curve, clients), delta - failing)
    return min(together, by_orders, _from_points(clients, delta, single))
