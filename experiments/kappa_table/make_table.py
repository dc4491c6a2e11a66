"""Make `prism_privacy/kappa_table.npz`: κ for common cohorts and flip probabilities, so that no sweep waits.

    python experiments/kappa_table/make_table.py            about four minutes on one free core

Values are rounded up to 32-bit floats, so a shipped value is never below the computed one (and at most 1.2e-7
of it above). Run it again whenever `edge_counts.py`, `renyi_moments.py` or `curve.py` change what
they compute; a test compares samples.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import numpy as np

from prism_privacy.accounting.kappa import store as kappa_store

COHORTS = (100, 200, 500, 1000, 2000, 5000, 10_000)
FLIPS = (0.05, 0.1, 0.2, 0.25, 0.3, 0.4)
REACHES = (0.5, 1.0)  # 1.0 stands for the whole box, 1−2f
RECIPES = ((950, 0.35),)  # of cross-device: what a first `prism-secure run` asks


def rounded_up(values: np.ndarray) -> np.ndarray:
    """The least 32-bit floats that are not below `values`."""
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    return np.where(single < values, np.nextafter(single, np.float32(np.inf)), single)


def main() -> None:
    """Compute every combination and write the file at once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    target = Path(kappa_store.__file__).with_name("kappa_table.npz")
    parser.add_argument("--out", type=Path, default=target)
    out = parser.parse_args().out
    keys, kappas, mosts = [], [], []
    for cohort, flip in (*itertools.product(COHORTS, FLIPS), *RECIPES):
        started = time.perf_counter()
        for reach in sorted({min(reach, 1.0 - 2.0 * flip) for reach in REACHES}):
            curve = kappa_store._compute(cohort, flip, reach, kappa_store.GRID)
            keys.append((cohort, flip, reach))
            kappas.append(rounded_up(curve.kappa))
            mosts.append(rounded_up(curve.most))
        print(f"cohort {cohort}, flip {flip}: {time.perf_counter() - started:.0f} s", flush=True)
    np.savez_compressed(
        out,
        orders=kappa_store.ORDERS,
        keys=np.array(keys),
        kappa=np.array(kappas, dtype=np.float32),
        most=np.array(mosts, dtype=np.float32),
    )
    print(f"{len(keys)} curves, {out.stat().st_size:,} bytes in {out}")


if __name__ == "__main__":
    main()
