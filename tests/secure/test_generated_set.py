"""Generated data sets, read by those that people read them with, and their cards."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
import yaml
from PIL import Image

from prism_secure.cli import main
from prism_secure.config.public_seed import public_seed
from prism_secure.data import load
from prism_secure.data.torchvision_shim import torchvision
from prism_secure.model.generated_set import varied
from prism_secure.model.generator import Architecture, ResNetGenerator
from prism_secure.model.model_card import DataCard, Making, ModelCard, Privacy, QualityCard, front_matter
from prism_secure.model.model_file import read_model_file, write_model

NAMES = ("cat", "../dog", "sea lion", "d'or")
GREY = Architecture(latent=6, width=4, image_size=8, classes=4)
COLOUR = Architecture(latent=6, width=4, image_size=8, channels=3)


def model_at(path: Path, architecture: Architecture = GREY, names: tuple[str, ...] = NAMES) -> Path:
    d = sum(each.numel() for each in ResNetGenerator(architecture).parameters())
    mask = np.random.default_rng(0).random(d) < 0.5
    card = ModelCard(
        data=DataCard(name="<pets>", licence="ask us", clients=10, partition="iid", classes=names),
        privacy=Privacy(
            delta=1e-5, sum_zero_out=0.5, sum_replace_one=1.0, upload_zero_out=9.0, upload_replace_one="inf",
            cohort=10, ledger_head="ab", ledger_key="cd",
        ),
        measured=QualityCard(
            round=3, features="pixels", samples=200, fid=50.0, kid=1.0, precision=0.9, recall=0.4,
            density=0.8, coverage=0.5, gen2real=0.7317, gen2real_ceiling=0.876,
        ),
        making=Making(rounds=3, settings="", version="1"), weights=d, kept=int(mask.sum()), licence="MIT",
    )  # fmt: skip
    write_model(path, architecture, 3, mask, card=card)
    return path


def generated(tmp_path: Path, out: str, *more: str, architecture: Architecture = GREY) -> Path:
    path = model_at(tmp_path / "m.safetensors", architecture)
    command = ["generate", "--model", str(path), "--count", "23", "--seed", "5", "--out", str(tmp_path / out)]
    assert main([*command, *more]) == 0
    return tmp_path / out


def expected(tmp_path: Path) -> tuple[np.ndarray, np.ndarray]:
    images, labels = read_model_file(tmp_path / "m.safetensors").generator().generate(23, seed=5)
    assert labels is not None
    levels = images.double().add(1).mul(127.5).round().byte()
    return levels[:, 0].numpy(), labels.numpy()


def png(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def test_npz_has_images_and_labels_of_the_stated_types(tmp_path: Path):
    out = generated(tmp_path, "pets.npz")
    images, labels = expected(tmp_path)
    with np.load(out, allow_pickle=False) as found:
        assert set(found.files) == {"images", "labels"}
        assert (found["images"].dtype, found["labels"].dtype) == (np.uint8, np.int64)
        assert np.array_equal(found["images"], images)
        assert np.array_equal(found["labels"], labels)
    again = generated(tmp_path, "again.npz")
    assert again.read_bytes() == out.read_bytes()
    colour = generated(tmp_path, "colour.npz", architecture=COLOUR)
    with np.load(colour) as found:
        assert found["images"].shape == (23, 8, 8, 3)
        assert found.files == ["images"]


def test_parquet_has_the_types_that_datasets_reads(tmp_path: Path):
    out = generated(tmp_path, "pets.parquet", "--label", "cat", "--label", "3")
    table = pyarrow.parquet.read_table(out)
    told = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert told["image"] == {"_type": "Image"}
    assert told["label"] == {"_type": "ClassLabel", "names": list(NAMES)}
    assert table["label"].to_pylist() == [0 if number % 2 == 0 else 3 for number in range(23)]
    rows = table["image"].to_pylist()
    assert {*rows[0]} == {"bytes", "path"}
    labels = torch.tensor([0, 3])[torch.arange(23) % 2]
    images, _ = read_model_file(tmp_path / "m.safetensors").generator().generate(labels=labels, seed=5)
    levels = images[:, 0].double().add(1).mul(127.5).round().byte().numpy()
    assert np.array_equal(np.stack([png(row["bytes"]) for row in rows]), levels)
    free = pyarrow.parquet.read_table(generated(tmp_path, "free.parquet", architecture=COLOUR))
    assert free.column_names == ["image"]
    assert png(free["image"].to_pylist()[0]["bytes"]).shape == (8, 8, 3)


def test_a_folder_is_torchvisions_and_a_source_of_this_package(tmp_path: Path):
    out = generated(tmp_path, "pets")
    names = ["0-cat", "1-dog", "2-sea-lion", "3-d-or"]
    assert sorted(path.name for path in out.iterdir()) == [*names, "README.md"]
    images, labels = expected(tmp_path)
    found = torchvision.datasets.ImageFolder(str(out))
    assert found.classes == names
    assert sorted(found.targets) == sorted(labels.tolist())
    for path, label in found.samples:
        number = int(Path(path).stem)
        assert label == labels[number]
        assert np.array_equal(png(Path(path).read_bytes()), images[number])
    read = load("images", folder=out, image_size=8, channels=1)
    assert read.classes == tuple(names)
    assert len(read.train_images) + len(read.test_images) == 23


def test_where_names_do_not_tell_labels_apart_numbers_do(tmp_path: Path):
    path = model_at(tmp_path / "m.safetensors", names=("a", "a", "b", "c"))
    assert main(["generate", "--model", str(path), "--count", "8", "--out", str(tmp_path / "all")]) == 0
    assert sorted(each.name for each in (tmp_path / "all").iterdir()) == ["0", "1", "2", "3", "README.md"]


@pytest.mark.parametrize(
    ("out", "card"), [("a.npz", "a.npz.md"), ("a.parquet", "a.parquet.md"), ("a", "a/README.md")]
)
def test_a_data_card_says_what_it_cost_whom_and_what_it_is_no_good_for(tmp_path: Path, out: str, card: str):
    generated(tmp_path, out)
    text = (tmp_path / card).read_text("utf-8")
    head, _, body = text.removeprefix("---\n").partition("---\n")
    matter = yaml.safe_load(head)
    assert matter["license"] == "mit"
    assert matter["pretty_name"] == "Generated images of <pets>"
    assert matter["task_categories"] == ["image-classification"]
    assert matter["size_categories"] == ["n<1K"]
    assert body.lstrip().startswith("# 23 generated images of \\<pets\\>")
    for said in (
        "must not be used for", "everything one client contributes", "(SUM)", "(UPLOAD)", "0.50",
        "honest clients", "gen2real", "0.732", "0.876", "--seed 5", "no more ε", "| 1 | ../dog | 6 |",
        "Licence of the data that it learned from: ask us",
    ):  # fmt: skip
        assert said in body, said


def test_without_a_card_nothing_is_said_to_be_known(tmp_path: Path):
    d = sum(each.numel() for each in ResNetGenerator(GREY).parameters())
    write_model(tmp_path / "m", GREY, 3, np.ones(d, bool))
    assert (
        main(["generate", "--model", str(tmp_path / "m"), "--count", "4", "--out", str(tmp_path / "x")]) == 0
    )
    text = (tmp_path / "x" / "README.md").read_text("utf-8")
    assert "Nothing is known of ε" in text
    assert "ε(SUM)" not in text
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "unknown"


def test_no_text_of_a_stranger_ends_the_front_matter():
    evil = 'x"\n---\nlicense: mit\n# '
    text = front_matter({"license": evil, "pretty_name": 'a: "b" # c'})
    assert text.count("---\n") == 2
    matter = yaml.safe_load(text.removesuffix("---\n"))
    assert matter == {
        "license": "other",
        "pretty_name": 'a: "b" # c',
        "license_name": 'x" --- license: mit # ',
    }


def test_a_model_card_has_front_matter_too(tmp_path: Path):
    card = read_model_file(model_at(tmp_path / "m")).card
    assert card is not None
    matter = yaml.safe_load(card.markdown().split("---\n")[1])
    assert matter["library_name"] == "prism-secure"
    assert matter["license"] == "mit"


def test_parquet_without_pyarrow_names_the_extra_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    path = model_at(tmp_path / "m")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    before = set(tmp_path.iterdir())
    assert main(["generate", "--model", str(path), "--count", "4", "--out", str(tmp_path / "x.parquet")]) != 0
    assert "[parquet]" in capsys.readouterr().err
    assert set(tmp_path.iterdir()) == before


def test_half_a_file_is_never_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = model_at(tmp_path / "m")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    before = set(tmp_path.iterdir())
    assert main(["generate", "--model", str(path), "--count", "4", "--out", str(tmp_path / "x.npz")]) == 5
    assert set(tmp_path.iterdir()) == before


def test_contrast_varies_from_image_to_image_by_draws_of_its_own(tmp_path: Path):
    with np.load(generated(tmp_path, "plain.npz")) as found:
        flat, labels = found["images"], found["labels"]
    out = generated(tmp_path, "varied.npz", "--vary-contrast")
    assert out.read_bytes() == generated(tmp_path, "again.npz", "--vary-contrast").read_bytes()
    with np.load(out) as found:
        changed = found["images"]
        assert np.array_equal(found["labels"], labels)
    images, _ = read_model_file(tmp_path / "m.safetensors").generator().generate(23, seed=5)
    expected = varied(images, torch.Generator().manual_seed(public_seed(5, "contrast")))
    assert np.array_equal(changed, expected[:, 0].double().add(1).mul(127.5).round().byte().numpy())
    assert np.std(changed.mean((1, 2)) / flat.mean((1, 2))) > 0.1
    assert "at random" in (tmp_path / "varied.npz.md").read_text("utf-8")
    assert "--seed 5 --vary-contrast" in (tmp_path / "varied.npz.md").read_text("utf-8")
    assert "--vary-contrast" not in (tmp_path / "plain.npz.md").read_text("utf-8")


def test_contrast_is_drawn_apart_from_latents():
    images = torch.linspace(-1, 1, 16).view(1, 1, 4, 4).repeat(400, 1, 1, 1)
    draws = torch.Generator().manual_seed(public_seed(3, "contrast"))
    top = varied(images, draws)[:, 0, 3, 3].numpy()  # 2·gain − 1: brightness 1 has every power
    latents = torch.randn(400, 6, generator=torch.Generator().manual_seed(3)).numpy()
    assert 0.2 <= top.min() < 0.3
    assert 0.9 < top.max() <= 1
    assert np.abs([np.corrcoef(top, each)[0, 1] for each in latents.T]).max() < 0.2


def test_a_grid_takes_no_contrast(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = model_at(tmp_path / "m")
    command = ["generate", "--model", str(path), "--vary-contrast", "--out", str(tmp_path / "x.png")]
    assert main(command) == 2
    assert "--vary-contrast is for data sets" in capsys.readouterr().err
