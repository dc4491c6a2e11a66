"""Pages of HTML: one look, `page.css`, and one way to fill templates, in which a missing name is an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jinja2

from prism_secure.wording import format_bytes, format_delta, format_epsilon, format_floor, format_seconds

__all__ = ["render"]


def render(package: str, template: str, filters: Mapping[str, Callable[..., str]], /, **values: Any) -> str:
    """A template of `package`, filled with `values`; it may include "page.css".

    Args:
        filters: beside epsilon, delta, floor, bytes and seconds, which every page has, or in their place.
    """
    own, shared = (jinja2.PackageLoader(name, ".") for name in (package, "prism_secure"))
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
        **filters,
    }
    return environment.get_template(template).render(values)
