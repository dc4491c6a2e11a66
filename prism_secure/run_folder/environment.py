"""Where a run took place: what somebody needs to repeat it, and nothing about who ran it.

`environment.json` in the run folder holds the command and what `describe_environment` finds. Neither host
nor user name enters it, and of paths only those of the command, with the home directory as `"$HOME"`.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from prism_secure.errors import RunFolderError
from prism_secure.storage import write_atomic

__all__ = [
    "Facts",
    "describe_environment",
    "keep_environment",
    "read_environment",
    "shell_command",
    "write_environment",
]

_FILE = "environment.json"
_PACKAGES = (
    "prism-secure", "torch", "torchvision", "numpy", "scipy", "cryptography", "dp-accounting", "msgspec",
    "pillow", "matplotlib",
)  # fmt: skip


class Facts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What only the run itself knows and the report shows; None where it was not recorded."""

    parameters: int | None = None
    """Length of the mask."""
    training_images: int | None = None
    """All clients' together."""
    persons: int | None = None
    """Whose they are, with `data.person`: all clients' together."""
    held_out_images: int | None = None
    """Public images that the metrics compare with."""
    skipped_images: int = 0
    """Files that could not be read and were left out."""
    own_data: bool = False
    """Whether each client has data of its own, on its own machine, where otherwise all share one set."""
    drowned: str = ""
    """Words for noise on the images' moments that is longer than they are; see `RecordRelease.drowned`."""


msgspec.json.Decoder(Facts)  # prepared at import: not by two threads at once


def describe_environment() -> dict[str, Any]:
    """Versions, processor and platform, and the commit where the package lies in a checkout.

    Keys: `python`, `packages` (name to version, those that are installed), `cpu`, `cores` (that this process
    may use), `cpu_capability` (the instructions that torch uses: other ones may round otherwise), `platform`,
    `commit` (None outside a checkout; "+changes" follows where tracked files differ from it).
    """
    import torch  # here, so that reading a report does not load it

    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        # Not platform.platform(): a kernel's release may carry the name of the machine it was built for.
        "platform": " ".join(filter(None, [platform.system(), platform.machine(), *platform.libc_ver()])),
        "commit": _commit(Path(__file__).resolve().parent),
    }


def shell_command(argv: Sequence[str]) -> str:
    """A command line that can be pasted into a shell, from words such as `sys.argv`.

    >>> shell_command(["/opt/venv/bin/prism-secure", "run", "--set", "data.folder=my images"])
    "prism-secure run --set 'data.folder=my images'"
    """
    program = Path(argv[0]).name
    start = ["python", "-m", Path(argv[0]).parent.name] if program == "__main__.py" else [program]
    return " ".join([shlex.quote(word) for word in start] + [_without_home(word) for word in argv[1:]])


def write_environment(folder: Path, command: str, facts: Facts | None = None, *, begun: bool = False) -> None:
    """Keep the command (as a shell takes it), the environment and the run's own facts in the run folder.

    Args:
        begun: it was there and is gone; what is written now says so.

    Raises:
        StorageError: the disk refused.
    """
    kept = {
        "command": shell_command(shlex.split(command)),
        **describe_environment(),
        **({"written_anew": "environment.json was gone; how the run began is not known"} if begun else {}),
        "facts": msgspec.to_builtins(facts or Facts()),
    }
    write_atomic(folder / _FILE, msgspec.json.format(msgspec.json.encode(kept)) + b"\n")


def keep_environment(
    folder: Path, command: str, facts: Facts, note: Callable[[str], None], *, begun: bool
) -> None:
    """Write it where it is not there. Nothing goes on from it, so a run without one is not refused.

    Args:
        note: hears of one that is gone.
        begun: whether something was written to the ledger, after which it has to be there.

    Raises:
        StorageError: the disk refused.
    """
    if (folder / _FILE).exists():
        return
    if begun:
        note(
            f"{folder / _FILE} is gone; it is written anew, with this command and what is installed here and "
            "now. To keep what the run began with, stop and put it back"
        )
    write_environment(folder, command, facts, begun=begun)


def read_environment(folder: Path) -> tuple[dict[str, Any], Facts]:
    """What `write_environment` kept; an empty dict and empty facts where it was never called.

    Raises:
        RunFolderError: the file is damaged.
    """
    path = folder / _FILE
    if not path.exists():
        return {}, Facts()
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        return kept, msgspec.convert(kept.pop("facts", {}), Facts)
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError) as error:
        raise RunFolderError(f"{path} is damaged: {error}") from None


def _without_home(word: str) -> str:
    home = str(Path.home())
    before, found, after = word.partition(home)
    if not found or home == "/" or after[:1] not in ("", "/"):
        return shlex.quote(word)
    return "".join([before and shlex.quote(before), '"$HOME"', after and shlex.quote(after)])


@functools.cache  # a process runs what it has loaded, whatever is installed meanwhile
def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8", "replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def _commit(package: Path) -> str | None:
    """The commit that tracks this very package: not that of a project whose `.venv` it was installed in."""
    git = shutil.which("git")
    if git is None:
        return None
    # Git calls hooks with these set, and they would point to another repository.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def ask(*question: str) -> str | None:
        done = subprocess.run(  # noqa: S603 - fixed words, no shell
            [git, "-C", str(package), *question], capture_output=True, text=True, env=clean, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else None

    if ask("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = ask("rev-parse", "HEAD")
    changed = ask("status", "--porcelain", "--untracked-files=no")
    return f"{commit}+changes" if commit and changed else commit
