"""The epsilons of one ledger line, from the accountant and the budget."""

from __future__ import annotations

from dataclasses import replace

from prism_privacy.accounting.budget import Budget
from prism_privacy.ledger.entry import Account, Spent, spent_cell
from prism_privacy.masks.release import MaskRelease
from prism_privacy.units import Adjacency, View

__all__ = ["spent_table"]


def spent_table(
    accountant: Account, release: MaskRelease, budget: Budget | None = None
) -> dict[tuple[View, Adjacency], Spent]:
    """What ``release``, already spent on ``accountant``, cost under both views and both adjacencies.

    ``planned`` is None where no planned guarantee holds (:func:`prism_privacy.ledger.entry.spent_cell`),
    ``budget`` for a view and adjacency without a limit.

    >>> from prism_privacy import Accountant
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
            cell = spent_cell(accountant, release, view, adjacency)
            limit = None if budget is None else budget.limits.get((view, adjacency))
            table[view, adjacency] = replace(cell, budget=limit)
    return table
