"""What `doctor` found with torch, for as long as nothing that it rests on has changed.

To import torch takes most of a second of a processor. A good try is kept in the user's cache with the state
of every file that was loaded for it: modules, libraries, weights. A file that is gone, cut short, written
again or no longer readable has another state, and torch is tried again; so it is once something was
installed, another module comes first on the path, a variable that torch reads was set, a graphics card came
or went, or the machine was started again. What was broken is never kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import stat
import sys
from collections.abc import Iterable
from datetime import datetime
from importlib.machinery import PathFinder
from pathlib import Path
from typing import NamedTuple

import msgspec

from prism_secure.errors import StorageError
from prism_secure.storage import make_folder, user_cache, write_atomic

_READ_BY_TORCH = (
    "ATEN", "CUDA", "DYLD_", "GOMP", "HOME", "KMP", "LD_", "MKL", "NVIDIA", "OMP", "OPENBLAS", "PYTHON",
    "PYTORCH", "TORCH", "XDG",
)  # fmt: skip


class Finding(NamedTuple):
    """One line. `level`: "ok"; "missing": only some features need it; "broken": every run does."""

    level: str
    name: str
    text: str


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`files`: size in bytes and time of the last change in ns; null for what is no file or folder."""

    around: str
    when: str
    findings: list[Finding]
    origins: dict[str, str]
    files: dict[str, tuple[int, int] | None]


def recall() -> tuple[str, list[Finding]] | None:
    """When torch was last tried, and what was found; None where that may no longer be so, or was never."""
    try:
        kept = msgspec.json.decode(_file().read_bytes(), type=_Kept)
    except (OSError, RuntimeError, msgspec.MsgspecError):
        return None
    same = (
        kept.around == _around()
        and all(_origin(name) == origin for name, origin in kept.origins.items())
        and all(_state(path) == state for path, state in kept.files.items())
    )
    return (kept.when, kept.findings) if same else None


def keep(findings: list[Finding], folders: Iterable[Path]) -> None:
    """Keep what was found in this process.

    Args:
        findings: none of them broken.
        folders: what they rest on beside all that is loaded.
    """
    paths = _loaded()
    for folder in folders:
        paths |= {str(folder), *map(str, folder.rglob("*"))}
    names = {name.partition(".")[0] for name in sys.modules}
    origins = {name: origin for name in sorted(names) if (origin := _origin(name))}
    kept = _Kept(
        around=_around(),
        when=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        findings=findings,
        origins=origins,
        files={path: _state(path) for path in sorted(paths)},
    )
    # No cache, no home, a name that is no UTF-8: then torch is tried again next time.
    with contextlib.suppress(StorageError, RuntimeError, UnicodeEncodeError):
        path = _file()
        make_folder(path.parent)
        write_atomic(path, msgspec.json.encode(kept), mode=0o600)


def _file() -> Path:
    environment = hashlib.sha256(sys.prefix.encode()).hexdigest()[:16]
    return user_cache() / f"doctor-{environment}.json"


def _loaded() -> set[str]:
    """Files of the modules and, where the system tells, of the libraries in this process."""
    # Not by getattr: some modules of torch make up whatever they are asked for. And some "modules" are None.
    names = (getattr(module, "__dict__", {}).get("__file__") for module in list(sys.modules.values()))
    found = {name or "" for name in names}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/maps").read_text("utf-8", "surrogateescape").splitlines():
            found.add(line[line.find("/") :] if "/" in line else "")
    return {path for path in found if path.startswith("/") and not path.endswith(" (deleted)")}


def _state(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - two thousand of them
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        return None
    return status.st_size, status.st_ctime_ns  # which `touch -d` and `cp -p` don't set back


def _origin(name: str) -> str | None:
    """The file that `import name` would load."""
    found = PathFinder.find_spec(name)
    return found.origin if found is not None else None


def _around() -> str:
    """A digest of what decides, beside files, whether torch can be imported and what it finds."""
    import sysconfig  # here, and not where every `--help` waits for it

    boot = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
    told = (
        (sys.version, sys.executable, sys.path),
        (platform.node(), platform.machine(), boot, cores()),
        sorted(item for item in os.environ.items() if item[0].startswith(_READ_BY_TORCH)),
        [_state(sysconfig.get_path(name)) for name in ("purelib", "platlib")],  # whatever is installed
        _cards(),
    )
    return hashlib.sha256(repr(told).encode()).hexdigest()


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cards() -> tuple[int, int, int] | None:
    """What the driver of graphics cards answers, and how many it finds; None: there is no driver."""
    import ctypes

    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    count = ctypes.c_int(0)
    return driver.cuInit(0), driver.cuDeviceGetCount(ctypes.byref(count)), count.value
