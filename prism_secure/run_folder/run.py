"""One run, read from its folder: what `prism_secure.run` gives, and what a sweep is made of."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from prism_privacy import notebook
from prism_privacy.errors import InvalidParameter
from prism_privacy.ledger.entry import LedgerEntry, RecordGuarantee, Spent
from prism_privacy.ledger.line import decode_line, parse
from prism_privacy.moments.release import MomentRelease
from prism_privacy.units import Adjacency, Unit, View
from prism_secure.accounting import measured
from prism_secure.accounting.epsilons import CELLS, Epsilons
from prism_secure.accounting.plan import Unbounded, why_infinite
from prism_secure.accounting.record_release import ImageView, image_view
from prism_secure.config import Config
from prism_secure.errors import NotClaimed, RunFolderError
from prism_secure.run_folder.folder import read_config, read_records
from prism_secure.run_folder.history import RunHistory, read_history
from prism_secure.run_folder.records import Quality, RoundRecord
from prism_secure.run_folder.tables import ROUND_COLUMNS, Table, round_rows
from prism_secure.storage import whole_lines
from prism_secure.wording import format_epsilon

if TYPE_CHECKING:
    import pyarrow
    from PIL import Image

__all__ = ["Run", "State"]

State = Literal["waiting", "unfinished", "done", "stopped", "failed"]
"""waiting: not begun. unfinished: going on, or interrupted. stopped: finished before its last planned round,
for `Run.reason`. failed: for `Run.reason`, and to be tried again when the sweep is started again."""

_SWAPPED = {"swap": Adjacency.REPLACE_ONE.value}
"""What the ledger calls one image replaced by any other is what is called so of a client here."""


@dataclass(frozen=True)
class Run(os.PathLike[str]):
    """One run, by itself or in a sweep. As a path it is its report: `open(run)`, `Path(run)`.

    What is read of it is kept, and shows the folder as it was then: `Run.open` again for a run that goes on.

    Attributes:
        name: its id in a sweep, else its folder's name.
        folder: its run folder, which may not exist yet.
        config: what it does.
        failures: why attempts of it failed, oldest first.
    """

    name: str
    folder: Path
    config: Config = field(repr=False)
    failures: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Run:
        """A run folder, finished or not, as `prism_secure.run` or `prism-secure run` left it.

        Raises:
            RunFolderError: it is none.
        """
        path = Path(folder)
        return cls(path.resolve().name, path, read_config(path))

    @property
    def report(self) -> Path:
        """Its page; written when the run ends, and by `prism-secure report`."""
        return self.folder / "report.html"

    def __fspath__(self) -> str:
        return str(self.report)

    @property
    def metrics(self) -> pyarrow.Table:
        """One row a finished round: quality, bytes, seconds, and every epsilon to date.

        Pandas and polars take it as it is: `run.metrics.to_pandas()`, `polars.from_arrow(run.metrics)`. What
        was not measured is null; an epsilon without a bound is inf. Bytes are those of all clients together.
        The columns are `prism_secure.run_folder.tables.ROUND_COLUMNS`.

        Raises:
            ConfigError: pyarrow is not installed (the extra `parquet`).
        """
        return Table("rounds", ROUND_COLUMNS, list(round_rows(self.records))).arrow()

    def epsilon(self, unit: str, view: str, adjacency: str) -> float:
        """What the run guarantees by its ledger, all of which is checked: the planned epsilon, at its delta.

        Args:
            unit: "client"; "image", or "person" where that is what a record is.
            view: "sum", an observer of the opened sums, or "upload", one of a client's uploads in the clear.
            adjacency: "zero_out" (left out) or "replace_one" (replaced by any other).

        Returns:
            inf where the ledger charged it and there is no bound.

        Raises:
            NotClaimed: the ledger says nothing of it; the message lists what it does say.
            RunFolderError: the ledger is not there or damaged.
        """
        asked = (str(unit), str(view), str(adjacency))
        if asked in self.epsilons:
            return self.epsilons[asked]
        there = ", ".join(f"({', '.join(claim)})" for claim in self.epsilons)
        raise NotClaimed(
            f"{self.folder}: its ledger claims no epsilon for ({', '.join(asked)}); "
            + (f"it does for {there}" if there else "it has charged nothing yet")
        )

    @cached_property
    def epsilons(self) -> Mapping[tuple[str, str, str], float]:
        """All that `epsilon` knows, by unit, view and adjacency; empty before anything was charged.

        Raises:
            RunFolderError: the ledger is not there or damaged.
        """
        history = self.history()
        if history.ledger is None or not history.ledger.entries:
            return {}
        last = history.ledger.entries[-1]
        found = {
            (Unit.CLIENT.value, view.value, adjacency.value): math.inf
            if history.test_coins
            else _guaranteed(last.spent(view, adjacency))
            for view in reversed(View)
            for adjacency in Adjacency
        }
        record = history.record_guarantee
        if record is None:
            return found
        adjacency = _SWAPPED.get(record.adjacency, record.adjacency)
        for view in reversed(View):
            if record.spent is not None:
                epsilon = _guaranteed(record.spent[view])
            elif view is View.UPLOAD and (record.view is View.SUM or self.config.opens_moments):
                continue  # it counts on other clients' noise
            else:
                epsilon = record.epsilon
            key = (history.ledger.one_record, view.value, adjacency)
            found[key] = math.inf if history.test_coins else epsilon
        return found

    @property
    def samples(self) -> Image.Image:
        """The newest grid of generated images, a row for each class.

        Raises:
            RunFolderError: there is none yet.
        """
        from PIL import Image

        grids = self.history().samples
        if not grids:
            raise RunFolderError(f"{self.folder} has no samples yet: no round was evaluated")
        with Image.open(grids[-1][1]) as image:
            image.load()
            return image

    def _repr_html_(self) -> str:
        """For notebooks: how it stands, its last metrics, and what its ledger guarantees."""
        rows: list[Sequence[object]] = [
            ("state", self.state + (f": {self.reason}" if self.reason else "")),
            ("rounds", f"{len(self.records)} of {self.config.federation.rounds}"),
        ]
        for name in ("fid", "recall", "gen2real"):
            if not math.isnan(value := self.objective(name)):
                rows.append((name.replace("fid", "FID") + self.measured_in, f"{value:.4g}"))
        if self.folder.exists():
            rows += [
                (f"ε({', '.join(claim)})", format_epsilon(value)) for claim, value in self.epsilons.items()
            ]
        return notebook.table(f"run {self.name}", rows)

    @property
    def seed(self) -> int:
        return self.config.federation.seed

    @cached_property
    def state(self) -> State:
        """How it stands."""
        if (self.folder / "DONE").exists():
            return "stopped" if ": " in self._done else "done"
        if self.failures or (self.folder / "FAILED").exists():
            return "failed"
        return "unfinished" if self.folder.exists() else "waiting"

    @cached_property
    def reason(self) -> str:
        """Why it failed or stopped; "" otherwise."""
        if self.state == "stopped":
            return self._done.partition(": ")[2]
        if self.state == "failed":
            own = self.folder / "FAILED"
            return self.failures[-1] if self.failures else own.read_text("utf-8", "replace").strip()
        return ""

    @cached_property
    def _done(self) -> str:
        return (self.folder / "DONE").read_text("utf-8", "replace").strip()

    @property
    def finished(self) -> bool:
        """Whether it has its result."""
        return self.state in ("done", "stopped")

    @cached_property
    def records(self) -> list[RoundRecord]:
        """Finished rounds, from 1 on; where test coins were used, every epsilon is infinite."""
        records = read_records(self.folder) if self.folder.exists() else []
        if self.charged is None or self.charged.epsilon is not None:
            return records
        nothing = Epsilons.of(dict.fromkeys(CELLS, math.inf))
        return [msgspec.structs.replace(record, epsilon=nothing) for record in records]

    @cached_property
    def last_evaluated(self) -> RoundRecord | None:
        """The last evaluated round."""
        return next((record for record in reversed(self.records) if record.quality), None)

    @property
    def quality(self) -> Quality | None:
        """The metrics of the last evaluated round."""
        return self.last_evaluated.quality if self.last_evaluated else None

    @property
    def measured_in(self) -> str:
        """Which round its metrics are of, " (round 6)", where it is not the last one of a finished run."""
        last = self.last_evaluated
        if last is None or (self.finished and last.round == len(self.records)):
            return ""
        return f" (round {last.round})"

    @cached_property
    def charged(self) -> LedgerEntry | None:
        """The ledger's last line, its signature checked, the chain before it not: `history()` does that.

        Raises:
            RunFolderError: damaged.
        """
        path = self.folder / "ledger.jsonl"
        lines = whole_lines(path)
        if len(lines) < 2:
            return None
        try:
            key = bytes.fromhex(parse(lines[0])["body"]["public_key"])
            return LedgerEntry.from_line(decode_line(lines[-1], key))
        except (InvalidParameter, KeyError, TypeError, ValueError) as error:
            raise RunFolderError(f"{path}: {error}") from None

    @property
    def charged_rounds(self) -> int:
        """Rounds that the ledger has charged; one more than finished while a round goes on."""
        return 0 if self.charged is None else self.charged.round

    @property
    def planned_rounds(self) -> int:
        """Rounds that its epsilon speaks of: all of a finished run; before that at most so many."""
        return self.charged_rounds if self.state == "done" else self.config.federation.rounds

    @cached_property
    def planned(self) -> Epsilons | None:
        """One client's planned epsilon by view and adjacency: the run's guarantee, also when it ended early.

        None before the first charge.
        """
        entry = self.charged
        return (
            None if entry is None else Epsilons.of({cell: _guaranteed(entry.spent(*cell)) for cell in CELLS})
        )

    @cached_property
    def spent(self) -> Epsilons | None:
        """One client's epsilon to date by view and adjacency, the round that goes on included.

        None before the first charge.
        """
        entry = self.charged
        return None if entry is None else Epsilons.of({cell: entry.spent(*cell).to_date for cell in CELLS})

    @property
    def unbounded(self) -> tuple[Unbounded, ...]:
        """Each of its epsilons that is infinite, with its cause and what would make it finite."""
        entry = self.charged
        if entry is None or entry.epsilon is None:
            return ()
        dimension = entry.release.get("dim")
        return why_infinite(self.config, dimension if isinstance(dimension, int) else None, self._images)

    @cached_property
    def _images(self) -> int | None:
        """The most that a client has, as the ledger's first line says."""
        images = parse(whole_lines(self.folder / "ledger.jsonl")[0])["body"].get("records")
        return images if isinstance(images, int) else None

    @property
    def record(self) -> RecordGuarantee | None:
        """The record-level guarantee, if one is claimed."""
        return None if self.charged is None else self.charged.record

    @cached_property
    def image_view(self) -> ImageView | None:
        """Whom one image is protected from; None where nothing is claimed for it."""
        record = self.record
        if record is None:
            return None
        if record.spent is not None:
            seen = record.spent[View.UPLOAD]
            return measured.image_view(self.config, seen.to_date if seen.planned is None else seen.planned)
        shares = record.cohort
        if record.view is None and self.config.opens_moments:  # of a ledger that did not say
            shares = self.config.record_cohort
        return image_view(self.config, MomentRelease(**record.release), shares)  # type: ignore[arg-type]

    @property
    def seconds(self) -> float:
        """Of all finished rounds together."""
        return sum(record.seconds for record in self.records)

    def objective(self, name: str) -> float:
        """A value by the names of `prism_secure.sweep.objectives`; NaN where it was not measured."""
        if name == "epsilon.record":
            return (
                math.nan if self.charged is None else math.inf if self.record is None else self.record.epsilon
            )
        if name.startswith("epsilon."):
            return math.nan if self.planned is None else getattr(self.planned, name.partition(".")[2])
        if name == "seconds":
            return self.seconds
        if name in ("bits_per_parameter", "uplink_bytes"):
            values = [getattr(record, name) for record in self.records]
            return (max(values) if name == "bits_per_parameter" else sum(values)) if values else math.nan
        value = None if self.quality is None else getattr(self.quality, name)
        return math.nan if value is None else float(value)

    def history(self) -> RunHistory:
        """Everything that the folder shows, the whole ledger checked.

        Raises:
            RunFolderError: there is no such run yet, or a file is damaged.
        """
        return read_history(self.folder)


def _guaranteed(cost: Spent) -> float:
    """What a plan guarantees, also of a run that ended early; without a plan, what was spent."""
    return cost.to_date if cost.planned is None else cost.planned
