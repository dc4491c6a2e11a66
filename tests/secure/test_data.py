"""Every source gives the same form of data set, and every broken file one clear error."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import lzma
import pickle
import shutil
import struct
import zlib
from fractions import Fraction
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image

import prism_secure
from prism_secure.data import SOURCES, Dataset, load, read_idx, to_float
from prism_secure.data.bundled import FILE, load_bundled
from prism_secure.data.fit import fit, with_channels
from prism_secure.data.image_folder import read_image
from prism_secure.data.skipped import FILE as SKIPPED
from prism_secure.data.skipped import keep_skipped
from prism_secure.data.sources import ABOUT
from prism_secure.data.torchvision_shim import torchvision
from prism_secure.errors import ConfigError, DataError
from prism_secure.quality.classifier import CLASSES

RANDOM = np.random.default_rng(0)
EXPERIMENTS = Path(prism_secure.__file__).parent.parent / "experiments"


def levels(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def idx_bytes(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def write_mnist_files(folder: Path, *, train: int = 12, test: int = 7, zipped: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, count in (("train", train), ("t10k", test)):
        files = {"images-idx3": levels(count, 28, 28), "labels-idx1": np.arange(count, dtype=np.uint8) % 10}
        for kind, array in files.items():
            data = idx_bytes(array)
            name = f"{prefix}-{kind}-ubyte"
            if zipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(data))
            else:
                (folder / name).write_bytes(data)


def check_form(dataset: Dataset, *, size: int, channels: int) -> None:
    for images, labels in (
        (dataset.train_images, dataset.train_labels),
        (dataset.test_images, dataset.test_labels),
    ):
        assert images.dtype == torch.uint8
        assert images.shape[1:] == (channels, size, size)
        assert images.is_contiguous()
        assert labels.dtype == torch.int64
        assert labels.shape == (len(images),)
        assert int(labels.min()) >= 0
        assert int(labels.max()) < len(dataset.classes)


def error_of(call, kind=DataError) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


# --- the bundled set


def test_bundled_set_is_stratified_and_its_splits_are_disjoint():
    dataset = load()
    check_form(dataset, size=32, channels=1)
    assert dataset.name == "fashion_mnist_12k"
    assert dataset.classes == CLASSES
    assert dataset.train_labels.bincount().tolist() == [1000] * 10
    assert dataset.test_labels.bincount().tolist() == [200] * 10
    train, test = (
        {bytes(image) for image in part.numpy()} for part in (dataset.train_images, dataset.test_images)
    )
    assert not train & test


def test_bundled_images_are_the_original_ones_unchanged():
    # Of the arrays that the script in experiments/fashion_mnist cuts out of the published files.
    raw = load_bundled()
    digest = hashlib.sha256()
    for part in (raw.train_images, raw.train_labels, raw.test_images, raw.test_labels):
        digest.update(part.numpy().astype(np.uint8).tobytes())
    assert digest.hexdigest() == "d5b91c929ef64cdf3fac6a13820932f698037ef77030a9584f3d6499a1ccee00"


def test_the_licence_of_the_images_travels_with_them():
    text = (FILE.parent / "fashion_mnist.LICENSE").read_text()
    assert "Copyright (c) 2017 Zalando SE" in text
    assert "The above copyright notice and this permission notice shall be included" in text


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign", "other images", "missing"])
def test_a_damaged_bundle_is_one_clear_error(tmp_path: Path, damage: str):
    data = bytearray(FILE.read_bytes()) if damage in ("truncated", "flipped") else bytearray()
    if damage == "truncated":
        del data[len(data) // 2 :]
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
    elif damage == "foreign":
        data = bytearray(lzma.compress(b"something else"))
    elif damage == "other images":  # whole, and of the right form
        data = bytearray(lzma.compress(lzma.decompress(FILE.read_bytes())[:-1] + b"\0", preset=0))
    path = tmp_path / "bundle.npz.xz"
    if damage != "missing":
        path.write_bytes(data)
    message = error_of(lambda: load_bundled(path))
    assert str(path) in message
    assert "reinstall" in message


def test_the_classifier_learns_from_none_of_the_bundled_images():
    if not EXPERIMENTS.is_dir():
        pytest.skip("the scripts are not part of an installed package")
    labels = RANDOM.integers(0, 10, 30_000)

    def script(name: str):
        spec = importlib.util.spec_from_file_location(Path(name).stem, EXPERIMENTS / name)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    bundled = script("fashion_mnist/make_bundle.py").first_of_each_class(labels, 1000)
    trained_on = script("classifier/train.py").not_bundled(labels)
    assert sorted([*bundled, *trained_on]) == list(range(30_000))


# --- conversion


@pytest.mark.parametrize(("before", "after"), [(28, 32), (28, 16), (40, 32), (33, 64)])
def test_resizing_is_what_torchvision_does_to_a_picture(before: int, after: int):
    images = torch.from_numpy(levels(5, 3, before, before))
    expected = torchvision.transforms.functional.resize(images, [after, after], antialias=True)
    assert (fit(images, after).int() - expected.int()).abs().max() <= 1


def test_an_image_of_the_right_size_is_not_touched():
    images = torch.from_numpy(levels(4, 1, 28, 28))
    assert torch.equal(fit(images, 28), images)


def test_the_centre_square_is_kept_of_an_oblong_image():
    image = torch.zeros(1, 1, 4, 8, dtype=torch.uint8)
    image[..., 2:6] = 200
    assert fit(image, 4).unique().tolist() == [200]
    assert fit(image.transpose(2, 3), 4).unique().tolist() == [200]


def test_grey_by_luma_as_pillow_does_it_and_colour_by_repetition():
    colour = levels(1, 3, 9, 9)
    expected = np.asarray(Image.fromarray(colour[0].transpose(1, 2, 0)).convert("L"))
    grey = with_channels(torch.from_numpy(colour), 1)
    assert np.abs(grey[0, 0].numpy().astype(int) - expected.astype(int)).max() <= 1
    assert torch.equal(with_channels(grey, 3), grey.expand(-1, 3, -1, -1))
    assert with_channels(grey, None) is grey


def test_floats_are_spread_over_minus_one_to_one():
    assert to_float(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx(
        [-1.0, -0.6, 1.0]
    )
    with pytest.raises(TypeError, match=r"expected uint8 images, got torch\.float32"):
        to_float(torch.zeros(1))


@pytest.mark.parametrize(("size", "channels"), [(28, None), (16, 3), (64, 1)])
def test_size_and_channels_can_be_chosen(size: int, channels: int | None):
    check_form(load(image_size=size, channels=channels), size=size, channels=channels or 1)


# --- arguments


def test_every_source_has_a_name_for_readers():
    assert tuple(ABOUT) == SOURCES


def test_an_unknown_source_offers_the_nearest_one():
    message = error_of(lambda: load("fashion_mist"), ConfigError)
    assert "unknown data source 'fashion_mist'" in message
    assert "did you mean 'fashion_mnist'" in message


@pytest.mark.parametrize("source", [each for each in SOURCES if each != "fashion_mnist_12k"])
def test_a_source_without_its_folder_says_so(source: str, tmp_path: Path):
    assert f"data.source = '{source}' needs data.folder" in error_of(lambda: load(source))
    missing = tmp_path / "nowhere"
    assert f"data.folder {missing} does not exist" in error_of(lambda: load(source, folder=missing))
    (tmp_path / "file").touch()
    assert "is not a folder" in error_of(lambda: load(source, folder=tmp_path / "file"))
    assert "is not a folder" in error_of(lambda: load(source, folder=tmp_path / "file", download=True))


@pytest.mark.parametrize("arguments", [{"image_size": 0}, {"channels": 2}])
def test_impossible_sizes_are_refused(arguments):
    message = error_of(lambda: load(**arguments), ConfigError)
    assert f"got {next(iter(arguments.values()))}" in message


# --- idx files


@pytest.mark.parametrize("zipped", [False, True])
def test_an_idx_folder_loads_plain_and_gzipped(tmp_path: Path, zipped: bool):
    write_mnist_files(tmp_path, zipped=zipped)
    dataset = load("idx", folder=tmp_path, image_size=28)
    check_form(dataset, size=28, channels=1)
    end = ".gz" if zipped else ""
    assert np.array_equal(dataset.train_images[:, 0], read_idx(tmp_path / f"train-images-idx3-ubyte{end}"))
    assert dataset.test_labels.tolist() == list(range(7))
    assert dataset.classes == tuple("0123456789")
    assert len(dataset.train_images) == 12


def test_a_missing_idx_file_is_named(tmp_path: Path):
    write_mnist_files(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    assert "has no t10k-labels-idx1-ubyte" in error_of(lambda: load("idx", folder=tmp_path))
    assert "does not exist" in error_of(lambda: read_idx(tmp_path / "t10k-labels-idx1-ubyte"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an idx file: it starts with nothing"),
        (b"\x89PNG\r\n", "is not an idx file: it starts with 89504e47"),
        (bytes([0, 0, 13, 1, 0, 0, 0, 0]), "type 0x0d"),
        (idx_bytes(levels(3, 4, 4))[:-1], "declares (3, 4, 4), 48 bytes, but 47 follow"),
        (idx_bytes(levels(3, 4, 4)) + b"x", "but 49 follow"),
        (idx_bytes(levels(3, 4, 4))[:7], "but 0 follow"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, "but 0 follow"),
        (bytes([0, 0, 8, 65]) + b"\0\0\0\1" * 65 + b"x", "65 sizes that no array can have"),
        (bytes([0, 0, 8, 255]) + b"\0\0\0\1" * 255 + b"x", "255 sizes that no array can have"),
        (bytes([0, 0, 8, 4]) + bytes(4) + b"\xff" * 12, "4 sizes that no array can have"),
    ],
)
def test_a_damaged_idx_file_is_one_clear_error(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    text = error_of(lambda: read_idx(path))
    assert str(path) in text
    assert message in text


@pytest.mark.parametrize(
    "content",
    [gzip.compress(idx_bytes(levels(9, 9)), mtime=0)[:-20], b"not gzip", b""],
    ids=["torn", "not gzip", "empty"],
)
def test_a_damaged_gzip_file_is_one_clear_error(tmp_path: Path, content: bytes):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    assert str(path) in error_of(lambda: read_idx(path))


def test_images_and_labels_must_match(tmp_path: Path):
    write_mnist_files(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(11, dtype=np.uint8)))
    assert "12 images but labels of shape (11,)" in error_of(lambda: load("idx", folder=tmp_path))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros((12, 1), dtype=np.uint8)))
    assert "expected 1 sizes, got (12, 1)" in error_of(lambda: load("idx", folder=tmp_path))


def test_splits_of_different_shape_or_without_images_are_refused(tmp_path: Path):
    write_mnist_files(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(levels(7, 20, 20)))
    assert "test images (1, 20, 20)" in error_of(lambda: load("idx", folder=tmp_path))
    write_mnist_files(tmp_path, test=0)
    assert "test split: no images" in error_of(lambda: load("idx", folder=tmp_path))


# --- MNIST and Fashion-MNIST through torchvision


@pytest.mark.parametrize(("source", "layout"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_published_idx_sets_load_from_a_local_folder(tmp_path: Path, source: str, layout: str):
    write_mnist_files(tmp_path / layout / "raw")
    dataset = load(source, folder=tmp_path)
    check_form(dataset, size=32, channels=1)
    assert (len(dataset.train_images), len(dataset.test_images)) == (12, 7)
    assert len(dataset.classes) == 10
    assert dataset.name == source
    if source == "fashion_mnist":
        assert dataset.classes == CLASSES


def test_nothing_is_downloaded_unless_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def download(self):
        write_mnist_files(Path(self.raw_folder))

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)
    message = error_of(lambda: load("mnist", folder=tmp_path))
    assert "there is no MNIST/raw in it" in message
    assert "data.download = true" in message
    check_form(load("mnist", folder=tmp_path / "new", download=True), size=32, channels=1)


def test_a_failed_download_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def download(self):
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)
    message = error_of(lambda: load("fashion_mnist", folder=tmp_path, download=True))
    assert "fashion_mnist could not be downloaded into" in message
    assert "no route to host" in message


def test_published_files_that_are_packed_still_are_said_to_be(tmp_path: Path):
    """As Debian's package has them."""
    raw = tmp_path / "FashionMNIST" / "raw"
    write_mnist_files(raw)
    for path in list(raw.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    message = error_of(lambda: load("fashion_mnist", folder=tmp_path))
    assert "still packed" in message
    assert "gunzip --keep t10k-images-idx3-ubyte.gz" in message
    check_form(load("idx", folder=raw), size=32, channels=1)


@pytest.mark.parametrize("keep", [0, 3, 17, 1000])
def test_a_truncated_published_file_is_one_clear_error(tmp_path: Path, keep: int):
    raw = tmp_path / "MNIST" / "raw"
    write_mnist_files(raw)
    path = raw / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:keep])
    message = error_of(lambda: load("mnist", folder=tmp_path))
    assert f"mnist in {raw} is incomplete or damaged" in message
    assert "delete it" in message


