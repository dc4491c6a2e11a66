"""torchvision, importable also where its compiled operators do not load.

    from prism_secure._torchvision import torchvision

Everything in this package takes torchvision from here, and imports this module before torchmetrics, which
imports torchvision by itself. The reason: a torchvision built for CUDA beside a CPU-only torch (what two
package indexes together easily give) cannot load its compiled library, and then `import torchvision` fails
with "operator torchvision::nms does not exist", because it registers shapes for two operators that nobody has
declared. Nothing used here, data sets and networks, needs those operators. So where the library does not
load, this module declares the two names, `nms` and `qnms`, without an implementation; calling one still
fails, loudly.
"""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

import torch

__all__ = ["DECLARED", "torchvision"]

_SCHEMAS = {
    name: f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms")
}
_library: torch.library.Library | None = None  # a Library undoes its definitions when it is collected


def _own_operators_load(folder: Path) -> bool:
    """Whether the compiled library in torchvision's `folder` loads into this torch."""
    # torchvision looks for the same file by the same suffixes; loading a library twice is harmless.
    for library in (folder / f"_C{suffix}" for suffix in EXTENSION_SUFFIXES):
        if library.is_file():
            try:
                torch.ops.load_library(str(library))
            except OSError:
                return False
            return True
    return False


def _declare_missing(folder: Path) -> tuple[str, ...]:
    """Declare those of the two operators that neither torch nor the library in `folder` provides."""
    global _library
    if "torchvision" in sys.modules or _own_operators_load(folder):
        return ()
    missing = tuple(name for name in _SCHEMAS if not hasattr(torch.ops.torchvision, name))
    if missing:
        _library = _library or torch.library.Library("torchvision", "FRAGMENT")
        for name in missing:
            _library.define(_SCHEMAS[name])
    return missing


def _folder() -> Path:
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "torchvision is not installed: pip install prism-secure", name="torchvision"
        )
    return Path(spec.origin).parent


DECLARED: tuple[str, ...] = _declare_missing(_folder())
"""The operators that had to be declared here: empty where torchvision works by itself."""

import torchvision  # noqa: E402  (only now can it be imported everywhere)
