"""Dictionaries of layers through the secure sum and the mechanism: exact, in one order, accounted for."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prism_crypto import FixedPoint, InputError, PolicyError, SecureSumError, Stage, ThresholdError
from prism_privacy import CoinSecret, MaskRelease, debias
from prism_secure.plug_in import (
    Bounds,
    Layers,
    release_mask,
    secure_counts,
    secure_mean,
    secure_votes,
)

SHAPES = st.dictionaries(
    st.text(min_size=1, max_size=3),
    st.lists(st.integers(1, 3), max_size=3).map(tuple),
    min_size=1,
    max_size=4,
)


@given(SHAPES, st.randoms(use_true_random=False))
def test_flatten_and_split_are_inverse_whatever_the_order_of_the_dictionary(shapes, shuffler):
    arrays = {name: np.random.default_rng(1).integers(0, 9, shape) for name, shape in shapes.items()}
    layers = Layers.of(arrays)
    names = list(arrays)
    shuffler.shuffle(names)
    vector = layers.flatten({name: arrays[name] for name in names})
    assert vector.shape == (layers.dimension,)
    assert np.array_equal(vector, layers.flatten(arrays))
    back = layers.split(vector)
    assert set(back) == set(arrays)
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)


def test_layers_that_differ_are_named_and_have_another_digest():
    layers = Layers.of({"a": np.zeros(2), "b": np.zeros((2, 2))})
    other = {"a": np.zeros(2), "b": np.zeros((4,))}
    with pytest.raises(ValueError, match=r"layer 'b': expected shape \(2, 2\), got \(4,\)"):
        layers.flatten(other)
    with pytest.raises(ValueError, match=r"expected a vector of shape \(6,\), got \(5,\)"):
        layers.split(np.zeros(5))
    assert layers.digest != Layers.of(other).digest
    assert layers.digest == Layers.of({"b": np.ones((2, 2)), "a": np.ones(2)}).digest


def _masks(clients: int) -> list[dict[str, np.ndarray]]:
    draws = np.random.default_rng(3)
    return [{"w": draws.integers(0, 2, (3, 4)), "v": draws.integers(0, 2, 5)} for _ in range(clients)]


def test_counts_are_the_plain_sum_for_arrays_and_tensors():
    masks = _masks(5)
    tensors = [{name: torch.from_numpy(each) for name, each in mask.items()} for mask in masks]
    for given_masks in (masks, tensors):
        counts = secure_counts(given_masks)
        assert all(np.array_equal(counts[name], sum(mask[name] for mask in masks)) for name in ("w", "v"))
    with pytest.raises(InputError):
        secure_counts([{"w": np.array([2])}] * 3)


def _nested(mask):
    return {"w": mask["w"], "head": {"v": {"deep": mask["v"]}, "w": mask["w"]}}


FORMS = {
    "floats": lambda mask: {name: each.astype(np.float32) for name, each in mask.items()},
    "booleans": lambda mask: {name: each.astype(bool) for name, each in mask.items()},
    "parameters": lambda mask: {
        n: torch.nn.Parameter(torch.tensor(m, dtype=torch.float)) for n, m in mask.items()
    },
    "a graph": lambda mask: {
        n: torch.tensor(m, dtype=torch.double, requires_grad=True) * 1 for n, m in mask.items()
    },
    "bfloat16": lambda mask: {n: torch.tensor(m, dtype=torch.bfloat16) for n, m in mask.items()},
    "half": lambda mask: {n: torch.tensor(m, dtype=torch.half) for n, m in mask.items()},
    "bool tensors": lambda mask: {n: torch.tensor(m, dtype=torch.bool) for n, m in mask.items()},
    "nothing masked": lambda mask: {name: np.ma.array(each) for name, each in mask.items()},
    "numbers in lists": lambda mask: {name: each.tolist() for name, each in mask.items()},
    "some of each": lambda mask: {"w": torch.tensor(mask["w"]), "v": mask["v"].astype(float)},
}


@pytest.mark.parametrize("form", FORMS)
def test_what_holds_whole_numbers_is_added_up_exactly(form):
    masks = _masks(4)
    counts = secure_counts([FORMS[form](mask) for mask in masks])
    for name in ("w", "v"):
        assert counts[name].dtype in (np.int64, torch.int64)
        assert np.array_equal(counts[name], sum(mask[name] for mask in masks))


def test_lists_and_dictionaries_in_dictionaries_come_back_as_they_are():
    masks = _masks(4)
    w, v = (sum(mask[name] for mask in masks) for name in ("w", "v"))
    for container in (list, tuple):
        counts = secure_counts(
            container([mask["w"], torch.tensor(mask["v"])]) for mask in masks
        )  # a generator
        assert isinstance(counts, container)
        assert [each.tolist() for each in counts] == [w.tolist(), v.tolist()]
    many = [[mask["v"] * (place % 2) for place in range(12)] for mask in masks]
    assert [each.tolist() for each in secure_counts(many)] == [
        (v * (place % 2)).tolist() for place in range(12)
    ]
    counts = secure_counts([_nested(mask) for mask in masks])
    assert counts["head"]["v"]["deep"].tolist() == v.tolist()
    assert counts["head"]["w"].tolist() == counts["w"].tolist() == w.tolist()
    assert secure_counts([_nested(mask) for mask in masks], MaskRelease(0.25, 1.0, cohort=4))[
        "head"
    ].keys() == {"v", "w"}


def test_a_released_mask_has_the_form_of_the_broadcast():
    coins, release = CoinSecret.for_test(bytes(32)), MaskRelease(0.25, 0.1)
    flat = {"head": np.full(4, 0.5)}

    def released(mine, broadcast):
        return release_mask(mine, broadcast, release, coins, federation="test", round=1)

    bits = released({"head": np.array([0.9, 0.1, 0.5, 0.5])}, flat)["head"]
    theta = torch.full((4,), 0.5, requires_grad=True)
    mine = torch.tensor([0.9, 0.1, 0.5, 0.5], dtype=torch.float64, requires_grad=True)
    assert released({"head": mine}, {"head": theta})["head"].tolist() == bits.tolist()
    nested = released({"a": {"head": mine}}, {"a": {"head": theta}})
    assert nested["a"]["head"].shape == (4,)
    assert released([mine, mine], [theta, theta])[1].shape == (4,)
    with pytest.raises(InputError, match=r"layer 'head'.*masked entries"):
        released({"head": np.ma.array([0.5] * 4, mask=[1, 0, 0, 0])}, flat)


def test_layers_of_tensors_are_those_of_arrays():
    arrays = {"a": {"b": np.zeros((2, 3))}, "c": np.zeros(())}
    tensors = {"a": {"b": torch.zeros(2, 3, requires_grad=True)}, "c": torch.zeros(())}
    layers = Layers.of(arrays)
    assert layers.shapes == (("a.b", (2, 3)), ("c", ()))
    assert Layers.of(tensors).digest == layers.digest
    assert layers.flatten(tensors).tolist() == [0.0] * 7


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (np.array([0.5, 1.0]), "layer 'w': float64 values that are not all whole numbers.*FixedPoint"),
        (torch.tensor([0.5, 1.0], dtype=torch.bfloat16), "layer 'w': float32 values that are not all whole"),
        (torch.tensor([1.0, float("nan")]), "layer 'w': float32 values that are not all whole"),
        (np.ma.array([0, 1], mask=[1, 0]), r"layer 'w': a masked array with masked entries.*filled\(0\)"),
        (torch.zeros(2, device="meta"), "layer 'w': expected an array of numbers, not torch.Tensor.*meta"),
        (torch.eye(2)[0].to_sparse(), "layer 'w': expected an array of numbers, not torch.Tensor.*[Ss]parse"),
        (np.array([0, None]), "layer 'w': expected an array of numbers, not numpy.ndarray .of object"),
        (np.array(["0", "1"]), "layer 'w': expected an array of numbers.*U1"),
        (np.ones(2, complex), "layer 'w': expected an array of numbers.*complex128"),
        ([[1], [1, 0]], "layer 'w': expected an array of numbers, not list .its entries differ in shape"),
        ([np.ones(2), None], "layer 'w.1': expected an array of numbers, not NoneType"),
        ({"deep": ("0",)}, "layer 'w.deep.0': expected an array of numbers, not str"),
        (None, "layer 'w': expected an array of numbers, not NoneType"),
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_a_layer_that_is_none_is_named_with_its_client(odd, message, place):
    masks = [{"w": np.array([0, 1]), "v": np.array([1])} for _ in range(3)]
    masks[place] = {"w": odd, "v": np.array([1])}
    with pytest.raises(InputError, match=rf"masks\[{place}\]: {message}"):
        secure_counts(masks)


def test_layers_that_are_none_or_differ_are_named_with_their_client():
    good = [{"w": np.array([0, 1])}] * 3
    for odd, message in (
        (np.array([0, 1]), "masks\\[2\\]: expected a dictionary or a list .* not ndarray"),
        (None, "masks\\[2\\]: expected a dictionary or a list .* not NoneType"),
        ({"w": np.array([0, 1, 1])}, r"masks\[2\]: layer 'w': expected shape \(2,\), got \(3,\)"),
        ({"v": np.array([0, 1])}, r"masks\[2\]: layer 'w' is missing"),
        ([np.array([0, 1])], r"masks\[2\]: layer 'w' is missing"),
        ({"w": np.array([0, 1]), "x": np.ones(1)}, r"masks\[2\]: layer 'x' is unknown; expected 'w'"),
        ({}, r"masks\[2\]: layer 'w' is missing"),
        ({"w": np.array([])}, r"masks\[2\]: layer 'w': expected shape \(2,\), got \(0,\)"),
        ({"a": {"b": np.ones(1)}, "a.b": np.ones(1)}, r"masks\[2\]: two layers have the name 'a.b'"),
    ):
        with pytest.raises(InputError, match=message):
            secure_counts([*good[:2], odd])


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ({"a": np.ones(2)}, r"layer 'b' is missing"),
        ({"a": np.ones(2), "b": np.ones(1), "c": np.ones(1)}, r"layer 'c' is unknown; expected 'a', 'b'"),
        ({"a": np.ones(3), "b": np.ones(1)}, r"layer 'a': expected shape \(2,\), got \(3,\)"),
        ([np.ones(2), np.ones(1)], r"layer 'a' is missing"),
    ],
)
def test_the_first_client_is_named_where_its_layers_alone_are_others(first, message):
    others = [{"a": np.ones(2), "b": np.ones(1)}] * 3
    with pytest.raises(InputError, match=rf"^values\[0\]: {message}"):
        secure_mean([first, *others], codec=FixedPoint(4.0, 2**20))
    for call, name in ((secure_counts, "masks"), (secure_votes, "votes")):
        with pytest.raises(InputError, match=rf"^{name}\[0\]: {message}"):
            call([first, *others])


def test_no_client_is_taken_for_the_odd_one_where_none_is():
    one, other = {"a": np.ones(2)}, {"b": np.ones(1)}
    for clients in ([one, other, {"c": np.ones(1)}], [one, other, one], [one, other, other, one]):
        with pytest.raises(InputError, match=r"^masks\[1\]: layer 'a' is missing"):
            secure_counts(clients)
    with pytest.raises(InputError, match=r"^masks\[1\]: layer 'a' is missing"):  # of two nobody knows
        secure_counts([one, other], mode="semi_honest")
    with pytest.raises(InputError, match=r"^masks\[1\]: layer 'a' is missing"):
        secure_counts([one, other, None])


@pytest.mark.parametrize(("odd", "bound"), [(2, 1), (-1, 1), (2.0, 1), (6, 5), (-1, 5)])
def test_a_value_out_of_range_is_named_with_its_client_and_layer(odd, bound):
    good = {"v": np.array([1]), "w": np.array([0, 1])}
    with pytest.raises(InputError, match=rf"^masks\[1\]: layer 'w': values outside 0\.\.{bound}"):
        secure_counts([good, good | {"w": np.array([0, odd])}, good], bound=bound)


@pytest.mark.parametrize("nothing", [{}, [], {"w": np.array([])}, [np.zeros((0, 3))], {"a": {}}])
def test_layers_without_a_number_are_named_with_their_client(nothing):
    with pytest.raises(InputError, match=r"^masks\[0\]: expected .* at least one number in them, got none"):
        secure_counts([nothing] * 3)


def test_a_list_of_numbers_is_an_array_and_a_list_of_arrays_a_container():
    tree = {"a": [torch.tensor([0, 1]), [0, 1, 1], (np.array(1),)], "b": [[1, 0], [0, 1]], "c": 1, "d": []}
    counts = secure_counts([tree] * 3)
    assert [each.tolist() for each in counts["a"][:2]] == [[0, 3], [0, 3, 3]]
    assert isinstance(counts["a"][2], tuple)
    assert counts["a"][2][0] == counts["c"] == 3
    assert counts["b"].tolist() == [[3, 0], [0, 3]]
    assert counts["d"] == []
    assert [name for name, _ in Layers.of(tree).shapes] == ["a.0", "a.1", "a.2.0", "b", "c"]


@pytest.mark.parametrize(
    ("masks", "release", "settings", "message"),
    [
        ([], None, {}, "masks is empty"),
        (iter([]), None, {}, "masks is empty"),
        ({"w": np.array([1])}, None, {}, "a list with one entry for each client, not dict"),
        (7, None, {}, "a list with one entry for each client, not int"),
        (_masks(1), None, {}, "at least 3 clients for a secure sum, not 1"),
        (_masks(2), None, {}, "at least 3 clients for a secure sum, not 2"),
        (_masks(1), None, {"mode": "semi_honest"}, "at least 2 clients for a secure sum, not 1"),
        (_masks(3), MaskRelease(0.25, 1.0, cohort=4), {}, "masks has 3 entries, and release.cohort is 4"),
        (
            _masks(4),
            MaskRelease(0.25, 1.0, cohort=4),
            {"min_survivors": 3},
            "min_survivors=3 is below release.cohort, 4",
        ),
        (_masks(4), MaskRelease(0.25, 1.0, cohort=4), {"min_survivors": None}, "min_survivors=None is below"),
        (_masks(4), None, {"drop": {1.7: Stage.UPLOAD}}, "1.7 is none"),
        (_masks(4), None, {"dropout": float("nan")}, "dropout.*not nan"),
        (_masks(4), None, {"clients": 3}, "there are 4, clients is 3"),
    ],
)
def test_too_few_masks_and_odd_settings_are_named(masks, release, settings, message):
    with pytest.raises(SecureSumError, match=message) as caught:
        secure_counts(masks, release, **settings)
    assert isinstance(caught.value, InputError | PolicyError)


def test_the_cohort_that_is_accounted_for_is_the_least_number_of_survivors():
    masks = _masks(5)
    release = MaskRelease(flip=0.25, clip=1.0, cohort=4)
    dropping = {1: Stage.UPLOAD}
    with pytest.raises(ThresholdError):
        secure_counts(masks, drop=dropping)
    with pytest.raises(ThresholdError):
        secure_counts(masks, release, drop={1: Stage.UPLOAD, 2: Stage.UPLOAD})
    # ... and what is divided by is those who are in the sum
    left = [masks[i] for i in (0, 2, 3, 4)]
    found = secure_counts(masks, release, drop=dropping)["v"]
    assert np.allclose(found, 4 * debias(sum(mask["v"] for mask in left), 4, 0.25))


@pytest.mark.parametrize(
    "tree",
    [{1: np.array([1]), "1": np.array([0])}, {"a": {0: [1], "0": [0]}}, {"a": [np.array([1])], "a.0": [0]}],
)
def test_layers_whose_names_read_alike_are_refused(tree):
    for summed in (Layers.of, lambda tree: secure_counts([tree] * 3)):
        with pytest.raises(InputError, match="two layers have the name"):
            summed(tree)


def test_bounds_whose_names_read_alike_are_refused():
    with pytest.raises(InputError, match="two bounds have one name: 1, '1'"):
        Bounds({1: 1, "1": 5})
    assert Bounds({1: 1, "2": 5}).of(2) == 5


@pytest.mark.parametrize("layer", [np.array([3, 1000]), torch.tensor(-5), [[5]]])
def test_integers_that_a_mean_would_clip_are_refused(layer):
    codec = FixedPoint(4.0, 2**20)
    with pytest.raises(InputError, match=r"integers above the codec's clip, 4\.0"):
        secure_mean([{"w": np.array([0.5]), "batches": layer}] * 3, codec=codec)
    assert secure_mean([{"batches": np.array([4, -4])}] * 3, codec=codec).values["batches"].tolist() == [
        4,
        -4,
    ]
    assert secure_mean([[np.array([9.0])]] * 3, codec=codec).values[0] == 4.0


COHORT_8 = MaskRelease(0.25, 1.0, cohort=8)


@pytest.mark.parametrize(
    ("clients", "release", "settings", "message"),
    [
        (10, COHORT_8, {"colluders": 3}, "10 clients with 3 colluders guarantee a cohort of 7"),
        (
            10,
            COHORT_8,
            {"colluders": 2, "min_survivors": 9},
            "min_survivors=9 is below.*2 colluders.*least 10",
        ),
        (10, COHORT_8, {"min_cohort": 7}, "min_cohort=7 is below release.cohort, 8"),
        (10, COHORT_8, {"graph": "harary", "mode": "semi_honest"}, "release.sum_failure is 0.0"),
        (201, COHORT_8, {"mode": "semi_honest"}, r"sum_failure=2\*\*-40"),
        (201, COHORT_8, {}, r"sum_failure=2\*\*-40"),
        # a sparse graph counts on a tenth of colluders, and lets no larger cohort pass
        (300, MaskRelease(0.25, 1.0, cohort=290, sum_failure=2.0**-40), {"mode": "semi_honest"}, "not 290"),
    ],
)
def test_a_sum_that_does_not_guarantee_the_cohort_of_epsilon_is_refused(clients, release, settings, message):
    masks = [{"w": np.array([1, 0])}] * clients
    with pytest.raises((InputError, PolicyError), match=message):
        secure_counts(masks, release, simulate=True, **settings)


def test_colluders_are_beside_the_cohort_in_every_sum():
    masks = [{"w": np.array([1, 0])}] * 10
    assert len(secure_counts(masks, COHORT_8, colluders=2).survivors) == 10
    with pytest.raises(ThresholdError):
        secure_counts(masks, COHORT_8, colluders=2, drop={0: Stage.UPLOAD})
    some = [{"w": np.array([1])} | ({"v": np.array([1])} if client else {}) for client in range(10)]
    with pytest.raises(InputError, match="layer 'v' is of 9 survivors, 2 of them colluders"):
        secure_counts(some, COHORT_8, partial=True, colluders=2)
    many = MaskRelease(0.25, 1.0, cohort=200, sum_failure=2.0**-40)
    assert len(secure_counts(masks * 30, many, simulate=True, colluders=10).survivors) == 300


def test_a_released_mask_is_random_as_the_release_says_and_repeats_only_with_its_round():
    theta = {"w": np.full((100, 100), 0.5), "v": np.full(10_000, 0.9)}
    mine = {"w": np.full((100, 100), 0.99), "v": np.full(10_000, 0.9)}
    coins = CoinSecret.for_test(bytes(32))
    free = release_mask(mine, theta, MaskRelease(0.25, 1e6), coins, federation="test", round=1)
    # f + (1 - 2f)θ = 0.745 and 0.7; a standard error is 0.0045
    assert abs(free["w"].mean() - 0.745) < 0.02
    assert abs(free["v"].mean() - 0.70) < 0.02
    # a clip of 1 over 10,000 coordinates that all move leaves 0.01 of each
    clipped = release_mask(mine, theta, MaskRelease(0.25, 1.0), coins, federation="test", round=1)
    assert abs(clipped["w"].mean() - 0.51) < 0.02
    again = release_mask(mine, theta, MaskRelease(0.25, 1e6), coins, federation="test", round=1)
    assert np.array_equal(free["w"], again["w"])
    for other in (
        release_mask(mine, theta, MaskRelease(0.25, 1e6), coins, federation="test", round=2),
        release_mask(
            mine,
            theta,
            MaskRelease(0.25, 1e6),
            CoinSecret.for_test(bytes([1]) * 32),
            federation="test",
            round=1,
        ),
        release_mask(mine, theta, MaskRelease(0.25, 1e6), coins, federation="another", round=1),
        release_mask(
            mine,
            theta | {"v": np.full(10_000, 0.8)},
            MaskRelease(0.25, 1e6),
            coins,
            federation="test",
            round=1,
        ),
    ):
        assert 0.3 < (free["w"] != other["w"]).mean() < 0.5


def test_a_release_that_clips_scores_is_refused():
    theta = {"w": np.full(2, 0.5)}
    with pytest.raises(ValueError, match="must be 'probability'"):
        release_mask(
            theta,
            theta,
            MaskRelease(0.25, 1.0, space="score"),
            CoinSecret.for_test(bytes(32)),
            federation="test",
            round=1,
        )


def test_a_second_experiment_on_the_same_coins_does_not_show_what_changed():
    """With the coins of the first, only bits of weights that moved would differ: here 20 of 2,000."""
    coins, theta = CoinSecret.for_test(bytes(32)), {"w": np.full(2000, 0.5)}
    first, second = theta["w"].copy(), theta["w"].copy()
    first[:20], second[:20] = 0.95, 0.05
    bits = [
        release_mask(
            {"w": mine}, theta, MaskRelease(0.25, None, dim=2000), coins, federation="same", round=1
        )["w"]
        for mine in (first, second)
    ]
    assert 0.45 < (bits[0] != bits[1])[20:].mean() < 0.55


def test_plugging_in_does_not_import_torch():
    code = "import sys, prism_secure.plug_in; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_probability_that_overflowed_is_the_broadcasts_and_no_error() -> None:
    """An error would tell the server of the client's data."""
    broadcast, coins = {"head": np.array([0.2, 0.6, 0.9, 0.4])}, CoinSecret.for_test(bytes(32))
    release = MaskRelease(0.1, 0.5)
    bits = [
        release_mask({"head": np.array(mine)}, broadcast, release, coins, federation="tests", round=1)["head"]
        for mine in ([np.nan, np.inf, -np.inf, 0.7], [0.2, 0.6, 0.9, 0.7])
    ]
    assert bits[0].tolist() == bits[1].tolist()


