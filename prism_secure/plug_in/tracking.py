"""What was spent, in one call a round: refused before it is spent, written down, and said to a logger.

    with Ledger.create("ledger.jsonl", key, federation=name, clients=100) as ledger:
        budget = Budget(8.0, 1e-5, view=View.SUM, adjacency=Adjacency.ZERO_OUT)
        costs = track(Accountant(1e-5), budget, ledger)
        for number in range(1, 101):
            wandb.log(costs.spent(release, clients), step=number)    # before the clients upload
            ...

An `Accountant` follows one client that takes part in every round; where rounds are over samples,
`Participation` follows each client, and what is said is what the one has spent that was asked most often.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from prism_privacy import (
    Accountant,
    Adjacency,
    Budget,
    InvalidParameter,
    Ledger,
    MaskRelease,
    Participation,
    UnsoundComposition,
    View,
    spent_table,
)
from prism_privacy.accounting.accountant import Guarantee
from prism_privacy.ledger.entry import json_safe

__all__ = ["Tracker", "track"]

_INVITED = "invited"
"""Where a ledger's lines say who was asked, as those of measured rounds do."""


def track(
    accountant: Accountant | Participation,
    budget: Budget | None = None,
    ledger: Ledger | None = None,
    *,
    colluders: int = 0,
) -> Tracker:
    """Follow a run's releases of masks with whatever of the three there is.

    Args:
        accountant: says ε to date; a new one, if the ledger has entries.
        budget: the promise that no release may break; a new one. With `Participation` each client has one of
            its own, with these limits.
        ledger: open for writing. What it lists already, from before a restart, is spent on accountant and
            budget first.
        colluders: clients assumed to side with the server, beside the release's cohort; it is written down.

    Raises:
        prism_privacy.InvalidParameter: the ledger has entries and the accountant is not new, or entries
            that `Tracker.spent` has not written; `colluders` is not a number of clients.
        prism_privacy.BudgetExceeded: what the ledger lists is beyond the budget.
    """
    return Tracker(accountant, budget, ledger, colluders=colluders)


