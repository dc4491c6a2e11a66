"""Measured rounds through a small run: what leaves, what is kept, and that no way of running changes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from prism_privacy import CoinSecret, View, quantise_features
from prism_secure.config import load_config
from prism_secure.config.whole import Config
from prism_secure.errors import AgreementError, ConfigError
from prism_secure.learning.measured.prior import Prior
from prism_secure.rounds import components as components_module
from prism_secure.rounds.behaviours.choice import behaviour_of
from prism_secure.rounds.behaviours.measure import Measure, MeasuringClient
from prism_secure.rounds.broadcast import Broadcast
from prism_secure.rounds.client import Client
from prism_secure.rounds.components import Components
from prism_secure.rounds.server import Server
from prism_secure.rounds.simulation import run
from prism_secure.run_folder.folder import read_records
from prism_secure.wording import format_epsilon

from .tiny_data import TINY, killed_in_round, outcome, same_secrets, write_data

MEASURED = [
    "federation.behaviour=measure",
    "federation.local_steps=32",  # the default: nobody reads it
    "privacy.record_epsilon=inf",
    "privacy.flip=0.25",
    "measured.epsilon=inf",
    "measured.radius=20",
    "measured.directions=16",
    "measured.coordinates=1024",
    "measured.steps=2",
    "measured.end_steps=2",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "images")


def tiny(data: Path, *overrides: str) -> Config:
    return load_config(None, [*TINY, *MEASURED, f"data.folder={data}", *overrides])


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("measured") / "run"
    run(tiny(data), out)
    return out


@pytest.fixture(scope="module")
def components(data: Path) -> Components:
    return Components(tiny(data))


def test_a_round_is_answered_by_all_clients_and_kept(finished: Path) -> None:
    records = read_records(finished)
    assert [record.survivors for record in records] == [3, 3]
    kept = load((finished / "checkpoint" / "server.safetensors").read_bytes())
    assert kept["round"] == 2


def test_who_starts_a_run_is_told_what_one_images_epsilon_will_be(components: Components) -> None:
    planned = format_epsilon(components.plan.image_epsilon(View.SUM))
    said = f"ε(image) grows by the round; after all of them it is {planned} against an observer of the opened"
    assert components.notes[0].startswith(said)


def test_the_servers_loss_follows_from_what_opened_and_from_no_client(
    finished: Path, components: Components, tmp_path: Path
) -> None:
    """With the opened counts held, a server among clients with another image writes the same loss."""
    for record in read_records(finished):
        assert record.server_loss is not None
        assert 0 < record.server_loss < np.inf
    others = Components(tiny(write_data(tmp_path / "other", swap=0)))
    images = [each.dataset.train_images.numpy() for each in (components, others)]
    assert not np.array_equal(*images)
    told = []
    for each, counts in ((components, 2), (others, 2), (components, 1)):
        server = Server.of(each, "f")
        opened = np.full(each.sent_bits, counts, np.int64)
        opened[:5] = 3
        told.append(server.absorb(opened, 3, planned_rounds=2).loss)
        assert server.lose().loss is not None, "it trains on after a round that opens nothing"
    assert told[0] == told[1]
    assert told[0] != told[2], "what opened has a say"


def test_the_posterior_comes_near_the_moments_of_the_clients_images(data: Path, tmp_path: Path) -> None:
    """The answers are of the clients' own images: what is open along what was asked shrinks to the noise.

    A coordinate's variance p becomes v, so it was answered with the noise pv/(p - v), and it moved by 1 - v/p
    of what was answered: the guess is 0.
    """
    config = tiny(data, "federation.rounds=1", "measured.margin=5", "measured.record_clip=8")  # clips nobody
    components, out = Components(config), tmp_path / "run"
    run(config, out)
    kept = load((out / "checkpoint" / "server.safetensors").read_bytes())
    features = [components.features(index) for index in range(3)]
    images = np.concatenate([part for part, _ in features])
    labels = np.concatenate([part for _, part in features])
    basis, classes = kept["basis"], components.architecture.classes or 1
    guess = config.measured.prior
    prior = Prior(np.zeros((classes, basis.shape[1])), basis, kept["spectrum"], own=guess, shared=guess)
    asked = kept["variances"] < prior.variances
    assert np.count_nonzero(asked) == 16
    p, v = prior.variances[asked], kept["variances"][asked]
    told, deviation = kept["coordinates"][asked] / (1 - v / p), np.sqrt(p * v / (p - v))
    along = prior.class_axes[:, labels, None] * (images.astype(np.float64) @ basis.T)
    exact = classes * along.mean(1)[asked]
    assert np.abs((told - exact) / deviation).max() < 5
    assert deviation.min() < 0.5 * np.abs(exact).max()


def test_with_more_directions_than_coordinates_each_is_asked_once(data: Path, tmp_path: Path) -> None:
    """The rest have no length: clients answer 0 to them, and the posterior has what the others say."""
    config = tiny(data, "federation.rounds=1", "measured.rows=1")
    broadcast = Server.of(Components(config), "f").broadcast()
    lengths = np.abs(broadcast.public["by_class"]).sum(0)
    count = Components(config).architecture.classes or 1
    assert count < len(lengths) == 16
    assert np.all(lengths[:count] > 0)
    assert np.all(lengths[count:] == 0)
    run(config, tmp_path / "run")
    kept = load((tmp_path / "run" / "checkpoint" / "server.safetensors").read_bytes())
    assert np.all(np.isfinite(kept["coordinates"]))
    assert np.all(kept["variances"] > 0)
    assert kept["coordinates"].size == count


def test_rows_by_the_rule_are_chosen_once_and_kept(data: Path, tmp_path: Path) -> None:
    """A server that goes on from its checkpoint asks along the same rows."""
    config = tiny(data, "measured.rows=0")
    server, whole = Server.of(Components(config), "f"), Components(config).public_basis[0]
    asked = server.broadcast().public["basis"]
    assert 1 <= len(asked) <= len(whole)
    behaviour = behaviour_of(Components(config))
    assert isinstance(behaviour, Measure)
    behaviour.checked_round(server.broadcast())
    killed_in_round(2, config, tmp_path / "run")
    run(config, tmp_path / "run")
    kept = load((tmp_path / "run" / "checkpoint" / "server.safetensors").read_bytes())
    assert kept["round"] == 2
    assert kept["basis"].shape == asked.shape


def test_many_clients_at_once_answer_what_each_answers_alone(components: Components, tmp_path: Path) -> None:
    broadcast = Server.of(components, "f").broadcast()
    behaviour = behaviour_of(components)
    assert isinstance(behaviour, Measure)
    clients = [
        Client(index, tmp_path / str(index), components, coins=CoinSecret.for_test(bytes(32)))
        for index in range(3)
    ]

    def side(index: int) -> MeasuringClient:
        found = clients[index].side
        assert isinstance(found, MeasuringClient)
        return found

    alone = [client.side.answer(broadcast, None).answers for client in clients]
    assert len({answer.tobytes() for answer in alone}) == 3
    drawn = [behaviour.probabilities(side(index), answer, broadcast) for index, answer in enumerate(alone)]
    behaviour.together(broadcast, [client.side for client in reversed(clients)])
    assert len(behaviour._answers) == 3
    # Not for another broadcast: its digest is another.
    other = Broadcast("g", 1, broadcast.theta, broadcast.public)
    assert np.array_equal(clients[0].side.answer(other, None).answers, alone[0])
    assert len(behaviour._answers) == 3
    for index, (answer, p) in enumerate(zip(alone, drawn, strict=True)):
        assert np.array_equal(clients[index].side.answer(broadcast, None).answers, answer)
        assert np.array_equal(behaviour.probabilities(side(index), answer, broadcast), p)
    assert behaviour._answers == {}
    # Nor for other answers than these.
    behaviour.together(broadcast, [clients[0].side])
    assert not np.array_equal(behaviour.probabilities(side(0), alone[1], broadcast), drawn[0])


def test_one_clients_answers_are_not_anothers_of_the_same_number(
    components: Components, tmp_path: Path
) -> None:
    """Two worlds in one process: client 0 of one, and client 0 of another, with other images."""
    broadcast = Server.of(components, "f").broadcast()
    one, other = (
        Client(0, tmp_path / name, components, coins=CoinSecret.for_test(bytes(32))) for name in "ab"
    )
    assert isinstance(other.side, MeasuringClient)
    other.side.records()
    path = other.side._path
    kept = load(path.read_bytes())
    path.write_bytes(save({**kept, "features": kept["features"] // 2}))
    right = other.side.answer(broadcast, None).answers
    behaviour_of(components).together(broadcast, [one.side])
    assert np.array_equal(other.side.answer(broadcast, None).answers, right)
    assert not np.array_equal(one.side.answer(broadcast, None).answers, right)


def test_a_broadcast_of_another_form_is_refused(components: Components) -> None:
    """theta (d, 2) with fewer rows of the basis could have the bytes, and so the digest, of theta (d,)."""
    honest = Server.of(components, "f").broadcast()
    behaviour = behaviour_of(components)
    assert isinstance(behaviour, Measure)
    for theta in (np.stack([honest.theta] * 2, 1), honest.theta.astype(np.float32), np.array(0.5)):
        with pytest.raises(AgreementError, match=r"theta must be float64 of the shape \(d,\)"):
            Broadcast("f", 1, theta, honest.public)
    with pytest.raises(AgreementError, match=r"theta has \d+ numbers"):
        behaviour.checked_round(Broadcast("f", 1, np.concatenate([honest.theta] * 2), honest.public))
    with pytest.raises(AgreementError, match="a broadcast holds arrays, got something else as terms"):
        Broadcast("f", 1, honest.theta, {**honest.public, "terms": [1.0]})  # type: ignore[dict-item]
    # Names have their length in the digest, so that one name cannot say what two say.
    part = "\0a\0<f8\0(1,)\08\0"
    whole = {"a": np.ones(1), "b": np.ones(1)}
    joined = {f"a{part}": np.ones(1)}
    assert Broadcast("f", 1, honest.theta, whole).digest != Broadcast("f", 1, honest.theta, joined).digest


def test_workers_change_nothing(finished: Path, data: Path, tmp_path: Path) -> None:
    out = same_secrets(finished, tmp_path / "run")
    run(tiny(data, "federation.workers=2"), out)
    assert outcome(out) == outcome(finished)


def test_a_killed_run_goes_on_to_the_same_model(finished: Path, data: Path, tmp_path: Path) -> None:
    """kill -9, in the second round, when its uploads are on disk and the sum is not open."""
    out = same_secrets(finished, tmp_path / "run")
    killed_in_round(2, tiny(data), out)
    assert load((out / "checkpoint" / "server.safetensors").read_bytes())["round"] == 1
    run(tiny(data), out)
    assert outcome(out) == outcome(finished)


def test_a_client_answers_its_own_plan_alone(components: Components, tmp_path: Path) -> None:
    """What a server changes of a round is seen before data are read, or gives other coins."""
    honest = Server.of(components, "f").broadcast()
    behaviour = behaviour_of(components)
    assert isinstance(behaviour, Measure)
    behaviour.checked_round(honest)

    def changed(name: str, value: np.ndarray) -> Broadcast:
        return Broadcast("f", 1, honest.theta, {**honest.public, name: value})

    terms = honest.public["terms"]
    for position in range(len(terms)):  # A alone, without the c that goes with it, is refused as well
        other = terms.copy()
        other[position] *= 2
        with pytest.raises(AgreementError, match=r"round 1 was planned with"):
            behaviour.checked_round(changed("terms", other))
    for length in (0.0, np.nan, np.inf, 2.0**21, -terms[2]):
        other = terms.copy()
        other[2:4] *= length / terms[2]
        with pytest.raises(AgreementError, match="A must lie between"):
            behaviour.checked_round(changed("terms", other))
    basis, unit = honest.public["basis"], honest.public["unit"]
    for wrong in (basis[:, :-1], basis.astype(np.float64), basis[:0], np.concatenate([basis] * 50)):
        with pytest.raises(AgreementError, match=r"a measured round sends"):
            behaviour.checked_round(changed("basis", wrong))
    for worse in (unit * np.nan, unit * 1e30, unit * 2**15):
        with pytest.raises(AgreementError, match="asks for what no client answers"):
            behaviour.checked_round(changed("unit", worse))
    for name in ("by_class", "reference"):
        with pytest.raises(AgreementError, match="asks for what no client answers"):
            behaviour.checked_round(changed(name, honest.public[name] + np.float32(np.nan)))
    with pytest.raises(AgreementError, match=r"rows must lie in \[0, "):
        behaviour.checked_round(changed("rows", honest.public["rows"] + np.uint16(60_000)))
    with pytest.raises(AgreementError, match=r"a measured round sends"):
        behaviour.checked_round(Broadcast("f", 1, honest.theta))
    with pytest.raises(AgreementError, match="there are 2 measured rounds"):
        behaviour.checked_round(Broadcast("f", 3, honest.theta, honest.public))
    assert not list(tmp_path.iterdir())


def test_how_long_an_answer_is_moves_no_bit_further(components: Components, tmp_path: Path) -> None:
    """A is the server's to say: a client's and an image's bits move within the planned radii all the same."""
    honest = Server.of(components, "f").broadcast()
    behaviour = behaviour_of(components)
    assert isinstance(behaviour, Measure)
    planned = behaviour.planned(1)
    features, labels = components.features(0, alike=True)
    units = quantise_features(features)
    swapped = units.copy()
    swapped[0] = -units[0] // 2
    for length in (2.0**-20, 1e-4, 0.1, 3.0, 2.0**20):
        terms = honest.public["terms"].copy()
        terms[2:4] = length, length * planned.record_clip
        asked = behaviour.checked_round(Broadcast("f", 1, honest.theta, {**honest.public, "terms": terms}))
        assert asked.release.record_radius() == pytest.approx(planned.record_radius(), rel=1e-12)
        p, other = (
            asked.probabilities(asked.answers(each, labels))[0].astype(np.float64) / 2**24
            for each in (units, swapped)
        )
        assert np.linalg.norm(p - 0.5) <= planned.clip
        assert np.linalg.norm(p - other) <= planned.record_radius()
        if length <= 1e-4:  # there the clips bind, and what they let through is used
            assert np.linalg.norm(p - 0.5) > 0.5 * min(planned.clip, 0.25 * 32)


