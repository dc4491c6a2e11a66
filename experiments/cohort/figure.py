"""FID by round, and what the server received against the noise: curve.png, from the runs' records.

    python experiments/cohort/figure.py

Reads results.jsonl (of simulate.py) and n1000.jsonl (metrics.jsonl of the run with secure sums) beside it.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent


def main() -> None:
    """Draw the figure."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    run = HERE / "n1000.jsonl"
    if run.exists():
        records = [json.loads(line) for line in run.read_text().splitlines()]
        points = [(r["round"], r["quality"]["fid"]) for r in records if r["quality"]]
        left.plot(*zip(*points, strict=True), "k-o", ms=4, lw=2, label="n = 1,000, secure sums, ε = 7")
    for line in (HERE / "results.jsonl").read_text().splitlines():
        result = json.loads(line)
        rounds = [h["round"] for h in result["history"]]
        left.plot(rounds, [h["fid"] for h in result["history"]], "-o", ms=3, lw=1, label=result["name"])
        right.plot(rounds, [h["signal_to_noise"] for h in result["history"]], "-o", ms=3, lw=1)
    left.set(xlabel="round", ylabel="FID", ylim=(0, 450))
    right.set(xlabel="round", ylabel="signal / noise of one round's sum", yscale="log")
    left.legend(fontsize=7)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(HERE / "curve.png", dpi=130)


if __name__ == "__main__":
    main()
