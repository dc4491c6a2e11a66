"""What a run would trip over must be said before anything is written, charged or released."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from prism_privacy import SummedMoments, verify_ledger
from prism_secure.cli import main
from prism_secure.config import Config, load_config
from prism_secure.config.public_seed import public_seed
from prism_secure.data import to_float
from prism_secure.errors import (
    ConfigError,
    DataError,
    FeatureError,
    PrismError,
    RoundError,
    StorageError,
)
from prism_secure.learning.moment_matching import FeatureMoments
from prism_secure.reporting.progress import Silent
from prism_secure.rounds import simulation as federation
from prism_secure.rounds.client import Client
from prism_secure.rounds.components import Components
from prism_secure.rounds.evaluation import Evaluation
from prism_secure.rounds.moments import ClientMoments
from prism_secure.rounds.rehearsal import check_components
from prism_secure.rounds.server import Server
from prism_secure.rounds.simulation import run
from prism_secure.run_folder.history import read_history
from prism_secure.sweep.results import read_sweep

from .tiny_data import TINY, write_data


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        (["metrics.features=inception_v3"], FeatureError),
        (["metrics.features=inception_fid"], FeatureError),
        (['features.extractors=["vgg19_bn"]'], FeatureError),
        (["data.source=images", "data.folder=nowhere"], DataError),
        (["training.batch_size=15"], ConfigError),
        (["data.partition=shards", "data.shards_per_client=5000"], ConfigError),
    ],
)
def test_what_is_missing_is_said_before_a_folder_is_made(
    overrides: list[str], error: type[PrismError], tmp_path: Path
) -> None:
    with pytest.raises(error):
        run(load_config(None, overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def pictures(folder: Path, count: int) -> Path:
    """So many of each of two classes, every sixth of which is held out."""
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            level = np.full((8, 8), 9 * number, np.uint8)
            Image.fromarray(level).save(folder / name / f"{number}.png")
    return folder


def test_few_held_out_images_and_pictures_without_classes_are_told(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "data", 24)
    small = ["federation.clients=3", "data.source=images"]
    notes = " ".join(Components(load_config(None, [*small, f"data.folder={folder}"])).notes)
    assert "8 images are held out: FID and the other metrics over fewer than 200 say little" in notes
    assert "a folder for each class" not in notes
    flat = Components(load_config(None, [*small, f"data.folder={folder / 'cats'}", "privacy.delta=0.5"]))
    notes = " ".join(flat.notes)
    assert "4 images are held out" in notes
    assert "data.folder must hold a folder for each class" in notes
    assert "privacy.delta = 0.5 is too large" in notes
    assert "held out" not in " ".join(Components(load_config()).notes)


def refused(config: Config, out: Path, error: type[PrismError], **options: Any) -> str:
    """What a run says that leaves nothing behind: no folder, and so no ledger."""
    with pytest.raises(error) as refusal:
        run(config, out, **options)
    assert not out.exists()
    return str(refusal.value)


@pytest.mark.parametrize("held_out", [1, 6])
@pytest.mark.parametrize("release", ["summed", "client"])
def test_too_few_held_out_images_are_said_before_anything_is_charged(
    tmp_path: Path, held_out: int, release: str
) -> None:
    data = write_data(tmp_path / "data", test=held_out)
    config = load_config(None, [*TINY, f"data.folder={data}", f"privacy.record_release={release}"])
    words = f"at least 7 held-out images, got {held_out}"
    assert words in refused(config, tmp_path / "run", DataError)
    write_data(tmp_path / "data", test=7)
    run(config, tmp_path / "run")


def test_too_few_held_out_pictures_are_said_before_anything_is_charged(tmp_path: Path) -> None:
    settings = ["data.source=images", f"data.folder={pictures(tmp_path / 'data', 12)}"]
    config = load_config(None, [*TINY, *settings])
    assert "got 4" in refused(config, tmp_path / "run", DataError)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    "overrides",
    [
        ["privacy.flip=1e-300"],
        ["privacy.flip=1e-300", "privacy.record_release=client"],
        ["privacy.clip=1e-200"],
        ["privacy.clip=1e160", "privacy.clip_space=score"],
        ["privacy.record_epsilon=1e300"],
        ["privacy.record_epsilon=1e-300"],
    ],
)
def test_extremes_are_carried_out_or_refused_and_never_charged_for_nothing(
    data: Path, tmp_path: Path, overrides: list[str]
) -> None:
    config = load_config(None, [*TINY, f"data.folder={data}", "federation.rounds=1", *overrides])
    with contextlib.suppress(ConfigError):
        run(config, tmp_path / "run")
        assert read_history(tmp_path / "run").status.text == "finished, 1 round"
        return
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.learning_rate=1e300", "a round of this configuration cannot be computed"),
        ("training.batch_size=100000000000", "a round of this configuration cannot be computed"),
        ("metrics.samples=1000000000000", "the metrics cannot be computed"),
        ("budget.epsilon=1e-9", "admits no round"),
    ],
)
def test_what_a_round_cannot_do_is_tried_before_anything_is_charged(
    data: Path, tmp_path: Path, override: str, said: str
) -> None:
    settings = [*TINY, f"data.folder={data}"]
    assert said in refused(load_config(None, [*settings, override]), tmp_path / "run", ConfigError)
    run(load_config(None, settings), tmp_path / "run")  # other settings may have the folder


ORDINARY = (ValueError, MemoryError, OSError)


@pytest.mark.parametrize(
    ("release", "broken", "error"),
    [
        ("summed", "FeatureMoments.of_release", TypeError),
        ("client", "FeatureMoments.of_release", ValueError),
        ("summed", "SummedMoments.share", AttributeError),
        ("summed", "SummedMoments.open", IndexError),
        ("summed", "ClientMoments.receive", KeyError),
        ("none", "ClientMoments.targets", OSError),
        ("none", "Client.bits", TypeError),
        ("client", "Server.absorb", MemoryError),
        ("summed", "Evaluation._measured", TypeError),
    ],
)
def test_whatever_fails_between_images_and_metrics_fails_before_anything_is_charged(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    release: str,
    broken: str,
    error: type[Exception],
) -> None:
    owner, name = broken.split(".")
    parts = [FeatureMoments, SummedMoments, ClientMoments, Client, Server, Evaluation]
    part = next(each for each in parts if each.__name__ == owner)

    def failing(*_: object, **__: object) -> None:
        raise error("a bug")

    settings = [f"privacy.record_release={release}"] if release != "none" else ["privacy.record_epsilon=inf"]
    config = load_config(None, [*TINY, f"data.folder={data}", "federation.rounds=1", *settings])
    monkeypatch.setattr(part, name, failing)
    with pytest.raises(ConfigError if error in ORDINARY else error) as refusal:
        run(config, tmp_path / "run")
    said = str(refusal.value) + "".join(getattr(refusal.value, "__notes__", []))
    assert "cannot be computed" in said
    assert "a bug" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("release", ["summed", "client", "none"])
def test_rehearsal_reads_no_image_of_the_run_and_touches_no_store(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    settings = [f"privacy.record_release={release}"] if release != "none" else ["privacy.record_epsilon=inf"]
    if release != "none":
        settings.append(f"privacy.record_store={tmp_path / 'store'}")
    recipe = Components(load_config(None, [*TINY, f"data.folder={data}", *settings]))
    dataset, seen = recipe.dataset, []
    real = {
        picture.numpy().tobytes()
        for picture in (*to_float(dataset.train_images), *to_float(dataset.test_images))
    }
    extract, features = type(recipe.extractor).forward, recipe.metric_network.forward

    def watched(look: Any) -> Any:
        def looking(*given: Any) -> Any:
            seen.extend(picture.numpy().tobytes() for picture in given[-1].detach())
            return look(*given)

        return looking

    monkeypatch.setattr(type(recipe.extractor), "forward", watched(extract))
    monkeypatch.setattr(recipe.metric_network, "forward", watched(features))
    check_components(recipe)
    assert len(seen) > 20
    assert real.isdisjoint(seen)
    assert not (tmp_path / "store").exists()


def test_what_fails_behind_the_checks_leaves_the_folder_to_other_settings(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = [*TINY, f"data.folder={data}"]
    store = load_config(None, [*settings, f"privacy.record_store={tmp_path / 'file' / 'store'}"])
    refused(store, tmp_path / "run", StorageError)

    class Unreachable(Silent):
        def started(self, rounds: int, finished: int, work: int) -> None:
            raise ConfigError("--track nowhere cannot start")

    config = load_config(None, settings)
    refused(config, tmp_path / "run", ConfigError, listener=Unreachable())
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "federation.id").write_text("given")
    with pytest.raises(ConfigError):
        run(config, tmp_path / "run", listener=Unreachable())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["federation.id"]
    run(config, tmp_path / "run")


def test_an_error_after_the_charge_keeps_the_ledger(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RoundError("the sum did not open")

    monkeypatch.setattr(federation, "open_moments", broken)
    config = load_config(None, [*TINY, f"data.folder={data}"])
    with pytest.raises(RoundError):
        run(config, tmp_path / "run")
    (entry,) = verify_ledger(tmp_path / "run" / "ledger.jsonl").entries
    assert entry.kind == "moments"
    assert (tmp_path / "run" / "FAILED").read_text() == "the sum did not open\n"


@pytest.mark.usefixtures("forked")
def test_a_point_of_a_sweep_that_cannot_be_run_spends_nothing(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", test=6)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[sweep]\n[sweep.grid]\nprivacy.flip = [0.1, 0.2]\n")
    settings = [word for setting in [*TINY, f"data.folder={data}"] for word in ("--set", setting)]
    out = tmp_path / "sweep"
    assert main(["sweep", str(recipe), "--out", str(out), *settings, "--workers", "1"]) != 0
    assert not list(out.rglob("ledger.jsonl"))
    assert not list(out.glob("runs/*"))
    assert not list(out.glob("releases/*"))
    for point in read_sweep(out).points:
        assert all("at least 7 held-out images" in run.reason for run in point.runs)


def test_all_files_that_are_missing_are_named_at_once(tmp_path: Path) -> None:
    settings = ["data.source=mnist", "data.folder=nowhere", "metrics.features=inception_v3"]
    with pytest.raises(DataError) as found:
        run(load_config(None, [*settings, 'features.extractors=["vgg19_bn"]']), tmp_path / "run")
    for name in ("nowhere", "data.download = true", "InceptionV3", "VGG19-BN"):
        assert name in str(found.value)


def test_default_recipe_can_be_built() -> None:
    recipe = Components(load_config())
    check_components(recipe)
    assert recipe.trainer.dimension == 307_600
    assert recipe.partition.sizes == (1000,) * 10


def test_bounded_features_of_clients_images_have_norm_one_at_most_and_their_units_from_the_seed() -> None:
    overrides = ["features.bounded=true", 'features.extractors=["fourier"]', "training.variance_weight=0"]
    recipe = Components(load_config(None, overrides))
    found, labels = recipe.features(0)
    norms = np.linalg.norm(found, axis=1)
    assert found.shape == (1000, recipe.extractor.dimension)
    assert labels.shape == (1000,)
    assert norms.max() <= 1 + 1e-6
    assert norms.mean() > 0.5
    assert not recipe.trainer.matching.scaled
    assert recipe.trainer.matching.variance_weight == 0
    again, other = (Components(load_config(None, [*overrides, f"federation.seed={seed}"])) for seed in (0, 1))
    assert torch.equal(again.extractor.gain, recipe.extractor.gain)
    assert not torch.equal(other.extractor.gain, recipe.extractor.gain)


def test_seeds_of_different_purposes_differ() -> None:
    seeds = {public_seed(0, "weights"), public_seed(1, "weights"), public_seed(0, "latents", 1, 2)}
    assert len(seeds | {public_seed(0, "latents", 12)}) == 4
    assert public_seed(0, "weights") == public_seed(0, "weights")
