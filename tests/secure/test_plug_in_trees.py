"""What comes back from the plug-in has the structure that went in, and its kind of layer."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import subprocess
import sys
import tracemalloc
from collections import OrderedDict, namedtuple
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from prism_crypto import FixedPoint, InputError, Stage
from prism_privacy import CoinSecret, MaskRelease, PrivacyError
from prism_secure.plug_in import (
    Bounds,
    Counts,
    Layers,
    release_mask,
    secure_counts,
    secure_mean,
    secure_votes,
)
from prism_secure.plug_in.layers import alike

Block = namedtuple("Block", "weight bias")
CODEC = FixedPoint(4.0, 2**20)
REALS = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2]


def _tree(make):
    return OrderedDict(
        net=[Block(make([[1, 0], [1, 1]]), make([0, 1])), {"head": (make([1]), make(1))}],
        steps=make([1, 1, 0]),
    )


def _same_form(found, tree):
    """The same containers, and in them tensors on its device where it has tensors, arrays elsewhere."""
    if isinstance(tree, torch.Tensor):
        assert type(found) is torch.Tensor
        assert (found.device, found.shape, found.requires_grad) == (tree.device, tree.shape, False)
    elif isinstance(tree, np.ndarray):
        assert type(found) is np.ndarray
        assert found.shape == tree.shape
    else:
        assert isinstance(found, type(tree))
        assert list(found) == list(tree) if isinstance(tree, dict) else len(found) == len(tree)
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            _same_form(found[key], tree[key])


def _arrays(dtype):
    return lambda values: np.array(values, dtype)


def _tensors(dtype):
    def tensor(values):
        made = torch.tensor(values, dtype=torch.float32).to(dtype)
        return made.requires_grad_() if dtype in (torch.float32, torch.bfloat16) else made

    return tensor


KINDS = [_arrays(np.uint8), _arrays(bool), _arrays(np.float32)]
KINDS += [_tensors(dtype) for dtype in (torch.uint8, torch.bool, torch.int64, *REALS)]
OUTERMOST = {
    "dictionary": lambda tree: tree,
    "list": lambda tree: [*tree.values()],
    "tuple": lambda tree: tuple(tree.values()),
    "named tuple": lambda tree: Block(*tree.values()),
}


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("form", OUTERMOST)
def test_sums_have_the_form_of_what_is_added_up(form, make):
    tree = OUTERMOST[form](_tree(make))
    counts = secure_counts([tree] * 3)
    _same_form(counts, tree)
    assert isinstance(counts, Counts)
    net = counts["net"] if form == "dictionary" else counts[0]
    assert net[0].weight.dtype in (np.int64, torch.int64)
    assert net[0].weight.tolist() == [[3, 0], [3, 3]]
    assert int(net[1]["head"][1]) == 3
    assert counts.survivors == (0, 1, 2)
    assert set(counts.senders.values()) == {(0, 1, 2)}


@pytest.mark.parametrize("form", OUTERMOST)
def test_estimates_votes_and_real_sums_have_the_form_of_what_is_added_up(form):
    tree = OUTERMOST[form](_tree(_tensors(torch.float32)))
    for sums, dtype in (
        (secure_counts([tree] * 4, MaskRelease(0.25, 1.0, cohort=4)), torch.float64),
        (secure_counts([tree] * 4, bound=CODEC), torch.float64),
        (secure_counts([tree] * 4, bound=Bounds({"": 1})), torch.int64),
    ):
        _same_form(sums, tree)
        assert {leaf.dtype for leaf in _leaves(sums)} == {dtype}
    signs = OUTERMOST[form](_tree(lambda values: 2 * torch.tensor(values) - 1))
    votes = secure_votes([signs] * 4, drop={1: Stage.UPLOAD}, min_survivors=3)
    _same_form(votes, signs)
    assert all(torch.equal(*pair) for pair in zip(_leaves(votes), _leaves(signs), strict=True))
    assert votes.survivors == (0, 2, 3)
    assert set(votes.senders.values()) == {(0, 2, 3)}


def _leaves(tree):
    if isinstance(tree, dict | list | tuple):
        return [
            leaf for part in (tree.values() if isinstance(tree, dict) else tree) for leaf in _leaves(part)
        ]
    return [tree]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, *REALS])
def test_a_mean_is_of_each_layers_own_float_type(dtype):
    make = _tensors(dtype) if isinstance(dtype, torch.dtype) else _arrays(dtype)
    tree = {"net": (make([0.5, -1.5]),), "steps": np.array(3), "seen": torch.tensor([2]), "loss": 0.25}
    mean = secure_mean([tree] * 3, codec=CODEC).values
    _same_form(mean["net"], tree["net"])
    assert mean["net"][0].dtype == dtype
    assert mean["net"][0].tolist() == [0.5, -1.5]
    assert (mean["steps"].dtype, mean["seen"].dtype, mean["loss"].dtype) == (
        np.float64,
        torch.float64,
        np.float64,
    )
    assert (float(mean["steps"]), mean["seen"].tolist(), float(mean["loss"])) == (3.0, [2.0], 0.25)


def test_a_model_takes_the_mean_of_its_clients():
    models = [torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Linear(4, 3)) for _ in range(4)]
    states, weights = [model.state_dict() for model in models], [1, 2, 3, 4]
    expected = {
        name: sum(w * state[name] for w, state in zip(weights, states, strict=True)) / 10
        for name in states[0]
    }
    mean = secure_mean(states, weights, codec=CODEC, max_weight=10).values
    assert type(mean["1.bias"]) is torch.Tensor
    models[0].load_state_dict(mean)
    for name, layer in models[0].state_dict().items():
        assert torch.allclose(layer, expected[name], rtol=0, atol=CODEC.step)


def test_partial_layers_are_tensors_where_the_first_who_sent_them_has_tensors():
    """Zeros stand in for the layers of the others."""
    clients = [{"a": np.ones(2)}, {"a": np.ones(2), "b": torch.ones(3)}, {"b": torch.ones(3)}]
    counts = secure_counts(clients, partial=True)
    assert (type(counts["a"]), type(counts["b"])) == (np.ndarray, torch.Tensor)
    assert counts["b"].tolist() == [2, 2, 2]
    assert counts.senders == {"a": (0, 1), "b": (1, 2)}


@pytest.mark.parametrize("form", OUTERMOST)
def test_counts_go_to_another_process_with_their_survivors(form):
    counts = secure_counts([OUTERMOST[form](_tree(_arrays(int)))] * 3)
    for other in (pickle.loads(pickle.dumps(counts)), copy.copy(counts), copy.deepcopy(counts)):
        assert type(other) is type(counts)
        assert repr(other) == repr(counts)
        assert (other.survivors, other.senders) == (counts.survivors, counts.senders)


def test_a_released_mask_has_the_layers_of_the_broadcast():
    coins, release = CoinSecret.for_test(bytes(32)), MaskRelease(0.25, 0.1)
    how = {"federation": "test", "round": 1}
    arrays, tensors = _tree(_arrays(np.float32)), _tree(_tensors(torch.float32))
    bits = release_mask(arrays, arrays, release, coins, **how)
    _same_form(bits, arrays)
    for mine in (arrays, tensors):
        same = release_mask(mine, tensors, release, coins, **how)
        _same_form(same, tensors)
        assert {leaf.dtype for leaf in _leaves(same)} == {torch.uint8}
        assert [leaf.tolist() for leaf in _leaves(same)] == [leaf.tolist() for leaf in _leaves(bits)]


def test_a_vector_is_split_as_a_tree_and_by_no_other():
    tree = [np.zeros((2, 1), np.float32), (torch.zeros(1, dtype=torch.bfloat16),)]
    layers = Layers.of(tree)
    for vector, dtypes in (
        (np.array([0.1, 0.2, 0.3]), [np.float32, torch.bfloat16]),
        (np.array([1, 2, 3]), [np.int64, torch.int64]),
    ):
        made = layers.split(vector, tree)
        _same_form(made, tree)
        assert [leaf.dtype for leaf in _leaves(made)] == dtypes
    with pytest.raises(InputError, match=r"layer '1.0' is missing"):
        layers.split(np.zeros(3), tree[:1])


def test_what_lies_on_a_device_comes_back_to_it():
    code = """
