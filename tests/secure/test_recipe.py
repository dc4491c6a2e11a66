"""What a run would trip over must be said before anything is written, charged or released."""

from __future__ import annotations

from pathlib import Path

import pytest

from prism_secure.config import load_config
from prism_secure.errors import ConfigError, DataError, FeatureError, PrismError
from prism_secure.federation import run
from prism_secure.recipe import Recipe, public_seed


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        (["metrics.features=inception_v3"], FeatureError),
        (['features.extractors=["vgg19_bn"]'], FeatureError),
        (["data.source=images", "data.folder=nowhere"], DataError),
        (["training.batch_size=15"], ConfigError),
        (["data.partition=shards", "data.shards_per_client=5000"], ConfigError),
    ],
)
def test_what_is_missing_is_said_before_a_folder_is_made(
    overrides: list[str], error: type[PrismError], tmp_path: Path
) -> None:
    with pytest.raises(error):
        run(load_config(None, overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_default_recipe_can_be_built() -> None:
    recipe = Recipe(load_config())
    recipe.check()
    assert recipe.trainer.dimension == 307_600
    assert recipe.partition.sizes == (1000,) * 10


def test_seeds_of_different_purposes_differ() -> None:
    seeds = {public_seed(0, "weights"), public_seed(1, "weights"), public_seed(0, "latents", 1, 2)}
    assert len(seeds | {public_seed(0, "latents", 12)}) == 4
    assert public_seed(0, "weights") == public_seed(0, "weights")
