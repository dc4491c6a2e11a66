"""What was measured, and how it is written down: one form for all that is measured here and above."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

__all__ = [
    "Action", "Bench", "Row", "compared", "encoded", "in_turn", "markdown", "peak_mib", "read", "tell",
]  # fmt: skip

Action = Callable[[], object]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One measured figure.

    Attributes:
        name: what was measured.
        unit: of all values: less is better.
        ours: each try.
        other: each try of what one would take instead, called `instead`; empty where there is nothing.
        limit: the least that this machine could need, by what `bound` says; None where nobody knows.
        bar: what is aimed at, in words.
    """

    name: str
    unit: str
    ours: list[float]
    instead: str = ""
    other: list[float] = []
    bound: str = ""
    limit: float | None = None
    bar: str = ""

    @property
    def value(self) -> float:
        """The median try."""
        return statistics.median(self.ours)

    @property
    def faster(self) -> float | None:
        """How many times as much the other takes: the median over tries made side by side."""
        pairs = zip(self.other, self.ours, strict=True) if self.other else ()
        return statistics.median([other / ours for other, ours in pairs]) if self.other else None

    @property
    def of_limit(self) -> float | None:
        """How many times the limit is taken."""
        return None if self.limit is None else self.value / self.limit


class Bench(msgspec.Struct, frozen=True):
    """All that one call measured.

    Attributes:
        machine: what ran it, in words and in its measured limits.
        rows: figures by subject.
        peak_mib: the largest memory of each subject's process.
        seconds: how long each took, by the clock.
    """

    machine: dict[str, str | float]
    rows: dict[str, list[Row]]
    peak_mib: dict[str, float]
    seconds: dict[str, float]


def in_turn(
    tries: int,
    *actions: Action,
    scale: float = 1.0,
    least: float = 0.02,
    clock: Callable[[], float] = time.process_time,
) -> list[list[float]]:
    """Seconds of `clock` times `scale` of each action, once a try, one after the other; CPU time by default.

    Quick ones are repeated until they have taken `least` seconds: a first round, which is not counted, warms
    caches and says how often that is. With `least` = 0 there is no such round.
    """

    def seconds(action: Action, times: int) -> float:
        began = clock()
        for _ in range(times):
            action()
        return clock() - began

    repeats = [1] * len(actions)
    if least > 0.0:
        repeats = [max(1, int(least / max(seconds(action, 1), 1e-7))) for action in actions]
    found: list[list[float]] = [[] for _ in actions]
    for _ in range(tries):
        for each, action, times in zip(found, actions, repeats, strict=True):
            each.append(seconds(action, times) / times * scale)
    return found


def markdown(bench: Bench) -> str:
    """Tables, a subject each."""
    lines = [
        f"{name}: {value if isinstance(value, str) else f'{value:.4g}'}  "
        for name, value in bench.machine.items()
    ]
    for subject, rows in bench.rows.items():
        bars = any(row.bar for row in rows)
        lines += [
            "",
            f"## {subject}",
            "",
            f"{bench.seconds[subject]:.0f} s, peak {bench.peak_mib[subject]:,.0f} MiB",
            "",
            "| | median (least to most) | instead | takes | of the limit |" + " aimed at |" * bars,
            "|---|---|---|---|---|" + "---|" * bars,
        ]
        for row in rows:
            spread = f" ({min(row.ours):.3g} to {max(row.ours):.3g})" if len(row.ours) > 1 else ""
            faster = "" if row.faster is None else f"{row.faster:.3g}×"
            limit = "" if row.of_limit is None else f"{row.of_limit:.3g}× {row.bound}"
            lines.append(
                f"| {row.name} | {row.value:.3g} {row.unit}{spread} | {row.instead} | {faster} | {limit} |"
                + f" {row.bar} |" * bars
            )
    return "\n".join(lines) + "\n"


_BENCHES = msgspec.json.Decoder(Bench)


def read(path: Path) -> Bench:
    """What `tell` wrote.

    Raises:
        ValueError: it cannot be read, or is something else.
    """
    try:
        return _BENCHES.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise ValueError(f"--compare takes a bench.json that `bench --out` wrote; {path}: {error}") from None


def tell(bench: Bench, out: Path | None, old: Bench | None) -> None:
    """Print it and what changed since `old`; write bench.json and bench.md in a folder, made if need be."""
    text = markdown(bench)
    print(text, end="")
    if old is not None:
        print(f"\n{compared(bench.rows, old)}", end="")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "bench.json").write_bytes(encoded(bench))
        (out / "bench.md").write_text(text, encoding="utf-8")


def encoded(bench: Bench) -> bytes:
    """As `read` reads it."""
    return msgspec.json.format(msgspec.json.encode(bench), indent=1) + b"\n"


def peak_mib() -> float:
    """Peak memory of this process. Linux's ``ru_maxrss`` would count the process that started it, too."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def compared(now: Mapping[str, Sequence[Row]], old: Bench) -> str:
    """Now over then, of the rows that both have: of times, and of ratios, which other load does not move."""
    lines = ["| | then | now | times | of its ratio to what one takes instead |", "|---|---|---|---|---|"]
    for subject, rows in now.items():
        known = {row.name: row for row in old.rows.get(subject, [])}
        for row in rows:
            if row.name not in known:
                continue
            before = known[row.name]
            ratio = f"{row.faster / before.faster:.2f}" if row.faster and before.faster else ""
            times = row.value / before.value if before.value else float("nan")
            values = f"{before.value:.3g} | {row.value:.3g} {row.unit} | {times:.2f}"
            lines.append(f"| {subject}: {row.name} | {values} | {ratio} |")
    return "\n".join(lines) + "\n"
