"""One client's release where d is the size of a language model: 10⁸ bits, by hand."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest

from prism_crypto.primitives.keystream import add_keystreams
from prism_crypto.wire.packing import Packing
from prism_privacy import CoinSecret, MaskRelease
from prism_secure.plug_in import release_mask

COORDINATES = 100_000_000
CLIENTS = 10


@pytest.mark.slow
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_client_releases_packs_and_masks_a_hundred_million_bits(
    clip: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    values, theta = (rng.random(COORDINATES, dtype=np.float32) for _ in range(2))
    release = MaskRelease(0.25, clip, dim=None if clip else COORDINATES)
    coins, packing = CoinSecret.for_test(bytes(32)), Packing(COORDINATES, CLIENTS)
    tracemalloc.start()
    started = time.process_time()
    bits = release_mask([values], [theta], release, coins, federation="scale", round=1)[0]
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
            f"\nd = {COORDINATES:,}, clip = {clip}, CPU ns a coordinate: "
            f"clip, flip, digest and coins {each * (drawn - started):.2f}, "
            f"packing {each * (packed - drawn):.2f}, {CLIENTS} masks {each * (masked - packed):.2f}; "
            f"peak {peak:.2f} bytes a coordinate beside scores and theta"
        )
    # A bit is 1 with the probability that the scores say, and the words are the bits' until they are masked.
    assert abs(bits.mean() - 0.5) < 5 * 0.5 / COORDINATES**0.5 + 1e-4
    assert peak <= 6.0
    add_keystreams(words, [(bytes([peer]) * 32, peer >= 5) for peer in range(CLIENTS)])
    assert np.array_equal(packing.unpack(words, 1, bound=1), bits)
