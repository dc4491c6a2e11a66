"""The picture of what the two views mean: how well a client can be told apart, from uploads and from sums."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from prism_privacy import Accountant, Adjacency, MaskRelease, View
from prism_privacy.audit.membership import Membership, Recovery, Roc, certified_tpr, recovery, roc, scores
from prism_secure.audit.pages import render
from prism_secure.errors import ConfigError
from prism_secure.reporting import drawing
from prism_secure.storage import write_atomic
from prism_secure.wording import format_epsilon

Floats = NDArray[np.float64]

LOWEST = 1e-3
"""The smallest rate of false alarms that is drawn."""
_SHOWN = (0.001, 0.01, 0.1)
_LEAST_ALARMS = 10
"""A rate is told where so many false alarms are expected among the worlds that its threshold comes from."""
_DELTAS = np.geomspace(1e-9, 0.3, 40)
_COLOURS = {View.SUM: drawing.ONE, View.UPLOAD: drawing.TWO}
_NAMES = {View.SUM: "from the opened sums", View.UPLOAD: "from the client's uploads"}


@dataclass(frozen=True)
class Attack:
    """What was simulated, and what is certified: `guarantees` are (epsilon, delta), all of them at once."""

    worlds: Membership
    count: int
    delta: float
    epsilon: Mapping[View, float]
    curves: Mapping[View, Roc]
    guarantees: Mapping[View, Sequence[tuple[float, float]]]
    bits: Recovery

    def certified(self, view: View, fpr: Floats) -> Floats:
        """The most true alarms that the guarantees leave any test with these rates of false ones."""
        limits = [certified_tpr(fpr, epsilon, delta) for epsilon, delta in self.guarantees[view]]
        return np.asarray(np.min(limits, axis=0), dtype=np.float64)


@dataclass(frozen=True)
class Cell:
    """One rate of the table: (found, low, high) of both alarms, and the most true ones at `false[2]`."""

    true: tuple[float, float, float]
    false: tuple[float, float, float]
    certified: float


def attack(worlds: Membership, *, count: int, seed: int, delta: float) -> Attack:
    """Simulate `count` worlds with the client's data and as many without, under both views.

    Args:
        seed: draws the worlds: nothing private is in them.
        delta: where the certified epsilon is stated; the certified curve uses all deltas.
    """
    rng = np.random.default_rng(seed)
    fpr = np.geomspace(LOWEST, 1.0 - 1e-9, 61)
    accountant = Accountant(delta=delta)
    accountant.spend(MaskRelease(worlds.flip, worlds.clip, cohort=worlds.cohort), worlds.rounds)
    curves, guarantees, epsilon = {}, {}, {}
    for view in View:
        curves[view] = roc(*scores(worlds, view, count, rng), fpr)
        epsilon[view] = accountant.epsilon(view, Adjacency.ZERO_OUT)
        guarantees[view] = [
            (accountant.guarantee(view, Adjacency.ZERO_OUT, delta=float(at)).epsilon, float(at))
            for at in (delta, *_DELTAS)
        ]
    # A bit can be on either side of the public point only where there is room on both.
    centred = Membership(worlds.flip, worlds.clip, worlds.cohort, worlds.rounds)
    return Attack(worlds, count, delta, epsilon, curves, guarantees, recovery(centred, count, rng))


def write_membership(found: Attack, path: Path, command: str) -> None:
    """The picture: a page (.html), or the figure alone (.png, .svg).

    Raises:
        ConfigError: another ending.
        StorageError: the disk refused.
    """
    if path.suffix == ".html":
        page = render(
            "membership.html.jinja",
            worlds=found.worlds,
            attack=found,
            command=command,
            roc=_panel(found, "roc"),
            bits=_panel(found, "bits"),
            rows=[(name, cells(found, view)) for view, name in _NAMES.items()],
            shown=[(rate, least_worlds(rate)) for rate in _SHOWN],
            epsilons={view.value: found.epsilon[view] for view in View},
        )
        write_atomic(path, page.encode())
    elif path.suffix in (".png", ".svg"):
        _write_figure(found, path)
    else:
        raise ConfigError(f"--out must end in .html, .png or .svg, got {path.name}")


def least_worlds(rate: float) -> int:
    """Worlds of each kind from which on a threshold can be chosen for a rate of false alarms.

    >>> [least_worlds(rate) for rate in (0.001, 0.01, 0.1)]
    [20000, 2000, 200]
    """
    return math.ceil(2 * _LEAST_ALARMS / rate)


def cells(found: Attack, view: View) -> list[Cell | None]:
    """The table's row of a view; None where there are too few worlds for the rate.

    A threshold chosen for 0.1% of false alarms turns out to have somewhat more or fewer. So true alarms are
    held against the guarantee at the most false ones that the worlds leave possible: beside the guarantee at
    0.1% a correct mechanism would seem to break it.
    """
    curve, row = found.curves[view], list[Cell | None]()
    for rate in _SHOWN:
        if found.count < least_worlds(rate):
            row.append(None)
            continue
        at = int(np.argmin(np.abs(np.log(curve.fpr / rate))))
        true, false = (
            (float(each[at]), float(low[at]), float(high[at]))
            for each, low, high in (
                (curve.tpr, curve.low, curve.high),
                (curve.false, curve.fpr_low, curve.fpr_high),
            )
        )
        row.append(Cell(true, false, float(found.certified(view, np.array([false[2]]))[0])))
    return row


def _panel(found: Attack, which: str) -> str:
    """One panel as SVG for the page, in the page's colours."""
    with mpl.rc_context(drawing.STYLE):
        figure = Figure(figsize=drawing.SIZE)
        axes = figure.subplots()
        figure.subplots_adjust(left=0.13, right=0.955, top=0.9, bottom=0.14)
        if which == "roc":
            _draw_roc(axes, found)
            told = "True against false alarms of the best membership attack, both logarithmic."
        else:
            _draw_bits(axes, found)
            told = "The share of a client's mask bits that the best guess gets right."
        return drawing.as_svg(figure, which, told)