def test_survivors_come_with_the_counts_and_divide_them():
    masks = _masks(6)
    left = (0, 2, 3, 5)
    settings = {"drop": {1: Stage.UPLOAD, 4: Stage.SHARE}, "min_survivors": 4, "threshold": 4}
    counts = secure_counts(masks, **settings)
    assert counts.survivors == left
    assert np.array_equal(counts["v"], sum(masks[i]["v"] for i in left))
    listed = secure_counts([[mask["v"]] for mask in masks], **settings)
    assert listed.survivors == left
    assert isinstance(listed, list)
    assert secure_counts(masks).survivors == tuple(range(6))
    assert secure_counts(masks, MaskRelease(0.25, 1.0, cohort=4), **settings).survivors == left


BOUNDS = Bounds({"mask": 1, "metrics.correct": 10_000, "metrics": 7, "loss": FixedPoint(10.0, 2**20)})


def _reply(client: int):
    mask = {"w": np.random.default_rng(client).integers(0, 2, (40, 5)), "v": torch.ones(3)}
    return {"mask": mask, "metrics": {"correct": 2500 * client, "batches": 7}, "loss": [0.25 * client, -20.0]}


def test_counters_and_real_numbers_beside_a_mask_are_summed_in_one_session():
    replies = [_reply(client) for client in range(5)]
    sums = secure_counts(replies, bound=BOUNDS, drop={4: Stage.UPLOAD}, min_survivors=4)
    assert np.array_equal(sums["mask"]["w"], sum(reply["mask"]["w"] for reply in replies[:4]))
    assert sums["mask"]["v"].tolist() == [4, 4, 4]
    assert (int(sums["metrics"]["correct"]), int(sums["metrics"]["batches"])) == (15_000, 28)
    assert np.allclose(sums["loss"], [1.5, -40.0], atol=1e-4)
    assert sums.survivors == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (
            {"mask": {"w": np.full((40, 5), 2), "v": torch.ones(3)}},
            r"masks\[1\]: layer 'mask.w': values outside 0..1",
        ),
        ({"metrics": {"correct": 10_001, "batches": 0}}, "layer 'metrics.correct': values outside 0..10000"),
        ({"metrics": {"correct": 0, "batches": 8}}, "layer 'metrics.batches': values outside 0..7"),
        ({"loss": [0.0, float("nan")]}, "layer 'loss': expected finite numbers"),
    ],
)
def test_a_value_above_the_bound_of_its_own_layer_is_named(odd, message):
    with pytest.raises(InputError, match=message):
        secure_counts([_reply(0), _reply(1) | odd, _reply(2)], bound=BOUNDS)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({}, "at least one"),
        (1, "at least one"),
        ({"w": "1"}, "bound of 'w' must be a whole number or FixedPoint, not str"),
        ({"w": True, "v": 1}, "bound of 'w' must be"),
        ({"w": 1}, "layer 'v' has no bound"),
        ({"w": 1, "v": 1, "x": 1}, "no layer has the name 'x'"),
        ({"w": 0, "v": 1}, "0"),
    ],
)
def test_bounds_that_do_not_fit_the_layers_are_refused(bounds, message):
    with pytest.raises(InputError, match=message):
        secure_counts([{"w": np.zeros(2, int), "v": np.zeros(1, int)}] * 3, bound=Bounds(bounds))


