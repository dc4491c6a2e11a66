"""Broken if a server and its colluders could tell which of two honest survivors had which bit.

The argument of the protocol's security, run: where two honest survivors swap a bit, there is another value
of the one mask that only these two know under which every message is the same to the last byte. Masks from a
keystream are as good as uniform, so both worlds are as likely.
"""

from __future__ import annotations

import numpy as np
import pytest
import reference as wire
from chosen import neighbours, rehearsed
from forgery import take_apart
from rehearsal import Rehearsal

from prism_crypto.primitives.keystream import add_keystreams
from prism_crypto.spec import CountSpec
from prism_crypto.stage import Stage
from prism_crypto.stages import unmask as unmask_stage
from prism_crypto.stages import upload as upload_stage

HERE, THERE = 1, 3
COORDINATE = 17
MODES = ["active", "semi_honest", "chosen"]


def pair_seed_of(session: Rehearsal, low: int, high: int) -> bytes:
    """The seed that two clients share, from the private keys that the rehearsal knows."""
    private = {i: session.rng[i].taken[32:64] for i in (low, high)}
    public = {i: wire.x25519_public(key) for i, key in private.items()}
    state = session.server._state
    # Until all have shared, and after.
    contexts = getattr(state, "contexts", None) or state.transcript.contexts
    context = contexts.between(low, high)
    shared = wire.x25519(private[low], public[high])
    return wire.pair_seed(shared, context, (low, high), (public[low], public[high]))


def world(values, shift, monkeypatch, mode: str, drop) -> tuple[list, list[int], bytes]:
    """Play a session in which the mask that HERE and THERE share is its keystream plus ``shift``."""
    session = rehearsed(mode, spec=CountSpec(40))
    session.values = values
    log: list = []
    seed = b""

    def ideal(words, masks):
        add_keystreams(words, masks)
        for used, subtract in masks:
            if bytes(used) == seed:
                words[:] = words - shift if subtract else words + shift

    def note(stage, sender, receiver, message):
        nonlocal seed
        log.append((stage, sender, receiver, bytes(message)))
        if stage is Stage.SHARE and receiver is None and not seed:
            seed = pair_seed_of(session, HERE, THERE)
        return message

    with monkeypatch.context() as patch:
        patch.setattr(upload_stage, "add_keystreams", ideal)
        session.play(drop=drop, intercept=note)
    return log, session.server.result.counts.tolist(), seed


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("drop", [{}, {4: Stage.UPLOAD}, {HERE: Stage.UNMASK}], ids=str)
def test_an_explicit_bijection_of_masks_gives_the_identical_transcript(mode, drop, monkeypatch):
    plain = rehearsed(mode, spec=CountSpec(40))
    values = {i: vector.copy() for i, vector in plain.values.items()}
    values[HERE][COORDINATE], values[THERE][COORDINATE] = 1, 0
    swapped = {i: vector.copy() for i, vector in values.items()}
    swapped[HERE][COORDINATE], swapped[THERE][COORDINATE] = 0, 1

    pack = plain.session.packing.pack
    none = np.zeros(plain.session.packing.length, dtype=np.uint64)
    shift = pack(values[HERE]) - pack(swapped[HERE])  # modulo 2^64
    assert shift.any()

    one, counts, seed = world(values, none, monkeypatch, mode, drop)
    other, same_counts, same_seed = world(swapped, shift, monkeypatch, mode, drop)
    assert seed == same_seed
    assert one == other
    assert counts == same_counts

    # It is a bijection: the same shift back turns the second world into the first.
    back, _, _ = world(values, shift - shift, monkeypatch, mode, drop)
    assert back == one
    # And without the shift the worlds differ, in these two uploads and nowhere else: the mask is what hides.
    unmasked, _, _ = world(swapped, none, monkeypatch, mode, drop)
    differ = [(a[0], a[1]) for a, b in zip(one, unmasked, strict=True) if a != b]
    assert differ == [(Stage.UPLOAD, HERE), (Stage.UPLOAD, THERE)]


@pytest.mark.parametrize("mode", MODES)
def test_the_shared_mask_of_two_survivors_is_never_reconstructed(mode, monkeypatch):
    """The server's own unmasking asks for no stream of that seed, whoever else drops."""
    used: list[bytes] = []

    def one(words, seed, *, subtract=False):
        many(words, [(seed, subtract)])

    def many(words, masks):
        used.extend(bytes(seed) for seed, _ in masks)
        add_keystreams(words, masks)

    monkeypatch.setattr(unmask_stage, "add_keystream", one)
    monkeypatch.setattr(unmask_stage, "add_keystreams", many)
    session = rehearsed(mode)
    seeds: list[bytes] = []
    adverts: dict[int, bytes] = {}

    def learn(stage, sender, receiver, message):
        if stage is Stage.ADVERTISE:
            adverts[sender] = take_apart(message)[2][0]
        if stage is Stage.UPLOAD and not seeds:
            seeds.append(pair_seed_of(session, HERE, THERE))
        return message

    session.play(drop={4: Stage.UPLOAD}, intercept=learn)
    assert HERE in neighbours(adverts, THERE)
    # One self-mask of each survivor, one mask of each of its neighbours with the dropped client.
    assert len(used) == len(session.ids) - 1 + len(neighbours(adverts, 4))
    assert seeds[0] not in used
