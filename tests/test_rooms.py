"""Each room's `__init__` says what lives there, and CONTRIBUTING has the rooms in order."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

import prism_crypto
import prism_privacy
import prism_secure

ROOT = Path(__file__).parents[1]
PACKAGES = [Path(package.__file__).parent for package in (prism_crypto, prism_privacy, prism_secure)]
ROOMS = [file.parent for package in PACKAGES for file in sorted(package.glob("*/**/__init__.py"))]
IN_PROSE = {
    "prism_privacy/accounting/kappa",
    "prism_secure/commands",  # each is named like its command
    "prism_secure/data/features",
}
"""Rooms that say what they hold without naming each module."""


def named(room: Path) -> str:
    (package,) = (each for each in PACKAGES if room.is_relative_to(each))
    return room.relative_to(package.parent).as_posix()


@pytest.mark.parametrize("room", [room for room in ROOMS if named(room) not in IN_PROSE], ids=named)
def test_a_room_names_each_module_in_it(room: Path) -> None:
    told = ast.get_docstring(ast.parse((room / "__init__.py").read_text("utf-8"))) or ""
    inside = {
        each.stem for each in room.iterdir() if each.suffix == ".py" or (each / "__init__.py").is_file()
    } - {"__init__", "__main__"}
    assert {name for name in inside if re.search(rf"\b{name}\b", told) is None} == set()


def test_rooms_in_prose_are_there_and_say_what_they_are() -> None:
    told = {
        named(room): ast.get_docstring(ast.parse((room / "__init__.py").read_text("utf-8"))) for room in ROOMS
    }
    assert told.keys() >= IN_PROSE
    assert all(told.values())


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_contributing_names_the_rooms_in_the_order_of_their_layers(package: Path) -> None:
    layers = _layers(package.name)
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8").split("## How to add")[0]
    (rows,) = re.findall(
        rf"^`(?:\w+/)?{package.name}`, .*?\n\n\|.*?\n\|---\|---\|\n(.*?)\n\n", text, re.S | re.M
    )
    told = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in rows.splitlines()]
    places = [layers[name] for row in told for name in row]
    assert places == sorted(places)
    rooms = {room.name for room in ROOMS if room.parent == package}
    assert rooms <= {name for row in told for name in row}


def _layers(package: str) -> dict[str, int]:
    """How far below the top each module of a package is."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = (each["layers"] for each in contracts if each.get("containers") == [package])
    return {name: place for place, layer in enumerate(layers) for name in layer.split(" | ")}
