"""One self-contained page about many runs, made for somebody who has to decide, and the files beside it.

    DIR/report.html              the page: figures, tables, script and data in one file; needs no network
    DIR/report/FIGURE.svg        front, rounds, heat, samples-...
    DIR/report/TABLE.csv         points, runs, rounds, composed
    DIR/report/TABLE.parquet     the same, typed

Figures are there twice: drawn here as SVG, which print, files and readers without scripts get, and drawn by
Plotly in the page, where they answer to the pointer. Both come from the same values.
"""

from __future__ import annotations

import base64
import gzip
import importlib.util
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prism_privacy.ledger.entry import json_safe
from prism_secure.errors import PrismError, pip_install
from prism_secure.reporting import drawing, pages
from prism_secure.run_folder.environment import read_environment
from prism_secure.storage import make_folder, write_atomic
from prism_secure.sweep.objectives import DIRECTIONS
from prism_secure.sweep.recipe import in_words
from prism_secure.sweep.report.along import Strip, strips, strips_plot
from prism_secure.sweep.report.figures import (
    Line,
    Mark,
    epsilon_words,
    front_plot,
    heat_plot,
    rounds_plot,
)
from prism_secure.sweep.report.subject import Subject, subject_of_sweep
from prism_secure.sweep.report.tables import (
    EPSILONS,
    QUALITY,
    composed_table,
    lower_bounds,
    points_table,
    round_means,
    rounds_table,
    runs_table,
    write_tables,
)
from prism_secure.sweep.results import (
    SweepPoint,
    front,
    image_views,
    images_together,
    read_sweep,
    record_of,
    why_infinite_in,
)
from prism_secure.wording import SCALE

__all__ = ["write_page", "write_sweep_page"]

METRICS = {
    "fid": "FID (lower is better)",
    "recall": "recall (higher is better)",
    "coverage": "coverage (higher is better)",
    "gen2real": "gen2real (higher is better)",
    "kid": "KID (lower is better)",
    "sliced_wasserstein": "sliced Wasserstein distance (lower is better)",
    "precision": "precision (higher is better)",
    "density": "density (higher is better)",
    "label_accuracy": "label accuracy (higher is better)",
}
VIEWS = {
    "epsilon.sum_zero_out": "ε(SUM): an observer of the opened sums",
    "epsilon.upload_zero_out": "ε(UPLOAD): an observer of one client’s bits",
}
"""The panels of the front; the page switches both to the stricter adjacency. One image's is `views_of`'s."""
_OVER_ROUNDS = ("fid", "recall", "coverage", "kid", "label_accuracy")
_LINE_POINTS = 25
_PANELS = 9


def write_sweep_page(folder: Path) -> Path:
    """Write `report.html` and `report/` into a sweep's folder; returns the page's path.

    Raises:
        RunFolderError: the folder is not a sweep's, or a file in it is damaged.
        PrismError: plotly or pyarrow is not installed.
        StorageError: the disk refused.
    """
    return write_page(subject_of_sweep(read_sweep(folder)), folder)


def write_page(subject: Subject, folder: Path) -> Path:
    """Write the page of `subject` and its exports into `folder`; returns the page's path.

    Raises:
        RunFolderError: a run folder is damaged.
        PrismError: plotly or pyarrow is not installed.
        StorageError: the disk refused.
    """
    plotly = _plotly()
    fronts = {name: front(subject.points, name, "fid") for name in EPSILONS}
    ids = {name: {point.id for point in points} for name, points in fronts.items()}
    figures = _figures(subject, ids)
    along = _along(subject, fronts)
    tables = [points_table(subject, ids), runs_table(subject), composed_table(subject)]
    exports = folder / "report"
    make_folder(exports)
    write_tables(exports, [*tables, rounds_table(subject)])
    for name, svg in figures.items():
        write_atomic(exports / f"{name}.svg", drawing.standalone(svg).encode())
    for seen in along:
        write_atomic(exports / f"{seen.name}.svg", seen.drawn(subject).encode())
    page = _render(subject, fronts, figures, along, {table.name: table.csv() for table in tables}, plotly)
    write_atomic(folder / "report.html", page.encode())
    return folder / "report.html"


def _plotly() -> str:
    """Plotly's script, compressed for the page, which unpacks it: a third of the size."""
    found = importlib.util.find_spec("plotly")
    if found is None or not found.submodule_search_locations:
        raise PrismError(f"the page of many runs needs plotly: {pip_install('sweep')}")
    script = Path(found.submodule_search_locations[0]) / "package_data" / "plotly.min.js"
    return base64.b64encode(gzip.compress(script.read_bytes(), 6, mtime=0)).decode()


