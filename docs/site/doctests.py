"""Docstrings as pages show them: a doctest as code, a Sphinx role as the name in it."""

from __future__ import annotations

import re
from typing import Any

import griffe

DOCTEST = re.compile(r"^>>> .*(?:\n.+)*", re.M)
ROLE = re.compile(r":(?:meth|class|func|attr|exc|mod|data):(`[^`]+`)")


class Doctests(griffe.Extension):
    """What mkdocstrings runs over every object that it reads."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            text = ROLE.sub(r"\1", obj.docstring.value)
            obj.docstring.value = DOCTEST.sub(lambda found: f"```pycon\n{found[0]}\n```", text)
