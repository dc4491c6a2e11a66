"""Train a classifier for the metrics on public images of one's own.

    python experiments/classifier/own.py --set data.source=images --set data.folder=PUBLIC --out FILE

The images are whatever the settings of `data` name, as a run would read them. They must be public: none of a
client's, and none of those that a run holds out. README.md says how a recipe names FILE, a new .safetensors.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from prism_secure.config import load_config
from prism_secure.quality.classifier import save_classifier
from prism_secure.quality.networks import ClassifierFeatures, weights_digest
from prism_secure.quality.utility import accuracy, train_classifier
from prism_secure.rounds.components import Components

EPOCHS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="changes")
    parser.add_argument("--out", type=Path, required=True, help="a new .safetensors")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args()
    if options.out.exists():
        raise SystemExit(f"{options.out} exists: name a new file")
    data = Components(load_config(None, options.changes)).dataset
    classes = len(data.classes)
    network = train_classifier(data.train_images, data.train_labels, classes=classes, epochs=options.epochs)
    save_classifier(network, options.out, names=data.classes)
    found = accuracy(network, data.test_images, data.test_labels)
    digest = weights_digest(ClassifierFeatures(options.out))
    print(f"{options.out}: {found:.1%} of {len(data.test_images):,} images held apart; weights {digest}")


if __name__ == "__main__":
    main()
