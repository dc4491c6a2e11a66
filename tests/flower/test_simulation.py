"""Flower's simulation runtime, over Ray: fifty clients, samples of four, measured rounds of up to 200."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from deployment import Machines, free_port

from prism_crypto import Mode, Policy
from prism_privacy import Unit
from prism_privacy.ledger import verify_ledger
from prism_secure.config import dump_config, load_config
from prism_secure.rounds.components import Components
from prism_secure.rounds.simulation import run
from prism_secure.run_folder.enrolment import enroll_simulated
from prism_secure.run_folder.folder import client_folder, read_records

HERE = Path(__file__).parent
CLIENTS = 50

SERVER = """
import json
from pathlib import Path

import numpy as np
from bits_app import bits_of
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.serverapp import ServerApp

from prism_crypto import CountSpec
from prism_secure.run_folder.enrolment import read_membership
from prism_secure.flower import SecureSum

app = ServerApp()


@app.main()
def main(grid, context):
    root = Path(context.run_config["clients-folder"])
    federation, roster = read_membership(root / "server")
    model = RecordDict({"arrays": ArrayRecord({"x": Array(np.zeros(1000, np.float32))})})
    summed = SecureSum(
        grid, roster, federation, run_config=context.run_config, min_survivors=40, timeout=1800
    )
    wrong = []
    for number in (1, 2):
        result = summed.open(model, CountSpec(1000), round=number)
        expected = np.sum([bits_of(client, "x", (1000,)) for client in result.survivors], axis=0, dtype=int)
        wrong.append(int(np.abs(result.counts - expected).sum()))
    (root / "result.json").write_text(json.dumps({"survivors": len(result.survivors), "wrong": wrong}))
"""


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    machines = Machines(tmp_path, limit=3600)
    yield machines
    machines.close()


SAMPLING = """
import json
from pathlib import Path

import numpy as np
from bits_app import REAL, examples_of, reals_of
from flwr.app import Array, ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from prism_secure.flower import SecureSumGrid

app = ServerApp()


@app.main()
def main(grid, context):
    asked = []
    summed = SecureSumGrid.enrolled(grid, context, charge=asked.append, timeout=1800, **REAL)
    strategy = FedAvg(fraction_train=0.75, fraction_evaluate=0.0, min_train_nodes=3, min_available_nodes=4)
    found = []
    for number in (1, 2):
        model = ArrayRecord({"x": Array(np.zeros(1000, np.float32))})
        result = strategy.start(summed, model, num_rounds=1)
        weights = [examples_of(client) for client in asked[-1]]
        each = [reals_of(client, "x", (1000,)) for client in asked[-1]]
        error = np.abs(result.arrays["x"].numpy() - np.average(each, axis=0, weights=weights)).max()
        correct = result.train_metrics_clientapp[1]["correct"] == sum(7 * client for client in asked[-1])
        found.append((len(asked[-1]), float(error), correct))
    (Path(context.run_config["clients-folder"]) / "result.json").write_text(json.dumps(found))
"""


def simulate(machines: Machines, clients: int, components: str, settings: str, ends: Sequence[Path]) -> None:
    """Run an app over as many simulated nodes, until one of the files `ends` is there."""
    link, port = machines.root / "link", free_port()
    app = link / "app"
    app.mkdir(parents=True, exist_ok=True)
    (app / "pyproject.toml").write_text(
        f"""
