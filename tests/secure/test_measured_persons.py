"""A record that is a person: one clip for all of a person's images, from the files to the ledger."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from prism_privacy import CoinSecret, MeasuredRound, Unit
from prism_privacy.ledger.check import OF_PERSONS
from prism_privacy.measured.integers import RESPONSE_BITS
from prism_privacy.measured.records import clip_responses, record_responses, sum_persons
from prism_secure.accounting import measured as plans
from prism_secure.audit.run_audit import audit_run, summary
from prism_secure.cli import main
from prism_secure.config import load_config
from prism_secure.config.whole import Config
from prism_secure.errors import ConfigError, RunFolderError
from prism_secure.rounds.behaviours import choice
from prism_secure.rounds.behaviours.measure import Measure, MeasuringClient, Records
from prism_secure.rounds.broadcast import Broadcast
from prism_secure.rounds.client import Client
from prism_secure.rounds.components import Components
from prism_secure.rounds.server import Server
from prism_secure.rounds.simulation import run

from .test_measured_plan import SIZES, SMALL
from .test_measured_rounds import MEASURED
from .tiny_data import TINY, killed_in_round, outcome, same_secrets, write_data

PERSONS = [f"person {number // 3 % 17}" for number in range(60)]
"""Three or six images each, which do not lie together."""
FOR_A_PERSON = ["measured.unit=image", "measured.radius=none", "measured.epsilon=3"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_data(tmp_path_factory.mktemp("data") / "images")
    (folder / "train-persons.txt").write_text("\n".join(PERSONS) + "\n")
    return folder


def tiny(data: Path, *overrides: str) -> Config:
    return load_config(None, [*TINY, *MEASURED, "data.person=file", f"data.folder={data}", *overrides])


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("persons") / "run"
    run(tiny(data), out)
    return out


@pytest.fixture(scope="module")
def calibrated(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose epsilon is for a person."""
    out = tmp_path_factory.mktemp("calibrated") / "run"
    run(tiny(data, *FOR_A_PERSON), out)
    return out


@pytest.fixture(scope="module")
def components(data: Path) -> Components:
    return Components(tiny(data))


@pytest.fixture(scope="module")
def honest(components: Components) -> Broadcast:
    return Server.of(components, "f").broadcast()


def behaviour_of(components: Components) -> Measure:
    behaviour = choice.behaviour_of(components)
    assert isinstance(behaviour, Measure)
    return behaviour


def clients(components: Components, folder: Path) -> list[MeasuringClient]:
    found = []
    for index in range(3):
        coins = CoinSecret.for_test(bytes(32))
        side = Client(index, folder / str(index), components, coins=coins).side
        assert isinstance(side, MeasuringClient)
        found.append(side)
    return found


def test_every_client_has_all_images_of_its_persons_and_answers_with_them(
    components: Components, tmp_path: Path
) -> None:
    held = [client.records().persons for client in clients(components, tmp_path)]
    assert all(persons is not None for persons in held)
    sets = [set(persons.tolist()) for persons in held if persons is not None]
    assert sum(map(len, sets)) == len(set.union(*sets)) == len(set(PERSONS)) == 17
    assert components.partition.persons == tuple(map(len, sets))
    kept = load((tmp_path / "0" / "features.safetensors").read_bytes())
    assert set(kept) == {"features", "labels", "persons"}


def with_clips_that_bind(components: Components, honest: Broadcast) -> MeasuredRound:
    """A is the server's to say: with one so short, every person is cut."""
    behaviour, terms = behaviour_of(components), honest.public["terms"].copy()
    terms[2:4] = 1e-4, 1e-4 * behaviour.planned(1).record_clip
    return behaviour.checked_round(Broadcast("f", 1, honest.theta, {**honest.public, "terms": terms}))


def worlds(own: Records, person: int) -> list[Records]:
    """What somebody else's images would make of one person's: other ones, other labels, none, and more."""
    assert own.persons is not None
    rng, theirs = np.random.default_rng(person), own.persons == person
    count, size = int(theirs.sum()), own.features.shape[1]

    def put(features: np.ndarray, labels: np.ndarray) -> Records:
        return Records(
            np.concatenate([own.features[~theirs], features.astype(np.int32)]),
            np.concatenate([own.labels[~theirs], labels]),
            np.concatenate([own.persons[~theirs], np.full(len(labels), person)]),  # type: ignore[index]
        )

    wild = rng.integers(-(1 << 20), (1 << 20) + 1, (40, size))
    return [
        put(-own.features[theirs], own.labels[theirs]),
        put(own.features[theirs], (own.labels[theirs] + 1) % 10),
        put(wild[:count], rng.integers(0, 10, count)),
        put(wild[:0], np.zeros(0, np.int64)),
        put(np.full((40, size), 1 << 20), np.zeros(40, np.int64)),
        put(wild, np.full(40, 99)),
    ]


