"""The page's figures as SVG, in the look of a run's report: for print, for files, and without scripts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from prism_secure.reporting import drawing
from prism_secure.wording import format_epsilon

__all__ = ["Line", "Mark", "front_plot", "heat_plot", "rounds_plot"]

_MARKS = ("o", "s", "^")
_COLOURS = (drawing.ONE, drawing.TWO, drawing.THREE, drawing.INK)
_LABEL = 0.7
"""Inches for the words and numbers of the upright axis."""


@dataclass(frozen=True)
class Mark:
    """A point of the front's figure: epsilon (perhaps infinite), a value, its interval, an audit's floor."""

    epsilon: float
    value: float
    interval: tuple[float, float] | None = None
    floor: float | None = None
    on_front: bool = False


@dataclass(frozen=True)
class Line:
    """A metric over rounds; the same `kind` has the same colour in every panel."""

    rounds: Sequence[int]
    values: Sequence[float]
    kind: int = 0


@dataclass
class _Reach:
    """Where a logarithmic axis of epsilons begins and ends, and where infinity lies on it."""

    low: int
    high: int
    infinity: float | None = field(default=None)

    def place(self, epsilon: float) -> float:
        if math.isinf(epsilon):
            assert self.infinity is not None
            return self.infinity
        return math.log10(epsilon) if epsilon > 0 else float(self.low)


def front_plot(panels: Mapping[str, Sequence[Mark]], metric: str) -> str:
    """Epsilon against a metric, one panel for each kind of epsilon; the front's points joined."""
    with mpl.rc_context(drawing.STYLE):
        width = 4.1 * len(panels) + _LABEL
        figure = Figure(figsize=(width, 3.7))
        all_axes = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
        figure.subplots_adjust(left=_LABEL / width, right=0.99, top=0.89, bottom=0.14, wspace=0.08)
        for axes, (name, marks), colour, shape in zip(
            all_axes, panels.items(), _COLOURS, _MARKS, strict=False
        ):
            reach = _reach([*(mark.epsilon for mark in marks), *(m.floor for m in marks if m.floor)])
            for on_front, size, edge in ((False, 4.5, 0.8), (True, 7, 1.4)):
                kept = [mark for mark in marks if mark.on_front == on_front]
                axes.plot(
                    [reach.place(mark.epsilon) for mark in kept],
                    [mark.value for mark in kept],
                    linestyle="none",
                    marker=shape,
                    color=colour,
                    markerfacecolor=colour if on_front else "none",
                    markersize=size,
                    markeredgewidth=edge,
                    alpha=1 if on_front else 0.6,
                )
            for mark in marks:
                x = reach.place(mark.epsilon)
                if mark.floor:
                    ends = [reach.place(mark.floor), x]
                    axes.plot(
                        ends,
                        [mark.value] * 2,
                        color=drawing.INK,
                        linewidth=0.7,
                        marker="|",
                        alpha=0.6,
                        zorder=1,
                    )
                if mark.interval and mark.on_front:
                    axes.plot([x, x], mark.interval, color=colour, linewidth=1.1)
            joined = [(reach.place(mark.epsilon), mark.value) for mark in marks if mark.on_front]
            if joined:
                at, means = zip(*sorted(joined), strict=True)
                axes.plot(at, means, color=colour, linewidth=1.4, drawstyle="steps-post", zorder=1)
            _epsilon_axis(axes, reach)
            axes.set_title(name, loc="left", fontsize=10, pad=4)
            axes.grid(axis="y")
        all_axes[0].set_ylabel(metric)
        words = "; ".join(
            f"{name}: {len([m for m in marks if m.on_front])} of {len(marks)} points on the front"
            for name, marks in panels.items()
        )
        return drawing.as_svg(figure, "front", f"Epsilon against {metric}, the seeds' means. {words}.")


def rounds_plot(panels: Mapping[str, Sequence[Line]], metric: str, kinds: Sequence[str]) -> str:
    """A metric over rounds, one small panel for each value of a key, all on the same axes."""
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    with mpl.rc_context(drawing.STYLE | {"font.size": 9, "lines.linewidth": 1.3, "lines.markersize": 3}):
        width = 4.1 * columns + _LABEL
        figure = Figure(figsize=(width, 2.3 * rows + 0.5))
        all_axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        figure.subplots_adjust(
            left=_LABEL / width, right=0.99, top=1 - 0.3 / (2.3 * rows), bottom=0.55 / (2.3 * rows),
            hspace=0.28, wspace=0.06,
        )  # fmt: skip
        named = len(kinds) <= len(_COLOURS)
        for axes, (name, lines) in zip(all_axes, panels.items(), strict=False):
            for line in lines:
                index = line.kind % len(_COLOURS) if named else 0
                marker = (*_MARKS, "D")[index] if len(line.rounds) <= 12 else None
                axes.plot(
                    line.rounds, line.values, color=_COLOURS[index], marker=marker, alpha=1 if named else 0.55
                )
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
        if named and len(kinds) > 1:
            for index, kind in enumerate(kinds):
                all_axes[0].plot([], [], color=_COLOURS[index], label=kind)
            all_axes[0].legend(fontsize=8, framealpha=0.85, facecolor=drawing.PAPER, edgecolor="none")
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


def _reach(epsilons: Sequence[float]) -> _Reach:
    finite = [value for value in epsilons if math.isfinite(value) and value > 0]
    low = math.floor(math.log10(min(finite)) - 0.05) if finite else 0
    high = math.ceil(math.log10(max(finite)) + 0.05) if finite else 1
    infinite = any(math.isinf(value) for value in epsilons)
    return _Reach(low, high, high + 0.14 * (high - low) if infinite else None)


def _epsilon_axis(axes: Axes, reach: _Reach) -> None:
    step = max(1, math.ceil((reach.high - reach.low) / 6))
    ticks: list[float] = [*range(reach.low, reach.high + (reach.infinity is None), step)]
    edge: Any = reach.high + 0.03 * (reach.high - reach.low)
    if reach.infinity is not None:
        ticks.append(reach.infinity)
        edge = reach.infinity + 0.08 * (reach.high - reach.low)
        axes.axvspan(reach.high, edge, color=drawing.FAINT, alpha=0.45, linewidth=0, zorder=0)
    axes.set_xlim(reach.low - 0.02 * (reach.high - reach.low), edge)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: "∞" if x == reach.infinity else drawing.decade(round(x)))
    )
    axes.set_xlabel("planned ε (logarithmic)")


def epsilon_words(value: float) -> str:
    """ "–" where nothing was charged."""
    return "–" if math.isnan(value) else format_epsilon(value)
