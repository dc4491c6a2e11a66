"""Python in the documents: it compiles, what it imports is there, and what stands by itself runs.

Notebooks are run by `make notebooks`.
"""

from __future__ import annotations

import ast
import builtins
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", *sorted(ROOT.glob("*/README.md"))]
BLOCK = re.compile(r"^```python\n(?!>>>)(.*?)^```", re.M | re.S)
READERS = "fashion.safetensors", "sweeps/", "runs/", ".toml", "ledger.jsonl"
"""A block that names one of these needs what its reader has made, or trains."""
OURS = "prism_crypto", "prism_privacy", "prism_secure"

BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}:{page.read_text('utf-8')[:at].count(chr(10)) + 1}")
    for page in PAGES
    for block, at in ((m[1], m.start()) for m in BLOCK.finditer(page.read_text("utf-8")))
]
NOTEBOOKS = {path.name: json.loads(path.read_text("utf-8")) for path in (ROOT / "notebooks").glob("*.ipynb")}


def parsed(block: str) -> ast.Module:
    """A block's syntax; `…` stands for what the reader has, a decorator for the function below it."""
    block = re.sub(r"^( *)@(.*)$", r"\1_ = \2", block, flags=re.M)
    return ast.parse(block.replace(", …", "").replace("…", "..."))


def unknown(block: str) -> set[str]:
    """Names that a block uses and neither makes nor imports."""
    known, used = set(dir(builtins)), set()
    for node in ast.walk(parsed(block)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            known |= {(name.asname or name.name).partition(".")[0] for name in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            known.add(node.name)
        elif isinstance(node, ast.arg):
            known.add(node.arg)
        elif isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else known).add(node.id)
    return used - known


@pytest.mark.parametrize("block", BLOCKS)
def test_what_a_block_imports_from_here_is_there(block: str) -> None:
    imports = [node for node in ast.walk(parsed(block)) if isinstance(node, ast.Import | ast.ImportFrom)]
    ours = [
        node
        for node in imports
        if (node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name).startswith(OURS)
    ]
    exec(compile(ast.Module([*ours], []), "imports", "exec"), {})


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_imports_what_is_there_and_is_kept_without_outputs(name: str) -> None:
    cells = [cell for cell in NOTEBOOKS[name]["cells"] if cell["cell_type"] == "code"]
    assert [cell["outputs"] for cell in cells] == [[]] * len(cells)
    assert {cell["execution_count"] for cell in cells} == {None}
    test_what_a_block_imports_from_here_is_there("\n".join("".join(cell["source"]) for cell in cells))


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_that_stands_by_itself_runs(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if unknown(block) or any(name in block for name in READERS):
        pytest.skip("a part of the reader's program")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "block", "exec"), {"__name__": "block"})


def test_federated_averaging_between_machines_gives_the_weighted_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [block] = [each.values[0] for each in BLOCKS if "layers.split(values, trained)" in str(each.values[0])]
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(block, "block", "exec"), names)
    assert {name: values.tolist() for name, values in names["model"].items()} == {
        name: values.tolist() for name, values in names["trained"].items()
    }
    assert names["weight"] == 4 * names["examples"]


def test_some_blocks_stand_by_themselves() -> None:
    assert sum(not unknown(block.values[0]) for block in BLOCKS) >= 6


def test_a_block_with_a_mistake_is_found() -> None:
    with pytest.raises(SyntaxError):
        parsed("secure_sum(masks")
    assert unknown("from x import y\ndef f(a):\n    return a + y + z\n") == {"z"}
    with pytest.raises(ImportError):
        test_what_a_block_imports_from_here_is_there("from prism_crypto import secure_sums")
