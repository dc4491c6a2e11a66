"""One thread: floats are added in one order, so a result does not depend on how many cores there are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import threadpoolctl
import torch


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
        with threadpoolctl.threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(mode)
