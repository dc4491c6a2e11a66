"""The baselines get a fair chance: their sums are exact, and their epsilon is what it says."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from dp_accounting import gaussian_mechanism

import prism_secure
from prism_privacy import Adjacency, View
from prism_secure.config import Config, load_config
from prism_secure.learning.moment_matching import FakeAverages
from prism_secure.rounds.components import Components

from .tiny_data import TINY, write_data


@pytest.fixture(scope="module")
def baselines() -> ModuleType:
    path = Path(prism_secure.__file__).parent.parent / "experiments" / "baselines" / "baselines.py"
    spec = importlib.util.spec_from_file_location("baselines", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def _moves(clip: float | None, noise: float = 1.0) -> dict[str, float | None]:
    return {"clip": clip, "noise": noise, "learning_rate": 0.01}


def test_fixed_point_moves_average_to_the_mean_move(baselines: ModuleType) -> None:
    encode, decode, bound, noise = baselines._grid(load_config(), 50, **_moves(None))
    moves = np.random.default_rng(0).normal(0, 0.1, (10, 50))
    words = [encode(move) for move in moves]
    assert max(int(each.max()) for each in words) <= bound
    assert decode(sum(words), 10) == pytest.approx(moves.mean(0), abs=1e-4)
    assert noise == 0


def test_noised_moves_are_clipped_and_carry_the_noise_that_epsilon_counts(baselines: ModuleType) -> None:
    config = load_config(None, ["secure_sum.min_survivors=8", "privacy.colluders=2"])
    encode, decode, bound, noise = baselines._grid(config, 4000, **_moves(0.5, 1.5))
    assert noise == pytest.approx(1.5, rel=1e-3)
    move = np.zeros(4000)
    move[:2] = 30.0, 40.0  # of norm 50, a hundred times the clip
    words = [encode(move) for _ in range(6)]
    assert min(int(each.min()) for each in words) >= 0
    assert max(int(each.max()) for each in words) <= bound
    mean = decode(sum(words), 6)
    # Six honest clients bring 1.5 clips of noise on the sum, so 1.5 * 0.5 / 6 on the mean.
    assert float(mean[2:].std()) == pytest.approx(1.5 * 0.5 / 6, rel=0.05)
    assert mean[:2] == pytest.approx([0.3, 0.4], abs=5 * 1.5 * 0.5 / 6)


@pytest.mark.parametrize("clip", [None, 0.5])
def test_a_weight_that_overflowed_has_not_moved_and_the_others_are_clipped(
    baselines: ModuleType, monkeypatch: pytest.MonkeyPatch, clip: float | None
) -> None:
    monkeypatch.setattr(
        baselines, "sample_discrete_gaussian", lambda s, size, coins: np.zeros(size, np.int64)
    )
    encode, decode, bound, _ = baselines._grid(load_config(), 5, **_moves(clip))
    move = np.array([math.nan, math.inf, -math.inf, 30.0, 40.0])
    words = encode(move)
    assert int(words.min()) >= 0
    assert int(words.max()) <= bound
    found = decode(words, 1)
    assert found[:3] == pytest.approx([0, 0, 0], abs=1e-9)
    assert found == pytest.approx(decode(encode(np.nan_to_num(move, nan=0, posinf=0, neginf=0)), 1))
    if clip:
        assert found[3:] == pytest.approx([0.3, 0.4], abs=1e-4)


@pytest.mark.parametrize("noise", [0.0, 50.0])
@pytest.mark.parametrize("mode", ["exact", "client", "summed"])
def test_epsilon_of_a_client_is_that_of_what_left_it(
    baselines: ModuleType, tmp_path: Path, mode: str, noise: float
) -> None:
    release = {
        "exact": ["privacy.record_epsilon=inf"],
        "client": ["privacy.record_epsilon=1", "privacy.record_release=client"],
        "summed": ["privacy.record_epsilon=0.1", "privacy.record_release=summed"],
    }[mode]
    config = load_config(
        None, [*TINY, f"data.folder={write_data(tmp_path / 'data')}", "federation.rounds=1", *release]
    )
    recipe, folder = Components(config), tmp_path / "run"
    folder.mkdir()
    rounds = baselines.fedavg(recipe, folder, **_moves(0.5 if noise else None, noise))
    found = next(rounds).epsilon_client
    if mode == "summed":  # noise on the moves takes nothing back
        moments = recipe.record_release
        assert moments is not None
        assert found == moments.client_epsilon(View.SUM, Adjacency.ZERO_OUT)
        assert found > 0.1
    elif noise:  # the moves left, whatever stayed at home
        assert found == pytest.approx(gaussian_mechanism.get_epsilon_gaussian(noise, 1e-5), rel=0.01)
    else:
        assert math.isinf(found)


def test_an_unnoised_difference_of_two_worlds_is_never_longer_than_the_clip(
    baselines: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        baselines, "sample_discrete_gaussian", lambda s, size, coins: np.zeros(size, np.int64)
    )
    encode, _, bound, _ = baselines._grid(load_config(), 999, **_moves(0.3))
    rng = np.random.default_rng(1)
    for scale in (1e-6, 1e-2, 1.0, 1e6):
        units = encode(rng.normal(0, scale, 999)) - bound // 2
        assert float(np.linalg.norm(units)) <= baselines.CLIP_UNITS


def test_epsilon_of_many_rounds_is_that_of_one_gaussian_with_less_noise(baselines: ModuleType) -> None:
    found = baselines.gaussian_epsilon(2.0 / math.sqrt(16), 1e-5)
    oracle = gaussian_mechanism.get_epsilon_gaussian(0.5, 1e-5)
    assert found == pytest.approx(oracle, rel=1e-6)
    assert found >= oracle


def test_dense_weights_learn_what_the_client_knows(baselines: ModuleType, tmp_path: Path) -> None:
    config: Config = load_config(
        None, [*TINY, f"data.folder={write_data(tmp_path)}", "privacy.record_epsilon=inf"]
    )
    recipe = Components(config)
    trainer, target = baselines.DenseTrainer(recipe, 1e-2), recipe.targets(0)
    features = recipe.extractor.dimension

    def loss(weights: torch.Tensor) -> float:
        latents, labels = baselines.draw_latents(100, recipe.architecture, torch.Generator().manual_seed(1))
        with torch.no_grad():
            found = recipe.extractor(trainer.network(weights, latents, labels))
            return float(
                recipe.trainer.matching(found, labels, target, FakeAverages.zero(10, features, "ema"))[0]
            )

    start = trainer.initial_state()
    trained, kept = trainer.train(trainer.initial, start, target, steps=8, seed=0)
    assert (start.step, kept.step) == (0, 8)
    assert not start.first.any()
    half, state = trainer.train(trainer.initial, start, target, steps=4, seed=0)
    assert not torch.equal(trainer.train(half, start, target, steps=4, seed=1)[0],
                           trainer.train(half, state, target, steps=4, seed=1)[0])  # fmt: skip
    assert loss(trained) < 0.9 * loss(trainer.initial)
    assert torch.equal(trainer.network.weights, torch.ones_like(trainer.initial))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--noise", "nan"], "--noise must be a positive number, got nan"),
        (["--noise", "0"], "--noise must be a positive number, got 0.0"),
        (["--clip", "inf"], "--clip must be a positive number, got inf"),
    ],
)
def test_noise_and_clip_are_positive_numbers(
    baselines: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    command = ["baselines.py", "dp-fedavg", "--out", str(tmp_path), "--clip", "1", *options]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit):
        baselines.main()
    assert message in capsys.readouterr().err


def test_noised_moves_that_were_begun_are_not_made_again(
    baselines: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "dp-fedavg").mkdir()
    monkeypatch.setattr(sys, "argv", ["baselines.py", "dp-fedavg", "--out", str(tmp_path), "--clip", "1"])
    with pytest.raises(SystemExit):
        baselines.main()
    assert "was begun and not finished" in capsys.readouterr().err
