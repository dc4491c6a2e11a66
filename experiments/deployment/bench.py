"""What a deployed model takes, in bytes and in time, dense and sparse, by the share of weights that it keeps.

    python experiments/deployment/bench.py --model fashion.safetensors --out experiments/deployment/bench.json

All ways to compute the same images take turns in one process, on one thread; a figure is the median of CPU
milliseconds an image over the turns. `--model` adds a trained mask, also through ONNX Runtime, which needs
the extra `onnx` and onnxruntime; the other masks are random, which for the speed is the same.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prism_secure.model.deployed import DeployedGenerator
from prism_secure.model.generator import Architecture, ResNetGenerator, draw_latents
from prism_secure.model.model_file import ModelFile, read_model_file, write_model
from prism_secure.model.onnx_export import write_onnx
from prism_secure.model.sparse_inference import sparse_generator, weight_bytes
from prism_secure.run_folder.environment import describe_environment

WIDTHS = {16: (0.5, 0.2, 0.1, 0.05, 0.02), 64: (0.5, 0.1, 0.05, 0.02)}
"""16: the default network; 64: PRISM's size, ten times the weights."""
IMAGES = 32
"""In a batch."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a trained model to measure, too")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, help="where the figures go, as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for width, densities in WIDTHS.items():
            for density in densities:
                model = random_model(Path(folder), width, density)
                rows.append(measured(f"random, width {width}, {density:g}", model, options.turns))
                show(rows)
        if options.model:
            rows.append(measured("trained", read_model_file(options.model), options.turns, onnx=True))
            show(rows)
    if options.out:
        environment = describe_environment()
        kept = {name: environment[name] for name in ("python", "cpu", "cpu_capability", "packages")}
        options.out.write_text(json.dumps({"environment": kept, "rows": rows}, indent=1) + "\n")


def random_model(folder: Path, width: int, density: float) -> ModelFile:
    """A network under a mask that keeps each weight with this probability."""
    architecture = Architecture(latent=64, width=width, image_size=32, classes=10)
    with torch.device("meta"):
        d = sum(each.numel() for each in ResNetGenerator(architecture).parameters())
    mask = np.random.default_rng(0).random(d) < density
    write_model(folder / "m", architecture, 0, mask, entropy_coded=True)
    return read_model_file(folder / "m")


def measured(name: str, file: ModelFile, turns: int, *, onnx: bool = False) -> dict[str, Any]:
    """One row: sizes, milliseconds an image, and how far the images are from those of the dense network."""
    dense = file.generator()
    latents, labels = draw_latents(IMAGES, file.architecture, torch.Generator().manual_seed(1))
    ways: dict[str, Callable[[], NDArray[np.float32]]] = {"dense": lambda: _images(dense, latents, labels)}
    sparse = sparse_generator(dense)
    ways["sparse"] = lambda: _images(sparse, latents, labels)
    ways["dense, bfloat16"] = lambda: _bfloat16(dense, latents, labels)
    sizes = {}
    if onnx:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "m.onnx"
            write_onnx(path, dense)
            sizes["ONNX bytes"] = path.stat().st_size
            ways["ONNX Runtime"] = _onnx(path, latents, labels)
    expected = ways["dense"]()
    levels = {way: float(np.abs(make() - expected).max() * 127.5) for way, make in ways.items()}
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(turns):
        for way, make in ways.items():
            began = time.process_time()
            make()
            times[way].append(1000 * (time.process_time() - began) / IMAGES)
    return {
        "model": name,
        "weights": len(file.mask),
        "kept": float(file.mask.mean()),
        "mask bytes": file.stored,
        "packed bytes": -(-len(file.mask) // 8),
        "float32 bytes": weight_bytes(dense),
        **sizes,
        "sparse bytes in memory": weight_bytes(sparse),
        "dead filters": dead_filters(dense),
        "ms an image": {way: float(np.median(values)) for way, values in times.items()},
        "grey levels from dense": levels,
    }


def dead_filters(model: DeployedGenerator) -> int:
    """Convolution filters of which no weight is kept: all that pruning whole channels could take away."""
    network = model.network
    filters = [layer.weight.flatten(1) for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    return sum(int((rows == 0).all(1).sum()) for rows in filters)


def _images(
    model: DeployedGenerator, latents: torch.Tensor, labels: torch.Tensor | None
) -> NDArray[np.float32]:
    with torch.inference_mode():
        return model.network(latents, labels).numpy()


def _bfloat16(model: DeployedGenerator, latents: torch.Tensor, labels: torch.Tensor) -> NDArray[np.float32]:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        return model.network(latents, labels).float().numpy()


def _onnx(path: Path, latents: torch.Tensor, labels: torch.Tensor) -> Callable[[], NDArray[np.float32]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = {"latents": latents.numpy(), "labels": labels.numpy()}
    return lambda: session.run(["images"], given)[0]


def show(rows: list[dict[str, Any]]) -> None:
    row = rows[-1]
    times = ", ".join(f"{way} {ms:.2f}" for way, ms in row["ms an image"].items())
    print(f"{row['model']}: {row['mask bytes']:,} bytes of mask; ms an image: {times}", flush=True)


if __name__ == "__main__":
    main()
