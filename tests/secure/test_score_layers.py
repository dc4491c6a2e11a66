"""PRISM-alpha: which layers send scores, that their sum is exact, and that it promises no privacy."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from prism_secure.config import Mask, load_config
from prism_secure.learning.aggregation import aggregate
from prism_secure.learning.score_layers import ScoreLayers
from prism_secure.rounds.client import Client
from prism_secure.rounds.components import Components
from prism_secure.rounds.server import Server
from prism_secure.rounds.simulation import run
from prism_secure.run_folder.folder import client_folder, read_records

from .tiny_data import TINY, write_data

SIZES = (40, 10, 5, 5)


def test_the_last_layers_send_scores() -> None:
    assert ScoreLayers.of(Mask(), SIZES) is None
    some = [ScoreLayers.of(Mask(score_layers=share), SIZES) for share in (0.01, 0.25, 0.5, 0.99)]
    assert [layers.start for layers in some if layers] == [55, 55, 50, 40]
    for layers in range(2, 60):
        for last in range(1, layers):
            found = ScoreLayers.of(Mask(score_layers=last / layers), [1] * layers)
            assert found is not None
            assert found.start == layers - last


def test_the_opened_mean_is_that_of_the_clipped_log_odds() -> None:
    layers = ScoreLayers.of(Mask(score_layers=0.5, score_limit=3.0, score_bits=16), SIZES)
    assert layers is not None
    log_odds = np.array([[0.0, 1.5, -9.0], [0.0, 0.5, -1.0], [0.0, -2.0, -3.0]])
    counts = sum(layers.encode(1 / (1 + np.exp(-each))) for each in log_odds)
    mean = layers.mean_theta(np.asarray(counts), survivors=3)
    found = np.log(mean / (1 - mean))
    assert found == pytest.approx(np.clip(log_odds, -3, 3).mean(0), abs=6 / 65534)
    assert found[0] == 0  # the grid holds 0: a score that says nothing moves nothing


def test_bits_and_scores_move_theta_together() -> None:
    config = load_config(None, ["mask.score_layers=0.5", "privacy.flip=0", "aggregation.rule=kalman"])
    theta = np.full(6, 0.5)
    step = aggregate(
        theta, np.array([4, 0, 2, 2]), survivors=4, flip=0.0, progress=0.0, theta_min=0.01,
        aggregation=config.aggregation, score_mean=np.array([0.9, 0.2]),
    )  # fmt: skip
    assert step.theta[4:] == pytest.approx([0.9, 0.2])  # known without noise: the whole way
    assert 0.5 < step.theta[0] < 0.99
    with pytest.raises(ValueError, match="shape"):
        aggregate(
            theta, np.array([4, 0, 2, 2]), survivors=4, flip=0.0, progress=0.0, theta_min=0.01,
            aggregation=config.aggregation, score_mean=np.array([0.9]),
        )  # fmt: skip


def test_a_run_sums_scores_securely_and_claims_nothing_for_a_client(tmp_path: Path) -> None:
    settings = [
        *TINY,
        f"data.folder={write_data(tmp_path / 'data')}",
        "federation.rounds=1",
        "privacy.flip=0",
        "privacy.record_epsilon=inf",
    ]
    config = load_config(None, [*settings, "mask.score_layers=0.4"])
    recipe, out = Components(config), tmp_path / "run"
    layers = recipe.score_layers
    assert layers is not None
    dimension = recipe.trainer.dimension
    assert 0 < layers.start < dimension
    run(config, out)
    (record,) = read_records(out)
    assert math.isinf(record.epsilon.sum_zero_out)
    assert record.bits_per_parameter > 2 + 16 * (dimension - layers.start) / dimension

    # What the server opened is what the clients kept, and nothing but the sum was needed for theta.
    (out / "other").mkdir()
    server = Server.of(recipe, (out / "federation.id").read_text())
    broadcast = server.broadcast()
    bits, scores = [], []
    for index in range(3):
        client = Client(index, client_folder(out / "other", index), recipe)
        client.prepare(broadcast.federation)
        client.answer(broadcast)
        bits.append(client.bits(broadcast).astype(np.int64))
        scores.append(client.scores(broadcast))
        assert len(bits[-1]) == layers.start
        assert len(scores[-1]) == dimension - layers.start
    server.absorb(sum(bits), 3, planned_rounds=1, score_mean=layers.mean_theta(sum(scores), 3))
    trained = Server.of(recipe, "")
    trained.load(out / "checkpoint" / "server.safetensors")
    # Scores are the same whatever the coins; bits are not.
    assert np.array_equal(server.theta[layers.start :], trained.theta[layers.start :])
    assert not np.array_equal(server.theta[: layers.start], trained.theta[: layers.start])
