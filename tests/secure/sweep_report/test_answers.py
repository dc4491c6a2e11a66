"""What a sweep's page says in words: the best within each epsilon, the strongest setting, what isn't told."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from prism_secure.sweep.report import answers
from prism_secure.sweep.report.figures import Reach
from prism_secure.sweep.report.subject import Subject


@dataclass(frozen=True)
class Point:
    """A point that was measured as the test says."""

    id: str
    settings: dict[str, Any]
    fid: float
    sum: float
    half: float | None = None
    upload: float = math.inf
    record: float = math.inf
    runs: tuple[()] = field(default=())

    @property
    def name(self) -> str:
        return " ".join(f"{key.partition('.')[2]}={value:g}" for key, value in self.settings.items())

    @property
    def finished(self) -> list[int]:
        return [0] if self.half is None else [0, 1, 2]

    def mean(self, metric: str) -> float:
        return self.fid if metric == "fid" else math.nan

    def interval(self, metric: str) -> tuple[float, float] | None:
        return None if self.half is None else (self.fid - self.half, self.fid + self.half)

    def epsilon(self, name: str) -> float:
        return {"sum_zero_out": self.sum, "upload_zero_out": self.upload, "record": self.record}[name]


def subject(*points: Point) -> Subject:
    return Subject("a sweep", points, tuple(points[0].settings), "", "", False, {})  # type: ignore[arg-type]


def grid(fid: Any, epsilon: Any, half: float | None = 5.0) -> Subject:
    """Of clients and clip: FID and epsilon as functions of both."""
    return subject(
        *(
            Point(
                f"{clients} {clip}",
                {"federation.clients": clients, "privacy.clip": clip},
                fid(clients, clip),
                epsilon(clients, clip),
                half,
            )
            for clients in (10, 100, 1000)
            for clip in (0.5, 1.0, 2.0)
        )
    )


CLIENTS_DECIDE = grid(
    lambda n, c: 400 - 100 * math.log10(n) - 10 * c, lambda n, c: 60 * c / math.log10(n) ** 3
)


def words(about: Subject) -> str:
    return " ".join(answers.learned(about, answers.lines(about)))


@pytest.mark.parametrize("limit", [*answers.LIMITS, 20, math.inf])
def test_the_best_within_a_limit_is_what_a_search_of_all_points_finds(limit: float) -> None:
    points = CLIENTS_DECIDE.points
    within = [point for point in points if point.epsilon("sum_zero_out") <= limit]
    found = answers.best_at(points, "sum_zero_out", limit).point
    assert found == (min(within, key=lambda point: point.mean("fid")) if within else None)


@pytest.mark.parametrize(
    ("reached", "own"),
    [
        ([1.0, 4.0], []),
        ([0.5, 4.0], [0.5]),
        ([0.51, 0.99], []),
        ([0.1, 0.3, 20.0], [0.1, 0.5]),
        ([0.0, 0.2], [0.25]),
        ([math.nan, math.inf], []),
    ],
)
def test_limits_below_1_have_a_row_where_each_is_the_first_to_hold_a_point(
    reached: list[float], own: list[float]
) -> None:
    points = [Point(str(epsilon), {}, 100.0, epsilon) for epsilon in reached]
    whole = [*own, *answers.LIMITS, math.inf]
    assert answers.limits(points, ["sum_zero_out"]) == whole  # type: ignore[arg-type]
    of_images = [Point(str(epsilon), {}, 100.0, 2.0, record=epsilon) for epsilon in reached]
    assert answers.limits(of_images, ["sum_zero_out", "record"]) == whole  # type: ignore[arg-type]
    unmeasured = [Point(str(epsilon), {}, math.nan, epsilon) for epsilon in reached]
    assert answers.limits(unmeasured, ["sum_zero_out"])[0] == 1  # type: ignore[arg-type]


def test_points_whose_intervals_meet_the_bests_are_named_and_others_are_not() -> None:
    fids = {"a": 100.0, "b": 108.0, "c": 111.0}
    points = [Point(name, {}, fid, 1.0, 5.0) for name, fid in fids.items()]
    found = answers.best_at(points, "sum_zero_out", 2)  # type: ignore[arg-type]
    assert [point.id for point in found.alike] == ["b"]


def test_the_share_of_a_setting_is_that_of_a_regression_on_its_values() -> None:
    """By least squares on one column a value, corrected for their number."""
    points = CLIENTS_DECIDE.points
    fids = np.array([point.mean("fid") for point in points])
    for key, share in answers.shares(CLIENTS_DECIDE).items():
        values = sorted({point.settings[key] for point in points})
        columns = np.array([[float(point.settings[key] == value) for value in values] for point in points])
        fitted = columns @ np.linalg.lstsq(columns, fids, rcond=None)[0]
        n, k = columns.shape
        inside = ((fids - fitted) ** 2).sum() / (n - k)
        assert share == pytest.approx(max(0.0, 1 - inside / (((fids - fids.mean()) ** 2).sum() / (n - 1))))


def test_what_moves_points_along_one_curve_explains_nothing_that_epsilon_leaves() -> None:
    """FID depends on epsilon alone, and on the clip as far as that sets epsilon; then on the clients, too."""
    along = grid(lambda n, c: 100 - 10 * math.log(c), lambda n, c: c)
    assert answers.shares(along)["privacy.clip"] == pytest.approx(1)
    assert answers.shares(along, "sum_zero_out")["privacy.clip"] < 1e-9
    assert answers.shares(along, "sum_zero_out")["federation.clients"] == 0
    moved = grid(lambda n, c: 100 - 10 * math.log(c) - math.log(n), lambda n, c: c)
    assert answers.shares(moved)["federation.clients"] < 0.1
    assert answers.shares(moved, "sum_zero_out")["federation.clients"] == pytest.approx(1)


def test_a_setting_with_a_value_for_each_point_explains_nothing() -> None:
    each = [Point(str(n), {"federation.clients": n, "privacy.clip": n % 2}, 100.0 + n, 1.0) for n in range(6)]
    assert answers.shares(subject(*each))["federation.clients"] == 0


@pytest.mark.parametrize(
    ("about", "key"),
    [
        (CLIENTS_DECIDE, "federation.clients"),
        (grid(lambda n, c: 100 * c + n / 1000, lambda n, c: c * n / 100), "privacy.clip"),
        # The clip decides, but it decides epsilon, too: a line for each would be a point.
        (grid(lambda n, c: 100 * c + n / 100, lambda n, c: c), "federation.clients"),
    ],
)
def test_lines_are_of_the_strongest_setting_that_leaves_epsilon_free(about: Subject, key: str) -> None:
    assert answers.lines(about).key == key


def test_where_every_setting_fixes_epsilon_there_is_one_line() -> None:
    only = [Point(str(e), {"measured.epsilon": e}, 100.0 / e, e) for e in (1.0, 2.0, 4.0)]
    found = answers.lines(subject(*only))
    assert (found.key, set(found.kind_of.values())) == ("", {0})


def test_what_explains_nothing_is_not_said_to() -> None:
    three = [
        Point(str(n), {"federation.clients": n, "privacy.clip": n % 3}, 100.0 + n, 1.0 + n) for n in range(3)
    ]
    assert "explains" not in words(subject(*three))


@pytest.mark.parametrize(("share", "said"), [(0.0, False), (0.0049, False), (0.0051, True)])
def test_what_would_be_0_percent_is_not_said_to_explain(share: float, said: bool) -> None:
    grouping = replace(answers.lines(CLIENTS_DECIDE), share=share)
    told = " ".join(answers.learned(CLIENTS_DECIDE, grouping))
    assert ("explains most" in told) is said
    assert "0%" not in told


def test_many_values_are_cut_into_ranges_that_hold_all_of_them() -> None:
    many = [Point(str(n), {"federation.clients": n}, 100.0, n % 7) for n in range(1, 31)]
    found = answers.by_setting(subject(*many), "federation.clients")
    assert len(found.kinds) == 6
    assert (found.kinds[0], found.kinds[-1]) == ("clients = 1 … 5", "clients = 26 … 30")
    assert sorted(found.kind_of.values()) == [n for n in range(6) for _ in range(5)]


def test_the_lead_names_the_best_at_the_smallest_and_the_largest_limit_and_by_the_strongest_setting() -> None:
    told = words(CLIENTS_DECIDE)
    within = [point for point in CLIENTS_DECIDE.points if point.epsilon("sum_zero_out") <= 10]
    assert f"{min(point.mean('fid') for point in within):.1f}" in told
    assert "at ε ≤ 2" in told or "at ε ≤ 4" in told
    assert "clients explains most of what ε leaves of FID’s variance" in told
    assert "none with clients = 10" in told


ROWS = {0.5: 200, 1.0: 350, 2.0: 700, 4.0: 1000, 7.0: 1000, 8.0: 1000}


@pytest.mark.parametrize(
    ("points", "together"),
    [
        # rows and coordinates grow with epsilon, and the largest ones have a line of their own
        ([(e, rows, 4096 * (1 + (e > 2) + (e > 4))) for e, rows in ROWS.items()], ["coordinates", "rows"]),
        ([(e, rows, 4096) for e, rows in ROWS.items()], ["rows"]),
        ([(e, rows, c) for e, rows in ROWS.items() for c in (1, 2)], ["rows"]),
    ],
)
def test_a_setting_that_changes_together_with_epsilon_is_not_ranked(
    points: list[tuple[float, int, int]], together: list[str]
) -> None:
    about = subject(
        *(
            Point(
                f"{e} {c}",
                {"measured.epsilon": e, "measured.coordinates": c, "measured.rows": rows},
                180 / e + c % 2,
                e,
                1.0,
            )
            for e, rows, c in points
        )
    )
    varied = len(points) > len(ROWS)
    assert answers.lines(about).key == ("measured.coordinates" if varied else "")
    assert "rows = 200" not in words(about)
    said = " ".join(answers.not_told(about))
    change = "change together" if len(together) > 1 else "changes together"
    assert f"{' and '.join(together)} {change} with ε here" in said
    assert "measured.epsilon" not in said


def test_of_two_seeds_nothing_is_told_apart() -> None:
    pair = subject(
        *(Point(str(e), {"measured.epsilon": e}, 100.0 / e, e, runs=(1, 2)) for e in (1.0, 2.0))  # type: ignore[arg-type]
    )
    assert "nothing here tells a difference from chance" in " ".join(answers.not_told(pair))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ([{"measured.epsilon": e} for e in (1.0, 2.0, 4.0, 8.0)], "planned: ε = 1, 2, 4, 8."),
        ([{"federation.clients": n} for n in range(1, 31)], "planned: clients = 1 … 30."),
        (
            [{"measured.epsilon": e, "privacy.clip": c} for e in (1.0, 2.0) for c in (1, 3)],
            "planned: ε = 1, 2; clip = 1, 3.",
        ),
    ],
)
def test_before_a_run_has_finished_the_page_says_what_was_asked(
    settings: list[dict[str, float]], told: str
) -> None:
    begun = subject(*(Point(str(i), each, math.nan, math.nan) for i, each in enumerate(settings)))
    (said,) = answers.not_told(begun)
    assert said == f"No run has finished yet; {told}"


@pytest.mark.parametrize("least", [10.0001, 1265.0, math.inf])
def test_an_epsilon_that_guarantees_nothing_is_never_the_answer(least: float) -> None:
    poor = [Point(str(n), {"privacy.clip": n}, 80.0 - n, least * (1 + n)) for n in range(3)]
    told = words(subject(*poor))
    assert told.startswith("No point guarantees one client in the central view (SUM) anything meaningful")
    assert "the best FID is" not in told.split(".")[0]


def test_a_better_point_without_a_guarantee_is_told_as_such() -> None:
    told = words(
        subject(Point("a", {"privacy.clip": 1}, 120.0, 4.0), Point("b", {"privacy.clip": 9}, 80.0, 1265.0))
    )
    assert "the best FID is 120.0 (#1: clip=1) at ε ≤ 4, and at every limit up to 10" in told
    assert "Without a meaningful guarantee it is 80.0 (#2, ε = 1,265)" in told


def test_where_only_one_images_epsilon_says_anything_the_lead_is_about_it() -> None:
    told = words(subject(Point("a", {"privacy.clip": 1}, 120.0, math.inf, record=2.0)))
    assert told.startswith("For one image, the best FID is 120.0")


@pytest.mark.parametrize(
    ("half", "said"),
    [
        (None, "one seed, so nothing here tells a difference from chance"),
        (5.0, "do not tell the best point (#9) apart from"),
        (0.001, "flattered by the choice"),
    ],
)
def test_what_cannot_be_told_follows_from_seeds_and_intervals(half: float | None, said: str) -> None:
    about = grid(lambda n, c: 100 - math.log10(n) - c / 100, lambda n, c: 1.0, half)
    told = " ".join(answers.not_told(about))
    assert said in told
    assert ("apart from" in told) is (half == 5.0)


def test_nothing_is_told_of_a_sweep_without_results() -> None:
    empty = subject(Point("a", {"privacy.clip": 1}, math.nan, math.nan))
    assert words(empty) == ""
    assert answers.not_told(empty) == ["No run has finished yet; planned: clip = 1."]
    assert answers.best_at(empty.points, "sum_zero_out", math.inf).point is None


@pytest.mark.parametrize(
    ("epsilons", "beyond"),
    [
        ([0.5, 4.0, 1265.0], "> 20"),
        ([0.5, 4.0, math.inf], "∞"),
        ([0.5, 4.0], ""),
        ([0.31, 0.61, 1.21], ""),
        ([0.31, 0.61], ""),
        ([100.0, 5000.0, math.inf], "∞"),
        ([math.inf], "∞"),
        ([], ""),
        ([0.0, 3.0], ""),
    ],
)
def test_the_axis_is_as_long_as_people_need_it(epsilons: list[float], beyond: str) -> None:
    reach = Reach(epsilons)
    assert reach.beyond == beyond
    places = [reach.place(epsilon) for epsilon in sorted(epsilons)]
    assert places == sorted(places)
    assert all(reach.low <= place <= reach.edge for place in places)
    near = [
        place for epsilon, place in zip(sorted(epsilons), places, strict=True) if 0 < epsilon <= reach.last
    ]
    if len(near) > 1:
        assert near[-1] - near[0] > 0.5 * (reach.edge - reach.low), "what guarantees something has the room"
    assert reach.high > reach.low
    ticks = [math.log10(tick) for tick in reach.ticks]
    assert all(reach.low <= tick <= reach.high for tick in ticks)
    gaps = [after - before for before, after in itertools.pairwise(ticks)]
    assert min(gaps, default=math.inf) > 0.09 * (reach.edge - reach.low), "their names have room"
