"""What experiments share: results that are kept, idx files, rounds without the wire."""

from __future__ import annotations

import gzip
import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import prism_secure
from prism_secure.config import load_config
from prism_secure.data.features import RandomFourierFeatures
from prism_secure.data.idx import read_idx, write_idx
from prism_secure.learning.aggregation import aggregate
from prism_secure.model.deployed import DeployedGenerator
from prism_secure.model.generator import Architecture, ResNetGenerator
from prism_secure.rounds.components import Components

from .tiny_data import TINY, write_data

EXPERIMENTS = Path(prism_secure.__file__).parent.parent / "experiments"


def script(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXPERIMENTS / name))


@pytest.mark.parametrize("shape", [(3, 28, 28), (5,), (0, 2)])
def test_an_idx_file_is_read_as_it_was_written(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    write_idx(tmp_path / "some-idx", values)
    assert np.array_equal(read_idx(tmp_path / "some-idx"), values)
    with pytest.raises(TypeError, match="int64"):
        write_idx(tmp_path / "other", values.astype(np.int64))
    assert not (tmp_path / "other").exists()


def test_what_is_in_the_results_is_done(tmp_path: Path) -> None:
    results, path = script("results.py"), tmp_path / "results.jsonl"
    assert results["read"](path) == []
    assert not results["done"](path, "a")
    results["append"](path, [{"name": "a", "fid": 1.5}, {"name": "a", "fid": float("inf")}])
    results["append"](path, [{"run": "b", "name": "c"}])
    assert results["read"](path)[:2] == [{"name": "a", "fid": 1.5}, {"name": "a", "fid": "inf"}]
    assert [results["done"](path, name) for name in ("a", "b", "c")] == [True, False, True]


def test_spread_is_the_mean_and_from_where_to_where() -> None:
    spread = script("results.py")["spread"]
    assert spread([0.5], ".1%") == "50.0%"
    assert spread([3.0, 1.0, 2.6], ".1f") == "2.2 (1.0 to 3.0)"


def test_the_ablation_table_reads_the_lines_it_wrote(tmp_path: Path) -> None:
    lines = [
        {"run": f"base-f0-s{seed}", "row": "base", "flip": 0.0, "seed": seed, "fid": fid, "coverage": 0.5,
         "label_accuracy": None}
        for seed, fid in enumerate((100.0, 103.0))
    ]  # fmt: skip
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = script("ablation/ablation.py")["table"](path)
    assert table.splitlines()[2:] == ["| base |  | 101.5 (100.0 to 103.0) | 0.500 |"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [*TINY, f"data.folder={write_data(tmp_path_factory.mktemp('data'))}"]


def test_rounds_without_the_wire_step_as_the_recipe_says(tiny: list[str]) -> None:
    config = load_config(
        None, [*tiny, "mask.spread=0.1", "mask.mode=topk", "mask.density=0.25", "aggregation.shrink=1"]
    )
    recipe = Components(config)
    rounds = script("plain_rounds.py")["PlainRounds"](recipe, [recipe.targets(0)])
    server, start = rounds.server, rounds.server.theta
    assert np.log(start / (1 - start)).std() == pytest.approx(0.1, rel=0.05)
    trained = rounds.train(0, 0)
    assert trained.shape == start.shape
    assert not np.array_equal(trained, start)
    counts = (trained > 0.5).astype(np.int64)
    server.absorb(counts, 1, planned_rounds=2)
    step = aggregate(start, counts, survivors=1, flip=config.privacy.flip, progress=0.0,
                     aggregation=config.aggregation, theta_min=config.privacy.theta_min)  # fmt: skip
    assert np.array_equal(server.theta, step.theta)
    assert server.deployed().mean() == pytest.approx(0.25, abs=1e-3)
    assert not np.array_equal(rounds.train(0, 0), trained)


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("search/search.py", "privacy.clip=1"),
        ("search/search.py", 'features.extractors=["fourier"]'),
        ("search/search.py", "mask.score_layers=0.5"),
        ("record_level/record_level.py", "privacy.record_epsilon=1"),
        ("record_level/record_level.py", "privacy.clip=1"),
        ("cohort/simulate.py", "federation.client_fraction=0.5"),
        ("cohort/simulate.py", "privacy.record_epsilon=1"),
    ],
)
def test_a_setting_that_a_script_does_not_heed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, refused: str
) -> None:
    settings = [part for each in ["privacy.flip=0", refused] for part in ("--set", each)]
    monkeypatch.setattr(sys, "argv", [name, "x", "--out", str(tmp_path / "out"), *settings])
    with pytest.raises(SystemExit, match=refused.partition("=")[0].replace(".", r"\.")):
        script(name)["main"]()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("record_level/record_level.py", ["--release", "shared"]),
        ("cohort/simulate.py", ["--distinct", "1", "--set", "privacy.record_epsilon=inf"]),
    ],
)
def test_a_script_measures_the_rounds_that_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: list[str], name: str, options: list[str]
) -> None:
    settings = [
        part for each in [*tiny, "metrics.every=2", "privacy.colluders=0"] for part in ("--set", each)
    ]
    monkeypatch.setattr(sys, "argv", [name, "x", "--out", str(tmp_path), *settings, *options])
    script(name)["main"]()
    (line,) = script("results.py")["read"](tmp_path / "results.jsonl")
    assert [each["round"] for each in line["history"]] == [2]
    assert line["history"][0]["fid"] > 0
    assert (tmp_path / "x.png").exists()


