"""Generated images as a data set: files that torchvision, `datasets` and NumPy read, and a card beside them.

    FILE.npz      `images` uint8 (N, H, W), or (N, H, W, 3) in colour; `labels` int64 (N,) where there are any
    FILE.parquet  `image` (PNG bytes) and `label`, with the types that `datasets` reads from such a file
    FOLDER        a folder of PNGs for each class: torchvision's ImageFolder, `imagefolder` of `datasets`, and
                  `data.source = "images"` here; without classes the PNGs alone

The same model, labels and seed give the same images in each of them. The card is `README.md` in a folder, and
FILE.npz.md or FILE.parquet.md beside a file.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from prism_secure.config.public_seed import public_seed
from prism_secure.errors import MissingPackage, pip_install
from prism_secure.model.model_card import NOT_STATED, front_matter, mask_digest, plain, shown
from prism_secure.model.model_file import ModelFile
from prism_secure.storage import as_storage_error, make_folder, sync_folder, write_atomic

__all__ = ["SUFFIXES", "card_path", "data_card", "require_packages", "varied", "write_set"]

Batches = Iterator[tuple[NDArray[np.uint8], NDArray[np.int64] | None]]
"""Pixels (n, H, W) or (n, H, W, 3), and their labels (n,)."""

_LONGEST = 40
"""Characters of a class's name in a path: a file from a stranger must not decide how long that is."""


def write_set(
    model: ModelFile,
    labels: NDArray[np.int64] | None,
    out: Path,
    *,
    count: int,
    seed: int,
    vary_contrast: bool = False,
    label: Callable[[Tensor], Tensor] | None = None,
) -> Path:
    """Write `count` images of `model` and their card to `out`, in the layout of its suffix.

    Args:
        labels: int64 (count,), the classes to ask for; None for an unconditional model.
        vary_contrast: see `varied`.
        label: gives images (N, C, H, W) in [-1, 1] their labels int64 (N,), in place of those asked for; it
            sees them before their contrast is varied.

    Returns:
        The card's path.

    Raises:
        PrismError: pyarrow is not installed, and `out` is a parquet file.
        StorageError: the disk refused.
    """
    write = SUFFIXES.get(out.suffix.lower(), _write_folder)
    make_folder(out.parent)
    given: list[NDArray[np.int64]] = []

    def seen() -> Batches:
        for pixels, asked in _batches(model, labels, count, seed, vary_contrast, label):
            if asked is not None:
                given.append(asked)
            yield pixels, asked

    write(out, seen(), model, count)
    card = card_path(out)
    told = data_card(
        model,
        np.concatenate(given) if given else None,
        count=count,
        seed=seed,
        out=out,
        vary_contrast=vary_contrast,
        relabelled=label is not None,
    )
    write_atomic(card, told.encode())
    return card


def card_path(out: Path) -> Path:
    """Where the card of a data set in `out` goes."""
    return out.with_name(f"{out.name}.md") if out.suffix.lower() in SUFFIXES else out / "README.md"


def require_packages(out: Path) -> None:
    """Raises PrismError where the layout of `out` needs a package that is not installed."""
    if out.suffix.lower() == ".parquet":
        _import_pyarrow()


def varied(images: Tensor, draws: torch.Generator) -> Tensor:
    """Images (N, C, H, W) in [-1, 1], each with a contrast of its own.

    Brightness from 0 to 1 is taken to the power e^(z/2), z ~ N(0, 1), and times a gain from 0.6 to 1. Most
    classifiers that are trained on such images do better on real ones, as they cannot go by how bright a
    class happens to come out. They resemble the real ones less (`experiments/utility`).
    """
    shape = len(images), 1, 1, 1
    power = (0.5 * torch.randn(shape, generator=draws)).exp()
    gain = 0.6 + 0.4 * torch.rand(shape, generator=draws)
    found: Tensor = gain * ((images + 1) / 2).clamp(min=1e-6) ** power * 2 - 1
    return found


