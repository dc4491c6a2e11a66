"""The audit's figures as inline SVG, in the look of the report's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from prism_secure.audit.budget import Account
from prism_secure.reporting import drawing
from prism_secure.wording import format_epsilon

_FAR = 10.0
"""From so many times the limit on, the axis is logarithmic, or the limit would lie on its lower end."""
_COLOURS = (drawing.ONE, drawing.TWO, drawing.THREE, drawing.INK)


def spending_plot(accounts: Sequence[Account], *, name: str) -> str:
    """Epsilon as it grew with every charge, for those under one limit, and the limit.

    Args:
        accounts: of one limit, at least one; the four that spent most are drawn.
        name: a word that is unique in the page.
    """
    limit = accounts[0].limit
    drawn = sorted(accounts, key=lambda account: -account.epsilon)[: len(_COLOURS)]
    with mpl.rc_context(drawing.STYLE):
        figure = Figure(figsize=drawing.SIZE)
        axes = figure.subplots()
        figure.subplots_adjust(left=0.12, right=0.955, top=0.9, bottom=0.13)
        highest = max(
            [limit.epsilon]
            + [point.epsilon for account in drawn for point in account.spent if math.isfinite(point.epsilon)]
        )
        far = highest > _FAR * limit.epsilon
        for account, colour in zip(drawn, _COLOURS, strict=False):
            least = 1e-300 if far else 0.0
            finite = [point for point in account.spent if least <= point.epsilon < math.inf]
            label = f"{account.clients}, {format_epsilon(account.epsilon)}"
            if len(finite) > 1:
                x, y = zip(*((point.charges, point.epsilon) for point in finite), strict=True)
                axes.plot(x, y, color=colour, label=label, clip_on=far)
            else:
                axes.plot([], [], color=colour, label=label)
            first = next((point for point in account.spent if math.isinf(point.epsilon)), None)
            if first is not None:
                top = highest * (1.6 if far else 1.15)
                axes.plot([first.charges], [top], color=colour, marker="^", clip_on=False)
        axes.axhline(limit.epsilon, color=drawing.INK, linewidth=1.0, linestyle=(0, (4, 2)))
        axes.annotate(
            f"limit {limit.epsilon:g}", (0.995, limit.epsilon), xycoords=("axes fraction", "data"),
            xytext=(0, 3), textcoords="offset points", fontsize=8.5, ha="right",
        )  # fmt: skip
        _finish(axes, highest, limit.epsilon if far else None)
        axes.set_title(f"ε spent: {limit.words}", loc="left", fontsize=10, pad=4)
        spent = "; ".join(f"{account.clients} {format_epsilon(account.epsilon)}" for account in drawn)
        return drawing.as_svg(figure, name, f"Epsilon spent, with the limit {limit.epsilon:g}: {spent}.")


def _finish(axes: Axes, highest: float, far_above: float | None) -> None:
    if far_above is None:
        axes.set_ylim(0, highest * 1.2)
    else:
        axes.set_yscale("log")
        axes.set_ylim(far_above / 3, highest * 2)
    axes.set_xlim(left=0)
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.set_xlabel("charges, in the order of the ledgers")
    axes.legend(loc="lower right", fontsize=8.5, framealpha=0.85, facecolor=drawing.PAPER, edgecolor="none")
