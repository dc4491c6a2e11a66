"""A graphics card beside the CPU: local training, the server's steps, features, generating; seconds of both.

    python experiments/device/beside_cpu.py [--device cuda] [--steps 20] [--out results.json]

In turn, best of three, by the clock, with the card's queue emptied before it is read; five minutes on a
machine of two cores. Results are compared, too: they agree up to rounding.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from prism_secure.config import load_config
from prism_secure.learning.measured.server_training import Metric, ServerState, ServerTraining
from prism_secure.learning.training import LocalTrainer
from prism_secure.model.generator import draw_latents
from prism_secure.model.supermask import initial_theta, training_mask
from prism_secure.rounds.components import Components


def seconds(action: Callable[[], torch.Tensor], device: str, tries: int = 3) -> tuple[float, torch.Tensor]:
    """The quickest of some tries, and what came out."""
    found, best = action(), float("inf")
    for _ in range(tries):
        if device != "cpu":
            torch.cuda.synchronize()
        began = time.perf_counter()
        found = action()
        if device != "cpu":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return best, found


def work(trainer: LocalTrainer, steps: int) -> dict[str, Callable[[], torch.Tensor]]:
    """What is timed, by name; each gives something to compare."""
    theta, device = initial_theta(trainer.dimension, seed=0), trainer.device
    rows = trainer.architecture.classes or 1
    images = torch.rand(250, 1, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    target = trainer.targets(images, torch.arange(250) % rows)
    width = trainer.extractor.dimension
    metric = Metric(torch.eye(rows), torch.eye(width), torch.ones(rows, width))
    extractor = copy.deepcopy(trainer.extractor).to(device)
    mask = training_mask(torch.logit(theta).float().to(device), "hard", temperature=trainer.temperature)
    latents, labels = draw_latents(250, trainer.architecture, torch.Generator().manual_seed(2))
    latents, labels = latents.to(device), None if labels is None else labels.to(device)

    def local() -> torch.Tensor:
        state = trainer.initial_state()
        return trainer.train(theta, state, target, steps=steps, seed=3, progress=0.0).scores

    def server() -> torch.Tensor:
        state, goal = ServerState.start(trainer, theta), np.full((rows, width), 0.01)
        return ServerTraining(trainer, steps=10 * steps).run(state, goal, metric, steps=steps, seed=4).scores

    @torch.no_grad()
    def features() -> torch.Tensor:
        return extractor(images.to(device)).cpu()

    @torch.no_grad()
    def generated() -> torch.Tensor:
        return trainer.supermask(mask, latents, labels).cpu()

    return {
        f"{steps} steps of a client": local,
        f"{steps} steps of the server": server,
        "features of 250 images": features,
        "250 generated images": generated,
    }


def main() -> None:
    """Both devices, in turn."""
    parser = argparse.ArgumentParser(description="A graphics card beside the CPU.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines = []
    settings = [f"model.width={options.width}"]
    cpu, card = (
        work(Components(load_config(None, [*settings, f"federation.device={device}"])).trainer, options.steps)
        for device in ("cpu", options.device)
    )
    for name in cpu:
        (here, ours), (there, theirs) = seconds(cpu[name], "cpu"), seconds(card[name], options.device)
        apart = float((ours - theirs).norm() / ours.norm())
        line = {"name": name, "cpu": here, options.device: there, "faster": here / there, "apart": apart}
        lines.append(line)
        print(
            f"{name}: {here:.3f} s on the CPU, {there:.3f} s on {options.device}, {here / there:.1f}×, "
            f"{apart:.1e} apart",
            flush=True,
        )
    if options.out:
        options.out.write_text(json.dumps(lines, indent=1) + "\n")


if __name__ == "__main__":
    main()
