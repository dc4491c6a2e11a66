"""Checking a ledger, line by line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from prism_privacy import notebook
from prism_privacy.errors import InvalidParameter, LedgerError
from prism_privacy.ledger.entry import LedgerEntry
from prism_privacy.ledger.key import public_key_bytes
from prism_privacy.ledger.line import (
    CHAIN_FIELDS,
    VERSION,
    ZERO_HASH,
    decode_head,
    decode_line,
    line_hash,
    parse,
)
from prism_privacy.ledger.order import EntryOrder
from prism_privacy.units import Adjacency, View
from prism_privacy.wording import (
    SUM_NOT_RUN_WORDS,
    format_delta,
    format_epsilon,
    own_behaviour_words,
    own_features_words,
    own_network_words,
)

_HEADER_FIELDS = {"kind", "federation", "public_key", "clients", "records", "units", "settings"}
SUM_NOT_RUN: Final = {"secure_sum": "not run"}
"""Among a header's settings: what the lines call opened sums were added up in the clear, in one process."""
OWN_BEHAVIOUR: Final = "federation.behaviour"
"""The setting of a header that names what clients do, where it is code of the run's own."""
OWN_FEATURES: Final = "features.extractors"
"""The one that names what clients' images are seen through, where it is code of the run's own."""
OWN_NETWORK: Final = "model.network"
"""The one that names the generator, where it is code of the run's own."""
OWN_RULE: Final = "aggregation.rule"
"""The one that names the server's step, where it is code of the run's own: it sees opened sums alone."""
OF_PERSONS: Final = {"record": "person"}
"""Among a header's settings: a record is all images of one person with its client."""


@dataclass(frozen=True)
class LedgerReport:
    """A ledger in which nothing is wrong.

    Attributes:
        path: the file.
        federation: the federation it belongs to.
        public_key: the writer's key, 64 hexadecimal digits.
        pinned: True if the caller named the key; False if it was taken from the file, so that a ledger
            rewritten from its first line with another key would look the same.
        lines: whole lines, the header included.
        entries: every entry, oldest first.
        head: SHA-256 of the last line.
        end_checked: True if the signed head file was there and agrees; False if it is missing, so that
            last lines may have been cut off unseen: whoever can write the ledger can delete the head file as
            well, and then nothing in what is left shows that more was spent. A report with ``end_checked``
            False speaks of its first ``lines`` lines only; a head that was written down elsewhere
            (``verify(head=...)``) is what shows that they reach at least that far.
        torn_bytes: length of an unfinished last line, 0 if there is none. It holds no entry.
        complete: True if the last entry says that the run is over.
        clients, records: as the header says.
        settings: as the header says.
        warnings: what the header warns of, then every warning of every entry, each once.
    """

    path: Path
    federation: str
    public_key: str
    pinned: bool
    lines: int
    entries: tuple[LedgerEntry, ...]
    head: str
    end_checked: bool
    torn_bytes: int
    complete: bool
    clients: int | None
    records: int | None
    settings: dict[str, Any]
    warnings: tuple[str, ...]

    @property
    def sum_not_run(self) -> bool:
        """Whether there was no secure sum, so that epsilon(SUM) is what it would be with one."""
        return says_sum_not_run(self.settings)

    @property
    def one_record(self) -> str:
        """What a record is: an "image", or a "person" with all images of one."""
        return "person" if says_of_persons(self.settings) else "image"

    def _repr_html_(self) -> str:
        """For notebooks: whether it is whole, and what its last line charged."""
        end = "intact to its end" if self.end_checked else "intact; its end is not checked"
        rows: list[tuple[object, ...]] = [
            ("ledger", end),
            ("run", "over" if self.complete else "not over"),
            ("key", self.public_key),
            ("lines", self.lines),
        ]
        if self.entries:
            last = self.entries[-1]
            rows.append(("δ", format_delta(last.delta)))
            for view in reversed(View):
                for adjacency in Adjacency:
                    cost = last.spent(view, adjacency)
                    words = f"{format_epsilon(cost.to_date)} to date"
                    if cost.planned is not None:
                        words += f", {format_epsilon(cost.planned)} planned"
                    rows.append((f"ε(one client, {view}, {adjacency})", words))
            record = next((entry.record for entry in reversed(self.entries) if entry.record), None)
            if record is not None:
                rows.append((f"ε(one {self.one_record}, {record.adjacency})", format_epsilon(record.epsilon)))
        rows += [("warning", warning) for warning in self.warnings]
        return notebook.table(str(self.path), rows)


def says_of_persons(settings: Mapping[str, Any]) -> bool:
    """Whether a header with these settings says that a record is a person."""
    return all(settings.get(name) == value for name, value in OF_PERSONS.items())


def says_sum_not_run(settings: Mapping[str, Any]) -> bool:
    """Whether a header with these settings says that no secure sum was run."""
    return all(settings.get(name) == value for name, value in SUM_NOT_RUN.items())


def head_path(path: Path) -> Path:
    """The head file of the ledger at ``path``."""
    return path.with_name(path.name + ".head")


