"""Lengths from the settings alone are those of the networks, and the planned epsilon needs nothing more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from prism_privacy.accounting.kappa import store as kappa_store
from prism_privacy.accounting.renyi import renyi_curve
from prism_secure.cli import main
from prism_secure.commands.config import _images
from prism_secure.config import load_config
from prism_secure.config.dimensions import _LITE0_TAPS, feature_dimension, mask_dimension
from prism_secure.config.recipes import NAMES
from prism_secure.data.features import DEFAULT_TAPS, POOLED_TAPS, EfficientNetLite0, RandomFourierFeatures
from prism_secure.model.generator import Architecture, ResNetGenerator
from prism_secure.model.supermask import Supermask
from prism_secure.rounds.components import Components

VGG = [64, 64, "M", 128, 128, "M"] + [256] * 4 + ["M"] + [512] * 4 + ["M"] + [512] * 4


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("classes", [0, 10])
@pytest.mark.parametrize(
    "settings",
    [[], ["model.width=3", "model.image_size=8"], ["model.image_size=64", "model.max_channels=20"]],
)
def test_a_mask_is_as_long_as_the_generator_has_weights(settings: list[str], classes: int, channels: int):
    config = load_config(overrides=settings)
    model = config.model
    network = ResNetGenerator(
        Architecture(
            latent=model.latent, width=model.width, image_size=model.image_size, channels=channels,
            classes=classes, max_channels=model.max_channels,
        )
    )  # fmt: skip
    assert mask_dimension(config, channels=channels, classes=classes) == Supermask(network, seed=0).dimension


@pytest.mark.parametrize("size", [8, 32, 64])
def test_features_are_as_many_as_the_extractors_say(size: int):
    assert _LITE0_TAPS == {
        "efficientnet_lite0": DEFAULT_TAPS,
        "efficientnet_lite0_pooled": POOLED_TAPS,
    }
    for names, found in (
        (["efficientnet_lite0"], EfficientNetLite0(image_size=size).dimension),
        (["efficientnet_lite0_pooled", "fourier"], 192 + RandomFourierFeatures().dimension),
    ):
        settings = [f"features.extractors={names!r}".replace("'", '"'), f"model.image_size={size}"]
        assert feature_dimension(load_config(overrides=settings)) == found
    assert EfficientNetLite0(POOLED_TAPS, image_size=size).dimension == 192


@pytest.mark.parametrize("layers", [[], [1, 3], [16]])
def test_features_of_vgg19_are_as_many_as_its_maps_hold(layers: list[int]):
    sizes, image = [], torch.zeros(1, 3, 64, 64)
    for channels in VGG:
        if channels == "M":
            image = nn.functional.max_pool2d(image, 2)
        else:
            image = torch.zeros(1, channels, *image.shape[2:])
            sizes.append(image.numel())
    settings = ["model.image_size=64", "features.bounded=false", "privacy.record_epsilon=inf"]
    settings += ['features.extractors=["vgg19_bn"]', f"features.vgg_layers={layers}"]
    config = load_config(overrides=settings)
    assert feature_dimension(config) == sum(sizes[layer - 1] for layer in layers or range(1, 17))


def test_the_bundled_images_are_as_many_as_is_said_without_reading_them():
    dataset = Components(load_config()).dataset
    assert _images(load_config()) == (dataset.channels, dataset.train_labels.bincount().tolist())


PLANNED = [
    ["privacy.flip=0.25", "privacy.clip=1"],
    ["privacy.record_release=summed", "data.partition=dirichlet"],
    ["data.partition=shards", "model.conditional=false", "federation.clients=30"],
]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """What `config --epsilon` prints of each, in lines, in one process without torch."""
    code = "import sys; from prism_secure.cli import main\n"
    for settings in PLANNED:
        words = [word for setting in settings for word in ("--set", setting)]
        code += f"assert main({['config', '--epsilon', '--recipe', 'one-shot', *words]}) == 0; print('===')\n"
    code += "assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path_factory.mktemp("planned"), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [part.splitlines() for part in done.stdout.split("===\n")[:-1]]


HEAVY = {
    "torch",
    "torchvision",
    "dp_accounting",
    "scipy.signal",
    "scipy.stats",
    "matplotlib",
    "prism_secure.rounds.components",
}
"""From 0.1 to 1.3 s of a processor to import, each."""

ASKED_OFTEN = {
    "--help": HEAVY | {"scipy", "numpy"},
    "doctor": HEAVY | {"scipy", "numpy"},  # all of it is tried in a process of its own
    "list": HEAVY | {"scipy"},
    **{f"config --epsilon --recipe {name}": HEAVY for name in NAMES},
}
"""What each must not load, and none of those before it."""


def test_what_is_asked_often_loads_nothing_heavy(tmp_path: Path):
    code = (
        "import sys; from prism_secure.cli import main\n"
        f"for command, heavy in {ASKED_OFTEN}.items():\n"
        "    try: main(command.split())\n"
        "    except SystemExit: pass\n"
        "    loaded = sorted(heavy & sys.modules.keys())\n"
        "    if loaded: sys.exit(f'{command} loads {loaded}')\n"
        "print('ALL')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env={**os.environ, "TORCH_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["ALL"]), done.stderr


@pytest.mark.parametrize("number", range(len(PLANNED)))
def test_planned_epsilons_are_those_of_the_recipe_and_need_no_torch(told: list[list[str]], number: int):
    from prism_privacy import Adjacency, View
    from prism_secure.accounting.plan import Plan
    from prism_secure.accounting.record_release import RecordRelease
    from prism_secure.wording import format_epsilon

    config, lines = load_config(overrides=PLANNED[number]), told[number]
    recipe = Components(config)
    network = Supermask(ResNetGenerator(recipe.architecture), seed=0)
    release = RecordRelease(
        config, recipe.partition.sizes, recipe.architecture.classes or 1, feature_dimension(config)
    )
    plan = Plan(config, network.dimension, release)
    assert f"{network.dimension:,} mask bits of each" in lines[1]
    assert lines[2].endswith(f"ε = {format_epsilon(release.guarantee.epsilon)}")
    for word, view in (("ε(SUM)", View.SUM), ("ε(UPLOAD)", View.UPLOAD)):
        (line,) = (line for line in lines if f": {word} " in line)
        assert line.split()[-2:] == [format_epsilon(plan.epsilon(view, way)) for way in Adjacency]


def test_constants_of_the_default_recipe_are_shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A first run, or `config --epsilon`, would wait a second and more for them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kappa_store._curve.cache_clear()
    kappa_store._table.cache_clear()
    renyi_curve.cache_clear()
    assert main(["config", "--epsilon"]) == 0
    assert not list(tmp_path.rglob("*.npz"))
