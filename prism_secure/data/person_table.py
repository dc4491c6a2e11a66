"""Whose each picture of a folder is, by a table that lies in it.

    file,person
    a/0001.png,Ann
    b/0007.png,Ann

The columns have these names, and others may stand beside them. CSV, or TSV where the name ends in .tsv.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from prism_secure.data.raw import person_name
from prism_secure.errors import DataError

__all__ = ["read_persons"]

COLUMNS = ("file", "person")


def read_persons(path: Path) -> dict[Path, str]:
    """The person of each picture that the table at `path` names, by where the picture lies.

    Raises:
        DataError: there is no such table, or it lacks a column; a row is not of its header's length, names no
            person, another than a row before it, or a file that is not there.
    """
    try:
        lines = io.StringIO(path.read_text("utf-8-sig"), newline="")
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist: data.person = 'file' expects a table there (data.person_file), with the "
            "columns file and person in its header"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}") from None
    rows = csv.reader(lines, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
    found: dict[Path, str] = {}
    try:
        header = [name.strip() for name in next(rows, [])]
        for column in COLUMNS:
            if header.count(column) != 1:
                raise DataError(
                    f"{path} has {header.count(column) or 'no'} column{'s' * (column in header)} {column!r}; "
                    f"expected file and person, each once, in its header, which is: {', '.join(header)}"
                )
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(
                    f"{path}, line {rows.line_num}: expected {len(header)} fields, as in the header, got "
                    f"{len(row)}"
                )
            name, person = (row[header.index(column)].strip() for column in COLUMNS)
            person = person_name(person, f"{path}, line {rows.line_num}")
            if not person:
                raise DataError(f"{path} names no person in line {rows.line_num}")
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise DataError(
                    f"{path}, line {rows.line_num}: expected a file inside its folder, got {name}"
                )
            picture = path.parent / name
            if found.setdefault(picture, person) != person:
                raise DataError(f"{path} names two persons for {name}, the second in line {rows.line_num}")
    except csv.Error as error:
        raise DataError(f"{path} is damaged in line {rows.line_num}: {error}") from None
    if absent := [picture for picture in found if not picture.is_file()]:
        raise DataError(f"{path} names files that do not exist: {len(absent)}, the first is {absent[0]}")
    return found
