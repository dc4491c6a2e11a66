"""The epsilons of one ledger line, from the accountant and the budget."""

from __future__ import annotations

from prism_privacy.accounting.accountant import Accountant, guarantee_of
from prism_privacy.accounting.budget import Budget
from prism_privacy.errors import UnsoundComposition
from prism_privacy.ledger.entry import Spent
from prism_privacy.masks.release import MaskRelease
from prism_privacy.units import Adjacency, View

__all__ = ["spent_table"]


def spent_table(
    accountant: Accountant, release: MaskRelease, budget: Budget | None = None
) -> dict[tuple[View, Adjacency], Spent]:
    """What ``release``, already spent on ``accountant``, cost under both views and both adjacencies.

    ``planned`` is None where nothing was planned, and where more was spent than planned, so that no planned
    guarantee holds any more. ``budget`` is None for a view and adjacency without a limit.

    >>> accountant = Accountant(delta=1e-5)
    >>> release = MaskRelease(flip=0.25, clip=1.0, cohort=1000)
    >>> accountant.plan(release, rounds=20)
    >>> accountant.spend(release)
    >>> cell = spent_table(accountant, release)[View.SUM, Adjacency.ZERO_OUT]
    >>> cell.round == cell.to_date < cell.planned, cell.budget
    (True, None)
    """
    table = {}
    for view in View:
        for adjacency in Adjacency:
            to_date = accountant.guarantee(view, adjacency)
            table[view, adjacency] = Spent(
                round=guarantee_of({release: 1}, accountant.delta, view, adjacency).epsilon,
                to_date=to_date.epsilon,
                planned=_planned(accountant, view, adjacency),
                budget=None if budget is None else budget.limits.get((view, adjacency)),
                bound=to_date.bound,
            )
    return table


def _planned(accountant: Accountant, view: View, adjacency: Adjacency) -> float | None:
    try:
        return accountant.planned(view, adjacency).epsilon
    except UnsoundComposition:
        return None
