"""What no correct account of a ledger can go below: the exact loss of one explicit pair of worlds.

The accountant proves that epsilon is enough for all pairs of worlds; the pair here shows how much is needed.
The protected client moves some coordinates of its probabilities as far as the settings allow, in every round,
the others stand where they hide it worst, and the privacy loss of what is released is composed numerically,
rounded down (Koskela et al. 2020; dp_accounting's optimistic estimates). The truth for all pairs lies between
this and the ledger's epsilon.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from dp_accounting.pld import privacy_loss_distribution as pld
from numpy.typing import NDArray
from scipy import stats

from prism_privacy import Adjacency, View
from prism_secure.audit import oracle
from prism_secure.audit.checks.record_epsilon import summed_release
from prism_secure.audit.evidence import Evidence
from prism_secure.audit.findings import Recomputed
from prism_secure.audit.oracle import Mask
from prism_secure.run_folder.history import LowerBound

_LARGEST = 200.0
"""Above, composing on a fine grid takes long, and it no longer matters how tight a bound is."""
_GRID = (1e-6, 1e-3)
"""The finest and the coarsest grid of losses: rounding down costs half a step for each count."""

Floats = NDArray[np.float64]


def lower_bounds(evidence: Evidence, recomputed: list[Recomputed]) -> list[LowerBound]:
    """One bound per view and adjacency, at the end of the ledger, where one can be computed in seconds."""
    if not recomputed:
        return []
    masks = {oracle.of_a_client(entry.release) for entry in evidence.charges}
    delta = evidence.charges[-1].delta
    if len(masks) != 1 or summed_release(evidence) is not None:
        return []
    (mask,) = masks
    found = []
    for cell in recomputed:
        summed, replaced = cell.view == View.SUM, cell.adjacency == Adjacency.REPLACE_ONE
        bound = floor(mask, cell.rounds, delta, cell.oracle, summed=summed, replaced=replaced)
        if bound is not None:
            found.append(
                LowerBound(
                    unit="client",
                    view=cell.view,
                    adjacency=cell.adjacency,
                    epsilon=bound,
                    confidence=1.0,
                    method="exact loss of an explicit pair of worlds",
                )
            )
    return found


@lru_cache(maxsize=256)
def floor(
    mask: Mask, rounds: int, delta: float, upper: float, *, summed: bool, replaced: bool
) -> float | None:
    """The largest epsilon of a few explicit pairs; None where they are not worth composing."""
    if mask.clip is None and mask.dim is not None and not summed and replaced:
        # Every coordinate from one end of the box to the other is a pair that meets the bound exactly.
        return oracle.unclipped(mask.flip, mask.dim * rounds, delta) * (1 - 1e-9)
    if not 0 < upper <= _LARGEST:
        return None
    radius, cohort = mask.radius(replaced), mask.cohort if summed else 1
    width = 1 - 2 * mask.flip
    largest = min(radius, width)
    best = 0.0
    for move in {largest, largest / 2, min(largest, radius / 8)}:
        coordinates = math.floor((radius / move) ** 2 * (1 + 1e-9))
        coordinates = coordinates if mask.dim is None else min(coordinates, mask.dim)
        for others in {cohort - 1, (cohort - 1) // 2}:
            grid = float(np.clip(upper / (20 * coordinates * rounds), *_GRID))
            best = max(best, _loss(mask.flip, cohort, others, move, coordinates * rounds, delta, grid))
    return best


def _loss(flip: float, cohort: int, at_low: int, move: float, times: int, delta: float, grid: float) -> float:
    """Epsilon of `times` independent counts, the client at f in one world and at f + move in the other."""
    rest = np.convolve(
        stats.binom.pmf(np.arange(at_low + 1), at_low, flip),
        stats.binom.pmf(np.arange(cohort - at_low), cohort - 1 - at_low, 1 - flip),
    )
    still = np.convolve(rest, [1 - flip, flip])
    moved = np.convolve(rest, [1 - flip - move, flip + move])
    composed = pld.from_two_probability_mass_functions(
        _log(still), _log(moved), pessimistic_estimate=False, value_discretization_interval=grid
    ).self_compose(times)
    return float(composed.get_epsilon_for_delta(delta))


def _log(law: Floats) -> dict[int, float]:
    return {int(k): math.log(law[k]) for k in np.flatnonzero(law > 1e-300)}
