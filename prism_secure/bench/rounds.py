"""Local training: a step and its parts against this machine's arithmetic, and clients that train alike."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from prism_crypto.bench.rows import Action, Row, in_turn
from prism_secure.bench.limits import fp32_flops
from prism_secure.config import load_config
from prism_secure.model import generator as model
from prism_secure.model.generator import draw_latents
from prism_secure.model.supermask import initial_theta, scores_from_theta, training_mask
from prism_secure.rounds.components import Components

CLIENTS, GROUPS, STEPS = 10, 2, 2


def rows(tries: int, *, quick: bool = False) -> Iterator[Row]:
    """Of recipe one-shot."""
    small = ["model.width=4", "model.image_size=8", 'features.extractors=["fourier"]', "metrics.samples=200"]
    components = Components(load_config(recipe="one-shot", overrides=small if quick else []))
    trainer, dataset = components.trainer, components.dataset
    theta = initial_theta(trainer.dimension, seed=0)
    target = trainer.targets(dataset.train_images[:200].float() / 127.5 - 1, dataset.train_labels[:200])
    leaf = scores_from_theta(theta, trainer.temperature).requires_grad_(True)
    draws = torch.Generator().manual_seed(0)
    latents, labels = draw_latents(trainer.batch_size, trainer.architecture, draws)

    def images() -> torch.Tensor:
        mask = training_mask(leaf, trainer.mask_mode, temperature=trainer.temperature, generator=draws)
        made: torch.Tensor = trainer.supermask(mask, latents, labels)
        return made

    made = images().detach().requires_grad_(True)

    def step() -> None:
        trainer.train(theta, trainer.initial_state(), target, steps=1, seed=0, progress=0.0)

    def generator() -> None:
        torch.autograd.grad(images().sum(), leaf)

    def features() -> None:
        seen = made * 1.0  # counting operations takes no leaf as an input
        torch.autograd.grad(trainer.extractor(seen).sum(), made)

    def plainly(action: Action) -> Action:
        def run() -> None:
            with patch.object(model, "_upsample_convolve", _as_written):
                action()

        return run

    for name, action, written in (
        (f"a step of training, {trainer.batch_size} images", step, plainly(step)),
        ("its generator, forward and backward", generator, plainly(generator)),
        ("its features, forward and backward", features, None),
    ):
        ours, *others = in_turn(tries, *filter(None, (action, written)), scale=1e3)
        yield Row(
            name=name, unit="ms", ours=ours, bound="its arithmetic in the fastest kernel",
            limit=_operations(action) / fp32_flops() * 1e3, other=others[0] if others else [],
            instead="the generator as one writes it: upsample, convolve, channels first" if others else "",
        )  # fmt: skip

    def ten(*, shared: bool) -> None:
        for client in range(CLIENTS):
            trainer.train(
                theta, trainer.initial_state(), target, steps=STEPS, seed=client * GROUPS // CLIENTS,
                progress=0.0, shared=shared,
            )  # fmt: skip
        trainer.train(
            theta, trainer.initial_state(), target, steps=1, seed=CLIENTS, progress=0.0, shared=shared
        )

    ours, other = in_turn(min(tries, 3), lambda: ten(shared=True), lambda: ten(shared=False), least=0.0)
    yield Row(
        name=f"{CLIENTS} clients in {GROUPS} groups, {STEPS} steps, one sum of moments", unit="s", ours=ours,
        instead="each trains for itself, to the same bits", other=other,
    )  # fmt: skip


def _as_written(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The same layer without what makes it quick; what follows it stays in its layout."""
    return F.conv2d(F.interpolate(x.contiguous(), scale_factor=2.0), weight, padding=1)


def _operations(action: Action) -> float:
    with FlopCounterMode(display=False) as counter:
        action()
    return float(counter.get_total_flops())
