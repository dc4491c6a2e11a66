"""Bring images to one size and one number of channels, in whole grey levels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["fit", "with_channels"]

_CHUNK = 4096  # images resized at once, so that floats of a whole data set never exist
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, what Pillow's convert("L") uses


def fit(images: Tensor, image_size: int) -> Tensor:
    """Cut the largest centred square out of each image and resize it.

    Bilinear with antialiasing, half-pixel centres, rounded to whole levels. `images` is uint8 `(N, C, H, W)`;
    the result is uint8 `(N, C, image_size, image_size)`.

    >>> fit(torch.zeros(2, 1, 28, 20, dtype=torch.uint8), 32).shape
    torch.Size([2, 1, 32, 32])
    """
    height, width = images.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = images[..., top : top + side, left : left + side]
    if side == image_size:
        return square.contiguous()
    return torch.cat([_resize(chunk, image_size) for chunk in torch.split(square, _CHUNK)])


def _resize(images: Tensor, image_size: int) -> Tensor:
    size = (image_size, image_size)
    resized = functional.interpolate(
        images.float(), size, mode="bilinear", align_corners=False, antialias=True
    )
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def with_channels(images: Tensor, channels: int | None) -> Tensor:
    """Make uint8 `(N, 1 or 3, H, W)` grey (1) by luma or colour (3) by repetition; None keeps them.

    >>> with_channels(torch.full((1, 3, 1, 1), 7, dtype=torch.uint8), 1).tolist()
    [[[[7]]]]
    """
    present = images.shape[1]
    if channels in (None, present):
        return images
    if channels == 3:
        return images.repeat(1, 3, 1, 1)
    weights = torch.tensor(_LUMA).view(1, 3, 1, 1)
    grey = [
        (chunk.float() * weights).sum(1, keepdim=True).round_().clamp_(0, 255).to(torch.uint8)
        for chunk in torch.split(images, _CHUNK)
    ]
    return torch.cat(grey)
