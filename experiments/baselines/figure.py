"""Bytes, epsilon and FID of each baseline, from FOLDER/results.jsonl: figure.png and table.md beside it.

python experiments/baselines/figure.py FOLDER
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt

COLOURS = {
    "masks": "#1f6f8b", "fedavg": "#b4552d", "dp-fedavg": "#7a4a9e", "server": "#3b7d3b",
    "server-mask": "#94a02c",
}  # fmt: skip


def number(value: object) -> float:
    """JSON lines write infinity as a word."""
    return math.nan if value is None else float(str(value))


def words(epsilon: float) -> str:
    return "inf" if math.isinf(epsilon) else f"{epsilon:.3g}"


def main() -> None:
    """Draw and write."""
    folder = Path(sys.argv[1])
    lines = [json.loads(line) for line in (folder / "results.jsonl").open()]
    names = list(dict.fromkeys(line["name"] for line in lines))
    fig, axis = plt.subplots(figsize=(6.4, 3.8))
    rows = ["| | FID | coverage | as asked | sent by all clients | ε of an image | ε(SUM) of a client |"]
    rows.append("|---|---|---|---|---|---|---|")
    for name in names:
        own = [line for line in lines if line["name"] == name]
        last = own[-1]
        sent = [number(line["uplink_bytes"]) / 1e6 for line in own]
        colour = COLOURS.get(name, "#555555")
        image, client = number(last["epsilon_image"]), number(last["epsilon_client"])
        label = f"{name}: ε(image) {words(image)}, ε(client) {words(client)}"
        axis.plot(sent, [line["fid"] for line in own], "o-", markersize=3.5, color=colour, label=label)
        accuracy = number(last["label_accuracy"])
        rows.append(
            f"| {name} | {last['fid']:.1f} | {last['coverage']:.3f} | "
            f"{'–' if math.isnan(accuracy) else f'{accuracy:.1%}'} | {sent[-1]:.2f} MB | {words(image)} | "
            f"{words(client)} |"
        )
    axis.set_xscale("log")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("MB sent by all clients so far")
    axis.set_ylabel("FID (shipped classifier)")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
    fig.tight_layout()
    fig.savefig(folder / "figure.png", dpi=130)
    (folder / "table.md").write_text("\n".join(rows) + "\n")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
