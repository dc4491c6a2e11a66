"""The public names of the packages are those that docs/api.md lists, and each says what it is."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
PACKAGES = ["prism_crypto", "prism_privacy", "prism_secure", "prism_secure.flower"]


def _listed() -> dict[str, dict[str, str]]:
    """Package by package, each name on the page and what the page says of it."""
    sections = re.split(r"^## ", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]
    return {
        section.split()[0]: dict(re.findall(r"^\| `(\w+)` \| (.*?) \|$", section, flags=re.MULTILINE))
        for section in sections
    }


@pytest.fixture(params=PACKAGES)
def package(request: pytest.FixtureRequest) -> str:
    if request.param.endswith("flower") and find_spec("flwr") is None:
        pytest.skip("flwr is not installed here")
    return request.param


def test_the_page_has_a_section_for_each_package() -> None:
    assert list(_listed()) == PACKAGES


def test_public_names_are_those_of_the_page(package: str) -> None:
    names = import_module(package).__all__
    assert len(set(names)) == len(names)
    assert sorted(_listed()[package]) == sorted(names)


def test_every_public_name_exists_and_says_what_it_is(package: str) -> None:
    module = import_module(package)
    for name, said in _listed()[package].items():
        found = getattr(module, name)
        assert name in dir(module)
        assert said
        assert inspect.getdoc(found), f"{package}.{name}"


def test_what_is_not_public_is_an_attribute_error_that_names_the_package() -> None:
    import prism_secure

    with pytest.raises(AttributeError, match="'prism_secure' has no attribute 'nothing'"):
        _ = prism_secure.nothing


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, prism_secure; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
