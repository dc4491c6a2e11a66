"""Measured gradients: a record is a function of itself and clipped, coins are bound, epsilon is as stated."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from dp_accounting.rdp import rdp_privacy_accountant
from torch.nn import functional

from prism_privacy import (
    Accountant,
    Adjacency,
    CoinSecret,
    InvalidParameter,
    MaskRelease,
    MeasuredRelease,
    Unit,
    View,
    calibrate_measured,
    kappa,
)
from prism_privacy.measured.records import clip_responses, record_responses
from prism_secure.errors import ConfigError
from prism_secure.plug_in.measured_gradient import MeasuredGradient, principal_directions

RELEASE = MeasuredRelease(
    flip=0.25, clip=0.5, client_clip=0.5, record_clip=0.5, records=7, coordinates=64, directions=6
)
COINS = CoinSecret.for_test(bytes(range(32)))


def _public() -> dict[str, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    return {
        "conv": torch.randn(3, 1, 3, 3, generator=draws),
        "kept": torch.randn(2, 48, generator=draws) / 20,
        "directions": torch.randn(3, 48, generator=draws) / 10,
    }


def _loss(moves, public, image, label):
    features = functional.conv2d(image[None], public["conv"], stride=2, padding=1).relu().flatten()
    logits = public["kept"] @ features + moves.view(2, 3) @ (public["directions"] @ features)
    return functional.cross_entropy(logits, label)


def _examples(count: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(1)
    return torch.randn(count, 1, 8, 8, generator=draws), torch.randint(0, 2, (count,), generator=draws)


def _asked(release: MeasuredRelease = RELEASE, **changed) -> MeasuredGradient:
    given = {"loss": _loss, "public": _public(), "federation": "tests", "round": 3, "batch": 4}
    return MeasuredGradient(release, **(given | changed))


HOSTILE = {
    "another image": lambda image: torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(9)),
    "NaN": lambda image: torch.full_like(image, math.nan),
    "one NaN": lambda image: image.index_fill(2, torch.tensor([0]), math.nan),
    "inf": lambda image: torch.full_like(image, math.inf),
    "-inf": lambda image: torch.full_like(image, -math.inf),
    "1e30": lambda image: torch.full_like(image, 1e30),
    "largest": lambda image: image.sign() * torch.finfo(torch.float32).max,
    "subnormal": lambda image: image * 1e-44,
}


@pytest.mark.parametrize("place", [0, 2, 6])
@pytest.mark.parametrize("kind", HOSTILE)
def test_every_other_record_stays_as_it_is_to_the_last_bit(kind, place):
    images, labels = _examples()
    asked, others = _asked(), np.arange(7) != place
    before = asked.gradients(images, labels)
    changed = images.clone()
    changed[place] = HOSTILE[kind](images[place])
    for flipped in (labels, labels ^ (torch.arange(7) == place)):
        after = asked.gradients(changed, flipped)
        assert np.array_equal(before[others], after[others])
        assert np.any(before[place] != after[place])


@pytest.mark.parametrize("threads", [1, 2])
def test_every_other_record_stays_as_it_is_at_the_size_of_the_example(threads):
    """Matrix products of other sizes take other paths through BLAS, and are shared among threads."""
    draws = torch.Generator().manual_seed(4)
    public = {"kept": torch.randn(10, 3136, generator=draws) / 50}
    public["directions"] = torch.randn(100, 3136, generator=draws) / 50

    def loss(moves, public, features, label):
        moved = moves.view(10, -1) @ (public["directions"] @ features)
        return functional.cross_entropy(public["kept"] @ features + moved, label)

    release = replace(RELEASE, coordinates=1024, directions=1000)
    asked = _asked(release, loss=loss, public=public, batch=250)
    features, labels = torch.rand(300, 3136, generator=draws), torch.arange(300) % 10
    used = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        before = asked.gradients(features, labels)
        for value in (math.nan, 1e30, -math.inf):
            features[123] = value
            after = asked.gradients(features, labels)
            assert np.array_equal(np.delete(before, 123, axis=0), np.delete(after, 123, axis=0))
            assert np.any(before[123] != after[123])
    finally:
        torch.set_num_threads(used)


@pytest.mark.parametrize("kind", ["NaN", "one NaN", "inf", "-inf"])
def test_a_gradient_that_is_not_finite_is_zero(kind):
    images, labels = _examples()
    images[1] = HOSTILE[kind](images[1])
    assert not _asked().gradients(images, labels)[1].any()


def _pull(moves, public, size):
    """A record may ask for any gradient at all: the direction 1, ..., 1 times its size."""
    return (moves * size).sum() + 0.0 * public["nothing"]


def _pulling(release: MeasuredRelease = RELEASE) -> MeasuredGradient:
    return _asked(release, loss=_pull, public={"nothing": torch.zeros(())})


def test_no_record_is_longer_than_its_clip_in_integers():
    sizes = torch.tensor([math.nan, math.inf, -math.inf, 1e30, -3e38, 0.3, 1e-40])
    asked = _pulling()
    found = asked.gradients(sizes)
    assert found.max() == asked.limit * 2**20
    responses = record_responses(asked.asked.directions, found, np.zeros(7, np.int64))
    clipped = clip_responses(responses, RELEASE.record_gain)
    squares = [sum(int(each) ** 2 for each in row) for row in clipped]
    assert max(squares) <= 2**60
    # The clip is what is reached, not a bound far away; what cannot be read is nothing.
    assert [square > 0.999 * 2**60 for square in squares] == [False, False, False, True, True, True, False]
    assert squares[:3] == [0, 0, 0]


@pytest.mark.parametrize("size", [1e30, 0.4, 3e38])
def test_a_swap_moves_the_probabilities_by_no_more_than_the_record_radius(size):
    asked, sizes = _pulling(), torch.zeros(7)
    worlds = []
    for sign in (1, -1):
        sizes[3] = sign * size
        answers = asked.asked.answers(asked.gradients(sizes), np.zeros(7, np.int64))
        worlds.append(asked.asked.probabilities(answers)[0].astype(np.int64))
    moved = np.linalg.norm(worlds[0] - worlds[1]) / 2**24
    assert 0.999 * RELEASE.record_radius("swap") < moved <= RELEASE.record_radius("swap")


def test_gradients_are_those_of_each_example_alone():
    images, labels = _examples()
    found = _asked().gradients(images, labels) / 2**20
    for row, image, label in zip(found, images, labels, strict=True):
        moves = torch.zeros(6, requires_grad=True)
        (alone,) = torch.autograd.grad(_loss(moves, _public(), image, label), moves)
        assert np.abs(row - alone.numpy()).max() < 2e-6


def test_a_client_without_examples_answers_as_one_whose_gradients_are_zero():
    images, labels = _examples()
    p = [
        _asked().asked.probabilities(_asked().asked.answers(rows, np.zeros(len(rows), np.int64)))
        for rows in (_asked().gradients(images[:0], labels[:0]), np.zeros((5, 6), np.int32))
    ]
    assert np.array_equal(*p)
    assert _asked().bits(COINS, images[:0], labels[:0]).shape == (64,)


PUBLIC = {
    **{
        f"the last bits of {name}": {"public": _public() | {name: each.nextafter(torch.tensor(9.0))}}
        for name, each in _public().items()
    },
    "a tensor's name": {"public": _public() | {"more": torch.zeros(1)}},
    "a tensor's shape": {"public": _public() | {"kept": _public()["kept"].reshape(4, 24)}},
    "a tensor's dtype": {"public": _public() | {"kept": _public()["kept"].view(torch.int32)}},
    "round": {"round": 4},
    "federation": {"federation": "others"},
    "batch": {"batch": 5},
    "flip": {"release": replace(RELEASE, flip=0.26)},
    "clip": {"release": replace(RELEASE, clip=0.6)},
    "client_clip": {"release": replace(RELEASE, client_clip=0.6)},
    "record_clip": {"release": replace(RELEASE, record_clip=0.6)},
    "records": {"release": replace(RELEASE, records=8)},
    "coordinates": {"release": replace(RELEASE, coordinates=128)},
}


@pytest.mark.parametrize("what", PUBLIC)
def test_coins_are_bound_to_everything_public(what):
    assert _asked(**PUBLIC[what]).digest != _asked().digest


def test_the_digest_knows_no_order_and_a_round_keeps_its_own_tensors():
    public = _public()
    asked = _asked(public=dict(reversed(public.items())))
    public["kept"] += 1
    assert asked.digest == _asked().digest
    assert np.array_equal(*(each.gradients(*_examples()) for each in (asked, _asked())))


def test_the_same_answer_has_the_same_bits_and_another_has_coins_of_its_own():
    release = replace(RELEASE, coordinates=4096)
    images, labels = _examples()
    asked = _asked(release)
    bits = asked.bits(COINS, images, labels)
    assert np.array_equal(bits, _asked(release).bits(COINS, images, labels))
    assert set(np.unique(bits)) == {0, 1}
    images[0] += 0.01  # p hardly moves: with the same coins some few bits in thousands would differ
    assert 0.45 < np.mean(bits != asked.bits(COINS, images, labels)) < 0.55


def test_the_server_reads_the_mean_of_the_clients_clipped_gradients():
    release = replace(RELEASE, coordinates=4096, clip=8.0)
    asked, clients = _asked(release), 40
    counts, answers = np.zeros(4096, np.int64), []
    for client in range(clients):
        draws = torch.Generator().manual_seed(client)
        images, labels = torch.randn(7, 1, 8, 8, generator=draws) + 1, torch.zeros(7, dtype=torch.long)
        counts += asked.bits(CoinSecret.for_test(bytes([client] * 32)), images, labels)
        rows = asked.gradients(images, labels) / 2**20
        answers.append((rows * np.minimum(1, 0.5 / np.linalg.norm(rows, axis=1))[:, None]).sum(0) / 7)
    found = asked.mean(counts, clients)
    errors = (found.value - np.mean(answers, axis=0)) / found.variance**0.5
    assert found.variance == pytest.approx(0.25 * (0.5 / 8) ** 2 / clients)
    assert np.sum(errors**2) < 22  # of a chi-squared with 6 degrees of freedom in one of 800 cases
    assert np.linalg.norm(found.value) > 20 * found.variance**0.5


@pytest.mark.parametrize("rounds", [1, 12, 60])
def test_the_epsilon_of_the_example_is_that_of_an_independent_composition(rounds):
    each = MeasuredRelease(
        flip=0.4, clip=1.0, client_clip=0.5, record_clip=0.5, records=1000, coordinates=2**16,
        directions=1000, cohort=10,
    )  # fmt: skip
    plan = calibrate_measured(
        [each] * rounds, epsilon=2, delta=1e-5, unit=Unit.RECORD, view=View.SUM, adjacency="swap"
    )
    assert 1.98 < plan.epsilon <= 2
    clip = plan.releases[0].clip
    radius = min(2 * clip, clip / 0.5 * 2 * 0.5 / 1000 + 2**-24 * 2**8 + 2**-30 * clip)
    account = Accountant(delta=1e-5)
    account.spend(MaskRelease(0.4, radius * (1 + 1e-12), cohort=10, dim=2**16), rounds=rounds)
    assert account.epsilon(View.SUM, Adjacency.ZERO_OUT) == pytest.approx(plan.epsilon, rel=1e-6)
    orders = [1.5, 2, 3, 4, 6, 8, 10, 12, 16, 20, 32]
    curve = [rounds * kappa(order, 10, 0.4, radius) * radius**2 for order in orders]
    epsilon, _ = rdp_privacy_accountant.compute_epsilon(orders, curve, 1e-5)
    assert plan.epsilon == pytest.approx(epsilon, rel=0.02)


def test_rounds_that_cannot_be_exact_are_refused_before_data_are_read():
    with pytest.raises(
        ConfigError, match="record_clip must be at most 1024 with 6 directions, got 2048: scale"
    ):
        _asked(replace(RELEASE, record_clip=2048.0))
    wide = replace(RELEASE, record_clip=9.0, coordinates=1024, directions=1024)
    with pytest.raises(ConfigError, match="record_clip must be at most 8 with 1024 directions, got 9"):
        _asked(wide)
    assert _asked(replace(wide, record_clip=8.0)).limit == 8
    with pytest.raises(ConfigError, match="batch must be at least 1, got 0"):
        _asked(batch=0)
    with pytest.raises(InvalidParameter, match="power of two"):
        _asked(replace(RELEASE, coordinates=65))


def test_examples_of_different_lengths_are_refused():
    images, labels = _examples()
    with pytest.raises(ConfigError, match="examples must be tensors of one length"):
        _asked().gradients(images, labels[:5])
    with pytest.raises(ConfigError, match="examples must be tensors of one length"):
        _asked().gradients()


def test_a_loss_that_draws_random_numbers_is_refused():
    def noisy(moves, public, image, label):
        return _loss(moves, public, image + torch.randn_like(image), label)

    with pytest.raises(RuntimeError, match="random"):
        _asked(loss=noisy).gradients(*_examples())


@pytest.mark.parametrize("count", [8, 50])
def test_principal_directions_are_orthogonal_stretched_and_of_public_length_one(count):
    draws = torch.Generator().manual_seed(2)
    inputs = torch.randn(count, 12, generator=draws) * torch.arange(1, 13) + 3
    found = principal_directions(inputs, 5)
    assert found.dtype == inputs.dtype
    assert (inputs @ found.T).norm(dim=1).mean().item() == pytest.approx(1, abs=1e-5)
    gram = (found @ found.T).double()
    assert torch.allclose(gram, torch.diag(gram.diag()), atol=1e-6 * gram.max().item())
    spread = (inputs @ principal_directions(inputs, 5, whitening=1.0).T).square().sum(0)
    assert torch.allclose(spread, spread[:1].expand(5), rtol=1e-4)
    plain = principal_directions(inputs, 5, whitening=0.0).norm(dim=1)
    assert torch.allclose(plain, plain[:1].expand(5), rtol=1e-4)


@pytest.mark.parametrize("count", [4, 13])
def test_public_inputs_that_span_too_little_are_refused(count):
    draws = torch.Generator().manual_seed(2)
    inputs = torch.randn(50, 3, generator=draws) @ torch.randn(3, 12, generator=draws)
    with pytest.raises(ConfigError, match=f"do not span {count} directions"):
        principal_directions(inputs, count)
