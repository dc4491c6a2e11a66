"""Dictionaries of layers through the secure sum and the mechanism: exact, in one order, accounted for."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prism_crypto import InputError, PolicyError, SecureSumError, Stage, ThresholdError
from prism_privacy import CoinSecret, MaskRelease, debias
from prism_secure.plug_in import Layers, release_mask, secure_counts

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
        assert counts[name].dtype == np.int64
        assert np.array_equal(counts[name], sum(mask[name] for mask in masks))


def test_lists_and_dictionaries_in_dictionaries_come_back_as_they_are():
    masks = _masks(4)
    w, v = (sum(mask[name] for mask in masks) for name in ("w", "v"))
    for container in (list, tuple):
        counts = secure_counts(
            container([mask["w"], torch.tensor(mask["v"])]) for mask in masks
        )  # a generator
        assert isinstance(counts, list)
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
        ([[1], [1, 0]], "layer 'w': expected an array of numbers, not list"),
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


@pytest.mark.parametrize(("odd", "bound"), [(2, 1), (-1, 1), (2.0, 1), (6, 5), (-1, 5)])
def test_a_value_out_of_range_is_named_with_its_client_and_layer(odd, bound):
    good = {"v": np.array([1]), "w": np.array([0, 1])}
    with pytest.raises(InputError, match=rf"^masks\[1\]: layer 'w': values outside 0\.\.{bound}"):
        secure_counts([good, good | {"w": np.array([0, odd])}, good], bound=bound)


@pytest.mark.parametrize("nothing", [{}, [], {"w": np.array([])}, [np.zeros((0, 3))], {"a": {}}])
def test_layers_without_a_number_are_named_with_their_client(nothing):
    with pytest.raises(InputError, match=r"^masks\[0\]: expected .* at least one number in them, got none"):
        secure_counts([nothing] * 3)


def test_a_list_of_layers_in_a_dictionary_is_refused_in_our_words():
    ragged = {"a": [torch.tensor([0, 1]), np.array([0, 1, 1])]}
    with pytest.raises(InputError, match=r"masks\[0\]: layer 'a': .* entries differ in shape; layers in a"):
        secure_counts([ragged] * 3)


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
