"""Hands runs to workers until every point is done.

One process of each machine talks to the study, and so SQLite has one writer; its workers know run folders
only. Whatever is killed, nothing is kept here that the folder and the study do not hold: the next sweep takes
the same points, and their runs continue from their checkpoints.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections import deque
from dataclasses import dataclass, field

import msgspec

from prism_secure.errors import PrismError
from prism_secure.run_folder.run import Run
from prism_secure.sweep.display import Display
from prism_secure.sweep.folder import SweepFolder
from prism_secure.sweep.recipe import Settings, SweepRecipe, describe, point_id
from prism_secure.sweep.results import RUNS, sweep_run
from prism_secure.sweep.stopping import Curve, dominated
from prism_secure.sweep.study import BEAT, Claim, PointStudy
from prism_secure.sweep.worker import Asked, Crew, Died, Ended, Job

__all__ = ["Engine", "FailedFast"]

DEATHS = 5
"""So often a worker may die in a row without finishing a round of a run before the run has failed."""


class FailedFast(PrismError):
    """A run failed in a sweep that was told to end then."""

    exit_code = 6


@dataclass
class _Task:
    """One run of a claimed point."""

    claim: Claim
    run: Run
    failures: int = 0
    deaths: int = 0
    rounds: int = 0


@dataclass
class _Open:
    """A claimed point: how many of its runs are still to end, and why some failed."""

    left: int
    reasons: list[str] = field(default_factory=list)


class Engine:
    """One machine's part of a sweep.

    Args:
        recipe, folder, study, crew, display: what, where, and with what.
        command: for the runs' own reports.
        fail_fast: end at the first failure, without a second attempt.
    """

    def __init__(
        self,
        recipe: SweepRecipe,
        folder: SweepFolder,
        study: PointStudy,
        crew: Crew,
        display: Display,
        *,
        command: str,
        fail_fast: bool = False,
    ) -> None:
        self._recipe, self._folder, self._study = recipe, folder, study
        self._crew, self._display = crew, display
        self._command, self._fail_fast = command, fail_fast
        self._pending: deque[_Task] = deque()
        self._working: dict[str, _Task] = {}
        self._open: dict[int, _Open] = {}
        self._curves: dict[str, Curve] = {}
        self._failed = 0
        self._next_beat = 0.0

    def sweep(self) -> int:
        """Run until no point is left; how many points failed.

        Raises:
            FailedFast: a run failed, and that was to end the sweep.
        """
        for settings in self._study.recover(self._is_there):
            self._display.lost(settings)
        try:
            while True:
                self._assign()
                if not self._working and not self._open:
                    self._study.reap()
                    if not self._study.waiting() and not self._study.elsewhere():
                        return self._failed
                self._handle_events()
                self._beat()
        except BaseException:
            with contextlib.suppress(Exception):  # as after a kill, the next start does it otherwise
                self._study.release(self._open)
            raise

    def _assign(self) -> None:
        while self._crew.idle:
            if not self._pending and not self._claim():
                return
            if self._pending:
                self._start(self._pending.popleft())

    def _claim(self) -> bool:
        claim = self._study.claim()
        if claim is None:
            return False
        if claim.refused:
            self._folder.refused(claim.settings, claim.refused)
            self._display.refused(claim.settings, claim.refused)
            self._study.fail(claim, claim.refused)
            self._failed += 1
            return True
        self._folder.begin(claim.settings)
        runs = self._runs(claim.settings)
        self._open[claim.number] = _Open(len(runs))
        for run in runs:
            if _is_whole(run):
                self._display.found(claim.settings, run)
                self._end(_Task(claim, run))
            else:
                self._pending.append(_Task(claim, run))
        return True

    def _start(self, task: _Task) -> None:
        config = task.run.config
        federation = msgspec.structs.replace(config.federation, workers=1)  # the worker itself
        config = msgspec.structs.replace(config, federation=federation)
        self._working[task.run.name] = task
        self._display.started(task.claim.settings, task.run)
        self._crew.give(Job(task.run.name, config, task.run.folder, self._command))

    def _handle_events(self) -> None:
        if not self._working:
            time.sleep(1.0)  # other machines have the rest
        for event in self._crew.wait(1.0):
            task = self._working[event.job.name]
            if isinstance(event, Asked):
                self._crew.answer(event.job, self._reason_to_stop(task, event))
                continue
            del self._working[task.run.name]
            if isinstance(event, Died):
                self._died(task)
            else:
                self._ended(task, event)

    def _reason_to_stop(self, task: _Task, event: Asked) -> str | None:
        if event.rounds > task.rounds:
            task.rounds, task.deaths = event.rounds, 0
        record = event.last
        self._display.round(task.run, event.rounds, record)
        if record is None:
            return None
        if self._recipe.until and (reason := self._recipe.until.reached([record])):
            return reason
        if self._recipe.sweep.pruning == "dominated" and record.quality is not None:
            run = Run(task.run.name, task.run.folder, task.run.config)
            return dominated(self._curve(run), self._finished_curves(), self._recipe.sweep.margin)
        return None

    def _died(self, task: _Task) -> None:
        task.deaths += 1
        if task.deaths >= DEATHS:
            reason = (
                f"its process died {DEATHS} times before round {task.rounds + 1}: killed, or out of memory"
            )
            self._folder.failed(task.claim.settings, task.run.name, reason)
            self._display.failed(task.claim.settings, task.run, reason, again=False)
            self._end(task, reason)
            return
        self._display.died(task.claim.settings, task.run)
        self._pending.appendleft(task)

    def _ended(self, task: _Task, event: Ended) -> None:
        if event.reason is None:
            self._folder.succeeded(task.claim.settings, task.run.name)
            task.run = Run(task.run.name, task.run.folder, task.run.config)
            self._display.finished(task.claim.settings, task.run)
            self._end(task)
            return
        task.failures += 1
        again = task.failures < 2 and not self._fail_fast
        self._folder.failed(task.claim.settings, task.run.name, event.reason)
        full = event.full or event.reason
        self._display.failed(task.claim.settings, task.run, full, again=again, trace=event.trace)
        if again:
            self._pending.appendleft(task)
            return
        self._end(task, event.reason)
        if self._fail_fast:
            raise FailedFast(f"stopped at the first failure: {full}; the same command continues")

    def _end(self, task: _Task, reason: str | None = None) -> None:
        """A run of a point is over; the point is, with its last run."""
        number = task.claim.number
        point = self._open[number]
        point.left -= 1
        if reason is not None:
            point.reasons.append(reason)
        if point.left:
            return
        del self._open[number]
        values = [] if point.reasons else self._values(task.claim.settings)
        if not point.reasons and any(map(math.isnan, values)):
            unmeasured = [
                name for name, value in zip(self._recipe.objectives, values, strict=True) if math.isnan(value)
            ]
            point.reasons.append(f"{', '.join(unmeasured)} was not measured")
        if point.reasons:
            self._failed += 1
            self._study.fail(task.claim, "; ".join(point.reasons))
        else:
            self._study.finish(task.claim, values)

    def _values(self, settings: Settings) -> list[float]:
        """A point's objectives: means over its seeds."""
        runs = self._runs(settings)
        return [statistics.fmean(run.objective(name) for run in runs) for name in self._recipe.objectives]

    def _runs(self, settings: Settings) -> list[Run]:
        """A point's runs, one for each seed."""
        path, recipe = self._folder.path, self._recipe
        return [sweep_run(path, recipe.config(settings, seed)) for seed in recipe.seeds]

    def _is_there(self, settings: Settings) -> bool:
        """Whether the folder has all results of a point."""
        return all(map(_is_whole, self._runs(settings)))

    def _finished_curves(self) -> list[Curve]:
        """Of all finished runs in the folder, other machines' included."""
        for path in (self._folder.path / RUNS).iterdir():
            if path.name not in self._curves and (path / "DONE").exists():
                self._curves[path.name] = self._curve(Run.open(path))
        return list(self._curves.values())

    def _curve(self, run: Run) -> Curve:
        found = {
            name: getattr(getattr(run.config, name.split(".")[0]), name.split(".")[1])
            for name in self._recipe.axes
        }
        epsilon = next((name for name in self._recipe.objectives if name.startswith("epsilon.")), None)
        settings: Settings = dict(msgspec.to_builtins(found))
        return Curve(
            point=point_id(settings),
            name=describe(settings),
            epsilon=run.objective(epsilon or "epsilon.sum_zero_out"),
            rounds=run.config.federation.rounds,
            fid={record.round: record.quality.fid for record in run.records if record.quality},
        )

    def _beat(self) -> None:
        if time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + BEAT
            self._study.beat(self._open)
            self._study.reap()
            if elsewhere := self._study.elsewhere():
                self._display.elsewhere(self._study.finished(), elsewhere)


def _is_whole(run: Run) -> bool:
    """Whether a run has its result and its page."""
    return run.finished and (run.folder / "report.html").exists()
