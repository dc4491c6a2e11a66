"""Processes that this one starts: they do not hear Ctrl-C, since the one that started them ends them."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker


@contextlib.contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Whatever is started in here never hears Ctrl-C, from its first instruction on.

    A terminal sends it to the whole group. What a child sets for itself comes seconds of imports too late:
    each would end with a traceback. A mask of signals is inherited; this process hears it afterwards.
    """
    resource_tracker.ensure_running()  # in some versions of Python its start lifts the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
