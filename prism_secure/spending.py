"""What a run has spent: its accountants, its signed ledger, and the budget that ends it in time."""

from __future__ import annotations

from prism_privacy import Adjacency, MaskRelease, View
from prism_privacy.accountant import Accountant
from prism_privacy.ledger import Ledger, LedgerKey
from prism_privacy.ledger_entry import spent_table
from prism_secure.config import Config
from prism_secure.records import Epsilons
from prism_secure.run_folder import RunFolder


class Spending:
    """Charges each round to the ledger, once, before anything of it can leave a client.

    Every client takes part in every round under the same release, so the largest epsilon over clients is
    each client's.

    Args:
        config: the run's configuration.
        folder: where the ledger and its key are; both are made on first use.
        dimension: d, the length of a mask.
    """

    def __init__(self, config: Config, folder: RunFolder, dimension: int) -> None:
        privacy = config.privacy
        self._config = config
        self._release = MaskRelease(
            flip=privacy.flip,
            clip=privacy.clip,
            space=privacy.clip_space,
            cohort=config.cohort,
            dim=dimension,
        )
        self._once = self._accountant(1)
        self._planned = self._accountant(config.federation.rounds)
        if folder.ledger_path.exists():
            self._ledger = Ledger.open(folder.ledger_path, LedgerKey.load(folder.ledger_key_path))
        else:
            key_path = folder.ledger_key_path
            key = LedgerKey.load(key_path) if key_path.exists() else LedgerKey.create(key_path)
            self._ledger = Ledger.create(
                folder.ledger_path, key, federation=folder.federation, clients=config.federation.clients
            )

    def __enter__(self) -> Spending:
        return self

    def __exit__(self, *_: object) -> None:
        self._ledger.close()

    @property
    def rounds(self) -> int:
        """How many rounds the ledger has charged."""
        return len(self._ledger.entries)

    def charge(self, round_number: int) -> Epsilons:
        """Write the round's cost to the ledger, unless an attempt before a kill did; epsilon to date."""
        to_date = self._accountant(round_number)
        if round_number > self.rounds:
            self._ledger.append(
                round=round_number,
                release=self._release,
                delta=self._config.privacy.delta,
                epsilon=spent_table(once=self._once, to_date=to_date, planned=self._planned),
                colluders=self._config.privacy.colluders,
            )
        return Epsilons(
            **{
                f"{view.value}_{adjacency.value}": to_date.epsilon(view, adjacency)
                for view in View
                for adjacency in Adjacency
            }
        )

    def admits(self, round_number: int) -> bool:
        """Whether the round is charged already, or its epsilon(SUM, ZERO_OUT) to date is within the budget."""
        limit = self._config.budget.epsilon
        if limit is None or round_number <= self.rounds:
            return True
        return self._accountant(round_number).epsilon(View.SUM, Adjacency.ZERO_OUT) <= limit

    def _accountant(self, rounds: int) -> Accountant:
        accountant = Accountant(delta=self._config.privacy.delta)
        accountant.spend(self._release, rounds=rounds)
        return accountant
