"""The deployed model as a file: an architecture, a seed and a packed mask. No code, no pickle.

A safetensors file with one tensor `mask`, uint8 (ceil(d/8),), most significant bit first, and a header that
holds the architecture and the seed. For 242,000 weights it has 30 KB.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from prism_secure.deployment import DeployedGenerator
from prism_secure.errors import ModelError
from prism_secure.generator import Architecture, ResNetGenerator
from prism_secure.storage import write_atomic
from prism_secure.supermask import Supermask

_FORMAT = "prism-secure/v1/model"


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    architecture: dict[str, int]
    seed: int
    weights: int


def write_model(path: Path, architecture: Architecture, seed: int, mask: NDArray[np.bool_]) -> None:
    """Write (architecture, seed, mask) to `path`, whole or not at all.

    Raises:
        StorageError: the disk refused.
    """
    # One entry only: safetensors writes several in an order that changes from run to run.
    header = {_FORMAT: msgspec.json.encode(_Header(architecture.as_dict(), seed, len(mask))).decode()}
    write_atomic(path, save({"mask": np.packbits(mask)}, metadata=header))


def read_model(path: Path) -> DeployedGenerator:
    """The generator that a file describes, ready to `generate`.

    Raises:
        ModelError: the file is missing, damaged, foreign, or its mask does not fit its network.
    """
    try:
        with safe_open(path, framework="np") as file:
            header = file.metadata() or {}
            packed = file.get_tensor("mask") if "mask" in file.keys() else None  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read as a model: {error}") from None
    if _FORMAT not in header or packed is None:
        raise ModelError(f"{path} is not a model of this kind: expected format {_FORMAT!r}")
    try:
        known = msgspec.json.decode(header[_FORMAT], type=_Header)
        architecture = Architecture(**known.architecture)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise ModelError(f"{path} has a damaged header: {error}") from None
    dimension = Supermask(ResNetGenerator(architecture), seed=known.seed).dimension
    if known.weights != dimension or packed.dtype != np.uint8 or packed.shape != (-(-dimension // 8),):
        raise ModelError(f"{path} holds a mask of {known.weights} bits for a network of {dimension} weights")
    mask = np.unpackbits(packed, count=dimension)
    return DeployedGenerator(architecture, seed=known.seed, mask=torch.from_numpy(mask.astype(np.float32)))
