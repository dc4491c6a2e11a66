"""The figure and the tables of the frontier, from `results.jsonl`.

    python experiments/frontier/figure.py

Writes `frontier.svg` and `frontier.png` beside it, and prints the tables of README.md.
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

sys.path.insert(0, str(Path(__file__).parents[1]))
from results import read, spread

HERE = Path(__file__).parent
COLOURS = {100: "#b2560d", 1000: "#1a5fb4", 6000: "#1b7f4b", 10: "#7b3fa0"}
EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0)
TITLES = {
    "client": "ε for a client, left out",
    "image": "ε for one image, replaced",
}
COLUMNS = {
    "recall": "recall",
    "fid": "FID (lower is better)",
    "gen2real": "gen2real accuracy",
}

POSTERIOR = 1000
STYLES = {
    "measured": ("o:", "measured rounds, 1,380 steps"),
    "measured, 4,000 steps": ("o-", "measured rounds"),
    "one-shot, 4,000 steps": ("s--", "one shot"),
    "clipped": ("D-.", "clipped local training"),
}
"""What is drawn: the server trains 4,000 steps, but for `FEW` clients. The tables have all."""
FEW = 100
"""So many have 1,380 steps at every epsilon; noise is what limits them."""

Line = Mapping[str, Any]


def points(lines: Iterable[Line]) -> dict[tuple[str, int, str, float], list[Line]]:
    """Lines of one unit, number of clients, method and epsilon: seeds of simulated sums.

    One shot has two forms, as the means opened and drawn towards the public guess along `POSTERIOR` rows;
    with a number of steps of its own it is another method.
    """
    found = defaultdict(list)
    for line in lines:
        if _shown(line):
            method = line["method"] + (", posterior" if line["given_rows"] else "")
            if steps := line.get("given_steps"):
                method += f", {steps:,} steps"
            found[line["unit"], line["clients"], method, line["epsilon"]].append(line)
    return dict(sorted(found.items(), key=lambda item: (item[0][0], item[0][1], item[0][3], item[0][2])))


def _shown(line: Line) -> bool:
    if "unit" not in line or line["real"]:
        return False
    return line["given_rows"] is None or (line["method"], line["given_rows"]) == ("one-shot", POSTERIOR)


def values_of(lines: Iterable[Line], metric: str) -> list[float]:
    """A metric of several lines; gen2real of lines before `sliced_wasserstein` was another classifier's."""
    return [line[metric] for line in lines if metric != "gen2real" or "sliced_wasserstein" in line]


def words(clients: int, images: int) -> str:
    return f"{clients:,} clients of {images:,}"


def draw(found: Mapping[tuple[str, int, str, float], list[Line]], folder: Path) -> None:
    """The figure of `STYLES`: a row for each unit; recall, FID and gen2real side by side."""
    mpl.rcParams["svg.hashsalt"] = "frontier"
    units = [unit for unit in TITLES if any(key[0] == unit for key in found)]
    shape = len(units), len(COLUMNS)
    size = 13.2, 3.1 * len(units) + 0.3
    fig, axes = plt.subplots(*shape, figsize=size, sharex=True, sharey="col", squeeze=False)
    for row, unit in zip(axes, units, strict=True):
        curves: dict[tuple[int, str], dict[float, list[Line]]] = defaultdict(dict)
        for (of, clients, method, epsilon), lines in found.items():
            if of == unit and method in STYLES and (method == "measured") is (clients == FEW):
                curves[clients, method][epsilon] = lines
        for axis, metric in zip(row, COLUMNS, strict=True):
            for (clients, method), curve in curves.items():
                style, name = STYLES[method]
                where = [epsilon for epsilon in sorted(curve) if values_of(curve[epsilon], metric)]
                values = [values_of(curve[epsilon], metric) for epsilon in where]
                means = [statistics.fmean(each) for each in values]
                images = next(iter(curve.values()))[0]["images"]
                axis.plot(
                    where, means, style, color=COLOURS[clients], markersize=4.5,
                    markerfacecolor=COLOURS[clients] if "o" in style else "white",
                    label=f"{words(clients, images)}, {name}",
                )  # fmt: skip
                low, high = [min(each) for each in values], [max(each) for each in values]
                axis.vlines(where, low, high, color=COLOURS[clients], linewidth=1.2)
            axis.set_xscale("log", base=2)
            axis.set_xticks(EPSILONS, [f"{epsilon:g}" for epsilon in EPSILONS])
            axis.set_xlim(0.42, 9.5)
            axis.grid(alpha=0.25)
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelleft=True, labelbottom=True)
        legend = row[-1].legend(
            loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=9, alignment="left"
        )
        legend.set_title(TITLES[unit], prop={"size": 10.5, "weight": "bold"})
    for column, metric in zip(axes.T, COLUMNS, strict=True):
        column[0].set_title(COLUMNS[metric], fontsize=10.5)
        column[-1].set_xlabel("ε(SUM) at δ = 1e-5")
        most = max(axis.dataLim.y1 for axis in column)
        if metric == "fid":
            column[0].set_yscale("log")
            column[0].set_yticks(ticks := [40, 60, 100, 200, 400, 600], [str(tick) for tick in ticks])
            column[0].minorticks_off()
        else:
            column[0].set_ylim(0, 1.05 * most)
    fig.tight_layout()
    fig.savefig(folder / "frontier.svg", metadata={"Date": None})
    fig.savefig(folder / "frontier.png", dpi=130)


def table(found: Mapping[tuple[str, int, str, float], list[Line]], unit: str) -> str:
    """A row a point: means over seeds, and from where to where."""
    other = "image" if unit == "client" else "client"
    rows = [
        f"| clients × images | ε(SUM) | method | seeds | ε(UPLOAD) | ε({other}, SUM) | rows; f, m | FID | "
        "KID | precision | recall | coverage | as asked | gen2real |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (of, clients, method, epsilon), lines in found.items():
        if of != unit:
            continue
        first = lines[0]
        settings = "bits of masks" if method == "clipped" else f"{first['rows'] or 'all features'}"
        if first["method"] == "measured":
            settings += f"; {first['flip']:g}, {first['coordinates']:,}"
        cells = [
            f"{clients:,} × {first['images']:,}", f"{epsilon:g}", method, str(len(lines)),
            _number(first[f"epsilon_{unit}_upload"]), _number(first[f"epsilon_{other}_sum"]), settings,
        ]  # fmt: skip
        forms = {
            "fid": ".1f", "kid": ".2f", "precision": ".2f", "recall": ".2f", "coverage": ".2f",
            "label_accuracy": ".1%", "gen2real": ".1%",
        }  # fmt: skip
        for name, form in forms.items():
            values = values_of(lines, name)
            cells.append(spread(values, form) + _of(len(values), len(lines)) if values else "–")
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _of(some: int, lines: int) -> str:
    return "" if some == lines else f", {some} seed{'' if some == 1 else 's'}"


def _number(value: float | str) -> str:
    return str(value) if isinstance(value, str) else f"{value:.3g}"


def main() -> None:
    lines = read(HERE / "results.jsonl")
    found = points(lines)
    draw(found, HERE)
    for unit in TITLES:
        print(table(found, unit), end="\n\n")
    for line in lines:
        if not _shown(line):
            print({name: line[name] for name in ("name", "fid", "recall", "gen2real") if name in line})


if __name__ == "__main__":
    main()
