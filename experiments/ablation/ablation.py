"""One setting changed at a time: what each choice of the learning is worth.

    python experiments/ablation/ablation.py --out FOLDER [--seeds 3] [--only NAME ...] [--set KEY=VALUE ...]
    python experiments/ablation/ablation.py --list

Every row is the base with the settings that `ROWS` names, as a run of `prism-secure run`. A row and seed that
is in FOLDER/results.jsonl is not made again, and a run that was cut short continues.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from prism_secure.config import load_config
from prism_secure.rounds.simulation import run
from prism_secure.run_folder.folder import read_records

sys.path.insert(0, str(Path(__file__).parents[1]))
from results import append, done, read, spread

BASE = (
    "privacy.record_epsilon=inf",
    "features.bounded=false",
    "training.variance_weight=1.0",
    "model.width=8",
    "federation.clients=4",
    "federation.rounds=10",
    "federation.local_steps=10",
    "metrics.every=10",
)
"""Small, so that there are minutes for every row; exact moments, so that nothing but the masks is noisy; 100
steps a client."""
SUMMED = ("privacy.record_epsilon=2.0", "features.bounded=true", "training.variance_weight=0")
"""As recipe one-shot has it: all clients train from one noisy sum of their moments, epsilon 2 an image."""
SCHEDULE_OFF = ("aggregation.lambda_start=1", "aggregation.lambda_end=1")

ROWS: dict[str, tuple[str, ...]] = {
    "base": (),
    # masks
    "bernoulli": ("mask.mode=bernoulli",),
    "bernoulli-tau-1": ("mask.mode=bernoulli", "mask.temperature=1.0", "training.learning_rate=0.1"),
    "annealed": ("mask.mode=annealed",),
    "topk-half": ("mask.mode=topk",),
    # temperature and spread of the scores
    "tau-0.05": ("mask.temperature=0.05",),
    "tau-0.2": ("mask.temperature=0.2",),
    "tau-1": ("mask.temperature=1.0",),
    "spread-0.5": ("mask.spread=0.5",),
    "spread-2": ("mask.spread=2.0",),
    # the server's step
    "fixed-1": ("aggregation.rule=fixed",),
    "sampled": ("aggregation.rule=sampled",),
    "expected": ("aggregation.rule=expected",),
    "coupled": ("aggregation.rule=coupled",),
    "cosine": ("aggregation.rule=cosine",),
    "kalman": ("aggregation.rule=kalman", *SCHEDULE_OFF),
    "kalman-falling": ("aggregation.rule=kalman",),
    "kalman-global": ("aggregation.rule=kalman_global", *SCHEDULE_OFF),
    "sampled-logit": ("aggregation.rule=sampled", "aggregation.space=logit"),
    "schedule-logit": ("aggregation.space=logit",),
    "momentum": ("aggregation.momentum=0.5",),
    # the opened mean: debiased and drawn towards a half (by 0.2: as the bits came, where the flip is 0.1)
    "shrink-0.1": ("aggregation.shrink=0.1",),
    "shrink-0.2": ("aggregation.shrink=0.2",),
    # steps against rounds, at equal work
    "rounds-5": ("federation.rounds=5", "federation.local_steps=20", "metrics.every=5"),
    "rounds-20": ("federation.rounds=20", "federation.local_steps=5", "metrics.every=20"),
    "rounds-50": ("federation.rounds=50", "federation.local_steps=2", "metrics.every=50"),
    # objective
    "means-only": ("training.variance_weight=0",),
    "faithful": ("training.averaging=faithful",),
    "unconditional": ("model.conditional=false",),
    # features
    "pooled": ('features.extractors=["efficientnet_lite0_pooled", "fourier"]',),
    "fourier-only": ('features.extractors=["fourier"]',),
    "no-fourier": ('features.extractors=["efficientnet_lite0"]',),
    # clients
    "shards-4": ("data.partition=shards",),
    "dirichlet-0.5": ("data.partition=dirichlet",),
    "dirichlet-0.005": ("data.partition=dirichlet", "data.dirichlet_alpha=0.005"),
    "summed": SUMMED,
    "shards-4-summed": ("data.partition=shards", *SUMMED),
    "dirichlet-0.005-summed": ("data.partition=dirichlet", "data.dirichlet_alpha=0.005", *SUMMED),
    "invited-0.75": ("federation.client_fraction=0.75",),
    # PRISM-alpha
    "alpha-half": ("mask.score_layers=0.5",),
}
"""Each with flip 0 and 0.1, apart from PRISM-alpha, which has none."""


def train(options: argparse.Namespace) -> None:
    """Every run that is asked for and not there."""
    results = options.out / "results.jsonl"
    wanted = [name for name in ROWS if not options.only or name in options.only]
    for seed in range(options.seeds):
        for name in wanted:
            for flip in (0.0,) if name.startswith("alpha") else options.flips:
                label = f"{name}-f{flip:g}-s{seed}"
                if done(results, label, key="run"):
                    continue
                settings = [*BASE, f"privacy.flip={flip}", *options.overrides, *ROWS[name]]
                run(load_config(None, [*settings, f"federation.seed={seed}"]), options.out / label)
                quality = read_records(options.out / label)[-1].quality
                assert quality is not None
                line = {
                    "run": label, "row": name, "flip": flip, "seed": seed, "fid": quality.fid,
                    "coverage": quality.coverage, "label_accuracy": quality.label_accuracy,
                }  # fmt: skip
                append(results, [line])
                print(json.dumps(line), flush=True)


def table(path: Path) -> str:
    """Markdown: FID and coverage of each row, mean over seeds and FID's range, by flip."""
    lines = read(path)
    flips = sorted({line["flip"] for line in lines})
    names = "".join(f" FID, flip {flip:g} | coverage |" for flip in flips)
    rows = [f"| row | settings |{names}", "|---|---|" + "---|---|" * len(flips)]
    for name, settings in ROWS.items():
        cells = []
        for flip in flips:
            found = [line for line in lines if (line["row"], line["flip"]) == (name, flip)]
            if not found:
                cells.append(" – | – |")
                continue
            cover = statistics.fmean(line["coverage"] for line in found)
            cells.append(f" {spread([line['fid'] for line in found], '.1f')} | {cover:.3f} |")
        if any("–" not in cell for cell in cells):
            rows.append(f"| {name} | {' '.join(f'`{each}`' for each in settings)} |" + "".join(cells))
    return "\n".join(rows) + "\n"


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description="One setting changed at a time.")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--flips", type=float, nargs="+", default=[0.0, 0.1])
    parser.add_argument("--only", nargs="*", default=[], choices=list(ROWS), metavar="ROW")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    if options.list or options.out is None:
        for name, settings in ROWS.items():
            print(f"{name}: {' '.join(settings or BASE)}")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    train(options)
    (options.out / "table.md").write_text(table(options.out / "results.jsonl"))
    print(table(options.out / "results.jsonl"))


if __name__ == "__main__":
    main()
