"""Pictures of 16 bits a channel, scaled to the 8 bits that training uses.

Pillow keeps 16 bits of grey, but of colour only the upper byte. Its decoders can also be asked for the lower
one, so a file is decoded twice and the levels put together. Nothing is rounded before the end.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from prism_secure.errors import DataError

__all__ = ["is_deep", "read_deep"]

_OTHER_BYTE = {
    "16B": "16L",
    "16L": "16B",
    "16N": "16B" if sys.byteorder == "little" else "16L",
}
"""How Pillow calls the order of a sample's bytes, and the order that makes the lower byte the upper one."""
_PHOTOMETRIC, _BLACK_IS_ZERO = 262, 1


def is_deep(image: Image.Image) -> bool:
    """Whether the opened file has more than 8 bits a channel, although its `mode` may say 8."""
    raw = _raw_mode(image)
    return image.mode == "F" or image.mode.startswith("I") or ";16" in raw or ";12" in raw


def read_deep(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    """Levels of the opened file, (H, W) grey or (H, W, 3): round(v / 257), transparency laid on white.

    Raises:
        DataError: not 16 bits grey or RGB, with or without alpha, or not in a way that Pillow reads exactly.
    """
    values = _grey(image) if image.mode.startswith("I") else _colour(image, path)
    if values is None or "transparency" in image.info:
        raise DataError(
            f"{path} has more than 8 bits a channel in a form that is not read exactly ({image.format}, "
            f"{image.mode}, {_raw_mode(image)}); convert it to grey or RGB of 8 or 16 bits"
        )
    white = 65535
    if values.ndim == 3 and values.shape[-1] in (2, 4):
        opacity = values[..., -1:]
        values = values[..., :-1] * opacity + 65535 * (65535 - opacity)
        white *= 65535
    if values.shape[-1] == 1 and values.ndim == 3:
        values = values[..., 0]
    return ((2 * 255 * values + white) // (2 * white)).astype(np.uint8)


def _grey(image: Image.Image) -> NDArray[np.int64] | None:
    """Values (H, W), 0 to 65535."""
    signed_or_longer = image.mode == "I" and image.format not in ("PNG", "PPM")
    inverted = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC, _BLACK_IS_ZERO) != _BLACK_IS_ZERO
    if signed_or_longer or inverted or ";12" in _raw_mode(image):
        return None
    return np.asarray(ImageOps.exif_transpose(image)).astype(np.int64)


def _colour(image: Image.Image, path: Path) -> NDArray[np.int64] | None:
    """Values (H, W, 2, 3 or 4), 0 to 65535; the last of an even number is opacity."""
    raw = _raw_mode(image)
    if raw == "LA;16B":  # its four bytes a pixel are what four channels of 8 bits look like
        upper, lower = (np.asarray(_decoded(path, "RGBA")).astype(np.int64)[..., at::2] for at in (0, 1))
        return upper << 8 | lower
    channels, _, order = raw.partition(";")
    if channels not in ("RGB", "RGBA") or channels != image.mode or order not in _OTHER_BYTE:
        return None
    upper = np.asarray(ImageOps.exif_transpose(image)).astype(np.int64)
    return upper << 8 | np.asarray(_decoded(path, f"{channels};{_OTHER_BYTE[order]}")).astype(np.int64)


def _decoded(path: Path, raw_mode: str) -> Image.Image:
    """The file, its bytes taken for `raw_mode`, upright."""
    with Image.open(path) as opened:
        opened.tile = [
            # A plain tuple, as Pillow takes it; its stubs ask for a named one that is not public.
            (codec, where, offset, (raw_mode, *layout[1:]) if isinstance(layout, tuple) else raw_mode)  # type: ignore[misc]
            for codec, where, offset, layout in opened.tile
        ]
        return ImageOps.exif_transpose(opened)


def _raw_mode(image: Image.Image) -> str:
    """How the file's bytes are laid out, in Pillow's words: "RGB;16B" for instance."""
    layout = image.tile[0][3] if isinstance(image, ImageFile.ImageFile) and image.tile else ""
    return layout if isinstance(layout, str) else str(layout[0]) if isinstance(layout, tuple) else ""
