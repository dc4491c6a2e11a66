"""One secure round over real SuperNodes: our five stages beside Flower's own SecAgg+, on the same nodes.

    python experiments/flower/bench_deployment.py --clients 4 --dimension 1000000

Starts a SuperLink (TLS, authenticated nodes) and the SuperNodes on loopback, runs both sides as apps, and
prints a table. Processor time of a client is that of handling its messages (and, on our side, of the party);
starting Python for each message, which Flower does, is not in it: with polling, it is most of the wall time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "flower"))

from deployment import Machines, free_port

from prism_crypto import Mode, Policy
from prism_secure.run_folder.enrolment import enroll_simulated

APPS = Path(__file__).parent / "apps"
SIDES = {
    "active": ("ours", "active", True),
    "semi-honest": ("ours", "semi_honest", True),
    "active, no model": ("ours", "active", False),
    "Flower SecAgg+": ("secagg", "", True),
}
"""Which app, in which mode, and whether the clients are sent a model of as many float32 parameters."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--dimension", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3, help="the first is a warm-up")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        machines = Machines(Path(folder), limit=3600)
        try:
            figures = measure(machines, options)
        finally:
            machines.close()
    print(json.dumps(figures, indent=1))
    show(figures)


def measure(machines: Machines, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    start(machines, options.clients)
    found = {}
    for number, (side, (app, mode, model)) in enumerate(SIDES.items()):
        enrolled = machines.root / f"members-{number}"
        if app == "ours":
            policy = Policy(min_survivors=3, mode=Mode(mode))
            enroll_simulated(enrolled, f"bench-{number}", options.clients, policy)
            for client in range(options.clients):
                link = machines.root / f"node{client}" / "client"
                link.unlink(missing_ok=True)
                link.symlink_to(enrolled / f"{client:02d}")
        found[side] = run(machines, options, f"{number}", app, mode, model, enrolled)
    return found


def start(machines: Machines, clients: int) -> None:
    port = free_port()
    machines.run("link", CERTIFICATES)
    machines.start(
        "link",
        f"flower-superlink --host 127.0.0.1 --port {port} --ssl-ca-certfile ca.crt --ssl-certfile server.crt "
        "--ssl-keyfile server.key --enable-supernode-auth --disable-runtime-dependency-installation",
    )
    machines.wait_for("link", "startup complete")
    (machines.root / "link" / "flwr").mkdir(exist_ok=True)
    (machines.root / "link" / "flwr" / "config.toml").write_text(
        f'[superlink]\ndefault = "bench"\n[superlink.bench]\naddress = "localhost:{port}"\n'
        f'root-certificates = "{machines.root}/link/ca.crt"\n'
    )
    for client in range(clients):
        node = f"node{client}"
        machines.run(node, 'ssh-keygen -q -t ecdsa -b 384 -N "" -C node -f key')
        machines.run("link", f"flwr supernode register ../{node}/key.pub bench")
        machines.start(
            node,
            f"flower-supernode --superlink localhost:{port} --root-certificates ../link/ca.crt "
            f"--auth-supernode-private-key key --port {free_port()} "
            f"--node-config 'node={client} folder=\"{machines.root}/{node}/client\"'",
        )
        machines.wait_for(node, "SuperNode ID")


def run(
    machines: Machines,
    options: argparse.Namespace,
    name: str,
    app: str,
    mode: str,
    model: bool,
    enrolled: Path,
) -> dict[str, float]:
    figures = machines.root / f"figures-{name}"
    figures.mkdir()
    folder = machines.root / "link" / f"app-{name}"
    folder.mkdir()
    for module in ("measured.py", f"{app}_client.py", f"{app}_server.py"):
        (folder / module).write_text((APPS / module).read_text())
    (folder / "pyproject.toml").write_text(
        f"""
[project]
name = "bench-{app}"
version = "1.0.{name}"
dependencies = []
[tool.flwr.app]
publisher = "bench"
[tool.flwr.app.components]
serverapp = "{app}_server:app"
clientapp = "{app}_client:app"
[tool.flwr.app.config]
clients = {options.clients}
dimension = {options.dimension}
rounds = {options.rounds}
mode = "{mode}"
model = {str(model).lower()}
folder = "{enrolled}/server"
figures = "{figures}"
"""
    )
    machines.run("link", f"flwr run {folder} bench")
    end = time.monotonic() + 1800
    while not (figures / "server.json").exists():
        if time.monotonic() > end:
            raise SystemExit(f"{app} did not finish:\n{machines.log('link')[-4000:]}")
        time.sleep(0.5)
    time.sleep(3)
    return read_figures(figures, options.clients)


def read_figures(folder: Path, clients: int) -> dict[str, float]:
    """What a side has left in its folder, clients' seconds as the mean over clients."""
    server = json.loads((folder / "server.json").read_text())
    lines = [
        json.loads(line) for path in folder.glob("client-*.jsonl") for line in path.read_text().splitlines()
    ]
    seconds = [line["seconds"] for line in lines if line["at"] >= server["began"]]
    return server | {"client_seconds": sum(seconds) / clients / server["rounds"]}


def show(figures: dict[str, dict[str, float]]) -> None:
    theirs = figures["Flower SecAgg+"]
    print(f"\n{'':<32}" + "".join(f"{side:>28}" for side in figures))
    rows = {
        "wire, bytes up": "bytes_up",
        "wire, bytes down": "bytes_down",
        "a client's compute, s": "client_seconds",
        "server's compute, s": "server_seconds",
        "server's transport, s": "transport_seconds",
        "wall, s": "wall_seconds",
        "messages": "messages",
    }
    for title, key in rows.items():
        cells = [f"{side[key]:,.3f} (1/{theirs[key] / side[key]:.1f})" for side in figures.values()]
        print(f"{title:<32}" + "".join(f"{cell:>28}" for cell in cells))


CERTIFICATES = """
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout ca.key -out ca.crt \
    -subj "/CN=bench authority" -addext "keyUsage=critical,keyCertSign"
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout server.key -out server.csr \
    -subj "/CN=localhost"
echo "subjectAltName=DNS:localhost,IP:127.0.0.1" > names.txt
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
    -extfile names.txt -out server.crt
"""

if __name__ == "__main__":
    main()