def _figures(subject: Subject, ids: dict[str, set[str]]) -> dict[str, str]:
    done = [point for point in subject.points if point.finished and math.isfinite(point.mean("fid"))]
    panels = {
        words: [
            Mark(
                point.epsilon(name.partition(".")[2]),
                point.mean("fid"),
                point.interval("fid"),
                lower_bounds(point.runs).get(name.partition(".")[2]),
                point.id in ids[name],
            )
            for point in done
            if not math.isnan(point.epsilon(name.partition(".")[2]))
        ]
        for name, words in views_of(subject).items()
    }
    figures = {"front": front_plot(panels, METRICS["fid"])}
    panel_of, kinds, kind_of = _multiples(subject)
    lines: dict[str, list[Line]] = {panel: [] for panel in panel_of.values()}
    for point in subject.points:
        means = pages.thin(round_means(point, "fid"), _LINE_POINTS)
        if means:
            rounds, values = zip(*means, strict=True)
            lines[panel_of[point.id]].append(Line(rounds, values, kind_of[point.id]))
    if any(lines.values()):
        drawn = {panel: found for panel, found in lines.items() if found}
        figures["rounds"] = rounds_plot(drawn, METRICS["fid"], kinds)
    keys = _heat_keys(subject)
    if keys and done:
        figures["heat"] = _heat(subject, *keys)
    return figures


def views_of(subject: Subject) -> dict[str, str]:
    """The epsilons that say anything here, and whom each is against: one image's where some run claims it."""
    seen = image_views(subject.runs)
    return VIEWS | (
        {"epsilon.record": f"ε(one {record_of(subject.runs)}): {' or '.join(seen)}"} if seen else {}
    )


def _heat(subject: Subject, down: str, across: str) -> str:
    rows, columns = levels(subject, down), levels(subject, across)
    cells: dict[tuple[str, str], list[float]] = {}
    for point in subject.points:
        if math.isfinite(value := point.mean("fid")):
            cells.setdefault((in_words(point.settings[down]), in_words(point.settings[across])), []).append(
                value
            )
    table = [[float(np.mean(cells.get((row, column), [math.nan]))) for column in columns] for row in rows]
    over = "the other settings and the seeds" if len(subject.keys) > 2 else "the seeds"
    names = down.partition(".")[2], across.partition(".")[2], f"FID, mean over {over}"
    return heat_plot(table, rows, columns, names)


def levels(subject: Subject, key: str) -> list[str]:
    """A key's values in order, numbers by size, each once."""
    kept: dict[str, Any] = {in_words(point.settings[key]): point.settings[key] for point in subject.points}

    def order(text: str) -> tuple[int, float, str]:
        value = kept[text]
        number = isinstance(value, int | float)
        return (0 if number else 1, float(value) if number else 0.0, text)

    return sorted(kept, key=order)


def _heat_keys(subject: Subject) -> tuple[str, str] | None:
    """The two keys that move FID most: by the spread of its mean from value to value."""
    spread = {}
    for key in subject.keys:
        groups: dict[str, list[float]] = {}
        for point in subject.points:
            if math.isfinite(value := point.mean("fid")):
                groups.setdefault(in_words(point.settings[key]), []).append(value)
        spread[key] = float(np.std([np.mean(values) for values in groups.values()])) if groups else 0.0
    best = sorted(spread, key=lambda key: -spread[key])[:2]
    return (best[0], best[1]) if len(best) == 2 else None


def _multiples(subject: Subject) -> tuple[dict[str, str], list[str], dict[str, int]]:
    """Which small panel each point is in, and its colour there: flip first, or the first key, then the next.

    A key with many values is cut into ranges that hold about as many of them each.
    """
    if not subject.keys:
        return {p.id: "all runs" for p in subject.points}, [], {p.id: 0 for p in subject.points}
    first = "privacy.flip" if "privacy.flip" in subject.keys else subject.keys[0]
    values = levels(subject, first)
    name = first.partition(".")[2]
    if len(values) <= _PANELS:
        panels = {value: f"{name} = {value}" for value in values}
    else:
        parts = np.array_split(np.array(values), 6)
        panels = {str(v): f"{name} = {part[0]} … {part[-1]}" for part in parts for v in part}
    rest = [key for key in subject.keys if key != first]
    second = levels(subject, rest[0]) if rest else []
    kinds = [f"{rest[0].partition('.')[2]} = {value}" for value in second]
    order = {value: index for index, value in enumerate(values)}
    points = sorted(subject.points, key=lambda point: order[in_words(point.settings[first])])
    return (
        {point.id: panels[in_words(point.settings[first])] for point in points},
        kinds,
        {point.id: second.index(in_words(point.settings[rest[0]])) if rest else 0 for point in points},
    )