def _batches(
    model: ModelFile,
    labels: NDArray[np.int64] | None,
    count: int,
    seed: int,
    vary_contrast: bool,
    label: Callable[[Tensor], Tensor] | None,
) -> Batches:
    asked = None if labels is None else torch.from_numpy(labels)
    draws = torch.Generator().manual_seed(public_seed(seed, "contrast"))
    for images, given in model.generator().batches(count, labels=asked, seed=seed):
        given = given if label is None else label(images)
        images = varied(images, draws) if vary_contrast else images
        levels = images.double().add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).numpy()
        pixels = levels[..., 0] if levels.shape[-1] == 1 else levels
        yield pixels, None if given is None else given.numpy()


def _write_npz(out: Path, batches: Batches, model: ModelFile, count: int) -> None:
    pixels, labels = [], []
    for images, asked in batches:
        pixels.append(images)
        if asked is not None:
            labels.append(asked)
    arrays: dict[str, Any] = {"images": np.concatenate(pixels)}
    if labels:
        arrays["labels"] = np.concatenate(labels)
    with _whole_or_not(out) as path, path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _write_parquet(out: Path, batches: Batches, model: ModelFile, count: int) -> None:
    arrow, parquet = _import_pyarrow()
    names = _class_names(model)
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    fields = [arrow.field("image", arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())]))]
    if model.architecture.classes:
        features["label"] = {"_type": "ClassLabel", "names": names}
        fields.append(arrow.field("label", arrow.int64()))
    told = json.dumps({"info": {"features": features}})
    schema = arrow.schema(fields, metadata={"huggingface": told})
    number, digits = 0, len(str(count - 1))
    with _whole_or_not(out) as path, parquet.ParquetWriter(path, schema, compression="none") as writer:
        for images, asked in batches:
            rows = [
                {"bytes": _png(each), "path": f"{number + k:0{digits}d}.png"} for k, each in enumerate(images)
            ]
            number += len(images)
            columns = [arrow.array(rows, schema.field("image").type)]
            if asked is not None:
                columns.append(arrow.array(asked))
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema))


def _write_folder(out: Path, batches: Batches, model: ModelFile, count: int) -> None:
    make_folder(out)
    places = [out / name for name in _folder_names(model)]
    for place in places:
        make_folder(place)
    number, digits = 0, len(str(count - 1))
    for images, asked in batches:
        for position, pixels in enumerate(images):
            place = out if asked is None else places[asked[position]]
            path = place / f"{number:0{digits}d}.png"
            with as_storage_error(path):
                path.write_bytes(_png(pixels))
            number += 1


SUFFIXES: dict[str, Callable[[Path, Batches, ModelFile, int], None]] = {
    ".npz": _write_npz,
    ".parquet": _write_parquet,
}
"""Who writes a file of such a name; anything else is a folder."""


def _png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def _class_names(model: ModelFile) -> list[str]:
    """What each label is called: by the card, where it says so of all of them and no two alike."""
    classes, told = model.architecture.classes, model.card.data.classes if model.card else ()
    names = [plain(name) for name in told]
    return names if len(set(names)) == classes else [str(label) for label in range(classes)]


def _folder_names(model: ModelFile) -> list[str]:
    """A folder for each label, in the labels' order, of characters that every system takes."""
    digits = len(str(max(0, model.architecture.classes - 1)))
    found = []
    for label, name in enumerate(_class_names(model)):
        kept = "".join(each if each.isalnum() else "-" for each in name)[:_LONGEST].strip("-")
        number = f"{label:0{digits}d}"
        found.append(number if kept in ("", str(label)) else f"{number}-{kept}")
    return found


@contextlib.contextmanager
def _whole_or_not(out: Path) -> Iterator[Path]:
    """A path to write to, which becomes `out` at the end: readers never see half a file."""
    with as_storage_error(out):
        descriptor, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
        os.close(descriptor)
        try:
            yield Path(name)
            Path(name).chmod(0o644)
            Path(name).replace(out)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync_folder(out.parent)


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingPackage(f"a parquet file needs {error.name}: {pip_install('parquet')}") from None
    return pyarrow, pyarrow.parquet


