"""What a run has spent: its accountant and its signed ledger.

Two epsilons stand side by side and are never added. For **everything one client contributes** each round's
masks are charged; for **one image of one client** there is one release before the first round, and rounds are
post-processing of it.

Measured rounds have no such release: their bits cost a client and an image something each, both accounts
grow, and every entry of the ledger states both from the one release of its round. Where a round invites some
of the clients only, each client's account has its own rounds, and the largest is stated.

A *summed* release changes the first account: it opens, so what it tells about a client is charged, and then
the masks cost nothing more, because all clients train from the opened moments alone (and from the public
seed): their masks are post-processing of what everybody has seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

from prism_privacy import (
    Accountant,
    Adjacency,
    Ledger,
    MaskRelease,
    MeasuredRelease,
    Participation,
    RecordGuarantee,
    Spent,
    Unit,
    View,
)
from prism_privacy.ledger.check import (
    OF_PERSONS,
    OWN_BEHAVIOUR,
    OWN_FEATURES,
    OWN_NETWORK,
    OWN_RULE,
    SUM_NOT_RUN,
    says_of_persons,
    says_sum_not_run,
)
from prism_privacy.ledger.entry import Coins, LedgerEntry
from prism_privacy.ledger.key import LedgerKey
from prism_privacy.ledger.spent_table import spent_table
from prism_secure.accounting.epsilons import AFTER_MOMENTS, CELLS, Epsilons, RecordEpsilon
from prism_secure.accounting.largest import LargestAccount
from prism_secure.accounting.plan import Plan
from prism_secure.accounting.record_release import RecordRelease
from prism_secure.config import Config
from prism_secure.config.invitations import invited
from prism_secure.config.plugged import is_reference, origin
from prism_secure.errors import RunFolderError
from prism_secure.wording import record_unit


class LedgerPlace(Protocol):
    """Where a ledger is: a run's folder, or that of a client on a machine of its own."""

    @property
    def federation(self) -> str: ...
    @property
    def ledger_path(self) -> Path: ...
    @property
    def ledger_key_path(self) -> Path: ...


