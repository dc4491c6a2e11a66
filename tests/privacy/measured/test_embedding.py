"""E has orthonormal columns by construction, the same on every machine."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import hadamard

from prism_privacy import InvalidParameter
from prism_privacy.measured import HadamardEmbedding


@pytest.mark.parametrize(("size", "directions"), [(1, 1), (2, 2), (16, 5), (256, 256), (1 << 14, 96)])
def test_columns_are_orthonormal_exactly(size: int, directions: int) -> None:
    signs = HadamardEmbedding(b"s" * 32, size, size, directions).signs.astype(np.int64)
    assert np.array_equal(signs @ signs.T, size * np.eye(directions, dtype=np.int64))
    assert set(np.unique(signs)) <= {-1, 1}


def test_columns_are_those_of_a_hadamard_matrix_up_to_the_signs_of_rows() -> None:
    embedding = HadamardEmbedding(b"t" * 32, 64, 64, 10)
    columns = embedding.signs[:, :].T.astype(int)
    matrix = hadamard(64)
    diagonal = None
    for candidate in range(64):  # the first column is some column of H times the diagonal
        tried = columns[:, 0] * matrix[:, candidate]
        if all(any((columns[:, j] * tried == column).all() for column in matrix.T) for j in range(10)):
            diagonal = tried
            break
    assert diagonal is not None
    # random signs are near no column of H: without them one coordinate would get the sum of all answers
    assert abs(matrix @ diagonal).max() < 40


def test_embedding_is_exact_at_the_largest_answers_and_projecting_undoes_it() -> None:
    rng = np.random.default_rng(0)
    embedding = HadamardEmbedding(b"u" * 32, 1 << 14, 1 << 14, 700)
    answers = rng.integers(-(1 << 40), 1 << 40, (3, 700))
    moved = embedding.embed(answers)
    places = rng.integers(0, 1 << 14, 50)
    slow = [
        [sum(int(a) * int(s) for a, s in zip(row, embedding.signs[:, i], strict=True)) for i in places]
        for row in answers
    ]
    assert moved[:, places].tolist() == slow
    back = embedding.project(moved / 128)
    assert np.allclose(back, answers, rtol=1e-12, atol=1)
    assert np.allclose(embedding.project(moved[1] / 128), back[1])


def test_another_seed_draws_other_coordinates_columns_and_signs() -> None:
    one, other = (HadamardEmbedding(seed, 4096, 1024, 8) for seed in (b"a" * 32, b"b" * 32))
    assert len(set(one.coordinates.tolist())) == 1024
    assert (np.diff(one.coordinates) > 0).all()
    assert one.coordinates.max() < 4096
    shared = len(set(one.coordinates.tolist()) & set(other.coordinates.tolist()))
    assert 180 < shared < 340  # 256 expected
    assert 300 < (one.signs[0] == other.signs[0]).sum() < 724


def test_every_coordinate_is_as_likely_as_any_other() -> None:
    counts = np.zeros(64)
    for i in range(2000):
        counts[HadamardEmbedding(i.to_bytes(32, "big"), 64, 16, 1).coordinates] += 1
    assert abs(counts - 500).max() < 5 * (2000 * 0.25 * 0.75) ** 0.5


@pytest.mark.parametrize("size", [0, 3, 24, 1000, 8192])
def test_a_size_that_is_no_power_of_two_or_above_the_dimension_is_refused(size: int) -> None:
    with pytest.raises(InvalidParameter, match="size"):
        HadamardEmbedding(bytes(32), 4096, size, 1)


def test_sizes_beyond_what_the_proof_covers_are_refused() -> None:
    with pytest.raises(InvalidParameter, match="size"):
        HadamardEmbedding(bytes(32), 1 << 22, 1 << 21, 8)
    with pytest.raises(InvalidParameter, match="directions"):
        HadamardEmbedding(bytes(32), 1 << 14, 1 << 13, (1 << 12) + 1)
    with pytest.raises(InvalidParameter, match="seed"):
        HadamardEmbedding("x" * 32, 16, 16, 8)  # type: ignore[arg-type]