def test_a_point_of_the_frontier_is_what_its_name_says() -> None:
    point = script("frontier/frontier.py")["Point"]
    config = point.of("client-1000-e0.5-measured-s2", None).measured()
    assert (config.federation.clients, config.measured.unit, config.measured.epsilon) == (1000, "client", 0.5)
    assert (config.federation.seed, config.secure_sum.simulate, config.privacy.colluders) == (2, True, 50)
    real = point.of("image-10-e4-one-shot-s0-real", None).one_shot(4.0)
    assert not real.secure_sum.simulate
    assert real.privacy.record_epsilon == 4.0
    for name in ("client-1000-e2-both-s0", "client-1000-e2-measured"):
        with pytest.raises(SystemExit, match="a point is named"):
            point.of(name, None)
    assert point.of("client-100-e1-one-shot-s0-t150", None).given_steps == 150
    own = load_config(None, [], recipe="cross-device")
    longer = point.of("client-1000-e2-measured-s0-t4000", None).measured()
    assert (longer.federation.rounds, config.federation.rounds) == (own.federation.rounds, 8)
    assert longer.federation.rounds * longer.measured.steps + longer.measured.end_steps == 4000
    with pytest.raises(SystemExit, match="their recipe's steps"):
        point.of("client-1000-e2-clipped-s0-t150", None)
    clipped = point.of("client-1000-e2-clipped-s0", None).clipped()
    assert (clipped.budget.epsilon, clipped.privacy.flip, clipped.secure_sum.simulate) == (2.0, 0.4, True)
    assert 1.1 < clipped.privacy.clip < 1.2  # found for this epsilon
    with pytest.raises(SystemExit, match="of 1,000 clients"):
        point.of("client-100-e2-clipped-s0", None)
    with pytest.raises(SystemExit, match="published images"):
        point.of("client-6000-e1-measured-s0", None).measured()


def test_one_shot_of_the_frontier_trains_towards_what_opened(tiny: list[str]) -> None:
    components = Components(load_config(None, tiny))
    dimension = components.trainer.extractor.dimension
    trained = script("frontier/frontier.py")["trained"]
    masks = [
        trained(components, np.full((10, dimension), mean), 0.1, posterior=False, steps=30)
        for mean in (-1.0, 1.0)
    ]
    assert masks[0].dtype == bool
    assert not np.array_equal(*masks)


