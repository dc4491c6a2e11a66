"""The server's own training: steps on its scores until generated moments are the posterior's.

A step is Adam's, on ‖M(μ(θ) − m̂)‖². μ(θ), the class means of generated images, is a moving average over
batches with the gradient through the newest one, and M is the metric: what no answer tells of counts for
nothing in it. The scores that are deployed are a moving average of Adam's: single scores near 0 change sign
with every batch, and the mask of the average is better than any of them, by up to 50 of FID early and less
late. It is not MADA: scores are blended by the step, with a fixed weight, 1 − smoothing, which no distance of
masks moves, and from round to round nothing is.

Same state, same target, same seed: same result, bit for bit, on one number of threads of a processor. The
state is all that is kept between rounds, and goes into a checkpoint as arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prism_secure.learning.measured.directions import class_means
from prism_secure.learning.measured.schedule import rate
from prism_secure.learning.training import LocalTrainer, adam_step
from prism_secure.model.generator import draw_latents
from prism_secure.model.supermask import scores_from_theta, theta_from_scores, training_mask

WARM_UP = 20
"""Steps before the average of scores begins: the first ones are long, and forget the start."""


@dataclass(frozen=True)
class ServerState:
    """What the server's training keeps.

    Attributes:
        scores: Adam's own scores, float32 (d,).
        smoothed: their moving average, float32 (d,): what is deployed.
        first, second: Adam's moments, float32 (d,).
        average: uncorrected moving average of generated moments, float32 (K, D).
        step: how many steps were made.
        loss: ‖M(μ(θ) − m̂)‖², its mean over the steps of the last `ServerTraining.run`; None before the
            first. It says how training goes and is no part of the checkpoint.
    """

    scores: Tensor
    smoothed: Tensor
    first: Tensor
    second: Tensor
    average: Tensor
    step: int
    loss: float | None = None

    @classmethod
    def start(cls, trainer: LocalTrainer, theta: Tensor) -> ServerState:
        """Before the first step, from θ (d,)."""
        scores = scores_from_theta(theta, trainer.temperature)
        rows = trainer.architecture.classes or 1
        return cls(
            scores,
            scores.clone(),
            torch.zeros_like(scores),
            torch.zeros_like(scores),
            torch.zeros(rows, trainer.extractor.dimension),
            0,
        )

    def theta(self, temperature: float, theta_min: float) -> NDArray[np.float64]:
        """θ (d,) of the smoothed scores, in [theta_min, 1 − theta_min]: what is broadcast and deployed."""
        found = theta_from_scores(self.smoothed, temperature).numpy()
        return np.asarray(np.clip(found, theta_min, 1 - theta_min))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """As named arrays, for a checkpoint."""
        names = ("scores", "smoothed", "first", "second", "average")
        arrays = {name: getattr(self, name).numpy() for name in names}
        return {**arrays, "step": np.array(self.step, dtype=np.int64)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> ServerState:
        """The inverse of `to_arrays`."""
        scores, smoothed, first, second, average = (
            torch.from_numpy(np.array(arrays[name]))
            for name in ("scores", "smoothed", "first", "second", "average")
        )
        return cls(scores, smoothed, first, second, average, int(arrays["step"]))


@dataclass(frozen=True)
class Metric:
    """M: which differences of moments (K, D) the training is to mend, and how much.

    Attributes:
        axes: (K, K), orthonormal rows, between classes.
        basis: (r, D), orthonormal rows.
        weights: (K, r), in [0, 1], of the coordinates.
    """

    axes: Tensor
    basis: Tensor
    weights: Tensor

    def to(self, device: torch.device | str) -> Metric:
        """The same on a device."""
        return Metric(self.axes.to(device), self.basis.to(device), self.weights.to(device))

    def __call__(self, difference: Tensor) -> Tensor:
        """MᵀM times `difference` (K, D)."""
        inside = self.axes @ (difference @ self.basis.T)
        return (self.axes.T @ (self.weights * inside)) @ self.basis


@dataclass(frozen=True)
class Rows:
    """The metric that takes whole rows, in all directions alike.

    Attributes:
        weights: (K, 1), of the classes; 0 leaves one out.
    """

    weights: Tensor

    def __call__(self, difference: Tensor) -> Tensor:
        """`difference` (K, D), row by row."""
        return self.weights * difference

    def to(self, device: torch.device | str) -> Rows:
        """The same on a device."""
        return Rows(self.weights.to(device))


class ServerTraining:
    """Trains a state towards moments.

    Args:
        trainer: generator, features, batch size and Adam's decay rates.
        steps: of the whole run: the learning rate falls over them.
        start, end: the learning rate at first and at last.
        smoothing: share of the past in the average of scores.
        decay: share of the past in the average of generated moments.

    Raises:
        ValueError: masks are not hard ones, or a share is outside [0, 1).
    """

    def __init__(
        self, trainer: LocalTrainer, *, steps: int, start: float = 0.03, end: float = 0.003,
        smoothing: float = 0.98, decay: float = 0.9,
    ) -> None:  # fmt: skip
        if trainer.mask_mode != "hard":
            raise ValueError(f"the server trains hard masks, not {trainer.mask_mode!r} ones")
        if not (0 <= smoothing < 1 and 0 <= decay < 1):
            raise ValueError(f"smoothing and decay lie in [0, 1), got {smoothing} and {decay}")
        self.trainer, self.steps, self.start, self.end = trainer, steps, start, end
        self.smoothing, self.decay = smoothing, decay

    def run(
        self,
        state: ServerState,
        target: NDArray[np.floating],
        metric: Metric | Rows,
        *,
        steps: int,
        seed: int,
    ) -> ServerState:
        """`steps` more steps towards `target` m̂ (K, D), with latents from `seed`; `state` is not changed.

        Steps are made on the trainer's device; what comes in and goes out is on the CPU.
        """
        trainer, device = self.trainer, self.trainer.device
        draws = torch.Generator().manual_seed(seed)
        goal, metric = torch.from_numpy(target).float().to(device), metric.to(device)
        kept = state.scores, state.smoothed, state.first, state.second, state.average
        scores, smoothed, first, second, average = (each.to(device, copy=True) for each in kept)
        losses = []
        for step in range(state.step + 1, state.step + steps + 1):
            latents, labels = draw_latents(trainer.batch_size, trainer.architecture, draws)
            latents, labels = latents.to(device), None if labels is None else labels.to(device)
            leaf = scores.clone().requires_grad_(True)
            mask = training_mask(leaf, "hard", temperature=trainer.temperature)
            moments = class_means(trainer, mask, latents, labels)
            average.mul_(self.decay).add_(moments.detach(), alpha=1 - self.decay)
            difference = goal - average / (1 - self.decay**step)
            pull = metric(difference)
            losses.append((difference * pull).sum())  # read after the last step: no step waits for it
            (gradient,) = torch.autograd.grad(moments, leaf, -pull)
            now = rate(step - 1, self.steps, start=self.start, end=self.end)
            adam_step(scores, gradient, first, second, step, now, trainer.betas)
            if step <= WARM_UP:
                smoothed.copy_(scores)
            else:
                smoothed.lerp_(scores, 1 - self.smoothing)
        return ServerState(
            scores.cpu(),
            smoothed.cpu(),
            first.cpu(),
            second.cpu(),
            average.cpu(),
            state.step + steps,
            float(torch.stack(losses).double().mean()) if losses else state.loss,
        )
