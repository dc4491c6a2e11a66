"""What experiments run are recipes: a renamed setting must not be found out by a night of runs."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import prism_secure
from prism_secure.config import load_config
from prism_secure.data import load

EXPERIMENTS = Path(prism_secure.__file__).parent.parent / "experiments"


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(name).stem, EXPERIMENTS / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _options(out: Path = Path("unused"), images: int = 0) -> argparse.Namespace:
    return argparse.Namespace(
        regime="short", width=8, features=["fourier"], workers=1, overrides=[], images=images, out=out
    )


def test_every_ablation_differs_from_the_base() -> None:
    ablation = _script("ablation/ablation.py")
    base = load_config(None, list(ablation.BASE))
    for name, settings in ablation.ROWS.items():
        flip = [] if not name.startswith("alpha") else ["privacy.flip=0"]
        assert (load_config(None, [*ablation.BASE, *flip, *settings]) == base) == (name == "base"), name


def test_rounds_and_steps_are_traded_at_equal_work() -> None:
    ablation = _script("ablation/ablation.py")
    for name in ("base", "rounds-5", "rounds-20", "rounds-50"):
        config = load_config(None, [*ablation.BASE, *ablation.ROWS[name]])
        assert config.federation.rounds * config.federation.local_steps == 100


@pytest.mark.parametrize("regime", ["short", "long"])
def test_both_algorithms_get_the_same_data_network_steps_and_measure(regime: str) -> None:
    compare = _script("compare_official/compare.py")
    options = _options()
    options.regime = regime
    _, official = compare.recipe("official", "shards-4", 0.1, 2, options)
    _, ours = compare.recipe("ours", "shards-4", 0.1, 2, options)
    for section in ("data", "federation", "features", "privacy", "metrics", "secure_sum"):
        assert getattr(official, section) == getattr(ours, section)
    assert official.training.batch_size == ours.training.batch_size
    assert (official.model.width, official.model.latent) == (ours.model.width, ours.model.latent)
    steps = ours.federation.rounds * ours.federation.local_steps
    assert steps == {"short": 100, "long": 2000}[regime]
    assert (official.training.averaging, official.mask.mode) == ("faithful", "bernoulli")


def test_the_table_takes_the_last_round_of_each_run_and_their_ratio() -> None:
    compare = _script("compare_official/compare.py")
    lines = [
        {
            "name": f"short-{method}-iid-f0-s{seed}", "regime": "short", "method": method, "split": "iid",
            "flip": 0.0, "seed": seed, "round": number, "steps": 10 * number, "fid": fid - 10 * number + seed,
            "coverage": 0.25,
        }
        for method, fid in (("official", 410.0), ("ours", 110.0))
        for seed in (0, 2)
        for number in (5, 10)
    ]  # fmt: skip
    rows = compare.table(lines).splitlines()[2:]
    assert rows == [
        "| short | iid | 0 | published algorithm | 2 | 311.0 (310.0 to 312.0) | 0.250 | 1.00 |",
        "| short | iid | 0 | ours | 2 | 11.0 (10.0 to 12.0) | 0.250 | 0.04 |",
    ]
    ours_alone = [line for line in lines if line["method"] == "ours"]
    assert len(compare.table(ours_alone).splitlines()) == 2


def test_fewer_images_are_the_first_of_the_bundled_ones(tmp_path: Path) -> None:
    compare = _script("compare_official/compare.py")
    compare.write_images(tmp_path, 50)
    small, bundled = load("idx", folder=tmp_path, image_size=28), load(image_size=28)
    assert torch.equal(small.train_images, bundled.train_images[:50])
    assert torch.equal(small.train_labels, bundled.train_labels[:50])
    assert torch.equal(small.test_images, bundled.test_images)
