"""Processes that carry out runs, one after the other; each computes on one thread.

The parent talks to each over a pipe of its own, so a process that is killed in the middle of a word harms no
other. A worker asks its parent after every round whether to go on, and ends by itself when the parent is
gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any

from prism_secure.config import Config
from prism_secure.errors import PrismError, public_text
from prism_secure.rounds.children import on_their_own
from prism_secure.run_folder.records import RoundRecord

__all__ = ["Asked", "Crew", "Died", "Ended", "Event", "Job", "devices"]

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(2**26),
}
"""For glibc: keep what tensors let go for the next ones. To hand memory back and to be given it anew, page by
page, was an eighth of all processor time."""

PATIENCE = 60.0
"""Seconds that a run folder may be held by a process that is about to end."""


@dataclass(frozen=True)
class Job:
    """One run: `prism_secure.rounds.simulation.run` in `folder`."""

    name: str
    config: Config
    folder: Path
    command: str


@dataclass(frozen=True)
class Asked:
    """A round is about to begin, so many are finished; the worker waits for `Crew.answer`."""

    job: Job
    rounds: int
    last: RoundRecord | None


@dataclass(frozen=True)
class Ended:
    """A run is over: finished, or failed for a reason, which is kept; `full` and `trace` are not."""

    job: Job
    reason: str | None
    trace: str = ""
    """The traceback of an error that should not happen."""
    full: str = ""
    """The reason for the console, where it says more."""


@dataclass(frozen=True)
class Died:
    """The process that had this job is gone: killed, or out of memory."""

    job: Job


Event = Asked | Ended | Died


class Crew:
    """So many worker processes; use it as a context manager, which ends them at once.

    Args:
        size: how many.
        devices: CUDA devices that they take in turn; none: as the environment says.
    """

    def __init__(self, size: int, devices: Sequence[str] = ()) -> None:
        self._devices = devices
        self._slots = [_Slot(self._environment(index)) for index in range(size)]

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for slot in self._slots:
            slot.kill()

    @property
    def busy(self) -> list[Job]:
        """What is being done now."""
        return [slot.job for slot in self._slots if slot.job is not None]

    @property
    def idle(self) -> int:
        """How many workers have nothing to do."""
        return len(self._slots) - len(self.busy)

    def give(self, job: Job) -> None:
        """Let an idle worker do it."""
        next(slot for slot in self._slots if slot.job is None).give(job)

    def answer(self, job: Job, reason: str | None) -> None:
        """Let a worker that asked go on, or end its run for a reason."""
        for slot in self._slots:
            if slot.job == job:
                slot.send(reason)

    def wait(self, seconds: float) -> list[Event]:
        """What happened; an empty list if nothing did within so many seconds."""
        signs: dict[Any, _Slot] = {}
        for slot in self._slots:
            if slot.job is not None:
                signs[slot.connection] = signs[slot.process.sentinel] = slot
        ready = {id(slot): slot for slot in map(signs.__getitem__, wait(list(signs), seconds))}
        return [event for slot in ready.values() if (event := slot.event()) is not None]

    def _environment(self, index: int) -> dict[str, str]:
        device = {"CUDA_VISIBLE_DEVICES": self._devices[index % len(self._devices)]} if self._devices else {}
        return {**_ONE_THREAD, **_KEEP_MEMORY, **device}


class _Slot:
    """A worker's place: a process, replaced when it has died, and what it is doing."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self.job: Job | None = None
        self._spawn()

    def _spawn(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,), name="sweep-worker")
        with (
            on_their_own(),
            _environment_of_children(self._environment),
        ):  # from the start: the allocator asks only then
            self.process.start()
        theirs.close()

    def give(self, job: Job) -> None:
        if not self.process.is_alive():
            self.kill()
            self._spawn()
        self.job = job
        self.send(job)

    def send(self, message: Job | str | None) -> None:
        with contextlib.suppress(OSError):  # it died: `event` will tell
            self.connection.send(message)

    def event(self) -> Event | None:
        try:
            if self.connection.poll():
                event: Event = self.connection.recv()
                if isinstance(event, Ended):
                    self.job = None
                return event
        except (EOFError, OSError):
            pass
        else:
            if self.process.is_alive():
                return None
        self.kill()
        job, self.job = self.job, None
        return None if job is None else Died(job)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


@contextlib.contextmanager
def _environment_of_children(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def devices() -> list[str]:
    """CUDA devices that the environment leaves visible, for `Crew`."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [device for device in named.split(",") if device not in ("", "-1")]
    found = Path("/proc/driver/nvidia/gpus")
    return [str(index) for index, _ in enumerate(found.iterdir())] if found.is_dir() else []


def serve(connection: Connection) -> None:
    """The worker's side: jobs in, events out, until the parent ends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    import torch

    from prism_secure.rounds.simulation import run

    torch.set_num_threads(1)
    while True:
        try:
            job: Job = connection.recv()
        except EOFError:
            return

        def ask(records: Sequence[RoundRecord], job: Job = job) -> str | None:
            try:
                connection.send(Asked(job, len(records), records[-1] if records else None))
                answer: str | None = connection.recv()
                return answer
            except (OSError, EOFError):
                os._exit(1)  # the parent is gone: that is no failure of this run

        try:
            _wait_for(job.folder / ".lock")
            run(job.config, job.folder, command=job.command, stop=ask)
            connection.send(Ended(job, None))
        except PrismError as error:
            connection.send(Ended(job, public_text(error), full=str(error)))
        except Exception as error:
            full = f"{type(error).__name__}: {error}"
            connection.send(Ended(job, public_text(error), traceback.format_exc(), full))


def _wait_for(lock: Path) -> None:
    """Let a worker of a sweep that was just killed let go of the run's folder; `run` says it if none does."""
    end = time.monotonic() + PATIENCE
    while lock.exists() and time.monotonic() < end:
        with lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.1)
            else:
                return


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