def test_the_frontiers_table_has_a_row_a_point_and_real_sums_apart() -> None:
    figure = script("frontier/figure.py")
    line = {
        "unit": "client", "clients": 100, "epsilon": 2.0, "method": "measured", "real": False, "images": 100,
        "given_rows": None, "rows": 150, "flip": 0.35, "coordinates": 4096,
        "epsilon_client_upload": "inf",
        "epsilon_image_sum": 1.25, "fid": 90.0, "kid": 1.0, "precision": 0.5, "recall": 0.25,
        "coverage": 0.5, "label_accuracy": 0.75, "gen2real": 0.7,
    }  # fmt: skip
    newer = {"fid": 100.0, "gen2real": 0.8, "sliced_wasserstein": 0.5}
    lines = [line, line | newer, line | {"fid": 1.0, "real": True}, {"name": "ceiling-12k-s0"}]
    lines += [line | {"fid": 2.0, "method": "one-shot", "given_steps": 1300, "rows": None}]
    found = figure["table"](figure["points"](lines), "client").splitlines()[2:]
    assert len(found) == 2
    assert "| 2 | one-shot, 1,300 steps | 1 |" in found[1]
    assert (
        "| 100 × 100 | 2 | measured | 2 | inf | 1.25 | 150; 0.35, 4,096 | 95.0 (90.0 to 100.0) |" in found[0]
    )
    assert found[0].endswith("| 80.0%, 1 seed |"), "without another classifier's"
    assert found[1].endswith("| – |")


def test_ideas_for_utility_give_images_and_a_label_each() -> None:
    utility = script("utility/utility.py")
    architecture = Architecture(latent=4, width=2, image_size=8, classes=10)
    mask = torch.ones(sum(each.numel() for each in ResNetGenerator(architecture).parameters()))
    generator = DeployedGenerator(architecture, seed=0, mask=mask)
    images, labels = generator.generate(40, seed=1)
    extractor = RandomFourierFeatures(8, sides=(4,), bandwidths=(0.5,))
    made = utility["Made"](
        SimpleNamespace(extractor=extractor), generator, np.zeros((10, 8)), images, labels,
        torch.Generator().manual_seed(0),
    )  # fmt: skip
    for name, idea in utility["IDEAS"].items():
        found, told = idea(made)
        assert found.shape == images.shape, name
        assert -1 - 1e-5 <= float(found.min()) <= float(found.max()) <= 1 + 1e-5, name
        assert told.shape == labels.shape, name
        assert (name == "plain") == (torch.equal(found, images) and torch.equal(told, labels)), name


def test_the_released_means_tell_classes_apart() -> None:
    utility = script("utility/utility.py")
    means, draw = 3 * np.eye(10, 16), np.random.default_rng(0)
    labels = torch.arange(400) % 10
    images = torch.from_numpy(means[labels.numpy()] + 0.3 * draw.standard_normal((400, 16))).float()
    spread = SimpleNamespace(extractor=SimpleNamespace(in_batches=lambda images: images))
    made = utility["Made"](spread, None, means, images, labels, torch.Generator())
    assert (made.told_apart(images) == labels).double().mean() > 0.99
    other = utility["Made"](spread, None, means[::-1].copy(), images, labels, torch.Generator())
    assert (other.told_apart(images) == 9 - labels).double().mean() > 0.99
    with pytest.raises(SystemExit, match="need one"):
        utility["Made"](spread, None, None, images, labels, torch.Generator()).told_apart(images)
    told = utility["Made"](spread, None, means, images, labels, torch.Generator(), lambda some: some * 0 + 7)
    assert torch.equal(told.told_apart(labels), labels * 0 + 7)  # second moments go before generated variance
    many, tens = torch.arange(2 * utility["AT_ONCE"] + 1), lambda some: some // 10
    parts = utility["Made"](spread, None, means, images, labels, torch.Generator(), tens)
    assert torch.equal(parts.told_apart(many), many // 10)


@pytest.fixture
def bench() -> dict[str, Any]:
    return script("utility/dpimagebench.py")


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    # Counted once in the networks of the benchmark's own code, for grey images.
    [("resnet", 10, 1_730_426), ("wrn", 10, 8_948_922), ("resnext", 10, 34_425_546)],
)
def test_networks_of_the_benchmark_have_its_size(
    bench: dict[str, Any], name: str, classes: int, parameters: int
) -> None:
    with torch.device("meta"):
        network = bench["ARCHITECTURES"][name](1, classes)
    assert sum(each.numel() for each in network.parameters()) == parameters


