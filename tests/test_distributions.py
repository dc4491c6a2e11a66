"""The three distributions are one release: one version, one licence, the same Pythons."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = [ROOT / "crypto", ROOT / "privacy", ROOT]
PROJECTS = [tomllib.loads((part / "pyproject.toml").read_text("utf-8"))["project"] for part in PARTS]


def test_they_have_one_version() -> None:
    assert len({project["version"] for project in PROJECTS}) == 1
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.M)
    assert cited is not None
    assert cited[1] == PROJECTS[0]["version"]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_each_brings_the_licence(part: Path) -> None:
    project = PROJECTS[PARTS.index(part)]
    assert "LICENSE" in project["license-files"]
    assert (part / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert all((part / name).is_file() for name in [*project["license-files"], project["readme"]])


def test_they_name_the_same_pythons() -> None:
    pythons = [
        [name for name in project["classifiers"] if name.startswith("Programming Language")]
        for project in PROJECTS
    ]
    assert pythons[0] == pythons[1] == pythons[2]
    assert {project["requires-python"] for project in PROJECTS} == {">=3.11"}
    assert "Programming Language :: Python :: 3.11" in pythons[0]
