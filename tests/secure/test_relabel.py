"""Labels by the release: Friedman's discriminant from what opened, and data sets that have its labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from prism_privacy import MomentRelease, NoisySums, release_moments
from prism_secure.cli import main
from prism_secure.config import load_config
from prism_secure.data.features import BoundedFeatures, RandomFourierFeatures, WithProducts
from prism_secure.data.public_images import dead_leaves
from prism_secure.errors import ConfigError
from prism_secure.learning.discriminant import LEAST_RIDGE, OWN, RIDGE, Discriminant
from prism_secure.rounds.simulation import run

from .tiny_data import TINY, write_data

COUNT = 20


@pytest.fixture(scope="module")
def extractor() -> WithProducts:
    public = dead_leaves(64, side=8, seed=1)
    return WithProducts(BoundedFeatures([RandomFourierFeatures(100, sides=(8,))], public), public, COUNT)


def pictures(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Three kinds: bright above, bright to the left, and neither, under much noise, the last under less."""
    draws = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = 0.6 * torch.randn(count, 1, 8, 8, generator=draws)
    images[labels == 2] *= 0.8
    images[labels == 0, :, :4] += 0.5
    images[labels == 1, :, :, :4] += 0.5
    return images.clamp(-1, 1), labels


def released(extractor: WithProducts, classes: int = 3) -> tuple[NoisySums, Tensor, Tensor]:
    images, labels = pictures(300, 4)
    release = MomentRelease(
        records=300, norm=1.0, sigma=0.0, classes=classes, second_weight=0.0, count_weight=1.0
    )
    return release_moments(extractor(images), labels.numpy(), release), images, labels


def covariances(extractor: WithProducts, images: Tensor, labels: Tensor) -> np.ndarray:
    """C_k − λ of three classes of as many images, (3, r, r)."""
    z = extractor.coordinates(extractor(images)).double().numpy()
    within = np.stack([np.cov(z[labels == k].T, bias=True) for k in range(3)])
    mixed: np.ndarray = (1 - OWN) * within.mean(0) + OWN * within
    return mixed


def test_labels_are_those_of_friedmans_discriminant_on_the_images_themselves(extractor: WithProducts) -> None:
    sums, images, labels = released(extractor)
    z = extractor.coordinates(extractor(images)).double().numpy()
    means = np.stack([z[labels == k].mean(0) for k in range(3)])
    mixed = covariances(extractor, images, labels) + LEAST_RIDGE * np.eye(COUNT)
    others, truth = pictures(300, 5)
    points = extractor.coordinates(extractor(others)).double().numpy()
    # The likeliest of normal distributions, written out.
    distances = np.array(
        [
            [
                (p - m) @ np.linalg.solve(c, p - m) + np.linalg.slogdet(c)[1]
                for m, c in zip(means, mixed, strict=True)
            ]
            for p in points
        ]
    )
    found = Discriminant.of(sums, extractor)(others)
    assert found.dtype == torch.int64
    assert np.array_equal(found.numpy(), distances.argmin(1))
    nearest = np.square(points[:, None] - means).sum(2).argmin(1)
    right, by_means = ((each == truth.numpy()).mean() for each in (found.numpy(), nearest))
    assert right > by_means > 1 / 3  # the covariance is worth something, or products would not be


def test_a_class_that_the_release_says_is_absent_is_nobodys_label(extractor: WithProducts) -> None:
    sums, images, _ = released(extractor, classes=4)
    assert set(Discriminant.of(sums, extractor)(images).tolist()) == {0, 1, 2}
    first, counts = np.roll(sums.first, 2, axis=0), None if sums.counts is None else np.roll(sums.counts, 2)
    moved = Discriminant.of(replace(sums, first=first, counts=counts), extractor)
    assert moved.classes.tolist() == [0, 2, 3]
    assert set(moved(images).tolist()) == {0, 2, 3}


