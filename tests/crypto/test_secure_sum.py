"""All parties together: exact sums whoever drops, at every stage and pair of stages, or a clean abort."""

from __future__ import annotations

import itertools
import math
import os
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rehearsal import Rehearsal, needs_kem

import prism_crypto
from prism_crypto import (
    Identity,
    InputError,
    PolicyError,
    RandomnessError,
    SecureSumResult,
    SessionContext,
    Stage,
    ThresholdError,
    secure_sum,
)

MODES = ["active", "semi_honest"]
LATE = (Stage.CONFIRM, Stage.UNMASK)


def vectors(n: int, dimension: int = 37, bound: int = 1, seed: int = 0):
    return list(np.random.default_rng(seed).integers(0, bound, (n, dimension), endpoint=True))


def check(inputs, result: SecureSumResult, drop=()):
    survivors = tuple(i for i in range(len(inputs)) if i not in drop or drop[i] in LATE)
    assert result.survivors == survivors
    assert result.counts.dtype == np.int64
    assert result.counts.tolist() == np.sum([inputs[i] for i in survivors], axis=0).tolist()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stage", list(Stage))
def test_a_drop_at_any_stage_leaves_the_exact_sum_of_the_survivors(mode, stage):
    inputs = vectors(7)
    drop = {2: stage}
    check(inputs, secure_sum(inputs, drop=drop, mode=mode), drop)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pair", list(itertools.product(Stage, repeat=2)), ids=lambda p: f"{p[0]}-{p[1]}")
def test_drops_at_any_pair_of_stages_leave_the_exact_sum(mode, pair):
    inputs = vectors(8)
    drop = {0: pair[0], 5: pair[1]}
    check(inputs, secure_sum(inputs, drop=drop, mode=mode), drop)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stage", list(Stage))
def test_fewer_than_the_threshold_is_a_clean_abort(mode, stage):
    inputs = vectors(6)
    threshold = 5 if mode == "active" else 4
    enough = dict.fromkeys(range(6 - threshold), stage)
    check(inputs, secure_sum(inputs, drop=enough, mode=mode), enough)
    with pytest.raises(ThresholdError) as caught:
        secure_sum(inputs, drop=dict.fromkeys(range(7 - threshold), stage), mode=mode)
    expected = Stage.UNMASK if mode == "semi_honest" and stage is Stage.CONFIRM else stage
    assert caught.value.stage is expected


@pytest.mark.parametrize("mode", MODES)
def test_fewer_survivors_than_the_minimum_is_a_clean_abort(mode):
    inputs = vectors(9)
    drop = {0: Stage.UPLOAD, 1: Stage.SHARE}
    check(inputs, secure_sum(inputs, drop=drop, mode=mode, min_survivors=7), drop)
    with pytest.raises(ThresholdError, match="min_survivors 8"):
        secure_sum(inputs, drop=drop, mode=mode, min_survivors=8)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(3, 9),
    dimension=st.integers(1, 90),
    bound=st.integers(1, 2**40),
    mode=st.sampled_from(MODES),
    data=st.data(),
)
def test_the_sum_is_exact_or_there_is_none(n, dimension, bound, mode, data):
    inputs = vectors(n, dimension, bound, seed=n)
    drop = data.draw(st.dictionaries(st.integers(0, n - 1), st.sampled_from(list(Stage)), max_size=n))
    try:
        result = secure_sum(inputs, bound=bound, drop=drop, mode=mode)
    except ThresholdError:
        return
    check(inputs, result, drop)


@pytest.mark.parametrize("stage", list(Stage))
def test_a_sparse_graph_gives_the_exact_sum_when_clients_drop(stage):
    inputs = vectors(60)
    drop = dict.fromkeys((3, 17, 40), stage)
    result = secure_sum(inputs, drop=drop, mode="semi_honest", graph="harary", dropout=0.1, colluders=2)
    check(inputs, result, drop)


