"""What is not to be imported when doctests are looked for, and what is done but once."""

import copy
import functools
import hashlib
import multiprocessing
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from prism_secure.data.features.extractor import FeatureExtractor
from prism_secure.quality.classifier import FashionClassifier
from prism_secure.rounds import components

# They change torch for the whole process, or are scripts.
collect_ignore = ["second_device.py", "track_privately.py", "train_on_card.py"]


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers fork from this process, which has torch loaded, where they would import it anew."""
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: fork)


@pytest.fixture(autouse=True, scope="session")
def axes_of_public_images_found_once() -> Iterator[None]:
    """Each of a hundred measured runs decomposes the same matrix, a quarter of its time."""
    eigh, found = components.eigh, dict[bytes, Any]()

    def once(matrix: np.ndarray, **which: Any) -> Any:
        key = hashlib.sha256(matrix.tobytes() + repr((matrix.shape, which)).encode()).digest()
        if key not in found:
            found[key] = eigh(matrix, **which)
        sizes, axes = found[key]
        return sizes.copy(), axes.copy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(components, "eigh", once)
        yield


@pytest.fixture(autouse=True, scope="session")
def public_images_drawn_once() -> Iterator[None]:
    """Each of several hundred runs draws the same, for a tenth of its time."""
    drawn = functools.lru_cache(8)(components.dead_leaves)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(components, "dead_leaves", lambda count, **how: drawn(count, **how).clone())
        yield


@pytest.fixture(autouse=True, scope="session")
def features_of_the_same_images_found_once() -> Iterator[None]:
    """The real images of several hundred runs are the same, and half of what their metrics take."""
    features, found = FashionClassifier.features, dict[bytes, Tensor]()

    def once(network: FashionClassifier, images: Tensor) -> Tensor:
        if torch.is_grad_enabled() or network.training or len(found) > 5_000:
            return features(network, images)
        parts = [images, *network.state_dict().values()]
        key = hashlib.sha256(repr([part.shape for part in parts]).encode())
        for part in parts:
            key.update(part.cpu().numpy().tobytes())
        if key.digest() not in found:
            found[key.digest()] = features(network, images)
        return found[key.digest()].clone()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FashionClassifier, "features", once)
        yield


BUNDLED = {"efficientnet_lite0", "efficientnet_lite0_pooled", "fourier"}


@pytest.fixture(autouse=True, scope="session")
def frozen_features_built_once() -> Iterator[None]:
    """Several hundred runs take units from the same thousand public images; each gets a copy of its own."""
    build, found = components.Components.extractor.func, dict[str, FeatureExtractor]()

    def once(self: components.Components) -> FeatureExtractor:
        config = self.config
        if not {*config.features.extractors} <= BUNDLED:
            return build(self)  # a file, or code, of the user's own
        size, seed = config.model.image_size, config.federation.seed
        key = repr((config.features, size, self.dataset.channels, seed, components.PUBLIC_IMAGES))
        if key not in found:
            found[key] = build(self)
        return copy.deepcopy(found[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(components.Components, "extractor", found_once := functools.cached_property(once))
        found_once.__set_name__(components.Components, "extractor")
        yield
