"""What every source hands over, and the check that all of them pass."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from prism_secure.errors import DataError

__all__ = ["Raw", "as_images", "as_labels", "numbered", "person_name", "refuse_persons_in_both"]


@dataclass(frozen=True, eq=False)
class Raw:
    """Images as they are stored, uint8 `(N, C, H, W)`, and their labels, int64 `(N,)`.

    `persons`, int64 `(N,)`, says whose each training image is, where the source tells. `skipped` names the
    files that could not be read and were left out.

    Raises:
        DataError: a split is empty, images, labels and persons differ in number, a shape or a label makes no
            sense.
    """

    name: str
    classes: tuple[str, ...]
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    skipped: tuple[str, ...] = ()
    persons: Tensor | None = None

    def __post_init__(self) -> None:
        for split, images, labels in (
            ("training", self.train_images, self.train_labels),
            ("test", self.test_images, self.test_labels),
        ):
            where = f"{self.name}, {split} split"
            if len(images) == 0:
                raise DataError(f"{where}: no images")
            if images.ndim != 4 or images.shape[1] not in (1, 3) or min(images.shape[2:]) == 0:
                raise DataError(
                    f"{where}: expected images as (N, 1 or 3, height, width), got {_shape(images)}"
                )
            if labels.shape != (len(images),):
                raise DataError(f"{where}: {len(images)} images but labels of shape {_shape(labels)}")
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= len(self.classes):
                raise DataError(
                    f"{where}: labels must be 0 to {len(self.classes) - 1}, found {low} to {high}"
                )
        if self.persons is not None and self.persons.shape != self.train_labels.shape:
            raise DataError(
                f"{self.name}, training split: {len(self.train_labels)} images but persons of shape "
                f"{_shape(self.persons)}"
            )
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise DataError(
                f"{self.name}: training images are {_shape(self.train_images[0])}, "
                f"test images {_shape(self.test_images[0])}"
            )


def as_images(values: ArrayLike, where: str) -> Tensor:
    """uint8 `(N, C, H, W)` from grey `(N, H, W)` or colour, channels last, `(N, H, W, 3)`."""
    array = np.asarray(values)
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        raise DataError(
            f"{where}: expected images as uint8 (N, height, width), got {array.dtype} {array.shape}"
        )
    array = array[:, None] if array.ndim == 3 else array.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.array(array, order="C"))


def as_labels(values: ArrayLike, where: str) -> Tensor:
    """int64 `(N,)` from any vector of integers."""
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise DataError(f"{where}: expected labels as integers (N,), got {array.dtype} {array.shape}")
    return torch.from_numpy(array.astype(np.int64))


def person_name(text: str, where: str) -> str:
    """A person's name as names are compared: spelt differently in Unicode (NFKC) it is the same name.

    Raises:
        DataError: it has a character that does not show, so that two who look alike would be two persons.

    >>> person_name(" Jose\u0301  Luis", "persons.csv") == person_name("José Luis", "persons.csv")
    True
    """
    name = " ".join(unicodedata.normalize("NFKC", text).split())
    if hidden := [character for character in name if not (character.isprintable() or character == " ")]:
        raise DataError(
            f"{where}: the name {name!r} has a character that does not show, U+{ord(hidden[0]):04X}: two "
            "persons who look alike must be one"
        )
    return name


def numbered(names: Sequence[str]) -> Tensor:
    """int64 `(N,)`: equal names have equal numbers, 0, 1, 2 and so on in the order of names.

    >>> numbered(["eve", "adam", "eve"]).tolist()
    [1, 0, 1]
    """
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    return torch.tensor([numbers[name] for name in names], dtype=torch.int64)


def refuse_persons_in_both(where: Path, training: Set[str], held_out: Set[str]) -> None:
    """Refuse persons who are trained with and held out: metrics would say of them what no epsilon covers.

    Raises:
        DataError: there are such persons; the first ones are named, on the console alone.
    """
    if both := sorted(training & held_out):
        more = f" and {len(both) - 3} more" if len(both) > 3 else ""
        raise DataError(
            f"{where}: persons must be trained with or held out, not both, and the same name is the same "
            f"person: {', '.join(both[:3])}{more} are in both; move all pictures of each to one side, or "
            "rename those who are somebody else"
        )


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
