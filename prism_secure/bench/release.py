"""From scores to masked words: clip and flip, coins, packing, masks; nanoseconds a coordinate."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from prism_crypto.bench.limits import copied_bytes, keystream_bytes
from prism_crypto.bench.rows import Row, in_turn
from prism_crypto.primitives.keystream import add_keystreams
from prism_crypto.wire.packing import Packing
from prism_privacy import CoinSecret, clip_toward, release_bits

CLIENTS = 10
Floats = NDArray[np.float32]


def rows(tries: int, *, quick: bool = False) -> Iterator[Row]:
    """For vectors that fit a cache, that don't, and that are long."""
    for d in (10_000,) if quick else (100_000, 1_000_000, 10_000_000):
        yield from _of_length(d, tries)


def _of_length(d: int, tries: int) -> Iterator[Row]:
    from scipy import stats

    rng = np.random.default_rng(0)
    values, theta = rng.random(d, dtype=np.float32), rng.uniform(0.01, 0.99, d).astype(np.float32)
    unit, scale = "ns/coordinate", 1e9 / d
    for clip in (None, 1.0):
        ours, other = in_turn(
            tries,
            partial(clip_toward, values, theta, flip=0.25, clip=clip),
            partial(_plain, values, theta, clip),
            scale=scale,
        )
        yield Row(
            name=f"clip and flip, C = {clip}, d = {d:,}",
            unit=unit,
            ours=ours,
            instead="the same in whole NumPy vectors, unchecked",
            other=other,
            bound="copying as much memory",
            limit=12 / 2 / copied_bytes() * 1e9,  # two floats in, an integer out; a copy is one in, one out
        )
    p = clip_toward(values, theta, flip=0.25, clip=None)
    share, secret = p / np.float32(2**24), CoinSecret.for_test(bytes(32))

    def coins() -> NDArray[np.uint8]:
        return release_bits(p, secret.stream("bench", 1, bytes(32), "mask"))

    ours, other, scipys = in_turn(
        tries, coins, lambda: (rng.random(d) < share).astype(np.uint8), lambda: stats.bernoulli.rvs(share),
        scale=scale,
    )  # fmt: skip
    for instead, taken in (("rng.random(d) < p", other), ("scipy.stats.bernoulli.rvs(p)", scipys)):
        yield Row(
            name=f"coins, d = {d:,}, beside {instead.split('(')[0]}",
            unit=unit,
            ours=ours,
            instead=f"{instead}, which no secret makes",
            other=taken,
            bound="AES of four bytes a bit",
            limit=4 / keystream_bytes() * 1e9,
        )
    bits, packing = coins(), Packing(d, CLIENTS)
    words = packing.pack(bits, bound=1)
    seeds = [(bytes([peer]) * 32, peer < CLIENTS // 2) for peer in range(CLIENTS)]
    packed, narrow, wide, read = in_turn(
        tries, lambda: packing.pack(bits, bound=1), lambda: np.packbits(bits), lambda: bits.astype(np.int64),
        bits.max, scale=scale,
    )  # fmt: skip
    for instead, taken in (("np.packbits", narrow), ("int64, as SecAgg+ sends", wide)):
        yield Row(
            name=f"packing for {CLIENTS} clients, d = {d:,}, beside {instead.split(',')[0]}",
            unit=unit,
            ours=packed,
            instead=f"{instead}{', which no sum is made of' if taken is narrow else ''}",
            other=taken,
            bound="one pass of NumPy over its bytes",
            limit=min(read),
        )
    masked, insecure = in_turn(
        tries, lambda: add_keystreams(words, seeds), partial(_plain_masks, words.copy()), scale=scale
    )
    yield Row(
        name=f"{CLIENTS} masks, d = {d:,}",
        unit=unit,
        ours=masked,
        instead="as many words of NumPy's PCG64, which hides nothing",
        other=insecure,
        bound="AES-GCM of as many bytes",
        limit=CLIENTS * words.nbytes / d / keystream_bytes(by_gcm=True) * 1e9,
    )


def _plain_masks(words: NDArray[np.uint64]) -> None:
    for seed in range(CLIENTS):
        words += np.random.default_rng(seed).integers(0, 2**64, words.size, dtype=np.uint64)


def _plain(values: Floats, theta: Floats, clip: float | None) -> NDArray[np.uint32]:
    """What one writes first: right but for the last digits, which are what privacy is lost by."""
    centre = 0.25 + 0.5 * theta.astype(np.float64)
    move = 0.25 + 0.5 * values.astype(np.float64) - centre
    if clip is not None:
        move *= min(1.0, clip / float(np.linalg.norm(move)))
    return (np.clip(centre + move, 0.25, 0.75) * 2**24).astype(np.uint32)
