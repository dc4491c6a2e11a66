"""The part of Fashion-MNIST that ships with the package.

10,000 training and 2,000 test images: the first 1,000 and 200 of each class, in the order of the original
files. Copyright 2017 Zalando SE, MIT licence, in full beside the file (`assets/fashion_mnist.LICENSE`).
"""

from __future__ import annotations

import io
import lzma
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prism_secure.data.pinned import read_pinned
from prism_secure.errors import DataError

if TYPE_CHECKING:
    from prism_secure.data.raw import Raw

__all__ = ["CLASSES", "load_bundled", "packed"]

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""Names of the ten labels of Fashion-MNIST, in label order."""

FILE = Path(__file__).parent.parent / "assets" / "fashion_mnist_12k.npz.xz"
SHA256 = "dcb5a83f4db337bdafd5fa9693a75ec6726c33623318c956993ee1e828a16b5d"


def packed(path: Path = FILE) -> bytes:
    """The bundled file as it is: an `.npz` inside an xz stream.

    Raises:
        DataError: it is missing, damaged or another file.
    """
    return read_pinned(path, SHA256, DataError, "reinstall prism-secure")


def load_bundled(path: Path = FILE) -> Raw:
    """Read the bundled file.

    Raises:
        DataError: see `packed`.
    """
    from prism_secure.data.raw import Raw, as_images, as_labels  # which load torch; the rest is asked without

    with np.load(io.BytesIO(lzma.decompress(packed(path)))) as arrays:
        images = {split: as_images(arrays[f"{split}_images"], str(path)) for split in ("train", "test")}
        labels = {split: as_labels(arrays[f"{split}_labels"], str(path)) for split in ("train", "test")}
    return Raw(
        name="fashion_mnist_12k",
        classes=CLASSES,
        train_images=images["train"],
        train_labels=labels["train"],
        test_images=images["test"],
        test_labels=labels["test"],
    )
