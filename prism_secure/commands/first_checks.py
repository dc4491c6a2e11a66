"""What a command refuses before it imports anything that takes a second: a path that cannot be what is asked.

These checks are for whoever typed the path. What a command does later checks again, under locks.
"""

from __future__ import annotations

import os
from pathlib import Path

from prism_secure.config import Config
from prism_secure.errors import ConfigError, PrismError, RunFolderError

__all__ = [
    "file_of",
    "require_file",
    "require_new_file",
    "require_run",
    "require_run_out",
    "require_writable",
]

_OF_A_RUN = ("config.toml", "federation.id", "ledger.jsonl")


def require_run(path: Path, *, error: type[PrismError] = RunFolderError, sweep: bool = False) -> None:
    """Refuse unless `path` is a run folder, whole or damaged, or, where `sweep` allows it, a sweep's.

    Raises:
        `error`: it is neither.
    """
    if not path.exists():
        raise error(f"{path} is not a run folder: it does not exist; `prism-secure list` finds runs")
    if not path.is_dir():
        raise error(f"{path} is not a run folder, but a file; name the folder that `run --out` made")
    if (path / "sweep.toml").exists():
        if sweep:
            return
        raise error(f"{path} is not a run folder: it is a sweep, whose runs are {path / 'runs'}/*")
    if not is_run_folder(path):
        raise error(
            f"{path} is not a run folder: it has no config.toml and no ledger.jsonl; `prism-secure list "
            f"{path}` finds the runs and sweeps below it"
        )


def require_run_out(path: Path, config: Config) -> None:
    """Refuse unless a run of this configuration can be started or continued in the folder `path`.

    Raises:
        RunFolderError: it is a file, something else lies there, or a run of another configuration.
    """
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"{path} must be a folder, but it is a file; name another one with --out")
    require_writable(path, RunFolderError)
    if (path / "config.toml").exists():
        from prism_secure.run_folder.folder import read_config, refuse_another

        refuse_another(path, read_config(path), config)
    elif path.is_dir() and any(path.iterdir()) and not _begun(path):
        raise RunFolderError(
            f"{path} holds files that are not a run; name an empty or a new folder with --out"
        )


def _begun(path: Path) -> bool:
    """Whether a run took this folder, however early it was cut short."""
    return (path / "federation.id").exists() or (path / ".lock").exists()


def require_file(path: Path, what: str, *, error: type[PrismError] = ConfigError) -> None:
    """Refuse unless `path` is a file; `what` says of which kind.

    Raises:
        `error`: it is none.
    """
    if not path.is_file():
        found = "it is a folder" if path.is_dir() else "it does not exist"
        raise error(f"{path} is not {what}: {found}")


def is_run_folder(path: Path) -> bool:
    """Whether a run began in this folder.

    >>> is_run_folder(Path("no-such-folder"))
    False
    """
    return any((path / mark).exists() for mark in _OF_A_RUN)


def file_of(path: Path, name: str, what: str, *, error: type[PrismError] = ConfigError) -> Path:
    """The file `path`, or the one called `name` in the run folder `path`.

    Raises:
        `error`: neither is there; `what` says of which kind it should be.
    """
    inside = path / name
    if path.is_dir() and not inside.is_file() and is_run_folder(path):
        raise error(
            f"{path} is a run folder without {name}: its run has not come so far, or it was taken out"
        )
    found = inside if inside.is_file() else path
    require_file(found, what, error=error)
    return found


def require_new_file(path: Path | None, option: str) -> None:
    """Refuse unless a file can be written at `path`; None is fine, and its folder need not be there yet.

    Raises:
        ConfigError: a folder is there, or the folder that it would be in is a file or cannot be written.
    """
    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"{option} is a file, but {path} is a folder; name a file in it")
    require_writable(path.parent, ConfigError)


def require_writable(folder: Path, error: type[PrismError]) -> None:
    """Refuse unless `folder` can be written, or made.

    Raises:
        `error`: what is there, or above it, is a file or somebody else's.
    """
    nearest = next(each for each in [folder.absolute(), *folder.absolute().parents] if each.exists())
    if not nearest.is_dir():
        raise error(f"{folder} cannot be made: {nearest} is a file; name another folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise error(f"{folder} cannot be written: {nearest} is not yours to write; name another folder")
