"""Draw a folder of colour pictures, a subfolder a class, that `data.source = "images"` reads.

    python experiments/more_data/make_shapes.py --out data/shapes-32 --size 32
    python experiments/more_data/make_shapes.py --out data/shapes-64 --size 64

Ten shapes, each in its own range of hues, of any size, place and angle, on a pale ground that shades from one
colour into another: a generated picture is right when shape and colour are. The same arguments draw the same
pictures.
"""

from __future__ import annotations

import argparse
import colorsys
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("bar", "circle", "crescent", "cross", "hexagon", "ring", "square", "star", "triangle", "wave")
FINE = 4
"""Drawn so many times larger, then averaged: edges are smooth."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--train", type=int, default=1000, help="pictures of a class")
    parser.add_argument("--test", type=int, default=200, help="pictures of a class")
    options = parser.parse_args()
    for split, count in (("train", options.train), ("test", options.test)):
        for kind, shape in enumerate(SHAPES):
            folder = options.out / split / shape
            folder.mkdir(parents=True, exist_ok=True)
            draws = np.random.default_rng([split == "test", kind])
            for number in range(count):
                picture(kind, options.size, draws).save(folder / f"{number:04d}.png")
    print(f"{options.out}: {len(SHAPES)} classes of {options.train} + {options.test} pictures")


def picture(kind: int, size: int, draws: np.random.Generator) -> Image.Image:
    """One picture of a class."""
    side = size * FINE
    hue = (kind + draws.uniform(-0.35, 0.35)) / len(SHAPES)
    ink = _rgb(hue, draws.uniform(0.65, 0.95), draws.uniform(0.55, 0.95))
    top, bottom = (np.array(_rgb(draws.uniform(), 0.18, draws.uniform(0.85, 1.0))) for _ in range(2))
    shade = np.linspace(0, 1, side)[:, None, None]
    ground = (top * (1 - shade) + bottom * shade).repeat(side, axis=1)
    mask = Image.new("L", (side, side), 0)
    radius = side * draws.uniform(0.26, 0.38)
    centre = side / 2 + side * draws.uniform(-0.1, 0.1, 2)
    _draw(SHAPES[kind], ImageDraw.Draw(mask), centre, radius, draws.uniform(-0.35, 0.35))
    drawn = Image.composite(
        Image.new("RGB", (side, side), ink), Image.fromarray(ground.astype(np.uint8)), mask
    )
    return drawn.resize((size, size), Image.Resampling.BOX)


def _draw(shape: str, pen: ImageDraw.ImageDraw, centre: np.ndarray, radius: float, turn: float) -> None:
    def ring(*radii: float, corners: int, start: float = -math.pi / 2) -> list[tuple[float, float]]:
        """Corners on circles of these radii in turn."""
        angles = start + turn + 2 * math.pi * np.arange(corners) / corners
        far = radius * np.array([radii[i % len(radii)] for i in range(corners)])
        return list(zip(centre[0] + far * np.cos(angles), centre[1] + far * np.sin(angles), strict=True))

    def disc(far: float, shift: float = 0.0) -> list[float]:
        x, y = centre + shift * radius * np.array([math.cos(turn), math.sin(turn)])
        return [x - far * radius, y - far * radius, x + far * radius, y + far * radius]

    def box(wide: float, high: float) -> list[tuple[float, float]]:
        corners = radius * np.array([(-wide, -high), (wide, -high), (wide, high), (-wide, high)])
        rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        return [tuple(point) for point in centre + corners @ rotation.T]

    if shape == "bar":
        pen.polygon(box(0.3, 1.1), fill=255)
    elif shape == "circle":
        pen.ellipse(disc(1.0), fill=255)
    elif shape == "crescent":
        pen.ellipse(disc(1.0), fill=255)
        pen.ellipse(disc(0.85, 0.55), fill=0)
    elif shape == "cross":
        pen.polygon(box(0.3, 1.0), fill=255)
        pen.polygon(box(1.0, 0.3), fill=255)
    elif shape == "hexagon":
        pen.polygon(ring(1.0, corners=6), fill=255)
    elif shape == "ring":
        pen.ellipse(disc(1.0), fill=255)
        pen.ellipse(disc(0.55), fill=0)
    elif shape == "square":
        pen.polygon(box(0.85, 0.85), fill=255)
    elif shape == "star":
        pen.polygon(ring(1.1, 0.48, corners=10), fill=255)
    elif shape == "triangle":
        pen.polygon(ring(1.15, corners=3), fill=255)
    else:
        along = np.linspace(-1.2, 1.2, 60)
        upper = np.stack([along, 0.4 * np.sin(5 * along) - 0.25], axis=1)
        lower = np.stack([along, 0.4 * np.sin(5 * along) + 0.25], axis=1)[::-1]
        rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        outline = centre + radius * np.concatenate([upper, lower]) @ rotation.T
        pen.polygon([tuple(point) for point in outline], fill=255)


def _rgb(hue: float, saturation: float, value: float) -> tuple[int, ...]:
    return tuple(round(255 * level) for level in colorsys.hsv_to_rgb(hue % 1, saturation, value))


if __name__ == "__main__":
    main()
