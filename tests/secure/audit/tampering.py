"""Run folders with planted bugs: what a wrong program, or somebody who edits files, would leave."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from prism_privacy import (
    Accountant,
    Adjacency,
    Ledger,
    LedgerEntry,
    LedgerKey,
    MaskRelease,
    Spent,
    View,
    spent_table,
    verify_ledger,
)
from prism_secure.accounting.epsilons import Epsilons
from prism_secure.audit.run_audit import RunAudit
from prism_secure.config import load_config
from prism_secure.rounds.simulation import run
from prism_secure.run_folder.folder import read_records
from prism_secure.run_folder.records import encode

from .. import tiny_data

SETTINGS = [
    *tiny_data.TINY,
    "federation.clients=5",
    "federation.rounds=3",
    "federation.local_steps=1",
    "training.batch_size=10",
    "metrics.every=3",
    "privacy.flip=0.25",
    "privacy.clip=1.0",
    "privacy.record_epsilon=inf",
    "privacy.record_release=client",
    "privacy.colluders=1",
    "secure_sum.min_survivors=4",
]
"""A cohort of 3: five clients, one of whom may drop out, and one of the rest sides with the server."""


def make(folder: Path, *overrides: str) -> Path:
    """A real run."""
    data = tiny_data.write_data(folder.parent / "data")
    run(load_config(None, [*SETTINGS, f"data.folder={data}", *overrides]), folder)
    return folder


def copy(source: Path, target: Path) -> Path:
    """A copy to spoil."""
    shutil.copytree(source, target)
    return target


def caught_by(audit: RunAudit) -> set[str]:
    """The checks that have a finding."""
    return {answer.name for answer in audit.answers if answer.outcome == "finding"}


def texts(audit: RunAudit) -> str:
    """Everything that was found, in one text."""
    return "\n".join(found.text for found in audit.findings)


Edit = Callable[[LedgerEntry], dict[str, Any] | None]


def rewrite(folder: Path, edit: Edit, *, key: LedgerKey | None = None, with_end: bool = True) -> None:
    """Write the ledger and metrics.jsonl as a program with a bug would have: chained, signed, consistent.

    `edit` gives the fields of an entry that the bug changes, or None to leave the entry out.
    """
    path = folder / "ledger.jsonl"
    report = verify_ledger(path)
    path.unlink()
    (folder / "ledger.jsonl.head").unlink()
    writer = key or LedgerKey.load(folder / "ledger.key")
    kept = []
    with Ledger.create(
        path,
        writer,
        federation=report.federation,
        clients=report.clients,
        records=report.records,
        settings=report.settings,
    ) as ledger:
        for entry in report.entries:
            if entry.kind == "end" and not with_end:
                continue
            last = entry.kind == "end"  # it repeats what the program believes was spent
            changes = {"kind": "end", "metrics": entry.metrics} if last else edit(entry)
            if changes is None:
                continue
            names = ("kind", "round", "release", "cohort", "colluders", "delta", "epsilon", "record", "coins")
            source = kept[-1] if last else entry
            fields = {name: getattr(source, name) for name in names} | {"metrics": entry.metrics}
            kept.append(ledger.append(**(fields | changes)))
    show(folder, kept)


def show(folder: Path, entries: Sequence[LedgerEntry]) -> None:
    """metrics.jsonl with the ledger's epsilons."""
    by_round = {entry.round: entry for entry in entries if entry.kind == "round"}
    lines = []
    for record in read_records(folder):
        entry = by_round.get(record.round)
        if entry is not None and entry.epsilon is not None:
            shown = Epsilons(**{f"{v}_{a}": entry.epsilon[v, a].to_date for v in View for a in Adjacency})
            record = msgspec.structs.replace(record, epsilon=shown)
        lines.append(encode(record) + b"\n")
    (folder / "metrics.jsonl").write_bytes(b"".join(lines))


def accounted(*, rounds: Sequence[int], planned: int = 3, **changes: Any) -> Iterator[dict[str, Any]]:
    """Tables of the product's own accountant, told of other releases or fewer rounds than there were.

    `rounds` says of how many rounds each entry's epsilon to date is.
    """
    release = MaskRelease(**({"flip": 0.25, "clip": 1.0, "cohort": 3, "dim": 2804} | changes))
    for count in rounds:
        accountant = Accountant(delta=1e-5)
        accountant.plan(release, rounds=planned)
        accountant.spend(release, rounds=count)
        yield {"epsilon": spent_table(accountant, release), "release": release.as_dict()}


def with_zero_out_for_replace_one(entry: LedgerEntry) -> dict[str, Any]:
    """REPLACE_ONE accounted with a move of C."""
    assert entry.epsilon is not None
    return {
        "epsilon": {
            (view, adjacency): entry.epsilon[view, Adjacency.ZERO_OUT]
            for view in View
            for adjacency in Adjacency
        }
    }


def smaller(entry: LedgerEntry, factor: float) -> dict[str, Any]:
    """All epsilons times a factor."""
    assert entry.epsilon is not None
    table = {
        cell: dataclasses.replace(
            spent,
            round=spent.round * factor,
            to_date=spent.to_date * factor,
            planned=(spent.planned or 0) * factor,
        )
        for cell, spent in entry.epsilon.items()
    }
    assert all(isinstance(spent, Spent) for spent in table.values())
    return {"epsilon": table}


def lines_of(folder: Path) -> list[bytes]:
    """The ledger's lines."""
    return (folder / "ledger.jsonl").read_bytes().splitlines()


def write_lines(folder: Path, lines: Sequence[bytes]) -> None:
    """Put lines back as they are; the head file is left as it was."""
    (folder / "ledger.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))


def edited(line: bytes, path: Sequence[str], value: Any) -> bytes:
    """A ledger line with one field of its body changed, its signature kept."""
    whole = json.loads(line)
    inner = whole["body"]
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()
