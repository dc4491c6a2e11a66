"""Editors check a TOML file by the same ranges as the program, and know every setting."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest

from prism_secure.cli import main
from prism_secure.config import Config, dump_config, load_config, sections
from prism_secure.config.recipes import NAMES, text
from prism_secure.config.schema import FILE, TITLE, schema

SECTIONS = get_type_hints(Config)
RECIPES = sorted((Path(__file__).parents[2] / "experiments").rglob("*.toml"))


def settings() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for section, kind in SECTIONS.items():
        for key, found in schema()["$defs"][kind.__name__]["properties"].items():
            yield section, key, found


def numbers() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for section, key, found in settings():
        for each in [found, *found.get("anyOf", ())]:
            if each.get("type") in ("number", "integer"):
                yield section, key, each


def test_every_setting_is_there_with_its_meaning_and_nothing_is_null() -> None:
    found = {(section, key) for section, key, _ in settings()}
    assert found == {(section, key) for section, kind in SECTIONS.items() for key in get_type_hints(kind)}
    assert all(each["description"].endswith((".", ":")) for _, _, each in settings())
    assert "null" not in json.dumps(schema())
    assert "default" not in {name for _, _, each in settings() for name in each}
    assert set(schema()["properties"]) == {"recipe", "sweep", *SECTIONS}


@pytest.mark.parametrize(("section", "key", "found"), list(numbers()), ids=lambda value: str(value)[:20])
def test_its_ranges_are_those_of_the_program(section: str, key: str, found: dict[str, Any]) -> None:
    """At each end, and just outside it, by both ways in which a section is made."""
    kind, whole = SECTIONS[section], found["type"] == "integer"
    step = 1 if whole else 1e-9
    ends = {
        "minimum": (0, -step),
        "exclusiveMinimum": (step, 0),
        "maximum": (0, step),
        "exclusiveMaximum": (-step, 0),
    }
    assert not set(found) <= {"type", "description"} or key == "channels", "no number without a range"
    for end, (inside, outside) in ends.items():
        if end not in found:
            continue
        refused = f"{key} must be "
        for make in (lambda value: kind(**{key: value}), lambda value: msgspec.convert({key: value}, kind)):
            with pytest.raises((ValueError, msgspec.ValidationError), match=rf"{refused}|Expected"):
                make(found[end] + outside)
            if key != "coordinates":  # at least as many as directions, too
                make(found[end] + inside)


@pytest.mark.parametrize("key", ["clip", "delta"])
def test_a_number_without_an_upper_limit_is_finite(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key} must be "):
        sections.Privacy(**{key: math.inf})
    assert sections.Privacy(record_epsilon=math.inf).record_epsilon == math.inf
    with pytest.raises(ValueError, match=r"record_epsilon must be a positive number or inf, got nan"):
        sections.Privacy(record_epsilon=math.nan)


def errors_of(raw: dict[str, Any]) -> list[str]:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(schema())
    return [error.message for error in jsonschema.Draft202012Validator(schema()).iter_errors(raw)]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: "-".join(path.parts[-2:]))
def test_recipes_of_the_experiments_pass(path: Path) -> None:
    assert errors_of(tomllib.loads(path.read_text("utf-8"))) == []


@pytest.mark.parametrize("name", NAMES)
def test_recipes_pass_as_they_are_written_and_resolved(name: str, tmp_path: Path) -> None:
    assert main(["init", "--recipe", name, str(tmp_path / "mine.toml")]) == 0
    written = (tmp_path / "mine.toml").read_text("utf-8")
    for content in (text(name), written, dump_config(load_config(recipe=name))):
        assert errors_of(tomllib.loads(content)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        "[privacy]\nflip = 0.5\n",
        "[privacy]\nclip = 0\n",
        "[privacy]\nclip = 'no'\n",
        "[privacy]\nflop = 0\n",
        "[federation]\nclients = 2\n",
        "[federation]\nbehaviour = 'measured'\n",
        "[federation]\nrounds = 1.5\n",
        "recipe = 'cross'\n",
        "[privcy]\n",
        "[features]\nextractors = ['vgg']\n",
        "[data]\nperson = 'column'\n",
    ],
)
def test_what_the_program_refuses_an_editor_marks(wrong: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text(wrong)
    assert main(["config", "--config", str(tmp_path / "wrong.toml")]) == 2
    assert errors_of(tomllib.loads(wrong))
    right = (
        "[privacy]\nflip = 0.4\nclip = 'none'\nrecord_epsilon = inf\n[aggregation]\nrule = 'mine.rules:one'\n"
    )
    assert errors_of(tomllib.loads(right)) == []


def test_init_names_the_schema_that_it_writes_and_leaves_other_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one.toml", "two.toml"):
        assert main(["init", str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_text("utf-8").splitlines()[0] == f"#:schema ./{FILE}"
    capsys.readouterr()
    assert main(["config", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema() == json.loads((tmp_path / FILE).read_text("utf-8"))
    assert schema()["title"] == TITLE
    (tmp_path / FILE).write_text("mine")
    assert main(["init", str(tmp_path / "three.toml")]) == 2
    assert f"{FILE} exists already and is somebody else's" in capsys.readouterr().err
    assert not (tmp_path / "three.toml").exists()
    assert (tmp_path / FILE).read_text() == "mine"
