"""A folder of image files: a subfolder a class, or flat for a single class."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from prism_secure.data.deep import is_deep, read_deep
from prism_secure.data.fit import fit, with_channels
from prism_secure.data.person_table import read_persons
from prism_secure.data.raw import Raw, as_images, numbered, person_name, refuse_persons_in_both
from prism_secure.errors import DataError

__all__ = ["Reader", "load_image_folder", "read_image"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"})
HELD_OUT = 6
"""Without a `test` folder, every sixth image of a class, by name, is held out for the metrics."""

# Pillow's decoders raise SyntaxError for some damaged files.
_DAMAGED = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning)
_GREY = frozenset({"1", "L"})
_COLOUR = frozenset({"RGB", "RGBA", "RGBX", "P", "PA", "LA", "La", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"})
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""What files of these suffixes hold. Others, whatever their name, may have bits that Pillow drops."""
MOST_NAMED = 1000
"""How many bad files one message names."""


class Reader:
    """Reads pictures one after the other, and remembers the bad ones, so that all can be told at once.

    Attributes:
        bad: the files that could not be read, and why.
        good: how many could.
    """

    def __init__(self) -> None:
        self.bad: dict[Path, str] = {}
        self.good = 0

    def read(self, path: Path) -> Tensor | None:
        """As `read_image`; None where it cannot be read."""
        try:
            image = read_image(path)
        except DataError as error:
            self.bad[path] = str(error)
            return None
        self.good += 1
        return image

    def finish(self, where: Path, *, skip_bad: bool) -> tuple[str, ...]:
        """The bad files' names.

        Raises:
            DataError: there are some, and `skip_bad` does not leave them out.
        """
        if self.bad and not skip_bad:
            lines = list(self.bad.values())
            kinds = Counter(p.suffix.lower() if _has_suffix(p) else "others" for p in self.bad)
            kept = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
            counts = f"{len(lines)} of {len(lines) + self.good} pictures cannot be read"
            more = [f"and {len(lines) - MOST_NAMED} more"] if len(lines) > MOST_NAMED else []
            raise DataError(
                f"{where}: {counts}; repair or delete them, or leave them out: "
                "--set data.skip_bad=true\n  " + "\n  ".join(lines[:MOST_NAMED] + more),
                public=f"{counts} ({kept}); only the console says their names",
            )
        return tuple(map(str, self.bad))


def load_image_folder(
    folder: Path,
    *,
    image_size: int,
    channels: int | None,
    skip_bad: bool = False,
    persons: bool = False,
    table: str | None = None,
) -> Raw:
    """Read the images under `folder`, made square and resized at once (see `prism_secure.data.fit`).

    Layouts: `folder/CLASS/*.png`, or `folder/*.png` for one class; either may lie in `folder/train` and
    `folder/test`. Without these two, every sixth image of each class, in the order of names, is held out.
    With `channels` None the images become colour if a single one is. Transparency is laid on white. What has
    16 bits a channel is scaled to 8. `skip_bad` leaves out what cannot be read; what is held out is decided
    before.

    With `persons` the layout is `folder/CLASS/PERSON/*.png`, or, with a `table`, the usual one, and the table
    of that name in `folder` says whose each picture is. The same name is the same person in every class.
    Instead of every sixth image all images of every sixth person are held out, of those that a class is the
    first to have.

    Raises:
        DataError: no images, unreadable ones, all of which are named, another layout, a class without
            training images, or an image without a person.
    """
    given = (folder / "train").is_dir() and (folder / "test").is_dir()
    parts = [folder / "train", folder / "test"] if given else [folder]
    found = [_by_class(part, persons and table is None) for part in parts]
    whose = _person if table is None else _by_table(folder / table, found)
    if given:
        train, test = found
        if set(test) - set(train) and not (len(train) == len(test) == 1):
            unknown = sorted(set(test) - set(train))
            raise DataError(f"{folder / 'test'} has classes that {folder / 'train'} lacks: {unknown}")
        if len(train) == len(test) == 1:
            test = dict(zip(train, test.values(), strict=True))
        if persons:
            training, held_out = (
                {whose(p) for paths in part.values() for p in paths} for part in (train, test)
            )
            refuse_persons_in_both(folder, training, held_out)
    else:
        if table is not None:  # one person's after another's, as folders have them
            found = [{name: sorted(paths, key=whose) for name, paths in found[0].items()}]
        train, test = _held_out(folder, found[0], whose if persons else None)
    classes = tuple(train)
    reader = Reader()
    train_images, train_labels, read = _read_split(classes, train, image_size, channels, reader)
    test_images, test_labels, _ = _read_split(classes, test, image_size, channels, reader)
    skipped = reader.finish(folder, skip_bad=skip_bad)
    if lost := sorted(set(classes) - {classes[label] for label in train_labels.tolist()}):
        raise DataError(f"{folder}: no training picture can be read of the classes {', '.join(lost)}")
    if channels is None and train_images.shape[1] != test_images.shape[1]:
        train_images, test_images = with_channels(train_images, 3), with_channels(test_images, 3)
    numbers = numbered([whose(path) for path in read]) if persons else None
    return Raw(folder.name, classes, train_images, train_labels, test_images, test_labels, skipped, numbers)