@pytest.mark.parametrize("name", ["resnet", "wrn", "resnext"])
def test_networks_of_the_benchmark_take_grey_and_colour(bench: dict[str, Any], name: str) -> None:
    for channels, side in ((1, 28), (3, 32)):
        network = bench[name](channels, 5, each=1).eval()
        with torch.no_grad():
            assert network(torch.zeros(2, channels, side, side)).shape == (2, 5)


def generated_set(folder: Path, count: int = 24) -> Path:
    """Two images a class and four more, of which each class has its own brightness."""
    labels = np.arange(count) % 10
    images = np.repeat(labels * 25, 32 * 32).reshape(count, 32, 32).astype(np.uint8)
    np.savez(folder / "set.npz", images=images, labels=labels)
    for name, values in (
        ("images-idx3", images[:20, 2:30, 2:30]),
        ("labels-idx1", labels[:20].astype(np.uint8)),
    ):
        write_idx(folder / name, values)
        (folder / f"t10k-{name}-ubyte.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
    return folder / "set.npz"


def test_the_benchmark_selects_by_generated_images_and_then_opens_the_test_set(
    bench: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = generated_set(tmp_path)
    functions = bench["measure"].__globals__
    functions["ARCHITECTURES"] = {"wrn": lambda *sizes: bench["wrn"](*sizes, each=1)}
    opened, read, train = [], functions["read_test"], functions["chosen"]
    functions["read_test"] = lambda folder: opened.append("size" if not opened else "test") or read(folder)
    functions["chosen"] = lambda *given, **named: opened.append("train") or train(*given, **named)
    options = SimpleNamespace(
        set=path, real=tmp_path, out=tmp_path / "out.jsonl", device="cpu", seed=0, count=24, epochs=2,
        only=None,
    )  # fmt: skip
    (row,) = bench["measure"](options)
    assert opened == ["size", "train", "test"]
    assert 0 <= row["gen2real"] <= 1
    assert row["epoch"] in (1, 2)
    assert row["whole_protocol"] is False
    assert "NOT the protocol" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.jsonl").read_text())["architecture"] == "wrn"
    np.savez(tmp_path / "colour.npz", images=np.zeros((24, 32, 32, 3), np.uint8), labels=np.arange(24) % 10)
    options.set, opened[:] = tmp_path / "colour.npz", []
    with pytest.raises(SystemExit, match="1 channels, generated ones 3"):
        bench["measure"](options)
    assert opened == ["size"]  # before any training
    options.set = path
    options.count = 25
    with pytest.raises(SystemExit, match=r"takes 25 images, .* has 24"):
        bench["measure"](options)


def test_the_epoch_taken_is_the_best_on_images_kept_apart(bench: dict[str, Any], tmp_path: Path) -> None:
    images, labels = bench["read_set"](generated_set(tmp_path), 24)
    functions, figures, seen = bench["chosen"].__globals__, iter([0.5, 0.9, 0.7]), []

    def heard(network: torch.nn.Module, given: torch.Tensor, _: torch.Tensor) -> float:
        seen.append((given, {name: value.clone() for name, value in network.state_dict().items()}))
        return next(figures)

    functions["accuracy"] = heard
    made = lambda *sizes: bench["resnet"](*sizes, each=1)  # noqa: E731
    network, epoch, best = bench["chosen"](made, images, labels, classes=10, device="cpu", seed=0, epochs=3)
    assert (epoch, best) == (2, 0.9)
    assert all(torch.equal(value, seen[1][1][name]) for name, value in network.state_dict().items())
    assert all(len(given) == 2 for given, _ in seen)  # a twelfth


def test_the_mean_of_the_parameters_follows_the_benchmark(bench: dict[str, Any]) -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    averaged, expected = bench["Averaged"](network), 0.0
    for step in range(1, 30):
        torch.nn.init.constant_(network.weight, float(step))
        averaged.update(network)
        decay = min(0.9999, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert averaged.with_statistics_of(network).weight.item() == pytest.approx(expected, rel=1e-5)