def clipped(asked: MeasuredRound, own: Records, without: int) -> list[list[int]]:
    """The clipped responses of all persons but one, in the order of their numbers."""
    assert own.persons is not None
    responses = record_responses(asked.directions, own.features, own.labels)
    owners = np.zeros(len(own.labels), np.int64)
    sums, _ = sum_persons(responses, owners, own.persons)
    found = clip_responses(sums, asked.release.record_gain)
    assert int(np.square(found).sum(axis=1).max()) <= 1 << (2 * RESPONSE_BITS)
    return found[np.unique(own.persons) != without].tolist()


def moved(asked: MeasuredRound, own: Records, others: list[Records], *, by_person: bool = True) -> float:
    """How far bits are, at most, from those of the client's own images in one of these worlds."""
    every = [own, *others]
    owners = np.repeat(np.arange(len(every)), [len(each.labels) for each in every])
    features, labels, persons = (np.concatenate(parts) for parts in zip(*every, strict=True))
    answers = asked.answers(features, labels, owners, len(every), persons if by_person else None)
    p = asked.probabilities(answers).astype(np.int64)
    return float(np.sqrt(np.square(p - p[0]).sum(axis=1).max())) / 2**24


def test_all_images_of_any_person_move_the_bits_no_further_than_the_radius(
    components: Components, honest: Broadcast, tmp_path: Path
) -> None:
    """By brute force, over every person: whatever their images become, and however many they are."""
    asked, far = with_clips_that_bind(components, honest), 0.0
    radius = asked.release.record_radius("swap")
    assert radius < 2 * asked.release.clip, "the person's clip, and not the client's, is what is tried"
    for client in clients(components, tmp_path):
        own = client.records()
        assert own.persons is not None
        for person in np.unique(own.persons).tolist():
            rest = clipped(asked, own, person)
            others = worlds(own, person)
            for other in others:
                assert clipped(asked, other, person) == rest, "every other person's integers are the same"
            far = max(far, moved(asked, own, others))
    assert far <= radius
    assert far > 0.5 * radius, "the bound is tried, not only kept"


def test_a_clip_by_image_lets_a_person_move_the_bits_further(
    components: Components, honest: Broadcast, tmp_path: Path
) -> None:
    """The planted bug: persons are read and not used. The guarantee test above is what would catch it."""
    asked = with_clips_that_bind(components, honest)
    release = replace(asked.release, clip=1.0, client_clip=1e3 * asked.release.client_clip)
    loose = replace(asked, release=release)  # A and C out of the way: only c is left
    own = clients(components, tmp_path)[0].records()
    assert own.persons is not None
    radius, person = loose.release.record_radius("swap"), int(own.persons[0])
    others = worlds(own, person)
    assert moved(loose, own, others) <= radius
    assert moved(loose, own, others, by_person=False) > 2 * radius


def test_many_clients_at_once_answer_what_each_answers_alone(
    components: Components, honest: Broadcast, tmp_path: Path
) -> None:
    behaviour, sides = behaviour_of(components), clients(components, tmp_path)
    alone = [behaviour.answers_of(side, honest) for side in sides]
    drawn = [
        behaviour.probabilities(side.index, answer, honest) for side, answer in zip(sides, alone, strict=True)
    ]
    asked, own = behaviour.checked_round(honest), sides[0].records()
    assert not np.array_equal(asked.answers(own.features, own.labels)[0], alone[0]), (
        "persons make a difference"
    )
    behaviour.together(honest, sides[::-1])
    assert len(behaviour._answers) == 3
    for side, answer, p in zip(sides, alone, drawn, strict=True):
        assert np.array_equal(behaviour.answers_of(side, honest), answer)
        assert np.array_equal(behaviour.probabilities(side.index, answer, honest), p)


