"""The sparse path computes what the dense one does."""

from __future__ import annotations

import pytest
import torch

from prism_secure.model.deployed import DeployedGenerator
from prism_secure.model.generator import Architecture, ResNetGenerator
from prism_secure.model.sparse_inference import IMAGES_AT_ONCE, sparse_generator, weight_bytes


def _model(density: float, **sizes: int) -> DeployedGenerator:
    architecture = Architecture(**{"latent": 6, "width": 4, "image_size": 16} | sizes)
    d = sum(each.numel() for each in ResNetGenerator(architecture).parameters())
    mask = torch.rand(d, generator=torch.Generator().manual_seed(0)) < density
    return DeployedGenerator(architecture, seed=1, mask=mask)


@pytest.mark.parametrize("density", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("sizes", [{"classes": 3}, {"channels": 3, "image_size": 8}, {"max_channels": 5}])
def test_sparse_images_are_those_of_the_dense_network(density: float, sizes: dict[str, int]) -> None:
    model = _model(density, **sizes)
    count = IMAGES_AT_ONCE + 3
    dense, asked = model.generate(count, seed=2)
    sparse, same = sparse_generator(model).generate(count, seed=2)
    torch.testing.assert_close(sparse, dense, atol=1e-4, rtol=0)
    assert asked is same or torch.equal(asked, same)


def test_dense_model_stays_as_it_is() -> None:
    model = _model(0.5)
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    sparse_generator(model).generate(3, seed=2)
    after = model.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_sparse_weights_take_memory_by_what_is_kept() -> None:
    small, half = _model(0.05, width=16), _model(0.5, width=16)
    assert weight_bytes(small) == weight_bytes(half)
    assert (
        weight_bytes(sparse_generator(small)) < weight_bytes(small) / 2 < weight_bytes(sparse_generator(half))
    )
