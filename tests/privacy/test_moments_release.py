"""How sensitive moments are, searched; what a release costs; what it refuses."""

import json
import math

import numpy as np
import pytest

from prism_privacy.errors import InvalidParameter
from prism_privacy.moments.noisy_sums import integer_sums, quantise_rows
from prism_privacy.moments.release import MOST_RECORDS, MomentRelease
from prism_privacy.units import Unit

UNITS = 1 << 20


def change(release, one, other, label, other_label):
    """The L2 distance of [S1; v S2; w n] between neighbours, from the integers that are really summed."""
    first, second = (
        integer_sums(rows, labels, release, any_number=True)
        for rows, labels in ((one, label), (other, other_label))
    )
    scale = [1 / UNITS, release.second_weight / UNITS**2, release.count_weight / UNITS]
    if not release.second_weight:
        scale.pop(1)
    total = sum(
        (float(w) ** 2) * float(np.square((a - b).astype(np.float64)).sum())
        for a, b, w in zip(first, second, scale, strict=False)
    )
    return math.sqrt(total)


def unit_rows(rng, count, dimension, nonnegative, kind):
    rows = rng.normal(size=(count, dimension))
    if kind == "sparse":
        rows *= rng.random((count, dimension)) < 2.5 / dimension
    if kind == "spiky":
        rows = np.sign(rows) * np.abs(rows) ** 6
    if nonnegative:
        rows = np.abs(rows)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    radius = 1.0 if kind != "ball" else rng.random((count, 1))
    return rows / np.where(length == 0, 1, length) * radius


