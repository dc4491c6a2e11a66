"""How often an audit finds each planted defect, and how often it blames an honest mechanism.

    python experiments/audit/rates.py --seeds 100 --out experiments/audit/rates.jsonl
    python experiments/audit/rates.py --table experiments/audit/rates.jsonl

The first appends one line for every (mechanism, seed) that the file does not have yet; the second prints the
table. Two processes share the work with `--first 0 --seeds 50` and `--first 50 --seeds 50` and a file each.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import torch

from prism_privacy.audit import audit_mechanism

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "privacy" / "audit"))
from planted_mechanisms import HONEST, PLANTED, Case

HONEST_TRIALS, HONEST_SEEDS = 2048, 20
"""Five honest mechanisms, so many seeds each, with the default number of trials."""


def measure(case: Case, seed: int) -> dict[str, Any]:
    started = time.process_time()
    trials = HONEST_TRIALS if case in HONEST else case.trials
    result = audit_mechanism(case.make(), case.claim, seed=seed, trials=trials)
    return {
        "mechanism": case.name,
        "seed": seed,
        "verdict": result.verdict.value,
        "findings": sorted({f"{finding.layer.value}: {finding.name}" for finding in result.findings}),
        "trials": result.trials,
        "dim": result.dim,
        "calls": result.calls,
        "confidence": result.confidence,
        "cpu_seconds": round(time.process_time() - started, 2),
    }


def run(out: Path, first: int, seeds: int) -> None:
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    done = {(row["mechanism"], row["seed"]) for row in rows}
    with out.open("a") as file:
        for case in (*HONEST, *PLANTED):
            for seed in range(first, min(first + seeds, HONEST_SEEDS if case in HONEST else 1 << 31)):
                if (case.name, seed) not in done:
                    file.write(json.dumps(measure(case, seed), ensure_ascii=False) + "\n")
                    file.flush()


def table(path: Path) -> None:
    rows = defaultdict(list)
    for line in path.read_text().splitlines():
        row = json.loads(line)
        rows[row["mechanism"]].append(row)
    columns = ["mechanism", "found", "two worlds", "one run", "independent", "goodness of fit", "structure"]
    columns += ["trials", "calls", "bits a call", "CPU s"]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for case in (*PLANTED, *HONEST):
        mine = rows[case.name]
        names = Counter(name for row in mine for name in row["findings"])
        layers = Counter(name for row in mine for name in {f.split(":")[0] for f in row["findings"]})
        seconds = sorted(row["cpu_seconds"] for row in mine)
        found = sum(row["verdict"] == "finding" for row in mine)
        cells = [
            case.name,
            f"{found}/{len(mine)}",
            *(names[f"lower bound: {name}"] for name in ("two worlds", "one run", "independent coordinates")),
            layers["goodness of fit"],
            layers["structure"],
            f"{mine[0]['trials']:,}",
            f"{mine[0]['calls']:,}",
            f"{mine[0]['dim']:,}",
            f"{seconds[len(mine) // 2]:.2f} (most {seconds[-1]:.2f})",
        ]
        print("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--out", type=Path, default=Path("rates.jsonl"))
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.table:
        table(options.table)
    else:
        run(options.out, options.first, options.seeds)
