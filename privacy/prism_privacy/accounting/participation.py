"""Clients that miss rounds: each has its own account, and the largest is what is reported.

There is no amplification by subsampling here: the server knows who takes part, so a client is protected only
by the rounds that it misses, and those are counted and capped rather than assumed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable

from prism_privacy import _validate, notebook
from prism_privacy.accounting.accountant import Guarantee, guarantee_of
from prism_privacy.errors import InvalidParameter, ParticipationExceeded
from prism_privacy.masks.release import MaskRelease
from prism_privacy.units import Adjacency, View
from prism_privacy.wording import format_delta, format_epsilon

__all__ = ["Participation"]


class Participation:
    """Accounts of many clients, with an optional cap on the rounds of each.

    delta   the δ of every ε
    cap     the most rounds that one client may take part in; None: no cap

    >>> book = Participation(delta=1e-5, cap=2)
    >>> release = MaskRelease(flip=0.25, clip=1.0, cohort=1000)
    >>> book.spend(release, ["ada", "ben"])
    >>> book.spend(release, ["ada", "cleo"])
    >>> book.rounds_of("ada"), book.rounds_of("ben")
    (2, 1)
    >>> book.guarantee(View.SUM, Adjacency.ZERO_OUT) == book.guarantee_of("ada", View.SUM, Adjacency.ZERO_OUT)
    True
    """

    def __init__(self, delta: float, cap: int | None = None) -> None:
        self._delta = _validate.delta(delta)
        self._cap = None if cap is None else _validate.count("cap", cap)
        self._accounts: dict[Hashable, Counter[MaskRelease]] = {}

    @property
    def cap(self) -> int | None:
        """The most rounds that one client may take part in."""
        return self._cap

    @property
    def clients(self) -> tuple[Hashable, ...]:
        """Everybody who ever took part."""
        return tuple(self._accounts)

    def rounds_of(self, client: Hashable) -> int:
        """Rounds that this client took part in."""
        return self._accounts.get(client, Counter()).total()

    def spend(self, release: MaskRelease, participants: Iterable[Hashable], rounds: int = 1) -> None:
        """Charge `rounds` rounds to each participant, or raise `ParticipationExceeded` and charge nobody."""
        rounds = _validate.count("rounds", rounds)
        names = list(participants)
        if len(set(names)) != len(names):
            raise InvalidParameter("a client takes part once in a round; participants has one twice")
        if self._cap is not None:
            full = [name for name in names if self.rounds_of(name) + rounds > self._cap]
            if full:
                raise ParticipationExceeded(
                    f"{len(full)} of {len(names)} participants would pass the cap of {self._cap} rounds, "
                    f"first {full[0]!r} with {self.rounds_of(full[0])} already; nobody was charged"
                )
        for name in names:
            self._accounts.setdefault(name, Counter())[release] += rounds

    def guarantee_of(self, client: Hashable, view: View, adjacency: Adjacency) -> Guarantee:
        """ε to date of one client; 0 for one that never took part."""
        return guarantee_of(
            self._accounts.get(client, {}), self._delta, *_validate.view_and_adjacency(view, adjacency)
        )

    def guarantee(self, view: View, adjacency: Adjacency) -> Guarantee:
        """ε to date of the client that has spent most: the one to report."""
        view, adjacency = _validate.view_and_adjacency(view, adjacency)
        histories = {frozenset(account.items()) for account in self._accounts.values()}
        # Where all rounds were alike the longest history is the largest.
        if len({release for history in histories for release, _ in history}) == 1:
            histories = {max(histories, key=lambda history: next(iter(history))[1])}
        every = (guarantee_of(dict(history), self._delta, view, adjacency) for history in histories)
        return max(
            every, key=lambda found: found.epsilon, default=guarantee_of({}, self._delta, view, adjacency)
        )

    def _repr_html_(self) -> str:
        """For notebooks: ε to date of the client that has spent most."""
        rows = [
            (f"{view}, {adjacency}", format_epsilon(self.guarantee(view, adjacency).epsilon))
            for view in reversed(View)
            for adjacency in Adjacency
        ]
        head = ("the client that spent most", "ε to date")
        caption = f"{len(self._accounts)} clients at δ = {format_delta(self._delta)}"
        return notebook.table(caption, rows, head)

    def planned(self, release: MaskRelease, view: View, adjacency: Adjacency) -> Guarantee:
        """ε of a client that takes part as often as the cap allows, always with `release`."""
        if self._cap is None:
            raise InvalidParameter("without a cap there is no planned participation")
        return guarantee_of({release: self._cap}, self._delta, *_validate.view_and_adjacency(view, adjacency))