import json, second_device, torch
from prism_crypto import FixedPoint
from prism_privacy import CoinSecret, MaskRelease
from prism_secure.plug_in import release_mask, secure_counts, secure_mean
first, others = {"w": torch.ones(3).to("card")}, [{"w": torch.ones(3)}] * 2
coins = CoinSecret.for_test(bytes(32))
found = [
    secure_counts([first, *others])["w"],
    secure_mean([first, *others], codec=FixedPoint(1.0, 8)).values["w"],
    release_mask(first, first, MaskRelease(0.0, 1.0), coins, federation="card", round=1)["w"],
]
print(json.dumps([[x.device.type, str(x.dtype), x.cpu().tolist()] for x in found]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [
        ["card", "torch.int64", [3, 3, 3]],
        ["card", "torch.float32", [1.0, 1.0, 1.0]],
        ["card", "torch.uint8", [1, 1, 1]],
    ]


def test_apples_gpus_are_given_nothing_wider_than_float32(monkeypatch):
    """They have no float64; here is none to try it on."""
    moved = SimpleNamespace(from_numpy=lambda array: SimpleNamespace(to=lambda device: (array.dtype, device)))
    there = SimpleNamespace(detach=None, device=torch.device("mps"))
    monkeypatch.setitem(sys.modules, "torch", moved)
    assert alike(np.zeros(1), there) == (np.float32, there.device)
    assert alike(np.zeros(1, int), there) == (np.int64, there.device)


def _spread(values: np.ndarray) -> dict:
    """70,001 numbers in layers of several types, some smaller than a piece and one larger."""
    a, b, c, d = np.split(values, [7, 50_000, 60_000])
    layers = [a.astype(np.float32), b.reshape(-1, 1)]
    return {"w": layers, "c": c.astype(np.float16), "empty": np.zeros((0, 2)), "d": torch.from_numpy(d)}


@pytest.mark.parametrize(("clip", "seen"), [(1.0, "14946c1d3fcda63e"), (None, "353cc729e0873522")])
def test_a_released_mask_stays_the_same_to_the_last_bit(clip, seen):
    """A client that was killed makes its upload again, perhaps with a newer version."""
    mine = (np.arange(70_001) * 2654435761 % 2**32) / 2**32
    theta = 0.01 + 0.98 * ((np.arange(70_001) * 40503 % 2**16) / 2**16)
    mine[[3, 40_000, 65_000]] = [np.nan, np.inf, -np.inf]
    release = MaskRelease(0.2, clip, dim=None if clip else 70_001)
    coins = CoinSecret.for_test(bytes(32))
    bits = release_mask(_spread(mine), _spread(theta), release, coins, federation="pin", round=3)
    flat = Layers.of(bits).flatten(bits)
    assert hashlib.sha256(flat.tobytes()).hexdigest()[:16] == seen


@pytest.mark.parametrize("make", [lambda values: values, torch.from_numpy])
@pytest.mark.parametrize("clip", [1.0, None])
def test_a_released_mask_needs_six_bytes_a_coordinate_beside_its_input(make, clip):
    size, rng = 2_000_000, np.random.default_rng(0)
    mine, theta = ([make(rng.random((500, 2000), dtype=np.float32)) for _ in range(2)] for _ in range(2))
    release, coins = MaskRelease(0.25, clip, dim=None if clip else size), CoinSecret.for_test(bytes(32))
    tracemalloc.start()
    release_mask(mine, theta, release, coins, federation="test", round=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 6 * size


@pytest.mark.parametrize("which", [0, 1])
def test_a_number_that_is_no_probability_is_refused_in_whichever_layer(which):
    good = [np.full(40_000, 0.5), torch.full((40_000,), 0.5)]
    bad = [good[0], torch.cat([good[1][1:], torch.tensor([1.5])])]
    given = [(bad, good), (good, bad)][which]
    with pytest.raises(PrivacyError, match=r"(values|theta) must lie in .* index 79999 \(1.5\)"):
        release_mask(
            *given, MaskRelease(0.25, 1.0), CoinSecret.for_test(bytes(32)), federation="test", round=1
        )


@pytest.mark.parametrize("nothing", [{}, [], {"a": []}])
def test_no_layer_at_all_is_no_mask(nothing):
    with pytest.raises(InputError, match="expected one array a layer, got none"):
        release_mask(
            nothing, nothing, MaskRelease(0.25, 1.0), CoinSecret.for_test(bytes(32)), federation="t", round=1
        )
