"""Recipes that the documentation shows people are small, and still learn something."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from prism_secure.config import config_of
from prism_secure.config.recipes import on_recipe
from prism_secure.rounds.simulation import run
from prism_secure.run_folder.folder import read_records

DOCS = Path(__file__).parents[2] / "docs"


def shown(page: str, pattern: str) -> dict[str, object]:
    """The settings of the one run that a page's recipe is about."""
    (text,) = re.findall(pattern, (DOCS / page).read_text("utf-8"), flags=re.S)
    raw = tomllib.loads(text)
    raw.pop("sweep", None)
    return on_recipe(raw)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "pattern"),
    [
        ("deploy.md", r"cat > recipe\.toml <<'END'\n(.*?)\nEND\n"),
        ("sweeps.md", r"`flip\.toml`:\n\n```toml\n(.*?)```"),
    ],
)
def test_every_round_of_a_shown_recipe_changes_the_mask_and_the_last_image_is_better(
    tmp_path: Path, page: str, pattern: str
) -> None:
    run(config_of(shown(page, pattern), page), tmp_path / "run")
    records = read_records(tmp_path / "run")
    assert all(record.changed for record in records)
    first, last = records[0].quality, records[-1].quality
    assert first is not None
    assert last is not None
    assert last.fid < 0.9 * first.fid < 0.9 * 600, "an untrained generator has 670 to 710"
