"""The one release: what goes in, what comes out, and that it happens once."""

import math
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from prism_privacy.errors import InvalidParameter, OutboxError, ReleaseConflict
from prism_privacy.masks.coins import CoinSecret
from prism_privacy.moments import noisy_sums as module
from prism_privacy.moments.noisy_moments import noisy_moments
from prism_privacy.moments.noisy_sums import NoisySums, integer_sums, release_moments
from prism_privacy.moments.release import MomentRelease
from prism_privacy.moments.store import load_moments, moments_once, stored_release
from prism_privacy.moments.summed import SummedMoments

RNG = np.random.default_rng(7)
FEATURES = RNG.normal(size=(300, 6)) * 0.3
LABELS = RNG.integers(0, 4, 300)  # class 4 of 5 is absent


def coins(purpose="noise"):
    return CoinSecret.for_test(b"m" * 32).stream("tests", 0, bytes(32), purpose)


def plain(norm, features=FEATURES, labels=LABELS, classes=5):
    length = np.maximum(np.linalg.norm(features, axis=1, keepdims=True) / norm, 1.0)
    clipped = features / length
    one_hot = np.eye(classes)[labels]
    return one_hot.T @ clipped, one_hot.T @ clipped**2, one_hot.sum(axis=0)


@pytest.mark.parametrize("norm", [0.5, 1.0, 20.0])
def test_without_noise_the_sums_are_those_of_the_clipped_features(norm):
    sums = release_moments(FEATURES, LABELS, MomentRelease(300, norm, 0.0, classes=5))
    first, second, counts = plain(norm)
    assert sums.first == pytest.approx(first, abs=300 * norm / 2**20)
    assert sums.second == pytest.approx(second, abs=600 * norm**2 / 2**20)
    assert np.array_equal(sums.counts, counts)
    assert sums.counts[4] == 0


def test_noise_has_the_size_that_is_accounted_for_on_every_part_absent_classes_included():
    release = MomentRelease(300, 2.0, 0.01, classes=5, second_weight=0.5, count_weight=0.25)
    first, second, counts = plain(2.0)
    rest = {"first": [], "second": [], "counts": []}
    for i in range(400):
        sums = release_moments(FEATURES, LABELS, release, coins(f"size {i}"))
        rest["first"].append((sums.first - first) / (release.noise * 2.0))
        rest["second"].append((sums.second - second) / (release.noise * 4.0 / 0.5))
        rest["counts"].append((sums.counts - counts) / (release.noise / 0.25))
    for noise in rest.values():
        flat = np.ravel(noise)
        assert stats.kstest(flat, "norm").pvalue > 1e-3
        assert flat.std() == pytest.approx(1.0, abs=0.05)
        absent = np.ravel([x[4] for x in noise])
        assert absent.std() == pytest.approx(1.0, abs=0.12)


def test_real_noise_is_fresh_each_time_and_known_noise_is_marked():
    release = MomentRelease(300, 1.0, 0.01, classes=5)
    a, b = (release_moments(FEATURES, LABELS, release) for _ in range(2))
    assert not a.is_test
    assert not np.any(a.first == b.first)
    known = [release_moments(FEATURES, LABELS, release, coins()) for _ in range(2)]
    assert known[0].is_test
    assert np.array_equal(known[0].first, known[1].first)


def test_chunks_do_not_change_the_sums(monkeypatch):
    release = MomentRelease(300, 1.0, 0.0, classes=5)
    whole = release_moments(FEATURES, LABELS, release)
    monkeypatch.setattr(module, "_CHUNK", 7)
    parts = release_moments(FEATURES.astype(np.float64), LABELS.astype(np.uint8), release)
    assert np.array_equal(whole.first, parts.first)
    assert np.array_equal(whole.second, parts.second)


def test_without_labels_and_under_swap_no_count_is_released():
    sums = release_moments(FEATURES, None, MomentRelease(300, 1.0, 0.0))
    assert sums.counts is None
    assert sums.first.shape == (1, 6)
    moments = noisy_moments(sums)
    assert moments.counts.tolist() == [300.0]
    assert moments.present.all()
    counted = release_moments(FEATURES, None, MomentRelease(1000, 1.0, 0.0, "add_remove"))
    assert counted.counts.tolist() == [300.0]


def test_means_only():
    release = MomentRelease(300, 1.0, 0.001, classes=5, second_weight=0.0)
    moments = noisy_moments(release_moments(FEATURES, LABELS, release, coins()))
    assert moments.variance is None
    assert moments.second_noise is None
    first, _, counts = plain(1.0)
    assert moments.mean[:4] == pytest.approx((first / np.maximum(counts, 1)[:, None])[:4], abs=0.05)


