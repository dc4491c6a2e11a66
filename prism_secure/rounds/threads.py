"""One thread for floats: they add up in one order, so a result does not depend on how many cores there are.

Many threads for waiting on the disk: it takes many files down in the time of one.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import threadpoolctl
import torch

_Item = TypeVar("_Item")
WAITING = 16
"""Files on their way to the disk at a time."""


def wait_together(work: Callable[[_Item], object], items: Iterable[_Item]) -> None:
    """Do work that mostly waits for the disk, and adds up no floats, for many items at a time.

    Ends when all is done. Raises what the first of them raised, in the order of the items; what was not begun
    by then is left.
    """
    with ThreadPoolExecutor(WAITING) as pool:
        for _ in pool.map(work, items):
            pass


@functools.lru_cache(maxsize=1)
def _thread_pools(modules: int) -> threadpoolctl.ThreadpoolController:
    """The thread pools of what is loaded: to find them takes 3 ms, and new ones come with imports only.

    Args:
        modules: how many there are.
    """
    return threadpoolctl.ThreadpoolController()


@contextlib.contextmanager
def one_thread(device: str = "cpu") -> Iterator[None]:
    """Every kernel on one thread, and deterministic ones only: sums are added in one order everywhere.

    A graphics card has no deterministic kernels for some of what training needs, so there any will do.
    """
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    torch.set_num_threads(1)
    # torch.use_deterministic_algorithms does the same, but first loads torch's compiler, for a second.
    torch.set_deterministic_debug_mode("error" if device == "cpu" else "default")
    try:
        with _thread_pools(len(sys.modules)).limit(limits=1):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(mode)
