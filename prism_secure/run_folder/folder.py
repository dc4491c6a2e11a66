"""A run's folder: what is kept, and how a run is found again after a kill.

config.toml     the resolved configuration; a resume with another one is refused
federation.id   a random name that enters every context and every client's coins
environment.json  the command, versions and processor of the first start
ledger.jsonl    what was released and what it cost, signed with ledger.key (0600); ledger.jsonl.head, a
                signed count of its lines, shows whether the end was cut off
metrics.jsonl   one `RoundRecord` a line
checkpoint/     the server's state after the last finished round, replaced atomically
clients/NN/     what client NN would keep on its own machine: coin secret, moments of its images (exact, or
                its one noisy release), optimizer state, outbox. Private (0700): take it out before you pass a
                run folder on
clients/data.json  where the images lay, and an HMAC of them: other ones are refused. Private, too
samples/        a grid of images from the deployed mask after each evaluated round
model.safetensors, report.html
DONE | FAILED   how it ended; neither while it runs or after an interruption
"""

from __future__ import annotations

import fcntl
import secrets
from pathlib import Path

import msgspec

from prism_secure.config import Config, determining, dump_config, load_config
from prism_secure.errors import ConfigError, RunFolderError
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


class RunFolder:
    """Opens or creates the folder of one run and holds it against a second process.

    Raises:
        RunFolderError: another process runs there, the configuration differs, or the folder holds
            something that is not a run.
        StorageError: the disk refused a write.
    """

    def __init__(self, path: Path, config: Config) -> None:
        self.path = path
        if path.exists() and not path.is_dir():
            raise RunFolderError(f"{path} must be a folder, but it is a file")
        foreign = path.exists() and any(path.iterdir()) and not (path / "federation.id").exists()
        if foreign and not (path / ".lock").exists():
            raise RunFolderError(
                f"{path} holds files that are not a run; name an empty or a new folder with --out"
            )
        make_folder(path)
        with as_storage_error(path):
            self._lock = (path / ".lock").open("w")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._lock.close()
                raise RunFolderError(f"{path} is in use by another prism-secure process") from None
        try:
            self._open(config)
        except BaseException:
            self.close()
            raise

    def _open(self, config: Config) -> None:
        path = self.path
        for name in ("checkpoint", "clients", "samples"):
            make_folder(path / name)
        if not (path / "federation.id").exists():
            write_atomic(path / "federation.id", secrets.token_hex(16).encode())
        self.federation = (path / "federation.id").read_text("ascii")
        if not self.config_path.exists():
            write_atomic(self.config_path, dump_config(config).encode())
        elif determining(kept := read_config(path)) != determining(config):
            raise RunFolderError(
                f"{path} was started with another configuration ({_differences(kept, config)}); "
                "repeat its settings to continue, or choose another folder with --out"
            )

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
    def model_path(self) -> Path:
        return self.path / "model.safetensors"

    def sample_path(self, round_number: int) -> Path:
        return self.path / "samples" / f"round-{round_number:04d}.png"

    @property
    def done(self) -> bool:
        return (self.path / "DONE").exists()

    def append(self, record: RoundRecord) -> None:
        """Keep a round's record, once: a round that is repeated after a kill is not written twice."""
        if all(kept.round != record.round for kept in read_records(self.path)):
            append_line(self.path / "metrics.jsonl", encode(record))

    def start(self) -> None:
        """Forget how an earlier attempt failed."""
        (self.path / "FAILED").unlink(missing_ok=True)

    def finish(self, message: str) -> None:
        """Mark the run as complete."""
        write_atomic(self.path / "DONE", f"{message}\n".encode())

    def fail(self, message: str) -> None:
        """Leave the reason why the run stopped; running again removes it and continues."""
        write_atomic(self.path / "FAILED", f"{message}\n".encode())


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


def _lacking(path: Path) -> str:
    if not path.exists():
        return "it does not exist"
    if (path / SWEEP_RECIPE).exists():
        return f"it is a sweep, whose runs are {path / 'runs'}/*"
    return f"it has no config.toml; `prism-secure list {path}` finds the runs and sweeps below it"


def _differences(kept: Config, given: Config) -> str:
    old, new = dump_config(kept).splitlines(), dump_config(given).splitlines()
    return "; ".join(
        [f"there: {line}" for line in old if line not in new]
        + [f"now: {line}" for line in new if line not in old]
    )
