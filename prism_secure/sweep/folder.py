"""A sweep's folder, as the sweep that goes on in it writes it; what is in it, see `results`."""

from __future__ import annotations

import fcntl
import hashlib
import platform
import tomllib
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from prism_secure.config.toml_words import NONE
from prism_secure.errors import RunFolderError
from prism_secure.storage import as_storage_error, make_folder, write_atomic
from prism_secure.sweep.recipe import Settings, SweepRecipe, point_id, read_recipe
from prism_secure.sweep.results import COMMAND, POINTS, RECIPE, RUNS, PointFile, point_text, read_point

__all__ = ["SweepFolder"]


class SweepFolder:
    """Opens or creates the folder of one sweep, and holds it against a second sweep of this machine.

    Raises:
        RunFolderError: another sweep goes on there, it was started with another recipe, or it holds something
            else.
        StorageError: the disk refused a write.
    """

    def __init__(self, path: Path, recipe: SweepRecipe, command: str) -> None:
        self.path = path
        if path.exists() and (not path.is_dir() or (any(path.iterdir()) and not _is_sweep(path))):
            raise RunFolderError(f"{path} holds something that is not a sweep; name a new folder with --out")
        for name in (POINTS, RUNS):
            make_folder(path / name)
        with as_storage_error(path):
            # Machines that share a folder each have a lock of their own: the storage tells them apart.
            self._lock = (path / f".lock-{machine()}").open("w")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._lock.close()
                raise RunFolderError(f"a sweep goes on in {path} already") from None
        try:
            self._open(recipe, command)
        except BaseException:
            self.close()
            raise

    def _open(self, recipe: SweepRecipe, command: str) -> None:
        kept = self.path / RECIPE
        if not kept.exists():
            write_atomic(self.path / COMMAND, f"{command}\n".encode())
            write_atomic(kept, recipe.dump().encode())
            return
        begun = read_recipe(kept)
        if begun != recipe:
            old, new = _settings(begun), _settings(recipe)
            apart = [
                f"{key} = {old.get(key, NONE)}, now {new.get(key, NONE)}"
                for key in old | new
                if old.get(key) != new.get(key)
            ]
            raise RunFolderError(
                f"{self.path} was started with another recipe ({'; '.join(apart)}); repeat that one to "
                "continue, or choose another folder with --out"
            )

    def close(self) -> None:
        """Let another sweep use the folder."""
        self._lock.close()

    @property
    def owner(self) -> str:
        """Names this machine and this folder."""
        return hashlib.sha256(f"{machine()}\0{self.path.resolve()}".encode()).hexdigest()[:16]

    @property
    def study_url(self) -> str:
        """The storage of a sweep on one machine; of a folder of any name, its characters escaped."""
        return f"sqlite:///{quote(str(self.path / 'study.db'))}"

    def study_name(self, recipe: SweepRecipe) -> str:
        """Equal for all machines that sweep the same recipe; each finds the others' study by it."""
        return f"prism-secure-{hashlib.sha256(recipe.dump().encode()).hexdigest()[:16]}"

    def begin(self, settings: Settings) -> None:
        """Keep what a point is, unless that was done before."""
        if not self._point(settings).exists():
            self._write(PointFile(settings))

    def failed(self, settings: Settings, run: str, reason: str) -> None:
        """Keep why an attempt of a run failed."""
        file = read_point(self._point(settings))
        failures = file.failures | {run: [*file.failures.get(run, []), reason]}
        self._write(msgspec.structs.replace(file, failures=failures))

    def succeeded(self, settings: Settings, run: str) -> None:
        """Forget how earlier attempts failed."""
        file = read_point(self._point(settings))
        if run in file.failures:
            failures = {name: reasons for name, reasons in file.failures.items() if name != run}
            self._write(msgspec.structs.replace(file, failures=failures))

    def refused(self, settings: Settings, reason: str) -> None:
        """Keep why a point that a search proposed cannot be run."""
        self._write(PointFile(settings, refused=reason))

    def _point(self, settings: Settings) -> Path:
        return self.path / POINTS / f"{point_id(settings)}.json"

    def _write(self, file: PointFile) -> None:
        write_atomic(self._point(file.settings), point_text(file))


def _settings(recipe: SweepRecipe) -> dict[str, Any]:
    """All that a recipe says, by whole keys: "sweep.seeds", "sweep.grid.privacy.flip"."""

    def flat(table: Mapping[str, Any], above: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in table.items():
            found |= flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
        return found

    return flat(tomllib.loads(recipe.dump()))


def machine() -> str:
    """Names this machine without saying its name: 8 hexadecimal digits."""
    return hashlib.sha256(f"{platform.node()}\0{uuid.getnode()}".encode()).hexdigest()[:8]


def _is_sweep(path: Path) -> bool:
    return (path / RECIPE).exists() or any(path.glob(".lock-*"))