def test_all_bounds_are_in_the_spec_and_its_order_is_the_vectors():
    layers = Layers.of(_reply(0))
    spec = BOUNDS.spec(layers)
    assert spec.parts == ((2, 2**20), (203, 1), (1, 7), (1, 10_000))
    other = Bounds({"mask": 1, "metrics.correct": 10_000, "metrics": 7, "loss": FixedPoint(9.0, 2**20)})
    assert other.spec(layers).codec != spec.codec


def test_epsilon_of_a_release_is_claimed_for_bits_alone():
    for bound in (2, BOUNDS, Bounds({"w": 1, "v": 1})):
        with pytest.raises(InputError, match="epsilon covers nothing beside them"):
            secure_counts(_masks(4), MaskRelease(0.25, 1.0, cohort=4), bound=bound)


@pytest.mark.parametrize("kind", [np.int64, np.float32, torch.float32, torch.int8, torch.bfloat16])
def test_votes_are_exact_and_ties_are_what_was_asked_for(kind):
    signs = [[1, 1, -1, -1], [1, -1, -1, 1], [1, 1, -1, -1], [1, -1, -1, 1]]

    def votes():
        made = [
            np.array(row, kind) if not isinstance(kind, torch.dtype) else torch.tensor(row, dtype=kind)
            for row in signs
        ]
        return [{"a": {"b": each}} for each in made]

    found = secure_votes(votes())
    assert found["a"]["b"].tolist() == [1, 0, -1, 0]
    assert found.survivors == (0, 1, 2, 3)
    assert secure_votes(votes(), ties="plus")["a"]["b"].tolist() == [1, 1, -1, 1]
    three = secure_votes(votes(), drop={0: Stage.UPLOAD}, min_survivors=3)
    assert three["a"]["b"].tolist() == [1, -1, -1, 1]


