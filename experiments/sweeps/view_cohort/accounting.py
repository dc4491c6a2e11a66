"""Epsilon of the two views from 10 to 10,000 clients, without learning: accounting.csv, accounting.svg.

    python experiments/sweeps/view_cohort/accounting.py

The parameters are those of recipe.toml beside it: flip 0.4, both clips, 16 rounds, delta 1e-5, one client
left out, every client in every sum. The recipe's own points, n = 10, 30 and 100, are among them.
"""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from prism_privacy import Accountant, Adjacency, MaskRelease, View
from prism_secure.reporting import drawing

HERE = Path(__file__).parent
COHORTS = (10, 30, 100, 300, 1000, 3000, 10_000)
CLIPS = {1.5: (drawing.ONE, "o"), 4.5: (drawing.TWO, "s")}
ROUNDS, FLIP, DELTA = 16, 0.4, 1e-5


def main() -> None:
    """Compute, write, draw."""
    table: dict[tuple[float, int], dict[View, float]] = {}
    for clip in CLIPS:
        for cohort in COHORTS:
            accountant = Accountant(delta=DELTA)
            accountant.spend(MaskRelease(flip=FLIP, clip=clip, cohort=cohort), rounds=ROUNDS)
            table[clip, cohort] = {view: accountant.epsilon(view, Adjacency.ZERO_OUT) for view in View}
    with (HERE / "accounting.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["clip", "clients", "epsilon.sum_zero_out", "epsilon.upload_zero_out"])
        writer.writerows(
            [*key, *(f"{row[view]:.6g}" for view in (View.SUM, View.UPLOAD))] for key, row in table.items()
        )
    (HERE / "accounting.svg").write_text(drawing.standalone(draw(table)), "utf-8")


def draw(table: dict[tuple[float, int], dict[View, float]]) -> str:
    """Both views over the cohort, logarithmic, as an SVG."""
    with mpl.rc_context(drawing.STYLE):
        figure = Figure(figsize=(7.2, 3.9))
        axes = figure.subplots()
        figure.subplots_adjust(left=0.1, right=0.72, top=0.9, bottom=0.14)
        for clip, (colour, marker) in CLIPS.items():
            for view, dash in ((View.UPLOAD, drawing.DASHES), (View.SUM, "solid")):
                values = [table[clip, cohort][view] for cohort in COHORTS]
                axes.plot(COHORTS, values, color=colour, marker=marker, linestyle=dash)
                name = f"ε({view.upper()}), clip {clip:g}"
                axes.annotate(
                    name,
                    (COHORTS[-1], values[-1]),
                    (8, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=9,
                )
        axes.set(xscale="log", yscale="log", xlabel="clients in every opened sum")
        axes.set_title(
            f"ε for one client, {ROUNDS} rounds, δ = 1e-5 (lower is better)", loc="left", fontsize=10
        )
        axes.grid(axis="y")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:,.6g}")
        axes.minorticks_off()
        return drawing.as_svg(figure, "views", "Epsilon of the two views over the number of clients.")


if __name__ == "__main__":
    main()