Files = dict[str, list[Path]]
"""Class name → its image files."""


def _held_out(folder: Path, found: Files, person: Callable[[Path], str] | None) -> tuple[Files, Files]:
    """Every sixth image of a class, or all images of every sixth of its persons, go to the metrics."""
    whose = person or str
    held, seen, most = set[str](), set[str](), 0
    for paths in found.values():
        new = [one for one in dict.fromkeys(map(whose, paths)) if one not in seen]
        held.update(new[HELD_OUT - 1 :: HELD_OUT])
        seen.update(new)
        most = max(most, len(new))
    if not held:
        what = "persons that no class before it has" if person else "images"
        raise DataError(
            f"{folder}: no class has {HELD_OUT} {what} (at most {most}), so none can be held out; "
            f"add {'persons' if person else 'images'}, or make the folders train and test"
        )

    def part(held_out: bool) -> Files:
        return {name: [p for p in paths if (whose(p) in held) is held_out] for name, paths in found.items()}

    train, test = part(False), part(True)
    if lost := [name for name, paths in train.items() if not paths]:
        raise DataError(
            f"{folder}: all pictures of the classes {', '.join(lost)} are of persons who are held out; add "
            "persons, or make the folders train and test"
        )
    return train, test


def _person(path: Path) -> str:
    return person_name(path.parent.name, str(path.parent))


def _by_table(path: Path, parts: Sequence[Files]) -> Callable[[Path], str]:
    """Whose each of the pictures is, by the table at `path`."""
    named = read_persons(path)
    pictures = [picture for part in parts for paths in part.values() for picture in paths]
    if lacking := [picture for picture in pictures if picture not in named]:
        raise DataError(
            f"{path} names no person for {len(lacking)} of {len(pictures)} pictures, the first is "
            f"{lacking[0]}"
        )
    return named.__getitem__


def _by_class(folder: Path, persons: bool) -> Files:
    """Class name → its image files, both in the order of names; of persons, one person's after another's."""
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    flat = [path for path in entries if _is_image(path)]
    subfolders = [path for path in entries if path.is_dir()]
    if flat and subfolders:
        raise DataError(
            f"{folder} holds both images ({flat[0].name}) and folders ({subfolders[0].name}): "
            "expected a folder for each class, or images alone"
        )
    if flat:
        if persons:
            raise _no_persons(flat[0])
        return {folder.name: flat}
    classes = {sub.name: (_of_persons if persons else _images_in)(sub) for sub in subfolders}
    empty = [name for name, paths in classes.items() if not paths]
    if empty or not classes:
        where = folder / empty[0] if empty else folder
        raise DataError(
            f"{where} holds no images; expected a folder for each class, or images alone, of the kinds "
            f"{', '.join(sorted(SUFFIXES))}"
        )
    return classes


def _images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_image(path))


def _of_persons(folder: Path) -> list[Path]:
    """All images of a class, in whose folder each person has one."""
    if flat := _images_in(folder):
        raise _no_persons(flat[0])
    people = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = {person: _images_in(person) for person in people}
    if empty := [person for person, paths in found.items() if not paths]:
        raise DataError(
            f"{empty[0]} holds no images; data.person = 'folder' expects class/person/picture.png"
        )
    return [path for paths in found.values() for path in paths]


def _no_persons(picture: Path) -> DataError:
    return DataError(
        f"{picture} lies in no person's folder: data.person = 'folder' expects class/person/picture.png, a "
        "folder for each person in that of the class"
    )


def _is_image(path: Path) -> bool:
    return _has_suffix(path) and path.is_file() and not path.name.startswith(".")


def _has_suffix(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _read_split(
    classes: Sequence[str],
    files: dict[str, list[Path]],
    image_size: int,
    channels: int | None,
    reader: Reader,
) -> tuple[Tensor, Tensor, list[Path]]:
    images, labels, read = [], [], []
    for label, name in enumerate(classes):
        for path in files.get(name, []):
            if (image := reader.read(path)) is not None:
                images.append(with_channels(fit(image, image_size), channels))
                labels.append(label)
                read.append(path)
    if any(image.shape[1] == 3 for image in images):
        images = [with_channels(image, 3) for image in images]
    stacked = torch.cat(images) if images else torch.empty(0, 1, image_size, image_size, dtype=torch.uint8)
    return stacked, torch.tensor(labels, dtype=torch.int64), read


def read_image(path: Path) -> Tensor:
    """One picture, uint8 (1, 1 or 3, height, width), upright, transparency laid on white.

    Raises:
        DataError: unreadable, or more bits a channel than 8 in a form that is not read exactly.
    """
    try:
        with warnings.catch_warnings():
            # Pillow only warns of a picture so large that it may be an attack; no training image is.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as opened:
                mode = opened.mode
                if is_deep(opened):
                    return as_images(read_deep(opened, path)[None], str(path))
                if mode in _GREY | _COLOUR:
                    image = _to_grey_or_rgb(ImageOps.exif_transpose(opened))
                    return as_images(np.asarray(image)[None], str(path))
    except _DAMAGED as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from None
    raise DataError(f"{path} is of mode {mode}; expected grey or colours: convert it first")


def _to_grey_or_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _GREY:
        return image.convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
