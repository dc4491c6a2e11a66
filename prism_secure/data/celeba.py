"""CelebA, from files in the layout of torchvision, with one of its 40 attributes as label.

    celeba/list_attr_celeba.txt       how many, the attributes' names, then a line a picture: 1 or -1 for each
    celeba/list_eval_partition.txt    a line a picture: 0 training, 1 validation, 2 test
    celeba/img_align_celeba/*.jpg     178 x 218 pixels
    celeba/identity_CelebA.txt        a line a picture: whose it is; needed for persons alone

Pictures are resized one by one as they are read, so that memory holds the small ones only. Their use is
limited to research (Liu et al., "Deep Learning Face Attributes in the Wild", 2015); nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from prism_secure.data.fit import fit, with_channels
from prism_secure.data.image_folder import Reader
from prism_secure.data.raw import Raw, numbered, refuse_persons_in_both
from prism_secure.errors import ConfigError, DataError, did_you_mean

__all__ = ["load_celeba"]

FACE = 160
"""Side of the centred square that is cut out, in pixels of the original: the face, hardly any background."""
_TRAINING, _TEST = 0, 2


def load_celeba(
    folder: Path,
    *,
    attribute: str,
    image_size: int,
    channels: int | None = None,
    skip_bad: bool = False,
    persons: bool = False,
) -> Raw:
    """The training and test pictures of CelebA in `folder/celeba`, or `folder` itself, without validation.

    Label 1 are the pictures that have `attribute`, label 0 those without. `skip_bad` leaves out pictures that
    cannot be read. `persons` reads whose each training picture is, too.

    Raises:
        ConfigError: there is no such attribute.
        DataError: a file is missing, or is not as above; all such pictures are named.
    """
    root = folder / "celeba" if (folder / "celeba").is_dir() else folder
    labels = _labels(root / "list_attr_celeba.txt", attribute)
    parts = _partition(root / "list_eval_partition.txt")
    whose = _identities(root / "identity_CelebA.txt") if persons else {}
    pictures = root / "img_align_celeba"
    if not pictures.is_dir():
        raise DataError(f"{pictures} does not exist: it holds the pictures of CelebA")
    if persons:
        training, held_out = (
            {whose[name] for name, into in parts.items() if into == part and name in whose}
            for part in (_TRAINING, _TEST)
        )
        refuse_persons_in_both(root, training, held_out)
    reader, found, identities = Reader(), {}, list[str]()
    for part in (_TRAINING, _TEST):
        names = [name for name, into in parts.items() if into == part]
        needed = {"attributes": set(labels)} | ({"identity": set(whose)} if persons else {})
        for lacking, known in needed.items():
            if unknown := [name for name in names if name not in known]:
                raise DataError(
                    f"{root}: {len(unknown)} pictures have no {lacking}, the first is {unknown[0]}"
                )
        images, kept = [], []
        for name in names:
            if (picture := reader.read(pictures / name)) is not None:
                images.append(_face(with_channels(picture, channels or 3), image_size))
                kept.append(labels[name])
                if persons and part == _TRAINING:
                    identities.append(whose[name])
        whole = torch.cat(images) if images else torch.empty(0, 3, image_size, image_size, dtype=torch.uint8)
        found[part] = (whole, torch.tensor(kept, dtype=torch.int64))
    skipped = reader.finish(pictures, skip_bad=skip_bad)
    classes = (f"not {attribute}", attribute)
    return Raw(
        "celeba",
        classes,
        *found[_TRAINING],
        *found[_TEST],
        skipped,
        numbered(identities) if persons else None,
    )


def _face(picture: Tensor, image_size: int) -> Tensor:
    height, width = picture.shape[-2:]
    side = min(FACE, height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return fit(picture[..., top : top + side, left : left + side], image_size)


def _labels(path: Path, attribute: str) -> dict[str, int]:
    lines = _lines(path)
    if len(lines) < 2 or not lines[0].strip().isdecimal():
        raise DataError(f"{path} is damaged: expected a number of pictures, then the attributes' names")
    names = lines[1].split()
    if attribute not in names:
        raise ConfigError(
            f"data.attribute: unknown attribute {attribute!r}; {did_you_mean(attribute, names)}"
        )
    column = names.index(attribute) + 1
    found = {}
    for number, line in enumerate(lines[2:], start=3):
        words = line.split()
        if len(words) != len(names) + 1 or words[column] not in ("1", "-1"):
            raise DataError(
                f"{path} is damaged in line {number}: expected a name and {len(names)} times 1 or -1"
            )
        found[words[0]] = int(words[column] == "1")
    if str(len(found)) != lines[0].strip():
        raise DataError(f"{path} is damaged: it announces {lines[0].strip()} pictures and lists {len(found)}")
    return found


def _partition(path: Path) -> dict[str, int]:
    found = {}
    for number, line in enumerate(_lines(path), start=1):
        words = line.split()
        if len(words) != 2 or words[1] not in ("0", "1", "2"):
            raise DataError(f"{path} is damaged in line {number}: expected a name and 0, 1 or 2")
        found[words[0]] = int(words[1])
    return found


def _identities(path: Path) -> dict[str, str]:
    found = {}
    for number, line in enumerate(_lines(path), start=1):
        words = line.split()
        if len(words) != 2 or not words[1].isdecimal():
            raise DataError(f"{path} is damaged in line {number}: expected a name and a person's number")
        found[words[0]] = str(int(words[1]))
    return found


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}): data.folder must hold the folder celeba that "
            "torchvision makes"
        ) from None
