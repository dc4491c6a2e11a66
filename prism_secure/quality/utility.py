"""What generated images are good for: the accuracy of a classifier that was trained on them alone.

    model = train_classifier(generated, labels, classes=10)
    accuracy(model, test_images, test_labels)                   # gen2real

The field calls it gen2real, classification accuracy score (Ravuri and Vinyals 2019), or TSTR: train on
synthetic, test on real. Unlike the share of generated images that look like their class, it falls when a
class collapses to few images. The same classifier trained on as many real images is its ceiling.

The classifier is a small one of fixed settings (`FashionClassifier`, from a random start; the weights that
ship have nothing to do with it). Of the images that it is given some are kept apart, and the epoch that does
best on these is taken. So it sees generated images only, until it is tested once on the held-out ones.
All draws come from fixed seeds: the same images give the same accuracy on one number of threads.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
import os
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

from prism_secure.data import Dataset, to_float
from prism_secure.errors import DataError, StorageError
from prism_secure.quality.classifier import FashionClassifier
from prism_secure.quality.networks import resized
from prism_secure.storage import make_folder, write_atomic

__all__ = ["IMAGES", "accuracy", "ceiling", "fewest_images", "train_classifier"]

IMAGES = 5500
"""How many images a measurement takes, generated or real: 5,000 train the classifier, the rest selects it."""
EPOCHS = 3
BATCH = 100
_RATE, _DECAY = 2e-3, 0.02
_BETA, _EPSILON = 0.999, 1e-8
_SIDE = 32
_SEED = 0


def fewest_images(classes: int) -> int:
    """Images that a classifier of so many classes needs: one of eleven is kept apart, as many as classes."""
    return 11 * classes


def train_classifier(images: Tensor, labels: Tensor, *, classes: int, epochs: int = EPOCHS) -> nn.Module:
    """The small classifier, trained on `images` and selected by an eleventh of them.

    Args:
        images: uint8, or float32 in [-1, 1], (N, 1 or 3, H, W).
        labels: integers (N,), from 0 to `classes` - 1.
        epochs: how long; every measurement takes the default.

    Raises:
        DataError: fewer than two classes, too few images, or labels that do not fit.
    """
    if classes < 2 or labels.shape != (len(images),):
        raise DataError(
            f"a classifier needs two classes or more and a label for each image, got {classes} classes, "
            f"{len(images)} images, labels of shape {tuple(labels.shape)}"
        )
    if len(images) < fewest_images(classes):
        raise DataError(
            f"a classifier of {classes} classes needs at least {fewest_images(classes)} images, "
            f"got {len(images)}"
        )
    apart = len(images) // 11
    draws = torch.Generator().manual_seed(_SEED)
    order = torch.randperm(len(images), generator=draws)
    selecting, training = order[:apart], order[apart:]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_SEED)  # of the first weights
        network: nn.Module = FashionClassifier(images.shape[1], classes)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer, at = _AdamW(network), 0
    steps = epochs * -(-len(training) // BATCH)
    best, chosen = -1.0, network.state_dict()
    for _ in range(epochs):
        network.train()
        shuffled = training[torch.randperm(len(training), generator=draws)]
        for index in torch.split(shuffled, BATCH):
            if len(index) > 1:  # one image alone has no spread to normalise by
                loss = functional.cross_entropy(network(_input(images[index])), labels[index].long())
                optimizer.step(loss, *_one_cycle(at, steps))
            at += 1
        found = accuracy(network, images[selecting], labels[selecting])
        if found >= best:
            best, chosen = found, copy.deepcopy(network.state_dict())
    network.load_state_dict(chosen)
    return network.requires_grad_(False).eval()


class _AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), equal to torch's to the last bit.

    The first of torch's own that is made loads torch's compiler: a second of a processor, in every run.
    """

    def __init__(self, network: nn.Module) -> None:
        self._weights = list(network.parameters())
        self._moments = [(torch.zeros_like(w), torch.zeros_like(w)) for w in self._weights]
        self._steps = 0

    def step(self, loss: Tensor, rate: float, beta: float) -> None:
        """Against the gradient of `loss`; `beta` is the decay of the first moment."""
        gradients = torch.autograd.grad(loss, self._weights)
        self._steps += 1
        length = -rate / (1 - beta**self._steps)
        correction = (1 - _BETA**self._steps) ** 0.5
        with torch.no_grad():
            for weight, gradient, (first, second) in zip(
                self._weights, gradients, self._moments, strict=True
            ):
                weight.mul_(1 - rate * _DECAY)
                first.lerp_(gradient, 1 - beta)
                second.mul_(_BETA).addcmul_(gradient, gradient, value=1 - _BETA)
                weight.addcdiv_(first, (second.sqrt() / correction).add_(_EPSILON), value=length)


def _one_cycle(step: int, steps: int) -> tuple[float, float]:
    """Rate and first decay of a step, from 0: a cycle (Smith and Topin 2018) as torch's OneCycleLR has it.

    In cosines, over a fifth of the steps up to the highest rate and the lowest decay, and then down again.
    """
    lowest, peak, end = _RATE / 25, 0.2 * steps - 1, steps - 1
    if peak > 0 and step <= peak:
        share, rates, decays = step / peak, (lowest, _RATE), (0.95, 0.85)
    else:
        share, rates, decays = (step - peak) / (end - peak), (_RATE, lowest / 1e4), (0.85, 0.95)
    bend = math.cos(math.pi * share) + 1
    rate, decay = (last + (first - last) / 2 * bend for first, last in (rates, decays))
    return rate, decay


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of `images`, in the form of `train_classifier`, that are put in their class."""
    network.eval()
    pairs = zip(torch.split(images, 500), torch.split(labels, 500), strict=True)
    hits = sum(int((network(_input(part)).argmax(1) == asked).sum()) for part, asked in pairs)
    return hits / len(images)


def ceiling(dataset: Dataset, count: int) -> float:
    """Accuracy of the same classifier trained on `count` of the data set's own training images.

    It is computed once for a data set on a machine, and kept in the user's cache (XDG_CACHE_HOME).
    """
    labels = dataset.train_labels.long()
    chosen = torch.randperm(len(labels), generator=torch.Generator().manual_seed(_SEED))[:count]
    # A result is the same for the same images, torch and settings: these name the file.
    digest = hashlib.sha256(f"v1 {torch.__version__} {count} {EPOCHS} {BATCH} {_RATE} {_DECAY}".encode())
    for part in (dataset.train_images[chosen], labels[chosen], dataset.test_images, dataset.test_labels):
        digest.update(f"{part.dtype} {tuple(part.shape)}".encode() + part.numpy().tobytes())
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prism-secure"
    kept = folder / f"ceiling-{digest.hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(kept.read_bytes(), type=float)
    network = train_classifier(dataset.train_images[chosen], labels[chosen], classes=len(dataset.classes))
    found = accuracy(network, dataset.test_images, dataset.test_labels)
    with contextlib.suppress(StorageError):  # a cache that cannot be written costs the next run seconds
        make_folder(folder)
        write_atomic(kept, msgspec.json.encode(found))
    return found


def _input(images: Tensor) -> Tensor:
    found = to_float(images) if images.dtype == torch.uint8 else images
    return resized(found, _SIDE).contiguous(memory_format=torch.channels_last)
