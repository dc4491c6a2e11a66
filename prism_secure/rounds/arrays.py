"""Arrays by name in a file: what clients and the server keep from one round to the next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from prism_secure.errors import RunFolderError

__all__ = ["packed", "read_arrays"]


def packed(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Arrays as a safetensors file, each in C order: of another order it would keep the bytes as they lie."""
    return save({name: np.asarray(array, order="C") for name, array in arrays.items()})


def read_arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    """The arrays of a safetensors file.

    Raises:
        RunFolderError: it is damaged.
    """
    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError, ValueError) as error:
        raise RunFolderError(f"{path} is damaged: {error}") from None
