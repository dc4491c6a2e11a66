"""results.jsonl, one JSON object a line: what is in it is not made again, and how seeds scatter."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prism_privacy.ledger.entry import json_safe


def read(path: Path) -> list[dict[str, Any]]:
    """All lines; none where there is no file yet."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def done(path: Path, name: str, key: str = "name") -> bool:
    """Whether a line of this name is there."""
    return any(line[key] == name for line in read(path))


def append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add lines, those of a whole run at once: then a name stands for all of it."""
    text = "".join(json.dumps(json_safe(dict(row), nan=True)) + "\n" for row in rows)
    with path.open("a") as file:
        file.write(text)


def spread(values: Sequence[float], form: str) -> str:
    """The mean and, of several, from where to where.

    >>> spread([1.0], ".1f"), spread([1.0, 2.0], ".1f")
    ('1.0', '1.5 (1.0 to 2.0)')
    """
    mean = format(statistics.fmean(values), form)
    return mean if len(values) == 1 else f"{mean} ({min(values):{form}} to {max(values):{form}})"
