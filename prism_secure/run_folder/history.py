"""What a run folder says about its run, read without changing it: also while the run goes on."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import msgspec

from prism_privacy.errors import LedgerError
from prism_privacy.ledger import verify_ledger
from prism_privacy.ledger.check import LedgerReport, counted_lines
from prism_privacy.ledger.composition import Opened, opened_in
from prism_privacy.ledger.entry import LedgerEntry, RecordGuarantee, from_json_safe
from prism_privacy.ledger.key import LedgerKey
from prism_privacy.moments.release import MomentRelease
from prism_privacy.units import View
from prism_secure.accounting import measured
from prism_secure.accounting.epsilons import CELLS, Epsilons
from prism_secure.accounting.plan import Unbounded
from prism_secure.accounting.record_release import ImageView, image_view
from prism_secure.accounting.signed import why_infinite_as_signed
from prism_secure.config import Config
from prism_secure.errors import RunFolderError
from prism_secure.run_folder.environment import Facts, read_environment
from prism_secure.run_folder.folder import checkpoint_round, read_config, read_federation, read_records
from prism_secure.run_folder.one_run_record import OneRun, read_one_run
from prism_secure.run_folder.records import MomentSession, RoundRecord

__all__ = [
    "LowerBound",
    "RunHistory",
    "Status",
    "check_whole",
    "read_history",
]


class Status(msgspec.Struct, frozen=True):
    """How a run stands."""

    kind: str
    """"done", "failed", or "running" (which an interrupted run looks like, too)."""
    text: str
    reason: str
    """Why it ended early, "" otherwise."""


class LowerBound(msgspec.Struct, frozen=True, kw_only=True):
    """An epsilon that the truth certainly is not below, as an audit found."""

    unit: str
    """"client" or "record"."""
    epsilon: float
    confidence: float
    """1.0: computed exactly; less: a statistical test's."""
    view: str | None = None
    """"sum" or "upload"; None for a record."""
    adjacency: str | None = None
    method: str = ""
    """How it was found, in words."""


class _Audit(msgspec.Struct, frozen=True):
    lower_bounds: list[LowerBound] = []


msgspec.json.Decoder(_Audit)  # prepared at import: not by two threads at once
_MOMENTS = msgspec.json.Decoder(MomentSession)
_NOTHING = Epsilons.of(dict.fromkeys(CELLS, math.inf))


