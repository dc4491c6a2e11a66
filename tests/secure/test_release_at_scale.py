"""One client's release where d is the size of a language model: 10⁸ bits, by hand."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest

from prism_crypto.primitives.keystream import add_keystreams
from prism_crypto.wire.packing import Packing
from prism_privacy import CoinSecret, clip_toward, release_bits

COORDINATES = 100_000_000
CLIENTS = 10


@pytest.mark.slow
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_client_releases_packs_and_masks_a_hundred_million_bits(
    clip: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    values, theta = (rng.random(COORDINATES, dtype=np.float32) for _ in range(2))
    coins = CoinSecret.for_test(bytes(32)).stream("scale", 1, bytes(32), "mask")
    packing = Packing(COORDINATES, CLIENTS)
    tracemalloc.start()
    started = time.process_time()
    p = clip_toward(values, theta, flip=0.25, clip=clip)
    clipped = time.process_time()
    bits = release_bits(p, coins)
    del p
    drawn = time.process_time()
    words = packing.pack(bits, bound=1)
    packed = time.process_time()
    add_keystreams(words, [(bytes([peer]) * 32, peer < 5) for peer in range(CLIENTS)])
    masked = time.process_time()
    peak = tracemalloc.get_traced_memory()[1] / COORDINATES
    tracemalloc.stop()
    each = 1e9 / COORDINATES
    with capsys.disabled():
        print(
            f"\nd = 10^8, clip = {clip}, CPU ns a coordinate: "
            f"clip and flip {each * (clipped - started):.2f}, coins {each * (drawn - clipped):.2f}, "
            f"packing {each * (packed - drawn):.2f}, {CLIENTS} masks {each * (masked - packed):.2f}; "
            f"peak {peak:.2f} bytes a coordinate beside scores and theta"
        )
    # A bit is 1 with the probability that the scores say, and the words are the bits' until they are masked.
    assert abs(bits.mean() - 0.5) < 5 * 0.5 / COORDINATES**0.5 + 1e-4
    assert peak <= 6.0
    add_keystreams(words, [(bytes([peer]) * 32, peer >= 5) for peer in range(CLIENTS)])
    assert np.array_equal(packing.unpack(words, 1, bound=1), bits)
