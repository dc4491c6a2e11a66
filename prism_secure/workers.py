"""Processes that train clients and measure masks side by side.

Every worker computes on one thread, so a client's bits do not depend on how many workers there are. A
worker ends by itself when the process that started it is gone, however that happened.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import TypeVar

import numpy as np
import threadpoolctl
import torch
from numpy.typing import NDArray

from prism_secure.client import Broadcast, Client
from prism_secure.config import Config
from prism_secure.errors import RoundError
from prism_secure.evaluation import Evaluation
from prism_secure.recipe import Recipe
from prism_secure.records import Quality
from prism_secure.run_folder import client_folder

Result = TypeVar("Result")


class Workers:
    """A pool for one run; use it as a context manager.

    Args:
        config: the run's configuration.
        folder: the run folder, whose `clients/NN` the clients use.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        count = min(config.federation.workers, config.federation.clients)
        self._clients = config.federation.clients
        self._pool = ProcessPoolExecutor(
            count, multiprocessing.get_context("spawn"), initializer=_start, initargs=(config, folder)
        )

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def train(self, broadcast: Broadcast) -> Iterator[int]:
        """Let every client answer; yields each as it is done.

        Raises:
            RoundError: a worker died (out of memory, or killed).
            PrismError, PrivacyError: what a client raised.
        """
        jobs = {self._pool.submit(_answer, client, broadcast): client for client in range(self._clients)}
        pending: set[Future[None]] = set(jobs)
        try:
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for job in done:
                    _result(job)
                    yield jobs[job]
        finally:
            for job in pending:
                job.cancel()

    def measure(self, mask: NDArray[np.bool_], samples: Path) -> Quality:
        """Metrics of the generator under `mask`, bool (d,), and a grid of its images at `samples`."""
        return _result(self._pool.submit(_measure, mask, samples))


def _result(job: Future[Result]) -> Result:
    try:
        return job.result()
    except BrokenProcessPool:
        raise RoundError(
            "a worker process died, most likely for want of memory; try federation.workers=1, "
            "the same command continues"
        ) from None


class _Worker:
    """What one worker process keeps between jobs."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.recipe = Recipe(config)
        self.evaluate = Evaluation(self.recipe)
        self._folder = folder

    def client(self, index: int) -> Client:
        return Client(index, client_folder(self._folder, index), self.recipe)


_worker: _Worker | None = None


def _start(config: Config, folder: Path) -> None:
    """In a fresh worker process: one thread, no Ctrl-C of its own, and an end when the parent ends."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    torch.set_num_threads(1)
    threadpoolctl.threadpool_limits(1)
    torch.use_deterministic_algorithms(True)
    _worker = _Worker(config, folder)


def _end_with(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)


def _answer(client: int, broadcast: Broadcast) -> None:
    _this_worker().client(client).answer(broadcast)


def _measure(mask: NDArray[np.bool_], samples: Path) -> Quality:
    return _this_worker().evaluate(mask, samples)


def _this_worker() -> _Worker:
    if _worker is None:
        raise RoundError("clients train in worker processes only")
    return _worker