# --- CIFAR-10 through torchvision


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small CIFAR-10 in the published format; torchvision's table of checksums is made to be this one's."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()

    def write(name: str, content: dict) -> str:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return hashlib.md5(data, usedforsecurity=False).hexdigest()

    def batch(name: str) -> list[str]:
        return [name, write(name, {"data": levels(4, 3072), "labels": [0, 3, 9, 1]})]

    kind = torchvision.datasets.CIFAR10
    monkeypatch.setattr(kind, "train_list", [batch(f"data_batch_{i}") for i in range(1, 6)])
    monkeypatch.setattr(kind, "test_list", [batch("test_batch")])
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": write("batches.meta", {"label_names": names})})
    return tmp_path


def test_cifar10_loads_from_a_local_folder_with_planes_in_order(cifar10: Path):
    dataset = load("cifar10", folder=cifar10)
    check_form(dataset, size=32, channels=3)
    assert dataset.train_labels.tolist() == [0, 3, 9, 1] * 5
    assert dataset.classes[3] == "cat"
    first = pickle.loads((cifar10 / "cifar-10-batches-py" / "data_batch_1").read_bytes())["data"][0]
    assert torch.equal(dataset.train_images[0], torch.from_numpy(first.reshape(3, 32, 32)))


def test_a_changed_cifar10_file_is_refused_before_it_is_unpickled(cifar10: Path, tmp_path: Path):
    marker = tmp_path / "unpickled"

    class Payload:
        def __reduce__(self):
            return Path.touch, (marker,)

    folder = cifar10 / "cifar-10-batches-py"
    (folder / "data_batch_2").write_bytes(pickle.dumps(Payload()))
    message = error_of(lambda: load("cifar10", folder=cifar10))
    assert f"cifar10 in {folder} is incomplete or damaged" in message
    assert not marker.exists()


