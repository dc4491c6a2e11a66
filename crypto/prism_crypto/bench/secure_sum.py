"""What the secure sum costs, measured here and now, with Flower's SecAgg+ beside it where flwr is installed.

``python -m prism_crypto.bench`` prints one table; ``--json`` and ``--plot`` write what it found. Both sides
run in this process, one after the other, on the same machine in the same minute; figures of different runs
are not comparable. Times are CPU time (other processes do not count), as medians over clients or the best of
a few sessions; the two large sessions are in wall-clock seconds too.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from prism_crypto.bench.flower_secagg import FlowerSession, flower_version
from prism_crypto.bench.growth import ClientCost, one_active_client, one_client
from prism_crypto.primitives.chosen_graph import chosen_parameters
from prism_crypto.primitives.hybrid import available
from prism_crypto.primitives.keystream import add_keystream
from prism_crypto.secure_sum import secure_sum
from prism_crypto.server import SecureSumResult
from prism_crypto.session import COMPLETE_LIMIT, Session
from prism_crypto.spec import CountSpec
from prism_crypto.stage import Stage
from prism_crypto.wire.packing import Packing

__all__ = ["Figure", "main"]


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        name: what was measured.
        ours: our value.
        unit: of both values.
        flower: Flower's value, if it was measured.
        bar: what is aimed at: at least this many times faster than Flower, or at most this value.
    """

    name: str
    ours: float
    unit: str
    flower: float | None = None
    bar: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times Flower's value is ours."""
        return None if self.flower is None else self.flower / self.ours


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


def _limit(n: int, d: int) -> float:
    """Seconds for the keystreams and additions of one client's masks, and nothing else: AES-GCM of
    ``cryptography`` into a reused buffer, and ``numpy.add``; the best of several tries."""
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

    return _best(all_masks)


def _masking(n: int, d: int) -> float:
    """Seconds for the same masks by this package's own function."""
    words = np.zeros(Packing(d, n).length, dtype=np.uint64)
    seeds = [os.urandom(32) for _ in range(n)]

    def all_masks() -> None:
        for seed in seeds:
            add_keystream(words, seed)

    return _best(all_masks)


def _best(action: Callable[[], object], tries: int = 7) -> float:
    seconds = []
    for _ in range(tries):
        start = time.process_time()
        action()
        seconds.append(time.process_time() - start)
    return min(seconds)


def _figures(quick: bool, flower: bool) -> Iterator[Figure]:
    d = 100_000 if quick else 1_000_000
    tries = 1 if quick else 3

    runs = [_session(10, d, "active") for _ in range(tries)]
    result, laps, _ = min(runs, key=lambda run: run[1].client(10))
    theirs = FlowerSession(10, d).run() if flower else None
    upload = statistics.median(laps.each["client.upload"])
    yield Figure(
        f"upload step of a client, d={d:,} n=10",
        upload * 1e3,
        "ms",
        statistics.median(theirs.seconds["upload"]) * 1e3 if theirs else None,
        "≥ 30× faster",
    )
    whole = (
        sum(statistics.median(times) for stage, times in theirs.seconds.items() if stage != "server")
        if theirs
        else 0
    )
    yield Figure(
        f"a client's whole session, active, d={d:,} n=10",
        laps.client(10) * 1e3,
        "ms",
        whole * 1e3 if theirs else None,
        "≥ 15× faster",
    )
    limit, masking = _limit(10, d), _masking(10, d)
    yield Figure(
        f"masking against keystreams + adds alone ({limit * 1e3:.2f} ms)", masking / limit, "×", None, "≤ 1.5"
    )
    yield Figure("whole upload step against the same", upload / limit, "×")
    yield Figure(
        "wire, n=10",
        result.bits_per_coordinate,
        "bits/coordinate",
        8 * theirs.upload_bytes / d if theirs else None,
        "≤ 3.6",
    )

    n = 20 if quick else 50
    shared = sum(FlowerSession(n, 1).run(until="share").seconds["share"]) if flower else None
    for mode, bar in (("semi_honest", "≥ 80× faster"), ("active", "≥ 25× faster")):
        best = min(_session(n, 100, mode)[1]["client.share"] for _ in range(tries))
        yield Figure(
            f"share stage, n={n}, all clients, {mode}", best * 1e3, "ms", shared and shared * 1e3, bar
        )

    _, laps, _ = min((_session(20, d, "active", 2) for _ in range(tries)), key=lambda run: run[1].server())
    theirs = FlowerSession(20, d, dropped=2).run() if flower else None
    yield Figure(
        f"server, d={d:,} n=20, 2 dropped", laps.server() * 1e3, "ms",
        sum(theirs.seconds["server"]) * 1e3 if theirs else None, "≥ 10× faster",
    )  # fmt: skip

    for name, arguments in _LARGE.items():
        yield from _apart(name, quick, arguments)