def test_a_sparse_graph_bears_drops_at_all_stages_at_once():
    inputs = vectors(80)
    drop = {4: Stage.ADVERTISE, 11: Stage.SHARE, 30: Stage.UPLOAD, 31: Stage.UPLOAD, 70: Stage.UNMASK}
    result = secure_sum(inputs, drop=drop, mode="semi_honest", graph="harary", dropout=0.1, colluders=2)
    check(inputs, result, drop)


def test_a_sparse_graph_that_loses_more_than_it_was_made_for_aborts():
    drop = dict.fromkeys(range(7), Stage.UPLOAD)
    with pytest.raises(ThresholdError, match="min_survivors 54"):
        secure_sum(vectors(60), drop=drop, mode="semi_honest", graph="harary", dropout=0.1, colluders=2)


@pytest.mark.parametrize(
    ("bound", "dtype"), [(1, bool), (200, np.uint8), (2**62 // 5, np.int64), (2**61, np.uint64)]
)
def test_any_bound_and_dtype(bound, dtype):
    inputs = [vector.astype(dtype) for vector in vectors(3, bound=bound)]
    result = secure_sum(inputs, bound=bound)
    assert result.counts.tolist() == np.sum([v.astype(np.int64) for v in inputs], axis=0).tolist()


def test_inputs_may_be_an_array_callables_a_generator_or_lists_of_both():
    inputs = vectors(4)
    forms = [
        np.array(inputs),
        tuple(inputs),
        [lambda i=i: inputs[i] for i in range(4)],
        [inputs[0], lambda: inputs[1], inputs[2], lambda: inputs[3]],
    ]
    for form in forms:
        check(inputs, secure_sum(form))
    check(inputs, secure_sum((v for v in inputs), clients=4))
    check(inputs, secure_sum(dict(enumerate(inputs)).values()))


def test_vectors_are_asked_for_in_turn_and_only_of_those_who_upload():
    asked = []
    inputs = vectors(5)

    def make(i):
        def vector():
            asked.append(i)
            return inputs[i]

        return vector

    secure_sum([make(i) for i in range(5)], drop={3: Stage.SHARE})
    assert asked == [0, 1, 2, 4]
    asked.clear()
    secure_sum([make(i) for i in range(5)], drop={0: Stage.UPLOAD})
    assert asked == [1, 2, 3, 4]


def test_memory_does_not_grow_with_the_number_of_vectors():
    dimension = 400_000

    def peak(n):
        tracemalloc.start()
        try:
            secure_sum([lambda: np.ones(dimension, dtype=np.uint8)] * n, mode="semi_honest")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(15)  # what is made once
    # Twelve more clients of 400 kB: an implementation that kept their uploads would need 12 · 200 kB more.
    assert peak(15) < peak(3) + 1_000_000


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ([], {}, "a vector for each client"),
        (vectors(3), {"clients": 4}, "a vector for each client"),
        ((v for v in vectors(3)), {}, "a vector for each client"),
        ((v for v in vectors(3)), {"clients": 4}, "ended after 3"),
        ([[1, 0], [0, 1], [1, 1]], {}, "NumPy array"),
        ([np.ones((2, 2), dtype=int)] * 3, {}, "NumPy array"),
        ([np.ones(0, dtype=int)] * 3, {}, "NumPy array"),
        ([np.ones(2, dtype=int), np.ones(3, dtype=int), np.ones(2, dtype=int)], {}, "shape"),
        ([np.ones(2, dtype=int), np.ones(2, dtype=int), np.full(2, 2)], {}, "client 2.*outside 0..1"),
        ([np.full(2, 2)] * 3, {}, "outside 0..1"),
        (vectors(3), {"drop": {3: Stage.UPLOAD}}, "drop names client 3"),
        (vectors(3), {"drop": {1: "lunch"}}, "drop maps"),
        (vectors(3), {"drop": {"x": Stage.UPLOAD}}, "drop maps"),
        (vectors(3), {"bound": 2**62}, "2\\^63"),
        (vectors(3), {"identities": [Identity.generate(1)] * 3}, "identities"),
    ],
)
def test_arguments_out_of_range_are_named(inputs, options, message):
    with pytest.raises(InputError, match=message):
        secure_sum(inputs, **options)


