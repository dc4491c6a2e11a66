"""Metrics against slow oracles, on images whose quality is known, and on input that makes no sense."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from prism_secure.data import Dataset, load, to_float
from prism_secure.data.features import POOLED_TAPS, EfficientNetLite0
from prism_secure.data.torchvision_shim import torchvision
from prism_secure.errors import ConfigError, DataError, FeatureError
from prism_secure.quality import classifier, inception_blocks, inception_fid
from prism_secure.quality.classifier import (
    CLASSES,
    WEIGHTS,
    FashionClassifier,
    load_classifier,
    save_classifier,
)
from prism_secure.quality.inception_fid import FidInceptionFeatures
from prism_secure.quality.metrics import NEIGHBOURS, Evaluator, evaluate
from prism_secure.quality.networks import (
    ClassifierFeatures,
    InceptionFeatures,
    MetricFeatures,
    metric_features,
    weights_digest,
)
from prism_secure.run_folder.records import Quality


class Pixels(MetricFeatures):
    """The pixels themselves: features whose geometry a test can choose."""

    name = "pixels"

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        self.anchor = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return images.flatten(1), None


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load()


@pytest.fixture(scope="module")
def evaluator(dataset: Dataset) -> Evaluator:
    return Evaluator(dataset.test_images[::2], classes=dataset.classes)


def clouds(seed: int, real: int = 60, fake: int = 50) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    shift = torch.linspace(0, 0.3, 8).view(1, 1, 2, 4)
    draw = [torch.randn(count, 1, 2, 4, generator=random) * 0.2 for count in (real, fake)]
    return draw[0].clamp(-1, 1), (draw[1] * 1.3 + shift).clamp(-1, 1)


# --- against oracles


@pytest.mark.parametrize("seed", range(3))
def test_fid_is_the_frechet_distance_of_two_gaussians(seed: int):
    real, fake = clouds(seed)
    x, y = (each.flatten(1).double().numpy() for each in (real, fake))
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.real(scipy.linalg.sqrtm(a @ b))
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root)
    assert evaluate(real, fake, features=Pixels(8))["fid"] == pytest.approx(expected, rel=1e-6)


def test_kid_is_the_unbiased_cubic_mmd():
    real, fake = clouds(0, real=40, fake=40)  # so few that each subset is the whole
    x, y = (each.flatten(1).double().numpy() for each in (real, fake))

    def mean_kernel(u, v, *, same):
        values = [
            (float(u[i] @ v[j]) / 8 + 1) ** 3 for i in range(40) for j in range(40) if not (same and i == j)
        ]
        return sum(values) / len(values)

    expected = mean_kernel(x, x, same=True) + mean_kernel(y, y, same=True) - 2 * mean_kernel(x, y, same=False)
    assert evaluate(real, fake, features=Pixels(8))["kid"] == pytest.approx(expected, rel=1e-9)


def test_precision_recall_density_coverage_are_those_of_their_definitions():
    real, fake = clouds(1, real=30, fake=24)
    x, y = (each.flatten(1).double().numpy() for each in (real, fake))

    def radius(points, i):
        return sorted(np.linalg.norm(points - points[i], axis=1))[NEIGHBOURS]  # the 0th is the point itself

    near_real = np.array([[np.linalg.norm(a - b) < radius(x, i) for b in y] for i, a in enumerate(x)])
    near_fake = np.array([[np.linalg.norm(a - b) < radius(y, j) for a in x] for j, b in enumerate(y)])
    expected = {
        "precision": near_real.any(0).mean(),
        "recall": near_fake.any(0).mean(),
        "density": near_real.sum(0).mean() / NEIGHBOURS,
        "coverage": near_real.any(1).mean(),
    }
    measured = evaluate(real, fake, features=Pixels(8))
    assert {key: measured[key] for key in expected} == pytest.approx(expected)
    assert all(0 < value < 1 for value in expected.values()), "the clouds must make all four interesting"


def test_real_images_against_themselves_are_perfect():
    real, _ = clouds(2)
    measured = evaluate(real, real, features=Pixels(8))
    assert measured["fid"] == pytest.approx(0, abs=1e-6)
    assert measured["coverage"] == measured["precision"] == measured["recall"] == 1


class Known(Pixels):
    """Three pixels that are the logits of three classes, too."""

    sharpness = 30

    def __init__(self) -> None:
        super().__init__(3)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        found, _ = super().forward(images)
        return found, self.sharpness * found


def test_inception_score_counts_the_classes_that_are_shown_surely_and_evenly():
    sure = torch.eye(3).repeat(300, 1)[:, None, None]
    assert evaluate(sure, sure, features=Known())["inception_score"] == pytest.approx(3, rel=0.05)
    one = sure[:1].repeat(60, 1, 1, 1) + 0.01 * torch.rand(60, 1, 1, 3)
    assert evaluate(sure, one.clamp(0, 1), features=Known())["inception_score"] == pytest.approx(1, abs=0.01)
    # By definition, on parts so equal that shuffling them changes nothing: one part of images all alike.
    unsure = torch.tensor([0.0, 0.02, 0.05]).repeat(60, 1)[:, None, None]
    assert evaluate(sure, unsure, features=Known())["inception_score"] == pytest.approx(1, abs=1e-6)


class Given(nn.Module):
    """Stands where torchmetrics expects a network: the features are there."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


