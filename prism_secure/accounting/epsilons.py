"""One client's four epsilons: by who looks, and by which worlds are compared."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from prism_privacy.units import Adjacency, View
from prism_secure.wording import CLIENT_UNIT

__all__ = ["CELLS", "Cell", "Epsilons"]

Cell = tuple[View, Adjacency]
CELLS: tuple[Cell, ...] = tuple((view, adjacency) for view in View for adjacency in Adjacency)


class Epsilons(msgspec.Struct, frozen=True, kw_only=True):
    """Epsilon to date of one client, by view and adjacency."""

    sum_zero_out: float
    sum_replace_one: float
    upload_zero_out: float
    upload_replace_one: float
    unit: str = CLIENT_UNIT

    @classmethod
    def of(cls, table: Mapping[Cell, float]) -> Epsilons:
        """From a table of all four.

        >>> Epsilons.of(dict.fromkeys(CELLS, 1.0) | {(View.SUM, Adjacency.ZERO_OUT): 0.5}).sum_zero_out
        0.5
        """
        return cls(**{f"{view}_{adjacency}": table[view, adjacency] for view, adjacency in CELLS})

    def at(self, view: View | str, adjacency: Adjacency | str) -> float:
        """One of the four.

        >>> Epsilons.of(dict.fromkeys(CELLS, 2.0)).at("sum", "replace_one")
        2.0
        """
        return float(getattr(self, f"{View(view)}_{Adjacency(adjacency)}"))

    @property
    def table(self) -> dict[Cell, float]:
        """All four; the inverse of `of`."""
        return {cell: self.at(*cell) for cell in CELLS}
