"""Measured rounds of persons over Flower's messages, each client with images of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from prism_privacy import CoinSecret
from prism_privacy.ledger import verify_ledger
from prism_secure.audit.run_audit import audit_run, summary
from prism_secure.config import Config, dump_config, load_config
from prism_secure.errors import ConfigError
from prism_secure.flower import client_app
from prism_secure.flower.recipe.client import own_data
from prism_secure.rounds.behaviours.measure import MeasuringClient
from prism_secure.rounds.client import Client
from prism_secure.rounds.components import Components
from prism_secure.rounds.server import Server
from prism_secure.run_folder.folder import read_records

from ..secure import tiny_data
from .recipe_place import FEDERATION, TINY, Place
from .test_measured_app import MEASURED, client_at, content_of

PERSONS = [*MEASURED, "data.person=file", "measured.epsilon=3", "measured.radius=none"]
CLIP = "measured.record_clip=6"
OWN = "40 50 60 70"


def images_of(folder: Path, count: int, persons: int) -> Path:
    """So many images of so many persons."""
    tiny_data.write_data(folder, train=count)
    whose = "".join(f"person {number % persons}\n" for number in range(count))
    (folder / "train-persons.txt").write_text(whose)
    return folder


def recipe(data: Path, *overrides: str) -> Config:
    return load_config(None, [*TINY, *PERSONS, f"data.folder={data}", *overrides])


def test_a_federation_whose_hospitals_have_several_images_of_a_person(tmp_path: Path) -> None:
    """The coordinator's public images are each of another person: whose they are is nothing to the rounds."""
    root = tmp_path / "place"
    root.mkdir()
    images_of(root / "data", 60, 60)
    place = Place(root, *PERSONS, CLIP, test_coins=False)
    place.settings["own-data"] = OWN
    theirs = []
    for client, context in enumerate(place.grid.contexts.values()):
        context.node_config["own-data"] = OWN
        theirs.append(recipe(images_of(tmp_path / f"{client}", 40 + 10 * client, 9 + client), CLIP))
        (root / f"{client:02d}" / "recipe.toml").write_text(dump_config(theirs[-1]))
    place.train()
    assert [record.survivors for record in read_records(place.out)] == [4, 4]
    audit = audit_run(place.out)
    assert audit.verdict == "clean", summary(audit)
    assert audit.record == "person"

    plan = own_data(place.config, OWN).plan.measured
    for folder in (place.out, *(root / f"{client:02d}" for client in range(4))):
        told = verify_ledger(folder / "ledger.jsonl")
        assert told.one_record == "person"
        assert [entry.release for entry in told.entries[:2]] == [release.as_dict() for release in plan]
    assert {release.record_clip for release in plan} == {6}

    # The same rounds without Flower: each answers for its own persons.
    server = Server.of(own_data(place.config, OWN), FEDERATION)
    clients = [
        Client(
            index,
            tmp_path / "alone" / str(index),
            own_data(config, OWN),
            coins=CoinSecret.load(root / f"{index:02d}" / "coins.key"),
        )
        for index, config in enumerate(theirs)
    ]
    for _ in range(2):
        broadcast = server.broadcast()
        for client in clients:
            client.answer(broadcast)
        bits = np.sum([client.bits(broadcast) for client in clients], axis=0, dtype=np.int64)
        server.absorb(bits, 4, planned_rounds=2)
    assert place.theta().tobytes() == server.theta.tobytes()
    for index, client in enumerate(clients):
        assert isinstance(client.side, MeasuringClient)
        assert len(np.unique(client.side.records().persons)) == 9 + index


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images_of(tmp_path_factory.mktemp("data") / "images", 60, 17)


def test_what_a_person_may_answer_is_named_where_nobody_knows_how_many_there_are(data: Path) -> None:
    for declared in (OWN, True):
        with pytest.raises(ConfigError, match=r"measured\.record_clip must be given with data\.person"):
            _ = own_data(recipe(data, "measured.records=55"), declared).plan
        plan = own_data(recipe(data, "measured.records=55", CLIP), declared).plan
        assert {release.record_clip for release in plan.measured} == {6}


def test_clients_that_share_one_data_set_know_how_many_persons_there_are(data: Path, tmp_path: Path) -> None:
    shared = Components(recipe(data))
    client = client_at(tmp_path / "0", shared)
    client.answer(content_of(Server.of(shared, FEDERATION).broadcast()))
    header, entry = (json.loads(line)["body"] for line in client.ledger_path.read_text().splitlines())
    assert header["settings"] == {"record": "person"}
    assert header["records"] == max(shared.partition.persons or ())
    assert entry["release"] == shared.plan.measured[0].as_dict()


def test_all_agree_on_who_is_protected(data: Path) -> None:
    """The bits of a client that clips image by image keep what is said of an image, and not of a person."""
    config = recipe(data, CLIP)
    images = load_config(None, [*TINY, *PERSONS, CLIP, f"data.folder={data}", "data.person=none"])
    told = [own_data(each, OWN).plan.measured for each in (config, images)]
    assert told[0] == told[1], "nothing else would tell them apart"
    assert client_app.binding(config) != client_app.binding(images)
    folders = recipe(data, CLIP, "data.source=images", "data.person=folder")
    assert client_app.binding(config) == client_app.binding(folders)
