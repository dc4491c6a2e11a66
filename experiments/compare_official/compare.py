"""The published algorithm and this project's, with equal data, features, steps, clients and evaluation.

    python experiments/compare_official/compare.py --out FOLDER [--regime short] [--seeds 3] [--only WORD ...]
    python experiments/compare_official/compare.py --out FOLDER --figure

All are recipes of `prism-secure run`; they differ in what `OFFICIAL`, `OURS` and `DEFAULT` say. A run that is
in FOLDER/results.jsonl is not made again, and one that was cut short continues: stop it at any time. The
cross-check with the published code itself is `published_code.py`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

from prism_secure.config import Config, load_config
from prism_secure.data import load
from prism_secure.data.idx import write_idx
from prism_secure.rounds.simulation import run
from prism_secure.run_folder.folder import read_records

sys.path.insert(0, str(Path(__file__).parents[1]))
from results import append, done, read, spread

OFFICIAL = (
    "mask.mode=bernoulli",
    "mask.temperature=1.0",
    "model.conditional=false",
    "training.learning_rate=0.1",
    "training.averaging=faithful",
    "training.tracking_rate=1e-5",
    "aggregation.rule=sampled",
    "aggregation.space=logit",
)
"""Of the published code, from its description: Bernoulli masks, Adam at 0.1, tracked differences, a blend of
scores with the Hamming distance of drawn masks as weight, no classes."""
OURS = (
    "mask.mode=hard",
    "mask.temperature=0.1",
    "model.conditional=true",
    "training.learning_rate=0.03",
    "training.averaging=ema",
    "aggregation.rule=schedule",
    "aggregation.space=theta",
)
"""The masks and the server of recipe one-shot; exact moments of a client's own images, as there."""
DEFAULT = (
    *OURS,
    "privacy.record_epsilon=2.0",
    "features.bounded=true",
    "training.variance_weight=0.0",
)
"""Recipe one-shot: all train from one securely summed, noisy release of moments: epsilon 2 an image."""
EQUAL = (
    "privacy.record_epsilon=inf",
    "features.bounded=false",
    "training.variance_weight=1.0",
    "model.width={width}",
)
REGIMES = {
    "short": ("federation.rounds=10", "federation.local_steps=10", "metrics.every=5"),
    "long": (
        "federation.rounds=40",
        "federation.local_steps=50",
        "metrics.every=10",
        "federation.clients=4",
        "training.batch_size=20",
    ),
}
"""100 and 2,000 steps a client; in the long one fewer clients and smaller batches, so that it ends."""
SPLITS = {"iid": ("data.partition=iid",), "shards-4": ("data.partition=shards", "data.shards_per_client=4")}
FLIPS = (0.0, 0.1)
METHODS = {"official": OFFICIAL, "ours": OURS, "default": DEFAULT}
LINES = {
    "official": ("#b4552d", "-", "published algorithm"),
    "published": ("#b4552d", ":", "published code"),
    "published-as-is": ("#8a8a8a", ":", "published code, random start of averages"),
    "ours": ("#1f6f8b", "-", "ours"),
    "default": ("#94a02c", "-", "ours, moments summed with ε = 2"),
}
"""Of the figure: colour, style, words."""


def recipe(
    method: str, split: str, flip: float, seed: int, options: argparse.Namespace
) -> tuple[str, Config]:
    """A run's name and its configuration."""
    equal = [each.format(width=options.width) for each in EQUAL]
    features = f"features.extractors={json.dumps(options.features)}"
    settings = [
        *equal,
        *REGIMES[options.regime],
        features,
        *METHODS[method],
        *SPLITS[split],
        f"privacy.flip={flip}",
    ]
    if options.images:
        settings += ["data.source=idx", f"data.folder={options.out / 'images'}"]
    settings += [f"federation.seed={seed}", f"federation.workers={options.workers}", *options.overrides]
    return f"{options.regime}-{method}-{split}-f{flip:g}-s{seed}", load_config(None, settings)


def write_images(folder: Path, count: int) -> None:
    """The first `count` training images of the bundled set and all held-out ones, as idx files."""
    bundled = load(image_size=28)
    parts = {
        "train": (bundled.train_images[:count, 0], bundled.train_labels[:count]),
        "t10k": (bundled.test_images[:, 0], bundled.test_labels),
    }
    folder.mkdir(exist_ok=True)
    for part, (images, labels) in parts.items():
        write_idx(folder / f"{part}-images-idx3-ubyte", images.numpy())
        write_idx(folder / f"{part}-labels-idx1-ubyte", labels.numpy().astype(np.uint8))