def climb(release, rng, dimension, nonnegative, steps):
    """A random search with local improvement for the largest change that one record can make."""
    labels = [0, 1 if release.classes > 1 else 0]
    best = 0.0
    for attempt in range(8):
        kind = ("dense", "sparse", "spiky", "ball")[attempt % 4]
        rows = unit_rows(rng, 2, dimension, nonnegative, kind)
        label = [labels[0], labels[attempt // 4 % 2]]
        here = 0.0
        width = 0.5
        for _ in range(steps):
            trial = rows + width * rng.normal(size=rows.shape) * (rng.random(rows.shape) < 0.5)
            if nonnegative:
                trial = np.abs(trial)
            length = np.linalg.norm(trial, axis=1, keepdims=True)
            trial = trial / np.maximum(length, 1.0)
            if release.adjacency == "swap":
                value = change(release, trial[:1], trial[1:], np.array(label[:1]), np.array(label[1:]))
            else:
                value = change(release, trial[:1], trial[:0], np.array(label[:1]), np.array([], dtype=int))
            if value > here:
                here, rows = value, trial
            else:
                width = max(0.01, width * 0.99)
        best = max(best, here)
    return best


@pytest.mark.parametrize("adjacency", ["swap", "add_remove"])
@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize(("v", "w"), [(1.0, 0.5), (0.0, 0.5), (0.5, 0.25), (2.0, 1.0)])
def test_a_search_for_the_worst_record_nears_the_sensitivity_and_never_passes_it(
    adjacency, classes, nonnegative, v, w
):
    release = MomentRelease(1, 1.0, 0.0, adjacency, classes, v, w, nonnegative)
    found = climb(release, np.random.default_rng(11), 3, nonnegative, 150)
    assert found <= release.sensitivity
    # the worst records known: what makes each bound tight up to rounding
    e1, e2 = np.eye(3)[:1], np.eye(3)[1:2]
    label, other = np.array([0]), np.array([classes - 1])
    if adjacency == "add_remove":
        worst = change(release, e1, e1[:0], label, label[:0])
    else:
        known = [(e1, e2, label, other), (e1, e2, label, label)]
        if not nonnegative:
            known.append((e1, -e1, label, label))
            if v * v >= 0.5:
                # u = sqrt(U)(1,1)/sqrt 2 and s = sqrt(4-U)(1,-1)/sqrt 2 with U = 2 + 1/v^2
                U = 2 + 1 / v**2
                u = math.sqrt(U / 2) * np.array([[1, 1, 0]])
                s = math.sqrt((4 - U) / 2) * np.array([[1, -1, 0]])
                known.append(((s + u) / 2, (s - u) / 2, label, label))
        worst = max(change(release, *pair) for pair in known)
    assert release.sensitivity * (1 - 1e-5) <= worst <= release.sensitivity


def test_the_known_values_of_the_sensitivity():
    def squared(**more):
        return MomentRelease(1000, 1.0, 0.002, **more).sensitivity ** 2

    for classes in (1, 10):
        assert squared(adjacency="swap", classes=classes) == pytest.approx(4.5)
        assert squared(adjacency="add_remove", classes=classes) == pytest.approx(2.25)
    assert squared(second_weight=0.0) == pytest.approx(4.0)
    assert squared(second_weight=0.0, classes=10) == pytest.approx(4.0)
    assert squared(second_weight=0.0, classes=10, nonnegative=True) == pytest.approx(2.5)
    assert squared(nonnegative=True) == pytest.approx(4.0)
    assert squared(nonnegative=True, classes=10, count_weight=0.25) == pytest.approx(4.125)


def test_the_smaller_sensitivity_that_some_code_uses_is_violated():
    # noise for a second moment that changes by at most 1/N would need a change of at most 1 in S2
    release = MomentRelease(2, 1.0, 0.0, "swap")
    e1, e2 = np.eye(2)[:1], np.eye(2)[1:]
    a, b = (integer_sums(x, None, release, any_number=True)[1] / UNITS**2 for x in (e1, e2))
    assert np.linalg.norm(a - b) == pytest.approx(math.sqrt(2))


def test_quantised_rows_never_leave_the_ball_and_hardly_move():
    rng = np.random.default_rng(0)
    for scale in (1e-9, 1e-3, 1.0, 1e9, 1e200):
        for dimension in (1, 3, 1000):
            rows = rng.normal(size=(200, dimension)) * scale
            units = quantise_rows(rows, scale)
            assert (np.square(units).sum(axis=1) <= UNITS**2).all()
            length = np.maximum(np.linalg.norm(rows / scale, axis=1, keepdims=True), 1.0)
            assert np.abs(units / UNITS - rows / scale / length).max() <= 1.1 / UNITS
    exact = np.array([[0.6, 0.8], [1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    assert quantise_rows(exact, 1.0)[1:].tolist() == [[UNITS, 0], [0, 0], [-UNITS, 0]]


def test_rows_whose_length_was_rounded_down_are_shortened_until_the_integers_fit(monkeypatch):
    real = np.linalg.norm
    monkeypatch.setattr(np.linalg, "norm", lambda *a, **k: real(*a, **k) * (1 - 1e-5))
    rows = np.concatenate([np.full((1, 4), 0.5), np.eye(4), np.random.default_rng(1).normal(size=(500, 4))])
    units = quantise_rows(rows, 1.0)
    total = np.square(units).sum(axis=1)
    assert (total <= UNITS**2).all()
    assert total[:5].min() > UNITS**2 * (1 - 1e-5)


def test_rounding_never_lengthens_a_coordinate():
    rows = np.random.default_rng(2).normal(size=(1000, 5)) * 0.1
    units = quantise_rows(rows, 1.0)
    assert (np.abs(units) <= np.abs(rows) * UNITS).all()
    assert (units * rows >= 0).all()


def test_what_sigma_means():
    release = MomentRelease(records=1000, norm=1.0, sigma=0.002, adjacency="swap")
    assert release.noise == pytest.approx(2.0)
    assert release.lattice_noise == (math.ceil(2.0 * 2**20), math.ceil(2.0 * 2**40))
    assert release.unit is Unit.RECORD
    scaled = MomentRelease(records=1000, norm=10.0, sigma=0.02, adjacency="swap")
    assert scaled.epsilon(1e-5) == pytest.approx(release.epsilon(1e-5))
    with_counts = MomentRelease(1000, 1.0, 0.002, classes=10, second_weight=0.5, count_weight=0.25)
    assert with_counts.lattice_noise == (2 * 2**20, 4 * 2**40, 8 * 2**20)
    assert not release.releases_counts
    assert MomentRelease(1000, 1.0, 0.002, "add_remove").releases_counts


def test_epsilon_falls_with_noise_rises_with_sensitivity_and_is_infinite_without_noise():
    sigmas = (0.0005, 0.001, 0.002, 0.01, 0.1)
    values = [MomentRelease(1000, 1.0, sigma).epsilon(1e-5) for sigma in sigmas]
    assert values == sorted(values, reverse=True)
    assert MomentRelease(1000, 1.0, 0.002, "add_remove").epsilon(1e-5) < values[2]
    assert MomentRelease(1000, 1.0, 0.0).epsilon(1e-5) == math.inf
    # noise below the lattice is no noise
    assert MomentRelease(1000, 1.0, 1e-9).epsilon(1e-5) == math.inf
    assert MomentRelease(1000, 1.0, 0.002).epsilon(1e-9) > values[2]


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 2.0, 10.0, 100.0])
@pytest.mark.parametrize("adjacency", ["swap", "add_remove"])
def test_calibration_returns_the_safe_side_and_hardly_any_more_noise(epsilon, adjacency):
    release = MomentRelease.calibrated(
        epsilon=epsilon, delta=1e-5, records=500, norm=3.0, adjacency=adjacency, classes=10, second_weight=0.3
    )
    assert release.epsilon(1e-5) <= epsilon
    less = MomentRelease(**release.as_dict() | {"sigma": release.sigma * (1 - 1e-6)})
    assert less.epsilon(1e-5) > epsilon


def test_a_release_is_known_by_its_dictionary():
    release = MomentRelease(1000, 2, 0.002, "add_remove", 10, 0.5, 0.25, True)
    again = MomentRelease(**json.loads(json.dumps(release.as_dict())))
    assert again == release
    assert hash(again) == hash(release)


@pytest.mark.parametrize(
    "bad",
    [
        {"records": 0}, {"records": 1.5}, {"records": MOST_RECORDS + 1}, {"norm": 0.0}, {"norm": math.inf},
        {"sigma": -1.0}, {"sigma": math.nan}, {"sigma": math.inf}, {"adjacency": "replace"}, {"classes": 0},
        {"second_weight": -1.0}, {"count_weight": 0.0}, {"nonnegative": 1}, {"sigma": 1e300},
        {"second_weight": 1e-9}, {"sigma": 1e308, "records": 1000},
    ],
)  # fmt: skip
def test_a_release_that_makes_no_sense_is_refused(bad):
    arguments = {"records": 1000, "norm": 1.0, "sigma": 0.002} | bad
    with pytest.raises(InvalidParameter):
        MomentRelease(**arguments)


@pytest.mark.parametrize("bad", [{"epsilon": 0.0}, {"epsilon": math.inf}, {"delta": 0.0}, {"delta": 1.0}])
def test_a_target_that_makes_no_sense_is_refused(bad):
    with pytest.raises(InvalidParameter):
        MomentRelease.calibrated(**{"epsilon": 1.0, "delta": 1e-5, "records": 10} | bad)


@pytest.mark.parametrize("epsilon", [1e7, 1e8, 1e10, 1e12, 1e100, 1e300, 1.7e308])
@pytest.mark.parametrize("delta", [5e-324, 1e-5, 0.999])
def test_a_target_beyond_all_privacy_has_a_release_too(epsilon, delta):
    release = MomentRelease.calibrated(epsilon=epsilon, delta=delta, records=1000)
    found = release.epsilon(delta)
    assert 0.0 < found <= epsilon
    # The loss of a Gaussian has the mean 1/(2 multiplier^2), so no less can be claimed below delta = 1/2.
    if delta < 0.5:
        assert found >= 0.5 * (release.sensitivity / release.noise) ** 2
    if epsilon <= 1e8:
        assert found >= epsilon * 0.999
    else:
        assert release.noise * 2.0**20 < 64.0 or found >= epsilon * 0.9, "the lattice alone asks for more"
