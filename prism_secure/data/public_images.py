"""Images that belong to nobody: drawn from a seed, with the statistics of pictures.

Where a scale or a centre has to come from images, it comes from these: what is fitted on clients' images
would have to be accounted for.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["dead_leaves"]


def dead_leaves(count: int, *, side: int = 32, channels: int = 1, seed: int = 0, leaves: int = 24) -> Tensor:
    """Images (count, channels, side, side), float32 in [-1, 1], of shapes that fall on each other.

    The dead-leaves model (Lee, Mumford, Huang, "Occlusion models for natural images", 2001), whose pictures
    can even train feature extractors (Baradad et al., "Learning to see by looking at noise", 2021). Half of
    the images have a black ground, the others one grey or colour; on it lie 1 to `leaves` ellipses and
    rectangles of any place, angle, shade and stripes, with log-uniform sizes.

    >>> images = dead_leaves(4, side=16, seed=1)
    >>> images.shape, bool((images.abs() <= 1).all()), bool((images == dead_leaves(4, side=16, seed=1)).all())
    (torch.Size([4, 1, 16, 16]), True, True)
    """
    draw = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *(shape or (1, 1)), generator=draw)

    place = (torch.arange(side) + 0.5) / side * 2 - 1
    y, x = place[:, None], place[None, :]
    black, shade = uniform(0, 1, 1, 1, 1) < 0.5, uniform(-1, 1, channels, 1, 1)
    images = torch.where(black, -1.0, shade).expand(-1, -1, side, side)
    number = uniform(1, leaves + 1)
    for leaf in range(leaves):
        dx, dy = x - uniform(-1, 1), y - uniform(-1, 1)
        angle = uniform(0, math.pi)
        length = 0.08 * (1 / 0.08) ** uniform(0, 1)
        width = length * 4 ** uniform(-1, 0)
        along = (angle.cos() * dx + angle.sin() * dy) / length
        across = (angle.cos() * dy - angle.sin() * dx) / width
        rectangle = torch.maximum(along.abs(), across.abs()) < 1
        ellipse = along**2 + across**2 < 1
        inside = torch.where(uniform(0, 1) < 0.5, rectangle, ellipse) & (leaf < number.floor())
        stripes = uniform(0, 0.6) * torch.cos(uniform(0, 20) * along)
        paint = (uniform(-1, 1, channels, 1, 1) + stripes[:, None]).clamp(-1, 1)
        images = torch.where(inside[:, None], paint, images)
    return images.contiguous()