class Logits(Known):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width


@pytest.mark.parametrize(
    ("real", "fake", "width"),
    [
        (60, 50, 1),
        (60, 50, 3),
        (1300, 1100, 3),  # so many that subsets are drawn
        (40, 30, 64),  # fewer images than features: the covariances have no full rank
    ],
)
@pytest.mark.filterwarnings("ignore:Metric `:UserWarning")
def test_figures_are_those_of_torchmetrics(real: int, fake: int, width: int):
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.inception import InceptionScore
    from torchmetrics.image.kid import KernelInceptionDistance

    draws = torch.Generator().manual_seed(real)
    ours, theirs = (torch.rand(count, 1, 1, width, generator=draws) for count in (real, fake))
    theirs = 0.9 * theirs**2
    features = Logits(width)
    measured = evaluate(ours, theirs, features=features)
    fid = FrechetInceptionDistance(Given(width))
    kid = KernelInceptionDistance(Given(width), subsets=20, subset_size=min(1000, real, fake))
    score = InceptionScore(Given(width))
    for metric in (fid, kid):
        metric.update(features(ours)[0].double(), real=True)
        metric.update(features(theirs)[0].double(), real=False)
    score.update(features(theirs)[1].double())
    with torch.random.fork_rng(devices=[]):  # they draw from torch's own
        torch.default_generator.manual_seed(0)
        expected = {"kid": float(kid.compute()[0])}
        torch.default_generator.manual_seed(0)
        expected |= {"inception_score": float(score.compute()[0]), "fid": float(fid.compute())}
    assert {name: measured[name] for name in expected} == pytest.approx(expected, rel=1e-6)


def test_a_class_that_no_image_shows_leaves_the_inception_score_a_number():
    # So sure that a class's probability is 0 in float64.
    sure = torch.tensor([[1.0, -1, -1], [-1, 1, -1]]).repeat(30, 1)[:, None, None]
    sure_of_two = Known()
    sure_of_two.sharpness = 1000
    assert evaluate(sure, sure, features=sure_of_two)["inception_score"] == pytest.approx(2, rel=0.1)


# --- on the shipped classifier


def test_worse_images_get_worse_figures(dataset: Dataset, evaluator: Evaluator):
    reals = to_float(dataset.train_images[:500])
    noise = torch.randn(reals.shape, generator=torch.Generator().manual_seed(0))
    steps = [evaluator((reals + sigma * noise).clamp(-1, 1)) for sigma in (0.0, 0.1, 0.3)]
    for key, sign in (("fid", 1), ("kid", 1), ("recall", -1), ("density", -1), ("coverage", -1)):
        values = [sign * step[key] for step in steps]
        assert values == sorted(values), key
    assert steps[0]["fid"] < 20
    assert steps[2]["fid"] > 200


def test_coverage_finds_out_a_generator_of_one_class(dataset: Dataset, evaluator: Evaluator):
    shirts = dataset.train_images[dataset.train_labels == 0][:500]
    measured = evaluator(shirts)
    assert measured["precision"] > 0.8
    assert measured["coverage"] < 0.3


def test_label_accuracy_falls_to_chance_when_labels_are_shuffled(dataset: Dataset, evaluator: Evaluator):
    images, labels = dataset.train_images[:500], dataset.train_labels[:500]
    assert evaluator(images, labels)["label_accuracy"] > 0.9
    assert evaluator(images, (labels + 1) % 10)["label_accuracy"] < 0.1


