"""Recipes by name: each can be run, a file stands on the one that it names, and nothing else is taken."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from prism_privacy import Adjacency, View
from prism_secure.cli import main
from prism_secure.commands.init import recipe as written
from prism_secure.config import Config, dump_config, load_config, nearest_recipe, read_toml, stands_on
from prism_secure.config.recipes import DEFAULT, NAMES, SWEEPS, on_recipe, read, text
from prism_secure.errors import ConfigError
from prism_secure.reporting.trackers import Together
from prism_secure.rounds.components import Components
from prism_secure.sweep.objectives import DIRECTIONS
from prism_secure.sweep.recipe import read_recipe, refuse_infinite


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(list(words)) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command says that takes such options for a mistake."""
    capsys.readouterr()
    try:
        code = main(list(words))
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    return capsys.readouterr().err


def test_all_files_of_recipes_have_a_name() -> None:
    folder = Path(written.__code__.co_filename).parents[1] / "config" / "recipes"
    assert sorted(path.stem for path in folder.glob("*.toml")) == sorted([*NAMES, *SWEEPS])
    assert DEFAULT in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_recipe_says_nothing_that_the_configuration_drops(name: str) -> None:
    config = load_config(recipe=name)
    for section, values in read(name).items():
        for key, value in values.items():
            found = getattr(getattr(config, section), key)
            assert found == (tuple(value) if isinstance(value, list) else value), f"{section}.{key}"
    assert text(name).startswith("# "), "what it is for stands at the top"


