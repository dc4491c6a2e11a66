"""What the secure sum costs, measured here and now, with Flower's SecAgg+ beside it where flwr is installed.

``python -m prism_crypto.bench`` prints one table; ``--out``, ``--json`` and ``--plot`` write what it found.
Both sides run in this process, in turn, on the same machine in the same minute; figures of different runs are
not comparable. Times are CPU time (other processes do not count), medians over tries; large sessions are in
seconds by the clock, too.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from prism_crypto.bench.flower_secagg import FlowerSession, flower_version
from prism_crypto.bench.growth import ClientCost, one_active_client, one_client
from prism_crypto.bench.limits import machine
from prism_crypto.bench.rows import Action, Bench, Row, encoded, in_turn, peak_mib, read, tell
from prism_crypto.primitives.chosen_graph import chosen_parameters
from prism_crypto.primitives.hybrid import available
from prism_crypto.primitives.keystream import add_keystream
from prism_crypto.secure_sum import secure_sum
from prism_crypto.server import SecureSumResult
from prism_crypto.session import COMPLETE_LIMIT, Session, Suite
from prism_crypto.spec import CountSpec
from prism_crypto.stage import Mode, Stage
from prism_crypto.wire.packing import Packing

__all__ = ["main", "rows"]

SUBJECT, SECAGG = "secure-sum", "Flower's SecAgg+"
FEW = 3
"""Tries of what takes many seconds."""
UP, DOWN = "up, beside its vector", "down"
HYBRID: Suite = "x25519+ml-kem-768"
LARGE: dict[str, dict[str, Any]] = {
    "active, complete graph": {"n": 100, "mode": "active", "dropped": 10, "most": 15},
    "semi-honest, sparse graph": {"n": 1000, "mode": "semi_honest", "dropped": 50, "most": 60},
    "active, chosen graph": {"n": 1000, "mode": "active", "dropped": 50, "most": 60, "shorter": 10},
}
"""Sessions of every party; `most` is how many seconds they should take."""


class _Laps(dict[str, float]):
    """A mapping for ``secure_sum(timings=...)`` that also keeps each addition."""

    def __init__(self) -> None:
        super().__init__()
        self.each: dict[str, list[float]] = {}

    def __setitem__(self, name: str, total: float) -> None:
        self.each.setdefault(name, []).append(total - self.get(name, 0.0))
        super().__setitem__(name, total)

    def client(self, n: int) -> float:
        """Seconds of one client's whole session, on average."""
        return sum(seconds for name, seconds in self.items() if name.startswith("client.")) / n

    def server(self) -> float:
        """Seconds of the server over all stages."""
        return sum(seconds for name, seconds in self.items() if name.startswith("server."))


