"""Processes that this one starts: they do not hear Ctrl-C, which is for the one that started them, and load
nothing of the script that it runs."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from multiprocessing import resource_tracker
from types import ModuleType


@contextlib.contextmanager
def on_their_own() -> Iterator[None]:
    """Whatever is started in here never hears Ctrl-C, from its first instruction on, nor loads `__main__`.

    A terminal sends it to the whole group. What a child sets for itself comes seconds of imports too late:
    each would end with a traceback. A mask of signals is inherited; this process hears it afterwards.

    A child of the spawn and forkserver methods would import the script that called us, call us again, and die
    of it, unless the script has `if __name__ == "__main__"`. Ours need nothing of it.
    """
    resource_tracker.ensure_running()  # in some versions of Python its start lifts the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
