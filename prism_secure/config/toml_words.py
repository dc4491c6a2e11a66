"""Types and values in messages: in words, and as TOML has them."""

from __future__ import annotations

import re
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

NONE = "none"
"""The word for a setting that has no value, where it need not have one: in TOML, --set and sweeps."""
_ONE = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): NONE}
_SEVERAL = {int: "whole numbers", float: "numbers", str: "texts in quotes"}


def describe(kind: Any) -> str:
    """A setting's type in words.

    >>> describe(float | None), describe(tuple[int, ...]), describe(Literal["end", "off"])
    ('a number | none', 'a list of whole numbers', "'end' | 'off'")
    """
    if get_origin(kind) in (Union, types.UnionType):
        return " | ".join(map(describe, get_args(kind)))
    if get_origin(kind) is Literal:
        return " | ".join(map(repr, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"a list of {_SEVERAL.get(get_args(kind)[0], 'tables')}"
    return _ONE.get(kind, "a table")


def written(value: Any) -> str:
    """A setting's value as TOML has it, a list's on one line; a table or a date as Python has it.

    >>> written(True), written(None), written((0.5, "ten"))
    ('true', 'none', "[0.5, 'ten']")
    """
    if value is None:
        return NONE
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(written, value))}]"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def wrong_type(error: msgspec.ValidationError, kind: Any, raw: Any) -> str | None:
    """What msgspec says of a value of the wrong type, in words; None if it says something else.

    Args:
        error: msgspec's, of a conversion.
        kind: the struct that it should have made of `raw`.
        raw: the table that was read.

    >>> class Limit(msgspec.Struct):
    ...     epsilon: float
    >>> try: msgspec.convert({"epsilon": "low"}, Limit)
    ... except msgspec.ValidationError as error: wrong_type(error, Limit, {"epsilon": "low"})
    "epsilon must be a number, got 'low'"
    """
    text, _, place = str(error).rstrip("`").partition(" - at `$.")
    place = re.sub(r"\[\d+\]$", "", place)  # of a list that holds something wrong, all is shown
    if not place or not text.startswith(("Invalid enum", "Expected")):
        return None
    for key, index in re.findall(r"(\w+)|\[(\d+)\]", place):
        kind, raw = (get_type_hints(kind)[key], raw[key]) if key else (get_args(kind)[0], raw[int(index)])
    return f"{place} must be {describe(kind)}, got {written(raw)}"