def _session(
    n: int, d: int, mode: str, dropped: int = 0, **options: Any
) -> tuple[SecureSumResult, _Laps, float]:
    """Run one session on random bits that are made when asked for; check the sum; time it all."""
    total = np.zeros(d, dtype=np.int64)
    drop = {i * (n // max(dropped, 1)): Stage.UPLOAD for i in range(dropped)}

    def vector(client_id: int) -> Callable[[], NDArray[np.uint8]]:
        def make() -> NDArray[np.uint8]:
            bits = np.random.default_rng(client_id).integers(0, 2, d, dtype=np.uint8)
            np.add(total, bits, out=total)
            return bits

        return make

    laps = _Laps()
    start = time.perf_counter()
    result = secure_sum([vector(i) for i in range(n)], drop=drop, mode=mode, timings=laps, **options)
    seconds = time.perf_counter() - start
    if not np.array_equal(result.counts, total):
        raise AssertionError("the sum is wrong")
    return result, laps, seconds


def _bare_masks(n: int, d: int) -> Action:
    """One client's masks, their keystreams and additions and nothing else: AES-GCM of ``cryptography`` into a
    reused buffer, and ``numpy.add``."""
    words = np.zeros(Packing(d, n).length, dtype=np.uint64)
    zeros, stream = bytes(65536), np.empty(8192, dtype=np.uint64)
    target = stream.data.cast("B")

    def all_masks() -> None:
        for _ in range(n):
            encryptor = Cipher(algorithms.AES(os.urandom(32)), modes.GCM(bytes(12))).encryptor()
            for start in range(0, words.size, 8192):
                chunk = words[start : start + 8192]
                encryptor.update_into(zeros[: chunk.nbytes] if chunk.size < 8192 else zeros, target)
                np.add(chunk, stream[: chunk.size], out=chunk)

    return all_masks


def _masks(n: int, d: int) -> Action:
    """The same by this package's own function."""
    words = np.zeros(Packing(d, n).length, dtype=np.uint64)
    seeds = [os.urandom(32) for _ in range(n)]

    def all_masks() -> None:
        for seed in seeds:
            add_keystream(words, seed)

    return all_masks


def rows(tries: int, *, quick: bool = False, flower: bool = True) -> Iterator[Row]:
    """All figures. What is aimed at holds for the whole sizes, so `quick` ones say nothing of it."""
    beside = flower and flower_version() is not None
    for row in _all(tries, quick, beside):
        yield msgspec.structs.replace(row, bar="") if quick else row


def _all(tries: int, quick: bool, flower: bool) -> Iterator[Row]:
    yield from _client_and_server(tries, 10_000 if quick else 1_000_000, flower)
    yield from _dealing(min(tries, FEW), 5 if quick else 50, flower)
    for name, arguments in LARGE.items():
        yield from _large(name, min(tries, FEW), quick, **arguments)
    yield from _growth(min(tries, FEW), quick)
    yield from _hybrid(min(tries, FEW), quick)
    yield from _curves(min(tries, FEW), quick, flower)


def _beside(flower: bool, other: list[float]) -> dict[str, Any]:
    return {"instead": SECAGG, "other": other} if flower else {}


def _client_and_server(tries: int, d: int, flower: bool) -> Iterator[Row]:
    steps = (
        f"upload step of a client, d={d:,} n=10",
        f"a client's whole session, active, d={d:,} n=10",
        f"server, d={d:,} n=20, 2 dropped",
    )
    ours: dict[str, list[float]] = {step: [] for step in steps}
    theirs: dict[str, list[float]] = {step: [] for step in steps}
    for _ in range(tries):
        result, laps, _ = _session(10, d, "active")
        _, last, _ = _session(20, d, "active", 2)
        found = statistics.median(laps.each["client.upload"]), laps.client(10), last.server()
        for step, seconds in zip(steps, found, strict=True):
            ours[step].append(seconds * 1e3)
        if flower:
            other, dropped = FlowerSession(10, d).run(), FlowerSession(20, d, dropped=2).run()
            found = statistics.median(other.seconds["upload"]), _one_of(other), sum(dropped.seconds["server"])
            for step, seconds in zip(steps, found, strict=True):
                theirs[step].append(seconds * 1e3)
    masks, bare = in_turn(tries, _masks(10, d), _bare_masks(10, d), scale=1e3)
    least: dict[str, Any] = {"bound": "keystreams and additions of its masks alone", "limit": min(bare)}
    for step, limit, bar in zip(steps, (least, {}, {}), ("≥ 30×", "≥ 15×", "≥ 10×"), strict=True):
        beside = _beside(flower, theirs[step])
        yield Row(name=step, unit="ms", ours=ours[step], bar=f"{bar} faster", **limit, **beside)
    yield Row(name=f"masks of an upload, d={d:,} n=10", unit="ms", ours=masks, bar="≤ 1.5×", **least)
    yield Row(
        name="wire, n=10", unit="bits/coordinate", ours=[result.bits_per_coordinate], bound="log2(n + 1)",
        limit=math.log2(11), bar="≤ 3.6", **_beside(flower, [8 * other.upload_bytes / d] if flower else []),
    )  # fmt: skip


def _one_of(session: FlowerSession) -> float:
    """Seconds of one client's whole session."""
    return sum(statistics.median(laps) for stage, laps in session.seconds.items() if stage != "server")


def _dealing(tries: int, n: int, flower: bool) -> Iterator[Row]:
    """Sharing seeds and keys, where Flower's time goes with few coordinates."""
    ours: dict[str, list[float]] = {"semi_honest": [], "active": []}
    theirs: list[float] = []
    for _ in range(tries):
        for mode, found in ours.items():
            found.append(_session(n, 100, mode)[1]["client.share"] * 1e3)
        if flower:
            theirs.append(sum(FlowerSession(n, 1).run(until="share").seconds["share"]) * 1e3)
    for mode, bar in (("semi_honest", "≥ 80× faster"), ("active", "≥ 25× faster")):
        name = f"share stage, n={n}, all clients, {mode.replace('_', '-')}"
        yield Row(name=name, unit="ms", ours=ours[mode], bar=bar, **_beside(flower, theirs))


def _large(
    kind: str, tries: int, quick: bool, *, n: int, mode: str, dropped: int, most: int, shorter: int = 1
) -> Iterator[Row]:
    """A large session, each try in a process of its own, so that its peak of memory is its own."""
    d = 1_000_000 // shorter
    if quick:
        n, d, dropped = (210 if mode == "active" and n > COMPLETE_LIMIT else n // 10), 1000, 1
    found = [_in_another_process(n, d, mode, dropped) for _ in range(tries)]
    name = f"{n:,} clients, {kind}, {dropped} dropped, d={d:,}"
    first = found[0]
    k = round(first["neighbours"])
    # Where clients choose, each advert names the sender's choices, and neighbours' vouchers come twice.
    each = 350 + (2 * k if "chosen" in kind else 0)
    for what, key, unit, bar in (
        ("every party, by the clock", "seconds", "s", f"≤ {most}"),
        ("every party", "cpu", "s", ""),
        ("peak memory", "peak_mib", "MiB", "≤ 1024" if n == 1000 else ""),
    ):
        yield Row(name=f"{name}: {what}", unit=unit, ours=[one[key] for one in found], bar=bar)
    yield Row(
        name=f"{name}: wire", unit="bits/coordinate", ours=[first["bits"]], bound="log2(n + 1)",
        limit=math.log2(n + 1), bar={100: "≤ 7.2", 1000: "≤ 10.7"}.get(n, ""),
    )  # fmt: skip
    for what, key, bar in (
        (f"{UP} ({k} neighbours)", "up", f"≤ {2.048 + 0.2 * k:.3g}"),
        (DOWN, "down", f"≤ {2.048 + each * k / 1e3:.3g}"),
    ):
        yield Row(name=f"{name}: {what}", unit="kB", ours=[first[key] / 1e3], bar=bar)


def _in_another_process(n: int, d: int, mode: str, dropped: int) -> dict[str, float]:
    command = [sys.executable, "-m", "prism_crypto.bench", "--one", f"{n},{d},{mode},{dropped}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _one(description: str) -> dict[str, float]:
    """The large session that `_large` asks for."""
    n, d, mode, dropped = description.split(",")
    chosen = mode == "active" and int(n) > COMPLETE_LIMIT
    options = {"dropout": int(dropped) / int(n)} if chosen else {}
    result, _, seconds = _session(int(n), int(d), mode, int(dropped), **options)
    neighbours = int(n) - 1
    if chosen:
        neighbours = 2 * chosen_parameters(int(n), gone=int(dropped), corrupt=int(n) // 10).degree
    elif mode == "semi_honest":
        neighbours = Session.plan(CountSpec(1), range(int(n)), federation="", number=1, mode=mode).degree
    return {
        "seconds": seconds,
        "cpu": time.process_time(),
        "peak_mib": peak_mib(),
        "bits": result.bits_per_coordinate,
        "neighbours": neighbours,
        "up": max(result.uplink_bytes.values()) - 8 * result.words,
        "down": max(result.downlink_bytes.values()),
    }


def _growth(tries: int, quick: bool) -> Iterator[Row]:
    """One client among very many."""
    d, sizes = (1000, (100, 300)) if quick else (100_000, (100, 300, 1000, 3000, 10_000))
    for n in sizes:
        yield from _one_client([one_client(n, d) for _ in range(tries)], d)
    for n in sizes[1:]:
        yield from _one_client([one_active_client(n, d) for _ in range(tries)], d)


def _one_client(costs: Sequence[ClientCost], d: int) -> Iterator[Row]:
    """Of tries of the same."""
    first = costs[0]
    mode = first.mode.value.replace("_", "-")
    name = f"one client of {first.clients:,}, {mode}, {first.neighbours} neighbours, d={d:,}"
    yield Row(name=name, unit="ms", ours=[cost.seconds * 1e3 for cost in costs])
    yield Row(name=f"{name}: {UP}", unit="kB", ours=[first.sent / 1e3])
    yield Row(name=f"{name}: {DOWN}", unit="kB", ours=[first.received / 1e3])


def _hybrid(tries: int, quick: bool) -> Iterator[Row]:
    """The suite that outlives X25519, beside X25519 alone."""
    if not available():
        return
    d, n = (1000, 210) if quick else (100_000, 1000)
    kinds: dict[str, Callable[..., ClientCost]] = {
        "10, active, complete graph": partial(_one_of_ten, d),
        f"{n:,}, semi-honest, nobody may drop": partial(one_client, n, d, dropout=0.0, colluders=n // 20),
        f"{n:,}, active, chosen graph": partial(one_active_client, n, d),
    }
    for kind, measure in kinds.items():
        pairs = [(measure(suite=HYBRID), measure(suite="x25519")) for _ in range(tries)]
        hybrid, plain = pairs[0]
        name = f"hybrid keys, one client of {kind}, {hybrid.neighbours} neighbours, d={d:,}"
        for what, unit, ours, other in (
            ("", "ms", [one.seconds * 1e3 for one, _ in pairs], [one.seconds * 1e3 for _, one in pairs]),
            (f": {UP}", "kB", [hybrid.sent / 1e3], [plain.sent / 1e3]),
            (f": {DOWN}", "kB", [hybrid.received / 1e3], [plain.received / 1e3]),
        ):
            yield Row(name=name + what, unit=unit, ours=ours, instead="X25519 alone", other=other)


def _one_of_ten(d: int, suite: Suite) -> ClientCost:
    result, laps, _ = _session(10, d, "active", suite=suite)
    up, down = max(result.uplink_bytes.values()) - 8 * result.words, max(result.downlink_bytes.values())
    return ClientCost(10, 9, laps.client(10), up, down, Mode.ACTIVE, suite)


def _points(quick: bool) -> dict[str, dict[int, tuple[int, int]]]:
    """The plot: titles, and at each x the clients and coordinates of a session."""
    sizes, lengths = ((3, 5), (1_000, 10_000)) if quick else ((5, 10, 20, 40), (10_000, 100_000, 1_000_000))
    d, n = lengths[-2], sizes[1]
    return {
        f"clients n, at d={d:,}": {x: (x, d) for x in sizes},
        f"coordinates d, at n={n}": {x: (n, x) for x in lengths},
    }


def _plotted(n: int, d: int) -> str:
    return f"one client of {n}, active, d={d:,}, all stages"


def _curves(tries: int, quick: bool, flower: bool) -> Iterator[Row]:
    for n, d in dict.fromkeys(point for points in _points(quick).values() for point in points.values()):
        ours, other = [], []
        for _ in range(tries):
            ours.append(_session(n, d, "active")[1].client(n) * 1e3)
            if flower:
                other.append(_one_of(FlowerSession(n, d).run()) * 1e3)
        yield Row(name=_plotted(n, d), unit="ms", ours=ours, **_beside(flower, other))


def _plot(path: Path, rows: Sequence[Row], quick: bool) -> str:
    if importlib.util.find_spec("matplotlib") is None:
        return "matplotlib is missing: no plot was written."
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    plt: Any = importlib.import_module("matplotlib.pyplot")
    known, curves = {row.name: row for row in rows}, _points(quick)
    figure, axes = plt.subplots(1, len(curves), figsize=(10, 4), sharey=True, layout="constrained")
    for axis, (title, points) in zip(axes, curves.items(), strict=True):
        found = {x: known[_plotted(*point)] for x, point in points.items()}
        axis.loglog(list(found), [row.value for row in found.values()], "o-", label="prism_crypto, active")
        if all(row.other for row in found.values()):
            theirs = [statistics.median(row.other) for row in found.values()]
            axis.loglog(list(found), theirs, "s--", label=SECAGG)
        axis.set_xlabel(title)
        axis.grid(visible=True, which="both", alpha=0.3)
    axes[0].set_ylabel("milliseconds of one client, whole session")
    axes[0].legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return f"The plot is in {path}."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns an exit code.

    Args:
        argv: arguments, by default those of the process; `--help` explains them.
    """
    parser = argparse.ArgumentParser(
        prog="bench secure-sum", description="Measure the secure sum, with Flower's SecAgg+ beside it."
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write bench.json and bench.md there")
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="say what changed since then")
    parser.add_argument(
        "--tries", type=int, default=5, metavar="N", help=f"of each figure, {FEW} of slow ones (default 5)"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, seconds instead of minutes")
    parser.add_argument("--no-flower", action="store_true", help="leave flwr out even where it is installed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what bench.json has to FILE")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="write a plot of cost against n and d to FILE"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.one:
        print(json.dumps(_one(options.one)))
        return 0
    if options.tries < 1:
        parser.error(f"--tries must be at least 1, got {options.tries}")
    try:
        old = None if options.compare is None else read(options.compare)
    except ValueError as error:
        parser.error(str(error))
    began = time.perf_counter()
    known, version = machine(), None if options.no_flower else flower_version()
    if version is not None:
        known["flwr"] = f"{version}, SecAgg+ with its defaults, threshold ⌊2n/3⌋+1, without its messages"
    found = list(rows(options.tries, quick=options.quick, flower=not options.no_flower))
    took = {SUBJECT: time.perf_counter() - began}
    bench = Bench(known, {SUBJECT: found}, {SUBJECT: peak_mib()}, took)
    tell(bench, options.out, old)
    if version is None:
        print("\nflwr is missing or left out. In a clone, `pip install '.[flower]'` puts it beside.")
    if options.json is not None:
        options.json.write_bytes(encoded(bench))
    if options.plot is not None:
        print(_plot(options.plot, found, options.quick))
    return 0


if __name__ == "__main__":
    sys.exit(main())
