"""gen2real by the protocol of DPImageBench, on a data set that `prism-secure generate` made.

    prism-secure generate --model MODEL --count 60000 --out set.npz
    python experiments/utility/dpimagebench.py set.npz --real PUBLISHED --out FILE.jsonl --device cuda

PUBLISHED is the folder of the published idx files, of which only the test images are read. Gong et al.,
"DPImageBench: A Unified Benchmark for Differentially Private Image Synthesis" (CCS 2025), train ResNet-110
(He et al. 2016), WRN-40-4 (Zagoruyko and Komodakis 2016) and ResNeXt-29 8×64d (Xie et al. 2017) on 55,000 of
60,000 generated images, and take the epoch that does best on the other 5,000. README.md has the settings.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from prism_secure.data import read_idx
from prism_secure.data.fit import fit

sys.path.insert(0, str(Path(__file__).parents[1]))
from results import append

EPOCHS, BATCH = 50, 256
RATE, STEP, FACTOR = 0.01, 20, 0.2
DECAY = 0.9999
DROPOUT = 0.3
APART = 1 / 12
"""Share of the generated images that selects: 5,000 of 60,000."""


def conv3(of: int, to: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(of, to, 3, stride, 1, groups=groups, bias=False)


class Residual(nn.Module):
    """relu(branch + shortcut), the shortcut a 1×1 convolution where shapes differ: ResNet and ResNeXt."""

    def __init__(self, branch: nn.Module, of: int, to: int, stride: int) -> None:
        super().__init__()
        self.branch = branch
        other = of != to or stride != 1
        self.shortcut = (
            nn.Sequential(nn.Conv2d(of, to, 1, stride, bias=False), nn.BatchNorm2d(to))
            if other
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.branch(x) + self.shortcut(x))


def basic(of: int, to: int, stride: int) -> nn.Module:
    """Two 3×3 convolutions."""
    layers = conv3(of, to, stride), nn.BatchNorm2d(to), nn.ReLU(), conv3(to, to), nn.BatchNorm2d(to)
    return Residual(nn.Sequential(*layers), of, to, stride)


def aggregated(of: int, to: int, stride: int, *, groups: int = 8, widen: int = 4) -> nn.Module:
    """1×1, 3×3 in groups, 1×1 convolutions; `groups` of to/`widen` channels each."""
    inner = groups * to // widen
    layers = (
        nn.Conv2d(of, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(),
        conv3(inner, inner, stride, groups), nn.BatchNorm2d(inner), nn.ReLU(),
        nn.Conv2d(inner, to, 1, bias=False), nn.BatchNorm2d(to),
    )  # fmt: skip
    return Residual(nn.Sequential(*layers), of, to, stride)


class Wide(nn.Module):
    """The block of a wide residual network, normalised before each convolution, and before a shortcut that
    changes channels."""

    def __init__(self, of: int, to: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(of), nn.ReLU())
        layers = conv3(of, to, stride), nn.BatchNorm2d(to), nn.ReLU(), nn.Dropout(DROPOUT), conv3(to, to)
        self.branch = nn.Sequential(*layers)
        self.shortcut = nn.Conv2d(of, to, 1, stride, bias=False) if of != to else None

    def forward(self, x: Tensor) -> Tensor:
        ready = self.first(x)
        kept: Tensor = x if self.shortcut is None else self.shortcut(ready)
        return kept + self.branch(ready)


def network_of(
    block: Callable[[int, int, int], nn.Module],
    stem: int,
    widths: tuple[int, int, int],
    each: int,
    *,
    activated: bool,
    channels: int,
    classes: int,
) -> nn.Module:
    """Three stages of `each` blocks, at the image's size, half and a quarter of it; mean; a linear layer."""
    layers: list[nn.Module] = [conv3(channels, stem)]
    layers += [nn.BatchNorm2d(stem), nn.ReLU()] if activated else []
    of = stem
    for stage, to in enumerate(widths):
        for index in range(each):
            layers.append(block(of, to, 2 if stage and not index else 1))
            of = to
    layers += [] if activated else [nn.BatchNorm2d(of), nn.ReLU()]
    made = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(of, classes))
    for part in made.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
    return made


def resnet(channels: int, classes: int, each: int = 18) -> nn.Module:
    """ResNet of 6·each + 2 layers: 110."""
    return network_of(basic, 16, (16, 32, 64), each, activated=True, channels=channels, classes=classes)


def wrn(channels: int, classes: int, each: int = 6) -> nn.Module:
    """Wide ResNet of 6·each + 4 layers, 4 times as wide: WRN-40-4."""
    return network_of(Wide, 16, (64, 128, 256), each, activated=False, channels=channels, classes=classes)


def resnext(channels: int, classes: int, each: int = 3) -> nn.Module:
    """ResNeXt of 9·each + 2 layers: 29."""
    return network_of(
        aggregated, 64, (256, 512, 1024), each, activated=True, channels=channels, classes=classes
    )


ARCHITECTURES: dict[str, Callable[[int, int], nn.Module]] = {"resnet": resnet, "wrn": wrn, "resnext": resnext}