@pytest.mark.parametrize("name", ["basis", "by_class", "reference", "embedding"])
def test_another_question_draws_other_coins(name: str, components: Components, tmp_path: Path) -> None:
    """The same coins under another V, m or E would show which way each bit moved."""
    honest = Server.of(components, "f").broadcast()
    value = honest.public[name].copy()
    value.flat[0] += 1
    other = Broadcast("f", 1, honest.theta, {**honest.public, name: value})
    bits = []
    for number, broadcast in enumerate((honest, other)):
        client = Client(0, tmp_path / str(number), components, coins=CoinSecret.for_test(bytes(32)))
        client.answer(broadcast)
        bits.append(client.bits(broadcast))
    assert len(bits[0]) == 1024
    assert 0.4 < np.mean(bits[0] != bits[1]) < 0.6


def test_an_images_features_do_not_depend_on_how_many_others_there_are(
    components: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = components._images(0)
    monkeypatch.setattr(components, "_images", lambda client: (images[:client], labels[:client]))
    whole, _ = components.features(len(images), alike=True)
    for count in (1, 3, len(images) - 1):
        alone, _ = components.features(count, alike=True)
        assert np.array_equal(quantise_features(alone), quantise_features(whole)[:count])


def test_an_images_features_do_not_depend_on_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the default network, whose sums on several threads depend on the place in a batch."""
    monkeypatch.setattr(components_module, "PUBLIC_IMAGES", 20)  # a scale of each feature: any will do
    found = Components(load_config(None, ["federation.clients=1000"], recipe="cross-device"))
    images, labels = found._images(0)
    order = torch.tensor([3, 1, 4, 0, 9, 2, 6, 5, 8, 7])
    monkeypatch.setattr(
        found, "_images", lambda client: (images[order], labels[order]) if client else (images, labels)
    )
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        straight, mixed = (quantise_features(found.features(client, alike=True)[0]) for client in (0, 1))
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(straight[order.numpy()], mixed)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("mask.mode=bernoulli", r"behaviour = 'measure' needs mask.mode = 'hard'"),
        ("federation.device=cuda:7", r"device is 'cuda:7', but torch .* finds \d+ graphics cards here"),
    ],
)
def test_what_the_server_cannot_train_is_refused_before_anything_is_made(
    wrong: str, said: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        run(tiny(data, wrong), tmp_path / "run")
    assert not (tmp_path / "run").exists()