@pytest.mark.parametrize("odd", [0, 2, -2, 0.5, float("nan")])
def test_what_is_no_vote_is_named_with_its_client_and_layer(odd):
    good = [np.array([1.0, -1.0])]
    with pytest.raises(InputError, match=r"^votes\[1\]: layer 0: "):
        secure_votes([good, [np.array([1.0, odd])], good])
    with pytest.raises(InputError, match='"zero" or "plus", got \'minus\''):
        secure_votes([good] * 3, ties="minus")


def test_a_weighted_mean_is_that_of_the_survivors_in_their_containers():
    draws = np.random.default_rng(0)
    models = [[draws.normal(size=(3, 2)), (torch.tensor(draws.normal(size=4)),)] for _ in range(5)]
    weights = [700, 20, 3000, 1, 0]
    mean = secure_mean(
        models,
        weights,
        codec=FixedPoint(8.0, 2**24),
        max_weight=10_000,
        drop={2: Stage.UPLOAD},
        min_survivors=4,
    )
    left = [0, 1, 3, 4]
    expected = np.average([models[i][0] for i in left], axis=0, weights=[weights[i] for i in left])
    assert np.allclose(mean.values[0], expected, atol=16 / 2**24)
    assert isinstance(mean.values[1], tuple)
    assert (mean.weight, mean.survivors) == (721, (0, 1, 3, 4))
    weights = [0.7, 0.02, 1.0, 0.001, 0.0]
    real = secure_mean(models, weights, codec=FixedPoint(8.0, 2**24), max_weight=FixedPoint(1.0, 2**16))
    expected = np.average([model[0] for model in models], axis=0, weights=weights)
    assert np.allclose(real.values[0], expected, atol=1e-3)
    uniform = secure_mean(models, codec=FixedPoint(8.0, 2**24))
    assert uniform.weight == 5
    assert np.allclose(uniform.values[0], np.mean([m[0] for m in models], axis=0), atol=16 / 2**24)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 2], "weights has 2 entries, values has 3"),
        ([1, 11, 1], "client 1: a weight must be a whole number in 0..10"),
        ([1, 1, 0.5], "client 2: a weight must be a whole number"),
        ([0, 0, 0], "add up to 0"),
    ],
)
def test_weights_that_are_none_are_named(weights, message):
    with pytest.raises(InputError, match=message):
        secure_mean([{"w": np.zeros(2)}] * 3, weights, codec=FixedPoint(1.0, 8), max_weight=10)


