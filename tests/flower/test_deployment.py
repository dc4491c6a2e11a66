"""SuperLink and SuperNodes as processes of their own: one dies, one is late, one sends garbage, a restart."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from deployment import Machines, free_port

from prism_crypto import Policy
from prism_privacy.ledger import verify_ledger
from prism_secure.config import Config, dump_config, load_config
from prism_secure.flower.recipe.client import known_coins
from prism_secure.rounds.client import Client
from prism_secure.rounds.components import Components
from prism_secure.rounds.server import Server
from prism_secure.run_folder.enrolment import enroll_simulated
from prism_secure.run_folder.folder import read_records

HERE = Path(__file__).parent
KEY = bytes(range(32))
CLIENTS = 5
GARBLER = 4
OVERRIDES = [
    f"federation.clients={CLIENTS}",
    "federation.rounds=4",
    "federation.local_steps=1",
    "model.width=2",
    "model.latent=4",
    'features.extractors=["fourier"]',
    "training.batch_size=10",
    "metrics.samples=200",
    "metrics.utility=off",
    "metrics.every=4",
    "secure_sum.min_survivors=3",
    "privacy.record_epsilon=inf",
    "secure_sum.threshold=3",
]


class Federation:
    """A SuperLink, and five enrolled clients with node keys, all on loopback with TLS."""

    def __init__(self, root: Path, machines: Machines) -> None:
        self.machines = machines
        self.root = root
        self.config = load_config(None, OVERRIDES)
        self.port = free_port()
        self.ports = [free_port() for _ in range(CLIENTS)]
        enroll_simulated(root / "members", "five", CLIENTS, Policy(min_survivors=3, min_cohort=3))
        for client in range(CLIENTS):
            (root / "members" / f"{client:02d}" / "recipe.toml").write_text(dump_config(self.config))
        self._certificates()
        self.link()
        (root / "link" / "flwr").mkdir(exist_ok=True)
        (root / "link" / "flwr" / "config.toml").write_text(
            f'[superlink]\ndefault = "five"\n[superlink.five]\naddress = "localhost:{self.port}"\n'
            f'root-certificates = "{root}/link/ca.crt"\n'
        )
        for client in range(CLIENTS):
            self.machines.run(f"node{client}", 'ssh-keygen -q -t ecdsa -b 384 -N "" -f key')
            self.machines.run("link", f"flwr supernode register ../node{client}/key.pub five")
        self._app()

    def _certificates(self) -> None:
        self.machines.run(
            "link",
            """
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout ca.key \
                -out ca.crt -subj "/CN=test authority" -addext "keyUsage=critical,keyCertSign"
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout server.key \
                -out server.csr -subj "/CN=localhost"
            echo "subjectAltName=DNS:localhost,IP:127.0.0.1" > names.txt
            openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
                -extfile names.txt -out server.crt
            """,
        )

    def link(self) -> None:
        before = self.machines.log("link").count("startup complete")
        self.machines.start(
            "link",
            f"flower-superlink --host 127.0.0.1 --port {self.port} --ssl-ca-certfile ca.crt "
            "--ssl-certfile server.crt --ssl-keyfile server.key --enable-supernode-auth --database link.db "
            "--disable-runtime-dependency-installation",
        )
        self.machines.wait_for("link", "startup complete", count=before + 1)

    def node(self, client: int) -> None:
        path = f"env PYTHONPATH={HERE}/garbage:$PYTHONPATH " if client == GARBLER else ""
        self.machines.start(
            f"node{client}",
            f"{path}flower-supernode --superlink localhost:{self.port} --root-certificates ../link/ca.crt "
            f"--auth-supernode-private-key key --port {self.ports[client]} "
            f'--node-config \'folder="{self.root}/members/{client:02d}" test-coins="{KEY.hex()}"\'',
        )
        self.machines.wait_for(f"node{client}", "SuperNode ID")

    def _app(self) -> None:
        folder = self.root / "link" / "app"
        folder.mkdir()
        (self.root / "link" / "recipe.toml").write_text(dump_config(self.config))
        (folder / "pyproject.toml").write_text(
            f"""