def test_label_accuracy_is_left_out_where_the_classifier_does_not_know_the_classes(dataset: Dataset):
    images, labels = dataset.train_images[:50], dataset.train_labels[:50]
    digits = Evaluator(dataset.test_images[:50], classes=tuple("0123456789"))
    assert "label_accuracy" not in digits(images, labels)
    assert "label_accuracy" not in Evaluator(dataset.test_images[:50])(images, labels)
    assert "label_accuracy" in Evaluator(dataset.test_images[:50], classes=CLASSES)(images, labels)


def test_figures_are_what_a_round_records(dataset: Dataset, evaluator: Evaluator):
    with_labels = Quality(**evaluator(dataset.train_images[:50], dataset.train_labels[:50]))
    assert with_labels.label_accuracy is not None
    assert Quality(**evaluator(dataset.train_images[:50])).label_accuracy is None


def test_figures_depend_on_the_images_alone(dataset: Dataset, evaluator: Evaluator):
    images = dataset.train_images[:300]
    first = evaluator(images)
    torch.manual_seed(1)
    evaluator(dataset.train_images[2000:2050])
    before = torch.get_rng_state()
    assert evaluator(images) == first
    assert torch.equal(torch.get_rng_state(), before), "the global generator was used"
    assert Evaluator(dataset.test_images[::2], classes=dataset.classes)(images) == first


def test_levels_and_floats_of_the_same_image_measure_alike(dataset: Dataset, evaluator: Evaluator):
    images = dataset.train_images[:100]
    assert evaluator(images) == evaluator(to_float(images))


def test_nothing_is_printed(dataset: Dataset, evaluator: Evaluator, capfd: pytest.CaptureFixture[str]):
    evaluator(dataset.train_images[:50])
    assert capfd.readouterr() == ("", "")


def test_colour_and_other_sizes_are_measured_too(dataset: Dataset, evaluator: Evaluator):
    grey = evaluator(dataset.train_images[:100])
    repeated = evaluator(to_float(dataset.train_images[:100]).repeat(1, 3, 1, 1))
    assert repeated == pytest.approx(grey, rel=1e-3, abs=1e-3)
    assert math.isfinite(evaluator(torch.rand(20, 3, 48, 48))["fid"])


def test_large_sets_are_thinned_evenly_and_not_cut_off(dataset: Dataset, monkeypatch: pytest.MonkeyPatch):
    order = dataset.test_labels.argsort(stable=True)
    by_class = Evaluator(dataset.test_images[order][::2])  # the first rows are all of one class
    fakes = dataset.train_images[:400]
    everything = by_class(fakes)
    monkeypatch.setattr("prism_secure.quality.metrics.MANIFOLD_LIMIT", 300)
    thinned = by_class(fakes)
    assert thinned["precision"] == pytest.approx(everything["precision"], abs=0.1)
    assert thinned["coverage"] > 0.7
    assert thinned != everything
    assert thinned["fid"] == everything["fid"]
    assert by_class(fakes) == thinned


# --- input that makes no sense


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(50, 32, 32), "generated images must be (N, 1 or 3, height, width), got (50, 32, 32)"),
        (torch.zeros(50, 2, 32, 32), "got (50, 2, 32, 32)"),
        (torch.zeros(6, 1, 32, 32), "at least 7 generated images, got 6"),
        (torch.full((50, 1, 32, 32), torch.nan), "generated images contain NaN or infinity"),
        (torch.full((50, 1, 32, 32), torch.inf), "generated images contain NaN or infinity"),
        (torch.full((50, 1, 32, 32), 255.0), "must lie in [-1, 1], found 255 to 255"),
        (
            torch.zeros(50, 1, 32, 32, dtype=torch.int64),
            "uint8, or floats in [-1, 1], got torch.int64",
        ),
    ],
)
def test_images_of_another_form_are_refused(evaluator: Evaluator, images: Tensor, message: str):
    with pytest.raises(DataError) as caught:
        evaluator(images)
    assert message in str(caught.value)


def test_held_out_images_are_checked_as_well():
    with pytest.raises(DataError, match="at least 7 held-out images, got 3"):
        Evaluator(torch.zeros(3, 1, 32, 32))


def test_as_many_labels_as_images(dataset: Dataset, evaluator: Evaluator):
    with pytest.raises(DataError, match="50 generated images but labels of shape"):
        evaluator(dataset.train_images[:50], dataset.train_labels[:49])


