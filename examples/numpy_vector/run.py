"""Three processes, each with a third of Fashion-MNIST, find the average image of all; a fourth adds up.

    python run.py

Each process keeps its keys in a folder of its own. Nobody sees the sums of another's images, only the total.
"""

from __future__ import annotations

import io
import lzma
import sys
import tempfile
from importlib.resources import files
from multiprocessing import get_context
from multiprocessing.connection import Client, Listener
from pathlib import Path

import numpy as np
from parties import contribute, open_sum

from prism_crypto import CountSpec, Identity, Policy, Roster, SessionCounter

CLIENTS = range(3)
AGREED = (CountSpec(dimension=784, bound=255 * 10_000), "numpy-vector", 1)
"""How long and how large vectors are, the federation's name, and the round."""
PASSWORD = b"keeps strangers off the port; a real transport has TLS and certificates here"


def pixel_sums(client_id: int) -> np.ndarray:
    """What this client adds: the sum of its images, pixel by pixel, int64 (784,)."""
    packed = files("prism_secure").joinpath("assets/fashion_mnist_12k.npz.xz").read_bytes()
    images = np.load(io.BytesIO(lzma.decompress(packed)))["train_images"]
    return images[client_id :: len(CLIENTS)].reshape(-1, 784).sum(0, dtype=np.int64)


def client(client_id: int, folder: Path, address: tuple[str, int]) -> None:
    """One process: its identity, roster, policy and counter are files that it has from enrolment."""
    with Client(address, authkey=PASSWORD) as wire:
        wire.send_bytes(str(client_id).encode())
        total, parties = contribute(
            wire,
            pixel_sums(client_id),
            Identity.load(folder / "identity.json"),
            Roster.load(folder / "roster.json"),
            Policy.load(folder / "policy.json"),
            SessionCounter(folder / "counter"),
            AGREED,
        )
    print(f"client {client_id}: average pixel over {parties} clients {total.mean() / 10_000:.3f}", flush=True)


def enrol(folder: Path) -> Roster:
    """Once, and out of the server's reach: keys, everybody's roster, what each client insists on."""
    identities = [Identity.generate(client_id) for client_id in CLIENTS]
    roster = Roster({identity.client_id: identity.public_key for identity in identities})
    for identity in identities:
        own = folder / str(identity.client_id)
        own.mkdir(mode=0o700)
        identity.save(own / "identity.json")
        roster.save(own / "roster.json")
        Policy(min_survivors=3, min_cohort=3).save(own / "policy.json")
        SessionCounter.enrol(own / "counter")
    return roster


def main() -> None:
    start = get_context("spawn").Process
    with tempfile.TemporaryDirectory() as folder, Listener(("localhost", 0), authkey=PASSWORD) as listener:
        roster = enrol(Path(folder))
        processes = [
            start(target=client, args=(i, Path(folder, str(i)), listener.address), daemon=True)
            for i in CLIENTS
        ]
        for process in processes:
            process.start()
        wires = {int(wire.recv_bytes()): wire for wire in (listener.accept() for _ in CLIENTS)}
        result = open_sum(wires, roster, AGREED)
        for process in processes:
            process.join()
    truth = sum(pixel_sums(i) for i in CLIENTS)
    print(f"server: {len(result.survivors)} clients, exact: {np.array_equal(result.counts, truth)}")
    print(f"        {result.bits_per_coordinate:.1f} bits a pixel, {result.uplink_bytes[0]:,} bytes each")
    sys.exit(0 if np.array_equal(result.counts, truth) and not any(p.exitcode for p in processes) else 1)


if __name__ == "__main__":
    main()
