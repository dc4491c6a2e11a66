"""The idx files of the MNIST family: a magic number, the sizes, the bytes; plain or gzipped.

Whose each training image is says `train-persons.txt` beside them, where that is asked for: a line an image,
in the order of the images, with any name or number of its person.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prism_secure.data.raw import Raw, as_images, as_labels, numbered, person_name
from prism_secure.errors import DataError

__all__ = ["load_idx", "read_idx", "write_idx"]

_UINT8 = 0x08


def read_idx(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """The array of unsigned bytes in an idx file, of whatever rank; `.gz` is decompressed.

    Format: two zero bytes, the type (8 is unsigned byte), the rank, each size as a big-endian 32-bit
    integer, then the values in row-major order.

    Raises:
        DataError: the file is missing, unreadable, truncated, too long, or of another type.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read, it may be truncated: {error}") from None
    if len(data) < 4 or data[:2] != b"\0\0":
        raise DataError(f"{path} is not an idx file: it starts with {data[:4].hex() or 'nothing'}")
    if data[2] != _UINT8:
        raise DataError(f"{path} holds values of type 0x{data[2]:02x}; expected 0x08, unsigned bytes")
    rank = data[3]
    start = 4 + 4 * rank
    shape = tuple(int.from_bytes(data[at : at + 4], "big") for at in range(4, start, 4))
    if len(data) - start != math.prod(shape):
        raise DataError(
            f"{path} declares {shape}, {math.prod(shape)} bytes, but {max(len(data) - start, 0)} follow its "
            "header: the download was cut short or the file is damaged"
        )
    try:
        return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
    except ValueError as error:  # more dimensions, or longer ones beside a zero, than NumPy has
        raise DataError(f"{path} declares {rank} sizes that no array can have: {error}") from None


def write_idx(path: Path, values: NDArray[np.uint8]) -> None:
    """The inverse of `read_idx`: an uncompressed idx file of these bytes, of whatever rank.

    Raises:
        TypeError: they are not unsigned bytes.
    """
    if values.dtype != np.uint8:
        raise TypeError(f"expected uint8, got {values.dtype}")
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(bytes([0, 0, _UINT8, values.ndim]) + sizes + values.tobytes())


PERSONS = "train-persons.txt"


def load_idx(folder: Path, *, persons: bool = False) -> Raw:
    """The four files of an MNIST-like data set in `folder`, each plain or `.gz`; classes are numbered.

    Args:
        folder: where they lie.
        persons: read whose each training image is, too.

    Raises:
        DataError: a file is missing or damaged, or they do not fit each other.
    """
    arrays = {(prefix, kind): _find(folder, prefix, kind) for prefix in ("train", "t10k") for kind in _RANKS}
    labels = {prefix: as_labels(arrays[prefix, "labels"], str(folder)) for prefix in ("train", "t10k")}
    highest = max((int(each.max()) for each in labels.values() if len(each)), default=0)
    return Raw(
        name=folder.name,
        classes=tuple(str(label) for label in range(highest + 1)),
        train_images=as_images(arrays["train", "images"], str(folder)),
        train_labels=labels["train"],
        test_images=as_images(arrays["t10k", "images"], str(folder)),
        test_labels=labels["t10k"],
        persons=numbered(_persons(folder / PERSONS, len(labels["train"]))) if persons else None,
    )


def _persons(path: Path, images: int) -> list[str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist: data.person = 'file' expects it beside the idx files, with a line for "
            "each training image that names its person"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}") from None
    names = [person_name(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]
    if len(names) != images:
        raise DataError(f"{path}: expected a line for each of {images} training images, got {len(names)}")
    if "" in names:
        raise DataError(f"{path} names no person in line {names.index('') + 1}")
    return names


_RANKS = {"images": 3, "labels": 1}


def _find(folder: Path, prefix: str, kind: str) -> NDArray[np.uint8]:
    rank = _RANKS[kind]
    names = [f"{prefix}-{kind}{dot}idx{rank}-ubyte{end}" for dot in "-." for end in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            array = read_idx(folder / name)
            if array.ndim != rank:
                raise DataError(f"{folder / name}: expected {rank} sizes, got {array.shape}")
            return array
    raise DataError(f"{folder} has no {names[0]} (nor with .gz): an idx folder holds train- and t10k- files")
