"""A privacy filter: the guarantee of a run whose parameters may depend on what it has seen.

An adaptive run may not add up Rényi curves and pick the best order at the end, nor report the ε of a round
count that it chose on the way. A filter instead promises (ε, δ) before round one and refuses the first
release that would break the promise.

**One order, fixed beforehand.** If the divergences at one order α, each chosen given the past, always sum to
at most B, the whole run is (α, B)-Rényi private (Feldman and Zrnic, "Individual Privacy Accounting via a
Rényi Filter", NeurIPS 2021, theorem 3.1), and B(α) = ε + log(α/(α−1)) + log(δα)/(α−1) makes that (ε, δ)
(Canonne, Kamath and Steinke 2020, proposition 12).

**Several orders.** Let the run go on while *some* order of a fixed set Λ stays within its B(α), computed for
δ/|Λ|. For each α let τ_α be the round at which it would first pass; τ_α is a stopping time, and the run
stopped at τ_α has E[(1 − e^(ε−L))₊] ≤ δ/|Λ| for its privacy loss L. The run stops at the latest τ_α, so its
own (1 − e^(ε−L))₊ is one of these and at most their sum, whose mean is at most δ.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prism_privacy import _validate
from prism_privacy.accounting.kappa.store import ORDERS
from prism_privacy.accounting.renyi import renyi_curve
from prism_privacy.errors import BudgetExceeded, InvalidParameter
from prism_privacy.masks.release import MaskRelease
from prism_privacy.units import Adjacency, View

__all__ = ["RenyiFilter"]

_DOUBLINGS = ORDERS[6::6]


class RenyiFilter:
    """Admits releases, adaptively chosen, as long as the whole run stays (ε, δ)-private.

    epsilon   the promise: what the run may say it guarantees, however it chose its parameters
    delta     the δ of the promise
    order     the one order to use, moved to the nearest on the grid; None: twenty orders, a factor of two
              apart in α−1, at a price of δ/20 each
    reserve   the part of δ kept for failures of the secure sum (SUM only); each release takes its
              `sum_failure` out of it

    >>> run = RenyiFilter(8.0, 1e-5, View.SUM, Adjacency.ZERO_OUT, order=4.0)
    >>> release = MaskRelease(flip=0.25, clip=1.0, cohort=1000)
    >>> while run.admits(release):
    ...     run.spend(release)
    >>> run.rounds
    457

    `InvalidParameter` where no order can be used: the promise is too small for δ.
    """

    def __init__(
        self,
        epsilon: float,
        delta: float,
        view: View,
        adjacency: Adjacency,
        *,
        order: float | None = None,
        reserve: float = 0.0,
    ) -> None:
        self.epsilon = _validate.positive("epsilon", epsilon)
        self.delta = _validate.delta(delta)
        self.view = _validate.member("view", View, view)
        self.adjacency = _validate.member("adjacency", Adjacency, adjacency)
        self._reserve = _validate.probability("reserve", reserve)
        if self._reserve >= self.delta:
            raise InvalidParameter(f"reserve must be below delta = {self.delta:g}, got {reserve!r}")
        chosen = _DOUBLINGS if order is None else np.array([_validate.order(order)])
        self._index = np.array([int(np.abs(np.log((ORDERS - 1.0) / (at - 1.0))).argmin()) for at in chosen])
        alpha = ORDERS[self._index]
        each = (self.delta - self._reserve) / alpha.size
        limit = self.epsilon - np.log1p(-1.0 / alpha) + np.log(each * alpha) / (alpha - 1.0)
        # A part in 10^9 less, for the rounding of sums.
        self._limit = limit * (1.0 - 1e-9)
        if (self._limit <= 0.0).all():
            raise InvalidParameter(
                f"epsilon = {self.epsilon:g} leaves nothing to spend at delta = {self.delta:g} with "
                + (f"the order {alpha[0]:.4g}: use a larger order" if order is not None else "any order")
            )
        self._spent = np.zeros(alpha.shape)
        self._failing = 0.0
        self._rounds = 0

    @property
    def orders(self) -> tuple[float, ...]:
        """The orders that the promise uses."""
        return tuple(float(at) for at in ORDERS[self._index])

    @property
    def rounds(self) -> int:
        """Rounds admitted so far."""
        return self._rounds

    @property
    def share_left(self) -> float:
        """The share of the budget that is left, at the order where most is; between 0 and 1."""
        usable = self._limit > 0.0
        return float(max(0.0, (1.0 - self._spent[usable] / self._limit[usable]).max()))

    def _after(self, release: MaskRelease, rounds: int) -> tuple[NDArray[np.float64], float]:
        with np.errstate(over="ignore"):
            spent = self._spent + rounds * renyi_curve(release, self.view, self.adjacency)[self._index]
        failing = self._failing + (rounds * release.sum_failure if self.view is View.SUM else 0.0)
        return spent, failing

    def admits(self, release: MaskRelease, rounds: int = 1) -> bool:
        """Would `spend` with the same arguments go through?"""
        spent, failing = self._after(release, _validate.count("rounds", rounds))
        return bool((spent <= self._limit).any()) and failing <= self._reserve

    def spend(self, release: MaskRelease, rounds: int = 1) -> None:
        """Admit these rounds, or raise `BudgetExceeded` and change nothing.

        Call it before the upload leaves.
        """
        if not self.admits(release, rounds):
            spent, failing = self._after(release, rounds)
            if failing > self._reserve:
                why = f"failures of the sum would take {failing:.3g} of the {self._reserve:.3g} kept for them"
            else:
                usable = self._limit > 0.0
                share = float((spent[usable] / self._limit[usable]).min())
                why = f"that would be {100.0 * share:.4g}% of what may be spent"
            raise BudgetExceeded(
                f"the filter promises ε = {self.epsilon:g} at δ = {self.delta:g} "
                f"({self.view}, {self.adjacency}) and refuses round {self._rounds + 1} "
                f"({rounds} asked for): {why}"
            )
        self._spent, self._failing = self._after(release, rounds)
        self._rounds += rounds
