"""Tables of plain rows, and what becomes of them: CSV for people, Arrow and Parquet for programs."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prism_secure.accounting.epsilons import Epsilons
from prism_secure.errors import MissingPackage, pip_install
from prism_secure.run_folder.records import Quality, RoundRecord

if TYPE_CHECKING:
    import pyarrow

__all__ = ["ROUND_COLUMNS", "Cell", "Table", "round_rows", "setting", "uniform"]

Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Table:
    """Rows of plain values; None and NaN are what was not measured.

    >>> table = Table("points", ("flip", "fid"), [(0.0, 91.5), (0.1, None)])
    >>> table.csv()
    'flip,fid\\n0.0,91.5\\n0.1,\\n'
    """

    name: str
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]

    def csv(self) -> str:
        """With a header; an infinite epsilon is written "inf", what is missing is left empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_shown(cell) for cell in row] for row in self.rows)
        return text.getvalue()

    def arrow(self) -> pyarrow.Table:
        """The table as a `pyarrow.Table`; a column in which all is missing holds numbers.

        Raises:
            ConfigError: pyarrow is not installed.
        """
        arrow = _import_pyarrow()
        columns = zip(*self.rows, strict=True) if self.rows else ([] for _ in self.columns)
        arrays = {}
        for name, column in zip(self.columns, columns, strict=True):
            cells = [None if _missing(cell) else cell for cell in column]
            kind = arrow.float64() if all(cell is None for cell in cells) else None
            arrays[name] = arrow.array(cells, type=kind)
        return arrow.table(arrays)

    def parquet(self) -> bytes:
        """`arrow` as a Parquet file.

        Raises:
            ConfigError: pyarrow is not installed.
        """
        table = self.arrow()
        import pyarrow.parquet

        file = io.BytesIO()
        pyarrow.parquet.write_table(table, file)
        return file.getvalue()


_EPSILONS = tuple(name for name in Epsilons.__struct_fields__ if name != "unit")
_COSTS = (
    "bits_per_parameter", "uplink_bytes", "downlink_bytes", "step", "seconds", "secure_sum_seconds",
    "changed", "server_loss",
)  # fmt: skip
ROUND_COLUMNS = (
    "round",
    "survivors",
    *Quality.__struct_fields__,
    *(f"epsilon_to_date.{name}" for name in _EPSILONS),
    "epsilon_to_date.record",
    "epsilon_to_date.record_upload",
    *_COSTS,
)
"""What is known of a finished round: see `prism_secure.run_folder.records`."""


def round_rows(records: Iterable[RoundRecord]) -> Iterator[tuple[Cell, ...]]:
    """A row for each finished round, in the order of `ROUND_COLUMNS`."""
    for record in records:
        yield (
            record.round,
            record.survivors,
            *(getattr(record.quality, name, None) for name in Quality.__struct_fields__),
            *(getattr(record.epsilon, name) for name in _EPSILONS),
            getattr(record.record, "epsilon", None),
            getattr(record.record, "upload", None),
            *(getattr(record, name) for name in _COSTS),
        )


def setting(value: Any) -> Cell:
    """Lists as JSON has them: a cell holds one value."""
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value)


def uniform(rows: list[tuple[Cell, ...]]) -> list[tuple[Cell, ...]]:
    """Columns of numbers with words among them ("none" beside 1.0) become words: a column has one type."""
    columns = []
    for column in zip(*rows, strict=True):
        kinds = {type(cell) for cell in column if not _missing(cell)}
        if len(kinds) > 1:
            numbers = kinds <= {int, float}
            column = tuple(cell if _missing(cell) else (float if numbers else str)(cell) for cell in column)
        columns.append(column)
    return list(zip(*columns, strict=True))


def _missing(cell: Cell) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _shown(cell: Cell) -> Cell:
    return "" if _missing(cell) else str(cell).lower() if isinstance(cell, bool) else cell


def _import_pyarrow() -> Any:
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise MissingPackage(f"tables for programs need {error.name}: {pip_install('parquet')}") from None
    return pyarrow