[project]
name = "five"
version = "1.0.0"
dependencies = []
[tool.flwr.app]
publisher = "tests"
[tool.flwr.app.components]
serverapp = "prism_secure.flower.server_app:app"
clientapp = "prism_secure.flower.client_app:app"
[tool.flwr.app.config]
folder = "{self.root}/members/server"
recipe = "{self.root}/link/recipe.toml"
out = "{self.root}/run"
timeout = 180
train-timeout = 180
patience = 600
own-data = false
test-coins = true
"""
        )

    def submit(self) -> None:
        self.machines.run("link", "flwr run app five")

    def wait_for_round(self, number: int, seconds: float = 600) -> None:
        end = time.monotonic() + seconds
        while len(read_records(self.root / "run")) < number:
            assert time.monotonic() < end, f"no round {number}:\n{self.machines.log('link')[-5000:]}"
            time.sleep(0.3)


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    machines = Machines(tmp_path, limit=3000)
    try:
        yield Federation(tmp_path, machines)
    finally:
        machines.close()


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_five_nodes_of_which_three_behave(federation: Federation, tmp_path: Path) -> None:
    machines, run = federation.machines, tmp_path / "run"
    for client in (0, 1, 2, GARBLER):
        federation.node(client)
    federation.submit()
    federation.wait_for_round(1)
    # late: asked for the first time in round 2, which may be running already, or in round 3
    federation.node(3)
    federation.wait_for_round(2)
    uploads = machines.log("node1").count("Receiving: train.upload")
    machines.wait_for("node1", "Receiving: train.upload", seconds=600, count=uploads + 1)
    machines.stop("node1", signal.SIGKILL)
    federation.wait_for_round(3)
    machines.stop("link")
    federation.link()
    federation.submit()
    federation.wait_for_round(4)
    end = time.monotonic() + 300
    while not (run / "DONE").exists():
        assert time.monotonic() < end, machines.log("link")[-5000:]
        time.sleep(0.3)

    *charged, last = verify_ledger(run / "ledger.jsonl").entries
    assert last.kind == "end"
    survivors = [tuple(entry.metrics["survivors"]) for entry in charged]
    assert [record.survivors for record in read_records(run)] == [len(clients) for clients in survivors]
    assert survivors[0] == (0, 1, 2)
    assert any(3 in clients for clients in survivors)  # the late one
    assert 1 not in survivors[2]  # the one that died in it
    assert not any(GARBLER in clients for clients in survivors)
    assert all(entry.coins == "test" and entry.epsilon is None for entry in (*charged, last))
    server = Server.of(Components(federation.config), "five")
    server.load(run / "checkpoint" / "server.safetensors")
    expected = in_process(federation.config, tmp_path / "in-process", survivors)
    assert server.theta.tobytes() == expected.tobytes()
    # each client has charged its own ledger for the rounds that it was asked in, and no other
    for client in (0, 2):
        own = verify_ledger(tmp_path / "members" / f"{client:02d}" / "ledger.jsonl").entries
        asked = [entry.metrics["federation_round"] for entry in own]
        assert asked == [number for number, clients in enumerate(survivors, 1) if client in clients]
    shutil.rmtree(tmp_path / "in-process")


def in_process(config: Config, folder: Path, survivors: list[tuple[int, ...]]) -> np.ndarray:
    """theta of the same federation without Flower: these clients in these rounds, the same coins."""
    recipe = Components(config)
    clients = {}
    for index in range(CLIENTS):
        (folder / str(index)).mkdir(parents=True)
        coins = known_coins(KEY, index)
        clients[index] = Client(index, folder / str(index), recipe, coins=coins, may_miss=True)
    server = Server.of(recipe, "five")
    for there in survivors:
        broadcast = server.broadcast()
        if there:
            for index in there:
                clients[index].answer(broadcast)
            counts = np.sum([clients[index].bits(broadcast) for index in there], axis=0, dtype=np.int64)
            server.absorb(counts, len(there), planned_rounds=config.federation.rounds)
        else:
            server.round += 1
    return server.theta
