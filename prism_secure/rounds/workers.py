"""Processes that train clients and measure masks side by side.

Every worker computes on one thread, so a client's bits do not depend on how many workers there are. A
worker ends by itself when the process that started it is gone, however that happened.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from prism_secure.config import Config
from prism_secure.errors import RoundError
from prism_secure.quality.metrics import RealFeatures
from prism_secure.rounds.behaviours.choice import behaviour_of
from prism_secure.rounds.broadcast import Broadcast
from prism_secure.rounds.children import on_their_own
from prism_secure.rounds.client import Client
from prism_secure.rounds.components import Components
from prism_secure.rounds.evaluation import Evaluation
from prism_secure.rounds.threads import one_thread, wait_together
from prism_secure.run_folder.folder import client_folder
from prism_secure.run_folder.records import Quality


class Workers:
    """A pool for one run; use it as a context manager. A single worker is this process itself.

    Args:
        components: the run's; a single worker uses what they have built.
        folder: the run folder, whose `clients/NN` the clients use.
    """

    def __init__(self, components: Components, folder: Path) -> None:
        config = components.config
        count = min(config.federation.workers, config.federation.clients)
        self._config = config
        # Training takes seconds a client; other behaviours get to see many at once (`Behaviour.together`).
        trains = config.federation.behaviour == "train"
        self._at_once = 1 if trains else min(100, -(-config.invited // count))
        self._open = contextlib.ExitStack()
        self._here: _Worker | None = None
        self._real: RealFeatures | None = None
        if count == 1:
            self._open.enter_context(one_thread(config.federation.device))
            self._here = _Worker(components, folder)
        else:
            # One process imports what all need, and forks: seconds for each worker but the first.
            forks = multiprocessing.get_context("forkserver")
            forks.set_forkserver_preload([__name__])
            self._pool = ProcessPoolExecutor(count, forks, initializer=_start, initargs=(config, folder))
            self._open.callback(self._pool.shutdown, wait=True, cancel_futures=True)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def prepare(self, federation: str) -> Iterator[int]:
        """Let every client read from its images what training needs; yields and raises like `answer`."""
        return self._each(_prepare, federation, _parts(range(self._config.federation.clients), 1))

    def answer(self, broadcast: Broadcast, clients: Sequence[int]) -> Iterator[int]:
        """Let these clients answer; yields each as it is done.

        Raises:
            RoundError: a worker died (out of memory, or killed).
            PrismError, PrivacyError: what a client raised.
        """
        parts = _parts(clients, self._at_once)
        if self._config.trains_alike:  # one process trains for all of a group
            parts = [list(group) for _, group in itertools.groupby(clients, self._config.latent_group)]
        return self._each(_answer, broadcast, parts)

    def _each(
        self,
        work: Callable[[_Worker, Sequence[int], Any], None],
        argument: object,
        parts: Sequence[Sequence[int]],
    ) -> Iterator[int]:
        if self._here is not None:
            for part in parts:
                work(self._here, part, argument)
                yield from part
            return
        jobs: dict[Future[None], Sequence[int]] = {}
        try:
            with _starting():
                jobs |= {self._pool.submit(_do, work, part, argument): part for part in parts}
            for job in as_completed(jobs):
                with _worker_death_named():
                    job.result()
                yield from jobs[job]
        finally:
            for job in jobs:
                job.cancel()

    @property
    def beside(self) -> bool:
        """Whether workers compute while this process does something else."""
        return self._here is None

    def evaluate(
        self, mask: NDArray[np.bool_], samples: Path, *, utility: bool = False
    ) -> Callable[[], Quality]:
        """Begin to measure the generator under `mask`, bool (d,), with a grid of its images at `samples`.

        The two classifiers of the utility are trained beside all else. Returns what waits for the metrics; a
        single worker measures only then.

        Raises:
            RoundError: a worker died.
            PrismError: from what waits: see `Evaluation`.
        """
        if self._here is not None:
            return partial(self._here.evaluate, mask, samples, utility=utility)
        with _starting():
            jobs: list[Future[Any]] = [self._pool.submit(_measure, mask, samples, utility, self._real)]
            if utility:
                jobs += [self._pool.submit(_utility, mask), self._pool.submit(_ceiling)]
        return partial(self._quality, jobs)

    def _quality(self, jobs: Sequence[Future[Any]]) -> Quality:
        """Wait for the metrics, and for what completes them."""
        try:
            with _worker_death_named():
                quality: Quality
                quality, real = jobs[0].result()
                self._real = real or self._real
                for part in jobs[1:]:
                    quality = msgspec.structs.replace(quality, **part.result())
                return quality
        finally:
            for job in jobs:
                job.cancel()


def _parts(clients: Sequence[int], at_once: int) -> list[Sequence[int]]:
    return [clients[start : start + at_once] for start in range(0, len(clients), at_once)]


@contextlib.contextmanager
def _worker_death_named() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool:
        raise RoundError(
            "a worker process died, most likely for want of memory; try federation.workers=1, "
            "the same command continues"
        ) from None


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """Orders to workers, the first of which start them."""
    with _worker_death_named(), on_their_own():
        try:
            yield
        except (EOFError, ConnectionError) as error:  # from the process that loads torch for all, and forks
            raise BrokenProcessPool from error


class _Worker:
    """What one worker process keeps between jobs."""

    def __init__(self, components: Components, folder: Path) -> None:
        self.components = components
        self.evaluate = Evaluation(components)
        self._folder = folder

    def client(self, index: int) -> Client:
        return Client(index, client_folder(self._folder, index), self.components)


_worker: _Worker | None = None
_until_exit = contextlib.ExitStack()


def _start(config: Config, folder: Path) -> None:
    """In a fresh worker process: one thread, and an end when the parent ends."""
    global _worker
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    _until_exit.enter_context(one_thread(config.federation.device))
    _worker = _Worker(Components(config), folder)


def _end_with(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)


def _do(
    work: Callable[[_Worker, Sequence[int], Any], None], clients: Sequence[int], argument: object
) -> None:
    work(_this_worker(), clients, argument)


def _prepare(worker: _Worker, clients: Sequence[int], federation: str) -> None:
    for client in clients:
        worker.client(client).prepare(federation)


def _answer(worker: _Worker, clients: Sequence[int], broadcast: Broadcast) -> None:
    answering = [worker.client(client) for client in clients]
    if len(answering) > 1:
        behaviour_of(worker.components).together(broadcast, [client.side for client in answering])
        if worker.components.config.measures:  # answers are known by now; what is left waits for the disk
            wait_together(lambda client: client.answer(broadcast), answering)
            return
    for client in answering:
        client.answer(broadcast)


def _measure(
    mask: NDArray[np.bool_], samples: Path, neighbours: bool, real: RealFeatures | None
) -> tuple[Quality, RealFeatures | None]:
    """The metrics, and the real images' features for the next to measure, unless `real` has them."""
    evaluate = _this_worker().evaluate
    if evaluate.real is None:
        evaluate.real = real
    quality = evaluate.measured(mask, samples, neighbours=neighbours)
    return quality, None if real else evaluate.real


def _utility(mask: NDArray[np.bool_]) -> dict[str, float]:
    return _this_worker().evaluate.utility(mask)


def _ceiling() -> dict[str, float]:
    return _this_worker().evaluate.ceiling()


def _this_worker() -> _Worker:
    if _worker is None:
        raise RoundError("clients train in worker processes only")
    return _worker
