"""ML-KEM-768 as `cryptography` has it is that of FIPS 203, and what is built of it is what the page says."""

from __future__ import annotations

import os
import random

import pytest
import reference_kem as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_primitives import Refused, hkdf_sha256, x25519_public
from rehearsal import needs_kem

from prism_crypto.errors import PublicKeyError
from prism_crypto.primitives import hybrid
from prism_crypto.primitives.keys import AgreedKey, KeyPair

pytestmark = needs_kem

CONTEXT, ENDS = bytes(range(32)), (3, 70000)
SEEDS = st.binary(min_size=64, max_size=64)
ROOTS = st.binary(min_size=32, max_size=32)


@settings(max_examples=15)
@given(SEEDS, st.binary(min_size=32, max_size=32), st.randoms(use_true_random=False))
def test_both_implementations_of_mlkem_agree(seed, message, draw):
    pair = hybrid.HybridSealingPair(bytes(32), seed)
    assert reference.generate(seed)[0] == pair.kem.public
    secret, ciphertext = reference.encapsulate(pair.kem.public, message)
    assert pair.kem.decapsulate(ciphertext) == secret
    theirs, other = hybrid.encapsulate(pair.kem.public)
    assert reference.decapsulate(seed, other) == theirs
    # A ciphertext that nobody made gives a secret all the same, in both the same one (implicit rejection).
    spoilt = bytearray(ciphertext)
    spoilt[draw.randrange(1088)] ^= 1 << draw.randrange(8)
    rejected = pair.kem.decapsulate(bytes(spoilt))
    assert rejected == reference.decapsulate(seed, bytes(spoilt))
    assert rejected != secret
    junk = draw.randbytes(1088)
    assert pair.kem.decapsulate(junk) == reference.decapsulate(seed, junk)


@pytest.mark.parametrize("kind", ["short", "long", "not reduced", "last not reduced", "empty"])
def test_what_is_no_key_is_refused_by_both(kind):
    good = hybrid.HybridMaskPair(bytes(32)).kem.public
    hybrid.check_kem_key(good)
    bad = {
        "short": good[:-1],
        "long": good + b"\0",
        "not reduced": b"\xff\xff" + good[2:],
        "last not reduced": good[:1149] + b"\xff\xff\xff" + good[1152:],
        "empty": b"",
    }[kind]
    with pytest.raises(PublicKeyError, match="not the encoding of one of ML-KEM-768"):
        hybrid.check_kem_key(bad)
    with pytest.raises(Refused):
        reference.check_key(bad)


@given(ROOTS)
@settings(max_examples=10)
def test_what_comes_of_a_root_is_as_described(root):
    pair = hybrid.HybridMaskPair(root)
    assert bytes(pair.private()) == root
    assert pair.public == x25519_public(hkdf_sha256(root, reference.label("mask-key")))
    assert pair.kem.public == reference.generate(reference.mask_kem_seed(root))[0]
    assert pair.part(CONTEXT, ENDS) == reference.part(root, CONTEXT, *ENDS)
    assert pair.part(CONTEXT, ENDS[::-1]) != pair.part(CONTEXT, ENDS)


