"""The driver of experiments/measured_rounds: an orthonormal embedding, and each image with one client."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard, sqrtm

SCRIPT = runpy.run_path(str(Path(__file__).parents[3] / "experiments" / "measured_rounds" / "simulate.py"))


@pytest.mark.parametrize("size", [1, 2, 16])
def test_the_fast_transform_is_the_hadamard_matrix(size):
    rows = np.random.default_rng(1).standard_normal((3, size)).astype(np.float32)
    assert SCRIPT["hadamard"](rows) == pytest.approx(rows @ hadamard(size) / size**0.5, abs=1e-6)


def test_dirichlet_clients_share_out_all_images_and_have_few_classes():
    labels = np.arange(600) % 10
    held = SCRIPT["dirichlet"](labels, 60, 1)
    assert sorted(np.concatenate(held).tolist()) == list(range(600))
    assert np.median([len(set(labels[images])) for images in held]) == 1


def test_principal_directions_are_the_same_by_either_matrix():
    rows = np.random.default_rng(2).standard_normal((5, 8))
    few, sizes = SCRIPT["principal"](rows, 3)
    doubled, twice = SCRIPT["principal"](np.concatenate([rows, rows]), 3)
    assert sizes == pytest.approx(twice)
    assert np.abs(np.sum(few * doubled, axis=1)) == pytest.approx(np.ones(3))


def test_pairs_around_their_class_are_as_long_as_frechets_distance():
    draws, variances = np.random.default_rng(3), np.array([0.5, 0.2, 0.1])
    other = np.diag(variances)
    other += 2e-4 * np.outer(x := draws.standard_normal(3), x)
    points = 3**0.5 * np.linalg.cholesky(other).T  # three points of this second moment
    trainer = SCRIPT["WithPairs"](None, np.eye(3, 4), variances, 2)
    trainer.centres = torch.from_numpy(draws.standard_normal((2, 4))).float()
    phi = torch.nn.functional.pad(torch.from_numpy(points).float(), (0, 1)) + trainer.centres[1]
    found = trainer.extended(phi, torch.ones(3, dtype=torch.int64)).mean(0)
    distance = np.trace(np.diag(variances) + other - 2 * sqrtm(np.diag(variances) @ other).real)
    assert found[:4].tolist() == phi.mean(0).tolist()
    assert float(found[4:].square().sum()) == pytest.approx(distance, rel=0.02)