class RunHistory(msgspec.Struct, frozen=True, kw_only=True):
    """One run, from its folder."""

    config: Config
    records: list[RoundRecord]
    """Finished rounds, from 1 on without a gap. Where test coins were used, every epsilon is infinite."""
    status: Status
    samples: list[tuple[int, Path]]
    """Grids of images by round, in order, for `prism_secure.quality.samples.read_grid`."""
    neighbours: list[tuple[int, Path]]
    """Of generated images over the clients' images nearest to them, where these are public."""
    ledger: LedgerReport | None
    """The ledger, checked from its first line on; None if there is none."""
    environment: dict[str, Any]
    facts: Facts
    lower_bounds: list[LowerBound]
    """What audits of this run found epsilon to be at least; from `audit.json` and `one_run`."""
    one_run: OneRun | None
    """What canaries in one run of these settings showed; None where nobody asked."""
    moments: MomentSession | None
    """What the secure sum of a summed record-level release took; None where there was none."""

    @property
    def test_coins(self) -> bool:
        """Whether the ledger says that somebody could know the clients' coins."""
        return self.ledger is not None and any(entry.coins == "test" for entry in self.ledger.entries)

    @property
    def sum_not_run(self) -> bool:
        """Whether there was no secure sum: by the ledger's header, or, where there is none, by the recipe."""
        return self.config.secure_sum.simulate if self.ledger is None else self.ledger.sum_not_run

    @property
    def record_guarantee(self) -> RecordGuarantee | None:
        """The record-level guarantee that the ledger states, if any; of measured rounds, as it stands now."""
        entries = self.ledger.entries if self.ledger else ()
        found = [entry.record for entry in entries if entry.record is not None]
        if found and found[-1].spent is not None:
            return found[-1]
        return max(found, key=lambda guarantee: guarantee.epsilon, default=None)

    @property
    def opened(self) -> Opened | None:
        """How the record-level release was opened over all clients, if it was."""
        return None if self.ledger is None else opened_in(self.ledger)

    @property
    def image_view(self) -> ImageView | None:
        """Whom one image is protected from; None where nothing is claimed for it."""
        record = self.record_guarantee
        if record is None or self.test_coins:
            return None
        if record.spent is not None:
            seen = record.spent[View.UPLOAD]
            return measured.image_view(self.config, seen.to_date if seen.planned is None else seen.planned)
        shares = None if self.opened is None else self.opened.shares
        return image_view(self.config, MomentRelease(**record.release), shares)  # type: ignore[arg-type]

    @property
    def unbounded(self) -> tuple[Unbounded, ...]:
        """Each epsilon that is infinite, with its cause and what would make it finite."""
        if self.test_coins or self.to_date is None:
            return ()
        record = self.record_guarantee
        shown = {"SUM": self.to_date.sum_replace_one, "UPLOAD": self.to_date.upload_replace_one}
        shown["image"] = 0.0 if record is None else record.epsilon
        infinite = [name for name, epsilon in shown.items() if math.isinf(epsilon)]
        return why_infinite_as_signed(infinite, self.ledger, self.config, self.facts.parameters)

    @property
    def rounds(self) -> list[LedgerEntry]:
        """The ledger's entries about rounds, without the record-level release before them."""
        entries = self.ledger.entries if self.ledger else ()
        return [entry for entry in entries if entry.kind in ("round", "aborted")]

    @property
    def charged_unfinished(self) -> list[int]:
        """Rounds that the ledger has charged and that are not finished: something of them may have left."""
        return [entry.round for entry in self.rounds if entry.round > len(self.records)]

    @property
    def to_date(self) -> Epsilons | None:
        """Epsilon to date of one client: what the signed ledger has charged, or what the records say if more.

        None before anything was spent.
        """
        largest = dict.fromkeys(CELLS, 0.0)
        for record in self.records[-1:]:
            largest = record.epsilon.table
        for entry in (self.ledger.entries if self.ledger else ())[-1:]:
            largest = {cell: max(largest[cell], entry.spent(*cell).to_date) for cell in CELLS}
        return Epsilons.of(largest) if any(largest.values()) else None

    @property
    def disagreement(self) -> int | None:
        """The first round whose epsilons in `metrics.jsonl` are below what the signed ledger says."""
        if self.ledger is None:
            return None
        kept = {entry.round: entry for entry in self.ledger.entries if entry.epsilon is not None}
        for record in self.records:
            if record.round in kept and any(
                record.epsilon.at(*cell) < kept[record.round].spent(*cell).to_date for cell in CELLS
            ):
                return record.round
        return None


def read_history(folder: str | os.PathLike[str]) -> RunHistory:
    """Read and check everything that a run folder holds for others to see.

    Raises:
        RunFolderError: the folder is not a run's, or a file in it is damaged: which, where and how.
    """
    folder = Path(folder)
    config = read_config(folder)
    records = _records(folder, config)
    ledger = _ledger(folder)
    environment, facts = read_environment(folder)
    one_run = read_one_run(folder)
    history = RunHistory(
        config=config,
        records=records,
        status=_status(folder, config.federation.rounds, len(records)),
        samples=_grids(folder, "round"),
        neighbours=_grids(folder, "neighbours"),
        ledger=ledger,
        environment=environment,
        facts=facts,
        lower_bounds=_lower_bounds(folder) + _shown_by(one_run),
        one_run=one_run,
        moments=_moments(folder),
    )
    if not history.test_coins:
        return history
    return msgspec.structs.replace(
        history, records=[msgspec.structs.replace(record, epsilon=_NOTHING) for record in records]
    )


def check_whole(folder: Path) -> RunHistory:
    """Read and check everything by which a run goes on, or is finished, before anything is charged.

    A kill at any moment leaves c finished rounds in the checkpoint, r = c or c + 1 in `metrics.jsonl`, and
    r to c + 1 in the ledger.

    Raises:
        RunFolderError: a file is gone, damaged, or of another state: which, and what to do.
    """
    ledger, federation, finished = folder / "ledger.jsonl", read_federation(folder), checkpoint_round(folder)
    try:
        if not ledger.exists() and counted_lines(ledger) > 1:
            raise RunFolderError(f"{ledger} is gone, and its head file counts what it charged; put it back")
        history = read_history(folder)
        if history.ledger is not None:
            _check_ledger(folder, history.ledger, federation)
    except LedgerError as error:
        raise RunFolderError(f"{error}; put it back as it was") from None
    counts = {
        ledger: ("charged", len(history.rounds)),
        folder / "metrics.jsonl": ("records", len(history.records)),
        folder / "checkpoint" / "server.safetensors": ("is after", finished),
    }
    if not finished <= len(history.records) <= len(history.rounds) <= finished + 1:
        gone = [path.name for path in counts if not path.exists()]
        raise RunFolderError(
            f"{folder} is not as its run left it: "
            + ", ".join(f"{path.name} {verb} {count} rounds" for path, (verb, count) in counts.items())
            + (f"; put back {', '.join(gone)}, which is gone" if gone else "; put back the one that differs")
        )
    if history.config.opens_moments and history.config.privacy.record_store is None and history.rounds:
        for name in ("checkpoint/release.moments", "moments.json"):
            _need(folder, name, "it was written once, before round 1")
    return history


