"""A run's folder: what is kept, and how a run is found again after a kill.

config.toml     the resolved configuration; a resume with another one is refused
federation.id   a random name that enters every context and every client's coins
environment.json  the command, versions and processor of the first start
ledger.jsonl    what was released and what it cost, signed with ledger.key (0600); ledger.jsonl.head, a
                signed count of its lines, shows whether the end was cut off
metrics.jsonl   one `RoundRecord` a line; the last one may lack metrics that are being computed
checkpoint/     the server's state after the last finished round, replaced atomically; the last round whose
                uploads may have left their clients; with Flower, evidence against clients that have lied
clients/NN/     what client NN would keep on its own machine: coin secret, moments of its images (exact, or
                its one noisy release), optimizer state, outbox. Private (0700): take it out before you pass a
                run folder on
clients/data.json  where the images lay, and an HMAC of them: other ones are refused. Private, too
samples/        a grid of images from the deployed mask after each evaluated round
model.safetensors, report.html, disclosure.html (where it was asked for)
DONE | FAILED   how it ended; neither while it runs or after an interruption
"""

from __future__ import annotations

import contextlib
import fcntl
import secrets
import shlex
from pathlib import Path

import msgspec
from safetensors import SafetensorError, safe_open

from prism_privacy.errors import PrivacyError
from prism_privacy.ledger import verify_ledger
from prism_secure.config import Config, determining, dump_config, load_config, nearest_recipe
from prism_secure.config.toml_words import NONE
from prism_secure.errors import ConfigError, RunFolderError
from prism_secure.run_folder.enrolment import checked_name
from prism_secure.run_folder.records import RoundRecord, decode, encode
from prism_secure.storage import (
    append_line,
    as_storage_error,
    make_folder,
    make_private_folder,
    whole_lines,
    write_atomic,
)

SWEEP_RECIPE = "sweep.toml"
"""What the folder of a sweep has, two levels above its runs', and a run's has not."""
_MOST_NAMED = 6
"""Of settings that differ; of two recipes it can be dozens."""
_FOLDERS = ("checkpoint", "clients", "samples")
_BEGUN = (
    "environment.json",
    "ledger.jsonl",
    "ledger.jsonl.head",
    "metrics.jsonl",
    "checkpoint/server.safetensors",
    "DONE",
)
"""What is written after `config.toml`: where one of them is, there was one."""
_BEFORE_CHARGE = (
    "environment.json",
    "ledger.jsonl",
    "ledger.jsonl.head",
    "ledger.key",
    "FAILED",
    "clients/data.json",
    "clients/skipped-images.txt",
    "clients/*/moments.safetensors",
    "clients/*/share.safetensors",
    "config.toml",
)
"""What a start writes before it charges anything, in the order in which it may be taken away: a kill on the
way leaves a run that the same command begins again."""
_FOLDERS_BEFORE_CHARGE = ("clients/*/outbox", "clients/*", *_FOLDERS)


