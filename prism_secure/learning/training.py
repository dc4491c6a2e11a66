"""A client's local training: some steps on the scores of its mask.

Scores start from the broadcast θ, s = τ·logit θ. Two rules make a step:

    "adam"  Adam, whose moments each client keeps between rounds
    "root"  −sign(g)·√|g|, scaled to the learning rate's root mean square: nothing is kept. In large cohorts a
            client takes few steps, its gradient is mostly noise of its few images, and the server's average
            does the smoothing. The root lies between the gradient, of which few large coordinates take
            the whole clip, and its sign, in which noise weighs as much as signal

What stays with the client between rounds is its optimizer's moments and its moving averages
(`ClientState`); what leaves is nothing here: the scores go to the privacy mechanism, which turns them into
bits.

The number of steps is fixed and the batches are balanced over the classes whatever the client holds, so that
nothing but the moments depends on its data. Everything is a function of the arguments: same θ, state, target
and seed, same scores, bit for bit, on one thread of a processor. A graphics card adds up in an order of its
own, so there they agree up to rounding.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prism_secure.config.sections import MaskMode, Optimizer
from prism_secure.data.features import FeatureExtractor
from prism_secure.learning.moment_matching import (
    FakeAverages,
    FeatureMoments,
    MomentMatching,
    feature_moments,
)
from prism_secure.model.generator import Architecture, draw_latents
from prism_secure.model.network import build_network
from prism_secure.model.supermask import Supermask, scores_from_theta, training_mask


@dataclass(frozen=True)
class ClientState:
    """What a client keeps between rounds.

    Attributes:
        first, second: Adam's moments of the score gradient, float32 (d,); empty for "root".
        step: how many steps were made.
        averages: the moving averages of the loss.
    """

    first: Tensor
    second: Tensor
    step: int
    averages: FakeAverages

    def to_arrays(self) -> dict[str, np.ndarray]:
        """As named arrays, for a checkpoint."""
        return {
            "first": self.first.numpy(),
            "second": self.second.numpy(),
            "averages_first": self.averages.first.numpy(),
            "averages_second": self.averages.second.numpy(),
            "averages_moments": self.averages.moments.numpy(),
            "steps": np.array([self.step, self.averages.step], dtype=np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> ClientState:
        """The inverse of `to_arrays`."""
        tensor = {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
        step, averages_step = (int(x) for x in arrays["steps"])
        averages = FakeAverages(
            tensor["averages_first"], tensor["averages_second"], tensor["averages_moments"], averages_step
        )
        return cls(tensor["first"], tensor["second"], step, averages)


@dataclass(frozen=True)
class LocalResult:
    """Scores (d,) float32 after local training, the state to keep, and losses of the first and last step.

    Read only: clients that train alike have the same tensors.
    """

    scores: Tensor
    state: ClientState
    first_loss: float
    last_loss: float


@dataclass(frozen=True, eq=False)
class _Training:
    """All that decides what a training comes to."""

    theta: Tensor
    state: ClientState
    target: FeatureMoments
    steps: int
    seed: int
    progress: float

    def equals(self, other: _Training) -> bool:
        """To the last bit; never where one has a NaN."""
        return self._numbers() == other._numbers() and all(
            map(torch.equal, self._tensors(), other._tensors())
        )

    def _numbers(self) -> tuple[float, ...]:
        return self.steps, self.seed, self.progress, self.state.step, self.state.averages.step

    def _tensors(self) -> tuple[Tensor, ...]:
        state, averages, target = self.state, self.state.averages, self.target
        kept = state.first, state.second, averages.first, averages.second, averages.moments
        return self.theta, *kept, target.mean, target.variance, target.counts


@dataclass(frozen=True)
class _Batch:
    """Features (B, D) of generated images as a function of the scores `leaf` (d,), and the draws' state."""

    leaf: Tensor
    features: Tensor
    labels: Tensor | None
    drawn: Tensor


