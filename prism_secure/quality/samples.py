"""Grids of generated images: one row a class, its name in front, kept as PNG and read back exactly.

A grid carries its own layout in the PNG's text, so that the report can take it apart again: names become
text that a screen reader finds, and the same latents can be shown round after round.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from prism_secure.errors import RunFolderError

__all__ = ["Grid", "encode_png", "read_grid", "sample_grid"]

_KEY = "prism-secure-grid"
_GAP = 4
_PAPER, _INK = 255, 32


class _Layout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the tiles lie: row r, column c starts at (left + c * (width*scale + gap), gap + r * ...)."""

    height: int
    width: int
    scale: int
    left: int
    gap: int
    columns: int
    names: tuple[str, ...]
    counts: tuple[int, ...]


_LAYOUTS = msgspec.json.Decoder(_Layout)


class Grid(msgspec.Struct, frozen=True):
    """The images of a grid, row by row."""

    names: tuple[str, ...]
    """The class of each row; "" where the images have none."""
    rows: tuple[NDArray[np.uint8], ...]
    """Each `(N, H, W)` (grey) or `(N, H, W, 3)`."""


def sample_grid(
    images: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    names: Sequence[str] = (),
    columns: int = 10,
    scale: int = 2,
) -> Image.Image:
    """Draw images on white, one row a class in label order, `columns` of each at most.

    Write it with `encode_png`, which keeps the layout.

    Args:
        images: `(N, C, H, W)` with C = 1 or 3; uint8, or floats in [-1, 1] (values beyond are clipped).
        labels: `(N,)` integers, or None: the images then fill rows in the order given, without names.
        names: what each label is called; a label beyond the list is written as its number.
        scale: how many pixels of the grid show one pixel of an image.

    Raises:
        ValueError: a shape or type is not as above, or an image holds NaN.

    >>> grid = sample_grid(np.zeros((4, 1, 8, 8), np.uint8), [1, 0, 1, 0], names=["cat", "dog"])
    >>> kept = read_grid(encode_png(grid))
    >>> kept.names, [len(row) for row in kept.rows]
    (('cat', 'dog'), [2, 2])
    """
    if columns < 1 or scale < 1:
        raise ValueError(f"columns and scale must be at least 1, got {columns} and {scale}")
    tiles = _to_uint8(np.asarray(images))
    rows, row_names = _rows(tiles, labels, names, columns)
    height, width = tiles.shape[1:3]

    font = ImageFont.load_default(size=max(10, min(32, height * scale // 4)))
    text_width = max((font.getbbox(name)[2] for name in row_names), default=0)
    layout = _Layout(
        height=height,
        width=width,
        scale=scale,
        left=round(text_width) + 3 * _GAP if text_width else _GAP,
        gap=_GAP,
        columns=max(map(len, rows)),
        names=tuple(row_names),
        counts=tuple(map(len, rows)),
    )
    step_x, step_y = width * scale + _GAP, height * scale + _GAP
    colours = tiles.shape[3:]
    canvas = np.full(
        (_GAP + step_y * len(rows), layout.left + step_x * layout.columns, *colours), _PAPER, np.uint8
    )
    for r, row in enumerate(rows):
        for c, tile in enumerate(row):
            top, left = _GAP + r * step_y, layout.left + c * step_x
            large = tile.repeat(scale, axis=0).repeat(scale, axis=1)
            canvas[top : top + height * scale, left : left + width * scale] = large
    grid = Image.fromarray(canvas)
    pen = ImageDraw.Draw(grid)
    for r, name in enumerate(row_names):
        middle = _GAP + r * step_y + height * scale // 2
        pen.text((_GAP, middle), name, fill=(_INK,) * 3 if colours else _INK, font=font, anchor="lm")
    grid.info[_KEY] = msgspec.json.encode(layout).decode()
    return grid


def encode_png(image: Image.Image) -> bytes:
    """The PNG file of an image, with the layout that `sample_grid` gave it (Pillow's `save` drops that)."""
    text = PngInfo()
    if _KEY in image.info:
        text.add_text(_KEY, image.info[_KEY])
    file = io.BytesIO()
    image.save(file, "png", pnginfo=text)
    return file.getvalue()


def read_grid(png: Path | bytes) -> Grid:
    """Take a grid's PNG apart; the pixels are those that were given to `sample_grid`.

    Raises:
        RunFolderError: the file is not a PNG, is cut short, or was not made by these functions.
    """
    where = png if isinstance(png, Path) else "the image"
    try:
        with Image.open(png if isinstance(png, Path) else io.BytesIO(png), formats=["png"]) as image:
            image.load()
            layout = _LAYOUTS.decode(image.info.get(_KEY, "no layout"))
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, msgspec.MsgspecError) as error:
        raise RunFolderError(f"{where} is damaged or not a grid of samples: {error}") from None
    step_x = layout.width * layout.scale + layout.gap
    step_y = layout.height * layout.scale + layout.gap
    expected = (layout.gap + step_y * len(layout.counts), layout.left + step_x * layout.columns)
    if pixels.shape[:2] != expected or min(layout.scale, layout.columns) < 1:
        raise RunFolderError(
            f"{where} is damaged: its layout asks for {expected[1]}×{expected[0]} pixels, "
            f"it has {pixels.shape[1]}×{pixels.shape[0]}"
        )

    def tile(row: int, column: int) -> NDArray[np.uint8]:
        top, left = layout.gap + row * step_y, layout.left + column * step_x
        large = pixels[top : top + step_y - layout.gap, left : left + step_x - layout.gap]
        return large[:: layout.scale, :: layout.scale]

    rows = tuple(
        np.stack([tile(row, column) for column in range(count)])
        for row, count in enumerate(layout.counts)
        if count
    )
    return Grid(names=tuple(n for n, c in zip(layout.names, layout.counts, strict=True) if c), rows=rows)


def _to_uint8(images: NDArray[np.generic]) -> NDArray[np.uint8]:
    """(N, H, W) for grey, (N, H, W, 3) for colour."""
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise ValueError(f"images must be (N, C, H, W) with C = 1 or 3, got {images.shape}")
    if images.dtype != np.uint8:
        if not np.issubdtype(images.dtype, np.floating):
            raise ValueError(f"images must be uint8 or floating, got {images.dtype}")
        if np.isnan(images).any():
            raise ValueError("images hold NaN")
        images = np.rint((np.clip(images, -1, 1).astype(np.float64) + 1) * 127.5)
    channels_last = np.moveaxis(images.astype(np.uint8), 1, 3)
    return channels_last[..., 0] if channels_last.shape[3] == 1 else channels_last


def _rows(
    tiles: NDArray[np.uint8], labels: ArrayLike | None, names: Sequence[str], columns: int
) -> tuple[list[NDArray[np.uint8]], list[str]]:
    if labels is None:
        starts = range(0, len(tiles), columns)
        return [tiles[start : start + columns] for start in starts], ["" for _ in starts]
    marks = np.asarray(labels)
    if marks.shape != (len(tiles),) or not np.issubdtype(marks.dtype, np.integer):
        raise ValueError(f"labels must be {len(tiles)} integers, got {marks.dtype} {marks.shape}")
    kinds = [int(kind) for kind in np.unique(marks)]
    rows = [tiles[marks == kind][:columns] for kind in kinds]
    return rows, [names[kind] if 0 <= kind < len(names) else str(kind) for kind in kinds]
