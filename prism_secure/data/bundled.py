"""The part of Fashion-MNIST that ships with the package.

10,000 training and 2,000 test images: the first 1,000 and 200 of each class, in the order of the original
files. Copyright 2017 Zalando SE, MIT licence, in full beside the file (`assets/fashion_mnist.LICENSE`).
"""

from __future__ import annotations

import io
import lzma
from pathlib import Path

import numpy as np

from prism_secure.data.pinned import read_pinned
from prism_secure.data.raw import Raw, as_images, as_labels
from prism_secure.errors import DataError

__all__ = ["CLASSES", "load_bundled"]

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


def load_bundled(path: Path = FILE) -> Raw:
    """Read the bundled file: an `.npz` inside an xz stream.

    Raises:
        DataError: it is missing, damaged or another file.
    """
    data = read_pinned(path, SHA256, DataError, "reinstall prism-secure")
    with np.load(io.BytesIO(lzma.decompress(data))) as arrays:
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
