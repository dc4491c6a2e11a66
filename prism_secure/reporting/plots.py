"""The figures of a run's report as inline SVG: arrays in, text out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from prism_secure.reporting.drawing import (
    DASHES,
    FAINT,
    INK,
    ONE,
    PAPER,
    SIZE,
    STYLE,
    THREE,
    TWO,
    as_svg,
    decade,
)
from prism_secure.wording import format_epsilon

__all__ = ["epsilon_plot", "quality_plot"]

_GUIDE = 10.0
_MANY = 40
"""From so many points on, markers would hide the line."""


def quality_plot(
    rounds: Sequence[int], fid: Sequence[float], kid: Sequence[float], *, last: int, name: str = "quality"
) -> str:
    """FID per round, and KID in a smaller panel below; lower is better in both.

    Args:
        rounds: the evaluated rounds; may be empty.
        last: where the round axis ends, so that figures beside each other agree.
        name: a word that is unique in the page: the ids inside the SVG begin with it.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
        figure.subplots_adjust(left=0.12, right=0.955, top=0.9, bottom=0.13, hspace=0.24)
        _round_axis(lower, last)
        for axes, values, width, title in ((upper, fid, 2.0, "FID"), (lower, kid, 1.4, "KID")):
            kept = [(r, v) for r, v in zip(rounds, values, strict=True) if math.isfinite(v)]
            if kept:
                x, y = zip(*kept, strict=True)
                marker = "o" if len(kept) <= _MANY else None
                axes.plot(
                    x, y, color=THREE, linewidth=width, markersize=2.5 * width, marker=marker, clip_on=False
                )
                if axes is upper:
                    _end_label(axes, x[-1], y[-1], f"{y[-1]:.1f}")
            axes.set_ylim(bottom=min([0.0, *(v for _, v in kept)]), top=None if kept else 1)
            axes.grid(axis="y")
            if not kept:
                axes.set_yticks([])
            axes.set_title(f"{title} (lower is better)", loc="left", fontsize=10, pad=4)
        if not len(rounds):
            upper.text(0.5, 0.5, "no round evaluated yet", transform=upper.transAxes, ha="center")
        if len(kid):
            lower.yaxis.set_major_locator(MaxNLocator(2))
        fids = f"; the last FID is {fid[-1]:.1f}" if len(fid) else ""
        return as_svg(figure, name, f"FID and KID over {len(rounds)} evaluated rounds{fids}.")


