"""Run folders as a run would leave them, made without training: plausible records, drawn images."""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from prism_privacy.accounting.events import OpenedMoments, compose
from prism_privacy.ledger import Ledger
from prism_privacy.ledger.check import SUM_NOT_RUN
from prism_privacy.ledger.entry import RecordGuarantee, Spent
from prism_privacy.ledger.key import LedgerKey
from prism_privacy.masks.release import MaskRelease
from prism_privacy.moments.release import MomentRelease
from prism_privacy.units import Adjacency, Unit, View
from prism_secure.accounting.epsilons import CELLS, Epsilons, RecordEpsilon
from prism_secure.config import Config, dump_config, load_config
from prism_secure.quality.samples import encode_png, sample_grid
from prism_secure.run_folder.environment import Facts, write_environment
from prism_secure.run_folder.records import Quality, RoundRecord, encode

NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
PARAMETERS = 242_000


def opened_table(release: MomentRelease, *, images: int, clients: int) -> dict[tuple[View, Adjacency], Spent]:
    """What a ledger states of a client where moments of all were opened: masks made from them add nothing."""
    opened = {OpenedMoments(release, images, clients): 1}
    return {cell: Spent(0.0, compose(opened, 1e-5, Unit.CLIENT, *cell).epsilon) for cell in CELLS}