class RunFolder:
    """Opens or creates the folder of one run and holds it against a second process.

    Args:
        path: the folder.
        config: the run's configuration.
        federation: the name of a new run's federation; a random one by default.

    Raises:
        RunFolderError: another process runs there, the configuration differs, `federation.id` or
            `config.toml` is gone or damaged, or the folder holds something that is not a run.
        StorageError: the disk refused a write.
    """

    def __init__(self, path: Path, config: Config, *, federation: str | None = None) -> None:
        self.path = path
        if path.exists() and not path.is_dir():
            raise RunFolderError(f"{path} must be a folder, but it is a file")
        _refuse_foreign(path)
        self._existed = path.exists()
        self._found = set(path.rglob("*")) if not (path / "config.toml").exists() else None
        make_folder(path)
        with as_storage_error(path):
            self._lock = (path / ".lock").open("w")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._lock.close()
                raise RunFolderError(f"{path} is in use by another prism-secure process") from None
        try:
            self._open(config, federation or secrets.token_hex(16))
        except BaseException:
            self.close()
            raise

    def _open(self, config: Config, federation: str) -> None:
        path = self.path
        begun = any((path / name).exists() for name in _BEGUN)
        for name in _FOLDERS:
            make_folder(path / name)
        if not (path / "federation.id").exists() and not begun and not self.config_path.exists():
            write_atomic(path / "federation.id", federation.encode())
        self.federation = read_federation(path)
        if not self.config_path.exists():
            if begun:
                raise RunFolderError(
                    f"{self.config_path} is gone, and nothing else says what this run is; put it back"
                )
            write_atomic(self.config_path, dump_config(config).encode())
        else:
            refuse_another(path, read_config(path), config)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process use the folder."""
        self._lock.close()

    @property
    def config_path(self) -> Path:
        return self.path / "config.toml"

    @property
    def ledger_path(self) -> Path:
        return self.path / "ledger.jsonl"

    @property
    def ledger_key_path(self) -> Path:
        return self.path / "ledger.key"

    @property
    def checkpoint_path(self) -> Path:
        return self.path / "checkpoint" / "server.safetensors"

    @property
    def uploading_path(self) -> Path:
        return self.path / "checkpoint" / "uploading"

    @property
    def blamed_path(self) -> Path:
        return self.path / "checkpoint" / "blamed"

    @property
    def model_path(self) -> Path:
        return self.path / "model.safetensors"

    def sample_path(self, round_number: int) -> Path:
        return self.path / "samples" / f"round-{round_number:04d}.png"

    @property
    def done(self) -> bool:
        return is_done(self.path)

    def keep(self, record: RoundRecord) -> None:
        """Keep a round's record, in place of one from before its metrics, or from before a kill."""
        log, line = self.path / "metrics.jsonl", encode(record)
        lines = whole_lines(log)
        if len(lines) < record.round:
            append_line(log, line)
        else:
            lines[record.round - 1] = line
            write_atomic(log, b"".join(kept + b"\n" for kept in lines))

    def withdraw(self) -> bool:
        """Take away what this start wrote, if it began the run and nothing was charged or may have left.

        So whoever was refused can come back with other settings. What others laid into the folder stays.
        Returns whether it did.
        """
        charged = len(whole_lines(self.ledger_path)) > 1  # beside its header
        sent = (self.path / "moments.began").exists() or any(
            path != self.blamed_path for path in (self.path / "checkpoint").iterdir()
        )
        if self._found is None or charged or sent:
            return False
        for name in _BEFORE_CHARGE:
            self._take_away(name)
        for name in _FOLDERS_BEFORE_CHARGE:
            for path in set(self.path.glob(name)) - self._found:
                if path.is_dir() and not any(path.iterdir()):
                    path.rmdir()
        # Beside files of somebody else the name stays: without one this would not be a run's folder any more.
        if {path.name for path in set(self.path.iterdir()) - self._found} <= {".lock", "federation.id"}:
            self._take_away("federation.id")
            self._take_away(".lock")
            if not self._existed:
                self.path.rmdir()
        return True

    @property
    def uploading(self) -> int:
        """The last round in which an upload may have left a client; 0 before the first.

        Raises:
            RunFolderError: the mark is damaged.
        """
        path = self.uploading_path
        try:
            return int(path.read_text("ascii")) if path.exists() else 0
        except ValueError as error:
            raise RunFolderError(f"{path} is damaged: {error}; put it back") from None

    def mark_uploading(self, round_number: int) -> None:
        """Keep that uploads of a round may leave from now on; it is on disk when this returns."""
        write_atomic(self.uploading_path, f"{round_number}\n".encode())

    def _take_away(self, name: str) -> None:
        """Files of one name that this start wrote, and what a killed writer of them left beside them."""
        assert self._found is not None
        folder, _, last = name.rpartition("/")
        for pattern in (last, f".{last}.????????", f".{last}.*.tmp"):
            for path in set(self.path.glob(f"{folder}/{pattern}" if folder else pattern)) - self._found:
                if path.is_file():
                    path.unlink()

    def start(self) -> None:
        """Forget how an earlier attempt failed."""
        (self.path / "FAILED").unlink(missing_ok=True)

    def finish(self, message: str) -> None:
        """Mark the run as complete."""
        write_atomic(self.path / "DONE", f"{message}\n".encode())

    def fail(self, message: str) -> None:
        """Leave the reason why the run stopped; running again removes it and continues."""
        write_atomic(self.path / "FAILED", f"{message}\n".encode())


def is_done(path: Path) -> bool:
    """Whether a run folder holds a finished run; a model that is gone is made again, so it counts as not."""
    return (path / "DONE").exists() and (path / "model.safetensors").exists()


def client_folder(path: Path, client: int) -> Path:
    """The private folder of one client in a run folder, made on first use."""
    folder = path / "clients" / f"{client:02d}"
    make_private_folder(folder)
    return folder


