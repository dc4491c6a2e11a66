"""Train the feature classifier on the Fashion-MNIST training images that are not bundled.

    python experiments/classifier/train.py --idx FOLDER --out fashion_classifier.safetensors

FOLDER holds the four original idx files (`train-images-idx3-ubyte.gz` and so on). The schedule is fixed: the
test images choose nothing, they are looked at once, after the last epoch. Eight minutes on one core with
bfloat16 instructions.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional

from prism_secure.data import read_idx
from prism_secure.quality.classifier import FashionClassifier

BUNDLED_PER_CLASS = 1000


def not_bundled(labels: np.ndarray) -> np.ndarray:
    """Indices of all but the first 1,000 images of each class, in file order."""
    rank_in_class = np.zeros(len(labels), dtype=np.int64)
    for label in range(10):
        where = np.flatnonzero(labels == label)
        rank_in_class[where] = np.arange(len(where))
    return np.flatnonzero(rank_in_class >= BUNDLED_PER_CLASS)


def to_float(images: np.ndarray) -> torch.Tensor:
    # As prism_secure.data loads them, but for its rounding to whole levels.
    scaled = torch.from_numpy(np.array(images))[:, None].float() / 127.5 - 1
    return functional.interpolate(scaled, (32, 32), mode="bilinear", align_corners=False, antialias=True)


def augment(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror half of the images and shift each batch by up to two pixels."""
    flip = torch.rand(len(batch), generator=generator) < 0.5
    batch = torch.where(flip[:, None, None, None], batch.flip(3), batch)
    dy, dx = torch.randint(0, 5, (2,), generator=generator).tolist()
    return functional.pad(batch, (2, 2, 2, 2), value=-1.0)[:, :, dy : dy + 32, dx : dx + 32]


def accuracy(model: FashionClassifier, images: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    with torch.no_grad():
        hits = sum(
            int((model(x).argmax(1) == y).sum())
            for x, y in zip(images.split(500), labels.split(500), strict=True)
        )
    return hits / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--idx", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, default=Path(__file__).with_name("train.log.jsonl"))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    labels_all = read_idx(args.idx / "train-labels-idx1-ubyte.gz")
    keep = not_bundled(labels_all)
    images = to_float(read_idx(args.idx / "train-images-idx3-ubyte.gz")[keep])
    labels = torch.from_numpy(labels_all[keep].astype(np.int64))

    model = FashionClassifier().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.02)
    steps = args.epochs * (len(images) // args.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=steps, pct_start=0.2)
    start = time.monotonic()
    with args.log.open("w") as log:
        log.write(
            json.dumps(
                {
                    "images": len(images),
                    **{k: str(v) for k, v in vars(args).items() if k in ("epochs", "batch", "lr", "seed")},
                }
            )
            + "\n"
        )
        for epoch in range(1, args.epochs + 1):
            model.train()
            order = torch.randperm(len(images), generator=generator)
            total = 0.0
            batches = order.split(args.batch)[: len(images) // args.batch]
            for index in batches:
                batch = augment(images[index], generator).contiguous(memory_format=torch.channels_last)
                with torch.autocast("cpu", torch.bfloat16):
                    logits = model(batch)
                loss = functional.cross_entropy(logits.float(), labels[index])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item()
            line = {
                "epoch": epoch,
                "loss": round(total / len(batches), 4),
                "seconds": round(time.monotonic() - start),
            }
            log.write(json.dumps(line) + "\n")
            log.flush()
            print(line, flush=True)
        state = {k: v.contiguous() for k, v in model.state_dict().items()}
        test_images = to_float(read_idx(args.idx / "t10k-images-idx3-ubyte.gz"))
        test_labels = torch.from_numpy(read_idx(args.idx / "t10k-labels-idx1-ubyte.gz").astype(np.int64))
        final = {"test_accuracy": accuracy(model, test_images, test_labels), "test_images": len(test_images)}
        save_file(state, args.out, metadata={k: str(v) for k, v in final.items()})
        log.write(json.dumps(final) + "\n")
        print(final, flush=True)


if __name__ == "__main__":
    main()
