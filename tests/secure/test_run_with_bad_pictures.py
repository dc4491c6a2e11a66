"""A run over a folder of pictures of which some cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from prism_secure.cli import main
from prism_secure.config import load_config
from prism_secure.data import load
from prism_secure.data.skipped import FILE
from prism_secure.errors import ConfigError, DataError, public_text
from prism_secure.rounds.components import Components

from .tiny_data import TINY

SETTINGS = [*TINY[:-1], "data.source=images"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """The first bundled images as PNG files, two of them damaged."""
    bundled = load(image_size=28)
    for number, (image, label) in enumerate(
        zip(bundled.train_images[:240, 0].numpy(), bundled.train_labels[:240].tolist(), strict=True)
    ):
        folder = tmp_path / "pictures" / f"class {label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:03}.png")
    for path in sorted((tmp_path / "pictures" / "class 0").iterdir())[:2]:
        path.rename(path.with_name(f"Jane Doe [b] {path.name}"))
        (path.with_name(f"Jane Doe [b] {path.name}")).write_bytes(b"")
    return tmp_path / "pictures"


def run(out: Path, pictures: Path, *settings: str) -> int:
    chosen = [*SETTINGS, f"data.folder={pictures}", *settings]
    words = (word for each in chosen for word in ("--set", each))
    return main(["run", "--out", str(out), "--recipe", "one-shot", *words])


def test_names_of_skipped_pictures_stay_with_their_owner_and_only_their_number_is_reported(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "run"
    assert run(out, pictures) == 3
    assert sum("Jane Doe [b]" in line for line in capsys.readouterr().err.splitlines()) == 2
    assert not out.exists() or not list(out.rglob("report.html"))
    assert run(out, pictures, "data.skip_bad=true") == 0
    assert capsys.readouterr().out.count("Jane Doe [b]") == 2
    private = out / "clients" / FILE
    assert private.read_text().count("Jane Doe [b]") == 2
    assert private.stat().st_mode & 0o777 == 0o600
    report = (out / "report.html").read_text()
    assert str(pictures) not in report
    assert "data.folder=… --set data.skip_bad=true" in report
    assert "2 could not be read and were left out" in report
    for path in out.rglob("*"):
        if path.is_file() and path != private:
            assert b"Jane Doe" not in path.read_bytes(), path


def kept_in(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("forked")
def test_a_sweep_over_bad_pictures_keeps_their_number_and_kinds_and_no_name(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
):
    recipe, out = tmp_path / "recipe.toml", tmp_path / "sweep"
    recipe.write_text("[privacy]\nrecord_release = 'client'\n[sweep.grid]\nprivacy.flip = [0.1]\n")
    chosen = [*SETTINGS, f"data.folder={pictures}"]
    words = [word for each in chosen for word in ("--set", each)]
    assert main(["sweep", str(recipe), "--out", str(out), "--workers", "1", *words]) == 6
    said = capsys.readouterr()
    assert "Jane Doe [b]" in said.out + said.err
    assert main(["report", str(out)]) == 0
    kept = kept_in(out)
    assert {"runs.csv", "study.db", "report.html"} <= {path.name for path in kept}
    for path, data in kept.items():
        assert b"Jane Doe" not in data, path
        assert path.suffix != ".html" or str(pictures).encode() not in data
    (point,) = (out / "points").iterdir()
    assert "2 of 240 pictures cannot be read (2 .png); only the console says their names" in point.read_text()
    assert str(pictures) not in point.read_text()


def test_a_resume_and_an_audit_over_a_picture_damaged_since_keep_no_name(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "run"
    for path in (pictures / "class 0").glob("Jane*"):
        path.unlink()
    good = next((pictures / "class 1").iterdir())
    (victim := good.with_name("Jane Doe [c].png")).write_bytes(good.read_bytes())
    assert run(out, pictures) == 0
    victim.write_bytes(b"")
    capsys.readouterr()
    main(["audit", "run", str(out)])
    said = capsys.readouterr()
    assert said.err.count("Jane Doe [c].png cannot be read") == 1
    assert "pictures cannot be read (1 .png)" in (out / "audit.json").read_text()
    for name in ("DONE", "model.safetensors"):
        (out / name).unlink()
    assert run(out, pictures) == 3
    assert "Jane Doe [c]" in capsys.readouterr().err
    for path, data in kept_in(out).items():
        assert b"Jane Doe" not in data, path


def test_whatever_is_wrong_with_ones_own_files_only_the_console_hears_which(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "celeba").mkdir()
    (tmp_path / "celeba" / "list_attr_celeba.txt").write_text("1\nMale\nJane-Doe.jpg x\n")
    (tmp_path / "idx").mkdir()
    (tmp_path / "idx" / "train-images-idx3-ubyte").write_bytes(b"no")
    for source, folder in (
        ("celeba", tmp_path),
        ("idx", tmp_path / "idx"),
        ("images", tmp_path / "Jane Doe"),
    ):
        with pytest.raises(DataError) as caught:
            load(source, folder=folder)
        assert str(tmp_path) in str(caught.value)
        assert public_text(caught.value) == "the data cannot be used: the console says why"

    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self / "Jane Doe"))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=r"Permission denied.*Jane Doe") as caught:
        load("images", folder=pictures)
    assert public_text(caught.value) == "the data cannot be used: the console says why"


def test_one_colour_picture_changes_nothing_public_once_channels_are_declared(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
):
    claim, note = ("privacy.record_epsilon=2", "privacy.record_release=client"), "ε(image) does not cover"
    for path in (pictures / "class 0").glob("Jane*"):
        path.unlink()
    grey = next((pictures / "class 1").iterdir())
    Image.open(grey).convert("RGB").save(grey)
    assert load("images", folder=pictures).channels == 3
    assert run(tmp_path / "found", pictures, *claim, "federation.rounds=1") == 0
    said = capsys.readouterr().out
    assert said.count(note) == 1
    assert f"{note} that one colour picture makes all of them colour" in said.replace("\n", " ")
    assert run(tmp_path / "declared", pictures, *claim, "federation.rounds=1", "data.channels=1") == 0
    assert note not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["data.source=images"], ["data.channels"]),
        (["data.source=images", "data.channels=3"], []),
        (["data.source=images", "data.channels=3", "data.skip_bad=true"], ["data.skip_bad"]),
        (["data.source=images", "data.skip_bad=true"], ["data.channels", "data.skip_bad"]),
        (["data.source=celeba"], []),
        (["data.source=celeba", "data.skip_bad=true"], ["data.skip_bad"]),
        (["data.source=idx"], ["highest label"]),
        (["data.source=mnist"], []),
        (["data.source=images", "privacy.record_epsilon=inf"], []),
    ],
)
def test_what_one_picture_changes_outside_epsilon_is_said_of_each_source(
    settings: list[str], words: list[str]
):
    release = ["privacy.record_epsilon=2", *settings]
    measured = [*settings, "federation.behaviour=measure", "privacy.record_epsilon=inf"]
    both = [release] if "privacy.record_epsilon=inf" in settings else [release, measured]
    for each in both:
        text = Components(load_config(None, ["data.folder=x", *each])).uncovered
        assert bool(text) == bool(words)
        assert [word for word in ("data.channels", "data.skip_bad", "highest label") if word in text] == words


@pytest.mark.parametrize("channels", ["2", "-1", "4"])
def test_channels_that_no_picture_has_are_refused(channels: str):
    with pytest.raises(ConfigError, match=r"channels must be 1 \(grey\), 3"):
        load_config(None, [f"data.channels={channels}"])