def test_sums_are_divided_by_noisy_counts_and_never_by_true_ones():
    release = MomentRelease(300, 1.0, 0.05, classes=5)
    sums = release_moments(FEATURES, LABELS, release, coins("divide"))
    moments = noisy_moments(sums)
    least = max(1.0, 2 * release.noise / release.count_weight)
    assert np.array_equal(moments.counts, np.maximum(sums.counts, least))
    assert moments.mean == pytest.approx(sums.first / moments.counts[:, None])
    assert moments.mean_noise == pytest.approx(release.noise / moments.counts)
    assert moments.second_noise == pytest.approx(release.noise / moments.counts)


def test_variances_never_fall_below_the_floor_even_when_noise_drowns_them():
    release = MomentRelease(300, 1.0, 1.0, classes=5)
    sums = release_moments(FEATURES, LABELS, release, coins("floor"))
    assert noisy_moments(sums).variance.min() == pytest.approx(1e-6)
    assert noisy_moments(sums, variance_floor=0.25).variance.min() == 0.25
    for bad in ({"variance_floor": 0.0}, {"least_count": -1.0}):
        with pytest.raises(InvalidParameter):
            noisy_moments(sums, **bad)
    assert noisy_moments(sums, least_count=1e9).counts.tolist() == [1e9] * 5


def test_the_noise_of_the_mean_is_taken_off_the_variance_again():
    release = MomentRelease(300, 1.0, 0.03, second_weight=100.0)  # hardly any noise on second moments
    first, second, _ = plain(1.0, labels=np.zeros(300, int), classes=1)
    truth = second[0] / 300 - (first[0] / 300) ** 2
    drawn = [release_moments(FEATURES, None, release, coins(f"v{i}")) for i in range(100)]
    error = np.array([noisy_moments(sums).variance[0] for sums in drawn]) - truth
    standard = error.std() / math.sqrt(error.size)
    assert abs(error.mean()) < 4 * standard
    assert 4 * standard < 0.03**2, "the test could not see the correction"


def test_absent_classes_are_told_from_present_ones_by_the_noisy_count_alone():
    release = MomentRelease(300, 1.0, 0.001, classes=5)
    moments = noisy_moments(release_moments(FEATURES, LABELS, release, coins("present")))
    assert moments.present.tolist() == [True] * 4 + [False]
    assert np.isfinite(moments.mean).all()


@pytest.mark.parametrize(
    ("features", "labels", "change", "message"),
    [
        (FEATURES, None, {}, "needs labels"),
        (FEATURES[:-1], LABELS[:-1], {}, "exactly 300 records, got 299"),
        (FEATURES, LABELS[:-1], {}, "labels must be 300 integers"),
        (FEATURES, LABELS.astype(float), {}, "labels must be 300 integers"),
        (FEATURES, LABELS + 2, {}, r"labels must lie in \[0, 5\)"),
        (FEATURES, LABELS - 1, {}, r"labels must lie in \[0, 5\)"),
        (FEATURES[0], LABELS, {}, "shape"),
        (FEATURES[:, :0], LABELS, {}, "shape"),
        (FEATURES, LABELS, {"nonnegative": True}, "non-negative"),
        (np.where(FEATURES > 1, np.nan, FEATURES) * np.inf, LABELS, {}, "finite"),
        (np.ones((300, 2), int), LABELS, {}, "floats"),
    ],
)
def test_data_that_does_not_fit_the_release_is_refused(features, labels, change, message):
    release = MomentRelease(**{"records": 300, "norm": 1.0, "sigma": 0.01, "classes": 5} | change)
    with pytest.raises(InvalidParameter, match=message), np.errstate(invalid="ignore"):
        release_moments(features, labels, release)


def test_more_records_than_fit_the_sums_are_refused(monkeypatch):
    monkeypatch.setattr(module, "MOST_RECORDS", 299)
    with pytest.raises(InvalidParameter, match="at most 299 records"):
        release_moments(FEATURES, LABELS, MomentRelease(200, 1.0, 0.1, "add_remove", 5))


def test_nonnegative_features_are_accepted_when_they_are():
    release = MomentRelease(300, 1.0, 0.0, classes=5, nonnegative=True)
    assert release_moments(np.abs(FEATURES), LABELS, release).first.min() >= 0


