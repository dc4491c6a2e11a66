"""gen2real: what is trained on what, who may see real images, and when it is measured."""

from __future__ import annotations

import copy
import math
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from prism_secure.config import Config, load_config
from prism_secure.config.sections import Metrics
from prism_secure.data import Dataset, load
from prism_secure.data.sources import features_caveat
from prism_secure.errors import ConfigError, DataError, StorageError
from prism_secure.model.model_card import DataCard, Making, ModelCard, Privacy, QualityCard
from prism_secure.quality import metrics, utility
from prism_secure.quality.classifier import FashionClassifier, save_classifier
from prism_secure.quality.metrics import Evaluator, nearest
from prism_secure.quality.networks import metric_features, weights_digest
from prism_secure.quality.samples import read_grid
from prism_secure.quality.utility import accuracy, ceiling, train_classifier
from prism_secure.reporting.report import write_report
from prism_secure.rounds import evaluation, simulation, workers
from prism_secure.rounds.components import Components
from prism_secure.rounds.evaluation import Evaluation
from prism_secure.rounds.server import Server
from prism_secure.rounds.threads import one_thread
from prism_secure.run_folder.folder import read_records
from prism_secure.run_folder.records import Quality
from prism_secure.run_folder.run import Run
from prism_secure.sweep.objectives import direction
from prism_secure.sweep.recipe import read_recipe
from prism_secure.sweep.report import subject_of_runs
from prism_secure.sweep.report.tables import QUALITY

from .fake_run import make_run, sample_file
from .tiny_data import TINY, write_data


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """With a quarter of the held-out images: a classifier is tested as long with all as it is trained."""
    whole = load(image_size=16)
    return replace(whole, test_images=whole.test_images[::4], test_labels=whole.test_labels[::4])


@pytest.fixture(scope="module")
def few(dataset: Dataset) -> tuple[Tensor, Tensor]:
    """1,100 real images, standing in for generated ones."""
    return dataset.train_images[:1100], dataset.train_labels[:1100]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "prism-secure"


def score_of(images: Tensor, labels: Tensor, dataset: Dataset) -> float:
    return accuracy(train_classifier(images, labels, classes=10), dataset.test_images, dataset.test_labels)


# --- the classifier


