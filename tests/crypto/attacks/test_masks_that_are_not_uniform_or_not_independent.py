"""Broken if the masks on an upload can be told from uniform words, alone or together with other uploads.

A stream from a weak generator, a seed used for two streams, a mask that cancels in a proper subset: each
shows here. The bounds are at six standard deviations or beyond, and the randomness is fixed.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from chosen import chosen_rehearsal, neighbours
from forgery import take_apart
from rehearsal import SERVER, Rehearsal

from prism_crypto.primitives.keystream import add_keystream, add_keystreams
from prism_crypto.spec import CountSpec
from prism_crypto.stage import Stage
from prism_crypto.stages import upload as upload_stage

WORDS = 4096
GRAPHS = ["complete", "chosen"]


def session(graph: str = "complete", **fields) -> Rehearsal:
    """Four clients, 27 digits a word; or five that choose two others each, 24 digits."""
    if graph == "complete":
        rehearsal = Rehearsal(range(4), CountSpec(27 * WORDS), **fields)
    else:
        how = {"n": 5, "degree": 2, "threshold": 2, "lost": 1, "spec": CountSpec(24 * WORDS)}
        rehearsal = chosen_rehearsal(**how, **fields)
    assert rehearsal.session.packing.words == WORDS
    rehearsal.values = {i: np.zeros(rehearsal.session.spec.dimension, dtype=np.uint8) for i in rehearsal.ids}
    return rehearsal


def masking(graph: str) -> list[tuple[int, int]]:
    """Who masks with whom, the lower id first: on the chosen graph not everybody with everybody."""
    rehearsal = session(graph)
    rehearsal.play(until=Stage.ADVERTISE)
    adverts = {i: client._state.advert for i, client in rehearsal.clients.items()}
    pairs = [(i, j) for i in rehearsal.ids for j in neighbours(adverts, i) if i < j]
    assert len(pairs) == 6
    return pairs


def streams(rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bytes, bool]]:
    """Play up to upload; return (client, seed, subtracted) in the order in which they were used."""
    used: list[tuple[int, bytes, bool]] = []
    uploader = iter(rehearsal.ids)

    def note(words, masks):
        assert not words[:-2].any()  # a packed vector of zeros, before any mask
        client = next(uploader)
        used.extend((client, bytes(seed), subtract) for seed, subtract in masks)
        add_keystreams(words, masks)

    monkeypatch.setattr(upload_stage, "add_keystreams", note)
    rehearsal.play(until=Stage.UPLOAD)
    return used


def uploads(graph: str) -> tuple[Rehearsal, dict[int, np.ndarray]]:
    """The uploads of vectors of zeros: nothing but masks (and a sentinel each)."""
    rehearsal, seen = session(graph), {}

    def note(stage, sender, receiver, message):
        if stage is Stage.UPLOAD and receiver is SERVER:
            seen[sender] = np.frombuffer(take_apart(message)[2][0], dtype="<u8")[:-2]
        return message

    rehearsal.play(intercept=note)
    assert not rehearsal.server.result.counts.any()
    return rehearsal, seen


def assert_uniform(words: np.ndarray, what: object) -> None:
    bytes_ = words.astype("<u8").view(np.uint8)
    counts = np.bincount(bytes_, minlength=256)
    statistic = ((counts - bytes_.size / 256) ** 2).sum() / (bytes_.size / 256)
    assert abs(statistic - 255) < 6 * np.sqrt(2 * 255), f"{what}: chi-square {statistic} with 255 degrees"
    bits = np.unpackbits(bytes_).astype(np.int64)
    assert abs(bits.sum() - bits.size / 2) < 6 * np.sqrt(bits.size / 4), f"{what}: {bits.sum()} ones"
    for lag in (1, 8, 64, 128):
        agree = (bits[lag:] == bits[:-lag]).sum()
        half = (bits.size - lag) / 2
        assert abs(agree - half) < 6 * np.sqrt(half / 2), f"{what}: lag {lag}"
    assert np.unique(words).size == words.size, f"{what}: a word comes twice"


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_signed_combination_of_uploads_is_uniform(graph):
    """All 40 or 121 combinations with coefficients -1, 0, 1 up to sign: self-masks keep them all closed."""
    _, seen = uploads(graph)
    for signs in itertools.product((-1, 0, 1), repeat=len(seen)):
        first = next((sign for sign in signs if sign), 0)
        if first <= 0:
            continue
        total = np.zeros(WORDS, dtype=np.uint64)
        for sign, i in zip(signs, seen, strict=True):
            total += np.uint64(sign % 2**64) * seen[i]
        assert_uniform(total, signs)


@pytest.mark.parametrize("graph", GRAPHS)
def test_without_self_masks_only_the_sum_of_all_opens(graph):
    """What the server has once it knows every self-mask seed: still uniform in every proper subset."""
    rehearsal, seen = uploads(graph)
    bare = {}
    for i, words in seen.items():
        seed = rehearsal.rng[i].taken[64:96]
        bare[i] = words.copy()  # the start of the stream is enough
        add_keystream(bare[i], seed, subtract=True)
    for size in range(1, len(seen)):
        for group in itertools.combinations(seen, size):
            assert_uniform(np.sum([bare[i] for i in group], axis=0, dtype=np.uint64), group)
    assert not np.sum(list(bare.values()), axis=0, dtype=np.uint64).any()


@pytest.mark.parametrize("graph", GRAPHS)
def test_all_streams_of_a_session_are_pairwise_uncorrelated(graph, monkeypatch):
    rehearsal = session(graph)
    used = streams(rehearsal, monkeypatch)
    seeds = sorted({seed for _, seed, _ in used})
    assert len(seeds) == len(rehearsal.ids) + len(masking(graph))
    expanded = []
    for seed in seeds:
        words = np.zeros(WORDS, dtype=np.uint64)
        add_keystream(words, seed)
        expanded.append(words)
        assert_uniform(words, seed.hex()[:8])
    for a, b in itertools.combinations(expanded, 2):
        for joint in (a ^ b, a + b, a - b):
            assert_uniform(joint, "two streams")
    everything = np.concatenate(expanded)
    assert np.unique(everything).size == everything.size


@pytest.mark.parametrize("graph", GRAPHS)
def test_each_pair_mask_is_added_once_and_subtracted_once_and_each_self_mask_used_once(graph, monkeypatch):
    rehearsal, masked = session(graph), masking(graph)
    used = streams(rehearsal, monkeypatch)
    assert len(used) == len(rehearsal.ids) + 2 * len(masked)
    uses: dict[bytes, list[tuple[int, bool]]] = {}
    for client, seed, subtracted in used:
        uses.setdefault(seed, []).append((client, subtracted))
    pairs = sorted(tuple(sorted(use)) for use in uses.values() if len(use) == 2)
    assert pairs == sorted(((i, False), (j, True)) for i, j in masked)
    assert sorted(use[0] for use in uses.values() if len(use) == 1) == [(i, False) for i in rehearsal.ids]


@pytest.mark.parametrize("graph", GRAPHS)
def test_no_seed_comes_again_in_another_session_even_with_the_same_keys(graph, monkeypatch):
    """The same randomness in rounds 1 to 3: pair seeds depend on the context, not on the keys alone."""
    seen: list[set[bytes]] = []
    for number in (1, 2, 3):
        used = streams(session(graph, round=number, label="the same randomness"), monkeypatch)
        pair_seeds = {seed for _, seed, _ in used if sum(seed == other for _, other, _ in used) == 2}
        assert len(pair_seeds) == 6
        seen.append(pair_seeds)
    assert len(seen[0] | seen[1] | seen[2]) == 18


def test_seeds_have_the_full_length_and_no_common_bytes(monkeypatch):
    seeds = sorted({seed for _, seed, _ in streams(session(), monkeypatch)})
    assert all(len(seed) == 32 for seed in seeds)
    for position in range(32):
        # A seed folded to 32 bits, or a counter in it, repeats bytes at fixed places.
        assert len({seed[position] for seed in seeds}) >= 6
