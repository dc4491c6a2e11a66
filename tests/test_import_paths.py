"""Modules are found under the paths that guides taught before, and those that need no torch load none."""

from __future__ import annotations

import subprocess
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec

import pytest

from prism_secure._moved import MOVED

NEEDS = {"prism_secure.dp_scores": "opacus"}

WITHOUT_TORCH = ("config", "accounting", "run_folder", "reporting", "sweep", "commands")
"""Rooms that every command goes through, `--help` and `report` too, and torch takes a second to import.

`data` and `data.sources` do without it as well. These may import it: the rest of `data`, `audit`, `rounds`,
`learning`, `model`, `quality`, `flower`, `plug_in.masked_layers` and `plug_in.dp_scores`.
"""


@pytest.fixture(params=sorted(MOVED))
def old(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """An old import path that this process has not imported yet."""
    if find_spec(NEEDS.get(request.param, "prism_secure")) is None:
        pytest.skip(f"{NEEDS[request.param]} is not installed here")
    monkeypatch.delitem(sys.modules, request.param, raising=False)
    return str(request.param)


def test_a_path_of_before_gives_the_module_of_now_and_warns_once(old: str) -> None:
    new = MOVED[old]
    said = f"^{old} is now {new}; the old path goes with release 0.2$"
    with pytest.warns(DeprecationWarning, match=said) as warned:
        module = import_module(old)
    assert len(warned) == 1
    assert module is import_module(new)
    assert module.__name__ == new
    assert module.__spec__ is not None
    assert module.__spec__.name == new
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert import_module(old) is module


@pytest.mark.parametrize(
    "path",
    ["prism_secure.nothing", "prism_secure.mada.nothing", "prism_secure.federation", "prism_privacy.mada"],
)
def test_any_other_path_is_not_found(path: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with pytest.raises(ModuleNotFoundError, match=path):
            import_module(path)


def test_rooms_that_every_command_goes_through_do_not_import_torch() -> None:
    code = f"""
import sys
from importlib import import_module
from pkgutil import walk_packages

names = ["prism_secure.data", "prism_secure.data.sources"]
for room in {WITHOUT_TORCH}:
    path = "prism_secure." + room
    names += [path, *(found.name for found in walk_packages(import_module(path).__path__, path + "."))]
assert len(names) > 60, names
for name in names:
    import_module(name)
    if "torch" in sys.modules:
        sys.exit(name + " imports torch")
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
