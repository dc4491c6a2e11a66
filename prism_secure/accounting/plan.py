"""What a recipe will spend, before anything has left a client: how many rounds, and what they cost at most.

Rounds are alike, so the largest epsilon is that of the client that is in most of them; with everybody in
every round it is each client's. A budget shortens the plan before the first round: nothing that is measured
on the way decides when to stop, and so the planned epsilon is a guarantee.
"""

from __future__ import annotations

from prism_privacy import Accountant, Adjacency, MaskRelease, View
from prism_secure.accounting.record_release import RecordRelease
from prism_secure.config import Config
from prism_secure.config.invitations import most_participations
from prism_secure.errors import ConfigError
from prism_secure.wording import format_epsilon


class Plan:
    """The rounds that a configuration comes to, and their cost.

    Args:
        config: the configuration.
        dimension: d, the length of a mask.
        moments: the record-level release that clients train from, or None.
        alone: whether it is the plan of a client that keeps a ledger of its own, where each round that it
            takes part in counts as one.

    Attributes:
        mask: what a client releases in a round.
        rounds: how many there will be.
        most: the most of them that one client is in.
        summed: the record-level release where it is opened over all clients, else None.

    Raises:
        ConfigError: the budget does not admit a single round.
    """

    def __init__(
        self, config: Config, dimension: int, moments: RecordRelease | None = None, *, alone: bool = False
    ) -> None:
        privacy = config.privacy
        self.mask = MaskRelease(
            flip=privacy.flip,
            clip=privacy.clip,
            space=privacy.clip_space,
            cohort=config.cohort,
            dim=dimension,
            sum_failure=config.sum_failure,
        )
        self._config = config
        self.summed = moments if moments is not None and moments.summed else None
        self._alone = alone
        self.rounds = self._admitted()
        self.most = self._most(self.rounds)

    def epsilon(self, view: View, adjacency: Adjacency) -> float:
        """For everything one client contributes, over all planned rounds."""
        return self._cost(self.rounds, view, adjacency)

    def _admitted(self) -> int:
        """The most rounds, up to the configured number, whose epsilon(SUM, ZERO_OUT) is in budget."""
        wanted, limit = self._config.federation.rounds, self._config.budget.epsilon
        if limit is None or self._cost(wanted) <= limit:
            return wanted
        if (least := self._cost(1)) > limit:
            raise ConfigError(
                f"budget.epsilon = {limit} admits no round: one costs epsilon(SUM, ZERO_OUT) = "
                f"{format_epsilon(least)} at delta = {self._config.privacy.delta:g}; raise privacy.flip, "
                "lower privacy.clip, or take more clients"
            )
        admitted, refused = 1, wanted
        while refused - admitted > 1:
            middle = (admitted + refused) // 2
            admitted, refused = (middle, refused) if self._cost(middle) <= limit else (admitted, middle)
        return admitted

    def _most(self, rounds: int) -> int:
        return rounds if self._alone else most_participations(self._config, rounds)

    def _cost(self, rounds: int, view: View = View.SUM, adjacency: Adjacency = Adjacency.ZERO_OUT) -> float:
        if self.summed is not None:
            return self.summed.client_epsilon(view, adjacency)
        accountant = Accountant(delta=self._config.privacy.delta)
        accountant.spend(self.mask, rounds=self._most(rounds))
        return accountant.epsilon(view, adjacency)
