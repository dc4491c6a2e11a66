"""The images of a run: a training part that the clients share, and a held-out part for the metrics.

    dataset = load()                                  # the bundled Fashion-MNIST subset
    dataset = load("cifar10", folder=Path("data"))    # files that are already there
    images = to_float(dataset.train_images[:64])      # what networks see

Every source ends in the same form: uint8 images of one size, int64 labels, the names of the classes. There is
one module a kind of source.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from prism_secure.config.sections import PERSON_IN, Source
from prism_secure.data.bundled import load_bundled
from prism_secure.data.celeba import load_celeba
from prism_secure.data.fit import fit, with_channels
from prism_secure.data.idx import load_idx, read_idx
from prism_secure.data.image_folder import load_image_folder
from prism_secure.errors import ConfigError, DataError, did_you_mean

__all__ = ["BUNDLED", "SOURCES", "Dataset", "load", "read_idx", "to_float"]

BUNDLED: Source = "fashion_mnist_12k"
SOURCES: tuple[str, ...] = get_args(Source)
"""What `load` takes, as `data.source` does."""


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Labelled images in two parts that share nothing.

    Attributes:
        train_images: uint8 `(N, C, S, S)`, levels 0 to 255, C = 1 (grey) or 3 (red, green, blue).
        train_labels: int64 `(N,)`, indices into `classes`.
        test_images: uint8 `(M, C, S, S)`, held out: only metrics look at them.
        test_labels: int64 `(M,)`.
        name: which data set this is, for reports.
        classes: what each label is called.
        persons: int64 `(N,)`, whose each training image is; None where `data.person` is not set.
        skipped: names of the files that could not be read and were left out.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    name: str
    classes: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    persons: Tensor | None = None

    @property
    def image_size(self) -> int:
        """Side of an image, in pixels."""
        return int(self.train_images.shape[-1])

    @property
    def channels(self) -> int:
        return int(self.train_images.shape[1])

    def __repr__(self) -> str:
        train, test = len(self.train_images), len(self.test_images)
        shape = f"{self.channels}×{self.image_size}×{self.image_size}, {len(self.classes)} classes"
        return f"Dataset({self.name}: {train} training and {test} test images, {shape})"


@contextlib.contextmanager
def _as_data_error() -> Iterator[None]:
    """What the disk refuses, a class's folder that may not be listed say, is a fault of the data."""
    try:
        yield
    except OSError as error:
        raise DataError(f"data.folder cannot be read: {error}") from None


@_as_data_error()
def load(
    source: str = BUNDLED,
    *,
    folder: Path | str | None = None,
    download: bool = False,
    image_size: int = 32,
    channels: int | None = None,
    attribute: str = "Male",
    skip_bad: bool = False,
    person: str | None = None,
    person_file: str = "persons.csv",
) -> Dataset:
    """Load a data set, its images cut to a centred square and resized to `image_size`.

    Resizing is bilinear with antialiasing, rounded to whole levels: what torchvision's `Resize` does to a
    picture. Nothing is read from the network unless `download` allows it.

    Args:
        source: one of `SOURCES`. `fashion_mnist_12k` ships with the package; `fashion_mnist`, `mnist` and
            `cifar10` are in torchvision's layout inside `folder`, and so is `celeba` (see
            `prism_secure.data.celeba`); `idx` is a folder of the four files of an MNIST-like set; `images` is
            a folder of pictures (see `prism_secure.data.image_folder`).
        folder: where the files lie; needed by all but the bundled source.
        download: lets torchvision fetch a missing data set into `folder`.
        image_size: side of the result, in pixels.
        channels: 1 makes images grey, 3 makes them colour, None keeps what they are.
        attribute: with `celeba`, the attribute that becomes the label.
        skip_bad: with `images` and `celeba`, leave out pictures that cannot be read.
        person: where it says whose an image is: "folder" or "file" with `images`, "file" with `idx` and
            `celeba`.
        person_file: with `images` and "file", the table in `folder` (see `prism_secure.data.person_table`).

    Raises:
        DataError: the data set is missing, unreadable, truncated or of the wrong shape; the text says what
            to do.
        ConfigError: an argument is impossible.

    >>> load(image_size=28)
    Dataset(fashion_mnist_12k: 10000 training and 2000 test images, 1×28×28, 10 classes)
    """
    if image_size < 1:
        raise ConfigError(f"image_size must be at least 1, got {image_size}")
    if channels not in (None, 1, 3):
        raise ConfigError(f"channels must be 1, 3 or None, got {channels}")
    if person not in (None, *(told := PERSON_IN.get(source, ()))):
        expected = " or ".join(map(repr, told)) or None
        raise ConfigError(f"person must be {expected} with the source {source!r}, got {person!r}")
    persons = person is not None
    if source == BUNDLED:
        raw = load_bundled()
    elif source in SOURCES:
        where = _existing(source, folder, create=download)
        if source == "idx":
            raw = load_idx(where, persons=persons)
        elif source == "images":
            raw = load_image_folder(
                where,
                image_size=image_size,
                channels=channels,
                skip_bad=skip_bad,
                persons=persons,
                table=person_file if person == "file" else None,
            )
        elif source == "celeba":
            raw = load_celeba(
                where,
                attribute=attribute,
                image_size=image_size,
                channels=channels,
                skip_bad=skip_bad,
                persons=persons,
            )
        else:
            # torchvision takes seconds to import; the other sources do without it.
            from prism_secure.data.published import load_published

            raw = load_published(source, where, download=download)
    else:
        raise ConfigError(f"unknown data source {source!r}; {did_you_mean(source, SOURCES)}")
    return Dataset(
        train_images=fit(with_channels(raw.train_images, channels), image_size),
        train_labels=raw.train_labels,
        test_images=fit(with_channels(raw.test_images, channels), image_size),
        test_labels=raw.test_labels,
        name=raw.name,
        classes=raw.classes,
        skipped=raw.skipped,
        persons=raw.persons,
    )


def _existing(source: str, folder: Path | str | None, *, create: bool) -> Path:
    if folder is None:
        raise DataError(f"data.source = {source!r} needs data.folder, the folder where its files lie")
    path = Path(folder).expanduser()
    if not path.is_dir() and not (create and not path.exists()):
        kind = "is not a folder" if path.exists() else "does not exist"
        own = source in ("idx", "images", "celeba")
        fetch = "" if own else ", or let torchvision fetch it: data.download = true"
        raise DataError(f"data.folder {path} {kind}: set it to the folder that holds {source}{fetch}")
    return path


def to_float(images: Tensor) -> Tensor:
    """Map levels 0…255 to float32 in [-1, 1], the range of the generator's tanh: `x / 127.5 - 1`.

    >>> to_float(torch.tensor([0, 255], dtype=torch.uint8)).tolist()
    [-1.0, 1.0]
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"expected uint8 images, got {images.dtype}")
    return images.float().div_(127.5).sub_(1.0)
