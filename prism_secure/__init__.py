"""Federated generative models with secure aggregation and certified differential privacy.

What is public is listed in ``docs/api.md``. The names here are imported when they are asked for, so that
``import prism_secure`` does not wait for torch.

>>> from prism_secure import load_config
>>> load_config(overrides=["privacy.flip=0.25"]).privacy.flip
0.25
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from prism_secure import _moved

# Loading the package sets `prism_secure.sweep` to it, once; the function then takes the name for good, and
# `from prism_secure.sweep.results import ...` still finds the package.
from prism_secure.sweep import sweep as sweep

if absent := [part for part in ("prism_crypto", "prism_privacy") if find_spec(part) is None]:
    raise ImportError(
        f"prism_secure needs {' and '.join(absent)}, which come with it: in a clone of the repository, "
        "pip install ./crypto ./privacy ."
    )

_HOMES = {
    "Config": "config",
    "ConfigError": "errors",
    "DataError": "errors",
    "DeployedGenerator": "model.deployed",
    "FeatureError": "errors",
    "ModelError": "errors",
    "NotClaimed": "errors",
    "PrismError": "errors",
    "RoundError": "errors",
    "Run": "run_folder.run",
    "RunFolderError": "errors",
    "RunHistory": "run_folder.history",
    "StorageError": "errors",
    "Sweep": "sweep.results",
    "Supermask": "model.supermask",
    "dump_config": "config",
    "load_config": "config",
    "read_history": "run_folder.history",
    "read_model": "model.model_file",
    "run": "rounds.simulation",
    "write_report": "reporting.report",
}

__all__ = sorted([*_HOMES, "sweep"])

_moved.install()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'prism_secure' has no attribute {name!r}")
    return getattr(import_module(f"prism_secure.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
