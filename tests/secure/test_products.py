"""Products beside bounded features: never longer than 1 together, and what their means say."""

import numpy as np
import pytest
import torch
from torch import Tensor

from prism_privacy import MomentRelease, release_moments
from prism_secure.config import load_config
from prism_secure.config.dimensions import feature_dimension
from prism_secure.data.features import BoundedFeatures, RandomFourierFeatures, WithProducts
from prism_secure.data.public_images import dead_leaves
from prism_secure.errors import ConfigError, FeatureError
from prism_secure.rounds.components import Components

COUNT = 6
PUBLIC = dead_leaves(64, side=8, seed=1)


def images() -> Tensor:
    """Some like the public ones, and some that no camera gives: corners of the cube, and nothing."""
    draws = torch.Generator().manual_seed(2)
    corners = torch.sign(torch.randn(20, 1, 8, 8, generator=draws))
    return torch.cat(
        [dead_leaves(30, side=8, seed=3), corners, torch.zeros(1, 1, 8, 8), -torch.ones(1, 1, 8, 8)]
    )


@pytest.fixture(scope="module")
def bounded() -> BoundedFeatures:
    return BoundedFeatures([RandomFourierFeatures(10, sides=(8,))], PUBLIC, quantile=0.5)


@pytest.fixture(scope="module")
def products(bounded: BoundedFeatures) -> WithProducts:
    return WithProducts(bounded, PUBLIC, COUNT)


@pytest.fixture(scope="module")
def whole(bounded: BoundedFeatures) -> WithProducts:
    """Products of all coordinates, so that an image's are as long as they can be."""
    return WithProducts(bounded, PUBLIC, bounded.dimension)


def test_features_and_products_of_an_image_are_never_longer_than_one(
    products: WithProducts, whole: WithProducts
) -> None:
    found = products(images()).double()
    assert found.shape == (52, products.dimension) == (52, 20 + COUNT * (COUNT + 1) // 2)
    assert float(found.norm(dim=1).max()) <= 1 + 1e-6
    assert float(whole(images()).double().norm(dim=1).max()) == pytest.approx(1, abs=1e-6)


def test_products_are_those_of_an_outer_product_and_as_long(
    bounded: BoundedFeatures, products: WithProducts
) -> None:
    found, z = products(images()), (bounded(images()) @ products.axes.T).double().numpy()
    outer = z[:, :, None] * z[:, None, :]
    assert np.allclose(products.coordinates(found), z, atol=1e-6)
    assert np.allclose(products.second_moments(found), outer, atol=1e-6)
    # Half of the squared length is theirs: the Frobenius norm of zz' is |z|^2.
    rest = 2 * found[:, bounded.dimension :].double().square().sum(1).numpy()
    assert np.allclose(rest, np.square(outer).sum((1, 2)), atol=1e-6)
    assert np.allclose(rest, np.square(z).sum(1) ** 2, atol=1e-6)


def test_means_of_products_give_the_covariance(bounded: BoundedFeatures, products: WithProducts) -> None:
    mean = products(images()).mean(0, keepdim=True)
    centre = products.coordinates(mean)[0]
    found = products.second_moments(mean)[0] - torch.outer(centre, centre)
    z = (bounded(images()) @ products.axes.T).double().numpy()
    assert np.allclose(found, np.cov(z.T, bias=True), atol=1e-6)


def test_one_image_swapped_moves_a_release_by_no_more_than_is_charged(whole: WithProducts) -> None:
    """An oracle of the sensitivity: all swaps among extreme images, labels too, in the sums themselves."""
    features = whole(images()).double().numpy()
    release = MomentRelease(records=1, norm=1.0, sigma=0.0, classes=2, second_weight=0.0, count_weight=1.0)

    def sums(image: int, label: int) -> np.ndarray:
        found = release_moments(features[image : image + 1], [label], release)
        assert found.counts is not None
        return np.concatenate([found.first.ravel(), found.counts])

    every = np.stack([sums(image, label) for image in range(len(features)) for label in (0, 1)])
    moved = np.linalg.norm(every[:, None] - every[None], axis=2)
    assert 1.99 < moved.max() <= release.sensitivity == pytest.approx(2.0)


def test_axes_are_the_longest_directions_of_public_images_with_a_fixed_sign(
    bounded: BoundedFeatures, products: WithProducts
) -> None:
    features = bounded(PUBLIC).double().numpy()
    sizes, axes = np.linalg.eigh(np.cov(features.T))
    for row, size, axis in zip(products.axes.numpy(), sizes[::-1], axes.T[::-1], strict=False):
        assert abs(abs(row @ axis) - 1) < 1e-4
        assert row @ np.cov(features.T) @ row == pytest.approx(size, rel=1e-3)
        assert row[np.abs(row).argmax()] > 0


def test_gradients_pass_and_an_image_has_its_features_in_any_company(products: WithProducts) -> None:
    together, alone = products(images()), products(images()[7:8])
    assert torch.allclose(together[7:8], alone, atol=1e-6)
    leaf = images().requires_grad_(True)
    products(leaf)[:, -1].sum().backward()
    assert leaf.grad is not None
    assert float(leaf.grad.abs().sum()) > 0


@pytest.mark.parametrize("count", [0, 21, 64])
def test_more_products_than_features_or_public_images_allow_are_refused(
    bounded: BoundedFeatures, count: int
) -> None:
    with pytest.raises(FeatureError, match=f"1 to 20 coordinates, got {count}"):
        WithProducts(bounded, PUBLIC, count)


SMALL = ['features.extractors=["fourier"]', "model.width=2", "metrics.samples=200"]


def test_setting_makes_them_and_counts_them() -> None:
    config = load_config(None, [*SMALL, "features.products=5"], recipe="one-shot")
    components = Components(config)
    assert isinstance(components.extractor, WithProducts)
    assert components.extractor.dimension == feature_dimension(config) == 800 + 15
    release = components.record_release
    assert release is not None
    assert release.dimension == 815


def test_epsilon_is_that_of_features_alone_and_a_stored_release_is_another() -> None:
    alone, beside = (
        Components(load_config(None, [*SMALL, *more], recipe="one-shot")).record_release
        for more in ([], ["features.products=5"])
    )
    assert alone is not None
    assert beside is not None
    assert beside.guarantee.epsilon == alone.guarantee.epsilon <= 2.0
    assert beside.of(0) == alone.of(0)  # the same noise on what has the same norm
    assert beside.context(None) != alone.context(None)
    assert "products" not in alone.context(None)  # older releases stay readable


@pytest.mark.parametrize(
    ("recipe", "settings", "message"),
    [
        ("one-shot", ["features.products=513"], "features.products must be from 0 to 512"),
        ("one-shot", ["features.products=-1"], "features.products must be from 0 to 512"),
        ("prism", ["features.products=4"], "features.products must be 0 with features.bounded = false"),
        ("cross-silo", ["features.products=4"], "has no effect"),
    ],
)
def test_products_where_they_mean_nothing_are_refused(recipe: str, settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, settings, recipe=recipe)