class LocalTrainer:
    """One process's generator and extractor; any number of clients train through it in turn.

    Args:
        architecture, model_seed: the generator, frozen.
        extractor: the frozen features.
        mask_mode, temperature, density: see `prism_secure.model.supermask`.
        optimizer: "adam" or "root"; see the module's text.
        learning_rate: size of a step on the scores; under `hard` masks only its ratio to τ matters.
        betas: Adam's decay rates (PRISM: 0.5, 0.999).
        batch_size: generated images a step; with classes, rounded to a multiple of them by the caller.
        matching: the loss.
        device: where the steps are computed. Draws, real images' features and all that goes in or comes out
            are on the CPU.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        model_seed: int,
        extractor: FeatureExtractor,
        mask_mode: MaskMode = "hard",
        temperature: float = 0.1,
        density: float = 0.5,
        optimizer: Optimizer = "adam",
        learning_rate: float = 0.1,
        betas: tuple[float, float] = (0.5, 0.999),
        batch_size: int = 80,
        matching: MomentMatching | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if architecture.classes and batch_size % architecture.classes:
            raise ValueError(
                f"batch_size must be a multiple of the {architecture.classes} classes, not {batch_size}"
            )
        self.architecture = architecture
        self.device = torch.device(device)
        self.supermask = Supermask(build_network(architecture), seed=model_seed, law=architecture.weights).to(
            self.device
        )
        self.extractor = extractor
        self._matched = extractor if self.device.type == "cpu" else copy.deepcopy(extractor).to(self.device)
        self.mask_mode: MaskMode = mask_mode
        self.temperature = temperature
        self.density = density
        self.optimizer: Optimizer = optimizer
        self.learning_rate = learning_rate
        self.betas = betas
        self.batch_size = batch_size
        self.matching = matching or MomentMatching()
        self._kept: tuple[int, _Batch] | None = None
        self._last: tuple[_Training, LocalResult] | None = None

    @property
    def dimension(self) -> int:
        """d: scores, mask bits and probabilities."""
        return self.supermask.dimension

    def targets(self, images: Tensor, labels: Tensor | None) -> FeatureMoments:
        """Moments of one client's images (N, C, H, W) in [-1, 1]: computed once; then they can go."""
        classes = self.architecture.classes
        return feature_moments(self.extractor, images, labels if classes else None, classes=classes)

    def initial_state(self) -> ClientState:
        """Before a client's first round."""
        rows = self.architecture.classes or 1
        kept = self.dimension if self.optimizer == "adam" else 0
        return ClientState(
            torch.zeros(kept),
            torch.zeros(kept),
            0,
            FakeAverages.zero(rows, self.extractor.dimension, self.matching.averaging),
        )

    def train(
        self,
        theta: Tensor,
        state: ClientState,
        target: FeatureMoments,
        *,
        steps: int,
        seed: int,
        progress: float,
        shared: bool = False,
    ) -> LocalResult:
        """`steps` steps from the broadcast θ (d,), with latents and mask draws from `seed`.

        `state` and `target` are not changed. `progress`, the share of the run that is done, is what
        "annealed" masks go by. `shared` says that other clients train from the same θ and seed: the images of
        their first step, which are the same too, are kept for them, and with equal states and targets the
        whole result. It changes how long training takes, and no result.
        """
        asked = _Training(theta, state, target, steps, seed, progress)
        if shared and self._last is not None and self._last[0].equals(asked):
            return self._last[1]
        draws = torch.Generator().manual_seed(seed)
        scores = scores_from_theta(theta, self.temperature).to(self.device)
        first, second = (moments.to(self.device, copy=True) for moments in (state.first, state.second))
        averages, losses = state.averages.to(self.device), []
        target = target.to(self.device)
        for step in range(state.step + 1, state.step + steps + 1):
            if shared and step == state.step + 1:
                batch = self._shared_batch(scores, draws, progress, seed)
            else:
                batch = self._generate(scores, draws, progress)
            loss, averages = self.matching(batch.features, batch.labels, target, averages)
            (gradient,) = torch.autograd.grad(loss, batch.leaf, retain_graph=shared)
            losses.append(loss.detach())
            if self.optimizer == "root":
                _root_step(scores, gradient, self.learning_rate)
            else:
                adam_step(scores, gradient, first, second, step, self.learning_rate, self.betas)
        kept = ClientState(first.cpu(), second.cpu(), state.step + steps, averages.to("cpu"))
        result = LocalResult(scores.cpu(), kept, float(losses[0]), float(losses[-1]))
        if shared:
            self._last = asked, result
        return result

    def features(self, mask: Tensor, latents: Tensor, labels: Tensor | None) -> Tensor:
        """Of the images that `mask` (d,) makes, (B, D); all on the trainer's device."""
        found: Tensor = self._matched(self.supermask(mask, latents, labels))
        return found

    def _generate(self, scores: Tensor, draws: torch.Generator, progress: float) -> _Batch:
        leaf = scores.clone().requires_grad_(True)
        mask = training_mask(
            leaf, self.mask_mode, temperature=self.temperature, generator=draws, density=self.density,
            progress=progress,
        )  # fmt: skip
        latents, labels = draw_latents(self.batch_size, self.architecture, draws)
        latents, labels = latents.to(self.device), None if labels is None else labels.to(self.device)
        features = self.features(mask, latents, labels)
        return _Batch(leaf, features, labels, draws.get_state())

    def _shared_batch(self, scores: Tensor, draws: torch.Generator, progress: float, seed: int) -> _Batch:
        kept = self._kept
        if kept is None or kept[0] != seed or not torch.equal(kept[1].leaf.detach(), scores):
            kept = self._kept = (seed, self._generate(scores, draws, progress))
        draws.set_state(kept[1].drawn)
        return kept[1]


@torch.no_grad()
def adam_step(
    scores: Tensor, gradient: Tensor, first: Tensor, second: Tensor, step: int, rate: float,
    betas: tuple[float, float],
) -> None:  # fmt: skip
    """Adam (Kingma and Ba 2015), in place on scores, first and second (d,)."""
    first.lerp_(gradient, 1 - betas[0])
    second.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    denominator = torch.sqrt(second / (1 - betas[1] ** step)).add_(1e-8)
    scores.addcdiv_(first, denominator, value=-rate / (1 - betas[0] ** step))


@torch.no_grad()
def _root_step(scores: Tensor, gradient: Tensor, rate: float) -> None:
    """scores (d,) −= rate·u/rms(u) with u = sign(g)·√|g|, in place; the mean of u² is that of |g|."""
    size = gradient.abs()
    scores.addcdiv_(gradient.sign() * size.sqrt(), size.mean().sqrt() + 1e-20, value=-rate)
