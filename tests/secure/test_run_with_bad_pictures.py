"""A run over a folder of pictures of which some cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from prism_secure.cli import main
from prism_secure.data import load
from prism_secure.data.skipped import FILE

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
    return main(["run", "--out", str(out), *(word for each in chosen for word in ("--set", each))])


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
    assert "2 could not be read and were left out" in report
    for path in out.rglob("*"):
        if path.is_file() and path != private:
            assert b"Jane Doe" not in path.read_bytes(), path
