"""The figures in docs/privacy.md are those that the code gives."""

from __future__ import annotations

import doctest
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_examples_in_the_privacy_page_give_what_it_says() -> None:
    failed, tried = doctest.testfile(str(DOCS / "privacy.md"), module_relative=False, encoding="utf-8")
    assert tried >= 10
    assert failed == 0