def test_floats_that_are_whole_numbers_are_taken_and_no_others():
    inputs = vectors(4, bound=9)
    for dtype in (np.float16, np.float32, np.float64, ">f4"):
        check(inputs, secure_sum([vector.astype(dtype) for vector in inputs], bound=9))
    check(inputs, secure_sum(np.array(inputs, dtype=float), bound=9))
    check(inputs, secure_sum([np.ma.array(vector) for vector in inputs], bound=9))  # nothing is masked
    zeros = [np.full(3, -0.0)] * 3
    assert secure_sum(zeros).counts.tolist() == [0, 0, 0]
    for wrong in (0.5, 1 - 1e-7, np.nan, np.inf, -np.inf, 1e-320, 2.0**53):
        with pytest.raises(InputError, match=r"vector of client 1: float64 values.*FixedPoint") as caught:
            secure_sum([np.ones(2), np.array([1.0, wrong]), np.ones(2)], bound=2**55)
        assert str(wrong) not in str(caught.value)
    with pytest.raises(InputError, match=r"client 1.*outside 0\.\.1"):
        secure_sum([np.ones(2), np.array([0.0, -1.0]), np.ones(2)])


class Tensor:
    """As one of torch, which is not there: it has no buffer that NumPy may read."""

    def detach(self):
        raise AssertionError("prism_crypto knows no tensors")

    def __array__(self, *arguments, **options):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad")


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ([0, 1], "not list: numpy.asarray.*secure_counts"),
        ([np.ones(2, int), np.ones(2, int)], "not list.*secure_counts"),
        ({"a": np.ones(2, int)}, "not dict.*secure_counts"),
        (1, "not int"),
        (Tensor(), r"Tensor: tensor\.detach\(\)\.cpu\(\)\.numpy\(\)"),
        (np.array([1, None]), "not object"),
        (np.array(["0", "1"]), "not <U1"),
        (np.ones(2, complex), "not complex128"),
        (np.ones((1, 2), int), r"not of shape \(1, 2\)"),
        (np.array(1), r"not of shape \(\)"),
        (np.ma.array([1, 1], mask=[0, 1]), r"masked entries.*filled\(0\)"),
        (np.ma.array([1.0, 0.0], mask=[0, 1]), "masked entries"),
        (np.ma.masked_all(2, bool), "masked entries"),
        (lambda: lambda: np.ones(2, int), "not function"),
    ],
)
@pytest.mark.parametrize("place", [0, 2])
def test_vector_that_is_none_is_named_with_its_client_and_what_to_do(odd, message, place):
    inputs = [np.ones(2, dtype=int)] * 3
    inputs[place] = odd
    with pytest.raises(InputError, match=rf"(?s)client {place}.*{message}"):
        secure_sum(inputs)


@pytest.mark.parametrize("drop", [{}, {4: Stage.ADVERTISE}, {2: Stage.UPLOAD}, {4: Stage.UNMASK}])
def test_vectors_left_over_are_an_error(drop):
    with pytest.raises(InputError, match="more than 5 vectors"):
        secure_sum((v for v in vectors(6)), clients=5, drop=drop)
    with pytest.raises(InputError, match="more than 5 vectors"):
        secure_sum(itertools.repeat(np.ones(3, int)), clients=5, drop=drop)
    inputs = vectors(5)
    check(inputs, secure_sum(iter(inputs), clients=5, drop=drop), drop)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop": {1.7: Stage.UPLOAD}}, "1.7 is none"),
        ({"drop": {1.0: Stage.UPLOAD}}, "1.0 is none"),
        ({"drop": {True: Stage.UPLOAD}}, "True is none"),
        ({"drop": {"1": Stage.UPLOAD}}, "'1' is none"),
        ({"drop": {None: Stage.UPLOAD}}, "None is none"),
        ({"drop": {1: 3}}, "3 is none"),
        ({"drop": {1: None}}, "advertise, share.*None is none"),
        ({"drop": [1]}, r"drop maps.*\[1\]"),
        ({"dropout": math.nan}, "dropout.*not nan"),
        ({"dropout": 1.0}, "dropout.*not 1.0"),
        ({"dropout": -0.1}, "dropout.*not -0.1"),
        ({"dropout": "0.1"}, "dropout.*not 0.1"),
        ({"dropout": math.nan, "mode": "semi_honest", "graph": "harary"}, "dropout.*not nan"),
        ({"colluders": math.nan}, "colluders must be int, not float"),
        ({"threshold": 3.5}, "threshold must be int, not float"),
        ({"min_survivors": 3.0}, "min_survivors must be int, not float"),
        ({"clients": 5.0}, "clients must be int, not float"),
        ({"clients": True}, "clients must be int, not bool"),
        ({"bound": 1.0}, "bound must be int, not float"),
    ],
)
def test_numbers_that_are_none_are_named(options, message):
    with pytest.raises(InputError, match=message):
        secure_sum(vectors(5), **options)


