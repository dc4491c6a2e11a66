"""From a target epsilon to the clips C of a whole plan of measured rounds.

The plan gives every round's shape: its clips A and c, its flip, and how large its C is beside the other
rounds'. One factor on every C is then found. All radii scale with it, the client's C and the record's
(C/A) 2c/N alike, so one search serves both units: a schedule may spend little in the first round and more
later, or follow clips A that fall by a public rule.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prism_privacy import _validate
from prism_privacy.accounting.accountant import guarantee_of
from prism_privacy.accounting.calibration import Search, find_largest
from prism_privacy.accounting.kappa.store import ORDERS, estimated_curve
from prism_privacy.accounting.renyi import renyi_curve, to_epsilon
from prism_privacy.errors import InvalidParameter
from prism_privacy.masks.release import MaskRelease
from prism_privacy.measured.release import MeasuredRelease
from prism_privacy.moments.release import RecordAdjacency
from prism_privacy.units import Adjacency, Unit, View

_FACTORS = (1e-6, 1e6)


@dataclass(frozen=True)
class MeasuredCalibration:
    """A plan of measured rounds that reaches a target, and what it reaches.

    Attributes:
        releases: the rounds in order, each with its clip C found.
        factor: what every C of the plan was multiplied by.
        epsilon: the accountant's epsilon for all of them: at most the target.
        target: what was asked for, with its ``delta``, ``unit``, ``view`` and ``adjacency``.
    """

    releases: tuple[MeasuredRelease, ...]
    factor: float
    epsilon: float
    target: float
    delta: float
    unit: Unit
    view: View
    adjacency: Adjacency | RecordAdjacency


def calibrate_measured(
    plan: Sequence[MeasuredRelease],
    *,
    epsilon: float,
    delta: float,
    unit: Unit,
    view: View,
    adjacency: Adjacency | RecordAdjacency,
) -> MeasuredCalibration:
    """The largest factor on every clip C, up to about 0.1%, for which the whole plan stays within epsilon.

    Args:
        plan: every round in order; only the ratios of their C matter. Equal rounds: ``[release] * rounds``.
        epsilon: the target.
        delta: at which it holds.
        unit: whom it protects.
        view: what the observer sees.
        adjacency: an :class:`Adjacency` for clients, "swap" or "add_remove" for records.

    Raises:
        CalibrationError: no factor from 1e-6 to 1e6 reaches epsilon; carries the nearest that can be had.
        InvalidParameter: an empty plan, or an adjacency of the other unit.

    >>> each = MeasuredRelease(flip=0.4, clip=1.0, client_clip=0.1, record_clip=2.0, records=10,
    ...                        coordinates=8192, directions=96, cohort=40)
    >>> found = calibrate_measured([each] * 20, epsilon=6.8, delta=1e-5, unit=Unit.CLIENT, view=View.SUM,
    ...                            adjacency=Adjacency.ZERO_OUT)
    >>> round(found.releases[0].clip, 1), found.epsilon <= 6.8
    (0.9, True)
    """
    target, delta = _validate.positive("epsilon", epsilon), _validate.delta(delta)
    unit, view = _validate.member("unit", Unit, unit), _validate.member("view", View, view)
    if not plan:
        raise InvalidParameter("plan must have at least one round")
    record: RecordAdjacency = "swap"
    if unit is Unit.CLIENT:
        column = _validate.member("adjacency", Adjacency, adjacency)
    elif isinstance(adjacency, Adjacency):
        raise InvalidParameter(f"a record's adjacency is 'swap' or 'add_remove', got {adjacency!r}")
    else:
        column, record = Adjacency.ZERO_OUT, adjacency

    def rounds(x: float) -> Counter[MaskRelease]:
        return Counter(release.scaled(math.exp(x)).release(unit, record) for release in plan)

    def estimated(x: float) -> float:
        counts = rounds(x)
        total = np.zeros(ORDERS.shape)
        for release, times in counts.items():
            total = total + times * renyi_curve(release, view, column, estimated_curve)
        failing = sum(release.sum_failure * times for release, times in counts.items())
        return to_epsilon(total, delta - (failing if view is View.SUM else 0.0))[0]

    def certified(x: float) -> float:
        return guarantee_of(rounds(x), delta, view, column).epsilon

    low, high = (math.log(factor) for factor in _FACTORS)
    x = find_largest(Search("factor on the clips", low, high, math.exp), target, estimated, certified)
    return MeasuredCalibration(
        tuple(release.scaled(math.exp(x)) for release in plan),
        math.exp(x),
        certified(x),
        target,
        delta,
        unit,
        view,
        adjacency,
    )