def _check_ledger(folder: Path, ledger: LedgerReport, federation: str) -> None:
    _need(folder, "ledger.jsonl.head", "it shows that no line of the ledger was cut off")
    if not ledger.complete:  # the key is not needed any more then, and is not passed on with a run
        _need(folder, "ledger.key", "without it nothing can be charged")
        if LedgerKey.load(folder / "ledger.key").public_key.hex() != ledger.public_key:
            raise RunFolderError(f"{folder / 'ledger.key'} did not sign the ledger; put the right one back")
    if ledger.federation != federation:
        raise RunFolderError(
            f"{folder / 'federation.id'} says {federation!r}, but the ledger is of federation "
            f"{ledger.federation!r}; put back the one that is not of this run"
        )


def _need(folder: Path, name: str, why: str) -> None:
    if not (folder / name).exists():
        raise RunFolderError(f"{folder / name} is gone: {why}; put {name} back")


def _records(folder: Path, config: Config) -> list[RoundRecord]:
    records, rounds = read_records(folder), config.federation.rounds
    if len(records) > rounds:
        raise RunFolderError(f"{folder} holds {len(records)} rounds, its configuration asks for {rounds}")
    return records


def _status(folder: Path, planned: int, done: int) -> Status:
    at = f"round {done} of {planned}"
    for name, kind, text in (
        ("FAILED", "failed", f"stopped with an error after {at}"),
        (
            "DONE",
            "done",
            f"finished, {done} round{'' if done == 1 else 's'}" if done == planned else f"ended after {at}",
        ),
    ):
        if (folder / name).exists():
            reason = (folder / name).read_text("utf-8", "replace").strip()
            return Status(kind, text, "" if kind == "done" and done == planned else reason)
    return Status("running", f"unfinished: {at}", "")


def _lower_bounds(folder: Path) -> list[LowerBound]:
    """From the file that `prism-secure audit run` leaves; what else is in it is the audit's own report."""
    path = folder / "audit.json"
    if not path.exists():
        return []
    try:
        return msgspec.convert(from_json_safe(msgspec.json.decode(path.read_bytes())), _Audit).lower_bounds
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError) as error:
        raise RunFolderError(f"{path} is damaged: {error}") from None


def _shown_by(one_run: OneRun | None) -> list[LowerBound]:
    if one_run is None:
        return []
    return [
        LowerBound(
            unit=each.unit,
            view=View.SUM.value,
            adjacency=each.adjacency,
            epsilon=each.epsilon,
            confidence=one_run.confidence,
            method="canaries in one run",
        )
        for each in one_run.found
        if each.epsilon > 0
    ]


def _moments(folder: Path) -> MomentSession | None:
    path = folder / "moments.json"
    if not path.exists():
        return None
    try:
        return _MOMENTS.decode(path.read_bytes())
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError) as error:
        raise RunFolderError(f"{path} is damaged: {error}") from None


def _grids(folder: Path, kind: str) -> list[tuple[int, Path]]:
    grids = []
    for path in (folder / "samples").glob(f"{kind}-*.png"):
        number = path.stem.removeprefix(f"{kind}-")
        if not number.isdecimal():
            raise RunFolderError(f"{path} is not a grid of samples: its name must end in the round's number")
        grids.append((int(number), path))
    return sorted(grids)


def _ledger(folder: Path) -> LedgerReport | None:
    path = folder / "ledger.jsonl"
    if not path.exists():
        return None
    try:
        return verify_ledger(path)
    except LedgerError:
        # The ledger and its head are two files, and the run may have written between the two reads.
        try:
            return verify_ledger(path)
        except LedgerError as error:
            raise RunFolderError(f"{error}") from None
