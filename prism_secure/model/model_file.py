"""The deployed model as a file: an architecture, a seed and a mask. No code, no pickle.

A safetensors file with one tensor: `mask`, uint8 (ceil(d/8),), one bit a weight, most significant bit first;
or `coded`, uint8, the same bytes as a zlib stream (RFC 1950) where that is shorter. One entry of the header,
named after the format, is JSON: the architecture, the seed, the number of weights, a model card if there is
one, and a SHA-256 over all of these and the tensor. The 307,600 weights of the default take 38 KB.

A network of the user's own is named, with the SHA-256 of its source: reading the file imports that module,
if the same source is on this machine, and refuses otherwise.

The digest finds damage. It proves no origin: whoever writes a file writes its digest, and its card.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from prism_secure.errors import ConfigError, ModelError
from prism_secure.model.deployed import MOST_FLOATS, DeployedGenerator, largest_activation
from prism_secure.model.generator import Architecture
from prism_secure.model.model_card import ModelCard, plain
from prism_secure.model.network import weight_count
from prism_secure.storage import write_atomic

__all__ = ["ModelFile", "read_model", "read_model_file", "write_model"]

_FORMAT = "prism-secure/v1/model"
_PACKED, _CODED = "mask", "coded"
_MOST = {"latent": 4096, "width": 1024, "image_size": 256, "max_channels": 1 << 20, "classes": 1 << 16}
"""As much as a configuration can ask for; a file that asks for more is foreign."""


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    architecture: dict[str, int | str]
    seed: int
    weights: int
    sha256: str
    card: msgspec.Raw = msgspec.Raw(b"null")
    """As it was written: the digest holds for a card that has more to say than this version knows."""


_HEADERS = msgspec.json.Decoder(_Header)
_CARDS: msgspec.json.Decoder[ModelCard | None] = msgspec.json.Decoder(ModelCard | None)


@dataclass(frozen=True, eq=False)
class ModelFile:
    """What a model file holds.

    Attributes:
        architecture: the sizes.
        seed: draws the frozen weights.
        mask: bool (d,), which of them are kept.
        card: what the model says about itself, if anything.
        stored: bytes of the mask in the file.
    """

    architecture: Architecture
    seed: int
    mask: NDArray[np.bool_]
    card: ModelCard | None
    stored: int

    def generator(self) -> DeployedGenerator:
        """The network, ready to `generate`."""
        return DeployedGenerator(self.architecture, seed=self.seed, mask=torch.from_numpy(self.mask))


def write_model(
    path: str | os.PathLike[str],
    architecture: Architecture,
    seed: int,
    mask: NDArray[np.bool_],
    *,
    card: ModelCard | None = None,
    entropy_coded: bool = False,
) -> None:
    """Write (architecture, seed, mask) to `path`, whole or not at all.

    Args:
        entropy_coded: Huffman-code the bytes of the mask if that is shorter: with much fewer or more than
            half of the weights kept.

    Raises:
        StorageError: the disk refused.
    """
    name, stored = _PACKED, np.packbits(mask)
    if entropy_coded:
        # Bits are independent: a search for repeats only costs time, so Huffman alone.
        coder = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_HUFFMAN_ONLY)
        shorter = coder.compress(stored.tobytes()) + coder.flush()
        if len(shorter) < len(stored):
            name, stored = _CODED, np.frombuffer(shorter, np.uint8)
    header = _Header(architecture.as_dict(), seed, len(mask), "", msgspec.Raw(msgspec.json.encode(card)))
    header = msgspec.structs.replace(header, sha256=_digest(header, name, stored))
    # One entry only: safetensors writes several in an order that changes from run to run.
    metadata = {_FORMAT: msgspec.json.encode(header).decode()}
    write_atomic(Path(path), save({name: stored}, metadata=metadata))


def read_model(path: str | os.PathLike[str]) -> DeployedGenerator:
    """The generator that a file describes, ready to `generate`.

    Raises:
        ModelError: the file is missing, damaged, foreign, or its mask does not fit its network.
    """
    return read_model_file(path).generator()


def read_model_file(path: str | os.PathLike[str]) -> ModelFile:
    """What a file holds; no more memory is taken than the network of as many weights needs.

    Raises:
        ModelError: as `read_model`.
    """
    path = Path(path)
    name, stored, known = _read(path)
    if _digest(known, name, stored) != known.sha256:
        raise ModelError(f"{path} is damaged: its contents do not have the SHA-256 that it states")
    architecture = _architecture(path, known)
    packed = _unpacked(path, name, stored, -(-known.weights // 8))
    bits = np.unpackbits(packed)
    if bits[known.weights :].any():
        raise ModelError(f"{path} is damaged: its mask goes on behind its {known.weights} weights")
    mask = bits[: known.weights].astype(bool)
    return ModelFile(architecture, known.seed, mask, _card(path, known, mask), len(stored))


def _read(path: Path) -> tuple[str, NDArray[np.uint8], _Header]:
    try:
        with safe_open(path, framework="np") as file:
            header = file.metadata() or {}
            if _FORMAT not in header or list(file.keys()) not in ([_PACKED], [_CODED]):
                raise ModelError(f"{path} is not a model of this kind: expected format {_FORMAT!r}")
            (name,) = file.keys()
            stored = file.get_tensor(name)
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist") from None
    except (OSError, SafetensorError) as error:
        if path.is_dir():
            raise ModelError(f"{path} is a folder: a run's model is in its model.safetensors") from None
        if isinstance(error, SafetensorError):  # its words are of headers and offsets
            raise ModelError(
                f"{path} is not a model file, or a damaged one: `prism-secure export` writes models, and a "
                "finished run has its model.safetensors"
            ) from None
        raise ModelError(f"{path} cannot be read: {plain(str(error))}") from None
    try:
        known = _HEADERS.decode(header[_FORMAT])
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ModelError(f"{path} has a damaged header: {plain(str(error))}") from None
    if stored.dtype != np.uint8 or stored.ndim != 1 or not 0 <= known.seed < 2**63:
        raise ModelError(f"{path} has a damaged header: expected uint8 bytes and a seed in [0, 2^63)")
    return name, stored, known


def _architecture(path: Path, known: _Header) -> Architecture:
    """The declared sizes, if a network of these has as many weights as the file says."""
    try:
        sizes = Architecture(**known.architecture)  # type: ignore[arg-type]  # it checks its values itself
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path} has a damaged header: {plain(str(error))}") from None
    for size, most in _MOST.items():
        if getattr(sizes, size) > most:
            raise ModelError(f"{path} asks for {size} = {getattr(sizes, size)}, expected at most {most}")
    if (floats := largest_activation(sizes)) > MOST_FLOATS:
        raise ModelError(
            f"{path} asks for activations of {floats:,} numbers an image, expected at most {MOST_FLOATS:,}"
        )
    try:  # nothing is made that the file doesn't pay for
        weights = weight_count(sizes)
    except ConfigError as error:
        raise ModelError(
            f"{path} needs the network that it was made with, {sizes.network}, in a module that can be "
            f"imported here: {error}"
        ) from error
    if known.weights != weights:
        raise ModelError(f"{path} holds a mask of {known.weights} bits for a network of {weights} weights")
    return sizes


def _card(path: Path, known: _Header, mask: NDArray[np.bool_]) -> ModelCard | None:
    try:
        card = _CARDS.decode(known.card)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ModelError(f"{path} has a damaged card: {plain(str(error))}") from None
    if card is not None and not card.describes(mask):
        raise ModelError(f"{path} has the card of another model: its figures are not those of this mask")
    return card


def _unpacked(path: Path, name: str, stored: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The packed mask, of exactly `size` bytes."""
    if name == _PACKED:
        found = stored
    else:
        # Huffman coding spends a bit or more on each byte, so eight bytes from one are the most.
        if size > 8 * len(stored):
            raise ModelError(f"{path} is damaged: {len(stored)} coded bytes cannot hold {size}")
        decoder = zlib.decompressobj()
        try:
            found = np.frombuffer(decoder.decompress(stored.tobytes(), size + 1), np.uint8)
        except zlib.error as error:
            raise ModelError(f"{path} is damaged: its mask cannot be decoded: {error}") from None
        if not decoder.eof or decoder.unused_data:
            raise ModelError(f"{path} is damaged: its coded mask does not end where it should")
    if len(found) != size:
        raise ModelError(f"{path} is damaged: its mask has {len(found)} bytes, expected {size}")
    return found


def _digest(header: _Header, name: str, stored: NDArray[np.uint8]) -> str:
    plain = msgspec.json.encode(msgspec.structs.replace(header, sha256=""))
    return hashlib.sha256(b"\0".join([_FORMAT.encode(), name.encode(), plain, stored.tobytes()])).hexdigest()
