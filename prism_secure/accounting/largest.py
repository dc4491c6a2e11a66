"""The account of whichever client has spent most, where rounds differ and clients are in some of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable

from prism_privacy import Adjacency, Guarantee, MaskRelease, UnsoundComposition, View
from prism_privacy.accounting.accountant import guarantee_of


class LargestAccount:
    """Each client has an account of its own; epsilon is the largest over them, in each view and adjacency.

    The server knows who takes part, so a client is protected only by the rounds that it misses.

    Args:
        delta: of every epsilon.
        plan: what clients will spend at most; None: nothing was planned.

    >>> large, small = (MaskRelease(flip=0.25, clip=clip, cohort=1000) for clip in (1.0, 0.1))
    >>> account = LargestAccount(1e-5)
    >>> account.spend(large, ["ada"])
    >>> account.spend(small, ["ben", "cleo"])
    >>> account.spend(small, ["ben", "ada"])
    >>> ada = {large: 1, small: 1}
    >>> account.guarantee(View.SUM, Adjacency.ZERO_OUT) == guarantee_of(
    ...     ada, 1e-5, View.SUM, Adjacency.ZERO_OUT)
    True
    """

    def __init__(self, delta: float, plan: LargestAccount | None = None) -> None:
        self.delta = delta
        self._plan = plan
        self._accounts: dict[Hashable, Counter[MaskRelease]] = {}
        self._known: dict[tuple[object, ...], Guarantee] = {}

    def spend(self, release: MaskRelease, clients: Iterable[Hashable]) -> None:
        """Add one round to the accounts of those who are in it."""
        for client in clients:
            self._accounts.setdefault(client, Counter())[release] += 1

    def guarantee(self, view: View, adjacency: Adjacency) -> Guarantee:
        """Epsilon to date, of the client for whom it is largest."""
        # In the order of their first rounds, so that sums of floats come out alike in every process.
        histories = {frozenset(account.items()): account for account in self._accounts.values()} or {
            frozenset(): Counter()
        }
        found = []
        for history, account in histories.items():
            key = history, view, adjacency
            if key not in self._known:
                self._known[key] = guarantee_of(account, self.delta, view, adjacency)
            found.append(self._known[key])
        return max(found, key=lambda each: each.epsilon)

    def epsilon(self, view: View, adjacency: Adjacency) -> float:
        """As `guarantee` has it."""
        return self.guarantee(view, adjacency).epsilon

    def planned(self, view: View, adjacency: Adjacency) -> Guarantee:
        """Epsilon of the plan.

        Raises:
            UnsoundComposition: there is none, or somebody has spent more.
        """
        if self._plan is None:
            raise UnsoundComposition("nothing was planned")
        for client, account in self._accounts.items():
            if account - self._plan._accounts.get(client, Counter()):
                raise UnsoundComposition(f"client {client} has spent more than was planned")
        return self._plan.guarantee(view, adjacency)