def test_a_part_arrives_and_nothing_else_passes_for_it():
    dealer, holder = (hybrid.HybridMaskPair(os.urandom(32)) for _ in range(2))
    sealing = hybrid.HybridSealingPair(os.urandom(32), os.urandom(64))
    keys = (sealing.kem.public, holder.kem.public)
    secret, sent = hybrid.encapsulate_for(dealer, keys, CONTEXT, ENDS)
    assert hybrid.Encapsulated.cut(sent.encode()) == sent
    assert len(sent.encode()) == hybrid.ENCAPSULATED_BYTES
    assert sent.part(holder.kem, CONTEXT, ENDS) == dealer.part(CONTEXT, ENDS)
    assert sealing.kem.decapsulate(sent.sealing) == secret
    assert sent.shows(secret, CONTEXT, ENDS)
    draw = random.Random(1)
    for field in ("masking", "wrapped", "part_hash"):
        value = bytearray(getattr(sent, field))
        value[draw.randrange(len(value))] ^= 4
        assert sent._replace(**{field: bytes(value)}).part(holder.kem, CONTEXT, ENDS) is None
    for context, ends in ((CONTEXT[::-1], ENDS), (CONTEXT, ENDS[::-1]), (CONTEXT, (3, 70001))):
        assert sent.part(holder.kem, context, ends) is None
        assert not sent.shows(secret, context, ends)
    assert sent.part(dealer.kem, CONTEXT, ENDS) is None
    assert not sent.shows(bytes(32), CONTEXT, ENDS)
    assert not sent.shows(secret + b"\0", CONTEXT, ENDS)
    assert not sent.shows(b"", CONTEXT, ENDS)


def test_nothing_is_encapsulated_to_what_is_no_key():
    pair = hybrid.HybridMaskPair(bytes(32))
    for keys in ((bytes(1184)[:-1], pair.kem.public), (pair.kem.public, b"\xff" * 1184)):
        with pytest.raises(PublicKeyError):
            hybrid.encapsulate_for(pair, keys, CONTEXT, ENDS)


def test_two_encapsulations_to_one_key_have_nothing_in_common():
    pair = hybrid.HybridMaskPair(bytes(32))
    both = [hybrid.encapsulate(pair.kem.public) for _ in range(2)]
    assert both[0][0] != both[1][0]
    assert both[0][1] != both[1][1]


KEYS = (b"k" * 32, b"l" * 32)


def test_every_input_is_in_the_keys_of_a_seal():
    def derived(
        shared=bytes(32), secret=bytes(32), ciphertext=bytes(1088), context=CONTEXT, ends=ENDS, keys=KEYS
    ):
        return hybrid.hybrid_seal_keys(AgreedKey(shared), secret, ciphertext, context, ends, keys)

    expected = reference.seal_keys(bytes(32), bytes(32), bytes(1088), CONTEXT, ENDS, KEYS)
    assert list(derived()) == expected
    one = b"\1" + bytes(31)
    others = [
        derived(shared=one),
        derived(secret=one),
        derived(ciphertext=b"\1" + bytes(1087)),
        derived(context=one),
        derived(ends=ENDS[::-1]),
        derived(keys=KEYS[::-1]),
    ]
    found = {key for pair in (derived(), *others) for key in pair}
    assert len(found) == 14


def test_every_input_is_in_the_seed_of_a_mask():
    parts = (bytes(32), b"\2" * 32)

    def derived(shared=bytes(32), parts=parts, context=CONTEXT, ids=ENDS, keys=KEYS):
        return hybrid.hybrid_pair_seed(AgreedKey(shared), parts, context, ids, keys)

    assert derived() == reference.pair_seed(bytes(32), list(parts), CONTEXT, ENDS, KEYS)
    one = b"\1" + bytes(31)
    found = {
        derived(),
        derived(shared=one),
        derived(parts=parts[::-1]),
        derived(parts=(parts[0], b"")),
        derived(parts=(b"", parts[0])),
        derived(parts=(b"", parts[1])),
        derived(parts=(b"", parts[0] + parts[1])),
        derived(parts=(parts[0] + parts[1], b"")),
        derived(context=one),
        derived(ids=(4, 70000)),
        derived(keys=KEYS[::-1]),
    }
    assert len(found) == 11


def test_a_combined_key_is_none_of_what_it_was_made_of():
    pair = KeyPair(bytes(range(32)))
    agreed = pair.agree(x25519_public(bytes(range(1, 33))))
    assert agreed.combined(bytes(32)).derive(b"x") not in (
        agreed.derive(b"x"),
        AgreedKey(bytes(32)).derive(b"x"),
    )
