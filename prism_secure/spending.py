"""What a run will spend and has spent: its plan, its accountant, and its signed ledger."""

from __future__ import annotations

from prism_privacy import Accountant, Adjacency, Ledger, MaskRelease, View
from prism_privacy.epsilon_table import spent_table
from prism_privacy.ledger_key import LedgerKey
from prism_secure.config import Config
from prism_secure.errors import ConfigError, RunFolderError
from prism_secure.history import spent
from prism_secure.records import Epsilons
from prism_secure.run_folder import RunFolder
from prism_secure.wording import format_epsilon


class Spending:
    """Charges each round to the ledger, once, before anything of it can leave a client.

    Every client takes part in every round under the same release, so the largest epsilon over clients is
    each client's. A budget shortens the plan before the first round: nothing that is measured on the way
    decides when to stop, and so the planned epsilon is a guarantee.

    Args:
        config: the run's configuration.
        folder: where the ledger and its key are; both are made on first use.
        dimension: d, the length of a mask.
        finished_rounds: how many rounds the checkpoint has behind it.

    Raises:
        ConfigError: the budget does not admit a single round.
        RunFolderError: the ledger is not that of these rounds: gone, put back to an older copy, or of
            another run.
        prism_privacy.LedgerError: the ledger is damaged, or its key is not this folder's.
    """

    def __init__(self, config: Config, folder: RunFolder, dimension: int, finished_rounds: int) -> None:
        privacy = config.privacy
        self._config = config
        self._release = MaskRelease(
            flip=privacy.flip,
            clip=privacy.clip,
            space=privacy.clip_space,
            cohort=config.cohort,
            dim=dimension,
        )
        self.planned_rounds = self._admitted()
        self._accountant = Accountant(delta=privacy.delta)
        self._accountant.plan(self._release, rounds=self.planned_rounds)
        self._ledger = self._open_ledger(folder, finished_rounds)
        if self.charged_rounds:
            self._accountant.spend(self._release, rounds=self.charged_rounds)

    def __enter__(self) -> Spending:
        return self

    def __exit__(self, *_: object) -> None:
        self._ledger.close()

    @property
    def charged_rounds(self) -> int:
        """How many rounds the ledger has charged."""
        return len(self._ledger.entries)

    def charge(self, round_number: int) -> Epsilons:
        """Write the round's cost to the ledger, unless an attempt before a kill did; epsilon to date."""
        if round_number > self.charged_rounds:
            self._accountant.spend(self._release)
            self._ledger.append(
                round=round_number,
                release=self._release,
                delta=self._config.privacy.delta,
                epsilon=spent_table(self._accountant, self._release),
                colluders=self._config.privacy.colluders,
            )
        entry = self._ledger.entries[round_number - 1]
        return Epsilons(**{f"{v}_{a}": spent(entry, v, a).to_date for v in View for a in Adjacency})

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

    def _cost(self, rounds: int) -> float:
        accountant = Accountant(delta=self._config.privacy.delta)
        accountant.spend(self._release, rounds=rounds)
        return accountant.epsilon(View.SUM, Adjacency.ZERO_OUT)

    def _open_ledger(self, folder: RunFolder, finished_rounds: int) -> Ledger:
        key_path = folder.ledger_key_path
        key = LedgerKey.load(key_path) if key_path.exists() else LedgerKey.create(key_path)
        path = folder.ledger_path
        if finished_rounds and not path.exists():
            raise RunFolderError(
                f"{path} is gone, but {finished_rounds} rounds were charged to it; put it back"
            )
        if path.exists():
            ledger = Ledger.open(path, key)
            charged = [entry.round for entry in ledger.entries]
            expected = list(range(1, len(charged) + 1))
            same = all(entry.release == self._release.as_dict() for entry in ledger.entries)
            if charged != expected or len(charged) - finished_rounds not in (0, 1) or not same:
                ledger.close()
                raise RunFolderError(
                    f"{path} does not belong to this checkpoint: {finished_rounds} rounds are finished, the "
                    f"ledger has charged rounds {charged} {'' if same else 'of other releases'}"
                )
            return ledger
        return Ledger.create(
            folder.ledger_path, key, federation=folder.federation, clients=self._config.federation.clients
        )
