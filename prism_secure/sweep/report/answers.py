"""What a sweep answers: the best quality within each epsilon, which setting matters most, what is not told.

An epsilon above `LIMITED` is no meaningful guarantee by itself (`prism_secure.wording`), so it is never the
answer to a question about privacy: points beyond stand beside the others for comparison, and say so.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_secure.sweep.recipe import in_words
from prism_secure.sweep.report.subject import Subject
from prism_secure.sweep.results import LEAST_SEEDS, SweepPoint, record_of
from prism_secure.wording import LIMITED, format_epsilon

__all__ = [
    "LEAST_SHARE",
    "LIMITS",
    "Best",
    "Grouping",
    "best_at",
    "by_setting",
    "judged",
    "learned",
    "least",
    "levels",
    "limits",
    "lines",
    "not_told",
    "shares",
]  # fmt: skip

LIMITS = (1, 2, 4, 8, LIMITED)
"""Epsilons that somebody may have to spend."""
_SMALLER = (0.1, 0.25, 0.5)
LEAST_SHARE = 0.005
"""A smaller share of the variance is 0% in words."""
_MOST = 6
"""Lines that are told apart by colour and mark; more values of a number are cut into ranges."""


@dataclass(frozen=True)
class Best:
    """The best FID of all points within one epsilon.

    Attributes:
        limit: the epsilon; inf for whatever it is.
        point: the one with the least mean FID; None where no point is within the limit.
        alike: points within the limit whose 95% intervals meet its own: seeds do not tell them apart.
    """

    limit: float
    point: SweepPoint | None
    alike: tuple[SweepPoint, ...] = ()


@dataclass(frozen=True)
class Grouping:
    """Points by the value of one setting.

    Attributes:
        key: the setting, "federation.clients" say; "" for all points in one group.
        kinds: the groups in words, in the order of the values.
        kind_of: the group of each point, by its id.
        share: how much they explain of the variance of FID that epsilon leaves, 0 to 1.
    """

    key: str
    kinds: tuple[str, ...]
    kind_of: dict[str, int]
    share: float = 0.0

    @property
    def name(self) -> str:
        """The setting without its section."""
        return self.key.partition(".")[2]


def judged(points: Sequence[SweepPoint]) -> list[SweepPoint]:
    """Those that have an FID."""
    return [point for point in points if math.isfinite(point.mean("fid"))]


def best_at(points: Sequence[SweepPoint], epsilon: str, limit: float) -> Best:
    """The best FID within `limit`, by the name of the epsilon: "sum_zero_out", "record"."""
    within = [point for point in judged(points) if point.epsilon(epsilon) <= limit]
    if not within:
        return Best(limit, None)
    best = min(within, key=lambda point: point.mean("fid"))
    own = best.interval("fid")
    alike = [
        other
        for other in within
        if other is not best and own and (ends := other.interval("fid")) and ends[0] <= own[1]
    ]
    return Best(limit, best, tuple(alike))


def limits(points: Sequence[SweepPoint], epsilons: Sequence[str]) -> list[float]:
    """The rows of the first table: `LIMITS`, before them smaller ones with a point of their own, last inf."""
    reached = [point.epsilon(name) for point in judged(points) for name in epsilons]
    own = [
        limit
        for below, limit in itertools.pairwise((0, *_SMALLER))
        if any(below < epsilon <= limit for epsilon in reached)
    ]
    return [*own, *LIMITS, math.inf]


def least(points: Sequence[SweepPoint], epsilon: str) -> SweepPoint | None:
    """The point with the smallest epsilon, the better one of several; None where there is none."""
    charged = [point for point in judged(points) if not math.isnan(point.epsilon(epsilon))]
    return min(charged, key=lambda point: (point.epsilon(epsilon), point.mean("fid")), default=None)


def levels(subject: Subject, key: str) -> list[str]:
    """A key's values in order, numbers by size, each once."""
    kept: dict[str, Any] = {in_words(point.settings[key]): point.settings[key] for point in subject.points}

    def order(text: str) -> tuple[int, float, str]:
        value = kept[text]
        number = isinstance(value, int | float)
        return (0 if number else 1, float(value) if number else 0.0, text)

    return sorted(kept, key=order)