def test_a_release_is_made_once_and_read_by_whoever_comes_later(tmp_path):
    release = MomentRelease(300, 1.0, 0.01, classes=5)
    path = tmp_path / "moments"
    calls = []

    def make():
        calls.append(1)
        return release_moments(FEATURES, LABELS, release)

    first = moments_once(path, release, "rff-64, client 3", make)
    again = moments_once(path, release, "rff-64, client 3", make)
    assert len(calls) == 1
    for name in ("first", "second", "counts"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    assert again.release == release
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_moments(tmp_path / "none", release, "x") is None
    assert stored_release(path) == release
    assert stored_release(tmp_path / "none") is None
    with pytest.raises(OutboxError, match="cannot be read"):
        stored_release(tmp_path)


def test_a_second_release_of_the_same_records_is_refused_where_the_first_is(tmp_path):
    release = MomentRelease(300, 1.0, 0.01, classes=5)
    path = tmp_path / "moments"
    moments_once(path, release, "rff-64", lambda: release_moments(FEATURES, LABELS, release))
    other = MomentRelease(300, 1.0, 0.02, classes=5)
    for asked, context in ((other, "rff-64"), (release, "rff-128")):
        with pytest.raises(ReleaseConflict, match="charged on top"):
            moments_once(path, asked, context, lambda: pytest.fail("a second release was made"))
    with pytest.raises(InvalidParameter, match="asked for"):
        moments_once(tmp_path / "b", other, "x", lambda: release_moments(FEATURES, LABELS, release))
    assert not (tmp_path / "b").exists()


def test_parts_that_are_not_released_stay_absent_in_the_store(tmp_path):
    release = MomentRelease(300, 1.0, 0.01, second_weight=0.0)
    path = tmp_path / "moments"
    made = moments_once(path, release, "x", lambda: release_moments(FEATURES, None, release, coins()))
    again = load_moments(path, release, "x")
    assert again.second is None
    assert again.counts is None
    assert again.is_test
    assert np.array_equal(again.first, made.first)


def test_a_damaged_release_is_not_replaced_by_another(tmp_path, monkeypatch):
    release = MomentRelease(300, 1.0, 0.01, classes=5)
    path = tmp_path / "moments"
    moments_once(path, release, "x", lambda: release_moments(FEATURES, LABELS, release))
    content = path.read_bytes()
    for bad in (b"", content[:-1], content[:70], content[:-9] + b"x" * 9):
        path.write_bytes(bad)
        with pytest.raises(OutboxError, match="damaged"):
            moments_once(path, release, "x", lambda: pytest.fail("a second release was made"))
    import prism_privacy.moments.store as store

    path.write_bytes(content)
    monkeypatch.setattr(store, "_VERSION", "prism-privacy/v2/moments")
    with pytest.raises(OutboxError, match="version"):
        load_moments(path, release, "x")


def clients(count):
    return [(FEATURES[i::count], LABELS[i::count]) for i in range(count)]


@pytest.mark.parametrize("second_weight", [0.0, 1.0])
def test_summed_shares_open_to_the_sums_with_the_noise_of_one_release(second_weight):
    release = MomentRelease(300, 1.0, 0.01, classes=5, second_weight=second_weight)
    plan = SummedMoments(release, cohort=6, dimension=6, most_records=50)
    first, second, counts = plain(1.0)
    noise = []
    for i in range(60):
        shares = [plan.share(x, y, coins(f"{i} {j}")) for j, (x, y) in enumerate(clients(6))]
        assert all(s.min() >= 0 and s.max() <= plan.bound and s.shape == (plan.size,) for s in shares)
        sums = plan.open(sum(shares), survivors=6, is_test=True)
        assert sums.is_test
        noise.append((sums.first - first) / release.noise)
    assert stats.kstest(np.ravel(noise), "norm").pvalue > 1e-3
    if second_weight:
        assert sums.second == pytest.approx(second, abs=6 * release.noise)
    else:
        assert sums.second is None
    assert sums.counts == pytest.approx(counts, abs=6 * release.noise / release.count_weight)
    assert plan.epsilon(1e-5) == release.epsilon(1e-5)


def test_a_real_secure_sum_opens_the_moments_of_those_who_stayed():
    from prism_crypto import Stage, secure_sum

    release = MomentRelease(300, 1.0, 0.01, classes=5)
    plan = SummedMoments(release, cohort=4, dimension=6, most_records=60)
    data = clients(5)
    shares = [plan.share(x, y, coins(f"secure {j}")) for j, (x, y) in enumerate(data)]
    result = secure_sum(shares, bound=plan.bound, drop={2: Stage.UPLOAD})
    sums = plan.open(result.counts, survivors=len(result.survivors))
    assert result.survivors == (0, 1, 3, 4)
    rest = [data[i] for i in result.survivors]
    first, _, counts = plain(1.0, np.concatenate([x for x, _ in rest]), np.concatenate([y for _, y in rest]))
    assert sums.first == pytest.approx(first, abs=6 * release.noise)
    assert sums.counts == pytest.approx(counts, abs=6 * release.noise / release.count_weight)


def test_the_shares_of_a_cohort_have_at_least_the_noise_of_the_release():
    for sigma in (1e-5, 0.00037, 0.01, 1.0):
        for cohort in (1, 2, 3, 7, 10, 999):
            release = MomentRelease(300, 1.0, sigma, classes=5)
            plan = SummedMoments(release, cohort, dimension=2, most_records=10)
            for share, whole in zip(plan.share_noise, release.lattice_noise, strict=True):
                assert cohort * share**2 >= whole**2
                assert cohort * (share - 1) ** 2 < whole**2 or share == 5


def test_shares_beyond_the_plan_are_refused():
    release = MomentRelease(300, 1.0, 0.01, classes=5)
    plan = SummedMoments(release, cohort=3, dimension=6, most_records=50)
    with pytest.raises(InvalidParameter, match="at most 50 records of 6 features, got 300 of 6"):
        plan.share(FEATURES, LABELS)
    with pytest.raises(InvalidParameter, match="got 50 of 5"):
        plan.share(FEATURES[:50, :5], LABELS[:50])
    for bad in (np.zeros(plan.size - 1, np.int64), np.zeros(plan.size)):
        with pytest.raises(InvalidParameter, match="expected"):
            plan.open(bad, survivors=3)
    with pytest.raises(InvalidParameter, match="survivors"):
        plan.open(np.zeros(plan.size, np.int64), survivors=0)
    with pytest.raises(InvalidParameter, match="needs noise"):
        SummedMoments(MomentRelease(300, 1.0, 0.0, classes=5), 3, 6, 50)
    with pytest.raises(InvalidParameter, match="needs counts"):
        SummedMoments(MomentRelease(300, 1.0, 0.1), 3, 6, 50)
    with pytest.raises(InvalidParameter, match="63 bits"):
        SummedMoments(release, 1000, 6, 10**5)
    with pytest.raises(
        InvalidParameter, match="63 bits"
    ):  # all that are added up, whoever the noise counts on
        SummedMoments(release, 1, 6, 10**5, most_shares=1000)
    assert SummedMoments(release, 1, 6, 10**5)
    with pytest.raises(InvalidParameter, match="less than the cohort"):
        SummedMoments(release, 3, 6, 50, most_shares=2)
    with pytest.raises(InvalidParameter, match="cohort"):
        SummedMoments(release, 0, 6, 50)


def test_a_summed_release_claims_nothing_where_its_cut_noise_would_matter():
    plan = SummedMoments(MomentRelease(300, 1.0, 0.0003, classes=5), 3, 6, 50)
    assert plan.release.epsilon(1e-5) > 100
    assert plan.epsilon(1e-5) == math.inf


def test_the_noisy_sums_of_two_neighbours_with_the_same_noise_differ_by_the_sensitivity_at_most():
    release = MomentRelease(300, 1.0, 0.01, classes=5)
    other = FEATURES.copy()
    other[17] = -5 * other[17]
    labels = LABELS.copy()
    labels[17] = 4
    a, b = (integer_sums(x, y, release) for x, y in ((FEATURES, LABELS), (other, labels)))
    weights = (1 / 2**20, 1 / 2**40, 0.5 / 2**20)
    distance = math.sqrt(
        sum(float(np.square((x - y) * w).sum()) for x, y, w in zip(a, b, weights, strict=True))
    )
    assert 0 < distance <= release.sensitivity
    assert isinstance(release_moments(FEATURES, LABELS, release), NoisySums)


def test_two_processes_that_ask_at_once_use_one_release(tmp_path):
    """Without the lock both would find nothing stored, and two releases would be charged as one."""
    command = [sys.executable, Path(__file__).with_name("racing.py"), tmp_path, "20"]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 3
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    answers = [racer.communicate()[0].split() for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    assert len(answers[0]) == 20
    assert answers[0] == answers[1] == answers[2]
    assert len(set(answers[0])) == 20
