"""The privacy ledger: what was released, and what it cost, in a file that cannot be quietly changed.

One JSON object a line. The first line is the header; every other line is one :class:`LedgerEntry`. A line
is ``{"body":...,"signature":...}`` in one canonical form (sorted keys, no spaces, ASCII), its body carries
the line's index and the SHA-256 of the line before it, and the signature is the writer's Ed25519 signature
on the body. So no line can be edited, removed, inserted, repeated, reordered or moved to another ledger.

A chain alone cannot show that its *last* lines were cut off, so a small signed file beside it,
``<name>.head``, says how many lines there are. It is written after the line it counts. Two things remain
possible for somebody who can write both files: to cut off last lines and delete the head file, which a
report shows as ``end_checked=False`` and the next writer refuses; and to put back an older copy of both,
which whoever wrote down a head can find out (``verify(head=...)``). So a reader who was not given a head
should insist on ``end_checked``, and one who was should pass it.

A process killed at any moment leaves whole lines and at most one torn line at the end, without its
newline. Readers ignore a torn line; the next writer cuts it off. Whatever :meth:`Ledger.append` returned
from is on disk.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from prism_privacy import _validate
from prism_privacy.durable_files import replace_file
from prism_privacy.errors import InvalidParameter, LedgerError
from prism_privacy.ledger.check import (
    LedgerReport,
    check_ledger,
    counted_lines,
    head_path,
    load_bytes,
    says_of_persons,
)
from prism_privacy.ledger.entry import (
    PERSON_WORDS,
    UNIT_WORDS,
    Coins,
    EpsilonTable,
    Json,
    Kind,
    LedgerEntry,
    RecordGuarantee,
    delta_warnings,
    json_safe,
)
from prism_privacy.ledger.key import LedgerKey, public_key_bytes
from prism_privacy.ledger.line import ZERO_HASH, encode_head, encode_line, line_hash
from prism_privacy.ledger.order import EntryOrder
from prism_privacy.moments.release import ADJACENCY_WORDS
from prism_privacy.units import Unit


class Release(Protocol):
    """Any release that can say what it is."""

    def as_dict(self) -> Mapping[str, Json]: ...


class Ledger:
    """A ledger open for appending; one writer at a time. Use as a context manager, or :meth:`close` it.

    >>> import tempfile
    >>> from prism_privacy.masks.release import MaskRelease
    >>> folder = Path(tempfile.mkdtemp())
    >>> with Ledger.create(folder / "ledger.jsonl", LedgerKey(), federation="docs", clients=10) as ledger:
    ...     _ = ledger.append(round=1, release=MaskRelease(0.25, 1.0, cohort=8), delta=1e-5, epsilon=None)
    >>> Ledger.verify(folder / "ledger.jsonl").entries[0].release["clip"]
    1.0
    """

    def __init__(self, path: Path, key: LedgerKey) -> None:
        """Use :meth:`create` or :meth:`open`."""
        self._path = path
        self._key = key
        self._descriptor = -1
        self._entries: list[LedgerEntry] = []
        self._order = EntryOrder()
        self._lines = 0
        self._hash = ZERO_HASH
        self._clients: int | None = None
        self._records: int | None = None
        self._settings: Mapping[str, Any] = {}

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        key: LedgerKey,
        *,
        federation: str,
        clients: int | None = None,
        records: int | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Self:
        """A new ledger with its header on disk.

        Args:
            path: where; it must not exist.
            key: the writer's key; its public half is written into the header.
            federation: the federation's id, not empty.
            clients: how many clients there are; warns where delta >= 1/clients.
            records: how many records a client has (the most), the same for record-level guarantees.
            settings: anything else that holds for all lines, JSON-safe. With ``{"record": "person"}`` a
                record is a person, with all images of one.

        Raises:
            LedgerError: the file exists, another process is writing it, or it is gone and its head file
                counts entries: they were charged, and a new ledger would not say so.
            InvalidParameter: an argument of the wrong form.
        """
        target = Path(path)
        if not isinstance(federation, str) or not federation:
            raise InvalidParameter(f"federation must be a non-empty string, got {federation!r}")
        words = {str(unit): said for unit, said in UNIT_WORDS.items()} | ADJACENCY_WORDS
        if says_of_persons(settings or {}):
            words[str(Unit.RECORD)] = PERSON_WORDS
        units: dict[str, Json] = {**words}
        body: dict[str, Json] = {
            "kind": "header",
            "federation": federation,
            "public_key": key.public_key.hex(),
            "clients": None if clients is None else _validate.count("clients", clients),
            "records": None if records is None else _validate.count("records", records),
            "units": units,
            "settings": json_safe(settings or {}, "settings"),
        }
        if target.exists():
            raise LedgerError(f"{target} exists already: open it, or write to another folder")
        if (counted := counted_lines(target)) > 1:
            raise LedgerError(f"{target} is gone, but its head file counts {counted} lines: put it back")
        line = encode_line(key, body, index=0, previous=ZERO_HASH)
        replace_file(head_path(target), encode_head(key, 1, line_hash(line)))
        replace_file(target, line + b"\n")
        return cls.open(target, key)

    @classmethod
    def open(cls, path: str | os.PathLike[str], key: LedgerKey) -> Self:
        """An existing ledger, checked from its first line on, ready for the next entry.

        A torn last line is cut off; a head file that is one line behind is brought up to date.

        Raises:
            LedgerError: anything else is wrong with it, ``key`` did not write it, its head file is
                missing, or another process is writing it.
        """
        ledger = cls(Path(path), key)
        ledger._lock()
        try:
            ledger._load()
        except BaseException:
            ledger.close()
            raise
        return ledger

    def append(
        self,
        *,
        round: int,
        release: Release | Mapping[str, Any],
        delta: float,
        epsilon: EpsilonTable | None,
        cohort: int | None = None,
        colluders: int = 0,
        metrics: Mapping[str, Any] | None = None,
        record: RecordGuarantee | None = None,
        coins: Coins = "secret",
        kind: Kind = "round",
    ) -> LedgerEntry:
        """Write one entry; it is on disk when this returns.

        Args:
            round: its number: one more than the last round's (:mod:`prism_privacy.ledger.order` has the rule
                for every kind).
            release: what was released (a ``MaskRelease``, or a JSON-safe mapping).
            delta: of every epsilon in the table.
            epsilon: {(View, Adjacency): Spent}, all four (`prism_privacy.ledger.spent_table` makes them), or
                None: nothing is claimed. It must be None with ``coins="test"``.
            cohort: the guaranteed honest cohort; taken from the release by default.
            colluders: clients assumed to side with the server.
            metrics: whatever was measured; infinities are written ``"inf"``, NaN ``"nan"``.
            record: the record-level guarantee of everything that is ever released of a record, or None; the
                same in every entry that has one. Of measured rounds what they have spent so far
                (``RecordGuarantee.measured``), in every entry.
            coins: ``"test"`` if the coins were known.
            kind: see :class:`LedgerEntry`.

        Raises:
            InvalidParameter: the entry breaks the schema, its number leaves a gap or repeats a round, its
                epsilon to date falls, or it states a second record-level guarantee; nothing was written.
            LedgerError: the ledger is closed or ended; nothing was written.
            OSError: the disk is full or broken; the file is put back to its last whole line.
        """
        parameters = json_safe(release if isinstance(release, Mapping) else release.as_dict(), "release")
        if cohort is None:
            cohort = parameters.get("cohort")
        entry = LedgerEntry(
            kind=kind,
            round=round,
            release=parameters,
            cohort=_validate.count("cohort", cohort),
            colluders=colluders,
            delta=_validate.delta(delta),
            coins=coins,
            epsilon=epsilon,
            record=record,
            metrics=json_safe(metrics or {}, "metrics", nan=True),
            warnings=delta_warnings(delta, self._clients, self._records),
        )
        if self._descriptor < 0:
            raise LedgerError(f"{self._path} is closed")
        if self._entries:
            last = self._entries[-1]
            if last.kind == "end":
                raise LedgerError(f"{self._path} was ended in round {last.round}; nothing can follow")
        self._order.check(entry)
        line = encode_line(self._key, entry.to_json(), index=self._lines, previous=self._hash)
        self._write(line)
        self._lines += 1
        self._hash = line_hash(line)
        self._entries.append(entry)
        self._order.take(entry)
        return entry

    @property
    def entries(self) -> tuple[LedgerEntry, ...]:
        """Every entry, oldest first, the header left out."""
        return tuple(self._entries)

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the header says that holds for all lines."""
        return self._settings

    @property
    def head(self) -> str:
        """SHA-256 of the last line: who writes it down can later show that nothing was cut off."""
        return self._hash

    @property
    def path(self) -> Path:
        """Where the ledger is."""
        return self._path

    @staticmethod
    def verify(
        path: str | os.PathLike[str],
        public_key: bytes | str | Ed25519PublicKey | LedgerKey | None = None,
        *,
        head: str | None = None,
    ) -> LedgerReport:
        """Check a ledger without changing it; see :func:`verify_ledger`."""
        return verify_ledger(path, public_key, head=head)

    def close(self) -> None:
        """Let another writer in; closing twice is fine."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Ledger({str(self._path)!r}, {len(self._entries)} entries)"

    def _lock(self) -> None:
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            raise LedgerError(f"{self._path} does not exist") from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise LedgerError(f"{self._path} is being written by another process") from None

    def _load(self) -> None:
        content = load_bytes(self._path)
        report = check_ledger(self._path, content, self._key.public_key, need_head=True, head=None)
        self._entries = list(report.entries)
        for entry in self._entries:
            self._order.take(entry)
        self._lines = report.lines
        self._hash = report.head
        self._clients, self._records = report.clients, report.records
        self._settings = report.settings
        if report.torn_bytes:
            os.ftruncate(self._descriptor, len(content) - report.torn_bytes)
            os.fsync(self._descriptor)
        replace_file(head_path(self._path), encode_head(self._key, self._lines, self._hash))

    def _write(self, line: bytes) -> None:
        size = os.fstat(self._descriptor).st_size
        try:
            rest = memoryview(line + b"\n")
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
            replace_file(head_path(self._path), encode_head(self._key, self._lines + 1, line_hash(line)))
        except OSError:
            os.ftruncate(self._descriptor, size)
            raise


def verify_ledger(
    path: str | os.PathLike[str],
    public_key: bytes | str | Ed25519PublicKey | LedgerKey | None = None,
    *,
    head: str | None = None,
) -> LedgerReport:
    """Check every line of a ledger: form, order, chain, signatures, schema, and its head file.

    Order means: rounds without a gap or a repeat, an epsilon to date that never falls, one record-level
    guarantee (:mod:`prism_privacy.ledger.order`). Without a head file the end is *not* checked, and the
    report says ``end_checked=False``: last lines may be gone, with all that they had spent.

    Args:
        path: the ledger; its head file is looked for beside it.
        public_key: the key that the writer is known by (32 bytes, 64 hexadecimal digits, or an object).
            None: the key named in the file itself, which shows that the file is in one piece but not
            whose it is; the report then says ``pinned=False``.
        head: a line hash that somebody wrote down: it must be on the chain.

    Returns:
        What was found, with the entries; see :class:`LedgerReport`.

    Raises:
        LedgerError: naming the first line that is wrong (also as ``.line``, from 1) and what is wrong.
    """
    known = None if public_key is None else public_key_bytes(public_key)
    target = Path(path)
    return check_ledger(target, load_bytes(target), known, need_head=False, head=head)
