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
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prism_privacy.ledger.entry import json_safe
from prism_secure.errors import MissingPackage, pip_install
from prism_secure.reporting import drawing, pages
from prism_secure.run_folder.environment import read_environment
from prism_secure.storage import make_folder, write_atomic
from prism_secure.sweep.objectives import DIRECTIONS, TITLES, falls, titled
from prism_secure.sweep.recipe import in_words
from prism_secure.sweep.report.along import Strip, real_strip, strips, strips_plot
from prism_secure.sweep.report.answers import (
    LEAST_SHARE,
    Grouping,
    best_at,
    by_setting,
    judged,
    learned,
    least,
    levels,
    limits,
    lines,
    not_told,
    shares,
)
from prism_secure.sweep.report.figures import (
    NEAR,
    Line,
    Mark,
    Reach,
    answer_plot,
    epsilon_words,
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
    LEAST_SEEDS,
    SweepPoint,
    front,
    image_views,
    images_together,
    read_sweep,
    record_of,
    why_infinite_in,
)
from prism_secure.wording import LIMITED, SCALE, STRONG, verdict

__all__ = ["require_packages", "write_page", "write_sweep_page"]

METRICS = {name: titled(name) for name in TITLES}
BESIDE = ("fid", "gen2real", "recall")
"""The rows of the first figure, as far as they were measured."""
VIEWS = {
    "epsilon.sum_zero_out": "ε of one client, central view (SUM)",
    "epsilon.upload_zero_out": "ε of one client, local view (UPLOAD)",
}
"""The panels of the first figure; the page switches both to the stricter adjacency. One image's is in
`views_of`."""
_SHARES = ("gen2real", "gen2real_ceiling", "recall", "precision", "coverage", "label_accuracy")
_OVER_ROUNDS = ("fid", "recall", "coverage", "kid", "label_accuracy")
_LINE_POINTS = 25
_PANELS = 9


def write_sweep_page(folder: Path) -> Path:
    """Write `report.html` and `report/` into a sweep's folder; returns the page's path.

    Raises:
        RunFolderError: the folder is not a sweep's, or a file in it is damaged.
        ConfigError: plotly or pyarrow is not installed.
        StorageError: the disk refused.
    """
    return write_page(subject_of_sweep(read_sweep(folder)), folder)


def write_page(subject: Subject, folder: Path) -> Path:
    """Write the page of `subject` and its exports into `folder`; returns the page's path.

    Raises:
        RunFolderError: a run folder is damaged.
        ConfigError: plotly or pyarrow is not installed.
        StorageError: the disk refused.
    """
    plotly = _plotly()
    fronts = {name: front(subject.points, name, "fid") for name in EPSILONS}
    ids = {name: {point.id for point in points} for name, points in fronts.items()}
    figures = _figures(subject)
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


def require_packages() -> None:
    """Refuse where the page's packages are missing: before a sweep, not after it.

    Raises:
        ConfigError: plotly or pyarrow is not installed.
    """
    for name in ("plotly", "pyarrow"):
        if importlib.util.find_spec(name) is None:
            raise MissingPackage(f"the page of many runs needs {name}: {pip_install('sweep')}")


def _plotly() -> str:
    """Plotly's script, compressed for the page, which unpacks it: a third of the size."""
    require_packages()
    found = importlib.util.find_spec("plotly")
    assert found is not None
    assert found.submodule_search_locations
    script = Path(found.submodule_search_locations[0]) / "package_data" / "plotly.min.js"
    return base64.b64encode(gzip.compress(script.read_bytes(), 6, mtime=0)).decode()


