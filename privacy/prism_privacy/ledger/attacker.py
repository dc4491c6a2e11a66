"""What the guarantees of a ledger leave to the best membership-inference attack.

Under (ε, δ)-differential privacy a test that tells two neighbouring worlds apart with false-positive rate a
has a true-positive rate of at most

    min( e^ε a + δ,  1 - e^-ε (1 - a - δ) )            (Kairouz, Oh and Viswanath 2015, theorem 2.1)

The releases of a ledger certify a whole curve, an ε for every δ. Each of its points holds for the same
releases, so the least of their bounds holds, too (the envelope of Dong, Roth and Su 2022, section 2.3). It is
read at finitely many δ: more of them can only make it smaller.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from prism_privacy.accounting.events import Composed, Event, RecordMasks, composition
from prism_privacy.errors import LedgerError
from prism_privacy.ledger.check import LedgerReport
from prism_privacy.ledger.composition import Charged, ClientTotal, ImageTotal, charged_by_client
from prism_privacy.ledger.entry import RecordGuarantee
from prism_privacy.moments.release import RecordAdjacency
from prism_privacy.units import Adjacency, Unit, View

__all__ = ["FALSE_POSITIVE_RATES", "Certified", "certified", "largest_true_positive_rate"]

FALSE_POSITIVE_RATES = (0.001, 0.01, 0.1)
_DELTAS = tuple(float(delta) for delta in np.geomspace(1e-12, 0.5, 60))
_TOLERANCE = 1e-3
"""How far a stated epsilon may lie below that of its own releases, for roundings."""


@dataclass(frozen=True)
class Certified:
    """One epsilon of a ledger, and what it leaves to an attacker.

    Attributes:
        unit: who is protected.
        view: against whom; None for a record whose ledger does not say.
        adjacency: which worlds are compared, by its value.
        epsilon: the guarantee: what was planned before round 1, where anything was, or what is spent to date.
        to_date: what is spent to date.
        delta: of both.
        rates: the largest true-positive rate at each of `FALSE_POSITIVE_RATES`; from the curve of all
            releases, or from (epsilon, delta) alone, where not all that was planned has been released, or
            the releases cost less than the ledger states.
    """

    unit: Unit
    view: View | None
    adjacency: str
    epsilon: float
    to_date: float
    delta: float
    rates: tuple[float, ...]


def largest_true_positive_rate(curve: Mapping[float, float], false_positive_rate: float) -> float:
    """The least bound that a curve of guarantees gives.

    Args:
        curve: an ε for each of some δ.
        false_positive_rate: a.

    >>> round(largest_true_positive_rate({1e-5: 2.0}, 0.01), 4)
    0.0739
    >>> largest_true_positive_rate({1e-5: math.inf}, 0.01)
    1.0
    """
    return min(_bound(epsilon, delta, false_positive_rate) for delta, epsilon in curve.items())


def _bound(epsilon: float, delta: float, rate: float) -> float:
    up = math.exp(epsilon) * rate + delta if epsilon < 700.0 else math.inf
    return min(1.0, up, 1.0 - math.exp(-epsilon) * (1.0 - rate - delta))


def certified(report: LedgerReport) -> list[Certified]:
    """Every epsilon that a ledger claims: of a client by view and adjacency, then of one record.

    Raises:
        LedgerError: it charged what is not known here, or states less than its own releases cost.
    """
    if not report.entries or report.entries[-1].epsilon is None:
        return []
    last = report.entries[-1]
    # What the releases cost, without what is stated: the one is compared with the other.
    accounts = [replace(each, lines=()) for each in charged_by_client(report, "this ledger")]
    found = []
    for view, adjacency in itertools.product((View.SUM, View.UPLOAD), Adjacency):
        spent = last.spent(view, adjacency)
        curves = []
        for charged in accounts:
            total = ClientTotal(view, adjacency)
            total.add(charged)
            curves.append(total.composed())
        planned = spent.to_date if spent.planned is None else max(spent.planned, spent.to_date)
        stated = (planned, spent.to_date, last.delta)
        found.append(_certified(Unit.CLIENT, view, adjacency.value, stated, curves))
    record = accounts[0].record
    return found + ([] if record is None else _of_record(accounts, record))


def _of_record(accounts: Sequence[Charged], record: RecordGuarantee) -> list[Certified]:
    if record.spent is None:
        total = ImageTotal(record.adjacency)
        total.add(accounts[0])
        stated = (record.epsilon, record.epsilon, record.delta)
        return [_certified(Unit.RECORD, record.view, record.adjacency, stated, [total.composed()])]
    adjacency = cast(RecordAdjacency, record.adjacency)
    found = []
    for view, cost in sorted(record.spent.items()):  # "sum" first
        planned = cost.to_date if cost.planned is None else max(cost.planned, cost.to_date)
        stated = (planned, cost.to_date, record.delta)
        curves = []
        for charged in accounts:
            bits: Counter[Event] = Counter(RecordMasks(image, adjacency) for image in charged.images)
            curves.append(composition(bits, Unit.RECORD, view, adjacency))
        found.append(_certified(Unit.RECORD, view, record.adjacency, stated, curves))
    return found


def _certified(
    unit: Unit,
    view: View | None,
    adjacency: str,
    stated: tuple[float, float, float],
    curves: Sequence[Callable[[float], Composed]],
) -> Certified:
    """From the curve of each client: what all of them guarantee is the largest epsilon at each delta."""

    def curve(delta: float) -> float:
        return max(each(delta).epsilon for each in curves)

    epsilon, to_date, delta = stated
    if curve(delta) > to_date * (1.0 + _TOLERANCE):
        raise LedgerError(
            f"the ledger states epsilon = {to_date:g} ({unit.value}, {adjacency}), and its own releases cost "
            f"{curve(delta):g}; `prism-secure audit run` says more"
        )
    points = {delta: epsilon}
    whole = curve(delta) >= to_date * (1.0 - _TOLERANCE)  # no less than what the ledger states
    if whole and epsilon <= to_date < math.inf:  # and all that was planned was released
        points |= {other: curve(other) for other in _DELTAS}
    rates = tuple(largest_true_positive_rate(points, rate) for rate in FALSE_POSITIVE_RATES)
    return Certified(unit, view, adjacency, epsilon, to_date, delta, rates)
