"""A budget: limits on epsilon that are checked before anything leaves, never after.

For every view and adjacency that has a limit a :class:`RenyiFilter` promises that limit for the whole
run. A release is admitted only if all of them admit it, and one that is refused changes none of them. So the
limit is a guarantee of its own, however the run chooses its parameters or its end: it is neither "epsilon to
date" nor the "planned" epsilon.

A filter needs one Renyi order fixed beforehand. It is fixed by the first release that is spent, as the order
at which that release could be repeated most often. The first release's parameters are public and chosen
before any data was touched, so the order depends on no data; for a run of equal rounds it is the best there
is, and a run that changes its parameters is still covered, only less tightly.
"""

from __future__ import annotations

from collections.abc import Mapping

from prism_privacy import _validate
from prism_privacy.accounting.filters import RenyiFilter
from prism_privacy.accounting.kappa.store import ORDERS
from prism_privacy.errors import BudgetExceeded, InvalidParameter
from prism_privacy.masks.release import MaskRelease
from prism_privacy.units import Adjacency, View

__all__ = ["Budget"]

Cell = tuple[View, Adjacency]

_RESERVED = 0.01
"""The part of delta kept for failures of the secure sum, if the first release says that there can be any."""


class Budget:
    """Limits on the client-level epsilon of a whole run, per view and adjacency.

    A client keeps one for itself; a server keeps one for the client that takes part most often. After a
    restart, spend what the ledger lists, in its order, before going on.

    >>> budget = Budget(2.0, delta=1e-5, view=View.SUM, adjacency=Adjacency.ZERO_OUT)
    >>> release = MaskRelease(flip=0.25, clip=1.0, cohort=1000)
    >>> budget.rounds_left(release)
    40
    >>> budget.spend(release, rounds=40)
    >>> budget.spend(release)
    Traceback (most recent call last):
    ...
    prism_privacy.errors.BudgetExceeded: the filter promises ε = 2 at δ = 1e-05 (sum, zero_out) and ...

    Args:
        epsilon: the limit for one ``view`` and ``adjacency``, or {(View, Adjacency): limit} for several.
        delta: the delta of every limit.
        view: which view the limit is for, if ``epsilon`` is a number.
        adjacency: which adjacency, if ``epsilon`` is a number.

    Raises:
        InvalidParameter: no limit, a limit that is not a finite number > 0, or delta outside (0, 1).
    """

    def __init__(
        self,
        epsilon: float | Mapping[Cell, float],
        delta: float,
        *,
        view: View | None = None,
        adjacency: Adjacency | None = None,
    ) -> None:
        self._delta = _validate.delta(delta)
        if isinstance(epsilon, Mapping):
            if view is not None or adjacency is not None:
                raise InvalidParameter("limits given as a mapping name their views and adjacencies already")
            limits = dict(epsilon)
        elif view is None or adjacency is None:
            raise InvalidParameter("a limit needs its view and its adjacency: epsilon means nothing without")
        else:
            limits = {(view, adjacency): epsilon}
        if not limits:
            raise InvalidParameter("a budget needs at least one limit")
        self._limits: dict[Cell, float] = {
            (
                _validate.member("view", View, v),
                _validate.member("adjacency", Adjacency, a),
            ): _validate.positive("epsilon", limit)
            for (v, a), limit in limits.items()
        }
        self._filters: dict[Cell, RenyiFilter] = {}
        self._fresh: dict[tuple[Cell, MaskRelease], RenyiFilter | None] = {}

    @property
    def limits(self) -> dict[Cell, float]:
        """The promised epsilons: the ``budget`` column of a ledger."""
        return dict(self._limits)

    @property
    def delta(self) -> float:
        """The delta of every limit."""
        return self._delta

    def admits(self, release: MaskRelease, rounds: int = 1, *, view: View | None = None) -> bool:
        """Would :meth:`spend` with the same arguments go through?"""
        try:
            self.check(release, rounds, view=view)
        except BudgetExceeded:
            return False
        return True

    def check(self, release: MaskRelease, rounds: int = 1, *, view: View | None = None) -> None:
        """Raise what :meth:`spend` would raise, and change nothing.

        Raises:
            BudgetExceeded: some limit would be passed.
        """
        for cell, filter_ in self._asked(release, view).items():
            self._admitting(cell, filter_, release, rounds)

    def spend(self, release: MaskRelease, rounds: int = 1, *, view: View | None = None) -> None:
        """Charge these rounds; call it **before** the upload leaves.

        Args:
            release: what is about to be released.
            rounds: how many times.
            view: charge this view only. A client charges ``UPLOAD`` when the upload leaves and ``SUM`` at
                its first unmask share; as the sum can be opened without it from the moment the upload
                left, it must :meth:`check` every view first. None: all views.

        Raises:
            BudgetExceeded: some limit would be passed; nothing was charged.
        """
        admitted = [
            (cell, self._admitting(cell, filter_, release, rounds))
            for cell, filter_ in self._asked(release, view).items()
        ]
        for cell, filter_ in admitted:
            filter_.spend(release, rounds)
            self._filters[cell] = filter_
        self._fresh.clear()

    def rounds_left(self, release: MaskRelease) -> int:
        """How many more rounds of ``release`` fit under every limit."""
        if not self.admits(release):
            return 0
        low, high = 1, 2
        while high < _validate.MOST_COUNT and self.admits(release, high):
            low, high = high, min(2 * high, _validate.MOST_COUNT)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.admits(release, middle) else (low, middle)
        return low

    def __repr__(self) -> str:
        words = [f"{view}/{adjacency} ε ≤ {limit:g}" for (view, adjacency), limit in self._limits.items()]
        return f"Budget({', '.join(words)}, δ = {self._delta:g})"

    def _asked(self, release: MaskRelease, view: View | None) -> dict[Cell, RenyiFilter | None]:
        """The filters this release must pass; a new one is kept only once something is spent with it."""
        wanted = None if view is None else _validate.member("view", View, view)
        return {
            cell: self._filters[cell] if cell in self._filters else self._new_filter(cell, release)
            for cell in self._limits
            if wanted is None or cell[0] is wanted
        }

    def _new_filter(self, cell: Cell, release: MaskRelease) -> RenyiFilter | None:
        """A filter at the order under which ``release`` takes the smallest share; None if it fits none."""
        if (cell, release) not in self._fresh:
            reserve = self._delta * _RESERVED if cell[0] is View.SUM and release.sum_failure else 0.0
            best: tuple[float, float] | None = None
            for order in ORDERS.tolist():
                try:
                    tried = RenyiFilter(self._limits[cell], self._delta, *cell, order=order, reserve=reserve)
                    tried.spend(release)
                except (InvalidParameter, BudgetExceeded):
                    continue
                if best is None or tried.share_left > best[0]:
                    best = (tried.share_left, order)
            self._fresh[cell, release] = best and RenyiFilter(
                self._limits[cell], self._delta, *cell, order=best[1], reserve=reserve
            )
        return self._fresh[cell, release]

    def _admitting(
        self, cell: Cell, filter_: RenyiFilter | None, release: MaskRelease, rounds: int
    ) -> RenyiFilter:
        count = _validate.count("rounds", rounds)
        if filter_ is None:
            raise BudgetExceeded(
                f"the budget promises ε = {self._limits[cell]:g} at δ = {self._delta:g} "
                f"({cell[0]}, {cell[1]}), and a single round of {release} would pass it"
            )
        if not filter_.admits(release, count):
            filter_.spend(release, count)  # raises, with the filter's own words
        return filter_
