"""The recipes of the published settings can be read, are what the page says, and differ in data alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args, get_type_hints

import msgspec
import pytest

import prism_secure
from prism_secure.config import Config, Data, load_config
from prism_secure.config.sections import AggregationRule, Averaging, MaskMode, PartitionScheme
from prism_secure.model.generator import Architecture, ResNetGenerator

ROOT = Path(prism_secure.__file__).parent.parent
RECIPES = sorted((ROOT / "experiments" / "paper").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_the_published_setting(path: Path) -> None:
    config = load_config(path)
    assert (config.federation.clients, config.federation.rounds, config.federation.local_steps) == (
        10,
        500,
        100,
    )
    assert (config.training.learning_rate, config.training.betas) == (0.1, (0.5, 0.999))
    assert (config.training.averaging, config.training.tracking_rate) == ("faithful", 1e-5)
    assert (config.mask.mode, config.mask.temperature) == ("bernoulli", 1.0)
    assert config.features.extractors == ("vgg19_bn",)
    assert not config.record_level
    assert config.privacy.flip == 0


def test_all_data_sets_and_both_splits_have_a_recipe() -> None:
    found = {(config.data.source, config.data.partition) for config in map(load_config, RECIPES)}
    sources = ("mnist", "fashion_mnist", "cifar10", "celeba")
    assert found == {(source, split) for source in sources for split in ("iid", "shards")}
    without_data = {msgspec.structs.replace(load_config(path), data=Data()) for path in RECIPES}
    assert len(without_data) == 1


def test_the_network_has_the_published_size() -> None:
    config = load_config(RECIPES[0])
    sizes = Architecture(latent=config.model.latent, width=config.model.width, channels=3)
    assert sizes.stage_channels == (512, 256, 128, 64)
    assert sum(weights.numel() for weights in ResNetGenerator(sizes).parameters()) == 3_544_768


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.partition=dirichlet", "data.dirichlet_alpha=0.005"],
        ["aggregation.rule=fixed"],
        ["aggregation.rule=cosine"],
        ["aggregation.rule=fixed", "aggregation.lambda_start=0.5", "aggregation.space=logit"],
        ["mask.score_layers=0.5"],
        ["privacy.flip=0.1"],
        ["aggregation.space=logit"],
        ["federation.client_fraction=0.5"],
    ],
)
def test_every_variation_that_the_table_offers_is_a_recipe(overrides: list[str]) -> None:
    text = (ROOT / "experiments" / "paper" / "README.md").read_text("utf-8")
    assert " ".join(f"--set {override}" for override in overrides) in text
    load_config(RECIPES[0], overrides)


def test_the_parity_table_names_settings_that_exist() -> None:
    sections = {section: set(get_type_hints(kind)) for section, kind in get_type_hints(Config).items()}
    text = (ROOT / "docs" / "prism.md").read_text("utf-8")
    named = re.findall(rf"`({'|'.join(sections)})\.([a-z_]+)", text)
    assert len(named) > 30
    assert [pair for pair in named if pair[1] not in sections[pair[0]] and pair != ("metrics", "jsonl")] == []
    for choices in (PartitionScheme, MaskMode, Averaging, AggregationRule):
        for value in get_args(choices):
            assert f'"{value}"' in text
