"""A run's epsilons: one client's four, by who looks and by which worlds are compared, and one image's."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from prism_privacy.ledger.entry import Spent
from prism_privacy.units import Adjacency, View
from prism_secure.wording import CLIENT_UNIT, RECORD_UNIT

__all__ = ["AFTER_MOMENTS", "CELLS", "Cell", "Epsilons", "RecordEpsilon", "own_cost"]

Cell = tuple[View, Adjacency]
CELLS: tuple[Cell, ...] = tuple((view, adjacency) for view in View for adjacency in Adjacency)

AFTER_MOMENTS = "post-processing of the summed moments"
"""The bound of rounds whose masks are made of moments that were opened before."""


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
        return cls(
            sum_zero_out=table[View.SUM, Adjacency.ZERO_OUT],
            sum_replace_one=table[View.SUM, Adjacency.REPLACE_ONE],
            upload_zero_out=table[View.UPLOAD, Adjacency.ZERO_OUT],
            upload_replace_one=table[View.UPLOAD, Adjacency.REPLACE_ONE],
        )

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


class RecordEpsilon(msgspec.Struct, frozen=True, kw_only=True):
    """Epsilon of one image, or of one person, over all rounds: fixed by one release before the first, it does
    not grow. With measured rounds it does: then it is to date."""

    epsilon: float
    """Of measured rounds: against an observer of the sums."""
    delta: float
    adjacency: str
    """"swap": the image is replaced by any other, its label included."""
    unit: str = RECORD_UNIT
    """In words: an image, or with `data.person` a person."""
    view: str | None = None
    """"sum" or "upload", as `prism_privacy.RecordGuarantee` has it; None in records that do not say."""
    cohort: int | None = None
    """Under "sum": how many honest clients' noise it counts on."""
    upload: float | None = None
    """Of measured rounds: to date, against an observer of the uploads of the image's client in the clear."""


def own_cost(cost: Spent) -> float:
    """What a release cost on top of those before it: nothing, for masks that are made of opened moments."""
    if cost.added is not None:
        return cost.added
    return 0.0 if cost.bound == AFTER_MOMENTS else cost.round
