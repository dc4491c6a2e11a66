"""The pages of the site that are made from code have all of it; no mkdocs is needed to make them."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from prism_secure.cli import main
from prism_secure.config import load_config, settings_to_show

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs" / "site" / "pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference(site: ModuleType) -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "100")  # the page sets it, and it is put back
        return dict(site.reference())


@pytest.mark.parametrize("command", ["", "run", "audit mechanism", "list"])
def test_a_commands_section_is_what_its_help_prints(
    command: str,
    reference: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    name = f"prism-secure {command}".strip()
    assert f"## {name}\n\n```text\n{capsys.readouterr().out}```\n" in reference["commands"]


def test_every_command_has_a_section(reference: dict[str, str]) -> None:
    helped = re.search(r"^positional arguments:\n  COMMAND\n(.*?)\n\n", reference["commands"], re.M | re.S)
    assert helped is not None
    names = re.findall(r"^    (\S+)", helped[1], re.M)
    assert {"run", "sweep", "audit", "doctor"} <= set(names)
    sections = re.findall(r"^## prism-secure (\S+)$", reference["commands"], re.M)
    assert sections == names


def test_every_setting_has_its_default(reference: dict[str, str], site: ModuleType) -> None:
    parts = re.split(r"^### ", reference["settings"], flags=re.M)[1:]
    found = {part.splitlines()[0]: part for part in parts}
    expected = {
        f"{section}.{key}": value
        for section, keys in settings_to_show(load_config(None, [])).items()
        for key, value in keys.items()
    }
    assert expected.keys() <= found.keys()
    for name, value in expected.items():
        assert f"; default {site._value(value)}." in found[name], name
    assert all(re.search(r"^Takes \S.*\.$", part, re.M) for part in parts), "each says what it takes"


@pytest.mark.parametrize("package", ["prism_secure", "prism_crypto", "prism_privacy"])
def test_every_error_is_in_the_tree(package: str, reference: dict[str, str]) -> None:
    module = importlib.import_module(f"{package}.errors")
    section = reference["errors"].partition(f"## {package}\n")[2].partition("\n## ")[0]
    own = [
        name
        for name, thing in vars(module).items()
        if inspect.isclass(thing) and issubclass(thing, Exception) and thing.__module__ == module.__name__
    ]
    assert own
    assert [name for name in own if not re.search(rf"\b{name}\b", section)] == []


def test_every_public_name_has_an_entry_that_can_be_imported(reference: dict[str, str]) -> None:
    api = (ROOT / "docs" / "api.md").read_text("utf-8")
    for page in (name for name in reference if name.startswith("api/")):
        section = api.partition(f"\n## {page.removeprefix('api/')}\n")[2].partition("\n## ")[0]
        names = re.findall(r"^\| `(\w+)` \|", section, flags=re.M)
        homes = re.findall(r"^::: (\S+)$", reference[page], re.M)
        assert len(homes) == len(names) > 0
        for name, home in zip(names, homes, strict=True):
            module, _, thing = home.rpartition(".")
            assert thing, name
            assert hasattr(importlib.import_module(module), thing), home


def test_the_wire_format_is_the_guides_section(reference: dict[str, str]) -> None:
    guide = (ROOT / "docs" / "secure-sum.md").read_text("utf-8")
    inside = guide.partition("\n## Wire format\n")[2].partition("\n## ")[0].strip()
    assert inside
    assert inside in reference["wire-format"]


@pytest.mark.parametrize(
    ("written", "aimed"),
    [
        ("[frontier](../experiments/frontier)", "[frontier](../experiments/frontier/README.md)"),
        ("[code](../prism_secure)", "code"),
        ("[one](../notebooks/sweep.ipynb)", "[one](../notebooks/sweep.md)"),
        ("[out](https://example.org/notebooks)", "[out](https://example.org/notebooks)"),
        ("[audit](audit.md#one)", "[audit](audit.md#one)"),
        ("```\n[code](../prism_secure)\n```", "```\n[code](../prism_secure)\n```"),
    ],
)
def test_links_of_a_code_host_lead_somewhere_on_the_site(written: str, aimed: str, site: ModuleType) -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="docs/sweeps.md"))
    assert site.on_page_markdown(written, page, None, None) == aimed


def test_the_readmes_doors_lead_to_sections_that_are_there() -> None:
    """As a code host makes anchors; `make docs` checks all links, and this one needs no mkdocs."""
    readme = (ROOT / "README.md").read_text("utf-8")
    doors = re.findall(r"\]\((docs/[\w-]+\.md)#([\w-]+)\)", readme)
    assert ("docs/audit.md", "prism-secure-audit-run-one-run-folder") in doors
    for page, anchor in doors:
        heads = re.findall(r"^#+ (.*)$", (ROOT / page).read_text("utf-8"), re.M)
        anchors = [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads]
        assert anchor in anchors, (page, anchor)
