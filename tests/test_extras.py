"""How to get optional packages is said in one way, which works in a clone and names extras that exist."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from prism_secure.commands.doctor import EXTRAS
from prism_secure.errors import ConfigError, pip_install

ROOT = Path(__file__).parents[1]
DEFINED = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]


def _texts() -> Iterator[tuple[Path, str]]:
    for folder in ("crypto", "privacy", "prism_secure", "docs", "examples", "experiments"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".md", ".jinja"):
                yield path, path.read_text("utf-8")
    yield ROOT / "README.md", (ROOT / "README.md").read_text("utf-8")


def test_nobody_is_sent_to_a_package_index_for_the_project() -> None:
    asked = re.compile(r"prism-(secure|crypto|privacy)\[|pip install prism-")
    assert [str(path) for path, text in _texts() if asked.search(text)] == []


def test_every_extra_that_is_named_exists() -> None:
    named = set(EXTRAS)
    for _, text in _texts():
        for found in re.findall(r"pip install [^\n`]*'[./]*\[([a-z,-]+)\]'", text):
            named |= set(found.split(","))
        named |= set(re.findall(r"""pip_install\(["']([a-z-]+)["']\)""", text))
    assert named - set(DEFINED) == set()
    assert set(DEFINED) - {"dev", "docs"} == named


@pytest.mark.parametrize(
    ("extra", "package", "module", "function"),
    [
        ("onnx", "onnxscript", "prism_secure.model.onnx_export", "require_packages"),
        ("sweep", "optuna", "prism_secure.sweep.study", "import_optuna"),
    ],
)
def test_without_its_packages_one_line_names_the_extra(
    extra: str, package: str, module: str, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = getattr(import_module(module), function)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=re.escape(pip_install(extra))) as refused:
        needed()
    assert "\n" not in str(refused.value)
    assert isinstance(refused.value, ImportError), "what asks for a package by `except ImportError` must work"
