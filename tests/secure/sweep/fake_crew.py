"""Workers that train nothing: a run's files appear round by round, and whatever can go wrong is scripted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from prism_privacy import Adjacency, Ledger, LedgerKey, MaskRelease, Spent, View
from prism_secure.config import Config, dump_config
from prism_secure.run_folder.folder import read_records
from prism_secure.run_folder.records import encode
from prism_secure.sweep.worker import Asked, Died, Ended, Event, Job

from .. import fake_run


class Killed(BaseException):
    """kill -9 of the whole sweep: nothing is put in order."""


Script = Callable[[Job, int], str | None]
"""(job, finished rounds) -> None: go on; "fail", "die": the worker; "kill": the whole sweep."""


class FakeCrew:
    """As `prism_secure.sweep.worker.Crew`, in this process; counts the rounds that each run computes."""

    def __init__(self, size: int, script: Script | None = None) -> None:
        self.size, self.script = size, script or (lambda job, rounds: None)
        self.busy: list[Job] = []
        self.computed: Counter[tuple[str, int]] = Counter()
        self.given: list[str] = []
        self._reasons: dict[str, str | None] = {}
        self._asked: set[str] = set()

    @property
    def idle(self) -> int:
        return self.size - len(self.busy)

    def give(self, job: Job) -> None:
        assert self.idle > 0
        assert all(job.folder != other.folder for other in self.busy), "two workers in one run folder"
        self.busy.append(job)
        self.given.append(job.name)
        start(job)

    def answer(self, job: Job, reason: str | None) -> None:
        self._reasons[job.name] = reason

    def wait(self, seconds: float) -> list[Event]:
        return [event for job in list(self.busy) if (event := self._step(job)) is not None]

    def _step(self, job: Job) -> Event | None:
        records = read_records(job.folder)
        if job.name not in self._reasons:  # a round is about to begin, or the end
            fault = self.script(job, len(records))
            if fault == "kill":
                raise Killed
            if fault is not None:
                self._leave(job)
                return Died(job) if fault == "die" else Ended(job, f"scripted after round {len(records)}")
            if len(records) < job.config.federation.rounds and not (job.folder / "DONE").exists():
                return Asked(job, len(records), records[-1] if records else None)
            finish(job, "")
            self._leave(job)
            return Ended(job, None)
        reason = self._reasons.pop(job.name)
        if reason is not None:
            finish(job, reason)
            self._leave(job)
            return Ended(job, None)
        self.computed[job.name, len(records) + 1] += 1
        compute(job, len(records) + 1)
        return None

    def _leave(self, job: Job) -> None:
        self.busy.remove(job)
        self._reasons.pop(job.name, None)


def start(job: Job) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / "config.toml").write_text(dump_config(job.config))


def compute(job: Job, number: int) -> None:
    """One round: its ledger, then its record."""
    write_ledger(job.folder, job.config, number)
    with (job.folder / "metrics.jsonl").open("ab") as file:
        file.write(encode(fake_run.record_of(job.config, number)) + b"\n")


def finish(job: Job, reason: str) -> None:
    rounds = f"{len(read_records(job.folder))} of {job.config.federation.rounds} rounds"
    (job.folder / "DONE").write_text(f"{rounds}{reason and f': {reason}'}\n")
    (job.folder / "report.html").write_text("page")


def write_ledger(folder: Path, config: Config, rounds: int) -> None:
    """Charged rounds, with the epsilons of `fake_run`."""
    for name in ("ledger.jsonl", "ledger.jsonl.head"):
        (folder / name).unlink(missing_ok=True)
    release = MaskRelease(config.privacy.flip, config.privacy.clip, cohort=config.cohort, dim=100)
    with Ledger.create(
        folder / "ledger.jsonl", LedgerKey(), federation="f" * 32, clients=config.federation.clients
    ) as ledger:
        for number in range(1, rounds + 1):
            cells = {}
            for view in View:
                for adjacency in Adjacency:
                    to_date, planned = (
                        fake_run.epsilon_after(config, count, view, adjacency)
                        for count in (number, config.federation.rounds)
                    )
                    cells[view, adjacency] = Spent(to_date / number, to_date, planned=planned)
            ledger.append(round=number, release=release, delta=config.privacy.delta, epsilon=cells)