_LARGE: dict[str, dict[str, Any]] = {
    "n=100 active, complete graph, 10 dropped": {"n": 100, "mode": "active", "dropped": 10, "bar": "≤ 15"},
    "n=1000 semi-honest, sparse graph, 50 dropped": {
        "n": 1000,
        "mode": "semi_honest",
        "dropped": 50,
        "bar": "≤ 60",
    },
    "n=1000 active, chosen graph, 50 dropped": {
        "n": 1000,
        "mode": "active",
        "dropped": 50,
        "bar": "≤ 60",
        "shorter": 10,
    },
}


def _apart(name: str, quick: bool, arguments: dict[str, Any]) -> Iterator[Figure]:
    """Run a large session in a process of its own, so that its peak of memory is its own."""
    d = (10_000 if quick else 1_000_000) // arguments.get("shorter", 1)
    n: int = arguments["n"]
    found = _in_another_process(n, d, arguments["mode"], arguments["dropped"])
    bits = {10: "≤ 3.6", 100: "≤ 7.2", 1000: "≤ 10.7"}[n]
    yield Figure(f"{name}, d={d:,}, every party", found["seconds"], "s", None, arguments["bar"])
    yield Figure("  its CPU time", found["cpu"], "s")
    yield Figure("  its peak memory", found["peak_mib"], "MiB", None, "≤ 1024" if n == 1000 else "")
    yield Figure("  its wire", found["bits"], "bits/coordinate", None, bits)
    k = round(found["neighbours"])
    yield Figure(
        f"  bytes up beside the vector ({k} neighbours)", found["up"], "B", None, f"≤ {2048 + 200 * k}"
    )
    # Where clients choose, each advert names the sender's choices, and neighbours' vouchers come twice.
    each = 350 + (2 * k if "chosen" in name else 0)
    yield Figure("  bytes down", found["down"], "B", None, f"≤ {2048 + each * k}")


def _in_another_process(n: int, d: int, mode: str, dropped: int) -> dict[str, float]:
    command = [sys.executable, "-m", "prism_crypto.bench", "--one", f"{n},{d},{mode},{dropped}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _one(description: str) -> dict[str, float]:
    """The large session that `_apart` asks for."""
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
        "peak_mib": _peak_mib(),
        "bits": result.bits_per_coordinate,
        "neighbours": neighbours,
        "up": max(result.uplink_bytes.values()) - 8 * result.words,
        "down": max(result.downlink_bytes.values()),
    }