def test_seven_images_are_enough(dataset: Dataset):
    measured = evaluate(dataset.test_images[:7], dataset.train_images[:7])
    assert all(math.isfinite(value) for value in measured.values())


# --- the classifier that ships


def test_the_classifier_is_right_on_92_of_100_held_out_images(dataset: Dataset):
    network = load_classifier()
    with torch.no_grad():
        logits = torch.cat([network(to_float(batch)) for batch in dataset.test_images.split(500)])
    assert (logits.argmax(1) == dataset.test_labels).double().mean() >= 0.92


def test_the_classifier_ships_small_and_frozen():
    network = load_classifier()
    assert WEIGHTS.stat().st_size < 3_000_000
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_features_are_non_negative_and_not_normalised(dataset: Dataset):
    features, logits = ClassifierFeatures()(to_float(dataset.test_images[:64]))
    assert features.shape == (64, 128)
    assert features.dtype == torch.float32
    assert features.min() >= 0
    assert features.norm(dim=1).std() > 0.1
    assert logits is not None
    assert logits.shape == (64, 10)


@pytest.mark.parametrize("damage", ["missing", "truncated", "foreign"])
def test_unusable_classifier_weights_are_one_clear_error(tmp_path: Path, damage: str):
    path = tmp_path / "weights.safetensors"
    if damage == "truncated":
        path.write_bytes(WEIGHTS.read_bytes()[:1000])
    elif damage == "foreign":
        save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(FeatureError) as caught:
        load_classifier(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bundled_weights_of_another_network_of_the_same_shape_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    save_file(FashionClassifier().state_dict(), tmp_path / "weights.safetensors")
    load_classifier(tmp_path / "weights.safetensors")  # whoever names a file means it
    monkeypatch.setattr(classifier, "WEIGHTS", tmp_path / "weights.safetensors")
    with pytest.raises(FeatureError, match=r"expected SHA-256 4c500dff.*reinstall prism-secure"):
        load_classifier()


def test_the_file_holds_the_weights_of_this_network_and_nothing_else():
    own = FashionClassifier().state_dict()
    assert {k: v.shape for k, v in load_file(WEIGHTS).items()} == {k: v.shape for k, v in own.items()}


# --- InceptionV3


def test_metric_features_go_by_name():
    assert isinstance(metric_features("classifier"), ClassifierFeatures)
    with pytest.raises(FeatureError, match="'vgg', expected one of classifier, efficientnet_lite0, "):
        metric_features("vgg")


def test_features_of_the_installed_imagenet_network_are_those_that_training_may_match():
    network = metric_features("efficientnet_lite0")
    for side in (8, 28, 64):
        grey = torch.rand(3, 1, side, side) * 2 - 1
        found, logits = network(grey)
        assert torch.equal(found, EfficientNetLite0(POOLED_TAPS, image_size=side)(grey))
        assert torch.allclose(network(grey.repeat(1, 3, 1, 1))[0], found, atol=1e-4)
        assert found.shape == (3, network.num_features) == (3, 192)
        assert logits is None


def test_all_metrics_work_on_them_but_those_that_need_labels(dataset: Dataset):
    evaluator = Evaluator(
        dataset.test_images[:60],
        features=metric_features("efficientnet_lite0"),
        classes=dataset.classes,
        train_images=dataset.train_images[:60],
    )
    images, labels = dataset.train_images[60:120], dataset.train_labels[60:120]
    good, bad = evaluator(images, labels), evaluator(255 - images, labels)
    manifold = {"precision", "recall", "density", "coverage"}
    assert set(good) == {"fid", "kid", *manifold, "sliced_wasserstein", "copies"}
    assert all(math.isfinite(value) for value in good.values())
    assert good["fid"] < bad["fid"]
    assert good["coverage"] > bad["coverage"]


# --- one of the user's own


@pytest.mark.parametrize("channels", [1, 3])
def test_a_classifier_of_ones_own_is_read_as_it_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int
):
    torch.manual_seed(channels)
    path = tmp_path / "mine.safetensors"
    save_classifier(FashionClassifier(channels, 3), path, names=("ä", "b", "c"))
    module = f"my_metric_{channels}"
    code = (
        "from pathlib import Path\nfrom prism_secure.quality.networks import ClassifierFeatures\n"
        f"def features():\n    return ClassifierFeatures(Path({str(path)!r}))\n"
        "def other():\n    return 3\ndef needy(images):\n    return None\n"
    )
    (tmp_path / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    found = metric_features(f"{module}:features")
    assert found.classes == ("ä", "b", "c")
    for given in (1, 3):
        features, logits = found(torch.rand(2, given, 28, 28) * 2 - 1)
        assert features.shape == (2, 128)
        assert logits is not None
        assert logits.shape == (2, 3)
    grey = torch.rand(2, 1, 28, 28) * 2 - 1
    assert torch.allclose(found(grey)[0], found(grey.repeat(1, 3, 1, 1))[0], atol=1e-4)
    first = weights_digest(found)
    assert first == weights_digest(metric_features(f"{module}:features"))
    save_classifier(FashionClassifier(channels, 3), path, names=("ä", "b", "c"))
    assert first != weights_digest(metric_features(f"{module}:features"))
    with pytest.raises(ConfigError, match=r"must give a prism_secure.quality.networks.MetricFeatures, got 3"):
        metric_features(f"{module}:other")
    with pytest.raises(ConfigError, match=r"cannot be built: TypeError.*without arguments"):
        metric_features(f"{module}:needy")
    with pytest.raises(ConfigError, match="cannot be imported"):
        metric_features(f"{module}:missing")
    path.unlink()
    with pytest.raises(FeatureError, match=r"mine.safetensors"):
        metric_features(f"{module}:features")


def test_inception_without_weights_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FeatureError) as caught:
        metric_features("inception_v3")
    assert str(tmp_path / "checkpoints" / InceptionFeatures.FILE) in str(caught.value)
    assert "metrics.features = 'efficientnet_lite0'" in str(caught.value)
    path = tmp_path / "checkpoints" / InceptionFeatures.FILE
    path.parent.mkdir()
    path.write_bytes(b"other weights")
    with pytest.raises(FeatureError, match=rf"{path} is damaged or another file: expected SHA-256 0cc3c7bd"):
        metric_features("inception_v3")