@pytest.mark.parametrize("name", ["data_batch_5", "test_batch", "batches.meta"])
def test_an_incomplete_cifar10_is_one_clear_error(cifar10: Path, name: str):
    (cifar10 / "cifar-10-batches-py" / name).unlink()
    assert "is incomplete or damaged" in error_of(lambda: load("cifar10", folder=cifar10))


def test_cifar10_in_another_place_is_one_clear_error(tmp_path: Path):
    assert "there is no cifar-10-batches-py in it" in error_of(lambda: load("cifar10", folder=tmp_path))


# --- folders of pictures


def save(path: Path, array: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def test_subfolders_are_classes_and_every_sixth_image_is_held_out(tmp_path: Path):
    for name, level in (("cats", 10), ("dogs", 200)):
        for i in range(12):
            save(tmp_path / name / f"{i:02}.png", np.full((20, 20), level + i, dtype=np.uint8))
    (tmp_path / "cats" / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden").mkdir()
    dataset = load("images", folder=tmp_path)
    check_form(dataset, size=32, channels=1)
    assert dataset.classes == ("cats", "dogs")
    assert dataset.train_labels.tolist() == [0] * 10 + [1] * 10
    assert dataset.test_images[:, 0, 0, 0].tolist() == [15, 21, 205, 211]
    assert dataset.train_images[:6, 0, 0, 0].tolist() == [10, 11, 12, 13, 14, 16]


def test_a_flat_folder_is_one_class(tmp_path: Path):
    for i in range(6):
        save(tmp_path / f"{i}.png", levels(8, 8))
    dataset = load("images", folder=tmp_path)
    assert dataset.classes == (tmp_path.name,)
    assert (len(dataset.train_images), len(dataset.test_images)) == (5, 1)


@pytest.mark.parametrize("flat", [False, True])
def test_given_train_and_test_folders_are_kept(tmp_path: Path, flat: bool):
    for split, count in (("train", 3), ("test", 2)):
        for i in range(count):
            save(tmp_path / split / ("" if flat else "cats") / f"{i}.png", levels(8, 8))
    dataset = load("images", folder=tmp_path)
    assert (len(dataset.train_images), len(dataset.test_images)) == (3, 2)
    assert len(dataset.classes) == 1


def test_a_class_that_only_the_test_folder_has_is_refused(tmp_path: Path):
    for path in ("train/cats", "train/dogs", "test/birds"):
        save(tmp_path / path / "0.png", levels(8, 8))
    assert "lacks: ['birds']" in error_of(lambda: load("images", folder=tmp_path))


def test_one_colour_picture_makes_the_set_colour_unless_grey_is_asked_for(tmp_path: Path):
    for i in range(6):
        save(tmp_path / f"{i}.png", levels(8, 8, 3) if i == 5 else levels(8, 8))
    check_form(load("images", folder=tmp_path), size=32, channels=3)
    check_form(load("images", folder=tmp_path, channels=1), size=32, channels=1)


def test_palette_transparency_and_orientation_are_what_a_viewer_shows(tmp_path: Path):
    for i in range(6):
        save(tmp_path / f"0{i}.png", levels(8, 8))
    clear = np.zeros((8, 8, 4), dtype=np.uint8)
    save(tmp_path / "10.png", clear)
    Image.new("P", (8, 8)).save(tmp_path / "11.gif")
    left_dark = np.repeat(np.array([[0, 255]], dtype=np.uint8), 32, axis=0).repeat(16, axis=1)
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180°
    save(tmp_path / "12.jpg", left_dark, exif=exif)
    images = load("images", folder=tmp_path).train_images
    assert images[5].unique().tolist() == [255]
    turned = images[-1].float().mean((0, 1))
    assert turned[:8].mean() > 200
    assert turned[-8:].mean() < 55


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.6])
def test_a_truncated_picture_is_named(tmp_path: Path, suffix: str, keep: float):
    for i in range(6):
        save(tmp_path / f"{i}.{suffix}", levels(24, 24))
    path = tmp_path / f"3.{suffix}"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    message = error_of(lambda: load("images", folder=tmp_path))
    assert f"{path} cannot be read as an image" in message


