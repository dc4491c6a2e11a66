"""The figure of a run's report as inline SVG: arrays in, text out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import matplotlib as mpl
import msgspec
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from prism_secure.reporting.drawing import DASHES, FAINT, INK, ONE, STYLE, THREE, TWO, as_svg, decade
from prism_secure.wording import format_epsilon

__all__ = ["Curve", "curves_plot"]

_FEW = 10.0
"""Up to here an epsilon says something (`prism_secure.wording.verdict`); above, the axis is logarithmic."""
_MANY = 40
"""From so many points on, markers would hide the line."""
_WIDTH = 5.7
"""Of the figure, in inches."""
_LINE = 0.16
"""How far labels lie apart, in inches."""


class Curve(msgspec.Struct, frozen=True):
    """Epsilon to date, round by round.

    Attributes:
        label: what it is, such as "ε(SUM)".
        kind: whose epsilon it is, which chooses colour and marker.
        values: after each round from 1 on; may be infinite.
        planned: after all rounds, where that is known.
        stricter: whether it is the other curve of its kind, under the stricter adjacency.
    """

    label: str
    kind: Literal["sum", "upload", "image", "image upload"]
    values: Sequence[float]
    planned: float | None = None
    stricter: bool = False

    @property
    def text(self) -> str:
        """What stands beside its last point."""
        return f"{self.label} {format_epsilon(self.values[-1])}"

    @property
    def end(self) -> float:
        """Where it leads."""
        return max(self.values[-1], self.planned or 0.0)


_LOOKS = {"sum": (ONE, "o"), "upload": (TWO, "s"), "image": (THREE, "^"), "image upload": (THREE, "v")}


def curves_plot(
    fid: Sequence[tuple[int, float]],
    curves: Sequence[Curve],
    *,
    last: int,
    budgets: Mapping[str, float] | None = None,
    losses: Sequence[tuple[int, float]] = (),
    name: str = "curves",
) -> str:
    """FID, epsilon and the server's loss over the same rounds, one panel under the other.

    Every line is named where it ends.

    Epsilons that stay small have a linear axis. Larger and infinite ones lie in a slim panel of their own, on
    a logarithmic axis, at whose upper end infinity has its place.

    Args:
        fid: evaluated rounds and their FID; what is not finite is left out.
        curves: empty where no round is finished.
        last: where the round axis ends.
        budgets: what all rounds together may cost, by whom it is for ("one client"): lines across the panel
            of small epsilons.
        losses: rounds after which the server trained and its mean loss; drawn from two rounds on.
        name: a word that is unique in the page: the ids inside the SVG begin with it.
    """
    curves, budgets = [curve for curve in curves if len(curve.values)], budgets or {}
    small = [curve for curve in curves if curve.end <= _FEW]
    large = [curve for curve in curves if curve.end > _FEW]
    panels: list[tuple[float, Callable[[Axes], None]]] = [
        (1.5, lambda axes: _fid(axes, fid, finished=bool(curves)))
    ]
    if small:
        panels.append((1.5, lambda axes: _small(axes, small, budgets)))
    if large:
        panels.append((0.9, lambda axes: _large(axes, large, beside=bool(small))))
    losses = [(number, value) for number, value in losses if 0 < value < math.inf]
    if len(losses) > 1:
        panels.append((0.9, lambda axes: _losses(axes, losses)))
    with mpl.rc_context(STYLE):
        shares = [share for share, _ in panels]
        right = 1 - (5.1 * max((len(curve.text) for curve in curves), default=8) + 14) / (72 * _WIDTH)
        height = sum(shares) + 0.42 * len(panels) + 0.45
        figure = Figure(figsize=(_WIDTH, height))
        every = figure.subplots(len(panels), 1, sharex=True, height_ratios=shares, squeeze=False)[:, 0]
        figure.subplots_adjust(
            left=0.09, right=right, top=1 - 0.32 / height, bottom=0.45 / height,
            hspace=0.42 * len(panels) / sum(shares),
        )  # fmt: skip
        _round_axis(every[-1], last)
        for axes, (_, draw) in zip(every, panels, strict=True):
            draw(axes)
        return as_svg(figure, name, _in_words(fid, curves, budgets, losses))


def _in_words(
    fid: Sequence[tuple[int, float]],
    curves: Sequence[Curve],
    budgets: Mapping[str, float],
    losses: Sequence[tuple[int, float]],
) -> str:
    parts = []
    if fid:
        parts.append(
            f"FID from {fid[0][1]:.1f} after round {fid[0][0]} to {fid[-1][1]:.1f} after {fid[-1][0]}"
        )
    for curve in curves:
        first, now = (format_epsilon(value) for value in (curve.values[0], curve.values[-1]))
        grown = f"grows from {first} to {now}" if first != now else f"is {now} throughout"
        parts.append(f"{curve.label} {grown}")
    parts += [f"the budget of {whose} is {format_epsilon(value)}" for whose, value in budgets.items()]
    if len(losses) > 1:
        parts.append(f"the loss of the server goes from {losses[0][1]:.3g} to {losses[-1][1]:.3g}")
    return "; ".join(parts or ["No round is finished yet"]) + "."


def _fid(axes: Axes, fid: Sequence[tuple[int, float]], *, finished: bool) -> None:
    kept = [(number, value) for number, value in fid if math.isfinite(value)]
    _title(axes, "FID of the generated images (lower is better)")
    axes.grid(axis="y")
    axes.set_ylim(0, 1.08 * max((value for _, value in kept), default=1))
    if not kept:
        axes.set_yticks([])
        axes.text(
            0.5,
            0.5,
            "no round evaluated yet" if finished else "no round finished yet",
            transform=axes.transAxes,
            ha="center",
        )
        return
    axes.yaxis.set_major_locator(MaxNLocator(4))
    x, y = zip(*kept, strict=True)
    axes.plot(x, y, color=INK, marker="o" if len(kept) <= _MANY else None, clip_on=False)
    _name_ends(axes, [(x[-1], y[-1], f"FID {y[-1]:.1f}", INK, True)])


def _small(axes: Axes, curves: Sequence[Curve], budgets: Mapping[str, float]) -> None:
    _title(axes, "ε to date (lower is better)")
    axes.grid(axis="y")
    shown = {whose: value for whose, value in budgets.items() if value <= _FEW}
    top = max([*shown.values(), *(value for curve in curves for value in curve.values)])
    axes.set_ylim(0, 1.12 * top or 1)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    for whose, value in shown.items():
        colour = _LOOKS["sum" if whose == "one client" else "image"][0]
        axes.axhline(value, color=colour, linewidth=1.1, linestyle=(0, (1, 2)))
        axes.annotate(
            f"budget {format_epsilon(value)}", (0.01, value), xytext=(0, 3), color=colour,
            xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=8.5,
        )  # fmt: skip
    _draw(axes, curves, lambda curve: list(curve.values))


def _large(axes: Axes, curves: Sequence[Curve], *, beside: bool) -> None:
    _title(axes, f"ε to date{', where it leads above 10' if beside else ''} (logarithmic)")
    finite = [value for curve in curves for value in curve.values if 0 < value < math.inf]
    low = math.floor(math.log10(min([1.0, *finite])))
    high = max(2, math.ceil(math.log10(max([1.0, *finite]))))
    infinite = any(math.isinf(value) for curve in curves for value in curve.values)
    room = (high - low) * 0.6 if infinite else 0.0
    axes.set_yscale("log")
    axes.set_ylim(10.0**low, 10.0 ** (high + room))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(numticks=4))
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda y, _: decade(round(math.log10(y))) if math.log10(y) < high + 0.2 * room else "")
    )
    axes.grid(axis="y")
    at = {
        id(curve): high + room * (0.85 - 0.45 * index / max(1, len(curves) - 1))
        for index, curve in enumerate(curves)
    }
    if infinite:
        axes.axhspan(10 ** (high + room * 0.25), 10 ** (high + room), color=FAINT, alpha=0.45, linewidth=0)
        axes.text(
            -0.03, 10 ** (high + room * 0.6), "∞", transform=axes.get_yaxis_transform(),
            ha="right", va="center",
        )  # fmt: skip
    # At infinity, lines that would coincide lie one above the other.
    _draw(
        axes,
        curves,
        lambda curve: [10 ** at[id(curve)] if math.isinf(v) else max(v, 10.0**low) for v in curve.values],
    )


def _losses(axes: Axes, losses: Sequence[tuple[int, float]]) -> None:
    _title(axes, "The server’s loss on opened values (logarithmic)")
    x, y = zip(*losses, strict=True)
    axes.set_yscale("log")
    axes.set_ylim(10.0 ** math.floor(math.log10(min(y))), 10.0 ** math.ceil(math.log10(max(y))))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(numticks=4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: decade(round(math.log10(y)))))
    axes.grid(axis="y")
    axes.plot(x, y, color=INK, marker="o" if len(y) <= _MANY else None, clip_on=False)
    _name_ends(axes, [(x[-1], y[-1], f"loss {y[-1]:.3g}", INK, True)])


def _draw(axes: Axes, curves: Sequence[Curve], heights: Callable[[Curve], list[float]]) -> None:
    ends = []
    for curve in curves:
        colour, marker = _LOOKS[curve.kind]
        y = heights(curve)
        x = range(1, len(y) + 1)
        light = curve.stricter
        axes.plot(
            x, y, color=colour, linestyle=DASHES if light else "-", linewidth=1.2 if light else 2.0,
            marker=None if light or len(y) > _MANY else marker, clip_on=False,
        )  # fmt: skip
        ends.append((x[-1], y[-1], curve.text, colour, not light))
    _name_ends(axes, ends)


def _name_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str, bool]]) -> None:
    """Beside each line's last point what it is, in its colour, and apart from the others."""
    box, figure = axes.get_position(), axes.figure
    assert isinstance(figure, Figure)
    inches = box.height * figure.get_figheight()
    to_inches = axes.transScale + axes.transLimits
    place = {index: to_inches.transform((x, y))[1] * inches for index, (x, y, *_) in enumerate(ends)}
    order = sorted(place, key=lambda index: place[index])
    wanted = [place[index] for index in order]
    for _ in range(20):  # neighbours that are too near step apart, until none are
        for lower in range(len(wanted) - 1):
            overlap = _LINE - (wanted[lower + 1] - wanted[lower])
            if overlap > 1e-6:
                wanted[lower] -= overlap / 2
                wanted[lower + 1] += overlap / 2
    up = max(0.0, _LINE / 2 - wanted[0])  # clear of the rounds' numbers
    for index, height in zip(order, wanted, strict=True):
        x, y, text, colour, bold = ends[index]
        axes.annotate(
            text, (x, y), xytext=(9, 72 * (height + up - place[index])), textcoords="offset points",
            color=colour, va="center", fontsize=8.0, weight="bold" if bold else "normal",
            annotation_clip=False,
        )  # fmt: skip


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=10, pad=6, y=1.0)  # its place is known, and not searched for


def _round_axis(axes: Axes, last: int) -> None:
    axes.set_xlim(0.5 if last <= _MANY else 0, max(last, 1))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.set_xlabel("round")