def shares(subject: Subject, epsilon: str | None = None) -> dict[str, float]:
    """How much of FID's variance over the points each setting explains by itself, the largest first.

    Least squares of FID on a constant for each of its values, against one constant for all; each sum
    of squares is divided by its degrees of freedom: a setting with a value for each point would explain all.

    Args:
        epsilon: explain what log epsilon leaves: both fits have a slope in it, over the points where it is
            finite and not 0. Settings that move points along one curve explain little then, those that move
            the curve much.
    """
    points = judged(subject.points)
    if epsilon is not None:
        points = [point for point in points if 0 < point.epsilon(epsilon) < math.inf]
    fids = np.array([point.mean("fid") for point in points])
    slope = [np.log([point.epsilon(epsilon) for point in points])] if epsilon is not None else []
    left = _mean_square(np.column_stack([np.ones(len(points)), *slope]), fids)
    exact = 1e-12 * float(np.var(fids)) if points else 0.0  # what is left by rounding explains nothing
    found = {}
    for key in subject.keys:
        values = [in_words(point.settings[key]) for point in points]
        columns = [[float(value == each) for value in values] for each in dict.fromkeys(values)]
        inside = _mean_square(np.column_stack([*columns, *slope]), fids) if points else math.nan
        found[key] = max(0.0, 1 - inside / left) if left > exact and not math.isnan(inside) else 0.0
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _mean_square(columns: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """What a fit leaves, for each degree of freedom; NaN where there is none."""
    if not len(values):
        return math.nan
    solution, _, rank, _ = np.linalg.lstsq(columns, values, rcond=None)
    free = len(values) - int(rank)
    return float(((values - columns @ solution) ** 2).sum()) / free if free else math.nan


def by_setting(subject: Subject, key: str = "", share: float = 0.0) -> Grouping:
    """Points by the value of a setting; all in one group where none is named."""
    if not key:
        return Grouping("", ("all points",), {point.id: 0 for point in subject.points})
    values, name = levels(subject, key), key.partition(".")[2]
    parts = [[value] for value in values]
    if len(values) > _MOST:
        parts = [list(part) for part in np.array_split(np.array(values, dtype=object), _MOST)]
    kinds = [f"{name} = {part[0]}" + (f" … {part[-1]}" if len(part) > 1 else "") for part in parts]
    place = {value: index for index, part in enumerate(parts) for value in part}
    return Grouping(
        key,
        tuple(kinds),
        {point.id: place[in_words(point.settings[key])] for point in subject.points},
        share,
    )


def lines(subject: Subject) -> Grouping:
    """The groups whose points are joined: of the settings whose values can be compared at one epsilon, the
    one that explains most of the variance of FID that epsilon leaves. What fixes epsilon is the axis."""
    for key, share in shares(subject, leading(subject)).items():
        if _apart_from_epsilon(subject, key):
            return by_setting(subject, key, share)
    return by_setting(subject)


def _reaches(subject: Subject, key: str) -> list[tuple[float, float]]:
    """From which epsilon to which each value of a setting was run, from the smallest on."""
    seen: dict[str, list[float]] = {}
    for point in judged(subject.points):
        seen.setdefault(in_words(point.settings[key]), []).append(point.epsilon(leading(subject)))
    return sorted((min(costs), max(costs)) for costs in seen.values())


def _apart_from_epsilon(subject: Subject, key: str) -> bool:
    """Whether some value of a setting has a line, and another one was run at epsilons that the line spans."""
    reaches = _reaches(subject, key)
    lines = any(first < last for first, last in reaches)
    return lines and any(later[0] <= earlier[1] for earlier, later in itertools.pairwise(reaches))


def _moves_with_epsilon(subject: Subject) -> list[str]:
    """Settings none of whose values was run where another one was: nobody can tell them from epsilon."""
    return [
        key.partition(".")[2]
        for key in subject.keys
        if not key.endswith("epsilon")
        and len(reaches := _reaches(subject, key)) > 1
        and all(earlier[1] < later[0] for earlier, later in itertools.pairwise(reaches))
    ]


def leading(subject: Subject) -> str:
    """The epsilon that the first sentence is about: one client's against the sums, unless only one image's
    says anything."""
    points = judged(subject.points)
    for name in ("sum_zero_out", "record"):
        if any(point.epsilon(name) <= LIMITED for point in points):
            return name
    return "sum_zero_out"


def learned(subject: Subject, grouping: Grouping) -> list[str]:
    """What the sweep answers, in a few sentences; none before a point was measured."""
    points, name = judged(subject.points), leading(subject)
    if not points:
        return []
    of = f"one {record_of(subject.runs)}" if name == "record" else "one client in the central view (SUM)"
    answers = [best for limit in LIMITS if (best := best_at(points, name, limit)).point is not None]
    overall = best_at(points, name, math.inf)
    if not answers:
        nearest = least(points, name)
        assert nearest is not None
        return [
            f"No point guarantees {of} anything meaningful: the smallest ε is "
            f"{format_epsilon(nearest.epsilon(name))} ({subject.number(nearest)}: {subject.label(nearest)}), "
            f"and above {LIMITED} it is no meaningful guarantee by itself.",
            *_by_group(subject, grouping, name, math.inf),
        ]
    first, last = answers[0], answers[-1]
    assert first.point is not None
    assert last.point is not None
    assert overall.point is not None
    told = f"For {of}, the best FID is {_said(subject, first)} at ε ≤ {first.limit:g}"
    if last.point is not first.point:
        told += f" and {_said(subject, last)} at ε ≤ {last.limit:g}"
    elif last.limit != first.limit:
        told += f", and at every limit up to {last.limit:g}"
    found = [f"{told}."]
    if overall.point.epsilon(name) > LIMITED:
        found.append(
            f"Without a meaningful guarantee it is {overall.point.mean('fid'):.1f} "
            f"({subject.number(overall.point)}, ε = {format_epsilon(overall.point.epsilon(name))})."
        )
    return found + _by_group(subject, grouping, name, LIMITED)


def _said(subject: Subject, best: Best) -> str:
    assert best.point is not None
    return f"{best.point.mean('fid'):.1f} ({subject.number(best.point)}: {subject.label(best.point)})"


def _by_group(subject: Subject, grouping: Grouping, name: str, limit: float) -> list[str]:
    if len(grouping.kinds) < 2 or grouping.share < LEAST_SHARE:
        return []
    found = []
    for index, kind in enumerate(grouping.kinds):
        mine = [point for point in subject.points if grouping.kind_of[point.id] == index]
        best = best_at(mine, name, limit).point
        value = "none" if best is None else f"{best.mean('fid'):.1f}"
        found.append(f"{value} with {kind}")
    within = "" if math.isinf(limit) else f" at ε ≤ {limit:g}"
    return [
        f"Of the settings that can be compared at one ε, {grouping.name} explains most of what ε leaves of "
        f"FID’s variance ({grouping.share:.0%}): the best FID{within} is {', '.join(found)}."
    ]


def not_told(subject: Subject) -> list[str]:
    """What these runs cannot tell."""
    points, name = judged(subject.points), leading(subject)
    if not points:
        return [_nothing_yet(subject)]
    found = []
    if together := _moves_with_epsilon(subject):
        found.append(
            f"{' and '.join(together)} change{'s' if len(together) == 1 else ''} together with ε here, so "
            "their effects cannot be told apart."
        )
    seeds = max(len(point.finished) for point in points)
    if seeds < LEAST_SEEDS:
        waiting = any(len(point.runs) > len(point.finished) for point in points)
        advice = "" if any(len(p.runs) >= LEAST_SEEDS for p in points) else " (sweep.seeds = [0, 1, 2])"
        number = "one seed" if seeds == 1 else "two seeds at most"
        which = "No point has three finished seeds yet" if waiting else f"Each point has {number}"
        found.append(
            f"{which}, so nothing here tells a difference from chance: runs of one setting differ, "
            f"too, and close points may stand in any order{advice}."
        )
        return found
    best = best_at(points, name, LIMITED)
    if best.point is None:
        best = best_at(points, name, math.inf)
    assert best.point is not None
    if best.alike:
        others = ", ".join(subject.number(point) for point in best.alike[:6]) + (
            f" and {len(best.alike) - 6} more" if len(best.alike) > 6 else ""
        )
        found.append(
            f"{len(best.point.finished)} seeds do not tell the best point ({subject.number(best.point)}) "
            f"apart from {others}: their 95% intervals meet."
        )
    few = [subject.number(point) for point in points if len(point.finished) < LEAST_SEEDS]
    if few:
        which = ", ".join(few[:6]) + " and others" * (len(few) > 6)
        found.append(
            f"{which} {'has' if len(few) == 1 else 'have'} fewer than "
            "three finished seeds, hence no interval: their place may be chance."
        )
    found.append(
        "The best of many is flattered by the choice: measure it again with other seeds, or by gen2real."
    )
    return found


def _nothing_yet(subject: Subject) -> str:
    """Before there is an answer: what was asked."""
    some = any(run.finished for run in subject.runs)
    head = "No finished run was evaluated" if some else "No run has finished yet"
    planned = []
    for key in subject.keys:
        values = levels(subject, key)
        shown = f"{values[0]} … {values[-1]}" if len(values) > 2 * _MOST else ", ".join(values)
        planned.append(f"{'ε' if key == 'measured.epsilon' else key.partition('.')[2]} = {shown}")
    return f"{head}; planned: {'; '.join(planned)}." if planned else f"{head}."
