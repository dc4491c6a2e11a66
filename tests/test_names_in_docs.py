"""Every file and module that the documents and docstrings name is there."""

from __future__ import annotations

import functools
import importlib
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
SOURCES = sorted(
    path
    for folder in ("prism_secure", "crypto", "privacy", "experiments")
    for path in (ROOT / folder).rglob("*.py")
)
FILE = re.compile(r"(?<![\w/.*-])(?:[\w-]+/)*[\w-]+\.py\b")
MODULE = re.compile(r"\bprism_(?:secure|crypto|privacy)(?:\.\w+)+")
ELSEWHERE = {
    "mine.py",  # the reader's own
    "clients/prism.py", "servers/prism.py", "prism.py",  # of the published PRISM code
    "jax_privacy/auditing.py",
    "measured.py", "_client.py", "_server.py",  # that a script makes
}  # fmt: skip


@functools.cache
def present() -> list[str]:
    found = []
    for folder, inside, files in os.walk(ROOT):
        inside[:] = [name for name in inside if not name.startswith(".")]  # of environments above all
        path = Path(folder).relative_to(ROOT)
        found += [f"/{(path / name).as_posix()}" for name in files if name.endswith(".py")]
    return found


def missing_files(text: str, files: list[str]) -> set[str]:
    """Named files that are no file's path, nor the end of one."""
    return {
        name
        for name in FILE.findall(text)
        if name not in ELSEWHERE and not any(path.endswith(f"/{name}") for path in files)
    }


def missing_modules(text: str) -> set[str]:
    """Named modules that cannot be imported, and names that their module lacks."""
    return {name for name in MODULE.findall(text) if not _exists(name)}


def _exists(name: str) -> bool:
    module, _, rest = name.partition(".")
    found = importlib.import_module(module)
    for part in rest.split("."):
        module = f"{module}.{part}"
        if hasattr(found, part):
            found = getattr(found, part)
            continue
        try:
            found = importlib.import_module(module)
        except (ModuleNotFoundError, DeprecationWarning):  # gone, or moved
            return False
    return True


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_and_modules_that_a_document_names_are_there(document: Path) -> None:
    text = document.read_text("utf-8")
    assert not missing_files(text, present())
    assert not missing_modules(text)


def anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_links_to_is_there(document: Path) -> None:
    text, lost = document.read_text("utf-8"), []
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", text):
        if target.startswith(("http://", "https://")):
            continue
        found = document.parent / target if target else document
        if not found.exists() or (anchor and anchor not in anchors(found.read_text("utf-8"))):
            lost.append(f"{target}#{anchor}" if anchor else target)
    assert lost == []


def test_files_that_code_names_are_there() -> None:
    files = present()
    found = {path.relative_to(ROOT): missing_files(path.read_text("utf-8"), files) for path in SOURCES}
    assert not {path: names for path, names in found.items() if names}


def test_modules_that_code_names_are_there() -> None:
    found = {
        path.relative_to(ROOT): missing_modules(path.read_text("utf-8"))
        for path in SOURCES
        if path.name != "_moved.py"  # names what is gone, and where to
    }
    assert not {path: names for path, names in found.items() if names}


def test_a_name_that_is_gone_is_found() -> None:
    assert missing_files("`kappa_curve.py`, `kappa/curve.py`", present()) == {"kappa_curve.py"}
    assert missing_modules("prism_privacy.kappa.curve, prism_privacy.Budget") == {"prism_privacy.kappa.curve"}
