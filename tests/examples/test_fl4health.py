"""The Flower app whose clients send different layers, over Flower's messages, one round on real images."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr")

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "fl4health"


@pytest.fixture
def importable(monkeypatch):
    for folder in (EXAMPLE, ROOT / "tests" / "flower"):
        monkeypatch.syspath_prepend(str(folder))
    yield
    for name in [name for name in sys.modules if name == "app" or name.startswith("app.")]:
        del sys.modules[name]


def test_every_layer_has_its_turn_and_its_cohort_whatever_the_data(importable):
    from app.task import CLIENTS, LAYERS, RELEASE, cohort, turns

    for number in range(1, 7):
        assert all(len(turns(client, number)) == len(LAYERS) - 1 for client in range(CLIENTS))
        for layer in LAYERS:
            assert len(cohort(layer, number)) == RELEASE.cohort == 4
            assert cohort(layer, number, (0, 1, 2)) == [
                client for client in range(3) if layer in turns(client, number)
            ]
    assert {name for number in range(1, 4) for name in turns(0, number)} == set(LAYERS)


@pytest.mark.timeout(900)
def test_one_round_counts_each_layer_by_those_who_sent_it(importable, tmp_path, monkeypatch):
    from app import client_app, server_app
    from app.task import CLIENTS
    from flwr.app import Context, RecordDict
    from loop_grid import LoopGrid

    from prism_crypto import Policy
    from prism_secure.run_folder.enrolment import enroll_simulated

    members = tmp_path / "members"
    enroll_simulated(members, "layers", CLIENTS, Policy(min_survivors=CLIENTS))
    grid = LoopGrid(client_app.app, {100 + i: members / f"{i:02d}" for i in range(CLIENTS)})
    opened = []
    monkeypatch.setattr(
        server_app, "debias", lambda counts, n, flip: opened.append((counts, n)) or counts / n
    )
    config = {"clients-folder": str(members), "results": str(tmp_path / "results.txt"), "rounds": 1}
    for each in grid.contexts.values():
        each.run_config = config
    server_app.main(grid, Context(7, 1, {}, RecordDict(), config))
    assert [n for _, n in opened] == [4, 4, 4]
    # counts of four masks: all values from 0 to 4 occur, none above though six took part
    assert all(np.array_equal(np.unique(counts), np.arange(5)) for counts, _ in opened)
    said = (tmp_path / "results.txt").read_text()
    assert re.fullmatch(
        r"round 1: test accuracy [0-9.]+%, clients a layer \(4, 4, 4\) of 6, client-level epsilon [0-9]+\n",
        said,
    )