def test_a_model_that_diverged_is_named_with_its_layer():
    good, bad = {"w": np.zeros(2)}, {"w": np.array([0.0, np.inf])}
    with pytest.raises(InputError, match=r"values\[2\]: layer 'w': expected finite"):
        secure_mean([good, good, bad], codec=FixedPoint(1.0, 8))


def _some(client: int):
    """All layers but one, which goes round."""
    whole = {"a": np.full(3, client % 2), "b": {"c": torch.ones(2)}, "d": np.array(1)}
    del whole[["a", "b", "d"][client % 3]]
    return whole


def test_layers_that_some_clients_have_not_sent_are_counted_by_those_who_have():
    counts = secure_counts([_some(client) for client in range(6)], partial=True)
    assert counts.senders == {"a": (1, 2, 4, 5), "b.c": (0, 2, 3, 5), "d": (0, 1, 3, 4)}
    assert (counts["a"].tolist(), counts["b.c"].tolist(), int(counts["d"])) == ([2, 2, 2], [4, 4], 4)
    settings = {"drop": {1: Stage.UPLOAD, 5: Stage.UNMASK}, "min_survivors": 4, "threshold": 4}
    fewer = secure_counts([_some(client) for client in range(6)], partial=True, **settings)
    assert fewer.senders["a"] == (2, 4, 5)
    assert fewer["a"].tolist() == [1, 1, 1]
    assert secure_counts([_some(0)] * 3).senders == {"b.c": (0, 1, 2), "d": (0, 1, 2)}