def data_card(
    model: ModelFile,
    labels: NDArray[np.int64] | None,
    *,
    count: int,
    seed: int,
    out: Path,
    vary_contrast: bool = False,
    relabelled: bool = False,
) -> str:
    """What a generated data set is, what it cost whom, what not to use it for: Markdown below YAML.

    `labels` are those of the images, (count,).
    """
    card, architecture = model.card, model.architecture
    name = shown(card.data.name) if card else "unnamed images"
    conditional = labels is not None
    again = " --relabel" * relabelled + " --vary-contrast" * vary_contrast
    labelled = "each asked for as the class that its label says"
    if relabelled:
        labelled = "each with the label that Friedman's discriminant gives it, by the moments that opened"
    matter: dict[str, str | Sequence[str]] = {
        "license": card.licence if card else NOT_STATED,
        "pretty_name": f"Generated images of {plain(card.data.name) if card else 'unnamed data'}",
        "task_categories": ["image-classification" if conditional else "unconditional-image-generation"],
        "size_categories": [_size(count)],
        "tags": ["synthetic", "differential-privacy", "federated-learning"],
    }
    colours = "colour" if architecture.channels == 3 else "grey"
    side = architecture.image_size
    parts = [
        f"# {count:,} generated images of {name}",
        f"Nobody photographed these: a generator made them, {side}×{side} pixels, {colours}, "
        f"{labelled if conditional else 'without labels'}. "
        f"`prism-secure generate --seed {seed}{again}` gives the same images from the same model, the mask "
        f"of which has SHA-256 `{mask_digest(model.mask)}`."
        + (
            " Each was given a contrast of its own, at random: classifiers mostly learn more from such "
            "images, which resemble real ones less; quality below is that of images without it."
            if vary_contrast
            else ""
        )
        + (_tally(model, labels) if labels is not None else "")
        + f"\n\n- Licence of the generator: {shown(card.licence) if card else NOT_STATED}"
        + f"\n- Licence of the data that it learned from: {shown(card.data.licence) if card else NOT_STATED}",
        _reading(out, conditional),
        "## What it must not be used for\n\n"
        "- As a record of anybody or anything: no image shows a thing that was there, and an image may not "
        "show what its label says.\n"
        "- To judge a classifier, or to decide about people: test on real images of the kind that matters.\n"
        "- As images without any tie to those they come from: ε below bounds that tie, and bounds it for the "
        "unit it names only. What many of the images have in common is meant to be in here.",
        "These images follow from the model and from public random numbers"
        + (", their labels from the moments that it was trained on" if relabelled else "")
        + ": making more of them costs no more ε, and whoever has them has no more than whoever has the "
        + ("model and these moments, which ε covers." if relabelled else "model."),
    ]
    if card is None:
        parts.append(
            "## Privacy\n\n**Nothing is known of ε**: the model file has no card. `prism-secure export` "
            "writes one from the run's signed ledger."
        )
    else:
        parts += [
            "**What follows is what the model's card says; nothing in these files proves it.** The end of "
            "the section on privacy says how to check it.",
            card.privacy_section(),
            card.quality_section(),
        ]
    return front_matter(matter) + "\n" + "\n\n".join(parts) + "\n"


def _size(count: int) -> str:
    """The Hub's word for a number of rows."""
    for power, word in ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M")):
        if count < power:
            return word
    return "n>1M"


def _tally(model: ModelFile, labels: NDArray[np.int64]) -> str:
    names, counts = _class_names(model), np.bincount(labels, minlength=model.architecture.classes)
    rows = "\n".join(f"| {k} | {shown(names[k])} | {counts[k]:,} |" for k in range(len(names)) if counts[k])
    return f"\n\n| label | class | images |\n|---|---|---|\n{rows}"


def _reading(out: Path, conditional: bool) -> str:
    label = ', found["labels"]' if conditional else ""
    lines = {
        ".npz": f'found = numpy.load("{out.name}")\nimages{", labels" if conditional else ""} = '
        f'found["images"]{label}',
        ".parquet": f'datasets.load_dataset("parquet", data_files="{out.name}")',
    }.get(
        out.suffix.lower(),
        f'datasets.load_dataset("imagefolder", data_dir="{out.name}")'
        + (f'\ntorchvision.datasets.ImageFolder("{out.name}")' if conditional else ""),
    )
    block = "\n".join(f"    {plain(line)}" for line in lines.split("\n"))
    return f"## Reading it\n\n{block}"