@pytest.mark.parametrize("content", [b"", b"not weights"])
def test_damaged_inception_weights_are_one_clear_error(tmp_path: Path, content: bytes):
    path = tmp_path / "inception.pth"
    path.write_bytes(content)
    with pytest.raises(FeatureError) as caught:
        InceptionFeatures(path)
    assert f"cannot load InceptionV3 from {path}" in str(caught.value)


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> InceptionFeatures:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("inception") / InceptionFeatures.FILE
    torch.save(torchvision.models.inception_v3(weights=None, init_weights=False).state_dict(), path)
    return InceptionFeatures(path)


def test_inception_features_are_the_input_of_its_last_layer(inception: InceptionFeatures):
    images = torch.rand(2, 1, 32, 32) * 2 - 1
    with torch.no_grad():
        features, logits = inception(images)
        again, _ = inception(images.repeat(1, 3, 1, 1))
    assert features.shape == (2, 2048)
    assert logits.shape == (2, 1000)
    assert torch.allclose(features, again, atol=1e-5)
    assert not inception.network.training


@pytest.fixture(scope="module")
def fid_weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A file of random weights, of the names and shapes of FID's own, and its SHA-256."""
    torch.manual_seed(0)
    network = inception_blocks.network()
    for name, value in network.state_dict().items():
        if value.ndim == 4:
            torch.nn.init.kaiming_normal_(value)
        elif name.endswith("running_mean"):
            value.normal_(0, 0.1)
    path = tmp_path_factory.mktemp("fid") / "random.pth"
    torch.save(network.state_dict(), path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def of_fid(fid_weights: tuple[Path, str]) -> FidInceptionFeatures:
    path, digest = fid_weights
    return FidInceptionFeatures(path, sha256=digest)


def test_weights_of_fid_are_read_under_both_names_and_by_their_digest_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fid_weights: tuple[Path, str]
):
    path, digest = fid_weights
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    folder = tmp_path / "checkpoints"
    with pytest.raises(
        FeatureError, match=r"put pt_inception.* of pytorch-fid, or .* of torch-fidelity"
    ) as found:
        metric_features("inception_fid")
    assert str(found.value).endswith(f"into {folder}")
    assert "\n" not in str(found.value)
    folder.mkdir()
    for name in inception_fid.FILES:
        (folder / name).write_bytes(path.read_bytes())
        assert FidInceptionFeatures(sha256=digest).num_features == 2048
        # Weights that fit, but not FID's: the recipe's name has no way around the digest.
        with pytest.raises(
            FeatureError, match=f"{name} is damaged or another file: expected SHA-256 6726825d0af"
        ):
            metric_features("inception_fid")
        (folder / name).unlink()


