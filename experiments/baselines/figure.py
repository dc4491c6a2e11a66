"""Bytes, epsilon and FID of each baseline, from FOLDER/results.jsonl: figure.png and table.md beside it.

Names that end in -s0, -s1 and so on are seeds of one baseline.

python experiments/baselines/figure.py FOLDER
"""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt

sys.path.insert(0, str(Path(__file__).parents[1]))
from results import read, spread

COLOURS = {
    "masks": "#1f6f8b", "fedavg": "#b4552d", "dp-fedavg": "#7a4a9e", "server": "#3b7d3b",
    "server-mask": "#94a02c", "server-2000": "#7fc97f",
}  # fmt: skip


def number(value: object) -> float:
    """JSON lines write infinity as a word."""
    return math.nan if value is None else float(str(value))


def words(epsilon: float) -> str:
    return "inf" if math.isinf(epsilon) else f"{epsilon:.3g}"


def main() -> None:
    """Draw and write."""
    folder = Path(sys.argv[1])
    lines = read(folder / "results.jsonl")
    runs = list(dict.fromkeys(line["name"] for line in lines))
    kinds: dict[str, list[str]] = {}
    for run in runs:
        kinds.setdefault(re.sub(r"-s\d+$", "", run), []).append(run)
    fig, axis = plt.subplots(figsize=(6.4, 3.8))
    rows = [
        "| | seeds | FID | coverage | as asked | sent by all clients | ε of an image | ε(SUM) of a client |"
    ]
    rows.append("|---|---|---|---|---|---|---|---|")
    for kind, members in kinds.items():
        each = [[line for line in lines if line["name"] == name] for name in members]
        last = [own[-1] for own in each]
        image, client = number(last[0]["epsilon_image"]), number(last[0]["epsilon_client"])
        label = f"{kind}: ε(image) {words(image)}, ε(client) {words(client)}"
        for own in each:
            sent = [number(line["uplink_bytes"]) / 1e6 for line in own]
            colour = COLOURS.get(kind, "#555555")
            axis.plot(sent, [line["fid"] for line in own], "o-", markersize=3.5, color=colour, label=label)
            label = ""
        accuracy = number(last[0]["label_accuracy"])
        rows.append(
            f"| {kind} | {len(last)} | {spread([line['fid'] for line in last], '.1f')} | "
            f"{spread([line['coverage'] for line in last], '.3f')} | "
            f"{'–' if math.isnan(accuracy) else spread([line['label_accuracy'] for line in last], '.1%')} | "
            f"{number(last[0]['uplink_bytes']) / 1e6:.2f} MB | {words(image)} | {words(client)} |"
        )
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("{x:g}")
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