def _figures(subject: Subject) -> dict[str, str]:
    figures, grouping = {}, lines(subject)
    rows = {
        metric: {
            words: _marks(subject, grouping, metric, name.partition(".")[2])
            for name, words in views_of(subject).items()
        }
        for metric in BESIDE
        if metric == "fid" or any(math.isfinite(point.mean(metric)) for point in subject.points)
    }
    if judged(subject.points):
        figures["answer"] = answer_plot(rows, grouping.kinds)
    panels = _panels(subject, grouping)
    drawn: dict[str, list[Line]] = {panel: [] for panel in panels.kinds}
    for point in subject.points:
        means = pages.thin(round_means(point, "fid"), _LINE_POINTS)
        if means:
            rounds, values = zip(*means, strict=True)
            drawn[panels.kinds[panels.kind_of[point.id]]].append(
                Line(rounds, values, grouping.kind_of[point.id])
            )
    if any(len(line.rounds) > 1 for found in drawn.values() for line in found):
        kept = {panel: found for panel, found in drawn.items() if found}
        figures["rounds"] = rounds_plot(kept, METRICS["fid"], grouping.kinds)
    keys = _heat_keys(subject)
    if keys and judged(subject.points):
        figures["heat"] = _heat(subject, *keys)
    return figures


def _marks(subject: Subject, grouping: Grouping, metric: str, epsilon: str) -> list[Mark]:
    """The points of one panel, by epsilon: who is the best of its line so far is on it."""
    sign = 1 if falls(metric) else -1
    shown = [
        point
        for point in subject.points
        if math.isfinite(point.mean(metric)) and not math.isnan(point.epsilon(epsilon))
    ]
    shown.sort(key=lambda point: (point.epsilon(epsilon), sign * point.mean(metric)))
    least, marks = dict.fromkeys(range(len(grouping.kinds)), math.inf), []
    for point in shown:
        kind, value = grouping.kind_of[point.id], point.mean(metric)
        better = sign * value < least[kind]
        least[kind] = min(least[kind], sign * value)
        marks.append(
            Mark(
                subject.number(point),
                point.epsilon(epsilon),
                value,
                _possible(point.interval(metric), metric),
                tuple(point.values(metric)) if len(point.finished) == 2 else (),
                lower_bounds(point.runs).get(epsilon),
                kind,
                better,
            )
        )
    return marks


def _possible(interval: tuple[float, float] | None, metric: str) -> tuple[float, float] | None:
    """What of an interval is drawn: nothing below 0, nor above 1 where a metric is a share."""
    if interval is None or metric == "kid":  # unbiased, so it may be below 0
        return interval
    return max(interval[0], 0.0), min(interval[1], 1.0 if metric in _SHARES else math.inf)


def _seeds(subject: Subject) -> str:
    """How many runs a point has: 2 or 3."""
    found = [len(point.runs) for point in subject.points if point.runs]
    least, most = (min(found), max(found)) if found else (0, 0)
    between = f"{least}{' or ' if most == least + 1 else ' to '}{most}" if most > least else f"{most}"
    return f"{between} seed{'' if most == 1 else 's'} a point"


def views_of(subject: Subject) -> dict[str, str]:
    """The epsilons that say anything here, and whom each is against: one image's where some run claims it."""
    seen = image_views(subject.runs)
    return VIEWS | ({"epsilon.record": f"ε of one {record_of(subject.runs)}: {_whom(seen)}"} if seen else {})