class Tracker:
    """What `track` gives; its `spent` charges one round before it is spent.

    >>> from prism_privacy import Accountant
    >>> budget = Budget(1.0, delta=1e-5, view=View.SUM, adjacency=Adjacency.ZERO_OUT)
    >>> costs = track(Accountant(delta=1e-5), budget)
    >>> release = MaskRelease(flip=0.25, clip=1.0, cohort=1000)
    >>> said = costs.spent(release, clients=range(1000))
    >>> said["round"], round(said["epsilon/sum/zero_out"], 2), said["budget/sum/zero_out"]
    (1, 0.28, 1.0)
    """

    def __init__(
        self,
        accountant: Accountant | Participation,
        budget: Budget | None = None,
        ledger: Ledger | None = None,
        *,
        colluders: int = 0,
    ) -> None:
        if isinstance(colluders, bool) or not isinstance(colluders, int) or colluders < 0:
            raise InvalidParameter(f"colluders is a number of clients, 0 or more, not {colluders!r}")
        self._accountant = accountant
        self._new_budget = budget
        self._budgets: dict[Any, Budget] = {}  # of each client, where each has one; shared by alike histories
        self._ledger = ledger
        self._colluders = colluders
        self._round = 0
        before = () if ledger is None else ledger.entries
        if before and (accountant.rounds if isinstance(accountant, Accountant) else accountant.clients):
            raise InvalidParameter(
                "the ledger has entries, and the accountant has spent something: track takes a new one and "
                "spends on it what the ledger lists"
            )
        for entry in before:
            asked = entry.metrics.get(_INVITED)
            if entry.kind not in ("round", "aborted") or not isinstance(asked, list):
                raise InvalidParameter(
                    f"{ledger!r} has an entry of kind {entry.kind!r} that track has not written"
                )
            clients, release = tuple(asked), MaskRelease(**entry.release)  # type: ignore[arg-type]
            self._charge(release, clients)
            self._round = entry.round

    def spent(
        self, release: MaskRelease, clients: Iterable[Any], metrics: Mapping[str, Any] | None = None
    ) -> dict[str, float]:
        """Charge one round; call it **before** the clients upload, and let them only if it returns.

        Args:
            release: what each client is about to release.
            clients: the ids of all who are asked to upload, also of those whose upload may get lost. Of those
                that `SecureSumGrid` hands to its ``charge`` the session's cohort is known, and checked.
            metrics: what else the ledger's line is to say, JSON-safe.

        Returns:
            The round (they count from 1), how many clients, δ, and by names such as ``epsilon/sum/zero_out``
            what has been spent to date, and what the budget promises: all numbers, for a logger.

        Raises:
            prism_privacy.BudgetExceeded, prism_privacy.ParticipationExceeded: refused, and nothing was spent.
            prism_privacy.InvalidParameter: fewer clients than the release's cohort and the colluders, or a
                session that guarantees fewer, or whose sparse graph the release does not pay for; one twice,
                or an id that is neither a number nor a text; nothing was spent.
            prism_privacy.LedgerError, OSError: it was not written down: no client may upload. It counts as
                spent until the process ends.
        """
        asked = tuple(json_safe(list(clients), "clients")) if isinstance(clients, Iterable) else (None,)
        if not all(isinstance(client, int | str) for client in asked):
            raise InvalidParameter(f"clients are the ids of those who are asked to upload, not {clients!r}")
        said = json_safe(metrics or {}, "metrics", nan=True)
        if len(set(asked)) != len(asked):
            raise InvalidParameter("a client takes part once in a round; clients has one twice")
        if len(asked) - self._colluders < release.cohort:
            among = f", {self._colluders} of them colluders" if self._colluders else ""
            raise InvalidParameter(
                f"epsilon counts on {release.cohort} honest clients in the sum (release.cohort), and "
                f"{len(asked)} are asked to upload{among}"
            )
        cohort, colluders = getattr(clients, "cohort", None), getattr(clients, "colluders", 0)
        failure = getattr(clients, "sum_failure", 0.0)
        sparse = f', and min_cohort={release.cohort} or graph="complete"' if failure else ""
        if cohort is not None and (cohort < release.cohort or colluders < self._colluders):
            raise InvalidParameter(
                f"epsilon counts on {release.cohort} honest clients in the sum (release.cohort) beside "
                f"{self._colluders} colluders, and this session guarantees {cohort} beside {colluders}: it "
                f"needs min_survivors={release.cohort + self._colluders} (release.cohort + colluders) and "
                f"colluders={self._colluders}{sparse}"
            )
        if release.sum_failure < failure:
            raise InvalidParameter(
                "the sparse graph of this session fails to hide uploads with probability 2^-40, and "
                f"release.sum_failure is {release.sum_failure}: give the release sum_failure=2**-40, or the "
                'sum graph="complete"'
            )
        self._charge(release, asked)
        spender = self._accountant
        account = spender if isinstance(spender, Accountant) else _Largest(spender)
        table = spent_table(account, release, self._new_budget)
        self._round += 1
        if self._ledger is not None:
            self._ledger.append(
                round=self._round,
                release=release,
                delta=account.delta,
                epsilon=table,
                colluders=self._colluders,
                metrics={**said, _INVITED: list(asked)},
            )
        figures: dict[str, float] = {"round": self._round, "clients": len(asked), "delta": account.delta}
        for (view, adjacency), cell in table.items():
            figures[f"epsilon/{view}/{adjacency}"] = cell.to_date
            if cell.budget is not None:
                figures[f"budget/{view}/{adjacency}"] = cell.budget
        return figures

    def _charge(self, release: MaskRelease, clients: tuple[Any, ...]) -> None:
        """Charge all of it, or raise and charge nothing."""
        for budget in self._budgets_of(clients):
            budget.check(release)
        if isinstance(self._accountant, Accountant):
            self._accountant.spend(release)
            for budget in self._budgets_of(clients):
                budget.spend(release)
            return
        self._accountant.spend(release, clients)
        for budget in self._budgets_of(clients):
            after = copy.deepcopy(budget)  # who is not among them keeps the one from before
            after.spend(release)
            self._budgets |= {client: after for client in clients if self._budget_of(client) is budget}

    def _budgets_of(self, clients: tuple[Any, ...]) -> list[Budget]:
        """The budgets that a round of these clients is charged to, each once."""
        if self._new_budget is None:
            return []
        if isinstance(self._accountant, Accountant):
            return [self._new_budget]
        return list({id(found): found for found in (self._budget_of(client) for client in clients)}.values())

    def _budget_of(self, client: Any) -> Budget:
        assert self._new_budget is not None
        return self._budgets.get(client, self._new_budget)


class _Largest:
    """The account of the client that has spent most."""

    def __init__(self, book: Participation) -> None:
        self._book = book

    @property
    def delta(self) -> float:
        return self.guarantee(View.SUM, Adjacency.ZERO_OUT).delta

    def guarantee(self, view: View, adjacency: Adjacency) -> Guarantee:
        return self._book.guarantee(view, adjacency)

    def planned(self, view: View, adjacency: Adjacency) -> Guarantee:
        raise UnsoundComposition("of a sample nothing is planned: who is asked how often is not fixed before")
