"""Fashion-MNIST, MNIST and CIFAR-10 as published, through torchvision."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from prism_secure.data.raw import Raw, as_images, as_labels
from prism_secure.data.torchvision_shim import torchvision
from prism_secure.errors import DataError

__all__ = ["PUBLISHED", "load_published"]

PUBLISHED = {
    "fashion_mnist": ("FashionMNIST", "FashionMNIST/raw"),
    "mnist": ("MNIST", "MNIST/raw"),
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
}
"""Source name: torchvision's class, and the folder it looks for inside the given one."""

# torchvision reports a broken file in as many ways as there are parsers on the path to it.
_DAMAGED = (OSError, RuntimeError, AssertionError, ValueError, EOFError, KeyError, pickle.PickleError)


def load_published(source: str, folder: Path, *, download: bool) -> Raw:
    """Both splits of `source` from `folder`, in the layout that torchvision keeps.

    torchvision compares the files of CIFAR-10 with their published checksums before it unpickles them.

    Raises:
        DataError: the files are missing, damaged or incomplete, or the download failed.
    """
    class_name, layout = PUBLISHED[source]
    kind = getattr(torchvision.datasets, class_name)
    train, test = (
        _read(kind, source, folder, layout, train=split, download=download) for split in (True, False)
    )
    return Raw(
        name=source,
        classes=tuple(train.classes),
        train_images=as_images(train.data, source),
        train_labels=as_labels(train.targets, source),
        test_images=as_images(test.data, source),
        test_labels=as_labels(test.targets, source),
    )


def _read(kind: Any, source: str, folder: Path, layout: str, *, train: bool, download: bool) -> Any:
    try:
        return kind(folder, train=train, download=download)
    except _DAMAGED as error:
        reason = str(error).strip().splitlines()
        detail = f" ({type(error).__name__}: {reason[-1]})" if reason else f" ({type(error).__name__})"
    if download:
        raise DataError(
            f"{source} could not be downloaded into {folder}, or what lies there is damaged{detail}: "
            f"check the network, or delete {folder / layout} and try again"
        )
    if not (folder / layout).is_dir():
        raise DataError(
            f"{source} is not in {folder}: there is no {layout} in it. Set data.folder to the folder that "
            "holds it, or data.download = true to fetch it; a folder of idx files is data.source = 'idx'"
        )
    packed = [path.name for path in (folder / layout).glob("*.gz") if not path.with_suffix("").exists()]
    if packed:
        raise DataError(
            f"{source} in {folder / layout} is still packed: torchvision reads it unpacked (gunzip --keep "
            f"{min(packed)} and the others), and data.source = 'idx' with this folder reads it as it is"
        )
    raise DataError(
        f"{source} in {folder / layout} is incomplete or damaged{detail}: delete it and set "
        "data.download = true, or copy it there again"
    )
