"""What the kill tests run in a child: appending and sending, forever."""

import os

import numpy as np

from prism_privacy.ledger import Ledger
from prism_privacy.ledger.key import LedgerKey
from prism_privacy.masks.coins import CoinSecret, release_bits
from prism_privacy.masks.outbox import Outbox
from prism_privacy.masks.release import MaskRelease


def append(path: str, key_path: str) -> None:
    """Appends entries and acknowledges each with its round."""
    ledger = Ledger.open(path, LedgerKey.load(key_path))
    while True:
        number = len(ledger.entries) + 1
        release = MaskRelease(0.25, 1.0, cohort=3)
        ledger.append(round=number, release=release, delta=1e-5, epsilon=None, metrics={"note": "x" * 3000})
        os.write(1, b"%d\n" % number)


def send(folder: str) -> None:
    """Sends uploads, from the third round before the last on; every process draws coins of its own.

    Other coins in every process are the worst that a careless resume could do.
    """
    outbox, fresh = Outbox(folder), CoinSecret()
    for number in range(max(0, *outbox.rounds("fed"), 3) - 3, 10**6):
        packed = outbox.stored("fed", number)
        if packed is None:
            p = np.full(4096, 1 << 23, np.uint32)
            bits = release_bits(p, fresh.stream("fed", number, bytes(32), "mask"))
            packed = outbox.keep("fed", number, np.packbits(bits).tobytes())
        os.write(1, b"%d %s\n" % (number, packed.hex().encode()))
