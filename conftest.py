"""What holds for all tests; those of Flower, an extra, are collected where Flower is installed."""

import functools
import gc
import json
import lzma
import os
import sys
from collections.abc import Generator, Iterator
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

# Before torch and numpy are loaded. A second thread costs them twenty times the processor time of one where
# tests run side by side, and a training of the package has one all the same.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import pytest

# prism_privacy loads it with the first call that needs it, which would count against Hypothesis' deadline.
import scipy.special  # noqa: F401

REACHED = os.environ.get("REACHED")
"""A folder, if what tests reach is to be kept for `tests/coverage_floors.py`.

Probes in the code that go once they are hit: coverage.py traces all that runs, libraries too, which took
a third more of the processor's time on a sample of test files. To remove spent probes slipcover searches
every function, so it waits for 5,000 wasted hits, not its default of 50.
"""
if REACHED:
    from slipcover import Slipcover
    from slipcover.importer import SlipcoverLoader

    folders = {
        "branches": ["crypto/prism_crypto", "privacy/prism_privacy"],
        "lines": ["prism_secure"],  # all that its floor asks for; branches would cost as much again
    }
    never = ["raise NotImplementedError", r"\.\.\.$"]
    probes = {
        what: Slipcover(branch=what == "branches", source=each, exclude_also=never, d_miss_threshold=5_000)
        for what, each in folders.items()
    }
    probes_of = {Path(folder).name: probes[what] for what, each in folders.items() for folder in each}

    class ProbedPackages(PathFinder):
        """In place of two of slipcover's ImportManagers, which do not nest: each skips the other."""

        @classmethod
        def find_spec(cls, fullname, path=None, target=None):
            found = probes_of.get(fullname.partition(".")[0])
            spec = super().find_spec(fullname, path, target) if found else None
            if spec is not None and spec.origin is not None:
                spec.loader = SlipcoverLoader(found, spec.loader, spec.origin)
            return spec

    sys.meta_path.insert(0, ProbedPackages)
    kept = Path(REACHED).resolve()

    def pytest_sessionfinish(session: pytest.Session) -> None:
        if session.config.getoption("numprocesses", None):
            return  # its workers run the tests, and say what they reached
        for what, each in probes.items():
            (kept / f"{os.getpid()}.{what}.json").write_text(json.dumps(each.get_coverage()))


collect_ignore_glob = [] if find_spec("flwr") else ["prism_secure/flower/*", "tests/flower/*"]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Nothing is searched for garbage while tests are collected, which took a third of it; what is there by
    then stays, and to search it again and again is a twentieth of all work.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)
        gc.enable()


@pytest.fixture(autouse=True, scope="session")
def no_power_cut() -> Iterator[None]:
    """What a killed process has written is there without fsync, too; tests of the order watch the calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture(autouse=True, scope="session")
def bundled_images_unpacked_once() -> Iterator[None]:
    """Each of several hundred runs would unpack them twice, for 0.25 s; the key is the packed bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lzma, "decompress", functools.lru_cache(4)(lzma.decompress))
        yield