def trained_after(seed: int, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return train_classifier(images, labels, classes=10).state_dict()


def test_a_classifier_learns_what_its_images_tell_and_nothing_else(dataset: Dataset, few):
    images, labels = few
    good = score_of(images, labels, dataset)
    assert good > 0.55
    first, again = (trained_after(seed, images[:110], labels[:110]) for seed in (1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)  # to the bit
    wrong = score_of(images[:330], (labels[:330] + 1) % 10, dataset)
    assert wrong < 0.1
    one_each = torch.stack([images[labels == kind][0] for kind in range(10)])
    collapsed = score_of(one_each.repeat(22, 1, 1, 1), torch.arange(10).repeat(22), dataset)
    assert collapsed < score_of(images[:220], labels[:220], dataset) - 0.05  # where label accuracy would be 1
    colour = train_classifier(images[:330].repeat(1, 3, 1, 1), labels[:330], classes=10)
    assert accuracy(colour, dataset.test_images.repeat(1, 3, 1, 1), dataset.test_labels) > 0.3


def test_the_epoch_is_chosen_by_images_kept_apart_from_training(few, monkeypatch: pytest.MonkeyPatch):
    images, labels = (part[:550] for part in few)
    seen, networks, figures = [], [], iter([0.5, 0.9, 0.7])

    def heard(network, given: Tensor, _: Tensor) -> float:
        seen.append(given)
        networks.append({name: value.clone() for name, value in network.state_dict().items()})
        return next(figures)

    monkeypatch.setattr(utility, "accuracy", heard)
    chosen = train_classifier(images, labels, classes=10).state_dict()
    assert all(torch.equal(chosen[name], networks[1][name]) for name in chosen)  # 0.9, the second
    assert all(len(given) == 50 for given in seen)
    rows = {bytes(row.numpy().tobytes()) for row in images}
    assert all(bytes(row.numpy().tobytes()) in rows for row in seen[0])


def test_what_gives_no_classifier_is_refused(few):
    images, labels = few
    with pytest.raises(DataError, match="two classes or more"):
        train_classifier(images, labels, classes=1)
    with pytest.raises(DataError, match="a label for each"):
        train_classifier(images, labels[:-1], classes=10)
    with pytest.raises(DataError, match="at least 110 images, got 109"):
        train_classifier(images[:109], labels[:109], classes=10)


def test_the_random_state_of_the_process_is_left_alone(few):
    images, labels = few
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_classifier(images[:110], labels[:110], classes=10)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 30])
def test_a_classifier_is_trained_to_the_bits_that_torch_s_own_optimizer_gives(steps: int):
    """What is kept of earlier runs, a data set's ceiling among it, stays comparable."""
    networks = [torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))]
    networks.append(copy.deepcopy(networks[0]))
    images, labels = torch.randn(9, 5), torch.randint(0, 2, (9,))
    ours = utility._AdamW(networks[0])
    theirs = torch.optim.AdamW(networks[1].parameters(), lr=utility._RATE, weight_decay=utility._DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(theirs, utility._RATE, total_steps=steps, pct_start=0.2)
    for step in range(steps):
        group = theirs.param_groups[0]
        assert utility._one_cycle(step, steps) == (group["lr"], group["betas"][0])
        one, other = (torch.nn.functional.cross_entropy(each(images), labels) for each in networks)
        ours.step(one, *utility._one_cycle(step, steps))
        theirs.zero_grad()
        other.backward()
        theirs.step()
        schedule.step()
        assert all(map(torch.equal, networks[0].parameters(), networks[1].parameters()))


def test_a_cycle_of_five_steps_has_no_way_up():
    rates = [utility._one_cycle(step, 5)[0] for step in range(5)]
    assert rates[0] == utility._RATE
    assert rates == sorted(rates, reverse=True)


def test_a_classifier_is_trained_without_torch_s_compiler():
    code = (
        "import sys, torch; from prism_secure.quality.utility import accuracy, train_classifier\n"
        "images, labels = torch.rand(44, 1, 8, 8), torch.arange(44) % 2\n"
        "accuracy(train_classifier(images, labels, classes=2), images, labels)\n"
        "print(*sorted({'torch._dynamo', 'sympy', 'torchvision'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_a_ceiling_is_computed_once_for_a_data_set(dataset: Dataset, own_cache: Path):
    first = ceiling(dataset, 110)
    (kept,) = own_cache.iterdir()
    assert msgspec.json.decode(kept.read_bytes()) == first
    kept.write_text("0.125")
    assert ceiling(dataset, 110) == 0.125  # read, not computed
    kept.write_text("damaged")
    assert ceiling(dataset, 110) == first
    assert ceiling(dataset, 120) != 0.125
    assert len(list(own_cache.iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_done_without(dataset: Dataset, own_cache: Path):
    own_cache.parent.mkdir()
    own_cache.write_text("a file is in the way")
    assert 0 < ceiling(dataset, 110) <= 1


# --- in a run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data", train=140, test=60)


def recipe(folder: Path, *changes: str) -> Components:
    return Components(load_config(None, [*TINY, f"data.folder={folder}", *changes]))


def measured(components: Components, out: Path, *, when: bool = True) -> Quality:
    mask = Server.of(components, "f").deployed()
    return Evaluation(components)(mask, out, utility=when)


def test_only_public_images_give_a_ceiling_and_a_look_for_copies(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(evaluation, "IMAGES", 110)
    public = ["metrics.held_out=public", "metrics.client_images=public"]
    of_public = measured(recipe(folder, *public), tmp_path / "x.png")
    assert of_public.gen2real is not None
    assert of_public.gen2real_ceiling is not None
    assert of_public.copies is not None
    beside = tmp_path / "neighbours-x.png"
    generated, real = read_grid(beside).rows
    assert len(generated) == len(real) == 10
    of_clients = {row.tobytes() for row in recipe(folder).dataset.train_images.numpy()}
    assert all(row.tobytes() in of_clients for row in real)
    beside.unlink()
    for changes in ([], public[:1], public[1:], [public[0], "metrics.client_images=private"]):
        components = recipe(folder, *changes)
        kept = components.dataset
        hidden, none = torch.empty(0, 1, 8, 8, dtype=torch.uint8), torch.empty(0, dtype=torch.int64)
        # Whatever looked at a client's image would now fail.
        components.dataset = Dataset(
            hidden, none, kept.test_images, kept.test_labels, kept.name, kept.classes
        )
        found = measured(components, tmp_path / "x.png")
        assert found.gen2real is not None
        assert found.gen2real == of_public.gen2real
        assert (found.gen2real_ceiling, found.copies) == (None, None)
        assert not beside.exists()


@pytest.mark.parametrize("public", [[], ["metrics.held_out=public", "metrics.client_images=public"]])
def test_workers_measure_utility_side_by_side_to_the_figures_of_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, public: list[str]
):
    monkeypatch.setattr(evaluation, "IMAGES", 110)
    components, jobs = recipe(folder, *public, "federation.workers=2"), []

    class Pool:
        """This process in place of others, which would measure with as many images as in a real run."""

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def submit(self, job: Callable[..., object], *arguments: object) -> Future[object]:
            jobs.append(job.__name__)
            done = Future[object]()
            done.set_result(job(*arguments))
            return done

        def shutdown(self, **_: object) -> None:
            pass

    monkeypatch.setattr(workers, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(workers, "_worker", workers._Worker(components, tmp_path))
    mask, found, grids = Server.of(components, "f").deployed(), [], []
    for name in ("two", "one"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache-{name}"))
        (tmp_path / name).mkdir()
        with workers.Workers(components, tmp_path) as pool, one_thread():
            evaluate = pool.evaluate if name == "two" else partial(partial, Evaluation(components))
            found.append(evaluate(mask, tmp_path / name / "round-1.png", utility=True)())
        grids.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert jobs == ["_measure", "_utility", "_ceiling"]
    assert found[0] == found[1]
    assert found[0].gen2real is not None
    assert (found[0].gen2real_ceiling is not None) == bool(public)
    assert grids[0] == grids[1]
    assert len(grids[0]) == 1 + bool(public)


def test_an_error_of_a_part_of_the_utility_is_that_of_the_whole(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forked: None
):
    monkeypatch.setattr(workers, "_utility", repr)
    monkeypatch.setattr(workers, "_ceiling", dict)
    components = recipe(folder, "federation.workers=2")
    (tmp_path / "a file").write_text("")
    with workers.Workers(components, tmp_path) as pool, pytest.raises(StorageError):
        pool.evaluate(
            Server.of(components, "f").deployed(), tmp_path / "a file" / "round-1.png", utility=True
        )()


def test_images_are_public_only_where_all_are(tmp_path: Path):
    def public(*changes: str) -> bool:
        return load_config(None, list(changes)).public_images

    own = "data.source=idx", f"data.folder={tmp_path}"
    assert public()
    assert not public("metrics.client_images=private")
    assert not public("metrics.held_out=private")
    assert not public(*own)
    assert not public(*own, "metrics.client_images=public")  # the held-out ones are private
    assert public(*own, "metrics.client_images=public", "metrics.held_out=public")


def test_a_run_ends_with_its_utility(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evaluation, "IMAGES", 110)
    public = ["metrics.held_out=public", "metrics.client_images=public", "metrics.utility=end"]
    simulation.run(recipe(folder, *public).config, tmp_path / "run")
    first, last = read_records(tmp_path / "run")
    assert first.quality is not None
    assert first.quality.gen2real is None
    assert last.quality is not None
    assert last.quality.gen2real is not None
    assert last.quality.gen2real_ceiling is not None
    assert [path.name for path in sorted((tmp_path / "run" / "samples").iterdir())] == [
        "neighbours-0002.png", "round-0001.png", "round-0002.png",
    ]  # fmt: skip
    page = write_report(tmp_path / "run").read_text("utf-8")
    assert "<dt>gen2real</dt>" in page
    assert "pixel by pixel" in page


def test_utility_needs_labels_and_its_time(folder: Path, tmp_path: Path):
    without = measured(recipe(folder, "model.conditional=false"), tmp_path / "x.png")
    assert without.gen2real is None
    assert measured(recipe(folder), tmp_path / "x.png", when=False).gen2real is None


@pytest.mark.parametrize(
    ("setting", "every", "utility_in", "measured_in"),
    [
        ("end", 2, [5], [2, 4, 5]),
        ("off", 2, [], [2, 4, 5]),
        ("3", 2, [3, 5], [2, 3, 4, 5]),
        ("1", 5, [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]),
    ],
)
def test_utility_is_measured_when_it_is_asked_for(folder, setting, every, utility_in, measured_in):
    config = recipe(folder, f"metrics.utility={setting}", f"metrics.every={every}").config
    server = Server.__new__(Server)
    server._config = config
    found: tuple[list[int], list[int]] = [], []
    for server.round in range(1, 6):
        if server.evaluates_utility(5):
            found[0].append(server.round)
        if server.is_evaluated(5):
            found[1].append(server.round)
    assert found == (utility_in, measured_in)


@pytest.mark.parametrize("wrong", ["0", "-1", "ende", "1.5", "true"])
def test_a_senseless_setting_is_refused_by_name(wrong: str):
    with pytest.raises(ConfigError, match=r"utility must be .*'end'"):
        load_config(None, [f"metrics.utility={wrong}"])


def test_utility_is_on_by_default():
    assert Metrics().utility == "end"
    assert Config().metrics.utility == "end"


# --- its company


def test_sliced_wasserstein_is_the_mean_of_one_dimensional_distances():
    random = np.random.default_rng(0)
    real, fake = random.normal(size=(90, 1, 2, 4)) / 4, random.normal(size=(60, 1, 2, 4)) / 3
    evaluator = Evaluator.__new__(Evaluator)
    for count in (90, 60):  # as many, and fewer
        evaluator._real = torch.from_numpy(real[:count]).flatten(1)
        draws = torch.randn(8, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
        draws /= np.linalg.norm(draws, axis=0)
        at = (np.arange(60) + 0.5) / 60
        x, y = (
            np.quantile(each.reshape(len(each), 8) @ draws, at, axis=0, method="hazen")
            for each in (real[:count], fake)
        )
        expected = math.sqrt(np.mean((x - y) ** 2))
        assert evaluator._sliced(torch.from_numpy(fake).flatten(1)) == pytest.approx(expected, rel=1e-9)
    assert evaluator._sliced(evaluator._real) == 0


def test_copies_are_seen_and_fresh_images_are_not(dataset: Dataset):
    evaluator = Evaluator(dataset.test_images[:300], train_images=dataset.train_images[:300])
    assert evaluator(dataset.train_images[:300])["copies"] == 1
    assert evaluator(dataset.test_images[:300])["copies"] == 0
    assert 0.4 < evaluator(dataset.train_images[5000:5400])["copies"] < 0.6
    # Many clients' images have no better chance than few: as many are taken of each.
    many = Evaluator(dataset.test_images[:300], train_images=dataset.train_images[:5000])
    assert 0.4 < many(dataset.train_images[5000:5400])["copies"] < 0.6
    assert "copies" not in Evaluator(dataset.test_images[:300])(dataset.train_images[:300])


def test_the_nearest_image_is_the_nearest_of_all(dataset: Dataset, monkeypatch: pytest.MonkeyPatch):
    own, others = dataset.test_images[:7], dataset.train_images[:90]
    x, y = (part.flatten(1).double().numpy() for part in (own, others))
    expected = ((x[:, None] - y) ** 2).sum(2).argmin(1)
    monkeypatch.setattr(metrics, "_COMPARED", 40)  # in parts, of which the last is smaller
    assert nearest(own, others).tolist() == expected.tolist()
    assert nearest(others[:3], others).tolist() == [0, 1, 2]


def test_features_of_other_data_are_said_to_be_so(tmp_path: Path):
    def said(*changes: str) -> str:
        return features_caveat(load_config(None, list(changes)))

    assert said() == ""
    assert "classifier of clothes" in said("data.source=mnist", f"data.folder={tmp_path}")
    assert "classifier of clothes" in said("data.source=images", f"data.folder={tmp_path}")
    assert "metrics.features = 'efficientnet_lite0'" in said("data.source=mnist", f"data.folder={tmp_path}")
    assert said("data.source=mnist", f"data.folder={tmp_path}", "metrics.features=inception_v3") == ""
    assert said("data.source=fashion_mnist", f"data.folder={tmp_path}") == ""
    # Of one's own network nobody here knows what it was trained on, clothes or not.
    for source in ("mnist", "fashion_mnist"):
        own = said(f"data.source={source}", f"data.folder={tmp_path}", "metrics.features=mine:features")
        assert "mine:features, a network of your own" in own


def test_features_that_training_matched_are_said_to_flatter_and_others_are_not(tmp_path: Path):
    chosen = "metrics.features=efficientnet_lite0"
    for extractors, flatters in (
        ('["fourier", "efficientnet_lite0"]', True),
        ('["efficientnet_lite0_pooled"]', True),
        ('["fourier"]', False),
        ('["vgg19_bn"]', False),
    ):
        for source in ("fashion_mnist", "mnist"):
            data = (f"data.source={source}", f"data.folder={tmp_path}", f"features.extractors={extractors}")
            told = features_caveat(load_config(None, [*data, chosen]))
            assert ("FID on them is what training aimed at, so it flatters" in told) is flatters
            assert bool(told) is flatters
    # The default matches features of this network, and is measured by another.
    assert "flatters" not in features_caveat(load_config())
    make_run(tmp_path / "run", [chosen], rounds=2)
    page = " ".join(write_report(tmp_path / "run").read_text("utf-8").split())
    assert page.count("FID on them is what training aimed at, so it flatters") == 1
    assert "192 averages, over the whole image, of the maps of an ImageNet network" in page


def test_a_run_measured_by_ones_own_network_names_its_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "mine.safetensors"
    save_classifier(FashionClassifier(1, 4), path, names=("a", "b", "c", "d"))
    (tmp_path / "mine_in_a_run.py").write_text(
        "from pathlib import Path\nfrom prism_secure.quality.networks import ClassifierFeatures\n"
        f"def features():\n    return ClassifierFeatures(Path({str(path)!r}))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    name = "mine_in_a_run:features"
    own = measured(recipe(folder, f"metrics.features={name}"), tmp_path / "x.png", when=False)
    assert own.features == weights_digest(metric_features(name))
    assert measured(recipe(folder), tmp_path / "x.png", when=False).features is None
    with pytest.raises(
        ConfigError, match=r"features must be 'classifier' .*'package.module:name' of your own"
    ):
        load_config(None, ["metrics.features=inception"])


def test_figures_of_different_features_are_not_put_side_by_side(tmp_path: Path):
    def made(name: str, *settings: str, digest: str | None = None) -> Run:
        make_run(tmp_path / name, list(settings), rounds=2)
        log = tmp_path / name / "metrics.jsonl"
        lines = [msgspec.json.decode(line) for line in log.read_bytes().splitlines()]
        for line in lines:
            line["quality"]["features"] = digest
        log.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
        return Run.open(tmp_path / name)

    shipped, own = made("a"), "metrics.features=mine:features"
    assert len(subject_of_runs([shipped, made("b", "federation.seed=1")]).points) == 1
    first, same = made("c", own, digest="11"), made("d", own, "federation.seed=1", digest="11")
    assert subject_of_runs([first, same]).points[0].runs == (first, same)
    with pytest.raises(ConfigError, match=r"different features \(classifier, mine:features\)"):
        subject_of_runs([shipped, first])
    with pytest.raises(ConfigError, match=r"\(classifier, inception_fid\)"):
        subject_of_runs([shipped, made("e", "metrics.features=inception_fid")])
    with pytest.raises(ConfigError, match=r"\(mine:features with other weights\)"):
        subject_of_runs([first, made("f", own, digest="22")])
    page = write_report(tmp_path / "c").read_text("utf-8")
    assert "mine:features, a network of the owner’s own with weights of SHA-256 11" in page
    assert "a network of your own" in page.lower().replace("\n", " ")


def test_a_sweep_does_not_vary_what_measures_it(tmp_path: Path):
    path = tmp_path / "sweep.toml"
    path.write_text(
        '[sweep]\nmethod = "grid"\n[sweep.grid]\n"metrics.features" = ["classifier", "inception_fid"]\n'
    )
    with pytest.raises(ConfigError, match=r"metrics.features cannot vary"):
        read_recipe(path)


# --- told


def page_of(folder: Path, *settings: str, neighbours: bool = True) -> str:
    make_run(folder, list(settings), rounds=3)
    log = folder / "metrics.jsonl"
    lines = [msgspec.json.decode(line) for line in log.read_bytes().splitlines()]
    found = {"sliced_wasserstein": 1.234, "copies": 0.517, "gen2real": 0.7317, "gen2real_ceiling": 0.8764}
    lines[-1]["quality"] |= found
    log.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    if neighbours:
        (folder / "samples" / "neighbours-0003.png").write_bytes(sample_file(3))
    return write_report(folder).read_text("utf-8")


def test_the_report_leads_with_what_images_are_good_for_and_with_recall(tmp_path: Path):
    page = page_of(tmp_path / "run")
    for said in ("<dt>gen2real</dt>", "73.2%", "87.6% with as many real ones", "1.234", "51.7%", "52%"):
        assert said in page
    assert "pixel by pixel" in page
    head = re.search(r'id="quality-table".*?</thead>', page, re.DOTALL)
    assert head is not None
    columns = re.findall(r"<th [^>]*>(.*?)</th>", head[0])
    assert columns[:4] == ["Round", "recall ↑", "coverage ↑", "gen2real ↑"]
    assert "classifier of clothes" not in page
    cells = [row for row in re.findall(r"<tr.*?</tr>", page, re.DOTALL) if "73.2%" in row]
    assert len(cells) == 1  # older rounds have none


@pytest.mark.parametrize("whose", ["metrics.held_out=private", "metrics.client_images=private"])
def test_no_real_image_is_shown_where_some_are_private(tmp_path: Path, whose: str):
    page = page_of(tmp_path / "run", whose)
    assert "pixel by pixel" not in page
    assert "opies" not in page


def test_report_and_card_say_that_features_are_of_other_data(tmp_path: Path):
    settings = ["data.source=mnist", f"data.folder={tmp_path}"]
    assert "classifier of clothes" in page_of(tmp_path / "run", *settings)
    found = QualityCard(
        round=3, features="x", samples=200, fid=50.0, kid=1.0, precision=0.9, recall=0.4, density=0.8,
        coverage=0.5, gen2real=0.7317, gen2real_ceiling=0.8764, warning="made for clothes",
    )  # fmt: skip
    card = ModelCard(
        data=DataCard(name="tiles", clients=10, partition="iid"),
        privacy=Privacy(
            delta=1e-5, sum_zero_out=0.5, sum_replace_one=1.0, upload_zero_out=9.0, upload_replace_one="inf",
            cohort=10, ledger_head="ab", ledger_key="cd",
        ),
        measured=found, making=Making(rounds=3, settings="", version="1"), weights=100, kept=50,
    )  # fmt: skip
    text = card.markdown()
    assert "| recall ↑ | coverage ↑ | gen2real ↑ | the same with real images | FID ↓ |" in text
    assert "| 0.400 | 0.500 | 0.732 | 0.876 | 50.000 |" in text
    assert "**made for clothes.**" in text
    assert "| nan" not in text


def test_a_sweep_compares_by_gen2real_and_higher_is_better():
    assert direction("gen2real") == "maximize"
    assert direction("sliced_wasserstein") == "minimize"
    assert set(QUALITY) <= set(Quality.__struct_fields__)