def _write_figure(found: Attack, path: Path) -> None:
    """Both panels side by side, on white."""
    style = {
        key: drawing.ON_WHITE.get(value, value) if isinstance(value, str) else value
        for key, value in drawing.STYLE.items()
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(10.4, 4.1), facecolor="white", dpi=150)
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2, width_ratios=[1.45, 1])
        figure.subplots_adjust(left=0.065, right=0.975, top=0.91, bottom=0.135, wspace=0.22)
        _draw_roc(left, found)
        _draw_bits(right, found)
        for artist in figure.findobj():
            _repaint(artist)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        picture = io.BytesIO()
        figure.savefig(picture, format=path.suffix.removeprefix("."), metadata=metadata)
        write_atomic(path, picture.getvalue())


def _repaint(artist: object) -> None:
    """The page's colour variables as colours."""
    for name in ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor"):
        get, put = getattr(artist, f"get_{name}", None), getattr(artist, f"set_{name}", None)
        if get is None or put is None:
            continue
        value = get()
        if isinstance(value, str) and value in drawing.ON_WHITE:
            put(drawing.ON_WHITE[value])
        elif not isinstance(value, str) and len(np.shape(value)) and np.size(value) == 4:
            red, green, blue, opacity = map(float, np.ravel(value))
            known = mpl.colors.to_hex((red, green, blue))
            if known in drawing.ON_WHITE:
                put((*mpl.colors.to_rgb(drawing.ON_WHITE[known]), opacity))


def _draw_roc(axes: Axes, found: Attack) -> None:
    for view in (View.UPLOAD, View.SUM):
        curve, colour = found.curves[view], _COLOURS[view]
        # Both rates are estimates: the band holds the threshold's true rate of false alarms, too.
        ends = np.concatenate([curve.fpr_low, curve.fpr_high[::-1]])
        rates = np.concatenate([curve.high, curve.low[::-1]])
        axes.fill(np.maximum(ends, 1e-6), np.maximum(rates, 1e-6), color=colour, alpha=0.25, linewidth=0)
        axes.plot(
            np.maximum(curve.false, 1e-6), np.maximum(curve.tpr, 1e-6), color=colour, label=_NAMES[view]
        )
        limit = found.certified(view, curve.fpr)
        axes.plot(
            curve.fpr, limit, color=colour, linewidth=1.3, linestyle=drawing.DASHES,
            label=f"most that ε = {format_epsilon(found.epsilon[view])} leaves",
        )  # fmt: skip
    axes.plot(
        [LOWEST, 1], [LOWEST, 1], color=drawing.INK, linewidth=0.9, linestyle=(0, (1, 2)), label="guessing"
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(LOWEST, 1)
    axes.set_ylim(LOWEST * 0.8, 1.25)
    axes.grid(which="major")
    axes.set_xlabel("false alarms (client was not in)")
    axes.set_title("True alarms: the client is found to be in", loc="left", fontsize=10, pad=4)
    axes.legend(loc="lower right", fontsize=8, framealpha=0.9, facecolor=drawing.PAPER, edgecolor="none")


def _draw_bits(axes: Axes, found: Attack) -> None:
    shares = [(View.UPLOAD, found.bits.upload), (View.SUM, found.bits.sum)]
    for row, (view, share) in enumerate(shares):
        axes.barh(row, share, height=0.55, color=_COLOURS[view])
        inside = share > 0.75
        axes.annotate(
            f"{share:.1%}", (share, row), xytext=(-6 if inside else 6, 0), textcoords="offset points",
            ha="right" if inside else "left", va="center", weight="bold",
            color=drawing.PAPER if inside else drawing.INK,
        )  # fmt: skip
    axes.axvline(0.5, color=drawing.INK, linewidth=0.9, linestyle=(0, (1, 2)))
    axes.annotate("a coin", (0.5, 1.5), xytext=(5, 0), textcoords="offset points", fontsize=8.5)
    axes.set_yticks([0, 1], ["uploads", "sums"])
    axes.set_ylim(-0.6, 1.7)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("of the client's mask bits")
    axes.set_title("Guessed right after all rounds", loc="left", fontsize=10, pad=4)
