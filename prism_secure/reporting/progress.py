"""What one sees while a run goes on: a line a round, and a bar with the time that is left."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as EtaColumn

from prism_secure.run_folder.records import Quality, RoundRecord
from prism_secure.wording import CLIENT_UNIT, format_epsilon, record_unit

AS_BEFORE = "the deployed mask is as before"
"""Of a round that changed no bit of it."""


def header(record: str) -> str:
    """The table's head, where a record is an "image" or a "person"."""
    figures, epsilons = "recall  coverage     FID", f"   ε(SUM)  ε(UPLOAD){f'ε({record})':>10}"
    return f"  round   {figures}  {epsilons}  bits/param  seconds"


def units(record: str, growing: bool) -> str:
    """What each epsilon of the table protects; `growing`: a record's grows by the round, too."""
    over = "to date, as SUM/UPLOAD" if growing else "all rounds together"
    return f"ε(SUM), ε(UPLOAD): {CLIENT_UNIT}, to date; ε({record}): {record_unit(record)}, {over}"


class Listener(Protocol):
    """Told what happens in a run; see `Display` for one."""

    def started(self, rounds: int, finished: int, work: int) -> None:
        """`finished` of `rounds` rounds were done before; a round is `work` pieces of work."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def worked(self) -> None:
        """One piece of work of the current round is done."""

    def round_finished(self, record: RoundRecord) -> None:
        """A round is complete with its metrics, if any were due, and safely on disk. By then the next one may
        have begun."""


class Silent:
    """A listener that says nothing."""

    def started(self, rounds: int, finished: int, work: int) -> None: ...

    def note(self, text: str) -> None: ...

    def worked(self) -> None: ...

    def round_finished(self, record: RoundRecord) -> None: ...


class Display:
    """A listener that draws with rich; without a terminal it prints the lines alone.

    Args:
        console: where to; None: standard output.
        record: what a record is: an "image" or a "person".
    """

    def __init__(self, console: Console | None = None, record: str = "image") -> None:
        self._record = record
        self._console = console or Console(highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            EtaColumn(elapsed_when_finished=True),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._rounds = 0
        self._head_due = False

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def started(self, rounds: int, finished: int, work: int) -> None:
        self._rounds = rounds
        self._task = self._progress.add_task("training", total=(rounds - finished) * work)
        if finished:
            self.note(f"continuing after round {finished} of {rounds}")
        self._head_due = True  # the work before round 1 has notes of its own

    def note(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False, emoji=False)  # a file may be called [x].png

    def worked(self) -> None:
        if self._task is not None:
            self._progress.advance(self._task)

    def round_finished(self, record: RoundRecord) -> None:
        if self._head_due:
            growing = record.record is not None and record.record.upload is not None
            self.note(units(self._record, growing))
            self._console.print(f"[bold]{header(self._record)}[/bold]", soft_wrap=True)
            self._head_due = False
        self.note(describe_round(record, self._rounds))
        if record.quality is not None and record.quality.gen2real is not None:
            self.note(describe_utility(record.quality))


def describe_utility(quality: Quality) -> str:
    """One line on what the images are good for.

    >>> found = Quality(fid=9, kid=1, precision=1, recall=0.41, density=1, coverage=0.5, gen2real=0.736)
    >>> describe_utility(found)
    'gen2real 73.6%: accuracy on real images of a classifier trained on generated ones; recall 0.41'
    """
    real = quality.gen2real_ceiling
    ceiling = "" if real is None else f" ({real:.1%} with as many real ones)"
    return (
        f"gen2real {quality.gen2real:.1%}: accuracy on real images of a classifier trained on generated ones"
        f"{ceiling}; recall {quality.recall:.2f}"
    )


def describe_round(record: RoundRecord, rounds: int) -> str:
    """One line: round, recall, coverage, FID, the client's epsilon to date in both views (ZERO_OUT), an
    image's, bits per parameter, seconds; and whether it left the deployed mask as it was."""
    quality = record.quality
    figures = f"{'–':>6}  {'–':>8}  {'–':>6}"
    if quality:
        figures = f"{quality.recall:6.3f}  {quality.coverage:8.3f}  {quality.fid:6.1f}"
    seen_sum, seen_upload = record.epsilon.sum_zero_out, record.epsilon.upload_zero_out
    image = format_epsilon(record.record.epsilon) if record.record else "–"
    if record.record is not None and record.record.upload is not None:
        image += f"/{format_epsilon(record.record.upload)}"
    epsilons = f"{format_epsilon(seen_sum):>9}  {format_epsilon(seen_upload):>9}  {image:>8}"
    return (
        f"{record.round:>3}/{rounds:<3}   {figures}  {epsilons}  "
        f"{record.bits_per_parameter:>10.3f}  {record.seconds:>7.1f}"
        + (f"  {AS_BEFORE}" if record.changed == 0 else "")
    )
