"""A program of its own that asks for stored releases at the same moment as others do.

    python racing.py FOLDER FILES

Prints "ready", waits for a line, then asks for FILES releases one by one and prints a digest of each.
"""

import hashlib
import sys
import time
from pathlib import Path

import numpy as np

from prism_privacy.moments.noisy_sums import NoisySums, release_moments
from prism_privacy.moments.release import MomentRelease
from prism_privacy.moments.store import moments_once


def main() -> None:
    folder, files = Path(sys.argv[1]), int(sys.argv[2])
    release = MomentRelease(records=4, norm=1.0, sigma=0.1)
    features = np.eye(4)

    def make() -> NoisySums:
        sums = release_moments(features, None, release)
        time.sleep(0.02)
        return sums

    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(files):
        sums = moments_once(folder / f"{number}", release, "race", make)
        print(hashlib.sha256(sums.first.tobytes()).hexdigest(), flush=True)


if __name__ == "__main__":
    main()
