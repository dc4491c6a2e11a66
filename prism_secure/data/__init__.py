"""Images, how clients share them, and the frozen public features that they are seen through.

One module a kind of source; `sources` says what each is called without reading it. `load` and its kin come
from `dataset`, which imports torch, so they are imported when they are asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prism_secure.data.dataset import BUNDLED, SOURCES, Dataset, load, read_idx, to_float

__all__ = ["BUNDLED", "SOURCES", "Dataset", "load", "read_idx", "to_float"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'prism_secure.data' has no attribute {name!r}")
    return getattr(import_module("prism_secure.data.dataset"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
