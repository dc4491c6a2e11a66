"""The published code itself, on the same data, features and evaluation: does it give the same curve?

    git clone https://github.com/tjrudrnr2/PRISM_ICLR25 published
    python experiments/compare_official/published_code.py published --out FOLDER [as compare.py]

Its clients and its server run unchanged, on the CPU. What is put in their way is this: our extractor as their
classifier, our images and partition, our evaluation of its masks, and empty modules for packages that it
imports and does not need here (plots, W&B, its own metrics, data). None of its code is part of this project.

Its tracked differences start at random numbers of size 1/sqrt(D), as every linear layer does, and move by
1e-5 a step; with few features and few steps they stay what they were, and nothing is learned but noise. So
they are set to 0 first, which is what `averaging = "faithful"` has and what one would mean; `--as-is` leaves
them.

What is measured differs from what it measures: one mask, drawn once from its probabilities by a public seed,
in eval mode, as for everybody else. Names in results.jsonl begin with "short-published-".
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from compare import REGIMES, recipe, write_images
from torch import Tensor, nn

from prism_secure.config.public_seed import public_seed
from prism_secure.data import to_float
from prism_secure.quality.metrics import Evaluator
from prism_secure.quality.networks import metric_features
from prism_secure.rounds.components import Components

sys.path.insert(0, str(Path(__file__).parents[1]))
from results import append, done

UNUSED = (
    "metrics", "metrics.evaluate", "metrics.prdc", "metrics.fid_score", "metrics.inception_score", "seaborn",
    "matplotlib", "matplotlib.pyplot", "sklearn", "sklearn.manifold", "torchvision", "torchvision.utils",
    "torchvision.transforms", "wandb", "pandas",
)  # fmt: skip
"""Modules that it imports for evaluation, plots and data, which are done here."""


class Unused(ModuleType):
    """A module of which anything may be imported."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock()


class OurFeatures(nn.Module):
    """Our extractor in the shape of its classifier: (scores, [features (B, D)]), D announced.

    It turns grey images into three equal channels and, where there is colour, shifts generated ones to
    ImageNet's scale; here images stay in [-1, 1], reals and fakes alike.
    """

    def __init__(self, recipe: Components) -> None:
        super().__init__()
        self.extractor, self.channels = recipe.extractor, recipe.dataset.channels
        self.numberOfFeaturesPerLayer = [self.extractor.dimension]

    def forward(self, images: Tensor) -> tuple[None, list[Tensor]]:
        return None, [self.extractor(images[:, : self.channels])]


def import_published(folder: Path) -> tuple[Any, Any]:
    """Its Client and Server.

    Raises:
        SystemExit: the folder does not hold it.
    """
    if not (folder / "servers" / "prism.py").exists():
        raise SystemExit(f"{folder} does not hold the published code: servers/prism.py is not there")
    real = {name: sys.modules.pop(name) for name in UNUSED if name in sys.modules}
    sys.modules |= {name: Unused(name) for name in UNUSED}
    sys.path.insert(0, str(folder))
    import utils.utils

    # Its server imports this, which its utilities lack, and never calls it.
    utils.utils.compare_mask = getattr(utils.utils, "compare_mask", None)
    from clients.prism import Client
    from servers.prism import Server

    for name in UNUSED:
        del sys.modules[name]
    sys.modules |= real
    return Client, Server


def arguments(recipe: Components, steps: int) -> SimpleNamespace:
    """Its options, at its defaults where nothing is said."""
    config = recipe.config
    return SimpleNamespace(
        num_users=config.federation.clients, frac=1, local_ep=steps, local_bs=config.training.batch_size,
        lr=config.training.learning_rate, lrMovAvrg=config.training.tracking_rate, beta1=0.5,
        nz=config.model.latent, nc=recipe.dataset.channels, ngf=config.model.width,
        imageSize=config.model.image_size, notAdaptFilterSize=False, useConvAtGSkipConn=False,
        numLayersToFtrMatching=1, init="Constant", score_init="ME_init", scale_fan=False, affine=True,
        bias=False, sparsity=0, num_scorelayer=0, dp_epsilon=0, dp_clip=0.1, dp_delta=1e-5, MADA=True,
        dist_type="hd",
        dataset="fmnist", netEncType="ours", iid=1, divide=4, save=False, evalIter=10**9, gpunum=0,
        experiments="published", embedder_backbone="none", test_num=0, batchSize=64,
    )  # fmt: skip


