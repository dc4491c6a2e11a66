"""Small tables of HTML for notebooks: what every `_repr_html_` here and in packages above is made of."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = ["table"]

_LEFT = ' style="text-align: left"'


def table(caption: str, rows: Sequence[Sequence[object]], head: Sequence[str] = ()) -> str:
    """A table, all of its text escaped; the first cell of a row names it.

    >>> table("a & b", [("<x>", 1)]).replace(_LEFT, "")
    '<table><caption>a &amp; b</caption><tbody><tr><th>&lt;x&gt;</th><td>1</td></tr></tbody></table>'
    """
    above = "".join(f"<th{_LEFT}>{escape(name)}</th>" for name in head)
    body = "".join(
        f"<tr><th{_LEFT}>{escape(str(first))}</th>"
        + "".join(f"<td{_LEFT}>{escape(str(cell))}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f"<table><caption{_LEFT}>{escape(caption)}</caption>"
        + (f"<thead><tr>{above}</tr></thead>" if above else "")
        + f"<tbody>{body}</tbody></table>"
    )
