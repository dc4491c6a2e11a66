"""Each room's `__init__` says what lives there: every module beside it, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import prism_crypto
import prism_privacy
import prism_secure

PACKAGES = [Path(package.__file__).parent for package in (prism_crypto, prism_privacy, prism_secure)]
ROOMS = [file.parent for package in PACKAGES for file in sorted(package.glob("*/**/__init__.py"))]
IN_PROSE = {
    "prism_privacy/accounting/kappa",
    "prism_secure/commands",  # each is named like its command
    "prism_secure/data/features",
    "prism_secure/quality",
    "prism_secure/reporting",
    "prism_secure/sweep",
    "prism_secure/sweep/report",
}
"""Rooms that say what they hold without naming each module."""


def named(room: Path) -> str:
    return "/".join(room.parts[room.parts.index(next(p for p in room.parts if p.startswith("prism_"))) :])


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
