"""Pages of HTML: one look, `page.css`, and one way to fill templates, in which a missing name is an error."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jinja2
import numpy as np

from prism_secure.wording import format_bytes, format_delta, format_epsilon, format_floor, format_seconds

__all__ = ["render", "thin"]

T = TypeVar("T")


def render(package: str, template: str, filters: Mapping[str, Callable[..., str]], /, **values: Any) -> str:
    """A template of `package`, filled with `values`; it may include "page.css".

    Args:
        filters: beside epsilon, delta, floor, bytes and seconds, which every page has, or in their place.
    """
    environment = _environment(package)
    environment.filters |= filters  # a package has one set of them
    return environment.get_template(template).render(values)


@functools.cache
def _environment(package: str) -> jinja2.Environment:
    """Kept, because to compile a template takes longer than to fill it."""
    own, shared = (jinja2.PackageLoader(name, ".") for name in (package, "prism_secure.reporting"))
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([own, shared]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "epsilon": format_epsilon,
        "delta": format_delta,
        "floor": format_floor,
        "bytes": format_bytes,
        "seconds": format_seconds,
    }
    return environment


def thin(items: Sequence[T], most: int) -> list[T]:
    """At most so many items, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[index] for index in np.linspace(0, len(items) - 1, most).round().astype(int)]