def epsilon_plot(
    rounds: Sequence[int],
    zero_out: Mapping[str, Sequence[float]],
    replace_one: Mapping[str, Sequence[float]],
    *,
    last: int,
    image: Sequence[float] = (),
    name: str = "epsilon",
) -> str:
    """Epsilon to date per round on a logarithmic axis; infinity has its own place at the axis' end.

    Args:
        zero_out: up to two views by name, solid lines.
        replace_one: the same views under the stricter adjacency, dashed.
        image: epsilon for one image, by round, where there is such a guarantee: it does not grow.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE)
        axes = figure.subplots()
        figure.subplots_adjust(left=0.12, right=0.955, top=0.9, bottom=0.13)
        every = np.concatenate([np.empty(0), *zero_out.values(), *replace_one.values(), image])
        finite = every[np.isfinite(every) & (every > 0)]
        low = math.floor(math.log10(min(1.0, finite.min(initial=1.0))))
        high = math.ceil(math.log10(max(100.0, finite.max(initial=100.0))) + 0.05)
        infinite = bool(np.isinf(every).any())
        room = (high - low) * 0.16 if infinite else 0.0

        dashed = False
        axes.set_ylim(low, high + room)
        axes.axhline(math.log10(_GUIDE), color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
        if infinite:
            axes.axhspan(high + room * 0.15, high + room, color=FAINT, alpha=0.45, linewidth=0)
            axes.text(
                0.985, high + room * 0.05, "ε = ∞: no bound", transform=axes.get_yaxis_transform(),
                ha="right", va="top", fontsize=8.5,
            )  # fmt: skip
        for index, (view, colour, marker) in enumerate(zip(zero_out, (ONE, TWO), ("o", "s"), strict=False)):
            # In the strip for infinity, lines that would coincide lie one above the other.
            at_infinity = high + room * (0.72 - 0.3 * index)
            stricter = replace_one.get(view, ())
            for values, solid in ((stricter, False), (zero_out[view], True)):
                if not solid and list(stricter) == list(zero_out[view]):
                    continue  # it would lie under the solid line
                dashed |= not solid
                y = [at_infinity if math.isinf(v) else math.log10(v) if v > 0 else low for v in values]
                axes.plot(
                    rounds[: len(y)],
                    y,
                    color=colour,
                    linestyle="-" if solid else DASHES,
                    linewidth=2.0 if solid else 1.2,
                    marker=marker if solid and len(y) <= _MANY else None,
                    label=f"ε({view})" if solid else None,
                    clip_on=False,
                )
        if len(image):
            y = [high + room * 0.5 if math.isinf(v) else math.log10(v) for v in image]
            dot = "^" if len(y) <= _MANY else None
            axes.plot(rounds[: len(y)], y, color=THREE, marker=dot, label="ε(one image)", clip_on=False)
        _epsilon_ticks(axes, low, high, at=high + room * 0.57 if infinite else None)
        _round_axis(axes, last)
        axes.set_title("ε to date, by who looks (lower is better)", loc="left", fontsize=10, pad=4)
        if len(rounds):
            _legend(axes, low, high + room, every, dashed=dashed)
        else:
            axes.text(0.5, 0.5, "no round finished yet", transform=axes.transAxes, ha="center")
        last_values = ", ".join(
            f"ε({view}) is {'infinite' if math.isinf(v[-1]) else format_epsilon(v[-1])}"
            for view, v in zero_out.items()
            if len(v)
        )
        if len(image):
            last_values += f", for one image it is {format_epsilon(image[-1])} throughout"
        return as_svg(figure, name, f"Epsilon to date over {len(rounds)} rounds, logarithmic; {last_values}.")


def _end_label(axes: Axes, x: float, y: float, text: str) -> None:
    """Above the last point, or beside it where the axis goes on."""
    room = axes.get_xlim()[1] - x > 0.12 * (axes.get_xlim()[1] - axes.get_xlim()[0])
    place, align = ((8, -3), "left") if room else ((0, 8), "center")
    axes.annotate(text, (x, y), xytext=place, textcoords="offset points", ha=align, weight="bold")


def _round_axis(axes: Axes, last: int) -> None:
    axes.set_xlim(0.5 if last <= _MANY else 0, max(last, 1) + (0.5 if last <= _MANY else 0))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.set_xlabel("round")


def _epsilon_ticks(axes: Axes, low: int, high: int, at: float | None) -> None:
    step = max(1, math.ceil((high - low) / 7))
    decades = [float(power) for power in range(low, high + 1, step) if at is None or power < high]
    ticks = decades if at is None else [*decades, at]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda y, _: "∞" if at is not None and y == at else decade(round(y)))
    )
    for power in (power for power in decades if 10**power != _GUIDE):
        axes.axhline(power, color=FAINT, linewidth=0.6, zorder=0)


def _legend(axes: Axes, low: float, high: float, values: np.ndarray, *, dashed: bool) -> None:
    """Put the legend into the widest gap that the lines leave."""
    inside = np.clip(np.log10(np.where(values > 0, values, 10.0**low)), low, high).ravel()
    marks = np.sort(np.concatenate([[low, high], inside, [math.log10(_GUIDE)]]))
    gap = int(np.argmax(np.diff(marks)))
    middle = ((marks[gap] + marks[gap + 1]) / 2 - low) / (high - low)
    if dashed:
        axes.plot([], [], color=INK, linestyle=DASHES, linewidth=1.2, label="dashed: client replaced")
    axes.legend(
        loc="center left", bbox_to_anchor=(0.02, middle), fontsize=8.5, handlelength=2.6, labelspacing=0.35,
        framealpha=0.85, facecolor=PAPER, edgecolor="none",
    )  # fmt: skip
