"""When a run ends before its last round: the goal is reached, or another point is better on both counts.

Decisions are made by metrics on public held-out images, after a round. The plan was fixed before, so the
planned epsilon stays the guarantee; the rounds that were saved do not make it smaller.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass

from prism_secure.errors import ConfigError
from prism_secure.run_folder.records import RoundRecord
from prism_secure.sweep.objectives import DIRECTIONS

__all__ = ["Curve", "Until", "dominated", "parse_until"]

_METRICS = tuple(
    name
    for name in DIRECTIONS
    if "." not in name and name not in ("bits_per_parameter", "uplink_bytes", "seconds")
)
_COMPARE = {"<": operator.lt, ">": operator.gt}


@dataclass(frozen=True)
class Until:
    """A goal, "fid<80" say."""

    metric: str
    sign: str
    value: float

    def reached(self, records: Sequence[RoundRecord]) -> str | None:
        """The reason to end the run, if the last round was evaluated and is good enough."""
        if not records or records[-1].quality is None:
            return None
        found = getattr(records[-1].quality, self.metric)
        if found is not None and _COMPARE[self.sign](found, self.value):
            return f"{self.metric} {found:.4g} {self.sign} {self.value:g} is reached"
        return None


def parse_until(text: str | None) -> Until | None:
    """Read a goal.

    >>> parse_until("fid < 80")
    Until(metric='fid', sign='<', value=80.0)

    Raises:
        ConfigError: not a metric, a sign and a number.
    """
    if text is None:
        return None
    found = re.fullmatch(r"\s*([a-z_]+)\s*([<>])\s*([-+.0-9eE]+)\s*", text)
    try:
        if found is None or found[1] not in _METRICS:
            raise ValueError
        return Until(found[1], found[2], float(found[3]))
    except ValueError:
        raise ConfigError(
            f"until must be METRIC<NUMBER or METRIC>NUMBER, METRIC one of {', '.join(_METRICS)}; got {text!r}"
        ) from None


@dataclass(frozen=True)
class Curve:
    """What pruning looks at: a run's planned epsilon(SUM, ZERO_OUT), its planned rounds, FID by round."""

    point: str
    name: str
    epsilon: float
    rounds: int
    fid: dict[int, float]


def dominated(run: Curve, finished: Sequence[Curve], margin: float) -> str | None:
    """Why a run can be ended: at the same round of as many, a finished run of another point did better.

    Better means: its planned epsilon is not larger, and its FID is smaller by at least `margin` of this
    one's. The first third of the rounds is never judged.

    >>> slow = Curve("a", "flip=0.2", 5.0, 6, {1: 400.0, 2: 300.0})
    >>> fast = Curve("b", "flip=0.1", 4.0, 6, {1: 390.0, 2: 150.0, 6: 90.0})
    >>> dominated(slow, [fast], 0.2)
    'dominated by flip=0.1: FID 150 against 300 after round 2, at no larger epsilon'
    >>> dominated(fast, [slow], 0.2) is None
    True
    """
    if not run.fid or (at := max(run.fid)) * 3 < run.rounds:
        return None
    for other in finished:
        same = other.point == run.point or other.rounds != run.rounds
        if same or other.epsilon > run.epsilon or at not in other.fid:
            continue
        if other.fid[at] <= (1 - margin) * run.fid[at]:
            return (
                f"dominated by {other.name}: FID {other.fid[at]:.4g} against {run.fid[at]:.4g} "
                f"after round {at}, at no larger epsilon"
            )
    return None
