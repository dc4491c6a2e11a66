"""Whose an image is: read from every source that says so, and nobody is on both sides of a split of ours."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from prism_secure.config import load_config
from prism_secure.data import Dataset, load
from prism_secure.data.fingerprint import changed, keep_fingerprint
from prism_secure.data.sources import FINGERPRINT_FILE, read_fingerprint
from prism_secure.errors import ConfigError

from .test_data import error_of, save, write_celeba, write_mnist_files

MEASURE = ["federation.behaviour=measure", "privacy.record_epsilon=inf"]


def picture(path: Path, shade: int) -> None:
    save(path, np.full((8, 8), shade, dtype=np.uint8))


def folder_of_persons(folder: Path) -> Path:
    """Class a: p00 to p11, two images each; class b: the first three again, and q00 to q06, one each."""
    for person in range(12):
        for number in range(2):
            picture(folder / "a" / f"p{person:02}" / f"{number}.png", 10 * person + number)
    for person in [*(f"p{n:02}" for n in range(3)), *(f"q{n:02}" for n in range(7))]:
        picture(folder / "b" / person / "0.png", 200 + int(person[1:]) + 20 * (person[0] == "q"))
    return folder


def shades(images: torch.Tensor) -> list[int]:
    return [int(shade) for shade in images[:, 0, 0, 0]]


def test_a_folder_level_names_persons_and_every_sixth_of_them_is_held_out(tmp_path: Path) -> None:
    dataset = load("images", folder=folder_of_persons(tmp_path), image_size=8, person="folder")
    assert dataset.classes == ("a", "b")
    # p05 and p11 of class a; b is the first to have q00 to q06: the sixth is q05
    assert shades(dataset.test_images) == [50, 51, 110, 111, 225]
    assert dataset.persons is not None
    named = dict(zip(shades(dataset.train_images), dataset.persons.tolist(), strict=True))
    for person in (0, 1, 2):  # the same name is the same person, in every class
        assert named[10 * person] == named[10 * person + 1] == named[200 + person]
    assert len(set(named.values())) == 16
    assert dataset.persons.dtype == torch.int64


def test_nobody_is_held_out_and_trained_with_in_any_class(tmp_path: Path) -> None:
    """The sixth person of a class is held out with what other classes have of them, too."""
    for person in range(6):
        picture(tmp_path / "a" / str(person) / "0.png", person)
        picture(tmp_path / "b" / str(person) / "0.png", 100 + person)
    dataset = load("images", folder=tmp_path, image_size=8, person="folder")
    assert shades(dataset.test_images) == [5, 105]
    assert shades(dataset.train_images) == [0, 1, 2, 3, 4, 100, 101, 102, 103, 104]


def test_given_train_and_test_folders_hold_persons_as_well(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("test", 2)):
        for person in range(count):
            picture(tmp_path / part / "a" / f"{part}-{person}" / "0.png", person)
    dataset = load("images", folder=tmp_path, image_size=8, person="folder")
    assert dataset.persons is not None
    assert dataset.persons.tolist() == [0, 1, 2]
    assert len(dataset.test_images) == 2


def test_a_person_on_both_sides_of_given_folders_is_refused_by_name(tmp_path: Path) -> None:
    for place in ("train/a/ann", "train/b/bob", "train/b/eve", "test/a/eve", "test/b/zoe", "test/a/bob"):
        picture(tmp_path / place / "0.png", 9)

    def told() -> str:
        return error_of(lambda: load("images", folder=tmp_path, image_size=8, person="folder"))

    assert "bob, eve are in both" in told()
    (tmp_path / "test" / "a" / "bob").rename(tmp_path / "test" / "a" / "rob")
    assert "same person: eve are in both" in told(), "in another class, too"
    (tmp_path / "test" / "a" / "eve").rename(tmp_path / "test" / "a" / "eva")
    load("images", folder=tmp_path, image_size=8, person="folder")


def test_a_person_on_both_sides_of_celeba_is_refused(tmp_path: Path) -> None:
    write_celeba(tmp_path)
    path = tmp_path / "celeba" / "identity_CelebA.txt"
    lines = [f"{number:06d}.jpg {number}" for number in range(1, 10)]
    path.write_text("\n".join([*lines[:2], "000003.jpg 4", *lines[3:]]) + "\n")
    told = error_of(lambda: load("celeba", folder=tmp_path, image_size=16, person="file"))
    assert "same name is the same person: 4 are in both" in told
    load("celeba", folder=tmp_path, image_size=16)  # nobody asks for persons
    path.write_text("\n".join([lines[0], "000002.jpg 3", *lines[2:]]) + "\n")
    load("celeba", folder=tmp_path, image_size=16, person="file")  # the second is for validation, and unread


def test_persons_stay_with_their_images_where_bad_ones_are_left_out(tmp_path: Path) -> None:
    folder_of_persons(tmp_path)
    (tmp_path / "a" / "p01" / "0.png").write_bytes(b"nothing")
    dataset = load("images", folder=tmp_path, image_size=8, person="folder", skip_bad=True)
    assert dataset.persons is not None
    named = dict(zip(shades(dataset.train_images), dataset.persons.tolist(), strict=True))
    assert 10 not in named
    assert named[11] == named[201]


def test_another_layout_says_what_was_expected_and_what_came(tmp_path: Path) -> None:
    def told() -> str:
        return error_of(lambda: load("images", folder=tmp_path, image_size=8, person="folder"))

    picture(tmp_path / "flat.png", 1)
    assert f"{tmp_path / 'flat.png'} lies in no person's folder" in told()
    assert "expects class/person/picture.png" in told()
    (tmp_path / "flat.png").unlink()
    picture(tmp_path / "a" / "0.png", 1)
    assert f"{tmp_path / 'a' / '0.png'} lies in no person's folder" in told()
    picture(tmp_path / "a" / "p" / "0.png", 1)
    assert "lies in no person's folder" in told(), "persons and pictures side by side"
    (tmp_path / "a" / "0.png").unlink()
    assert "no class has 6 persons that no class before it has (at most 1)" in told()
    (tmp_path / "a" / "q").mkdir()
    assert f"{tmp_path / 'a' / 'q'} holds no images; data.person = 'folder' expects class/person" in told()
    (tmp_path / "a" / "q").rmdir()
    (tmp_path / "b").mkdir()
    assert f"{tmp_path / 'b'} holds no images" in told()


def test_a_class_whose_persons_are_all_held_out_is_named(tmp_path: Path) -> None:
    for person in range(6):
        picture(tmp_path / "a" / str(person) / "0.png", person)
    picture(tmp_path / "b" / "5" / "0.png", 100)
    told = error_of(lambda: load("images", folder=tmp_path, image_size=8, person="folder"))
    assert "all pictures of the classes b are of persons who are held out" in told


def test_a_file_beside_the_idx_files_names_persons(tmp_path: Path) -> None:
    write_mnist_files(tmp_path)
    names = ["eve", "adam", "7", "007", *["eve"] * 7, " adam "]
    (tmp_path / "train-persons.txt").write_text("\n".join(names) + "\n", "utf-8")
    dataset = load("idx", folder=tmp_path, person="file")
    assert dataset.persons is not None
    assert dataset.persons.tolist() == [3, 2, 1, 0, *[3] * 7, 2]
    assert load("idx", folder=tmp_path).persons is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist: data.person = 'file' expects it beside the idx files"),
        ("a\n" * 11, "expected a line for each of 12 training images, got 11"),
        ("a\n" * 13, "expected a line for each of 12 training images, got 13"),
        ("a\n\n" + "a\n" * 10, "names no person in line 2"),
        (b"\xff\n" * 12, "cannot be read as text"),
    ],
)
def test_a_damaged_file_of_persons_is_one_clear_error(
    content: str | bytes | None, message: str, tmp_path: Path
) -> None:
    write_mnist_files(tmp_path)
    if content is not None:
        (tmp_path / "train-persons.txt").write_bytes(
            content if isinstance(content, bytes) else content.encode()
        )
    told = error_of(lambda: load("idx", folder=tmp_path, person="file"))
    assert message in told
    assert "train-persons.txt" in told


def test_celeba_says_whose_its_pictures_are(tmp_path: Path) -> None:
    write_celeba(tmp_path)
    path = tmp_path / "celeba" / "identity_CelebA.txt"

    def loaded() -> Dataset:
        return load("celeba", folder=tmp_path, image_size=16, person="file")

    assert "identity_CelebA.txt cannot be read" in error_of(loaded)
    lines = [f"{number:06d}.jpg {70 + (90 if number % 3 == 0 else number // 4)}" for number in range(1, 10)]
    path.write_text("\n".join(lines[:-2]) + "\n")
    assert "pictures have no identity, the first is 000008.jpg" in error_of(loaded)
    path.write_text("\n".join([*lines[:-1], "000009.jpg -1"]) + "\n")
    assert "damaged in line 9: expected a name and a person's number" in error_of(loaded)
    path.write_text("\n".join(lines) + "\n")
    dataset = loaded()
    assert dataset.persons is not None
    assert dataset.persons.tolist() == [0, 1, 1, 1, 2]  # of pictures 1, 4, 5, 7 and 8
    (tmp_path / "celeba" / "img_align_celeba" / "000004.jpg").write_bytes(b"nothing")
    fewer = load("celeba", folder=tmp_path, image_size=16, person="file", skip_bad=True)
    assert fewer.persons is not None
    assert fewer.persons.tolist() == [0, 1, 1, 2]


def in_a_table(folder: Path) -> Path:
    """The pictures of `folder_of_persons` without its level, in no order of persons, and a table of them."""
    rows = []
    for path in sorted(folder_of_persons(folder / "levels").rglob("*.png")):
        kind, person = path.parts[-3:-1]
        name = f"{kind}/{path.stem}{person}.png"
        (folder / kind).mkdir(exist_ok=True)
        path.rename(folder / name)
        rows.append(f"{person},{name}")
    shutil.rmtree(folder / "levels")
    (folder / "persons.csv").write_text("\n".join(["person,file", *rows[::-1]]) + "\n", "utf-8")
    return folder


def from_table(folder: Path, name: str = "persons.csv") -> Dataset:
    return load("images", folder=folder, image_size=8, person="file", person_file=name)


def test_a_table_says_of_the_same_pictures_what_a_folder_level_does(tmp_path: Path) -> None:
    levels = load("images", folder=folder_of_persons(tmp_path / "a"), image_size=8, person="folder")
    (tmp_path / "b").mkdir()
    table = from_table(in_a_table(tmp_path / "b"))
    assert levels.persons is not None
    assert table.persons is not None
    for one, two in (
        (levels.train_images, table.train_images),
        (levels.test_images, table.test_images),
        (levels.train_labels, table.train_labels),
        (levels.persons, table.persons),
    ):
        assert torch.equal(one, two)


def test_tables_with_tabs_quotes_and_other_columns_are_read(tmp_path: Path) -> None:
    in_a_table(tmp_path)
    expected = from_table(tmp_path).persons
    assert expected is not None
    lines = (tmp_path / "persons.csv").read_text().splitlines()
    cells = [line.split(",") for line in lines]
    (tmp_path / "who.tsv").write_text("".join(f"x\t{a}\t{b}\r\n" for a, b in cells), "utf-8-sig")
    (tmp_path / "quoted.csv").write_text(
        "".join(f'"{a}", ./{b} \n\n' if b != "file" else "person,file\n" for a, b in cells)
    )
    for name in ("who.tsv", "quoted.csv"):
        found = from_table(tmp_path, name).persons
        assert found is not None
        assert torch.equal(found, expected)


def test_given_train_and_test_folders_have_one_table(tmp_path: Path) -> None:
    names = ["train/a/0.png", "train/a/1.png", "train/b/0.png", "test/a/0.png", "test/b/0.png"]
    for shade, name in enumerate(names):
        picture(tmp_path / name, shade)

    def table(*persons: str) -> None:
        rows = [f"{name},{person}\n" for name, person in zip(names, persons, strict=True)]
        (tmp_path / "persons.csv").write_text("".join(["file,person\n", *rows]))

    table("zoe", "eve", "zoe", "bob", "bob")
    dataset = from_table(tmp_path)
    assert dataset.persons is not None
    assert dict(zip(shades(dataset.train_images), dataset.persons.tolist(), strict=True)) == {
        0: 1,
        1: 0,
        2: 1,
    }
    table("zoe", "eve", "bob", "eve", "bob")
    assert "bob, eve are in both" in error_of(lambda: from_table(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist: data.person = 'file' expects a table there (data.person_file)"),
        ("", "has no column 'file'; expected file and person"),
        (
            "file;person\na/0.png;p\n",
            "has no column 'file'; expected file and person, each once, in its header",
        ),
        ("file,patient\na/0.png,p\n", "has no column 'person'; "),
        ("file,person,person\na/0.png,p,q\n", "has 2 columns 'person'; "),
        ("file,person\na/0.png\n", "line 2: expected 2 fields, as in the header, got 1"),
        ("file,person\na/0.png,p\na/0.png, \n", "names no person in line 3"),
        ("file,person\na/0.png,p\na/0.png,q\n", "names two persons for a/0.png, the second in line 3"),
        ("file,person\na/0.png,p\nb/../a/0.png,q\n", "line 3: expected a file inside its folder, got b/../"),
        ("file,person\na/0.png,p\u200b\n", "line 2: the name 'p\\u200b' has a character that does not show"),
        ("file,person\na/0.png,p\nb/9.png,q\n", "names files that do not exist: 1, the first is"),
        ("file,person\na/0.png,p\n", "names no person for 1 of 2 pictures, the first is "),
        ('file,person\n"a/0.png,p\n', "is damaged in line "),
        (b"\xff,\n", "cannot be read as text"),
    ],
)
def test_a_damaged_table_of_persons_is_one_clear_error(
    content: str | bytes | None, message: str, tmp_path: Path
) -> None:
    for number in range(2):
        picture(tmp_path / "a" / f"{number}.png", number)
    if content is not None:
        (tmp_path / "persons.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    told = error_of(lambda: from_table(tmp_path))
    assert message in told
    assert "persons.csv" in told
    if "of 2 pictures" in message:
        assert told.endswith(str(tmp_path / "a" / "1.png"))


def test_a_table_that_nobody_would_read_is_refused(tmp_path: Path) -> None:
    """Somebody who names a table alone must not believe that persons are protected."""
    own = [*MEASURE, "data.source=images", f"data.folder={tmp_path}"]
    named = "data.person_file=who.tsv"
    assert load_config(None, [*own, "data.person=file", named]).data.person_file == "who.tsv"
    for person in ([], ["data.person=folder"]):
        with pytest.raises(ConfigError, match=r"data\.person_file must be left at .* which alone read it"):
            load_config(None, [*own, *person, named])
    for wrong in ("who.txt", "../who.csv", "/a/who.csv", ".csv"):
        with pytest.raises(ConfigError, match=r"data\.person_file must be the name of a \.csv or \.tsv file"):
            load_config(None, [*own, "data.person=file", f"data.person_file={wrong}"])


def test_sources_that_do_not_say_whose_an_image_is_are_refused(tmp_path: Path) -> None:
    folder = f"data.folder={tmp_path}"
    for source in ("fashion_mnist_12k", "mnist", "cifar10", "fashion_mnist"):
        of = [] if source == "fashion_mnist_12k" else [folder]
        for person in ("folder", "file"):
            with pytest.raises(ConfigError, match=r'data\.person must be none, or "folder" with'):
                load_config(None, [*MEASURE, f"data.source={source}", *of, f"data.person={person}"])
    for source, wrong, right in (
        ("idx", "folder", "file"),
        ("celeba", "folder", "file"),
    ):
        with pytest.raises(ConfigError, match=r'data\.person must be none, or "folder" with'):
            load_config(None, [*MEASURE, f"data.source={source}", folder, f"data.person={wrong}"])
        with pytest.raises(ConfigError, match=rf"person must be '{right}' with the source '{source}'"):
            load(source, folder=tmp_path, person=wrong)
        found = load_config(None, [*MEASURE, f"data.source={source}", folder, f"data.person={right}"])
        assert (found.data.person, found.record) == (right, "person")
    for right in ("folder", "file"):
        config = load_config(None, [*MEASURE, "data.source=images", folder, f"data.person={right}"])
        assert (config.data.person, config.record) == (right, "person")
    with pytest.raises(ConfigError, match=r"data\.person must be"):
        load_config(None, [*MEASURE, "data.source=images", folder, "data.person=column"])
    with pytest.raises(ConfigError, match="person must be 'folder' or 'file' with the source 'images'"):
        load("images", folder=tmp_path, person="column")
    with pytest.raises(ConfigError, match="person must be None with the source 'fashion_mnist_12k'"):
        load(person="folder")


@pytest.mark.parametrize(
    "behaviour", [["federation.behaviour=train"], ["federation.behaviour=own.module:Part"], []]
)
def test_persons_are_refused_where_nothing_is_clipped_by_person(behaviour: list[str], tmp_path: Path) -> None:
    data = ["data.source=images", f"data.folder={tmp_path}", "data.person=folder"]
    with pytest.raises(ConfigError, match=r"data\.person must be none unless .*nothing is clipped by person"):
        load_config(None, [*behaviour, *data, "privacy.record_epsilon=inf"])


def test_changed_persons_are_changed_data(tmp_path: Path) -> None:
    """The clip acts on who is who: another file of persons is not what the run has read."""
    write_mnist_files(tmp_path / "data")
    names = tmp_path / "data" / "train-persons.txt"
    names.write_text("a\nb\n" * 6)
    config = load_config(
        None, [*MEASURE, "data.source=idx", f"data.folder={tmp_path / 'data'}", "data.person=file"]
    )

    def loaded() -> Dataset:
        return load("idx", folder=tmp_path / "data", person="file")

    keep_fingerprint(tmp_path, config.data, loaded(), print, begun=False)
    assert (tmp_path / FINGERPRINT_FILE).exists()
    kept = read_fingerprint(tmp_path)
    assert kept is not None
    assert changed(kept, tmp_path / "data", loaded()) == []
    names.write_text("b\na\n" * 6)
    assert changed(kept, tmp_path / "data", loaded()) == ["training"]
    assert changed(kept, tmp_path / "data", load("idx", folder=tmp_path / "data")) == ["training"]