def read_records(path: Path) -> list[RoundRecord]:
    """The finished rounds of a run folder, in order.

    Raises:
        RunFolderError: a line is not a record, or not of the round it should be.
    """
    log = path / "metrics.jsonl"
    records: list[RoundRecord] = []
    for number, line in enumerate(whole_lines(log), start=1):
        try:
            record = decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise RunFolderError(f"{log} is damaged in line {number}: {error}") from None
        if record.round != number:
            raise RunFolderError(
                f"{log} is damaged in line {number}: expected round {number}, got round {record.round}"
            )
        records.append(record)
    return records


def checkpoint_round(path: Path) -> int:
    """How many rounds the server's checkpoint in a run folder has behind it; 0 where there is none.

    Raises:
        RunFolderError: it is damaged.
    """
    checkpoint = path / "checkpoint" / "server.safetensors"
    if not checkpoint.exists():
        return 0
    return saved_round(checkpoint)


def saved_round(state: Path) -> int:
    """The round that a safetensors file of a server or a client was written after.

    Raises:
        RunFolderError: it is damaged.
    """
    try:
        with safe_open(state, framework="np") as file:
            return int(file.get_tensor("round"))
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise RunFolderError(f"{state} is damaged: {error}") from None


def read_federation(path: Path) -> str:
    """The name of a run's federation, from `federation.id`.

    Raises:
        RunFolderError: the file is gone, or holds no name.
    """
    file = path / "federation.id"
    try:
        return checked_name(file.read_text("ascii").strip())
    except FileNotFoundError:
        what = "is gone"
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        what = f"is damaged: {error}"
    stated = ""
    with contextlib.suppress(PrivacyError):
        name = verify_ledger(path / "ledger.jsonl").federation
        stated = f": the file's content is exactly what the ledger says, {name}"
    raise RunFolderError(
        f"{file} {what}; all coins, uploads and the ledger belong to the name in it: put it back{stated}"
    )


def read_config(path: Path) -> Config:
    """The configuration that a run folder was started with.

    Raises:
        RunFolderError: there is none, or it is damaged.
    """
    if not (path / "config.toml").exists():
        raise RunFolderError(f"{path} is not a run folder: {_lacking(path)}")
    try:
        return load_config(path / "config.toml")
    except ConfigError as error:
        raise RunFolderError(f"{path} is damaged: {error}") from None


def _refuse_foreign(path: Path) -> None:
    """Refuse unless a folder is a run's, or holds no more than a start that was killed at once leaves."""
    if not path.exists() or (path / "federation.id").exists():
        return
    if all(
        entry.name == ".lock"
        or entry.name.startswith(".federation.id.")
        or (entry.name in _FOLDERS and entry.is_dir() and not any(entry.iterdir()))
        for entry in path.iterdir()
    ):
        return
    if any((path / mark).exists() for mark in (".lock", "ledger.jsonl", "ledger.jsonl.head")):
        read_federation(path)  # it was a run's
    raise RunFolderError(f"{path} holds files that are not a run; name an empty or a new folder with --out")


def _lacking(path: Path) -> str:
    if not path.exists():
        return "it does not exist"
    if (path / SWEEP_RECIPE).exists():
        return f"it is a sweep, whose runs are {path / 'runs'}/*"
    return f"it has no config.toml; `prism-secure list {path}` finds the runs and sweeps below it"


def refuse_another(path: Path, kept: Config, given: Config) -> None:
    """Refuse unless a run folder may be continued with the configuration that is given.

    Raises:
        RunFolderError: it was started with another one; says how they differ, and what continues it.
    """
    old, new = determining(kept), determining(given)
    apart = [
        f"{section}.{key} = {_shown(old[section][key])}, now {_shown(new[section][key])}"
        for section in old
        for key in old[section]
        if old[section][key] != new[section][key]
    ]
    if not apart:
        return
    more = f", and {len(apart) - _MOST_NAMED} more" if len(apart) > _MOST_NAMED else ""
    was, now = nearest_recipe(kept), nearest_recipe(given)
    recipes = f" Its settings are nearest to recipe {was}, and those given to {now}." if was != now else ""
    again = shlex.join(["prism-secure", "run", "--config", str(path / "config.toml"), "--out", str(path)])
    raise RunFolderError(
        f"{path} was started with another configuration: {'; '.join(apart[:_MOST_NAMED])}{more}.{recipes} "
        f"To continue it: {again}; for a run of its own choose another folder with --out"
    )


def _shown(value: object) -> str:
    return NONE if value is None else str(value)
