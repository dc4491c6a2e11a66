"""Sweep folders as a sweep would leave them, made without training."""

from __future__ import annotations

import math
import os
import random
import shutil
from pathlib import Path
from unittest import mock

import msgspec

from prism_secure.config import dump_config
from prism_secure.quality.samples import encode_png, sample_grid
from prism_secure.run_folder.folder import read_records
from prism_secure.run_folder.records import RoundRecord, encode
from prism_secure.run_folder.run import Run
from prism_secure.sweep.recipe import point_id, read_recipe
from prism_secure.sweep.results import PointFile, point_text, sweep_run

from .. import fake_run

ENVIRONMENT = b"""{"command": "prism-secure sweep flip.toml --out sweeps/flip", "python": "CPython 3.11.2",
"packages": {"prism-secure": "0.1.0", "torch": "2.5.0"}, "cpu": "a processor", "commit": null,
"facts": {"parameters": 242000, "training_images": 10000, "held_out_images": 2000}}"""

RECIPE = """
[federation]
rounds = {rounds}
[privacy]
record_epsilon = inf
record_release = "client"
[sweep]
seeds = {seeds}
[sweep.grid]
{grid}
"""


def make_sweep(
    folder: Path,
    grid: str = "privacy.flip = [0, 0.1, 0.2]\nprivacy.clip = [0.25, 1.0]",
    *,
    seeds: int = 2,
    rounds: int = 6,
    images: bool = True,
    leave_out: int = 0,
) -> Path:
    """A sweep with all its runs finished, but for the last `leave_out`, which have not begun."""
    folder.mkdir(parents=True)
    text = RECIPE.format(rounds=rounds, seeds=list(range(seeds)), grid=grid)
    (folder / "recipe.toml").write_text(text)
    recipe = read_recipe(folder / "recipe.toml")
    (folder / "recipe.toml").rename(folder / "sweep.toml")
    (folder / "command.txt").write_text("prism-secure sweep flip.toml --out sweeps/flip\n")
    (folder / "points").mkdir()
    runs = []
    for settings in recipe.grid():
        (folder / "points" / f"{point_id(settings)}.json").write_bytes(point_text(PointFile(settings)))
        runs.append([sweep_run(folder, recipe.config(settings, seed)) for seed in recipe.seeds])
    every = [run for point in runs for run in point]
    kept = {run.name for run in every[: len(every) - leave_out]}
    with (
        mock.patch.object(os, "fsync"),  # nothing here needs to outlive a power cut
        mock.patch.object(fake_run, "environment_file", return_value=ENVIRONMENT),  # without loading torch
    ):
        for point in runs:
            first = point[0]
            if first.name not in kept:
                continue
            overrides = [*_overrides(first), f"federation.seed={first.seed}"]
            fake_run.make_run(first.folder, overrides, images=False)
            if images:
                (first.folder / "samples" / f"round-{rounds:04d}.png").write_bytes(_grid(first))
            (first.folder / "config.toml").write_text(dump_config(first.config))
            records = read_records(first.folder)
            for run in point:
                if run.name not in kept:
                    continue
                if run is not first:
                    shutil.copytree(first.folder, run.folder)
                    (run.folder / "config.toml").write_text(dump_config(run.config))
                coins = random.Random(run.name)
                lines = [encode(_vary(record, run, coins)) + b"\n" for record in records]
                (run.folder / "metrics.jsonl").write_bytes(b"".join(lines))
    return folder


def _grid(run: Run) -> bytes:
    """Blurrier with more noise."""
    images, labels = fake_run.drawn_images(0.15 + 4 * run.config.privacy.flip)
    return encode_png(sample_grid(images, labels, names=fake_run.NAMES, columns=4, scale=1))


def _overrides(run: Run) -> list[str]:
    """What the drawn run needs of the true configuration."""
    privacy, federation = run.config.privacy, run.config.federation
    return [
        f"federation.rounds={federation.rounds}",
        f"federation.clients={federation.clients}",
        f"privacy.flip={privacy.flip}",
        *([] if privacy.clip is None else [f"privacy.clip={privacy.clip}"]),
        *([] if math.isinf(privacy.record_epsilon) else [f"privacy.record_epsilon={privacy.record_epsilon}"]),
    ]


def _vary(record: RoundRecord, run: Run, coins: random.Random) -> RoundRecord:
    """Worse with noise and with a small clip, a little different for each seed."""
    if record.quality is None:
        return record
    privacy = run.config.privacy
    worse = 1 + 2.5 * privacy.flip + 0.15 / (privacy.clip or 10) * (privacy.flip > 0)
    factor = worse * (1 + 0.03 * coins.uniform(-1, 1))
    quality = msgspec.structs.replace(
        record.quality, fid=record.quality.fid * factor, kid=record.quality.kid * factor
    )
    return msgspec.structs.replace(record, quality=quality)