def drawn_images(noise: float, *, size: int = 32, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Ten discs of each of ten sizes under noise, uint8 `(100, C, H, W)`, and their labels."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    labels = np.repeat(np.arange(10), 10)
    discs = (np.hypot(x, y) < (size / 24) * (labels[:, None, None] + 2)).astype(float) * 2 - 1
    noisy = np.clip(discs + noise * rng.standard_normal(discs.shape), -1, 1)
    images = np.rint((noisy + 1) * 127.5).astype(np.uint8)[:, None].repeat(channels, axis=1)
    return images, labels


def epsilon_after(config: Config, rounds: int, view: View, adjacency: Adjacency) -> float:
    """Plausible, not computed: infinite without noise, huge unclipped, small for a small clip."""
    if config.privacy.flip == 0:
        return math.inf
    scale = 9_000.0 if config.privacy.clip is None else config.privacy.clip
    if config.privacy.clip is not None and adjacency is Adjacency.REPLACE_ONE:
        scale *= 2
    return scale * rounds if view is View.UPLOAD else 0.4 * scale * rounds**0.7


def record_of(config: Config, number: int, *, evaluated: bool = True) -> RoundRecord:
    """The record of one round; quality improves, then falls back a little."""
    fid = 95 + 310 * math.exp(-number / 2.6) + 1.5 * max(0, number - 9) + 25 * (config.privacy.flip > 0)
    done = 1 - math.exp(-number / 3)
    quality = Quality(
        fid=fid, kid=fid / 900, precision=0.55 * done, recall=0.3 * done, density=0.4 * done,
        coverage=0.37 * done, label_accuracy=0.1 + 0.78 * done,
    )  # fmt: skip
    n = config.federation.clients
    return RoundRecord(
        round=number,
        survivors=n,
        epsilon=Epsilons(
            **{f"{v}_{a}": epsilon_after(config, number, v, a) for v in View for a in Adjacency}
        ),
        record=None
        if (record := record_guarantee(config)) is None
        else RecordEpsilon(epsilon=record.epsilon, delta=record.delta, adjacency=record.adjacency),
        bits_per_parameter=3.5572,
        uplink_bytes=n * 110_345,
        downlink_bytes=n * 971_210,
        step=max(0.2, 1 - number / 15),
        seconds=21.3 + 0.4 * math.sin(number),
        secure_sum_seconds=0.21 + 0.01 * math.cos(number),
        quality=quality if evaluated else None,
    )


def record_guarantee(config: Config) -> RecordGuarantee | None:
    """Of one release a client of 1,000 images with ten classes."""
    if math.isinf(config.privacy.record_epsilon):
        return None
    epsilon, delta = config.privacy.record_epsilon, config.privacy.delta
    release = MomentRelease.calibrated(epsilon=epsilon, delta=delta, records=1000, classes=10)
    return RecordGuarantee.of(release, delta)


@functools.cache
def environment_file() -> bytes:
    """What a run writes about its environment, asked for once."""
    with tempfile.TemporaryDirectory() as folder:
        facts = Facts(parameters=PARAMETERS, training_images=10_000, held_out_images=2_000)
        write_environment(Path(folder), "prism-secure run --out runs/first", facts)
        return (Path(folder) / "environment.json").read_bytes()


@functools.cache
def sample_file(number: int) -> bytes:
    """A round's grid; the images come out of the noise with the rounds."""
    return encode_png(sample_grid(*drawn_images(2.5 * math.exp(-number / 3) + 0.15), names=NAMES, scale=1))


def make_run(
    folder: Path,
    overrides: list[str] | None = None,
    *,
    rounds: int | None = None,
    every: int = 1,
    images: bool = True,
    ledger: bool = True,
    done: bool = True,
    coins: str = "secret",
    ending: Mapping[str, object] | None = None,
) -> Path:
    """A run folder after `rounds` rounds (left out: all of them), evaluated every so many.

    Nothing is claimed for single images unless `overrides` say so. The ledger's last line says `ending`; left
    out, it is that of the last round.
    """
    plain = ["privacy.record_epsilon=inf", "privacy.record_release=client"]
    config = load_config(None, ["federation.rounds=12", *plain, *(overrides or [])])
    rounds = config.federation.rounds if rounds is None else rounds
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(dump_config(config))
    (folder / "environment.json").write_bytes(environment_file())
    for number in range(1, rounds + 1):
        evaluated = number % every == 0 or number == config.federation.rounds
        with (folder / "metrics.jsonl").open("ab") as file:
            file.write(encode(record_of(config, number, evaluated=evaluated)) + b"\n")
        if evaluated and images:
            (folder / "samples" / f"round-{number:04d}.png").write_bytes(sample_file(number))
    if ledger:
        write_ledger(folder, config, rounds, coins, ending)
    if done:
        (folder / "DONE").write_text("all rounds\n")
    return folder


def write_ledger(
    folder: Path,
    config: Config,
    rounds: int,
    coins: str = "secret",
    ending: Mapping[str, object] | None = None,
) -> None:
    """The ledger that belongs to the records of `make_run`."""
    release = MaskRelease(config.privacy.flip, config.privacy.clip, cohort=config.cohort, dim=PARAMETERS)
    record = record_guarantee(config)
    settings = SUM_NOT_RUN if config.secure_sum.simulate else {}
    if record is not None:
        settings = settings | {"record_release": config.privacy.record_release}
    with Ledger.create(
        folder / "ledger.jsonl",
        LedgerKey(),
        federation="f" * 32,
        clients=config.federation.clients,
        records=1000,
        settings=settings,
    ) as ledger:
        if record is not None:
            ledger.append(
                round=0,
                kind="moments",
                release=record.release,
                delta=config.privacy.delta,
                epsilon={(view, adjacency): Spent(0.0, 0.0) for view in View for adjacency in Adjacency},
                cohort=config.record_cohort if config.opens_moments else config.cohort,
                record=record,
            )
        for number in range(1, rounds + 1):
            table = {
                (view, adjacency): Spent(
                    epsilon_after(config, 1, view, adjacency),
                    epsilon_after(config, number, view, adjacency),
                    planned=epsilon_after(config, config.federation.rounds, view, adjacency),
                )
                for view in View
                for adjacency in Adjacency
            }
            ledger.append(
                round=number,
                release=release,
                delta=config.privacy.delta,
                epsilon=None if coins == "test" else table,
                record=record,
                coins=coins,
            )
        if ending is not None:
            last = ledger.entries[-1]
            over = {cell: replace(spent, round=0.0) for cell, spent in (last.epsilon or {}).items()}
            ledger.append(
                round=rounds,
                kind="end",
                release=release,
                delta=last.delta,
                epsilon=over or None,
                record=record,
                coins=coins,
                metrics=ending,
            )
