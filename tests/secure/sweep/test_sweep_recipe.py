"""What can be known to be wrong with a recipe is said before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from prism_secure.errors import ConfigError
from prism_secure.sweep.recipe import read_recipe, refuse_infinite, run_id

GRID = """
[federation]
rounds = 3
[sweep]
seeds = [0, 1]
[sweep.grid]
privacy.flip = [0, 0.1]
"privacy.clip" = ["none", 1.0]
features.extractors = [["fourier"], ["efficientnet_lite0", "fourier"]]
"""
MNIST = ["data.source=mnist", "data.folder=x"]
SEARCH = """
[sweep]
method = "tpe"
points = 4
[sweep.search]
privacy.flip = {low = 0.05, high = 0.4}
federation.rounds = {low = 2, high = 8}
"""


def read(folder: Path, text: str, *overrides: str, until: str | None = None):
    path = folder / "recipe.toml"
    path.write_text(text)
    return read_recipe(path, list(overrides), until=until)


def test_grid_has_every_combination_once_and_reads_back_from_its_resolved_form(tmp_path: Path) -> None:
    recipe = read(tmp_path, GRID)
    points = recipe.grid()
    assert len(points) == 8
    assert {point["privacy.clip"] for point in points} == {None, 1.0}
    configs = [recipe.config(point, seed) for point in points for seed in recipe.seeds]
    assert len({run_id(config) for config in configs}) == 16
    assert all(config.federation.rounds == 3 for config in configs)
    (tmp_path / "resolved.toml").write_text(recipe.dump())
    assert read_recipe(tmp_path / "resolved.toml") == recipe


def test_values_that_are_one_value_are_one_point(tmp_path: Path) -> None:
    recipe = read(tmp_path, GRID, "sweep.grid.privacy.flip=[0, 0.0, 0.1]")
    assert len(recipe.grid()) == 8


def test_run_is_named_by_what_determines_it_not_by_how_it_is_written(tmp_path: Path) -> None:
    short = read(tmp_path, GRID)
    explicit = read(tmp_path, GRID, "privacy.delta=1e-5", "federation.workers=7")
    point = short.grid()[0]
    assert run_id(short.config(point, 0)) == run_id(explicit.config(point, 0))
    other = read(tmp_path, GRID, "privacy.delta=1e-6")
    assert run_id(short.config(point, 0)) != run_id(other.config(point, 0))


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (GRID, ["privacy.flop=1"], "did you mean 'privacy.flip'"),
        (GRID, ["sweep.grid.privacy.flop=[1]"], "did you mean 'privacy.flip'"),
        (GRID, ["sweep.grid.data.clients=[10]"], "did you mean 'federation.clients'"),
        (GRID, ["sweep.grid.data.dataset=['mnist']"], "did you mean 'data.source'"),
        (GRID, ["sweep.mehtod=grid"], "did you mean 'method'"),
        (GRID, ["sweep.method=gird"], "sweep.method must be 'grid' | 'random' | 'tpe' | 'nsga2', got 'gird'"),
        (GRID, ["sweep.seeds=3"], "sweep.seeds must be a list of whole numbers, got 3"),
        (GRID, ["sweep.margin=true"], "sweep.margin must be a number, got true"),
        (GRID, ["sweep.grid.privacy.flip=[0.1, 0.7]"], "flip=0.7.*must be in"),
        (GRID, ["sweep.grid.privacy.flip=0.1"], "must be a list of values"),
        (GRID, ["sweep.grid.federation.seed=[1, 2]"], "sweep.seeds"),
        (GRID, ["sweep.grid.secure_sum.min_survivors=[99]"], "min_survivors must be at most"),
        (GRID, ["sweep.seeds=[1, 1]"], "must be different"),
        (GRID, ["sweep.points=3"], "a grid has its own"),
        (GRID, ["sweep.objectives=['fdi']"], "did you mean 'fid'"),
        (GRID, ["sweep.until=fid"], "METRIC<NUMBER"),
        (GRID, ["sweep.method=tpe", "sweep.points=3"], r"\[sweep.search\]"),
        (GRID.partition("[sweep]")[0], [], r"table \[sweep\]"),
        (SEARCH, ["sweep.search.mask.mode={low = 0, high = 1}"], "name its values in a list"),
        (SEARCH, ["sweep.search.privacy.flip={low = 0.4, high = 0.1}"], "low must be below high"),
        (SEARCH, ["sweep.search.privacy.flip={low = 0, high = 0.1, log = true}"], "above 0 with log"),
        (SEARCH, ["metrics.held_out=private"], "no epsilon covers"),
        (GRID, ["metrics.held_out=private", "sweep.until=fid<80"], "no epsilon covers"),
        (GRID, ["metrics.held_out=private", "sweep.pruning=dominated"], "no epsilon covers"),
        (GRID, ["data.source=idx", "data.folder=x", "sweep.until=fid<80"], "no epsilon covers"),
        (SEARCH, [*MNIST, "sweep.search.data.source=['mnist', 'images']"], "no epsilon covers"),
    ],
)
def test_what_is_wrong_is_said_with_what_would_be_right(
    tmp_path: Path, text: str, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text, *overrides)


def test_grid_without_decisions_by_metrics_may_use_private_ones(tmp_path: Path) -> None:
    assert read(tmp_path, GRID, "metrics.held_out=private").grid()


def test_objectives_that_are_left_out_follow_what_the_base_run_limits(tmp_path: Path) -> None:
    assert read(tmp_path, GRID).objectives == ("epsilon.record", "fid"), "all clients' moments are opened"
    assert read(tmp_path, GRID, "privacy.record_epsilon=inf").objectives == ("epsilon.sum_zero_out", "fid")
    own = ["privacy.record_release=client"]
    assert read(tmp_path, GRID, *own).objectives == ("epsilon.sum_zero_out", "fid")
    varied = [*own, "sweep.grid.privacy.record_epsilon=[1.0, 2.0]"]
    assert read(tmp_path, GRID, *varied).objectives == ("epsilon.record", "fid")
    assert read(tmp_path, GRID, "sweep.objectives=['kid']").objectives == ("kid",)


@pytest.mark.parametrize(("unit", "first"), [("client", "epsilon.sum_zero_out"), ("image", "epsilon.record")])
def test_sweep_of_measured_rounds_goes_by_their_unit(tmp_path: Path, unit: str, first: str) -> None:
    text = "[sweep]\n[sweep.grid]\nprivacy.flip = [0.25, 0.4]\n"
    measure = ["federation.behaviour=measure", EXACT, f"measured.unit={unit}"]
    recipe = read(tmp_path, text, *measure)
    assert recipe.objectives == (first, "fid")
    refuse_infinite(recipe)  # measured rounds have finite epsilons


def test_goal_of_the_command_line_is_the_recipes_goal(tmp_path: Path) -> None:
    assert read(tmp_path, GRID, until="fid<80") == read(tmp_path, GRID, "sweep.until=fid<80")


DEFAULT = "[sweep]\n[sweep.grid]\nprivacy.clip = ['none', 1.0]\n"
CLIENT = "privacy.record_release=client"
EXACT = "privacy.record_epsilon=inf"


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (DEFAULT, [], r"noise for one image.*release=client and privacy\.clip=0\.3 would make them finite"),
        (GRID, [], r"sum_zero_out would be inf .*privacy\.record_release=client would"),
        (SEARCH, [], r"sum_zero_out would be inf .*privacy\.record_release=client and privacy\.clip"),
        (DEFAULT, [CLIENT, "privacy.flip=0"], r"flip = 0 leaves the masks without noise; privacy\.flip=0\.1"),
        (DEFAULT, [EXACT, "sweep.objectives=['epsilon.record', 'fid']"], r"epsilon\.record would be inf"),
        (DEFAULT, ["sweep.objectives=['epsilon.upload_zero_out']"], r"epsilon\.upload_zero_out would be inf"),
    ],
)  # fmt: skip
def test_sweep_that_can_only_give_inf_is_refused_with_its_cause(
    tmp_path: Path, text: str, overrides: list[str], message: str
) -> None:
    recipe = read(tmp_path, text, *overrides)
    with pytest.raises(ConfigError, match=message):
        refuse_infinite(recipe)


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        (DEFAULT, [CLIENT]),
        (DEFAULT, [EXACT]),
        (DEFAULT, ["sweep.objectives=['fid']"]),
        (DEFAULT, ["sweep.objectives=['epsilon.record', 'fid']"]),
        (GRID, [CLIENT]),  # flip = 0 is one of its points, and no other
        (SEARCH, ["sweep.search.privacy.record_release=['client', 'summed']"]),
        ("[sweep]\n[sweep.grid]\nprivacy.record_epsilon = [1, inf]\n", []),
        ("[sweep]\n[sweep.grid]\nmask.temperature = [0.1, 1]\n", []),
    ],
)
def test_sweep_with_a_finite_epsilon_somewhere_may_begin(
    tmp_path: Path, text: str, overrides: list[str]
) -> None:
    refuse_infinite(read(tmp_path, text, *overrides))


def test_what_a_recipe_stands_on_is_read_with_it(tmp_path: Path) -> None:
    """Of a file by its path, of tables and text alike; a resolved one stands on nothing, and is equal."""
    path = tmp_path / "mine.toml"
    text = "[sweep]\n[sweep.grid]\nprivacy.flip = [0.1, 0.2]\n"
    path.write_text(text)
    assert read_recipe(path).stands_on.startswith(f"{path} names no recipe")
    for source in (text, {"sweep": {"grid": {"privacy.flip": [0.1, 0.2]}}}):
        assert read_recipe(source).stands_on.startswith("the recipe names no recipe")
    named = read_recipe(
        'recipe = "cross-device"\n' + text.replace("privacy.flip", "measured.steps").replace("0.", "")
    )
    assert named.stands_on == "stands on recipe cross-device"
    again = read_recipe(named.dump())
    assert (again, again.stands_on) == (named, "")