def test_persons_of_two_clients_with_one_number_are_two_persons(
    components: Components, honest: Broadcast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on machines of their own, where each numbers its own persons."""
    behaviour, sides = behaviour_of(components), clients(components, tmp_path)
    for side in sides:
        own = side.records()
        _, renamed = np.unique(own.persons, return_inverse=True)
        monkeypatch.setattr(side, "records", lambda own=own, renamed=renamed: own._replace(persons=renamed))
    alone = [behaviour.answers_of(side, honest) for side in sides]
    behaviour.together(honest, sides)
    for side, answer in zip(sides, alone, strict=True):
        assert np.array_equal(behaviour.answers_of(side, honest), answer)


def test_features_that_lost_their_persons_are_not_answered_with(
    components: Components, tmp_path: Path
) -> None:
    """Or each image would be clipped by itself, and the ledger would say otherwise."""
    side = clients(components, tmp_path)[0]
    side.prepare(answered=False)
    path = tmp_path / "0" / "features.safetensors"
    kept = load(path.read_bytes())
    del kept["persons"]
    path.write_bytes(save(kept))
    with pytest.raises(RunFolderError, match="is damaged: it lacks persons"):
        side.records()


def test_a_killed_run_goes_on_to_the_same_model(finished: Path, data: Path, tmp_path: Path) -> None:
    """kill -9, in the second round, when its uploads are on disk and the sum is not open."""
    out = same_secrets(finished, tmp_path / "run")
    killed_in_round(2, tiny(data), out)
    assert load((out / "checkpoint" / "server.safetensors").read_bytes())["round"] == 1
    run(tiny(data, "federation.workers=2"), out)
    assert outcome(out) == outcome(finished)


def test_a_run_whose_epsilon_is_for_a_person_ends_with_its_report(calibrated: Path, data: Path) -> None:
    page = (calibrated / "report.html").read_text("utf-8")
    assert "the budget of one person is 3.00" in page
    assert "one image" not in page.lower()
    before = outcome(calibrated)
    (calibrated / "report.html").unlink()
    run(tiny(data, *FOR_A_PERSON), calibrated)  # the command again
    assert (calibrated / "report.html").read_text("utf-8") == page
    assert outcome(calibrated) == before


@pytest.mark.parametrize("name", ["finished", "calibrated"])
def test_an_audit_of_an_honest_run_is_clean(name: str, request: pytest.FixtureRequest) -> None:
    audit = audit_run(request.getfixturevalue(name))
    assert audit.verdict == "clean", summary(audit)


def test_canaries_of_such_a_run_are_persons(
    calibrated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(calibrated, tmp_path / "run")
    assert main(["audit", "one-run", str(out), "--images", "20"]) == 0
    assert capsys.readouterr().out.count("ok  ") == 2
    assert main(["report", str(out)]) == 0
    page = (out / "report.html").read_text("utf-8")
    assert re.search(r"An audit sent 2 canary clients and \d+ canary persons, each in or out", page)
    assert "one person replaced, where 3.00 was claimed" in page


def test_the_ledger_says_that_a_record_is_a_person(finished: Path, data: Path) -> None:
    header = json.loads((finished / "ledger.jsonl").read_text().splitlines()[0])["body"]
    assert header["settings"] == OF_PERSONS == {"record": "person"}
    assert header["units"]["record"].startswith("one record (all images of one person) of one client")
    assert header["records"] == max(Components(tiny(data)).partition.persons or ())


def test_fewer_persons_than_clients_are_refused_before_anything_is_made(data: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for path in data.glob("*ubyte"):
        (tmp_path / "data" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "data" / "train-persons.txt").write_text("a\nb\n" * 30)
    told = "federation.clients must be between 1 and the number of persons to train with, 2; got 3"
    with pytest.raises(ConfigError, match=told):
        run(tiny(tmp_path / "data"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("unit", "persons", "ratio"),
    [
        ("image", [5] * 10, 2.0),  # N/P: what two images of a person add up to, where an image's is A
        ("image", [10] * 10, 1.0),  # a person of one image is an image
        ("client", [5] * 10, 4.47214),  # (N/P) sqrt(P)
        ("client", [10] * 10, 3.16228),
        ("client", [1] * 10, 10.0),  # a client of one person: c = N A cuts its mean where A does
        ("image", [4, 6] * 5, 2.0),
        ("image", [30] * 10, 1.0),  # more persons than N: never below an image's
    ],
)
def test_c_is_what_a_person_may_answer(unit: str, persons: list[int], ratio: float, data: Path) -> None:
    who = ["data.source=idx", f"data.folder={data}", "data.person=file"]
    config = load_config(None, [*SMALL, *who, f"measured.unit={unit}"])
    found = plans.releases(config, 1000, SIZES, persons)
    assert {each.record_clip for each in found} == {ratio}


def test_a_client_of_persons_may_use_all_of_its_move_where_persons_are_protected(data: Path) -> None:
    """P persons at c each make an answer of A: with a shorter c a client would be charged for too much."""
    who = ["data.source=idx", f"data.folder={data}", "data.person=file", "measured.unit=image"]
    release = plans.releases(load_config(None, [*SMALL, *who]), 1000, SIZES, [5] * 10)[-1]
    assert 5 * release.record_clip / release.records == release.client_clip
    assert release.release(Unit.RECORD).clip == pytest.approx(2 * release.clip / 5, rel=1e-4)


def test_where_nobody_says_how_many_persons_there_are_c_must_be_named(data: Path) -> None:
    who = ["data.source=idx", f"data.folder={data}", "data.person=file"]
    with pytest.raises(ConfigError, match=r"measured\.record_clip must be given with data\.person"):
        plans.releases(load_config(None, [*SMALL, *who]), 1000, SIZES)
    named = load_config(None, [*SMALL, *who, "measured.record_clip=3"])
    assert plans.releases(named, 1000, SIZES)[0].record_clip == 3