def test_flips_are_taken_out_of_the_senders_of_a_layer_alone_and_each_layer_has_the_cohort():
    masks = [_some(client) for client in range(6)]
    found = secure_counts(masks, MaskRelease(0.25, 1.0, cohort=4), partial=True)
    assert np.allclose(found["a"], 4 * debias(np.full(3, 2), 4, 0.25))
    with pytest.raises(InputError, match=r"layer 'a' is of 4 survivors, and release.cohort is 5"):
        secure_counts(masks, MaskRelease(0.25, 1.0, cohort=5), partial=True)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ([np.ones(1)], r"masks\[1\]: expected a dictionary of layers, not list"),
        ({"a": np.zeros(4)}, r"masks\[1\]: layer 'a': expected shape \(3,\), got \(4,\)"),
        ({"a": None}, r"masks\[1\]: layer 'a': expected an array of numbers"),
    ],
)
def test_partial_layers_that_are_none_are_named(odd, message):
    with pytest.raises(InputError, match=message):
        secure_counts([{"a": np.zeros(3)}, odd, {"b": np.zeros(1)}], partial=True)


def test_real_numbers_on_one_grid_are_summed_in_all_layers():
    masks = [[np.array([0.25, -3.0]), torch.tensor(0.5)] for _ in range(4)]
    sums = secure_counts(masks, bound=FixedPoint(1.0, 200))
    assert np.allclose(sums[0], [1.0, -4.0])
    assert np.isclose(sums[1], 2.0)
    assert sums.survivors == (0, 1, 2, 3)


def test_a_bound_without_a_name_is_that_of_all_other_layers():
    masks = [{"w": np.ones(3, int), "v": {"deep": np.zeros(2, int)}, "correct": 90}] * 3
    sums = secure_counts(masks, bound=Bounds({"": 1, "correct": 100}))
    assert (sums["w"].tolist(), int(sums["correct"])) == ([3, 3, 3], 270)
    with pytest.raises(InputError, match=r"layer 'correct': values outside 0\.\.1"):
        secure_counts(masks, bound=Bounds({"": 1, "w": 7}))