def png16(array: np.ndarray) -> bytes:
    """A PNG of (H, W, 1 to 4) values of 16 bits."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    height, width, channels = array.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([16, colour, 0, 0, 0])
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def tiff16(array: np.ndarray, order: str, *, photometric: int = 2) -> bytes:
    """An uncompressed TIFF of (H, W, 1 or 3) values of 16 bits, in bytes of the given order."""
    height, width, channels = array.shape
    data = array.astype(f"{order}u2").tobytes()
    bits = 8 + len(data)
    where = bits + 2 * channels
    tags = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, channels, bits if channels > 1 else 16),
        (259, 3, 1, 1), (262, 3, 1, photometric), (273, 4, 1, 8), (277, 3, 1, channels),
        (278, 4, 1, height), (279, 4, 1, len(data)), (284, 3, 1, 1),
    ]  # fmt: skip
    out = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, where)
    out += data + struct.pack(f"{order}H", 16) * channels + struct.pack(f"{order}H", len(tags))
    for tag, kind, count, value in tags:
        short = kind == 3 and count == 1
        packed = struct.pack(f"{order}HH", value, 0) if short else struct.pack(f"{order}I", value)
        out += struct.pack(f"{order}HHI", tag, kind, count) + packed
    return out + bytes(4)


def ppm16(array: np.ndarray) -> bytes:
    height, width, channels = array.shape
    magic = b"P5" if channels == 1 else b"P6"
    return magic + f"\n{width} {height}\n65535\n".encode() + array.astype(">u2").tobytes()


def values16(channels: int) -> np.ndarray:
    """Where dropping the low byte gives another level than scaling, among all others."""
    values = RANDOM.integers(0, 65536, (9, 12, channels)).astype(np.uint16)
    values[0, 0], values[0, 1], values[0, 2], values[0, 3] = 0, 0x00FF, 0xFF00, 65535
    return values


def scaled(values: np.ndarray) -> np.ndarray:
    """To 8 bits, with one rounding, transparency on white: by exact fractions."""
    values = values.astype(object)
    if values.shape[-1] in (2, 4):
        opacity = values[..., -1:]
        values = [
            [[Fraction(v * o + 65535 * (65535 - o), 65535) for v in pixel[:-1]] for pixel, o in line]
            for line in [list(zip(a, b[..., 0], strict=True)) for a, b in zip(values, opacity, strict=True)]
        ]
        values = np.array(values, dtype=object)
    return np.vectorize(lambda v: int(Fraction(v) * 255 / 65535 + Fraction(1, 2)))(values)


@pytest.mark.parametrize(
    ("name", "channels", "encode"),
    [
        ("grey.png", 1, png16),
        ("grey-alpha.png", 2, png16),
        ("colour.png", 3, png16),
        ("colour-alpha.png", 4, png16),
        ("grey.pgm", 1, ppm16),
        ("colour.ppm", 3, ppm16),
        ("intel.tif", 3, lambda values: tiff16(values, "<")),
        ("motorola.tif", 3, lambda values: tiff16(values, ">")),
        ("grey.tif", 1, lambda values: tiff16(values, "<", photometric=1)),
    ],
)
def test_pictures_of_16_bits_are_scaled_and_no_low_byte_is_dropped(
    tmp_path: Path, name: str, channels: int, encode
):
    values = values16(channels)
    (tmp_path / name).write_bytes(encode(values))
    image = read_image(tmp_path / name)[0].permute(1, 2, 0).numpy().astype(int)
    expected = scaled(values)
    assert np.array_equal(image, expected)
    dropped = values[..., : expected.shape[-1]] >> 8
    assert (dropped != expected).any()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("inverted.tif", tiff16(values16(1), "<", photometric=0)),
        ("signed.tif", Image.fromarray(np.full((8, 8), 40_000, dtype=np.int32))),
        ("float.tif", Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32))),
    ],
)
def test_a_depth_that_is_not_read_exactly_is_refused(tmp_path: Path, name: str, content):
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        content.save(tmp_path / name)
    message = error_of(lambda: read_image(tmp_path / name))
    assert f"{tmp_path / name} has more than 8 bits a channel" in message
    assert "convert it to grey or RGB of 8 or 16 bits" in message


def test_a_format_that_its_suffix_does_not_say_is_no_picture(tmp_path: Path):
    Image.fromarray(levels(8, 8)).save(tmp_path / "x.ico")
    (tmp_path / "x.ico").rename(tmp_path / "x.png")
    assert "cannot be read as an image" in error_of(lambda: read_image(tmp_path / "x.png"))


def pictures_of_which_three_are_bad(folder: Path) -> list[Path]:
    for name in ("cats", "dogs"):
        for i in range(12):
            save(folder / name / f"{i:02}.png", levels(20, 20))
    bad = [folder / "cats" / "03.png", folder / "cats" / "05.png", folder / "dogs" / "11.png"]
    bad[0].write_bytes(b"")
    bad[1].write_bytes(bad[1].read_bytes()[:60])
    Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32)).save(bad[2], format="TIFF")
    return bad


def test_all_bad_pictures_are_named_at_once(tmp_path: Path):
    bad = pictures_of_which_three_are_bad(tmp_path)
    message = error_of(lambda: load("images", folder=tmp_path))
    assert message.startswith(f"{tmp_path}: 3 of 24 pictures cannot be read")
    assert "--set data.skip_bad=true" in message
    assert [line.split()[0] for line in message.splitlines()[1:]] == list(map(str, bad))


def test_bad_pictures_are_left_out_where_that_is_asked_for_and_the_others_stay_where_they_were(
    tmp_path: Path,
):
    bad = pictures_of_which_three_are_bad(tmp_path)
    dataset = load("images", folder=tmp_path, skip_bad=True)
    assert dataset.skipped == tuple(map(str, sorted(bad, key=lambda path: path.name in ("05.png", "11.png"))))
    assert dataset.train_labels.tolist() == [0] * 9 + [1] * 10
    assert dataset.test_labels.tolist() == [0, 1]
    good = np.asarray(Image.open(tmp_path / "cats" / "11.png"))
    assert torch.equal(dataset.test_images[0], fit(torch.from_numpy(good.copy())[None, None], 32)[0])


def test_a_class_of_which_nothing_is_left_to_train_with_is_named(tmp_path: Path):
    for name in ("cats", "dogs"):
        for i in range(6):
            save(tmp_path / name / f"{i:02}.png", levels(20, 20))
    for path in sorted((tmp_path / "dogs").iterdir())[:5]:
        path.write_bytes(b"")
    assert "of the classes dogs" in error_of(lambda: load("images", folder=tmp_path, skip_bad=True))


def test_a_picture_of_absurd_size_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for i in range(6):
        save(tmp_path / f"{i}.png", levels(20, 20))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    assert "cannot be read as an image" in error_of(lambda: load("images", folder=tmp_path))


def test_folders_without_usable_images_say_what_is_missing(tmp_path: Path):
    assert (
        "holds no images; expected a folder for each class, or images alone, of the kinds .bmp"
        in error_of(lambda: load("images", folder=tmp_path))
    )
    (tmp_path / "cats").mkdir()
    assert f"{tmp_path / 'cats'} holds no images" in error_of(lambda: load("images", folder=tmp_path))
    for i in range(5):
        save(tmp_path / "cats" / f"{i}.png", levels(8, 8))
    assert "no class has 6 images (at most 5)" in error_of(lambda: load("images", folder=tmp_path))
    save(tmp_path / "stray.png", levels(8, 8))
    assert "holds both images (stray.png) and folders (cats)" in error_of(
        lambda: load("images", folder=tmp_path)
    )


def write_celeba(folder: Path, *, pictures: int = 9) -> Path:
    """CelebA in small: every third picture held out, one for validation, and every other one male."""
    root = folder / "celeba"
    (root / "img_align_celeba").mkdir(parents=True)
    names = [f"{number:06d}.jpg" for number in range(1, pictures + 1)]
    for number, name in enumerate(names):
        shade = Image.new("RGB", (178, 218), (200 if number % 2 else 50, 90, 20))
        shade.save(root / "img_align_celeba" / name)
    rows = [f"{name} {'1' if number % 2 else '-1'} -1" for number, name in enumerate(names)]
    (root / "list_attr_celeba.txt").write_text("\n".join([str(pictures), "Male Smiling ", *rows]) + "\n")
    parts = [1 if number == 1 else 2 if number % 3 == 2 else 0 for number in range(pictures)]
    lines = [f"{name} {part}" for name, part in zip(names, parts, strict=True)]
    (root / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_celeba_is_labelled_by_one_attribute_and_leaves_validation_out(tmp_path: Path) -> None:
    dataset = load("celeba", folder=write_celeba(tmp_path), image_size=16)
    check_form(dataset, size=16, channels=3)
    assert dataset.classes == ("not Male", "Male")
    assert dataset.train_labels.tolist() == [0, 1, 0, 0, 1]
    assert dataset.test_labels.tolist() == [0, 1, 0]
    red = dataset.train_images[:, 0].float().mean((1, 2))
    assert ((red > 120).long() == dataset.train_labels).all()
    smiling = load("celeba", folder=tmp_path / "celeba", image_size=16, attribute="Smiling")
    assert smiling.classes == ("not Smiling", "Smiling")
    assert smiling.train_labels.sum() == 0


def test_damaged_celeba_files_are_named(tmp_path: Path) -> None:
    folder = write_celeba(tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'Male'"):
        load("celeba", folder=folder, attribute="Mael")
    attributes = folder / "celeba" / "list_attr_celeba.txt"
    whole = attributes.read_text()
    for damage, message in (
        (whole.replace("9\n", "10\n", 1), "announces 10 pictures and lists 9"),
        (whole.replace("-1 -1", "-1 0 x", 1), "damaged in line 3"),
        ("Male\n", "expected a number of pictures"),
    ):
        attributes.write_text(damage)
        with pytest.raises(DataError, match=message):
            load("celeba", folder=folder)
    attributes.write_text(whole)
    attributes.write_text(whole.replace("9\n", "9" * 5000 + "\n", 1))
    with pytest.raises(DataError, match="announces 999"):
        load("celeba", folder=folder)
    attributes.write_text(whole)
    for name in ("000001.jpg", "000006.jpg"):
        (folder / "celeba" / "img_align_celeba" / name).unlink()
    with pytest.raises(DataError, match=r"2 of 8 pictures(.|\n)*000001\.jpg(.|\n)*000006\.jpg"):
        load("celeba", folder=folder)
    left = load("celeba", folder=folder, skip_bad=True)
    assert [Path(name).name for name in left.skipped] == ["000001.jpg", "000006.jpg"]
    assert (left.train_labels.tolist(), left.test_labels.tolist()) == ([1, 0, 0, 1], [0, 0])
    shutil.rmtree(folder / "celeba" / "img_align_celeba")
    with pytest.raises(DataError, match="img_align_celeba does not exist"):
        load("celeba", folder=folder)
    (folder / "celeba" / "list_eval_partition.txt").unlink()
    with pytest.raises(DataError, match="torchvision makes"):
        load("celeba", folder=folder)


def test_names_of_skipped_pictures_are_told_and_kept_where_only_their_owner_reads(tmp_path: Path):
    noted: list[str] = []
    keep_skipped(tmp_path, [], noted.append)
    assert not noted
    assert not list(tmp_path.iterdir())
    keep_skipped(tmp_path, ["cats/[red]1.png", "cats/\udcff.png"], noted.append)
    assert (tmp_path / SKIPPED).read_bytes() == b"cats/[red]1.png\ncats/\xff.png\n"
    assert (tmp_path / SKIPPED).stat().st_mode & 0o777 == 0o600
    assert "2 pictures" in noted[0]
    assert "[red]1.png" in noted[1]
    assert noted[2].isascii()
