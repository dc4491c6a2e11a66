"""torchvision, importable also where its compiled operators do not load.

    from prism_secure.data.torchvision_shim import torchvision

Everything in this package takes torchvision from here, where it needs it and not before: importing it takes
a second. The reason: a torchvision built for CUDA beside a CPU-only torch (what two package indexes together
easily give) cannot load its compiled library, and then `import torchvision` fails with "operator
torchvision::nms does not exist", because it registers shapes for two operators that nobody has declared.
Nothing used here, data sets and networks, needs those operators. So where the import fails for want of them,
this module declares the two names, `nms` and `qnms`, without an implementation, and imports again; calling
one still fails, loudly.

torchvision itself tries to load its library, under whatever name its version gives it, and torch then says
which operators there are. Nothing is declared before that: an operator that the library defines after all
would be there twice, which ends the process.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

__all__ = ["DECLARED", "torchvision"]

_SCHEMAS = {
    name: f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms")
}
_library: torch.library.Library | None = None  # a Library undoes its definitions when it is collected


def _missing() -> tuple[str, ...]:
    return tuple(name for name in _SCHEMAS if not hasattr(torch.ops.torchvision, name))


def _declare(names: tuple[str, ...]) -> None:
    global _library
    _library = _library or torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in names:
        _library.define(_SCHEMAS[name])  # type: ignore[no-untyped-call]


def _import() -> tuple[ModuleType, tuple[str, ...]]:
    """torchvision, and the operators that had to be declared for it."""
    missing = _missing()
    if len(missing) == len(_SCHEMAS) or "torchvision" in sys.modules:
        try:
            return importlib.import_module("torchvision"), ()
        except RuntimeError:
            missing = _missing()
            if not missing:  # then it failed for another reason
                raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
    # Else somebody declared one of them: beside that the library never loads, and shapes register only once.
    _declare(missing)
    return importlib.import_module("torchvision"), missing


torchvision, DECLARED = _import()
"""The package, and the operators that had to be declared here: none where torchvision works by itself."""
