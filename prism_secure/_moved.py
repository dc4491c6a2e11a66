"""Modules that guides taught under another path: they can be imported from there for one more release.

An import of an old path gives the module at its new one and warns which it is. See the deprecation rules in
docs/api.md; what is listed here goes with release 0.2.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "prism_secure.dp_scores": "prism_secure.plug_in.dp_scores",
    "prism_secure.enrolment": "prism_secure.run_folder.enrolment",
    "prism_secure.mada": "prism_secure.learning.aggregation",
    "prism_secure.masked_layers": "prism_secure.plug_in.masked_layers",
    "prism_secure.model_file": "prism_secure.model.model_file",
    "prism_secure.record_release": "prism_secure.accounting.record_release",
    "prism_secure.sparse_inference": "prism_secure.model.sparse_inference",
}


class _Finder(MetaPathFinder, Loader):
    """Answers for the old paths alone."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = MOVED[spec.name]
        warnings.warn(
            f"{spec.name} is now {new}; the old path goes with release 0.2", DeprecationWarning, stacklevel=2
        )
        module = import_module(new)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """The module was executed at its new path, whose spec it keeps."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def install() -> None:
    """Let old paths be imported; safe to repeat."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