[project]
name = "simulated"
version = "1.0.0"
dependencies = []
[tool.flwr.app]
publisher = "tests"
[tool.flwr.app.components]
{components}
[tool.flwr.app.config]
{settings}
"""
    )
    (link / "flwr").mkdir(exist_ok=True)
    (link / "flwr" / "config.toml").write_text(
        f'[superlink]\ndefault = "sim"\n[superlink.sim]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    machines.start(
        "link",
        f"flower-superlink --insecure --simulation --host 127.0.0.1 --port {port} "
        "--disable-runtime-dependency-installation",
    )
    machines.wait_for("link", "startup complete")
    machines.run(
        "link",
        f"flwr run app sim --federation-config 'num-supernodes={clients} client-resources-num-cpus=1'",
    )
    end = time.monotonic() + 3000
    while not any(path.exists() for path in ends):
        assert time.monotonic() < end, machines.log("link")[-6000:]
        assert "Finished task" not in machines.log("link") or any(path.exists() for path in ends)
        time.sleep(1)


def simulated(machines: Machines, members: Path, client: str, server: str, clients: int) -> object:
    """What a server's app writes to ``result.json`` among the members."""
    app = machines.root / "link" / "app"
    app.mkdir(parents=True)
    (app / "bits_app.py").write_text((HERE / "bits_app.py").read_text())
    (app / "sim_server.py").write_text(server)
    components = f'serverapp = "sim_server:app"\nclientapp = "bits_app:{client}"'
    result = members / "result.json"
    simulate(machines, clients, components, f'clients-folder = "{members}"', [result])
    return json.loads(result.read_text())


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fifty_simulated_clients(machines: Machines, tmp_path: Path) -> None:
    root = tmp_path / "members"
    enroll_simulated(root, "fifty", CLIENTS, Policy(min_survivors=40))
    assert simulated(machines, root, "app", SERVER, CLIENTS) == {"survivors": CLIENTS, "wrong": [0, 0]}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_samples_of_simulated_clients_say_who_they_are_and_open_weighted_means(
    machines: Machines, tmp_path: Path
) -> None:
    root = tmp_path / "members"
    enroll_simulated(root, "four", 4, Policy(min_survivors=3))
    found = simulated(machines, root, "real_app", SAMPLING, 4)
    assert [(clients, summed) for clients, _, summed in found] == [(3, True)] * 2
    assert all(error < 1e-5 for _, error, _ in found)


MEASURED = [
    "model.width=2",
    "model.latent=4",
    'features.extractors=["fourier"]',
    "metrics.samples=200",
    "metrics.utility=off",
    "measured.directions=64",
    "measured.coordinates=4096",
    "measured.rows=30",
    "measured.steps=5",
    "measured.end_steps=10",
]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("recipe", "clients", "invited", "settings"),
    [
        ("cross-silo", 10, 10, ["federation.rounds=3", "metrics.every=3"]),
        (
            "cross-silo",
            10,
            5,
            ["federation.rounds=3", "metrics.every=3", "federation.client_fraction=0.5"],
        ),
        (
            "cross-device",
            200,
            200,
            ["federation.rounds=2", "metrics.every=2", "federation.clients=200", "privacy.colluders=0"],
        ),
    ],
)
def test_simulated_nodes_measure_what_one_process_does(
    machines: Machines, tmp_path: Path, recipe: str, clients: int, invited: int, settings: list[str]
) -> None:
    """A recipe, small: model, epsilon and survivors, with coins that nobody knows, two nodes at a time."""
    config = load_config(None, [*MEASURED, *settings, f"secure_sum.min_survivors={invited}"], recipe=recipe)
    root = tmp_path / "members"
    assert (config.federation.clients, config.invited, config.cohort) == (clients, invited, invited)
    policy = Policy(min_survivors=invited, min_cohort=invited, mode=Mode(config.secure_sum.mode))
    enroll_simulated(root, recipe, clients, policy)
    for party in ["server", *(f"{client:02d}" for client in range(clients))]:
        (root / party / "recipe.toml").write_text(dump_config(config))
    told = {
        "folder": str(root / "server"),
        "clients-folder": str(root),
        "recipe": str(root / "server" / "recipe.toml"),
        "out": str(tmp_path / "run"),
        "timeout": 600,
        "train-timeout": 600,
        "patience": 600,
        "own-data": False,
    }
    components = (
        'serverapp = "prism_secure.flower.server_app:app"\nclientapp = "prism_secure.flower.client_app:app"'
    )
    shown = "\n".join(f"{name} = {json.dumps(value)}" for name, value in told.items())
    out, alone = tmp_path / "run", tmp_path / "alone"
    simulate(machines, clients, components, shown, [out / "DONE", out / "FAILED"])
    assert not (out / "FAILED").exists(), (out / "FAILED").read_text()
    for client in range(clients):
        shutil.copy2(root / f"{client:02d}" / "coins.key", client_folder(alone, client))
    (alone / "federation.id").write_text(recipe)
    run(config, alone)
    for name in ("checkpoint/server.safetensors", "model.safetensors"):
        assert (out / name).read_bytes() == (alone / name).read_bytes()
    for one, other in zip(read_records(out), read_records(alone), strict=True):
        assert one.survivors == other.survivors == invited
        for name in ("epsilon", "record", "changed"):
            assert getattr(one, name) == getattr(other, name)
    plan = Components(config).plan
    assert [
        entry.release for entry in verify_ledger(out / "ledger.jsonl").entries if entry.kind == "round"
    ] == [each.as_dict() for each in plan.measured]
    assert {each.release(Unit.CLIENT).cohort for each in plan.measured} == {invited}