def train(options: argparse.Namespace) -> None:
    """Every run that is asked for and not there."""
    results = options.out / "results.jsonl"
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    for seed, split, flip, method in itertools.product(seeds, SPLITS, FLIPS, METHODS):
        name, config = recipe(method, split, flip, seed, options)
        if done(results, name):
            continue
        if options.only and not all(word in name for word in options.only):
            continue
        run(config, options.out / name)
        setting = {"regime": options.regime, "method": method, "split": split, "flip": flip, "seed": seed}
        rows = []
        for record in read_records(options.out / name):
            if record.quality is not None:
                steps, quality = record.round * config.federation.local_steps, record.quality
                found = {"fid": quality.fid, "kid": quality.kid, "coverage": quality.coverage}
                rows.append({"name": name, **setting, "round": record.round, "steps": steps, **found})
        append(results, rows)
        print(f"{name}: {rows[-1]}", flush=True)


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown: mean FID and coverage in the last round, from where to where over seeds, and FID over FID.

    A setting in which the published algorithm was not run has no rows.
    """
    last = {line["name"]: line for line in lines}
    cells: dict[tuple[str, ...], dict[str, list[dict[str, Any]]]] = {}
    for line in last.values():
        setting = (line["regime"], line["split"], f"{line['flip']:g}")
        cells.setdefault(setting, {}).setdefault(line["method"], []).append(line)
    rows = [
        "| regime | clients' data | flip | | seeds | FID | coverage | of the published algorithm's FID |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for setting, methods in sorted(cells.items()):
        if "official" not in methods:
            continue
        base = statistics.fmean(line["fid"] for line in methods["official"])
        for method, (_, _, words) in LINES.items():
            if method in methods:
                fid = [line["fid"] for line in methods[method]]
                cover = statistics.fmean(line["coverage"] for line in methods[method])
                share = statistics.fmean(fid) / base
                cell = f"{words} | {len(fid)} | {spread(fid, '.1f')} | {cover:.3f} | {share:.2f}"
                rows.append(f"| {' | '.join(setting)} | {cell} |")
    return "\n".join(rows) + "\n"


def figure(lines: list[dict[str, Any]], path: Path) -> None:
    """FID over steps, a panel a setting, a line a seed."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    regimes = [regime for regime in REGIMES if any(line["regime"] == regime for line in lines)]
    settings = list(itertools.product(SPLITS, FLIPS))
    size = (2.9 * len(settings), 2.7 * len(regimes))
    fig, axes = plt.subplots(
        len(regimes), len(settings), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for row, regime in zip(axes, regimes, strict=True):
        for axis, (split, flip) in zip(row, settings, strict=True):
            for method, (colour, style, words) in LINES.items():
                start = f"{regime}-{method}-{split}-f{flip:g}-s"
                names = sorted({line["name"] for line in lines if line["name"].startswith(start)})
                for index, name in enumerate(names):
                    points = [(line["steps"], line["fid"]) for line in lines if line["name"] == name]
                    axis.plot(*zip(*points, strict=True), "o", linestyle=style, color=colour, alpha=0.75,
                              markersize=3, linewidth=1.3, label=words if index == 0 else None)  # fmt: skip
            axis.set_visible(bool(axis.lines))
            axis.set_title(f"{regime}, {split}, flip {flip:g}", fontsize=9)
            axis.set_xlim(left=0)
            axis.set_xlabel("steps of a client")
            axis.grid(alpha=0.25)
            axis.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel("FID (shipped classifier)")
        row[0].set_ylim(bottom=0)
    handles, words = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, words, loc="outside lower center", ncols=len(words), frameon=False, fontsize=9)
    fig.savefig(path, dpi=130)
    plt.close(fig)


def main() -> None:
    """Train, or draw."""
    parser = argparse.ArgumentParser(description="The published algorithm beside this project's.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--regime", choices=REGIMES, default="short")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--features", nargs="+", default=["efficientnet_lite0", "fourier"])
    parser.add_argument("--images", type=int, default=0, help="of all clients; 0: the 10,000 bundled ones")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], help="runs whose names hold all these words")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides")
    parser.add_argument("--figure", action="store_true", help="draw and print what is there")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.images and not (options.out / "images").exists():
        write_images(options.out / "images", options.images)
    if not options.figure:
        train(options)
    lines = read(options.out / "results.jsonl")
    (options.out / "table.md").write_text(table(lines))
    if lines:
        figure(lines, options.out / "curves.png")
    print(table(lines))


if __name__ == "__main__":
    main()