def generate(server: Any, count: int, seed: int) -> Tensor:
    """Images of one mask, drawn once from the server's probabilities: (count, C, H, W) in [-1, 1].

    Its layers draw their masks themselves, so the drawn one is written into the scores as +-30, which they
    draw as it is. BatchNorm's statistics come from latents that anybody can draw, as for our deployed masks.
    """
    network, draws = server.global_model, torch.Generator().manual_seed(seed)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for name, scores in network.named_parameters():
            if name.endswith(".scores"):
                kept = torch.rand(scores.shape, generator=draws) < torch.sigmoid(scores)
                scores.copy_(torch.where(kept, 30.0, -30.0))
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over what follows
        for _ in range(4):
            network(torch.randn(200, server.args.nz, 1, 1, generator=draws))
        network.eval()
        latents = torch.randn(count, server.args.nz, 1, 1, generator=draws)
        images = torch.cat([network(part) for part in latents.split(250)])
    network.train()
    network.load_state_dict(state)
    for norm in norms:
        norm.momentum = 0.1
    return images


def main() -> None:
    """One run of the published code, measured as ours are."""
    parser = argparse.ArgumentParser(description="The published code on our data, features and evaluation.")
    parser.add_argument("code", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--regime", choices=REGIMES, default="short")
    parser.add_argument("--split", choices=("iid", "shards-4"), default="iid")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--as-is", action="store_true", help="leave the start of its moving averages random")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--features", nargs="+", default=["efficientnet_lite0", "fourier"])
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides")
    options = parser.parse_args()
    options.workers = 1
    method = "published-as-is" if options.as_is else "published"
    name = f"{options.regime}-{method}-{options.split}-f0-s{options.seed}"
    results = options.out / "results.jsonl"
    options.out.mkdir(parents=True, exist_ok=True)
    if done(results, name):
        raise SystemExit(f"{name} is in {results} already")
    if options.images and not (options.out / "images").exists():
        write_images(options.out / "images", options.images)
    _, config = recipe("official", options.split, 0.0, options.seed, options)
    ours = Components(config)
    rounds, steps, every = config.federation.rounds, config.federation.local_steps, config.metrics.every
    client_class, server_class = import_published(options.code.resolve())
    torch.manual_seed(public_seed(options.seed, "published"))
    np.random.seed(options.seed)  # noqa: NPY002  scipy's Bernoulli draws, there, come from it
    classifier, told = OurFeatures(ours), arguments(ours, steps)
    clients = []
    for index, chosen in enumerate(ours.partition.indices):
        images = to_float(ours.dataset.train_images[torch.from_numpy(chosen)])
        loader = [(part, None) for part in images.split(250)]
        client = client_class(told, classifier, loader, index, "cpu")
        moments = client.precomputed_real_datas()
        client.Load_precomputed_realData = lambda moments=moments: (
            moments
        )  # its cache has no seed in its name
        if not options.as_is:
            nn.init.zeros_(client.NetMean.weight)
            nn.init.zeros_(client.NetVar.weight)
        clients.append(client)
    server = server_class(told, classifier, clients, None, "cpu")
    evaluator = Evaluator(
        ours.dataset.test_images, features=metric_features("classifier"), classes=ours.dataset.classes
    )
    setting = {"regime": options.regime, "method": method, "split": options.split, "flip": 0.0}
    lines = []
    for number in range(1, rounds + 1):
        server.train(number - 1)
        if number % every and number != rounds:
            continue
        images = generate(server, config.metrics.samples, public_seed(options.seed, "evaluation"))
        quality = evaluator(images)
        found = {key: quality[key] for key in ("fid", "kid", "coverage")}
        place = {"seed": options.seed, "round": number, "steps": number * steps}
        lines.append({"name": name, **setting, **place, **found})
        print(json.dumps(lines[-1]), file=sys.stderr, flush=True)
    append(results, lines)


if __name__ == "__main__":
    main()