def _data(subject: Subject) -> dict[str, Any]:
    """What the page's script draws from."""
    panel_of, kinds, kind_of = _multiples(subject)
    points = []
    for point in subject.points:
        points.append(
            {
                "id": point.id,
                "label": subject.label(point),
                "settings": {key: in_words(point.settings[key]) for key in subject.keys},
                "seeds": len(point.finished),
                "mean": {name: _short(point.mean(name)) for name in DIRECTIONS if name not in EPSILONS},
                "epsilon": {name: _short(point.epsilon(name.partition(".")[2])) for name in EPSILONS},
                "interval": {name: [*map(_short, point.interval(name) or ())] for name in QUALITY},
                "floor": {f"epsilon.{cell}": value for cell, value in lower_bounds(point.runs).items()},
                "panel": panel_of[point.id],
                "kind": kind_of[point.id],
                "rounds": {
                    name: [
                        (number, _short(value))
                        for number, value in pages.thin(round_means(point, name), _LINE_POINTS)
                    ]
                    for name in _OVER_ROUNDS
                },
            }
        )
    return {
        "points": points,
        "views": views_of(subject),
        "metrics": METRICS,
        "directions": DIRECTIONS,
        "kinds": kinds,
        "panels": list(dict.fromkeys(panel_of.values())),
        "levels": {key: levels(subject, key) for key in subject.keys},
        "heat": _heat_keys(subject),
        "light": drawing.LIGHT,
    }


def _short(value: float) -> float:
    return float(f"{value:.6g}")


@dataclass(frozen=True)
class _Along:
    """Samples along one front; fronts by several epsilons are often the same."""

    views: tuple[str, ...]
    rows: list[Strip]

    @property
    def name(self) -> str:
        """Of its file: samples-sum, samples-upload, samples-record."""
        return "samples-" + self.views[0].partition(".")[2].partition("_")[0]

    def title(self, subject: Subject) -> str:
        """Whose front it is, or whose fronts."""
        return "; ".join(views_of(subject)[name] for name in self.views)

    def drawn(self, subject: Subject) -> str:
        """As a file of its own."""
        kind = self.views[0].partition(".")[2]
        words = [
            (
                subject.label(row.point),
                f"FID {row.point.mean('fid'):.1f}, ε = {epsilon_words(row.point.epsilon(kind))}",
            )
            for row in self.rows
        ]
        return strips_plot(self.rows, words, f"Along the front of {views_of(subject)[self.views[0]]}")


def _along(subject: Subject, fronts: dict[str, list[SweepPoint]]) -> list[_Along]:
    sharing: dict[tuple[str, ...], list[str]] = {}
    for name in views_of(subject):
        sharing.setdefault(tuple(point.id for point in fronts[name]), []).append(name)
    found = [_Along(tuple(names), strips(fronts[names[0]])) for names in sharing.values()]
    return [along for along in found if along.rows]


def _versions(subject: Subject) -> list[tuple[str, list[str]]]:
    """Every version, processor and commit that a run was made with; more than one where they differ."""
    found: dict[str, dict[str, None]] = {}
    for run in subject.runs:
        environment, _ = read_environment(run.folder)
        packages = environment.pop("packages", {})
        environment.pop("command", None)
        for name, value in (environment | packages).items():
            text = "not in a checkout" if value is None else str(value)
            found.setdefault(name.replace("_", " "), {})[text] = None
    return [(name, list(values)) for name, values in found.items()]


def _render(
    subject: Subject,
    fronts: dict[str, list[SweepPoint]],
    figures: dict[str, str],
    along: list[_Along],
    csvs: dict[str, str],
    plotly: str,
) -> str:
    composed = composed_table(subject)
    views = views_of(subject)
    floors = {point.id: lower_bounds(point.runs) for point in subject.points}
    finished = [run for run in subject.runs if run.finished]
    judged = [point for point in subject.points if math.isfinite(point.mean("fid"))]
    return pages.render(
        "prism_secure.sweep.report",
        "page.html.jinja",
        {"epsilon": epsilon_words, "in_words": in_words},
        scale=SCALE,
        subject=subject,
        points=subject.points,
        fronts=fronts,
        front_ids={name: {point.id for point in points} for name, points in fronts.items()},
        views=views,
        record=record_of(subject.runs),
        image_views=image_views(subject.runs),
        images_together=images_together(subject.runs),
        figures=figures,
        infinite=why_infinite_in(subject.runs, of_images="epsilon.record" in views),
        csvs=csvs,
        composed=[dict(zip(composed.columns, row, strict=True)) for row in composed.rows],
        along=along,
        floors=floors,
        audited=any(floors.values()),
        metrics=METRICS,
        over_rounds=_OVER_ROUNDS,
        finished=len(finished),
        failed=[run for run in subject.runs if run.state == "failed"],
        refused=[point for point in subject.points if point.refused],
        best=min(judged, key=lambda point: point.mean("fid")) if judged else None,
        heat_keys=_heat_keys(subject),
        deltas=sorted({run.config.privacy.delta for run in subject.runs}),
        seeds=sorted({run.seed for run in subject.runs}),
        total_seconds=sum(run.seconds for run in subject.runs),
        total_bytes=sum(record.uplink_bytes for run in subject.runs for record in run.records),
        versions=_versions(subject),
        data=_for_script(_data(subject)),
        plotly=plotly,
        script=(Path(__file__).parent / "page.js").read_text("utf-8"),
    )


def _for_script(value: Any) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(json_safe(value, nan=True), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")