def _peak_mib() -> float:
    """Peak memory of this process. Linux's ``ru_maxrss`` would count the process that started it, too."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _growth(quick: bool) -> list[ClientCost]:
    d = 10_000 if quick else 100_000
    sizes = (100, 300, 1000) if quick else (100, 300, 1000, 3000, 10_000)

    # The best of three clients each: one client's work is milliseconds, and other processes come between.
    def best(one: Callable[[int, int], ClientCost], n: int) -> ClientCost:
        return min((one(n, d) for _ in range(3)), key=lambda cost: cost.seconds)

    costs = [best(one_client, n) for n in sizes] + [best(one_active_client, n) for n in sizes if n > 200]
    if available():
        costs.append(best(partial(one_active_client, suite="x25519+ml-kem-768"), 1000))
    return costs


def _curves(quick: bool, flower: bool) -> dict[str, list[tuple[int, float, float | None]]]:
    """A client's whole session against n and against d: (x, our seconds, Flower's)."""

    def point(n: int, d: int) -> tuple[float, float | None]:
        ours = min(_session(n, d, "active")[1].client(n) for _ in range(1 if quick else 2))
        if not flower:
            return ours, None
        times = FlowerSession(n, d).run().seconds
        return ours, sum(sum(laps) for stage, laps in times.items() if stage != "server") / n

    sizes, lengths = ((3, 5), (1_000, 10_000)) if quick else ((5, 10, 20, 40), (10_000, 100_000, 1_000_000))
    d, n = lengths[-2], sizes[1]
    return {
        f"clients n, at d={d:,}": [(x, *point(x, d)) for x in sizes],
        f"coordinates d, at n={n}": [(x, *point(n, x)) for x in lengths],
    }


def _show(figures: Sequence[Figure], growth: Sequence[ClientCost], version: str | None) -> str:
    lines = [f"{'figure':<66}{'ours':>12}{'flwr':>12}{'ratio':>9}  bar"]
    for figure in figures:
        flower = "" if figure.flower is None else f"{figure.flower:.4g}"
        ratio = "" if figure.ratio is None else f"{figure.ratio:.1f}×"
        ours = f"{figure.ours:.4g}"
        lines.append(
            f"{figure.name + ' [' + figure.unit + ']':<66}{ours:>12}{flower:>12}{ratio:>9}  {figure.bar}"
        )
    lines += [
        "",
        f"{'one client of n, sparse graph':<34}{'neighbours':>12}{'ms':>10}{'B up':>10}{'B down':>10}"
        f"{'ln n':>8}{'mode':>13}  keys",
    ]
    for cost in growth:
        lines.append(
            f"{cost.clients:<34,}{cost.neighbours:>12}{cost.seconds * 1e3:>10.1f}{cost.sent:>10}"
            f"{cost.received:>10}{math.log(cost.clients):>8.1f}{cost.mode.value:>13}  {cost.suite}"
        )
    lines += ["", "B up: without the words of the vector."]
    if version is None:
        lines.append("flwr is missing: its column is empty. In a clone, `pip install '.[flower]'` fills it.")
    else:
        lines.append(
            f"flwr: version {version}, SecAgg+ with its defaults, threshold ⌊2n/3⌋+1, without its messages."
        )
    return "\n".join(lines)


def _plot(path: Path, curves: dict[str, list[tuple[int, float, float | None]]]) -> str:
    if importlib.util.find_spec("matplotlib") is None:
        return "matplotlib is missing: no plot was written."
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    plt: Any = importlib.import_module("matplotlib.pyplot")
    figure, axes = plt.subplots(1, len(curves), figsize=(10, 4), sharey=True, layout="constrained")
    for axis, (title, points) in zip(axes, curves.items(), strict=True):
        xs = [x for x, _, _ in points]
        axis.loglog(xs, [ours for _, ours, _ in points], "o-", label="prism_crypto, active")
        theirs = [flower for _, _, flower in points]
        if all(flower is not None for flower in theirs):
            axis.loglog(xs, theirs, "s--", label="flwr SecAgg+")
        axis.set_xlabel(title)
        axis.grid(visible=True, which="both", alpha=0.3)
    axes[0].set_ylabel("seconds of one client, whole session")
    axes[0].legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return f"The plot is in {path}."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns an exit code.

    Args:
        argv: arguments, by default those of the process. ``--quick`` takes small sizes (a few seconds, to see
            that it works), ``--no-flower`` leaves flwr out, ``--json`` and ``--plot`` name files to write.
    """
    parser = argparse.ArgumentParser(
        prog="bench secure-sum", description="Measure the secure sum, with Flower's SecAgg+ beside it."
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, seconds instead of minutes")
    parser.add_argument("--no-flower", action="store_true", help="leave flwr out even where it is installed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="write a plot of cost against n and d to FILE"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.one:
        print(json.dumps(_one(options.one)))
        return 0
    version = None if options.no_flower else flower_version()
    figures = list(_figures(options.quick, version is not None))
    growth = _growth(options.quick)
    print(_show(figures, growth, version))
    curves = _curves(options.quick, version is not None) if options.plot or options.json else {}
    if options.json:
        found = {
            "flwr": version,
            "figures": [asdict(figure) for figure in figures],
            "growth": [asdict(cost) for cost in growth],
            "curves": curves,
        }
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.plot:
        print(_plot(options.plot, curves))
    return 0


if __name__ == "__main__":
    sys.exit(main())
