"""Too little coverage of any package fails, whatever the others have."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def floors() -> ModuleType:
    path = Path(__file__).with_name("coverage_floors.py")
    spec = importlib.util.spec_from_file_location("coverage_floors", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _summary(lines: int, branches: int = 100) -> dict[str, Any]:
    missing = {"missing_lines": 100 - lines, "missing_branches": 100 - branches}
    return {"summary": missing | {"covered_lines": lines, "covered_branches": branches}}


@pytest.mark.parametrize(
    ("crypto", "privacy", "secure", "lacking"),
    [
        ((95, 95), (95, 95), (90, 0), []),
        ((95, 94), (95, 95), (100, 100), ["prism_crypto and prism_privacy"]),
        ((95, 95), (94, 95), (100, 100), ["prism_crypto and prism_privacy"]),
        ((100, 100), (100, 100), (89, 100), ["prism_secure"]),
        ((0, 0), (0, 0), (0, 0), ["prism_crypto and prism_privacy", "prism_secure"]),
    ],
)
def test_each_floor_is_held_by_itself(
    floors: ModuleType,
    crypto: tuple[int, int],
    privacy: tuple[int, int],
    secure: tuple[int, int],
    lacking: list[str],
) -> None:
    files = {
        "crypto/prism_crypto/client.py": _summary(*crypto),
        "privacy/prism_privacy/units.py": _summary(*privacy),
        "prism_secure/cli.py": _summary(*secure),
    }
    assert [line.partition(":")[0] for line in floors.shortfalls(files)] == lacking


def test_a_package_that_was_not_measured_is_not_taken_for_reached(floors: ModuleType) -> None:
    files = {"crypto/prism_crypto/client.py": _summary(100)}
    assert len(floors.shortfalls(files)) == 1