def counted_lines(path: Path) -> int:
    """Lines that the head file of the ledger at ``path`` counts, its signature unchecked; 0 without one."""
    file = head_path(path)
    if not file.exists():
        return 0
    try:
        return int(parse(load_bytes(file).removesuffix(b"\n"))["body"]["lines"])
    except (InvalidParameter, KeyError, TypeError, ValueError):
        raise LedgerError(f"{file} is not the head file of a ledger") from None


def load_bytes(path: Path) -> bytes:
    """The file's content, or a :class:`LedgerError` that says why not."""
    try:
        return path.read_bytes()
    except OSError as cause:
        raise LedgerError(f"{path} cannot be read: {cause.strerror}") from None


def check_ledger(
    path: Path, content: bytes, public_key: bytes | None, *, need_head: bool, head: str | None
) -> LedgerReport:
    """See :func:`prism_privacy.ledger.verify_ledger`; ``need_head`` refuses a missing head file."""
    *lines, torn = content.split(b"\n")
    if not lines:
        raise LedgerError(f"{path} has no header line")
    header = _header(path, lines[0], public_key)
    key = bytes.fromhex(header["public_key"])
    entries: list[LedgerEntry] = []
    hashes = [line_hash(lines[0])]
    order = EntryOrder()
    for number, line in enumerate(lines[1:], start=2):
        try:
            body = decode_line(line, key)
            _check_chain(body, index=number - 1, previous=hashes[-1])
            entry = LedgerEntry.from_line(body)
            order.check(entry)
        except InvalidParameter as cause:
            raise LedgerError(f"{path}, line {number}: {cause}", line=number) from None
        order.take(entry)
        entries.append(entry)
        hashes.append(line_hash(line))
    warnings = [SUM_NOT_RUN_WORDS] if says_sum_not_run(header["settings"]) else []
    if (own := header["settings"].get(OWN_BEHAVIOUR)) is not None:
        warnings.append(own_behaviour_words(own))
    if (own := header["settings"].get(OWN_FEATURES)) is not None:
        warnings.append(own_features_words(own))
    if (own := header["settings"].get(OWN_NETWORK)) is not None:
        warnings.append(own_network_words(own))
    warnings += [word for entry in entries for word in entry.warnings]
    end_checked = _check_head_file(path, key, hashes, need_head=need_head)
    if head is not None and head not in hashes:
        raise LedgerError(f"{path}: the head {head} is not on its chain of {len(hashes)} lines")
    return LedgerReport(
        path=path,
        federation=header["federation"],
        public_key=header["public_key"],
        pinned=public_key is not None,
        lines=len(lines),
        entries=tuple(entries),
        head=hashes[-1],
        end_checked=end_checked,
        torn_bytes=len(torn),
        complete=bool(entries) and entries[-1].kind == "end",
        clients=header["clients"],
        records=header["records"],
        settings=header["settings"],
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _header(path: Path, line: bytes, public_key: bytes | None) -> dict[str, Any]:
    try:
        version, claimed = (parse(line)["body"].get(name) for name in ("version", "public_key"))
        if version != VERSION:
            raise InvalidParameter(f"version {version!r}, expected {VERSION!r}")
        if not isinstance(claimed, str):
            raise InvalidParameter("the header names no public key")
        key = public_key_bytes(claimed)
        if public_key is not None and key != public_key:
            raise InvalidParameter(f"written with key {claimed}, expected {public_key.hex()}")
        body = decode_line(line, key)
        if set(body) != _HEADER_FIELDS | CHAIN_FIELDS or body["kind"] != "header":
            raise InvalidParameter("the header's fields are not those of a ledger")
        if not isinstance(body["settings"], dict):
            raise InvalidParameter("the header's settings must be an object")
        _check_chain(body, index=0, previous=ZERO_HASH)
    except InvalidParameter as cause:
        raise LedgerError(f"{path}, line 1: {cause}", line=1) from None
    return body


def _check_chain(body: dict[str, Any], *, index: int, previous: str) -> None:
    if body.get("version") != VERSION:
        raise InvalidParameter(f"version {body.get('version')!r}, expected {VERSION!r}")
    if body.get("index") != index:
        raise InvalidParameter(
            f"it was written as line {_one_more(body.get('index'))}: lines were removed, inserted or moved"
        )
    if body.get("previous") != previous:
        raise InvalidParameter("the line before it is not the one it was written after")


def _one_more(index: object) -> str:
    return str(index + 1) if isinstance(index, int) else repr(index)


def _check_head_file(path: Path, key: bytes, hashes: list[str], *, need_head: bool) -> bool:
    """The head file may be one line behind: a writer was killed between the line and the head."""
    file = head_path(path)
    if not file.exists():
        if need_head:
            raise LedgerError(f"{file} is missing: lines at the end of {path} may have been removed")
        return False
    try:
        lines, last = decode_head(load_bytes(file), key)
    except InvalidParameter as cause:
        raise LedgerError(f"{file}: {cause}") from None
    if lines > len(hashes):
        raise LedgerError(
            f"{path}, line {len(hashes) + 1}: missing; {lines} lines were written and {len(hashes)} are here",
            line=len(hashes) + 1,
        )
    if lines < len(hashes) - 1 or hashes[lines - 1] != last:
        raise LedgerError(f"{file} belongs to another state of {path}: {lines} lines, hash {last[:16]}...")
    return True
