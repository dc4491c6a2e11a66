"""What a run would trip over must be said before anything is written, charged or released."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from prism_secure.config import load_config
from prism_secure.errors import ConfigError, DataError, FeatureError, PrismError
from prism_secure.public_seed import public_seed
from prism_secure.rounds.components import Recipe
from prism_secure.rounds.simulation import run


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


def test_all_files_that_are_missing_are_named_at_once(tmp_path: Path) -> None:
    settings = ["data.source=mnist", "data.folder=nowhere", "metrics.features=inception_v3"]
    with pytest.raises(DataError) as found:
        run(load_config(None, [*settings, 'features.extractors=["vgg19_bn"]']), tmp_path / "run")
    for name in ("nowhere", "data.download = true", "InceptionV3", "VGG19-BN"):
        assert name in str(found.value)


def test_default_recipe_can_be_built() -> None:
    recipe = Recipe(load_config())
    recipe.check()
    assert recipe.trainer.dimension == 307_600
    assert recipe.partition.sizes == (1000,) * 10


def test_bounded_features_of_clients_images_have_norm_one_at_most_and_their_units_from_the_seed() -> None:
    overrides = ["features.bounded=true", 'features.extractors=["fourier"]', "training.variance_weight=0"]
    recipe = Recipe(load_config(None, overrides))
    found, labels = recipe.features(0)
    norms = np.linalg.norm(found, axis=1)
    assert found.shape == (1000, recipe.extractor.dimension)
    assert labels.shape == (1000,)
    assert norms.max() <= 1 + 1e-6
    assert norms.mean() > 0.5
    assert not recipe.trainer.matching.scaled
    assert recipe.trainer.matching.variance_weight == 0
    again, other = (Recipe(load_config(None, [*overrides, f"federation.seed={seed}"])) for seed in (0, 1))
    assert torch.equal(again.extractor.gain, recipe.extractor.gain)
    assert not torch.equal(other.extractor.gain, recipe.extractor.gain)


def test_seeds_of_different_purposes_differ() -> None:
    seeds = {public_seed(0, "weights"), public_seed(1, "weights"), public_seed(0, "latents", 1, 2)}
    assert len(seeds | {public_seed(0, "latents", 12)}) == 4
    assert public_seed(0, "weights") == public_seed(0, "weights")