@pytest.mark.parametrize("name", NAMES)
def test_recipe_is_planned_without_a_complaint(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = told(capsys, "config", "--epsilon", "--recipe", name)
    clients = load_config(recipe=name).federation.clients
    assert f"; {clients:,} clients, " in out
    assert ("inf" in out) == (name in ("one-shot", "prism"))


def test_default_is_what_is_taken_without_a_file_and_nothing_of_it_is_infinite(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = told(capsys, "config", "--epsilon")
    assert plain == told(capsys, "config", "--epsilon", "--recipe", DEFAULT)
    assert "inf" not in plain
    assert re.search(r"observer of the opened sums: ε\(SUM\) +2\.00 +4\.36\n", plain), "of a client"
    assert told(capsys, "config") == told(capsys, "config", "--recipe", "cross-device")


def test_one_shot_is_the_defaults_of_all_settings_but_the_server_trains() -> None:
    assert load_config() == Config()
    local = ["federation.rounds=10", "training.end_steps=0"]
    assert load_config(None, local, recipe="one-shot") == Config()
    assert load_config(recipe="one-shot").training.end_steps > 0


@pytest.mark.parametrize("name", NAMES)
def test_init_writes_the_recipe_and_a_deleted_line_keeps_its_value(name: str, tmp_path: Path) -> None:
    path, config = tmp_path / "mine.toml", load_config(recipe=name)
    assert main(["init", "--recipe", name, str(path)]) == 0
    whole = path.read_text("utf-8")
    assert whole == written(name)
    assert load_config(path) == config
    lines = whole.splitlines(keepends=True)
    kept = [line for line in lines if not re.match(r"\w+ = ", line) or line.startswith("recipe = ")]
    assert len(lines) - len(kept) > 60
    path.write_text("".join(kept), "utf-8")
    assert load_config(path) == config, "all of them"


@pytest.mark.parametrize("name", SWEEPS)
def test_init_writes_a_sweep_that_is_planned_as_it_says(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.toml"
    out = told(capsys, "init", "--recipe", name, str(path))
    shown = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text("utf-8")
    folder = f"sweeps/{name.removeprefix('sweep-')}"
    assert f"Then: prism-secure sweep {path} --out {folder}\n" in out
    assert name != "sweep-epsilon" or f"prism-secure sweep epsilon.toml --out {folder}\n" in shown
    whole = path.read_text("utf-8")
    assert whole.startswith("#:schema ")
    assert whole.endswith(text(name))
    recipe = read_recipe(path)
    refuse_infinite(recipe)
    points = recipe.grid()
    written_runs = {"Twelve": 12, "Eighteen": 18}[re.search(r"(\w+) runs, \d+ minutes", whole)[1]]  # type: ignore[index]
    assert len(points) * len(recipe.seeds) == written_runs
    for settings in (points[0], points[-1]):
        config = recipe.config(settings, recipe.seeds[-1])
        assert config.secure_sum.simulate
        components = Components(config)
        assert min(components.partition.sizes) > 0
        assert components.plan.epsilon(View.SUM, Adjacency.ZERO_OUT) == pytest.approx(
            config.measured.epsilon, rel=2e-3
        )


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweeps_recipe_is_no_runs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'recipe = "{name}"\n[sweep]\n[sweep.grid]\nprivacy.flip = [0.1]\n')
    for read_it in (load_config, read_recipe):
        with pytest.raises(ConfigError, match=rf"'{name}' is a sweep's, .*init --recipe {name} FILE"):
            read_it(path)
    assert "no recipe is called" in refused(capsys, "run", "--recipe", name, "--out", str(tmp_path / "run"))


def test_init_without_a_name_writes_the_default(tmp_path: Path) -> None:
    assert main(["init", str(tmp_path / "mine.toml")]) == 0
    assert load_config(tmp_path / "mine.toml") == load_config(recipe=DEFAULT)


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('recipe = "cross-silo"\n[measured]\nepsilon = 1.0\n')
    config, base = load_config(path), load_config(recipe="cross-silo")
    assert config.measured.epsilon == 1.0
    assert config.measured.coordinates == base.measured.coordinates
    assert config.federation == base.federation
    assert load_config(path, ["measured.epsilon=2.0"]) == base


def test_a_file_without_a_name_stands_on_the_defaults_or_on_the_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[federation]\nrounds = 3\n")
    assert load_config(path) == load_config(overrides=["federation.rounds=3"])
    out = told(capsys, "config", "--config", str(path), "--recipe", "prism")
    assert out == told(capsys, "config", "--recipe", "prism", "--set", "federation.rounds=3")


@pytest.mark.parametrize(("own", "other"), [("cross-silo", "one-shot"), ("prism", "cross-device")])
def test_a_file_and_an_option_that_name_two_recipes_are_refused(
    tmp_path: Path, own: str, other: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'recipe = "{own}"\n')
    told(capsys, "config", "--config", str(path), "--recipe", own)
    for command in (["config"], ["config", "--epsilon"], ["run", "--out", str(tmp_path / "run")]):
        error = refused(capsys, *command, "--config", str(path), "--recipe", other)
        assert f"stands on recipe {own!r}" in error
        assert repr(other) in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("wrong", "nearest"), [("crossdevice", "cross-device"), ("one_shot", "one-shot"), ("prsm", "prism")]
)
def test_an_unknown_name_is_refused_with_the_nearest_one(
    wrong: str, nearest: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'recipe = "{wrong}"\n[sweep]\n[sweep.grid]\nprivacy.flip = [0.1]\n')
    with pytest.raises(ConfigError, match=rf"no recipe is called '{wrong}'; .*{nearest}"):
        load_config(path)
    with pytest.raises(ConfigError, match=rf"no recipe is called '{wrong}'; .*{nearest}"):
        read_recipe(path)
    for command in (
        ["config"],
        ["init", str(tmp_path / "new.toml")],
        ["run", "--out", str(tmp_path / "run")],
    ):
        assert nearest in refused(capsys, *command, "--recipe", wrong)
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("value", ["3", "[1]", "{a = 1}"])
def test_a_recipe_that_is_no_word_is_refused(value: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"recipe = {value}\n")
    with pytest.raises(ConfigError, match="no recipe is called"):
        load_config(path)


@pytest.mark.parametrize(
    ("written_so", "options", "says"),
    [
        (
            "[federation]\nrounds = 3\n",
            [],
            "names no recipe: what it leaves out has its default (ten clients train",
        ),
        ("[metrics]\nevery = 2\n", [], 'for measured rounds write recipe = "cross-device" at its top'),
        ('recipe = "cross-silo"\n', [], "stands on recipe cross-silo"),
        ("[federation]\nrounds = 3\n", ["--recipe", "prism"], "stands on recipe prism"),
        ("", [], "names no recipe"),
    ],
)
def test_what_a_file_stands_on_is_said(
    written_so: str, options: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(written_so)
    for command in (["config"], ["config", "--epsilon"], ["config", "--explain"]):
        out = " ".join(told(capsys, *command, "--config", str(path), *options).replace("\n# ", " ").split())
        assert says in out
        assert out.index(says) < 250, "at the top"


def test_a_file_that_sets_everything_stands_on_nothing_and_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(dump_config(load_config(recipe="cross-silo")))
    assert stands_on(read_toml(path)) == ""
    assert told(capsys, "config", "--config", str(path)) == path.read_text()
    path.write_text(path.read_text().replace("rounds = 8\n", ""))
    assert "names no recipe" in stands_on(read_toml(path))


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["config"], "# stands on recipe cross-silo\n"),
        (["config", "--epsilon"], "stands on recipe cross-silo\n"),
        (["run", "--out"], "stands on recipe cross-silo\n"),
    ],
)
def test_a_config_file_may_be_a_pipe(
    command: list[str],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(config: Config, *_: object, listener: Together, **__: object) -> SimpleNamespace:
        assert config == load_config(None, ["federation.rounds=3"], recipe="cross-silo")
        return SimpleNamespace(report=tmp_path)

    monkeypatch.setattr("prism_secure.rounds.simulation.run", run)
    reads, writes = os.pipe()
    os.write(writes, b'recipe = "cross-silo"\n[federation]\nrounds = 3\n')
    os.close(writes)
    out = [str(tmp_path / "run")] if "--out" in command else []
    assert says in told(capsys, *command, *out, "--config", f"/dev/fd/{reads}")
    os.close(reads)


@pytest.mark.parametrize("section", ["data", "federation", "measured"])
def test_a_section_that_is_no_table_is_one_line_of_error(
    section: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"{section} = 3\n[sweep]\nseeds = [0]\n[sweep.grid]\nprivacy.flip = [0.1]\n")
    for command in (["sweep", str(path), "--out", str(tmp_path / "out")], ["config", "--config", str(path)]):
        assert main(command) == 2
        assert f"[{section}] must be a table, got 3" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_compared_with_the_recipe_that_it_is_nearest_to(name: str) -> None:
    assert nearest_recipe(load_config(recipe=name)) == name
    changed = load_config(None, ["federation.rounds=3", "privacy.flip=0.3", "model.width=8"], recipe=name)
    assert nearest_recipe(changed) == name


def test_a_sweep_stands_on_the_recipe_that_it_names(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text(
        'recipe = "cross-silo"\n[sweep]\nseeds = [0]\n[sweep.grid]\nmeasured.epsilon = [1.0, 2.0]\n'
    )
    sweep = read_recipe(path)
    half, whole = (sweep.config(point, 0) for point in sweep.grid())
    assert whole == load_config(recipe="cross-silo")
    assert half == load_config(None, ["measured.epsilon=1.0"], recipe="cross-silo")


def test_tables_of_settings_are_not_changed_by_laying_them_on_a_recipe() -> None:
    raw = {"recipe": "prism", "federation": {"rounds": 4}}
    assert on_recipe(raw)["federation"]["local_steps"] == 50
    assert raw == {"recipe": "prism", "federation": {"rounds": 4}}


def test_init_names_every_objective_of_a_search() -> None:
    words = re.sub(r"\s*\n# ", " ", written())
    (listed,) = re.findall(r"an epsilon is the planned one\. Any of (.*)\.\n", words)
    assert listed.split(", ") == list(DIRECTIONS)
