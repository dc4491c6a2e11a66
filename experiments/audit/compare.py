"""What lower bounds alone say of the planted defects: jax_privacy's auditor on the same uploads as ours.

    pip download --no-deps jax-privacy && unzip jax_privacy-*.whl    (its auditor needs no jax)
    python experiments/audit/compare.py jax_privacy/auditing.py ["a planted mechanism" ...]

Both get 2048 uploads of a canary and 2048 of its neighbour, scored by how many bits agree with the canary,
and 100,000 single coordinates with the canary in or out. Prints a table.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from prism_privacy.audit import audit_mechanism
from prism_privacy.audit.black_box import BlackBox, Seeds
from prism_privacy.audit.probes import Probes

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "privacy" / "audit"))
from planted_mechanisms import HONEST, PLANTED, Case

UPLOADS, COORDINATES, ERROR, TINY = 2048, 50_000, 0.01, 1e-12


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("auditing", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["auditing"] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def scores(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Agreements of uploads in the two worlds, and single bits of coordinates with the canary in or out."""
    rng = np.random.default_rng(0)
    dim = case.claim.smallest_dim()
    box = BlackBox(case.make(), Probes.calls(case.claim, UPLOADS), None)
    probes = Probes(case.claim, box, dim, UPLOADS, rng, Seeds(rng))
    inside, outside = probes.repeated().per_call, probes.neighbour()
    seen: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    while sum(map(len, seen[0])) < COORDINATES or sum(map(len, seen[1])) < COORDINATES:
        signs = rng.integers(0, 2, dim)
        bits = box(probes.edge(signs), np.full(dim, 0.5), int(rng.integers(1 << 31)), "coordinates")
        for sign in (0, 1):
            seen[sign].append(bits[signs == sign])
    without, with_canary = (np.concatenate(bits)[:COORDINATES].astype(float) for bits in seen)
    return inside.astype(float), outside.astype(float), with_canary, without


def main(auditing: ModuleType, only: list[str]) -> None:
    print("| mechanism | claimed ε | their Clopper–Pearson | their one run, coordinates | claimed | ours |")
    print("|---|---|---|---|---|---|")
    for case in (*PLANTED, HONEST[0], HONEST[1]):
        if only and case.name not in only:
            continue
        inside, outside, with_canary, without = scores(case)
        uploads = auditing.CanaryScoreAuditor(inside, outside)
        coordinates = auditing.CanaryScoreAuditor(with_canary, without)
        classic = uploads.epsilon_clopper_pearson(ERROR, delta=case.claim.delta, one_sided=False)
        one_run = coordinates.epsilon_one_run(ERROR, TINY, threshold_strategy=auditing.Explicit(0.5))
        ours = audit_mechanism(case.make(), case.claim, trials=UPLOADS)
        bounds = {bound.name: bound for bound in ours.bounds}
        layers = sorted({finding.layer.value for finding in ours.findings})
        cells = [
            case.name,
            f"{bounds['two worlds'].claimed:.4g}",
            f"{classic:.3g}{' **refuted**' if classic > bounds['two worlds'].claimed else ''}",
            f"{one_run:.3g}{' **refuted**' if one_run > bounds['one run'].claimed else ''}",
            f"{bounds['one run'].claimed:.3g}",
            ", ".join(layers) or ours.verdict.value,
        ]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(load(Path(sys.argv[1])), sys.argv[2:])