def test_a_class_of_few_images_has_less_of_its_own_covariance(extractor: WithProducts) -> None:
    """Else the noise of its own, which is large, would make it wide and nobody's label."""
    sums, images, labels = released(extractor)
    few = np.array([1.0, 1.0, 0.1])
    assert sums.counts is not None
    fewer = replace(sums, first=sums.first * few[:, None], counts=sums.counts * few)
    z = extractor.coordinates(extractor(images)).double().numpy()
    within = np.stack([np.cov(z[labels == k].T, bias=True) for k in range(3)])
    share = few / few.sum()
    own = OWN * np.array([1, 1, 3 * share[2]])[:, None, None]
    expected = (1 - own) * np.einsum("k,kij->ij", share, within) + own * within
    assert np.allclose(
        expected + LEAST_RIDGE * np.eye(COUNT), inverse(Discriminant.of(fewer, extractor)), atol=1e-5
    )


@pytest.mark.parametrize("left", [0, 1])
def test_a_release_that_drowned_gives_no_labels(extractor: WithProducts, left: int) -> None:
    """Else all images would get one label, whatever they show."""
    sums, _, _ = released(extractor)
    assert sums.counts is not None
    drowned = replace(sums, counts=np.where(np.arange(3) < left, sums.counts, -5.0))
    with pytest.raises(ConfigError, match=f"its noisy counts say so of {left} of 3"):
        Discriminant.of(drowned, extractor)


def inverse(found: Discriminant) -> np.ndarray:
    """C (K, r, r)."""
    return np.linalg.inv(found.roots @ found.roots.transpose(0, 2, 1))


def test_more_noise_makes_for_more_ridge(extractor: WithProducts) -> None:
    """What is added to the covariances."""
    sums, images, labels = released(extractor)
    noisy = replace(sums, release=replace(sums.release, sigma=0.01))  # said to be so, and not drawn
    mixed = covariances(extractor, images, labels)
    added = RIDGE * 2 * np.sqrt(COUNT) * (0.01 * 300) * np.sqrt(3) / 300
    assert np.allclose(
        mixed + LEAST_RIDGE * np.eye(COUNT), inverse(Discriminant.of(sums, extractor)), atol=1e-5
    )
    assert np.allclose(mixed + added * np.eye(COUNT), inverse(Discriminant.of(noisy, extractor)), atol=1e-5)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def finished(data: Path, folder: Path, *more: str) -> Path:
    settings = [*TINY, f"data.folder={data}", "privacy.record_epsilon=50", "privacy.record_release=summed"]
    run(load_config(None, [*settings, "features.products=4", *more]), folder)
    return folder


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(data, tmp_path_factory.mktemp("run") / "run")


def generated(folder: Path, out: Path, *more: str) -> tuple[np.ndarray, np.ndarray]:
    assert main(["generate", "--model", str(folder), "--count", "40", "--out", str(out), *more]) == 0
    with np.load(out) as found:
        return found["images"], found["labels"]


def test_a_data_set_has_the_same_images_with_the_releases_labels(folder: Path, tmp_path: Path) -> None:
    plain, asked = generated(folder, tmp_path / "plain.npz")
    images, labels = generated(folder, tmp_path / "told.npz", "--relabel")
    _, again = generated(folder, tmp_path / "varied.npz", "--relabel", "--vary-contrast")
    assert np.array_equal(images, plain)
    assert not np.array_equal(labels, asked)
    assert np.array_equal(labels, again)  # by the images before their contrast changed
    card = (tmp_path / "told.npz.md").read_text("utf-8")
    assert "Friedman's discriminant" in card
    assert "--seed 0 --relabel" in card
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        assert f"| {label} |" in card
        assert f"| {count:,} |" in card
    assert "Friedman" not in (tmp_path / "plain.npz.md").read_text("utf-8")


def test_labels_by_a_release_need_one(
    data: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(model: Path, out: str) -> str:
        assert main(["generate", "--model", str(model), "--relabel", "--out", str(tmp_path / out)]) == 2
        assert not (tmp_path / out).exists()
        return capsys.readouterr().err

    assert "--relabel needs the folder of a run" in refused(folder / "model.safetensors", "x.npz")
    assert "--relabel is for data sets" in refused(folder, "x.png")
    without = finished(data, tmp_path / "without", "features.products=0")
    assert "features.products = 0" in refused(without, "x.npz")
    alone = finished(data, tmp_path / "alone", "privacy.record_release=client")
    assert 'privacy.record_release = "client"' in refused(alone, "x.npz")
    (folder / "checkpoint" / "release.moments").rename(tmp_path / "release.moments")
    assert "does not exist" in refused(folder, "x.npz")
    (tmp_path / "release.moments").rename(folder / "checkpoint" / "release.moments")
