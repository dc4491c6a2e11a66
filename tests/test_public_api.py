"""The public names of the packages are those that docs/api.md lists, and each says what it is."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "api.md"
PACKAGES = [
    "prism_crypto",
    "prism_crypto.drive",
    "prism_crypto.hello",
    "prism_privacy",
    "prism_privacy.audit",
    "prism_secure",
    "prism_secure.data",
    "prism_secure.data.public_images",
    "prism_secure.plug_in",
    "prism_secure.plug_in.masked_layers",
    "prism_secure.plug_in.dp_scores",
    "prism_secure.plug_in.measured_gradient",
    "prism_secure.accounting.record_release",
    "prism_secure.learning.aggregation",
    "prism_secure.model.model_file",
    "prism_secure.model.sparse_inference",
    "prism_secure.run_folder.enrolment",
    "prism_secure.sweep.results",
    "prism_secure.sweep.composition",
    "prism_secure.flower",
]
NEEDS = {"prism_secure.flower": "flwr", "prism_secure.plug_in.dp_scores": "opacus"}


def _listed() -> dict[str, dict[str, str]]:
    """Package by package, each name on the page and what the page says of it."""
    sections = re.split(r"^## ", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]
    return {
        section.split()[0]: dict(re.findall(r"^\| `(\w+)` \| (.*?) \|$", section, flags=re.MULTILINE))
        for section in sections
    }


@pytest.fixture(params=PACKAGES)
def package(request: pytest.FixtureRequest) -> str:
    needed = NEEDS.get(request.param)
    if needed is not None and find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed here")
    return str(request.param)


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
        if inspect.isclass(found) or inspect.isroutine(found) or inspect.ismodule(found):
            assert inspect.getdoc(found), f"{package}.{name}"


def _taught() -> Iterator[tuple[str, str, str]]:
    """Every name that a guide or an example imports: where, from which module, which."""
    guides = [*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("docs/*.md")]
    for path in [*guides, *ROOT.glob("examples/**/*.py"), *ROOT.glob("examples/**/*.md")]:
        text = re.sub(r"^(\.\.\.|[+>]+) ?", "", path.read_text("utf-8"), flags=re.MULTILINE)
        for module, names in re.findall(
            r"^\s*from (prism_[\w.]+) import (\([^)]*\)|[^\n#]*)", text, flags=re.MULTILINE
        ):
            for name in names.strip("()\n ").split(","):
                if word := name.split(" as ")[0].strip():
                    yield str(path.relative_to(ROOT)), module, word


def test_what_guides_and_examples_import_is_on_the_page() -> None:
    listed, taught = _listed(), set(_taught())
    assert {"docs/plug-in.md", "docs/privacy.md", "examples/fl4health/app/server_app.py"} <= {
        where for where, _, _ in taught
    }
    assert sorted(each for each in taught if each[2] not in listed.get(each[1], {})) == []


def _callables(found: object) -> Iterator[tuple[str, Any]]:
    """A function, or the methods of a class; values and what `open` makes are not made by hand."""
    if not inspect.isclass(found):
        yield "", found
        return
    for name, each in vars(found).items():
        if name == "__init__" and not (dataclasses.is_dataclass(found) or hasattr(found, "open")):
            yield ".__init__", each
        elif not name.startswith("_"):
            yield f".{name}", getattr(each, "__func__", each)


def test_whoever_takes_a_path_takes_it_as_a_string(package: str) -> None:
    module, refusing = import_module(package), []
    for name in _listed()[package]:
        for method, each in _callables(getattr(module, name)):
            for word, hint in getattr(each, "__annotations__", {}).items():
                if word != "return" and re.search(r"\bPath\b", str(hint)) and "str" not in str(hint):
                    refusing.append(f"{name}{method}({word}: {hint})")
    assert refusing == []


def test_what_is_not_public_is_an_attribute_error_that_names_the_package() -> None:
    import prism_secure

    with pytest.raises(AttributeError, match="'prism_secure' has no attribute 'nothing'"):
        _ = prism_secure.nothing


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, prism_secure; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