class Spending:
    """Charges each round to the ledger, once, before anything of it can leave a client.

    How many rounds there are, who is in each, and so what a client spends at most, is planned before the
    first (`prism_secure.accounting.plan`, `prism_secure.config.invitations`).

    Args:
        config: the run's configuration.
        folder: where the ledger and its key are; both are made on first use.
        dimension: d, the length of a mask.
        finished_rounds: how many rounds the checkpoint has behind it; None where there is a `client`.
        release: the record-level release that clients train from, or None.
        coins: "test" if somebody could know them; then the ledger claims no epsilon.
        own_data: whether each client has data of its own where it is; the ledger's header says so.
        sizes: images of each client, by the public partition; None where nobody says. For measured rounds.
        persons: how many persons each has, with `data.person`; None where nobody says.
        client: the id of a client that keeps a ledger of its own, where each round that it takes part in
            counts as one; what is planned is the most that any client spends. None: the ledger is of all.

    Raises:
        ConfigError: the budget does not admit a single round.
        RunFolderError: the ledger is not that of these rounds: gone, put back to an older copy, or of
            another run.
        prism_privacy.LedgerError: the ledger is damaged, or its key is not this folder's.
    """

    def __init__(
        self,
        config: Config,
        folder: LedgerPlace,
        dimension: int,
        finished_rounds: int | None,
        release: RecordRelease | None = None,
        coins: Coins = "secret",
        own_data: bool = False,
        sizes: Sequence[int] | None = None,
        persons: Sequence[int] | None = None,
        client: int | None = None,
    ) -> None:
        self._config = config
        self._coins = coins
        self._own_data = own_data
        self._moments = release
        self._guarantee = None if release is None or coins == "test" else release.guarantee
        self._client = client
        self._counted = sizes if config.data.person is None else persons
        self._plan = Plan(config, dimension, release, sizes=sizes, persons=persons)
        self.planned_rounds = self._plan.rounds
        self._participations = Participation(config.privacy.delta, cap=self._plan.most)
        self._accountant = Accountant(delta=config.privacy.delta)
        self._accountant_rounds = 0
        self._accountant.plan(self._plan.mask, rounds=self._plan.most)
        self._measured = {
            unit: LargestAccount(config.privacy.delta, self._plan.account(unit))
            for unit in (Unit.CLIENT, Unit.RECORD)
        }
        self._ledger = self._open_ledger(folder, finished_rounds)
        for entry in self._ledger.entries:
            if entry.kind in ("round", "aborted"):
                self._spend(entry.round, _federation_round(entry))

    def __enter__(self) -> Spending:
        return self

    def __exit__(self, *_: object) -> None:
        self._ledger.close()

    @property
    def charged_rounds(self) -> int:
        """How many rounds the ledger has charged."""
        return sum(entry.kind in ("round", "aborted") for entry in self._ledger.entries)

    @property
    def record(self) -> RecordEpsilon | None:
        """What is guaranteed for one image, if anything is; of measured rounds, what it has spent to date."""
        found = self._guarantee
        if self._plan.measured and self._ledger.entries:
            found = self._ledger.entries[-1].record
        if found is None:
            return None
        seen = found.spent
        return RecordEpsilon(
            epsilon=found.epsilon if seen is None else seen[View.SUM].to_date,
            upload=None if seen is None else seen[View.UPLOAD].to_date,
            delta=found.delta,
            adjacency=found.adjacency,
            unit=record_unit(self._config.record),
            view=None if found.view is None else found.view.value,
            cohort=found.cohort,
        )

    def charge_moments(self) -> None:
        """Write the record-level release to the ledger, unless an attempt before a kill did."""
        if self._moments is None or self._guarantee is None or self.moments_charged:
            return
        table = {}
        for cell in CELLS:
            alone = self._moments.client_epsilon(*cell)
            table[cell] = Spent(alone, alone, self._plan.epsilon(*cell))
        cohort = self._plan.summed.plan.cohort if self._plan.summed else self._config.cohort
        self._append("moments", 0, self._guarantee.release, table, cohort=cohort)

    @property
    def federation_rounds(self) -> set[int]:
        """The federation's rounds that a client's own ledger has; a server may ask out of their order."""
        stated = (entry.metrics.get("federation_round") for entry in self._ledger.entries)
        return {number for number in stated if isinstance(number, int)}

    def charge(
        self,
        round_number: int,
        *,
        kind: Literal["round", "aborted"] = "round",
        metrics: Mapping[str, Any] | None = None,
        federation_round: int | None = None,
    ) -> Epsilons:
        """Write the round's cost to the ledger, unless an attempt before a kill did; epsilon to date.

        Args:
            round_number: the next one, or one that is charged already.
            kind: "aborted" for a round whose uploads may have left and whose sum did not open.
            metrics: what else the ledger should say of the round, JSON-safe.
            federation_round: the federation's number of the round, where the ledger is a client's own and has
                another.

        Raises:
            RunFolderError: a measured round that is not in the plan.
            prism_privacy.ParticipationExceeded: a client would be in more rounds than the plan has for any.
        """
        if round_number > self.charged_rounds:
            if federation_round is not None:
                metrics = {**(metrics or {}), "federation_round": federation_round}
            number = round_number if federation_round is None else federation_round
            most = self._spend(round_number, number)
            release = self._plan.release(number)
            if self._client is None and not self._config.everybody:
                metrics = {**(metrics or {}), "most_rounds": most}
                if self._plan.measured:  # rounds differ, so it matters who was in which
                    metrics["invited"] = list(invited(self._config, number))
            account = self._measured[Unit.CLIENT] if self._plan.measured else self._accountant
            table = spent_table(account, _of_a_client(release))
            if self._plan.summed:
                table = {cell: self._after_moments(masks, *cell) for cell, masks in table.items()}
            if isinstance(release, MeasuredRelease) and self._coins != "test":
                self._guarantee = RecordGuarantee.measured(release, self._measured[Unit.RECORD])
            self._append(kind, round_number, release.as_dict(), table, metrics)
        entry = self._ledger.entries[self.moments_charged + round_number - 1]
        return Epsilons.of({cell: entry.spent(*cell).to_date for cell in CELLS})

    @property
    def ended(self) -> str | None:
        """Why the run was over when the ledger's last line was written, "" for its plan; None: it goes on."""
        entries = self._ledger.entries
        return str(entries[-1].metrics.get("ended", "")) if entries and entries[-1].kind == "end" else None

    def end(self, model: Mapping[str, Any], reason: str) -> None:
        """Write the last line, unless an attempt before a kill did; it charges nothing.

        Args:
            model: the deployed model in words, JSON-safe (`prism_secure.model.model_card.model_words`).
            reason: why no more rounds follow, "" if none were planned.
        """
        if self.ended is not None or not self._ledger.entries:
            return
        last = self._ledger.entries[-1]
        table = {cell: replace(spent, round=0.0) for cell, spent in (last.epsilon or {}).items()}
        told = {**model, "ended": reason}
        if last.record is not None and last.record.spent is not None:
            nothing = {view: replace(cell, round=0.0) for view, cell in last.record.spent.items()}
            self._guarantee = replace(last.record, spent=nothing)
        release = last.release if self._plan.measured else self._plan.mask.as_dict()
        self._append("end", self.charged_rounds, release, table, told)

    def _spend(self, round_number: int, federation_round: int) -> int:
        """Charge a round to those who are in it; the most rounds that any client has been in now."""
        before = self._accountant_rounds
        if self._plan.measured and not 1 <= federation_round <= self._plan.rounds:
            raise RunFolderError(
                f"round {federation_round} is not one of the {self._plan.rounds} that were planned"
            )
        release = self._plan.release(federation_round)
        present = invited(self._config, federation_round) if self._client is None else (self._client,)
        self._participations.spend(_of_a_client(release), present)
        most = max(map(self._participations.rounds_of, present))
        if isinstance(release, MeasuredRelease):
            # Where all are in every round one account stands for all, in a client's own ledger, too.
            shared = self._client is None or self._config.everybody
            accounts = self._plan.present(federation_round) if shared else present
            for unit, account in self._measured.items():
                account.spend(release.release(unit), accounts)
        elif most > before:
            self._accountant.spend(release)
        self._accountant_rounds = max(most, before)
        return self._accountant_rounds

    @property
    def moments_charged(self) -> int:
        """1 if the ledger begins with the record-level release, else 0."""
        return sum(entry.kind == "moments" for entry in self._ledger.entries)

    def _after_moments(self, masks: Spent, view: View, adjacency: Adjacency) -> Spent:
        """What a round's masks cost where everything that they are drawn from was opened before."""
        assert self._plan.summed is not None
        moments = self._plan.summed.client_epsilon(view, adjacency)
        return Spent(masks.round, moments, moments, bound=AFTER_MOMENTS, added=0.0)

    def _append(
        self,
        kind: Literal["moments", "round", "aborted", "end"],
        round_number: int,
        release: Mapping[str, Any],
        table: Mapping[tuple[View, Adjacency], Spent],
        metrics: Mapping[str, Any] | None = None,
        cohort: int | None = None,
    ) -> None:
        self._ledger.append(
            kind=kind,
            round=round_number,
            release=release,
            cohort=cohort or self._config.cohort,
            delta=self._config.privacy.delta,
            epsilon=None if self._coins == "test" else table,
            colluders=self._config.privacy.colluders,
            metrics=metrics,
            record=self._guarantee,
            coins=self._coins,
        )

    def _open_ledger(self, folder: LedgerPlace, finished_rounds: int | None) -> Ledger:
        key_path, path = folder.ledger_key_path, folder.ledger_path
        if finished_rounds and not path.exists():
            raise RunFolderError(
                f"{path} is gone, but {finished_rounds} rounds were charged to it; put it back"
            )
        if path.exists() and not key_path.exists():
            raise RunFolderError(f"{key_path} is gone, and no other key may write on in {path}; put it back")
        key = LedgerKey.load(key_path) if key_path.exists() else LedgerKey.create(key_path)
        if not path.exists():
            return Ledger.create(
                path,
                key,
                federation=folder.federation,
                clients=self._config.federation.clients,
                records=self._most_records,
                settings=self._settings(),
            )
        ledger = Ledger.open(path, key)
        stated = next((entry.record for entry in ledger.entries if entry.record is not None), None)
        silent = self._guarantee and replace(self._guarantee, view=None, cohort=None)
        if stated is not None and stated == silent:
            self._guarantee = stated  # an older program began this ledger, and a ledger states one guarantee
        try:
            self._refuse_foreign(ledger, finished_rounds)
            self._refuse_other_release(ledger)
        except BaseException:
            ledger.close()
            raise
        return ledger

    @property
    def _most_records(self) -> int | None:
        """The most images that a client has, or persons, where it is known and matters."""
        if self._plan.measured:
            return max(self._counted) if self._counted else None
        return None if self._moments is None else max(self._moments.sizes)

    def _settings(self) -> dict[str, str | bool]:
        """What the header says of the data, the secure sum if it is not run, persons if they are the records,
        parts of the user's own, and the record-level release; which one, where runs share it."""
        settings: dict[str, str | bool] = {"own_data": True} if self._own_data else {}
        if self._config.secure_sum.simulate:
            settings |= SUM_NOT_RUN
        if self._config.data.person is not None:
            settings |= OF_PERSONS
        settings |= self._own_code()
        if self._moments is not None:
            settings["record_release"] = self._config.privacy.record_release
            if (shared := self._moments.id(draw=True)) is not None:
                settings["record_id"] = shared
        return settings

    def _own_code(self) -> dict[str, str]:
        """The settings that name parts of the user's own, each with its source's SHA-256."""
        code = {
            name: origin(value)
            for name, value in (
                (OWN_BEHAVIOUR, self._config.federation.behaviour),
                (OWN_NETWORK, self._config.model.network),
                (OWN_RULE, self._config.aggregation.rule),
            )
            if is_reference(value)
        }
        if self._config.own_features:
            code[OWN_FEATURES] = "; ".join(map(origin, self._config.own_features))
        return code

    def _refuse_other_release(self, ledger: Ledger) -> None:
        """Refuse unless the store still holds the release that the ledger charged."""
        if self._moments is None or self._config.privacy.record_store is None:
            return
        stated = ledger.settings.get("record_id")
        if stated in (None, self._moments.id(draw=False)):
            return
        raise RunFolderError(
            f"{ledger.path} charged record-level release {stated}, and {self._config.privacy.record_store} "
            "holds it no more: put it back, or start a run that is charged for another"
        )

    def _refuse_foreign(self, ledger: Ledger, finished_rounds: int | None) -> None:
        """Refuse unless the ledger's entries are those of this configuration and this checkpoint."""
        if says_sum_not_run(ledger.settings) != self._config.secure_sum.simulate:
            now = str(self._config.secure_sum.simulate).lower()
            raise RunFolderError(
                f"{ledger.path} does not belong to this run: its secure sum is "
                f"{'' if self._config.secure_sum.simulate else 'not '}run by what its header says, and "
                f"secure_sum.simulate is {now}; put the run's own ledger back"
            )
        if says_of_persons(ledger.settings) != (self._config.data.person is not None):
            raise RunFolderError(
                f"{ledger.path} does not belong to this run: by its header a record is "
                f"{'a person' if says_of_persons(ledger.settings) else 'an image'}, and data.person is "
                f"{self._config.data.person or 'none'}; put the run's own ledger back"
            )
        code = self._own_code()
        for name in (OWN_BEHAVIOUR, OWN_FEATURES, OWN_NETWORK, OWN_RULE):
            if (stated := ledger.settings.get(name)) != code.get(name):
                raise RunFolderError(
                    f"{ledger.path} was begun with other code: its header says {name} is "
                    f"{stated or 'built in'}, and now it is {code.get(name, 'built in')}; put the code back, "
                    "or start another run"
                )
        entries = [entry for entry in ledger.entries if entry.kind != "end"]
        moments = entries.pop(0) if entries and entries[0].kind == "moments" else None
        charged = [entry.round for entry in entries]
        unlike = [
            *(["release"] if not all(map(self._is_planned, entries)) else []),
            *(["record-level release"] if not self._has_guarantee(moments, entries) else []),
        ]
        expected = list(range(1, len(charged) + 1))
        finished_rounds = len(charged) if finished_rounds is None else finished_rounds
        if charged != expected or len(charged) - finished_rounds not in (0, 1) or unlike:
            raise RunFolderError(
                f"{ledger.path} does not belong to this checkpoint: {finished_rounds} rounds are finished, "
                f"the ledger has charged rounds {charged}"
                + (f" of another {' and '.join(unlike)}" if unlike else "")
            )

    def _is_planned(self, entry: LedgerEntry) -> bool:
        number = _federation_round(entry)
        if self._plan.measured and not 1 <= number <= self._plan.rounds:
            return False
        return entry.release == self._plan.release(number).as_dict()

    def _has_guarantee(self, moments: LedgerEntry | None, rounds: Sequence[LedgerEntry]) -> bool:
        """Whether the ledger charged this record-level release before any round, and says so in each.

        What measured rounds cost an image is verified with the ledger: it is computed from their releases.
        """
        if self._plan.measured:
            told = [entry.record is not None and entry.record.spent is not None for entry in rounds]
            return moments is None and all(told) if self._coins != "test" else not any(told)
        if self._guarantee is None:
            return moments is None and all(entry.record is None for entry in rounds)
        if moments is None:
            return not rounds
        return moments.release == self._guarantee.release and all(
            entry.record == self._guarantee for entry in (moments, *rounds)
        )


def _federation_round(entry: LedgerEntry) -> int:
    """The federation's number of a round, which a client's own ledger keeps beside its own."""
    told = entry.metrics.get("federation_round", entry.round)
    return told if isinstance(told, int) else entry.round


def _of_a_client(release: MaskRelease | MeasuredRelease) -> MaskRelease:
    return release.release(Unit.CLIENT) if isinstance(release, MeasuredRelease) else release