def test_weights_of_another_network_are_not_taken_for_those_of_fid(tmp_path: Path):
    path = tmp_path / "torchvision.pth"
    torch.save(torchvision.models.inception_v3(weights=None, init_weights=False).state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(FeatureError, match="does not hold FID's Inception") as found:
        FidInceptionFeatures(path, sha256=digest)
    assert "\n" not in str(found.value)


def test_fid_inception_takes_256_levels_and_leaves_out_the_last_bias(of_fid: FidInceptionFeatures):
    levels = torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8)
    seen: list[Tensor] = []
    hook = of_fid.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        features, logits = of_fid(to_float(levels))
        of_fid(to_float(levels).repeat(1, 3, 1, 1) + 0.001)  # less than half a level
    hook.remove()
    assert features.shape == (2, 2048)
    assert logits is not None
    assert logits.shape == (2, 1008)
    assert torch.allclose(logits, features @ of_fid.head.weight.T, atol=1e-4)
    assert torch.equal(seen[0], seen[1])
    assert seen[0].shape == (2, 3, 299, 299)
    assert torch.equal(seen[0][:, :, 0, 0], ((levels[:, :, 0, 0].float() - 128) / 128).expand(-1, 3))


def test_images_are_resized_as_tensorflow_1_does():
    # Its legacy bilinear resize, written out: no half pixel, the last row repeated, no smoothing.
    image = torch.randn(1, 1, 5, 7)
    for side in (3, 5, 11):
        expected = torch.empty(side, side)
        for i in range(side):
            for j in range(side):
                y, x = i * 5 / side, j * 7 / side
                a, b = int(y), int(x)
                c, d = min(a + 1, 4), min(b + 1, 6)
                top = image[0, 0, a, b] * (1 - x + b) + image[0, 0, a, d] * (x - b)
                low = image[0, 0, c, b] * (1 - x + b) + image[0, 0, c, d] * (x - b)
                expected[i, j] = top * (1 - y + a) + low * (y - a)
        found = inception_fid.resized_as_tensorflow_1(image, side)[0, 0]
        assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("block", ["Mixed_5b", "Mixed_6b", "Mixed_7b", "Mixed_7c"])
def test_pools_of_fid_inception_are_its_own(of_fid: FidInceptionFeatures, block: str):
    mixed = getattr(of_fid.network, block)
    images = torch.randn(1, mixed.branch1x1.conv.in_channels, 4, 4)
    padded = torch.full((images.shape[1], 6, 6), torch.nan)
    padded[:, 1:5, 1:5] = images[0]
    around = padded.unfold(1, 3, 1).unfold(2, 3, 1).flatten(3)  # NaN is what padding adds
    worst = torch.full_like(around, -torch.inf)
    pooled = torch.where(around.isnan(), worst, around).amax(3) if block == "Mixed_7c" else around.nanmean(3)
    with torch.no_grad():
        ours = mixed(images)
        own = mixed.branch_pool(pooled[None])
        assert torch.allclose(ours[:, -own.shape[1] :], own, atol=1e-5)
        theirs = torchvision_block(mixed).forward(mixed, images)
    # All but the pool's branch is torchvision's block.
    assert torch.allclose(ours[:, : -own.shape[1]], theirs[:, : -own.shape[1]], atol=1e-5)
    assert not torch.allclose(ours[:, -own.shape[1] :], theirs[:, -own.shape[1] :], atol=1e-3)


def torchvision_block(mixed: torch.nn.Module) -> type:
    return next(each for each in type(mixed).mro() if each.__module__ == "torchvision.models.inception")


@pytest.mark.slow
@pytest.mark.parametrize("which", ["inception", "of_fid"])
def test_all_metrics_work_on_inception_features(which: str, request: pytest.FixtureRequest, dataset: Dataset):
    network = request.getfixturevalue(which)
    measured = evaluate(dataset.test_images[:16], dataset.train_images[:16], features=network)
    names = {
        "fid",
        "kid",
        "precision",
        "recall",
        "density",
        "coverage",
        "sliced_wasserstein",
        "inception_score",
    }
    assert set(measured) == names
    assert all(math.isfinite(value) for value in measured.values())