@pytest.mark.parametrize("inputs", [None, 5, dict(enumerate(vectors(3))), np.array(1)])
def test_inputs_that_are_no_list_are_named(inputs):
    with pytest.raises(InputError, match=f"in a list in their order, not in {type(inputs).__name__}"):
        secure_sum(inputs)


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_vectors_are_named(count):
    with pytest.raises((InputError, PolicyError), match=f"not {count}"):
        secure_sum(vectors(count))


def test_unsound_parameters_are_refused():
    with pytest.raises(PolicyError, match="2t > n"):
        secure_sum(vectors(10), threshold=5)
    with pytest.raises(PolicyError):
        secure_sum(vectors(2))
    with pytest.raises(ValueError, match="trusting"):
        secure_sum(vectors(5), mode="trusting")
    with pytest.raises(RandomnessError):
        secure_sum(vectors(5), rng=np.random.default_rng(0).bytes)


def test_the_bytes_are_those_of_the_messages():
    """Upload: words and frame. Others: what the wire format says, record by record."""
    n, dimension = 10, 10_000
    result = secure_sum(vectors(n, dimension))
    assert result.words == -(-dimension // 18) + 2
    frame = 24
    advert, shares, confirm = frame + 242, frame + n * 102 + 66, frame + 64
    upload = frame + 8 * result.words + 68
    unmask = frame + n * 36 + 66
    total = advert + shares + upload + confirm + unmask
    assert set(result.uplink_bytes) == set(range(n))
    assert all(abs(sent - total) < 40 for sent in result.uplink_bytes.values())
    assert 8 * 8 * result.words / dimension < result.bits_per_coordinate < 8 * (upload + 8) / dimension
    down = 4 * frame + n * 244 + n * 102 + n * 4 + n * 4 + 7 * 68
    assert all(abs(got - down) < 60 for got in result.downlink_bytes.values())


@pytest.mark.parametrize(
    ("n", "mode", "bits", "neighbours"),
    [
        (10, "active", 3.6, 9),
        (100, "semi_honest", 7.2, 99),
        pytest.param(100, "active", 7.2, 99, marks=pytest.mark.slow),
    ],
)
def test_the_wire_is_as_narrow_as_promised(n, mode, bits, neighbours):
    dimension = 100_000
    result = secure_sum([lambda: np.ones(dimension, dtype=np.uint8)] * n, mode=mode)
    assert result.bits_per_coordinate <= bits
    payload = 8 * result.words
    assert max(result.uplink_bytes.values()) - payload <= 2048 + 200 * neighbours
    assert max(result.downlink_bytes.values()) <= 2048 + 414 * neighbours


def test_a_client_that_drops_is_charged_for_what_it_sent():
    result = secure_sum(vectors(5), drop={1: Stage.ADVERTISE})
    assert result.uplink_bytes[1] == 0
    assert result.downlink_bytes[1] == 0
    assert result.uplink_bytes[0] > 0


def test_identities_may_be_kept_from_session_to_session():
    inputs = vectors(3)
    identities = [Identity.generate(i) for i in range(3)]
    for number in (1, 2):
        context = SessionContext(number=number)
        check(inputs, secure_sum(inputs, identities=identities, context=context))


def test_every_session_draws_new_keys():
    def recorder(record):
        def rng(count):
            record.append(os.urandom(count))
            return record[-1]

        return rng

    one, two = [], []
    secure_sum(vectors(3), rng=recorder(one))
    secure_sum(vectors(3), rng=recorder(two))
    # For each of three clients an identity, two keys, a seed and what its polynomials are made of; the
    # server draws for its check of the shares.
    assert min(len(one), len(two)) >= 3 * 5
    assert not set(one) & set(two)


@pytest.mark.parametrize("field", ["federation", "round", "model_hash", "binding"])
def test_what_the_application_binds_reaches_the_session(field, monkeypatch):
    sessions = []
    real = prism_crypto.SecureSumServer.__init__

    def spy(self, session, **rest):
        sessions.append(session)
        real(self, session, **rest)

    monkeypatch.setattr(prism_crypto.SecureSumServer, "__init__", spy)
    value = 7 if field == "round" else b"x" if field in ("model_hash", "binding") else "x"
    inputs = vectors(3)
    check(inputs, secure_sum(inputs))
    check(inputs, secure_sum(inputs, context=SessionContext(**{field: value})))
    assert getattr(sessions[1], field) == value != getattr(sessions[0], field)


@pytest.mark.parametrize("field", [{"binding": b"f=0.25"}, {"round": 2}, {"number": 2}, {"federation": "g"}])
def test_the_same_coins_in_another_context_give_other_masks(field):
    """Fixed coins, equal inputs: only the session differs, and every masked word with it."""
    uploads = []
    for changes in ({}, field):
        room = Rehearsal(**changes)
        inbox = room.play(until=Stage.SHARE)
        uploads.append(room.clients[0].upload(inbox[0], room.values[0])[-24:])
    assert not set(zip(*[iter(uploads[0])] * 8, strict=True)) & set(zip(*[iter(uploads[1])] * 8, strict=True))


def test_timings_name_party_and_stage():
    timings: dict[str, float] = {}
    secure_sum(vectors(4), timings=timings)
    assert set(timings) == {f"{party}.{stage}" for party in ("client", "server") for stage in Stage}
    assert all(seconds >= 0 for seconds in timings.values())


def test_the_public_names_are_the_contract():
    contract = {
        "CountSpec",
        "Identity",
        "Roster",
        "Policy",
        "Stage",
        "SecureSumClient",
        "SecureSumServer",
        "SecureSumResult",
        "secure_sum",
        "SecureSumError",
    }
    assert contract <= set(prism_crypto.__all__)
    assert sorted(prism_crypto.__all__) == prism_crypto.__all__
    assert all(hasattr(prism_crypto, name) for name in prism_crypto.__all__)


SIMULATED = {
    "active": (5, 1, {}),
    "hybrid": (5, 1, {"suite": "x25519+ml-kem-768"}),
    "hybrid, all must confirm": (6, 1, {"suite": "x25519+ml-kem-768", "min_survivors": 6}),
    "hybrid, semi-honest": (4, 200, {"mode": "semi_honest", "suite": "x25519+ml-kem-768"}),
    "hybrid, sparse, all must survive": (
        40,
        1,
        {
            "mode": "semi_honest",
            "graph": "harary",
            "colluders": 1,
            "min_survivors": 39,
            "suite": "x25519+ml-kem-768",
        },
    ),
    "active, with colluders and room for drops": (20, 3, {"colluders": 3, "min_survivors": 18}),
    "semi-honest": (4, 200, {"mode": "semi_honest"}),
    "semi-honest, complete graph of many": (130, 1, {"mode": "semi_honest"}),
    "sparse": (40, 1, {"mode": "semi_honest", "graph": "harary", "colluders": 1, "min_survivors": 39}),
    "sparse, all must survive": (
        60,
        2,
        {"mode": "semi_honest", "graph": "harary", "colluders": 6, "min_survivors": 60},
    ),
}


@pytest.mark.parametrize(
    ("case", "dimension"),
    # 130 clients, each with each, take two seconds: once.
    [
        pytest.param(case, size, marks=[needs_kem] if "hybrid" in case else [])
        for case, (n, *_) in SIMULATED.items()
        for size in ([61] if n > 100 else [1, 61, 3000])
    ],
)
def test_a_simulated_sum_is_the_real_one_to_the_last_byte(case, dimension):
    n, bound, options = SIMULATED[case]
    inputs = vectors(n, dimension, bound)
    real, simulated = (secure_sum(inputs, bound, simulate=how, **options) for how in (False, True))
    assert simulated.counts.dtype == real.counts.dtype
    assert simulated.counts.tolist() == real.counts.tolist()
    for name in ("survivors", "uplink_bytes", "downlink_bytes", "bits_per_coordinate", "words"):
        assert getattr(simulated, name) == getattr(real, name), name


@pytest.mark.parametrize("mode", ["active", "semi_honest"])
def test_a_simulated_sum_draws_no_key_for_a_mask(mode, monkeypatch):
    def drawn(*_):
        raise AssertionError("a key was agreed on")

    monkeypatch.setattr("prism_crypto.primitives.keys.KeyPair.generate", drawn)
    monkeypatch.setattr("prism_crypto.primitives.keys.KeyPair.agree", drawn)
    inputs = vectors(5)
    assert secure_sum(inputs, mode=mode, simulate=True).counts.tolist() == np.sum(inputs, axis=0).tolist()
    with pytest.raises(AssertionError, match="agreed on"):
        secure_sum(inputs, mode=mode)


@pytest.mark.parametrize(
    ("inputs", "options", "error"),
    [
        (vectors(2), {}, PolicyError),
        (vectors(5), {"threshold": 2}, PolicyError),
        (vectors(5), {"mode": "semi_honest", "colluders": 1, "min_cohort": 5}, PolicyError),
        ([*vectors(4), np.full(37, 2)], {}, InputError),
        ([*vectors(4), np.zeros(36, int)], {}, InputError),
        (iter(vectors(4)), {"clients": 5}, InputError),
        (iter(vectors(6)), {"clients": 5}, InputError),
    ],
)
def test_a_simulated_sum_refuses_what_the_real_one_refuses(inputs, options, error):
    kept = list(inputs)
    said = []
    for simulate in (False, True):
        again = iter(kept) if "clients" in options else kept
        with pytest.raises(error) as refused:
            secure_sum(again, simulate=simulate, **options)
        said.append((str(refused.value), refused.value.stage, refused.value.peer))
    assert said[0] == said[1]


def test_nobody_can_drop_out_of_a_simulated_sum():
    with pytest.raises(InputError, match="leave out drop"):
        secure_sum(vectors(5), drop={1: Stage.UPLOAD}, simulate=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("simulate", [False, True])
def test_counters_beside_bits_are_summed_exactly_and_widen_nothing_but_themselves(mode, simulate):
    bits = vectors(9, 640)
    examples = np.random.default_rng(1).integers(0, 10_000, (9, 2), endpoint=True)
    inputs = [np.concatenate(pair) for pair in zip(bits, examples, strict=True)]
    parts = [(640, 1), (2, 10_000)]
    drop = {} if simulate else {3: Stage.UPLOAD, 5: Stage.UNMASK}
    result = secure_sum(inputs, parts, mode=mode, drop=drop, simulate=simulate)
    check(inputs, result, drop)
    assert result.words == math.ceil(640 / 19) + 2 + 1 + 2  # 10^19 < 2^64; two counters in a word
    assert secure_sum(inputs, 10_000, mode=mode).words == math.ceil(642 / 3) + 2
    inputs[4][0] = 2
    with pytest.raises(InputError) as caught:
        secure_sum(inputs, parts, mode=mode, simulate=simulate)
    assert caught.value.peer == 4


@pytest.mark.parametrize("parts", [[(36, 1)], [(30, 1), (6, 2)], [], [(37, 1), 2], "ab"])
def test_parts_that_are_not_those_of_the_vectors_are_refused(parts):
    with pytest.raises(InputError):
        secure_sum(vectors(4), parts)
