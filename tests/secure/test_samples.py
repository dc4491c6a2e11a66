from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prism_secure.errors import RunFolderError
from prism_secure.quality.samples import encode_png, read_grid, sample_grid


def some_images(count: int, channels: int = 1, size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, channels, size, size), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_a_grid_is_read_back_with_the_very_pixels_it_was_given(channels: int, scale: int) -> None:
    images = some_images(7, channels)
    labels = np.array([2, 0, 2, 0, 1, 2, 2])

    grid = read_grid(encode_png(sample_grid(images, labels, names=["a", "bb", "c"], columns=3, scale=scale)))

    assert grid.names == ("a", "bb", "c")
    for row, chosen in zip(grid.rows, ([1, 3], [4], [0, 2, 5]), strict=True):
        expected = np.moveaxis(images[chosen], 1, 3)
        assert np.array_equal(row, expected[..., 0] if channels == 1 else expected)


def test_images_without_labels_fill_rows_without_names() -> None:
    images = some_images(5)
    grid = read_grid(encode_png(sample_grid(images, columns=2)))
    assert grid.names == ("", "", "")
    assert [len(row) for row in grid.rows] == [2, 2, 1]
    assert np.array_equal(np.concatenate(grid.rows), images[:, 0])


def test_floats_are_taken_from_minus_one_to_one_and_clipped() -> None:
    images = np.array([-1.0, 0.0, 1.0, -7.0, 7.0], np.float32)[:, None, None, None].repeat(8, 2).repeat(8, 3)
    grid = read_grid(encode_png(sample_grid(images)))
    assert grid.rows[0][:, 0, 0].tolist() == [0, 128, 255, 0, 255]


def test_a_label_without_a_name_is_shown_as_its_number() -> None:
    assert read_grid(encode_png(sample_grid(some_images(2), [0, 7], names=["zero"]))).names == ("zero", "7")


def test_the_names_are_drawn_into_the_picture() -> None:
    named = np.asarray(sample_grid(some_images(1, size=32), [0], names=["Trouser"]))
    left = named[:, : named.shape[1] - 64 - 4]
    assert (left < 128).sum() > 20


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 8, 8), np.uint8), None, r"\(N, C, H, W\)"),
        (np.zeros((2, 2, 8, 8), np.uint8), None, r"C = 1 or 3"),
        (np.zeros((0, 1, 8, 8), np.uint8), None, r"\(0, 1, 8, 8\)"),
        (np.zeros((2, 1, 8, 8), np.int64), None, "int64"),
        (np.full((2, 1, 8, 8), np.nan), None, "NaN"),
        (np.zeros((2, 1, 8, 8), np.uint8), [0], "2 integers"),
        (np.zeros((2, 1, 8, 8), np.uint8), [0.0, 1.0], "float64"),
    ],
)
def test_images_of_the_wrong_form_are_refused(images: np.ndarray, labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_grid(images, labels)


@pytest.mark.parametrize(("columns", "scale"), [(0, 1), (1, 0)])
def test_an_empty_layout_is_refused(columns: int, scale: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        sample_grid(some_images(1), columns=columns, scale=scale)


def foreign_png() -> bytes:
    Image.new("L", (8, 8)).save(file := io.BytesIO(), "png")
    return file.getvalue()


def with_another_layout() -> bytes:
    grid, other = sample_grid(some_images(1)), sample_grid(some_images(4))
    grid.info.update(other.info)
    return encode_png(grid)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a picture",
        encode_png(sample_grid(some_images(9)))[:-200],
        foreign_png(),
        with_another_layout(),
    ],
    ids=["empty", "text", "cut short", "another picture", "another layout"],
)
def test_a_damaged_or_foreign_picture_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "round-0003.png"
    path.write_bytes(data)
    with pytest.raises(RunFolderError, match=r"round-0003\.png is damaged"):
        read_grid(path)
