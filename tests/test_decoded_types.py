"""Types that msgspec reads are prepared at import.

At its first use msgspec prepares a type, running Python code meanwhile; a second thread that uses the type
then finds it half prepared, and the interpreter crashes. Clients of one process begin in threads.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("prism_secure", "crypto/prism_crypto", "privacy/prism_privacy")
BUILT_IN = {"Any", "bool", "bytes", "dict", "float", "int", "list", "str", "tuple"}


def trees() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def calls(tree: ast.AST, name: str) -> list[ast.Call]:
    """Of a function or class of msgspec."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in found if re.fullmatch(rf"msgspec\.(\w+\.)?{name}", ast.unparse(call.func))]


def asked_for(call: ast.Call) -> ast.expr | None:
    return next((each.value for each in call.keywords if each.arg == "type"), (*call.args, None, None)[1])


def test_each_type_that_is_read_has_a_decoder_made_at_import() -> None:
    read: list[tuple[str, str]] = []
    prepared: set[str] = set()
    for where, tree in trees():
        at_import = {
            id(call)
            for statement in tree.body
            if not isinstance(statement, ast.FunctionDef | ast.ClassDef)
            for call in calls(statement, "Decoder")
        }
        for call in calls(tree, "Decoder"):
            assert id(call) in at_import, f"{where}: a Decoder belongs to the module"
            prepared.add(ast.unparse(call.args[0]))
        for call in [*calls(tree, "decode"), *calls(tree, "convert")]:
            kind = asked_for(call)
            if kind is not None:
                names = {node.id for node in ast.walk(kind) if isinstance(node, ast.Name)}
                read += [(where, name) for name in names - BUILT_IN]
    assert {name for _, name in read} >= {"Config", "Policy", "RoundRecord"}
    assert not [f"{where} reads {name}" for where, name in read if name not in prepared]


def test_the_first_configuration_that_is_read_prepares_no_type() -> None:
    """It and its parts, in a fresh interpreter."""
    program = """
import sys
import msgspec
from prism_secure.config import load_config

called = []
sys.setprofile(lambda frame, event, _: called.append(frame.f_code.co_name))
load_config(None, ["federation.clients=7"])
ours = list(called)
msgspec.json.Decoder(msgspec.defstruct("New", [("number", int)]))
sys.setprofile(None)
print("get_class_annotations" in ours, "get_class_annotations" in called)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
