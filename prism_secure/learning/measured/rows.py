"""How many rows of the public basis to ask along: more of them are finer, and spread the same budget thinner.

The public model says what rounds leave, before any and without an image: a coordinate's variance p becomes v.
Its answers weigh 1 − v/p, so v(1 − v/p) of v is their noise, and v²/p what was drawn towards the guess; with
what lies beyond the rows, that stays unknown. The rule: where noise is at most half of what stays unknown, as
many rows as leave the least unknown. What nobody asked is left to chance, while noise spread over many rows
hurts little; with a very small budget more rows leave more unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prism_privacy import MeasuredRelease
from prism_secure.learning.measured.directions import AskedRows, principal_directions
from prism_secure.learning.measured.prior import Prior
from prism_secure.learning.measured.row_posterior import RowPosterior

Array = NDArray[np.float64]

ROWS = (120, 150, 200, 250, 300, 350, 400, 450, 500, 600, 700, 800, 900, 1000)
"""How many rows the rule chooses among."""
SPECTRUM = 2000
"""Of so many rows it sees the variance."""
NOISE = 0.5
"""The most noise, as a share of what stays unknown."""


@dataclass(frozen=True)
class Expected:
    """What rounds leave of a class's mean, root mean squares over classes.

    Attributes:
        noise: of answers.
        unknown: what was drawn towards the guess, and what lies beyond the rows.
    """

    noise: float
    unknown: float


def expected_rounds(
    plan: Sequence[MeasuredRelease],
    prior: Prior,
    spectrum: Array,
    *,
    clients: int,
    length: Callable[[RowPosterior, AskedRows, MeasuredRelease], float],
) -> Expected:
    """What the rounds of `plan` are expected to leave.

    Args:
        plan: the releases, in order.
        prior: over as many rows as are asked along.
        spectrum: variance along these rows and all others, in the prior's units.
        clients: how many answer a round.
        length: A of a round, from what is known before it and what it asks.
    """
    posterior = RowPosterior.start(prior)
    for planned in plan:
        count = min(planned.directions, prior.variances.size)
        asked = principal_directions(prior, posterior.variances, count, prior.spectrum)
        noise = 0.25 / clients * (length(posterior, asked, planned) / planned.clip) ** 2
        posterior = posterior.answered(asked, np.zeros(count), noise)
    left, before = posterior.variances, prior.variances
    beyond = (prior.own + prior.shared) * float(spectrum[len(prior.spectrum) :].sum())
    return Expected(
        math.sqrt((left * (1 - left / before)).sum() / prior.classes),
        math.sqrt((left**2 / before).sum() / prior.classes + beyond),
    )


def best_rows(expected: Callable[[int], Expected], most: int) -> int:
    """The rule, by what is `expected` of so many rows of a basis that has `most`; the fewest if all have more
    noise.

    >>> best_rows(lambda rows: Expected(rows, 900 - rows), 2000), best_rows(lambda rows: Expected(1, 1), 2000)
    (300, 120)
    """
    choices = [rows for rows in ROWS if rows < most] + [most] * (most <= ROWS[-1])
    left = [expected(rows) for rows in choices]
    kept = [place for place, each in enumerate(left) if each.noise <= NOISE * each.unknown]
    return choices[min(kept, key=lambda place: left[place].unknown, default=0)]