class Averaged:
    """The exponential mean of a network's parameters; the decay rises with the steps up to `DECAY`."""

    def __init__(self, network: nn.Module) -> None:
        self.network, self.steps = copy.deepcopy(network), 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        self.steps += 1
        decay = min(DECAY, (1 + self.steps) / (10 + self.steps))
        for mean, value in zip(self.network.parameters(), network.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)

    def with_statistics_of(self, network: nn.Module) -> nn.Module:
        """The mean's network, with the normalisation statistics of `network`: the protocol averages none."""
        for own, other in zip(self.network.buffers(), network.buffers(), strict=True):
            own.copy_(other)
        return self.network.eval()


def scaled(images: Tensor) -> Tensor:
    """uint8 (N, C, H, W) to [-1, 1]."""
    return images.float() / 127.5 - 1


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    device = next(network.parameters()).device
    hits = 0
    for x, y in zip(images.split(1000), labels.split(1000), strict=True):
        hits += int((network(scaled(x.to(device))).argmax(1) == y.to(device)).sum())
    return hits / len(labels)


def chosen(
    make: Callable[[int, int], nn.Module],
    images: Tensor,
    labels: Tensor,
    *,
    classes: int,
    device: str,
    seed: int,
    epochs: int = EPOCHS,
) -> tuple[nn.Module, int, float]:
    """A network trained on generated images alone: that of the epoch that does best on those kept apart.

    Returns:
        The network, its epoch, its accuracy on the generated images kept apart.
    """
    draws = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    order = torch.randperm(len(images), generator=draws)
    apart = max(1, round(APART * len(images)))
    selecting, training = order[:apart], order[apart:]
    network = make(images.shape[1], classes).to(device)
    averaged = Averaged(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, STEP, FACTOR)
    best, found, when = -1.0, copy.deepcopy(network), 0
    for epoch in range(1, epochs + 1):
        network.train()
        for index in training[torch.randperm(len(training), generator=draws)].split(BATCH):
            x, y = images[index].to(device), labels[index].to(device)
            loss = functional.cross_entropy(network(scaled(x)), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            averaged.update(network)
        schedule.step()
        now = averaged.with_statistics_of(network)
        reached = accuracy(now, images[selecting], labels[selecting])
        print(f"  epoch {epoch}: {reached:.4f} of the generated images kept apart", flush=True)
        if reached >= best:
            best, found, when = reached, copy.deepcopy(now), epoch
    return found, when, best


def read_set(path: Path, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` images of a generated set: uint8 (N, C, H, W), and labels int64 (N,)."""
    with np.load(path) as found:
        if "labels" not in found:
            raise SystemExit(f"{path} has no labels: the model must be conditional")
        images, labels = found["images"], found["labels"]
    if len(images) < count:
        raise SystemExit(f"the protocol takes {count:,} images, {path} has {len(images):,}")
    pixels = torch.from_numpy(images[:count])
    return pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2), torch.from_numpy(
        labels[:count]
    )


def read_test(folder: Path) -> tuple[Tensor, Tensor]:
    """The published test images as they are, uint8 (N, 1, H, W), and their labels."""
    images = torch.from_numpy(np.array(read_idx(folder / "t10k-images-idx3-ubyte.gz")))[:, None]
    return images, torch.from_numpy(read_idx(folder / "t10k-labels-idx1-ubyte.gz").astype(np.int64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", type=Path, metavar="SET.npz", help="from `prism-secure generate`")
    parser.add_argument("--real", type=Path, required=True, help="folder of the published files")
    parser.add_argument("--out", type=Path, required=True, help="a line is added for each architecture")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=60_000, help="images; fewer is another protocol")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="fewer is another protocol")
    parser.add_argument("--only", choices=ARCHITECTURES, action="append", help="may be repeated")
    options = parser.parse_args()
    measure(options)


def measure(options: argparse.Namespace) -> list[dict[str, object]]:
    """Train, select and only then open the test images; a line of --out for each architecture."""
    images, labels = read_set(options.set, options.count)
    # Before hours of training: only the size is looked at here.
    channels, side, _ = read_test(options.real)[0].shape[1:]
    if images.shape[1] != channels:
        raise SystemExit(f"real images have {channels} channels, generated ones {images.shape[1]}")
    images = fit(images, side)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    classes, names = int(labels.max()) + 1, options.only or list(ARCHITECTURES)
    trained = {}
    for name in names:
        print(name, flush=True)
        start = time.monotonic()
        network, epoch, selected = chosen(
            ARCHITECTURES[name], images, labels,
            classes=classes, device=options.device, seed=options.seed, epochs=options.epochs,
        )  # fmt: skip
        trained[name] = (
            network,
            {"epoch": epoch, "selected_by": selected, "seconds": time.monotonic() - start},
        )
    real = read_test(options.real)
    whole = options.count == 60_000 and options.epochs == EPOCHS and set(names) == set(ARCHITECTURES)
    rows: list[dict[str, object]] = []
    for name, (network, told) in trained.items():
        found = accuracy(network, *real)
        rows.append(
            {"set": options.set.name, "architecture": name, "gen2real": found, "seed": options.seed,
             "count": options.count, "epochs": options.epochs, "whole_protocol": whole, **told}
        )  # fmt: skip
        print(f"{name}: {found:.2%}", flush=True)
    mean = float(np.mean([row["gen2real"] for row in rows]))
    print(
        f"mean of {', '.join(names)}: {mean:.2%}"
        + ("" if whole else "; NOT the protocol: fewer of something")
    )
    append(options.out, rows)
    return rows


if __name__ == "__main__":
    main()
