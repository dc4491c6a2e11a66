"""The driver of experiments/measured_rounds: an orthonormal embedding, and each image with one client."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import hadamard

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
