"""The examples in docs/audit.md give what it says."""

from __future__ import annotations

import doctest
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs"


def test_the_examples_in_the_audit_page_give_what_it_says() -> None:
    failed, tried = doctest.testfile(str(DOCS / "audit.md"), module_relative=False, encoding="utf-8")
    assert tried >= 9
    assert failed == 0
