"""What each setting means, in the words that stand below it in `prism_secure.config.sections`."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from functools import cache
from typing import get_type_hints

from prism_secure.config import sections
from prism_secure.config.whole import Config


@cache
def bounds() -> dict[tuple[str, str], str]:
    """What the value of a (section, key) must be beyond its type, as its section checks it; none: no key.

    >>> bounds()["metrics", "samples"]
    'at least 200'
    """
    names = {kind.__name__: section for section, kind in get_type_hints(Config).items()}
    found: dict[tuple[str, str], str] = {}
    for struct in ast.parse(inspect.getsource(sections)).body:
        if isinstance(struct, ast.ClassDef) and struct.name in names:
            for statement in ast.walk(struct):
                if isinstance(statement, ast.For) and isinstance(statement.iter, ast.Tuple):
                    several = [each.value for each in statement.iter.elts if isinstance(each, ast.Constant)]
                    for key in several:
                        found |= {(names[struct.name], str(key)): text for _, text in _checks(statement)}
                found |= {(names[struct.name], key): text for key, text in _checks(statement) if key}
    return found


def _checks(statement: ast.AST) -> Iterator[tuple[str, str]]:
    """The key, "" where a loop names it, and the expectation of each check directly in a statement."""
    body = statement.body if isinstance(statement, ast.For | ast.FunctionDef) else []
    for each in body:
        match each:
            case ast.Expr(
                ast.Call(func=ast.Attribute(attr="_require"), args=[key, _, ast.Constant(value=expected)])
            ):
                yield str(key.value) if isinstance(key, ast.Constant) else "", str(expected)


@cache
def meanings() -> dict[tuple[str, str], str]:
    """The meaning of every (section, key), as one line of text.

    >>> meanings()["mask", "temperature"]
    'tau in theta = sigmoid(score / tau).'
    """
    names = {kind.__name__: section for section, kind in get_type_hints(Config).items()}
    found: dict[tuple[str, str], str] = {}
    for struct in ast.parse(inspect.getsource(sections)).body:
        if not (isinstance(struct, ast.ClassDef) and struct.name in names):
            continue
        for field, below in zip(struct.body, [*struct.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                found[names[struct.name], field.target.id] = _text(below)
    return found


def _text(below: ast.stmt | None) -> str:
    """The string that stands alone below a field, "" if something else does."""
    if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
        return " ".join(str(below.value.value).split())
    return ""
