"""The page's figures as SVG, in the look of a run's report: for print, for files, and without scripts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from prism_secure.reporting import drawing
from prism_secure.reporting.drawing import MARKS, SERIES
from prism_secure.sweep.objectives import falls, titled
from prism_secure.wording import LIMITED, STRONG, format_epsilon

__all__ = ["Line", "Mark", "answer_plot", "heat_plot", "rounds_plot"]

NEAR = 2 * LIMITED
"""Epsilons up to here have the axis to themselves where there are any; what is beyond guarantees nothing, and
stands in a strip at its end."""
_MOST_NUMBERS = 40
"""Of more points, those off the lines have no number beside them."""
_LABEL = 0.8
"""Inches for the words and numbers of the upright axis."""


@dataclass(frozen=True)
class Mark:
    """A point of the first figure.

    Attributes:
        number: as the tables call it, "#3".
        epsilon, value: where it is; epsilon may be infinite.
        interval: 95%, of the value.
        two: both seeds' values, where there are two.
        floor: what an audit found epsilon to be at least.
        kind: which line it belongs to.
        on_line: whether no point of its kind is better at no larger epsilon.
    """

    number: str
    epsilon: float
    value: float
    interval: tuple[float, float] | None = None
    two: tuple[float, ...] = ()
    floor: float | None = None
    kind: int = 0
    on_line: bool = False


@dataclass(frozen=True)
class Line:
    """A metric over rounds; the same `kind` has the same colour in every panel."""

    rounds: Sequence[int]
    values: Sequence[float]
    kind: int = 0


class Reach:
    """A logarithmic axis of epsilons, as long as people need it, and a strip for those beyond.

    >>> reach = Reach([0.5, 4.0, 1265.0, math.inf])
    >>> reach.place(4.0) < reach.high < reach.place(1265.0) < reach.place(math.inf)
    True
    >>> reach.ticks, reach.beyond
    ([0.5, 1.0, 2.0, 5.0], '> 20')
    """

    def __init__(self, epsilons: Sequence[float]) -> None:
        finite = sorted({value for value in epsilons if 0 < value < math.inf})
        near = [value for value in finite if value <= NEAR] or finite
        first, last = (near[0], near[-1]) if near else (STRONG, LIMITED)
        self.low, self.high = math.log10(first / 1.25), math.log10(last * 1.25)
        self.last = last
        self._far = sorted({value for value in epsilons if value > last})
        self.edge = self.high + (0.22 * (self.high - self.low) if self._far else 0.0)

    def place(self, epsilon: float) -> float:
        """Where on the axis; beyond its end in order, not to scale."""
        if epsilon > self.last:
            rank = self._far.index(epsilon) if epsilon in self._far else len(self._far)
            return self.high + (self.edge - self.high) * (rank + 1) / (len(self._far) + 1)
        return max(math.log10(epsilon), self.low) if epsilon > 0 else self.low

    @property
    def beyond(self) -> str:
        """What the strip holds, in short; "" where there is none."""
        if not self._far:
            return ""
        return "∞" if self._far == [math.inf] else f"> {NEAR if self.last <= NEAR else self.last:g}"

    @property
    def ticks(self) -> list[float]:
        """At 1, 2 and 5 times powers of ten, or closer where these are few; at powers where they are many.

        The names of nine a power of ten have no room, unless less than a power is within.
        """
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        for digits in ((1.0,), (1.0, 2.0, 5.0), (1.0, 2.0, 3.0, 5.0, 7.0), tuple(map(float, range(1, 10)))):
            found = [digit * 10.0**power for power in powers for digit in digits]
            found = [tick for tick in found if self.low <= math.log10(tick) <= self.high]
            if len(found) >= 3:
                return found
        return found


def answer_plot(
    rows: Mapping[str, Mapping[str, Sequence[Mark]]], kinds: Sequence[str], *, named: str = "answer"
) -> str:
    """Quality against epsilon: a row for each metric, a panel for each kind of epsilon, a line for each kind
    of point, with the marks' numbers beside them.

    Args:
        rows: marks by the metric that their value is, such as "fid", and by what their epsilon is.
        kinds: what the lines are, in the legend's words; at most six.
    """
    views = list(next(iter(rows.values())))
    reaches = {
        view: Reach(
            [e for marks in rows.values() for mark in marks[view] for e in (mark.epsilon, mark.floor) if e]
        )
        for view in views
    }
    heights = [3.6, *[1.9] * (len(rows) - 1)]
    with mpl.rc_context(drawing.STYLE | {"font.size": 9.5}):
        width, height = 4.3 * len(views) + _LABEL, sum(heights) + 0.75
        figure = Figure(figsize=(width, height))
        grid = figure.subplots(
            len(rows), len(views), sharex="col", sharey="row", squeeze=False, height_ratios=heights
        )
        figure.subplots_adjust(
            left=_LABEL / width, right=0.995, top=1 - 0.62 / height, bottom=0.5 / height,
            wspace=0.05, hspace=0.12,
        )  # fmt: skip
        for row, (metric, panels) in enumerate(rows.items()):
            for column, view in enumerate(views):
                axes = grid[row, column]
                _marks(axes, panels[view], reaches[view])
                _epsilon_axis(
                    axes, reaches[view], words=row == len(rows) - 1, scale=row == 0, falls=falls(metric)
                )
                axes.grid(axis="y")
                if row == 0:
                    axes.set_title(view, loc="left", fontsize=9.5, pad=5)
            grid[row, 0].set_ylabel(titled(metric))
        figure.align_ylabels(grid[:, 0])
        _legend(figure, kinds, height)
        words = "; ".join(f"{view}: {len(marks)} points" for view, marks in next(iter(rows.values())).items())
        return drawing.as_svg(
            figure, named, f"{', '.join(map(titled, rows))} against epsilon, the seeds' means. {words}."
        )


def _marks(axes: Axes, marks: Sequence[Mark], reach: Reach) -> None:
    numbered, kinds = len(marks) <= _MOST_NUMBERS, sorted({mark.kind for mark in marks})
    for kind in kinds:
        # Kinds that have the same epsilons, as in a grid over epsilon, lie a little apart.
        aside = 0.012 * (reach.edge - reach.low) * (kinds.index(kind) - (len(kinds) - 1) / 2)
        mine = [mark for mark in marks if mark.kind == kind]
        colour, shape = SERIES[kind % len(SERIES)], MARKS[kind % len(MARKS)]
        near = [mark for mark in mine if mark.on_line and mark.epsilon <= reach.last]
        joined = sorted((reach.place(mark.epsilon) + aside, mark.value) for mark in near)
        if joined:
            at, means = zip(*joined, strict=True)
            axes.plot(
                [*at, reach.high], [*means, means[-1]], color=colour, linewidth=1.4, drawstyle="steps-post"
            )
        for mark in mine:
            x = reach.place(mark.epsilon) + aside
            if mark.interval:
                axes.plot([x, x], mark.interval, color=colour, linewidth=1.0, alpha=0.75)
            if mark.two:
                axes.plot([x, x], mark.two, linestyle="none", marker="_", color=colour, markersize=7)
            if mark.floor:
                axes.plot(
                    [reach.place(mark.floor) + aside, x], [mark.value] * 2,
                    color=drawing.INK, linewidth=0.7, marker="|", alpha=0.6, zorder=1,
                )  # fmt: skip
            axes.plot(
                [x], [mark.value], linestyle="none", marker=shape, color=colour,
                markerfacecolor=colour if mark.on_line else drawing.PAPER,
                markersize=6.5 if mark.on_line else 5, markeredgewidth=1.1,
            )  # fmt: skip
            if numbered or mark.on_line:
                axes.annotate(
                    mark.number.removeprefix("#"), (x, mark.value), xytext=(4.5, 3.5),
                    textcoords="offset points", fontsize=7.5,
                )  # fmt: skip


def _legend(figure: Figure, kinds: Sequence[str], height: float) -> None:
    if len(kinds) < 2:
        return
    handles = [
        mpl.lines.Line2D([], [], color=SERIES[index], marker=MARKS[index], label=kind, linewidth=1.4)
        for index, kind in enumerate(kinds)
    ]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.0, 1 + 0.04 / height), ncols=len(kinds),
        frameon=False, fontsize=9, columnspacing=1.4, handletextpad=0.5,
    )  # fmt: skip


def rounds_plot(panels: Mapping[str, Sequence[Line]], metric: str, kinds: Sequence[str]) -> str:
    """A metric over rounds, coloured as in the first figure; a panel for each value of another setting."""
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    with mpl.rc_context(drawing.STYLE | {"font.size": 9, "lines.linewidth": 1.3, "lines.markersize": 3}):
        width = (4.1 if columns > 1 else 6.5) * columns + _LABEL
        height = (2.3 if columns > 1 else 3.2) * rows + 0.8
        figure = Figure(figsize=(width, height))
        all_axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        figure.subplots_adjust(
            left=_LABEL / width, right=0.99, top=1 - 0.62 / height, bottom=0.5 / height,
            hspace=0.28, wspace=0.06,
        )  # fmt: skip
        for axes, (name, lines) in zip(all_axes, panels.items(), strict=False):
            for line in lines:
                marker = MARKS[line.kind % len(MARKS)] if len(line.rounds) <= 12 else None
                axes.plot(line.rounds, line.values, color=SERIES[line.kind % len(SERIES)], marker=marker)
            if len(panels) > 1:
                axes.set_title(name, loc="left", fontsize=9, pad=3)
            axes.grid(axis="y")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.tick_params(labelbottom=True)
        for axes in all_axes[len(panels) :]:
            axes.set_visible(False)
        for axes in all_axes[::columns]:
            axes.set_ylabel(metric)
        for axes in all_axes[max(0, len(panels) - columns) : len(panels)]:
            axes.set_xlabel("round")
        _legend(figure, kinds, height)
        return drawing.as_svg(figure, "rounds", f"{metric} over the rounds, for {', '.join(panels)}.")


def heat_plot(
    table: Sequence[Sequence[float]], down: Sequence[str], across: Sequence[str], names: tuple[str, str, str]
) -> str:
    """A metric by two keys; each cell carries its number, so that no colour has to be read."""
    values = np.array(table, dtype=float)
    low, high = (np.nanmin(values), np.nanmax(values)) if np.isfinite(values).any() else (0.0, 1.0)
    with mpl.rc_context(drawing.STYLE):
        figure = Figure(figsize=(max(4.6, 1.6 + 0.85 * len(across)), max(2.4, 1.0 + 0.42 * len(down))))
        axes = figure.subplots()
        axes.imshow(values, cmap="cividis", aspect="auto", vmin=low, vmax=high)
        for row, column in np.ndindex(values.shape):
            value = values[row, column]
            if math.isfinite(value):
                light = (value - low) / (high - low or 1) > 0.55
                axes.text(
                    column, row, f"{value:.4g}", ha="center", va="center", fontsize=8,
                    color="#000000" if light else "#ffffff",
                )  # fmt: skip
        axes.set_xticks(range(len(across)), across)
        axes.set_yticks(range(len(down)), down)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set_ylabel(names[0])
        axes.set_xlabel(names[1])
        axes.set_title(names[2], loc="left", fontsize=10, pad=4)
        figure.tight_layout()
        return drawing.as_svg(figure, "heat", f"{names[2]} by {names[0]} and {names[1]}.")


def _epsilon_axis(axes: Axes, reach: Reach, *, words: bool, scale: bool, falls: bool) -> None:
    """`falls`: marks go from the upper left to the lower right, and words stand in the other corners."""
    span = reach.edge - reach.low
    ticks, names = [math.log10(tick) for tick in reach.ticks], [f"{tick:,.10g}" for tick in reach.ticks]
    if reach.beyond:
        axes.axvspan(reach.high, reach.edge, color=drawing.FAINT, alpha=0.45, linewidth=0, zorder=0)
        ticks, names = [*ticks, (reach.high + reach.edge) / 2], [*names, reach.beyond]
    for limit, verdict in ((STRONG, "strong"), (LIMITED, "limited")):
        if reach.low < math.log10(limit) < reach.high:
            axes.axvline(math.log10(limit), color=drawing.INK, linewidth=0.7, linestyle=(0, (1, 3)), zorder=0)
            if scale:
                room = math.log10(limit) - reach.low > 0.2 * span
                axes.annotate(
                    f"{verdict} ≤ {limit}", (math.log10(limit), 0 if falls else 1),
                    xycoords=("data", "axes fraction"), xytext=(-3 if room else 3, 4 if falls else -9),
                    textcoords="offset points", ha="right" if room else "left", fontsize=7,
                )  # fmt: skip
    if scale and (reach.beyond or reach.last > LIMITED):
        axes.annotate(
            f"ε > {LIMITED}: no meaningful guarantee", (1, 1 if falls else 0), xycoords="axes fraction",
            xytext=(-3, -9 if falls else 4), textcoords="offset points", ha="right", fontsize=7,
        )  # fmt: skip
    axes.set_xlim(reach.low, reach.edge if reach.beyond else reach.edge + 0.02 * span)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, names)
    if words:
        axes.set_xlabel("planned ε (logarithmic)")


def epsilon_words(value: float) -> str:
    """ "–" where nothing was charged."""
    return "–" if math.isnan(value) else format_epsilon(value)
