"""What each setting means, in the words that stand below it in `prism_secure.config.sections`."""

from __future__ import annotations

import ast
import inspect
from functools import cache
from typing import get_type_hints

from prism_secure.config import sections
from prism_secure.config.whole import Config


@cache
def bounds() -> dict[tuple[str, str], str]:
    """What the value of a (section, key) must be beyond its type, as its section requires it; none: no key.

    A section requires it of its own default values, too: what it then asks for is heard.

    >>> bounds()["metrics", "samples"]
    'at least 200'
    """
    return {
        (section, key): must
        for section, kind in get_type_hints(Config).items()
        for key, must in _required(kind).items()
    }


def _required(kind: type[sections.Section]) -> dict[str, str]:
    found: dict[str, str] = {}

    class Heard(kind, frozen=True):  # type: ignore[misc, valid-type, call-arg]
        def _require(self, name: str, ok: bool, expected: str) -> None:
            found.setdefault(name, expected)  # of several the first: later ones compare with other settings

    Heard()
    return found


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
