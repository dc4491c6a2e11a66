"""What one sees while a sweep goes on: a live table in a terminal, one line an event anywhere else."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from prism_secure.run_folder.records import RoundRecord
from prism_secure.run_folder.run import Run
from prism_secure.sweep.recipe import Settings, describe
from prism_secure.wording import format_epsilon, format_seconds

__all__ = ["Display"]

RECENT = 6
"""Finished runs that the table keeps."""


class _Row:
    """One run that goes on."""

    def __init__(self, point: str, run: Run) -> None:
        self.point, self.run = point, run
        self.rounds = len(run.records)
        self.records = list(run.records)
        self.began = time.monotonic()

    def left(self) -> float | None:
        """Seconds to go, as its rounds were so far."""
        if not self.records:
            return None
        mean = sum(record.seconds for record in self.records) / len(self.records)
        return mean * (self.run.config.federation.rounds - self.rounds)


class Display:
    """Use it as a context manager.

    Args:
        total: how many runs the sweep has.
        workers: how many go on at once, for the time that is left.
        console: where to draw.
        record: what a record is in the runs, an "image" or a "person".
    """

    def __init__(
        self, total: int, workers: int, console: Console | None = None, *, record: str = "image"
    ) -> None:
        self._record = record
        self._console = console or Console(highlight=False)
        self._total, self._workers = total, workers
        self._rows: dict[str, _Row] = {}
        self._recent: deque[tuple[str, Run]] = deque(maxlen=RECENT)
        self._failures: list[tuple[str, str, str]] = []
        self._done = self._found = 0
        self._seconds: list[float] = []
        self._elsewhere = ""
        self._live = Live(
            console=self._console, get_renderable=self._table, refresh_per_second=2, transient=False
        )

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def note(self, text: str) -> None:
        """Something worth a line."""
        self._console.print(Text(text), soft_wrap=True)

    def found(self, settings: Settings, run: Run) -> None:
        """A run was finished before."""
        self._done += 1
        self._found += 1

    def lost(self, settings: Settings) -> None:
        """A point was finished before, and its results are gone."""
        self.note(
            f"lost      {describe(settings)}: run folders are gone, and are made again; what the lost "
            "ones had spent was spent, too"
        )

    def started(self, settings: Settings, run: Run) -> None:
        """A run begins or continues."""
        row = self._rows[run.name] = _Row(_name(settings, run), run)
        if row.rounds:
            self._line("continue", row.point, f"after round {row.rounds} of {run.config.federation.rounds}")
        else:
            self._line("begin", row.point, f"runs/{run.name}")

    def round(self, run: Run, rounds: int, record: RoundRecord | None) -> None:
        """A run is about to begin another round, or its end; the last finished one is told."""
        row = self._rows[run.name]
        row.rounds = rounds
        if record is not None and (not row.records or row.records[-1].round != record.round):
            row.records.append(record)

    def finished(self, settings: Settings, run: Run) -> None:
        """A run has its result."""
        row = self._rows.pop(run.name)
        self._done += 1
        self._seconds.append(time.monotonic() - row.began)
        self._recent.append((row.point, run))
        self._failures = [failure for failure in self._failures if failure[0] != row.point]
        word = "stopped" if run.state == "stopped" else "done"
        self._line(word, row.point, " ".join(filter(None, [_result(run), run.reason])))

    def failed(self, settings: Settings, run: Run, reason: str, *, again: bool, trace: str = "") -> None:
        """An attempt failed."""
        self._rows.pop(run.name, None)
        name = _name(settings, run)
        self._failures = [failure for failure in self._failures if failure[0] != name]
        self._failures.append((name, reason, "tried again" if again else "given up"))
        if trace:
            self._console.print(Text(trace, style="dim"))
        self._console.print(
            f"[red bold]failed[/]    {escape(name)}: {escape(reason)}"
            + (" [dim](one more attempt)[/]" if again else ""),
            soft_wrap=True,
        )

    def died(self, settings: Settings, run: Run) -> None:
        """A worker process is gone."""
        self._rows.pop(run.name, None)
        self._line("killed", _name(settings, run), "its process is gone; another continues")

    def refused(self, settings: Settings, reason: str) -> None:
        """A point that a search proposed cannot be run."""
        self._failures.append((describe(settings), reason, "given up"))
        self._console.print(f"[red bold]refused[/]   {escape(reason)}", soft_wrap=True)

    def elsewhere(self, finished: int, taken: int) -> None:
        """What the storage says of all machines together."""
        self._elsewhere = f"all machines: {finished} points finished, {taken} taken by others"

    def _line(self, event: str, name: str, rest: str) -> None:
        if not self._console.is_terminal:
            text = Text(f"{event:<9} {name}  {rest}")
            if event in ("done", "stopped"):
                text.append(f"  [{self._progress()}]")
            self._console.print(text, soft_wrap=True)

    def _progress(self) -> str:
        left = self._left()
        words = [f"{self._done} of {self._total} runs"]
        if given_up := sum(state == "given up" for _, _, state in self._failures):
            words.append(f"{given_up} failed")
        if left is not None and left >= 1 and self._done < self._total:
            words.append(f"about {format_seconds(left)} left")
        return ", ".join(words)

    def _left(self) -> float | None:
        """Seconds until the end, from how long runs took so far."""
        if self._seconds:
            mean = sum(self._seconds) / len(self._seconds)
        else:
            times = [
                record.seconds * row.run.config.federation.rounds
                for row in self._rows.values()
                for record in row.records[-1:]
            ]
            if not times:
                return None
            mean = sum(times) / len(times)
        going = sum(min(mean, time.monotonic() - row.began) for row in self._rows.values())
        return max(0.0, mean * (self._total - self._done) - going) / self._workers

    def _table(self) -> RenderableType:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("point", overflow="fold")
        for name in ("round", "FID", "ε(SUM)", "ε(UPLOAD)", f"ε({self._record})"):
            table.add_column(name, justify="right")
        table.add_column("")
        for point, run in self._recent:
            last = run.records[-1] if run.records else None
            state = "done" if run.state == "done" else run.reason or "stopped"
            table.add_row(Text(point), *_cells(run, len(run.records), last), Text(state), style="dim")
        for row in self._rows.values():
            left = row.left()
            eta = "" if left is None else f"{format_seconds(left)} left"
            last = row.records[-1] if row.records else None
            table.add_row(Text(row.point), *_cells(row.run, row.rounds, last), Text(eta))
        for point, reason, state in self._failures:
            table.add_row(Text(point), "", "", "", "", "", Text(f"failed, {state}: {reason}"), style="red")
        parts: list[RenderableType] = [table, Text(self._progress(), style="bold")]
        if self._elsewhere:
            parts.append(Text(self._elsewhere))
        return Group(*parts)


def _name(settings: Settings, run: Run) -> str:
    return f"{describe(settings)} seed={run.seed}"


def _cells(run: Run, rounds: int, record: RoundRecord | None) -> tuple[str, str, str, str, str]:
    progress = f"{rounds}/{run.config.federation.rounds}"
    if record is None:
        return progress, "–", "–", "–", "–"
    fid = f"{record.quality.fid:.1f}" if record.quality else "–"
    epsilon = record.epsilon
    image = "–" if record.record is None else format_epsilon(record.record.epsilon)
    return progress, fid, format_epsilon(epsilon.sum_zero_out), format_epsilon(epsilon.upload_zero_out), image


def _result(run: Run) -> str:
    last = run.records[-1] if run.records else None
    if last is not None and run.planned is not None:
        # Its guarantee: also of a run that ended early.
        last = msgspec.structs.replace(last, epsilon=run.planned)
    rounds, fid, *epsilons = _cells(run, len(run.records), last)
    words = [
        f"ε({name}) {value}"
        for name, value in zip(("SUM", "UPLOAD", run.config.record), epsilons, strict=True)
    ]
    return "  ".join([f"round {rounds}", f"FID {fid}", *(word for word in words if "–" not in word)])