def _whom(views: Iterable[str]) -> str:
    """Against whom, as short as a title has to be: the table marks each point with its own.

    >>> _whom(["SUM, 100 of 100 honest", "SUM, 300 of 300 honest", "all"])
    'SUM, honest as in the table or all'
    """
    kinds: dict[str, list[str]] = {}
    for view in views:
        kinds.setdefault(view.partition(",")[0], []).append(view)
    return " or ".join(
        found[0] if len(found) == 1 else f"{kind}, honest as in the table" for kind, found in kinds.items()
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


def _heat_keys(subject: Subject) -> tuple[str, str] | None:
    """The two settings that explain most of FID's variance."""
    best = list(shares(subject))[:2]
    return (best[0], best[1]) if len(best) == 2 else None


def _panels(subject: Subject, grouping: Grouping) -> Grouping:
    """Which small panel of the rounds each point is in: by the strongest setting but that of the lines."""
    return by_setting(subject, next((key for key in shares(subject) if key != grouping.key), ""))


def _data(subject: Subject) -> dict[str, Any]:
    """What the page's script draws from."""
    grouping = lines(subject)
    panels = _panels(subject, grouping)
    points = []
    for point in subject.points:
        points.append(
            {
                "id": point.id,
                "number": subject.number(point),
                "label": subject.label(point),
                "settings": {key: in_words(point.settings[key]) for key in subject.keys},
                "seeds": len(point.finished),
                "mean": {name: _short(point.mean(name)) for name in DIRECTIONS if name not in EPSILONS},
                "epsilon": {name: _short(point.epsilon(name.partition(".")[2])) for name in EPSILONS},
                "interval": {
                    name: [*map(_short, _possible(point.interval(name), name) or ())] for name in QUALITY
                },
                "two": {
                    name: [*map(_short, point.values(name))] if len(point.finished) == 2 else []
                    for name in QUALITY
                },
                "floor": {f"epsilon.{cell}": value for cell, value in lower_bounds(point.runs).items()},
                "panel": panels.kinds[panels.kind_of[point.id]],
                "kind": grouping.kind_of[point.id],
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
        "kinds": grouping.kinds,
        "panels": panels.kinds,
        "beside": BESIDE,
        "near": NEAR,
        "scale": [[STRONG, "strong"], [LIMITED, "limited"]],
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
    real: Strip | None
    """Real images, where the clients' are public."""

    @property
    def name(self) -> str:
        """Of its file: samples-sum, samples-upload, samples-record."""
        return "samples-" + self.views[0].partition(".")[2].partition("_")[0]

    def title(self, subject: Subject) -> str:
        """Whose front it is, or whose fronts."""
        views = views_of(subject)
        if len(self.views) == len(views) > 1:
            return f"The same points for {'both' if len(views) == 2 else 'all three'} ε"
        return "; ".join(views[name] for name in self.views)

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
        rows = self.rows
        if self.real is not None:
            rows, words = (
                [*rows, self.real],
                [*words, ("real images of clients", "nearest to generated ones")],
            )
        return strips_plot(rows, words, f"Along the front of {views_of(subject)[self.views[0]]}")


def _along(subject: Subject, fronts: dict[str, list[SweepPoint]]) -> list[_Along]:
    sharing: dict[tuple[str, ...], list[str]] = {}
    for name in views_of(subject):
        sharing.setdefault(tuple(point.id for point in fronts[name]), []).append(name)
    found = [
        _Along(tuple(names), strips(fronts[names[0]]), real_strip(fronts[names[0]]))
        for names in sharing.values()
    ]
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
    grouping, points = lines(subject), judged(subject.points)
    best = [
        (limit, {name: best_at(points, name.partition(".")[2], limit) for name in views})
        for limit in limits(points, [name.partition(".")[2] for name in views])
    ]
    answered = [name for name in views if best[-2][1][name].point is not None]
    return pages.render(
        "prism_secure.sweep.report",
        "page.html.jinja",
        {"epsilon": epsilon_words, "in_words": in_words},
        scale=SCALE,
        subject=subject,
        points=subject.points,
        front_ids={name: {point.id for point in found} for name, found in fronts.items()},
        grouping=grouping,
        shows=LEAST_SHARE,
        panels=_panels(subject, grouping),
        learned=learned(subject, grouping),
        not_told=not_told(subject),
        best=best,
        unanswered={name: least(points, name.partition(".")[2]) for name in views if name not in answered},
        answered=answered,
        verdict_of=lambda limit: verdict(limit, 1e-5).level,
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
        heat_keys=_heat_keys(subject),
        deltas=sorted({run.config.privacy.delta for run in subject.runs}),
        seeds=sorted({run.seed for run in subject.runs}),
        seeds_a_point=_seeds(subject),
        intervals=any(len(point.finished) >= LEAST_SEEDS for point in points),
        pairs=any(len(point.finished) == 2 for point in points),
        strip=_strip(subject),
        total_seconds=sum(run.seconds for run in subject.runs),
        total_bytes=sum(record.uplink_bytes for run in subject.runs for record in run.records),
        versions=_versions(subject),
        data=_for_script(_data(subject)),
        plotly=plotly,
        script=(Path(__file__).parent / "page.js").read_text("utf-8"),
    )


def _strip(subject: Subject) -> bool:
    """Whether an axis of the first figure ends in a strip."""
    costs = [
        [point.epsilon(name.partition(".")[2]) for point in judged(subject.points)]
        for name in views_of(subject)
    ]
    return any(Reach(each).beyond for each in costs)


def _for_script(value: Any) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(json_safe(value, nan=True), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")
