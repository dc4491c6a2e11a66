"""What epsilon costs, seen: generated images along a front, from the smallest epsilon to the largest."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prism_secure.quality.samples import read_grid
from prism_secure.reporting import pages
from prism_secure.sweep.results import SweepPoint

__all__ = ["Strip", "real_strip", "strips", "strips_plot"]

_ROWS = 7
_TILES = 10
_GAP = 2
"""Pixels between images."""
_LETTER, _SCALE, _EDGE, _TOP = 7, 1.6, 8, 34
"""Of the drawn figure: how wide a letter is, and a pixel; the space around, and that of the title."""


@dataclass(frozen=True)
class Strip:
    """Images of one point's run with the middle FID, after its last round: one of each class.

    Attributes:
        png: the images beside each other, as base64.
        width, height: of all of them, in pixels.
    """

    point: SweepPoint
    png: str
    width: int
    height: int


def strips(points: Sequence[SweepPoint]) -> list[Strip]:
    """Of the points that kept samples; of very many points, some from end to end."""
    found = [point for point in points if any(_last_grid(run.folder) for run in point.finished)]
    return [_strip(point) for point in pages.thin(found, _ROWS)]


def real_strip(points: Sequence[SweepPoint]) -> Strip | None:
    """Clients' images that are nearest to generated ones of the best of these points; None where no run kept
    them: only where the clients' images are declared public does a run do so."""
    for point in sorted(points, key=lambda point: point.mean("fid")):
        for run in point.finished:
            path = max((run.folder / "samples").glob("neighbours-*.png"), default=None)
            if path is not None and run.config.public_images:
                _, real = read_grid(path).rows
                return _beside(point, list(real)[:_TILES])
    return None


def strips_plot(rows: Sequence[Strip], words: Sequence[tuple[str, str]], title: str) -> str:
    """The strips below each other as an SVG file, on white.

    Args:
        words: two lines beside each strip.
        title: above them.
    """
    high = round(max(row.height for row in rows) * _SCALE) + 8
    longest = max(len(line) for lines in words for line in lines)
    left = _EDGE + _LETTER * longest + _EDGE
    width = left + round(max(row.width for row in rows) * _SCALE) + _EDGE
    height = _TOP + len(rows) * high
    parts = [f'<text x="{_EDGE}" y="20" font-size="14">{html.escape(title)}</text>']
    for index, (row, lines) in enumerate(zip(rows, words, strict=True)):
        top = _TOP + index * high
        for number, line in enumerate(lines):
            at = top + high / 2 - 6 + 17 * number
            parts.append(f'<text x="{_EDGE}" y="{at:g}" font-size="12">{html.escape(line)}</text>')
        parts.append(
            f'<image x="{left}" y="{top}" width="{row.width * _SCALE:g}" height="{row.height * _SCALE:g}" '
            f'style="image-rendering: pixelated" href="data:image/png;base64,{row.png}"/>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" style="background: #ffffff" '
        f'font-family="DejaVu Sans, sans-serif" fill="#1d2329">{"".join(parts)}</svg>'
    )


def _strip(point: SweepPoint) -> Strip:
    runs = sorted(
        (run for run in point.finished if _last_grid(run.folder)), key=lambda run: run.objective("fid")
    )
    path = _last_grid(runs[(len(runs) - 1) // 2].folder)
    assert path is not None
    grid = read_grid(path)
    return _beside(
        point, ([row[0] for row in grid.rows] if len(grid.rows) > 1 else list(grid.rows[0]))[:_TILES]
    )


def _beside(point: SweepPoint, tiles: Sequence[NDArray[np.uint8]]) -> Strip:
    height, width = tiles[0].shape[:2]
    picture = Image.new("RGBA" if tiles[0].ndim == 3 else "LA", (len(tiles) * (width + _GAP) - _GAP, height))
    for column, tile in enumerate(tiles):
        picture.paste(Image.fromarray(tile).convert(picture.mode), (column * (width + _GAP), 0))
    file = io.BytesIO()
    picture.save(file, "png")
    return Strip(point, base64.b64encode(file.getvalue()).decode(), picture.width, height)


def _last_grid(folder: Path) -> Path | None:
    return max((folder / "samples").glob("round-*.png"), default=None)
