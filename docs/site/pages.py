"""What `mkdocs build` asks: the repository as a site, and the reference, made from code.

Pages keep their paths in the repository, so that links work on a code host and in the site alike. `SHOWN` are
the pages; any other file that one of them links to comes along as it is.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what is made from code needs none of it
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
SHOWN = ("*.md", "docs/**/*.md", "docs/site/*.css", "experiments/**/*.md", "examples/**/*.md",
         "crypto/*.md", "privacy/*.md")  # fmt: skip
LINK = re.compile(r"(!?\[[^\]]*\])\(([^)#\s]+)(#[^)\s]*)?\)")
FENCED = re.compile(r"(```.*?```)", re.S)
NOTEBOOKS = ROOT / "notebooks"
"""`make notebooks` puts them into `made`, run and as Markdown; without that they are shown as they are."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages of the repository, what they link to, and the reference."""
    from mkdocs.structure.files import File, Files
    from nbconvert import MarkdownExporter

    shown = {path for pattern in SHOWN for path in ROOT.glob(pattern)}
    linked = {path for page in shown if page.suffix == ".md" for path in _linked(page)}
    found = Files([file for file in files if file.src_dir != config.docs_dir])  # the theme's
    for path in sorted(shown | linked):
        found.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    made = NOTEBOOKS / "made"
    for path in sorted(path for path in made.rglob("*") if path.is_file()):
        uri = f"notebooks/{path.relative_to(made).as_posix()}"
        found.append(File.generated(config, uri, abs_src_path=str(path)))
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        uri = f"notebooks/{path.stem}.md"
        if found.get_file_from_path(uri) is None:
            text, _ = MarkdownExporter().from_filename(str(path))
            found.append(File.generated(config, uri, content=text))
    for name, text in reference():
        found.append(File.generated(config, f"docs/reference/{name}.md", content=text))
    return found


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A link to a folder goes to its README, or is none; a link to a notebook goes to its page."""
    here = (ROOT / page.file.src_uri).parent

    def aim(match: re.Match[str]) -> str:
        words, target, anchor = match[1], match[2], match[3] or ""
        folder = here / target
        if "://" in target or not folder.is_dir():
            return match[0].replace(".ipynb)", ".md)")
        readme = folder / "README.md"
        return f"{words}({os.path.relpath(readme, here)}{anchor})" if readme.exists() else words[1:-1]

    return "".join(part if part.startswith("```") else LINK.sub(aim, part) for part in FENCED.split(markdown))


def _linked(page: Path) -> Iterator[Path]:
    text = FENCED.sub("", page.read_text("utf-8"))
    for _, target, _ in LINK.findall(text):
        path = Path(os.path.normpath(page.parent / target))
        if path.is_file() and path.is_relative_to(ROOT) and path.suffix != ".md":
            yield path


def reference() -> Iterator[tuple[str, str]]:
    """(name, Markdown) of each page that is made from code."""
    yield "commands", _commands()
    yield "settings", _settings()
    yield "errors", _errors()
    yield "wire-format", _wire_format()
    api = (ROOT / "docs" / "api.md").read_text("utf-8")
    for section in re.split(r"^## ", api, flags=re.M)[1:]:
        module = section.splitlines()[0].strip()
        names = re.findall(r"^\| `(\w+)` \|", section, flags=re.M)
        if names:
            yield f"api/{module}", _api(module, names)


def _commands() -> str:
    from prism_secure.cli import command_parser

    os.environ["COLUMNS"] = "100"
    parts = ["# Commands\n\nMade from the parsers: what `--help` prints.\n"]
    for name, parser in _subparsers(command_parser(), "prism-secure"):
        parts.append(f"## {name}\n\n```text\n{parser.format_help()}```\n")
    return "\n".join(parts)


def _subparsers(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, below in action.choices.items():
                yield from _subparsers(below, f"{name} {word}")


def _settings() -> str:
    from prism_secure.config import load_config, settings_to_show
    from prism_secure.config.schema import schema

    found = schema()
    defaults = settings_to_show(load_config(None, []))
    parts = [
        "# Settings\n\nMade from the schema that `prism-secure config --schema` prints. "
        "`--set section.key=value` sets one; a recipe file has a table for each section. "
        "A recipe sets some of them otherwise; `prism-secure config --recipe NAME` prints another's.\n"
    ]
    for section, at in found["properties"].items():
        if "$ref" not in at:
            continue
        table = found["$defs"][at["$ref"].rpartition("/")[2]]
        parts.append(f"## {section}\n\n{table.get('description', '')}\n")
        for key, what in table["properties"].items():
            known = key in defaults.get(section, {})
            told = f"; default {_value(defaults[section][key])}" if known else ""
            parts.append(
                f"### {section}.{key}\n\n{what.get('description', '')}\n\nTakes {_takes(what)}{told}.\n"
            )
    return "\n".join(parts)


def _takes(what: dict[str, Any]) -> str:
    """One setting's type and range, in words."""
    if "anyOf" in what:
        return " or ".join(_takes(one) for one in what["anyOf"])
    if "enum" in what:
        return ", ".join(_value(value) for value in what["enum"])
    if "const" in what:
        return _value(what["const"])
    if what.get("type") == "array":
        return f"a list of {_takes(what.get('items') or what['prefixItems'][0])}"
    words = {"integer": "whole number", "number": "number", "boolean": "`true`, `false`", "string": "text"}
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {what[key]:g}" for key, sign in signs.items() if key in what]
    return " ".join([words.get(what.get("type", ""), "value"), *bounds])


def _value(value: object) -> str:
    return "`none`" if value is None else f"`{json.dumps(value, default=str, ensure_ascii=False)}`"


def _errors() -> str:
    parts = [
        "# Errors\n\nMade from the three packages' error modules. Every error that is raised on purpose is "
        "one of these; its text is one clear message.\n"
    ]
    for package in ("prism_secure", "prism_crypto", "prism_privacy"):
        tree = importlib.import_module(f"{package}.errors").__doc__ or ""
        parts.append(f"## {package}\n\n{tree.strip()}\n")
    return "\n".join(parts)


def _wire_format() -> str:
    text = (ROOT / "docs" / "secure-sum.md").read_text("utf-8")
    found = re.search(r"^## Wire format\n(.*?)(?=^## |\Z)", text, flags=re.M | re.S)
    assert found is not None
    return f"# Wire format\n{found[1]}\nThe protocol around it: [secure aggregation](../secure-sum.md).\n"


def _api(module: str, names: list[str]) -> str:
    found = importlib.import_module(module)
    homes = [_home(getattr(found, name), f"{module}.{name}") for name in names]
    entries = "\n\n".join(f"::: {home}\n    options:\n      heading_level: 2" for home in homes)
    return f"# {module}\n\nMade from the docstrings.\n\n{entries}\n"


def _home(thing: Any, public: str) -> str:
    """Where the source of a public name is, which a package that imports it late does not show."""
    package, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    return f"{package}.{name}" if package and name and package.startswith("prism_") else public
