"""An ONNX file gives the images that the model gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from prism_secure.errors import ConfigError
from prism_secure.model import onnx_export
from prism_secure.model.deployed import DeployedGenerator
from prism_secure.model.generator import Architecture, ResNetGenerator, draw_latents

onnxruntime = pytest.importorskip("onnxruntime")


def _model(**sizes: int) -> DeployedGenerator:
    architecture = Architecture(latent=6, width=4, image_size=8, **sizes)
    d = sum(each.numel() for each in ResNetGenerator(architecture).parameters())
    mask = torch.rand(d, generator=torch.Generator().manual_seed(0)) > 0.5
    return DeployedGenerator(architecture, seed=1, mask=mask)


@pytest.mark.parametrize("sizes", [{"classes": 3}, {"channels": 3}], ids=["conditional", "colour"])
def test_onnx_runtime_makes_the_same_images_in_batches_of_any_size(
    tmp_path: Path, sizes: dict[str, int]
) -> None:
    model = _model(**sizes)
    onnx_export.write_onnx(tmp_path / "m.onnx", model)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 5):
        latents, labels = draw_latents(count, model.architecture, torch.Generator().manual_seed(7))
        given = {"latents": latents.numpy()} | ({} if labels is None else {"labels": labels.numpy()})
        (images,) = session.run(["images"], given)
        expected, _ = model.generate(count, seed=7)
        np.testing.assert_allclose(images, expected.numpy(), atol=1e-5)


def test_file_names_no_path_of_the_machine_that_wrote_it(tmp_path: Path) -> None:
    onnx_export.write_onnx(tmp_path / "m.onnx", _model(classes=3))
    written = (tmp_path / "m.onnx").read_bytes()
    for place in (str(Path(onnx_export.__file__).parents[1]), str(Path.home()), "site-packages", ".py"):
        assert place.encode() not in written


def test_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"pip install '\.\[onnx\]'"):
        onnx_export.write_onnx(tmp_path / "m.onnx", _model())
    assert not (tmp_path / "m.onnx").exists()
