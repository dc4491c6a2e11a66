"""A proof of what two keys agree on: right for honest keys and for crooked ones, and for nothing else."""

from __future__ import annotations

import hashlib

import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_primitives import (
    ORDER,
    P25519,
    edwards_add,
    edwards_decode,
    edwards_encode,
    edwards_multiply,
    x25519,
    x25519_public,
)

from prism_crypto.errors import PublicKeyError
from prism_crypto.primitives import agreement_proof
from prism_crypto.primitives.agreement_proof import (
    PROOF_BYTES,
    agreed_point,
    curve_point,
    prove_agreement,
)
from prism_crypto.primitives.keys import KeyPair, SealingKeyPair
from prism_crypto.stages import advert as advert_module

CONTEXT = bytes(range(32))
OURS, THEIRS = b"\x11" * 32, b"\x22" * 32
A, B = x25519_public(OURS), x25519_public(THEIRS)
PROOF = prove_agreement(OURS, A, B, CONTEXT)

ORDER_8 = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
SMALL = [edwards_multiply(k, edwards_decode(ORDER_8)) for k in range(1, 8)]
"""The points of order 2, 4 and 8."""


def u_of(point) -> bytes:
    y = int.from_bytes(edwards_encode(point), "little") % 2**255
    return ((1 + y) * pow(1 - y, -1, P25519) % P25519).to_bytes(32, "little")


def on_twist(public: bytes) -> bool:
    try:
        curve_point(public)
    except PublicKeyError:
        return True
    return False


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
@settings(max_examples=15)
def test_a_proof_shows_what_x25519_agrees_on(ours, theirs):
    ours_public, theirs_public = x25519_public(ours), x25519_public(theirs)
    proof = prove_agreement(ours, ours_public, theirs_public, CONTEXT)
    assert len(proof) == PROOF_BYTES
    assert agreed_point(proof, ours_public, theirs_public, CONTEXT) == x25519(theirs, ours_public)


def test_both_implementations_make_and_take_the_same_proofs():
    assert reference.prove_agreement(OURS, A, B, CONTEXT) == PROOF
    assert reference.proved_agreement(PROOF, A, B, CONTEXT) == agreed_point(PROOF, A, B, CONTEXT)
    assert agreed_point(PROOF, A, B, CONTEXT) == x25519(OURS, B)


def test_every_flipped_bit_is_refused():
    for position in range(0, 8 * PROOF_BYTES, 7):
        altered = bytearray(PROOF)
        altered[position // 8] ^= 1 << position % 8
        with pytest.raises(PublicKeyError):
            agreed_point(bytes(altered), A, B, CONTEXT)


def test_a_proof_is_for_its_keys_and_its_session():
    third = x25519_public(b"\x33" * 32)
    for ours, theirs, context in (
        (B, A, CONTEXT),
        (A, third, CONTEXT),
        (third, B, CONTEXT),
        (A, B, bytes(32)),
    ):
        with pytest.raises(PublicKeyError):
            agreed_point(PROOF, ours, theirs, context)
    with pytest.raises(PublicKeyError):
        agreed_point(prove_agreement(b"\x33" * 32, A, B, CONTEXT), A, B, CONTEXT)  # not the owner of A


@pytest.mark.parametrize("crooked", range(7))
def test_a_key_with_a_part_of_small_order_agrees_as_x25519_says(crooked):
    """A cheating dealer can't get out of a complaint by adding a point of small order to its key."""
    key = u_of(edwards_add(edwards_decode(_edwards(B)), SMALL[crooked]))
    proof = prove_agreement(OURS, A, key, CONTEXT)
    assert agreed_point(proof, A, key, CONTEXT) == x25519(OURS, key)


def _edwards(public: bytes) -> bytes:
    u = int.from_bytes(public, "little")
    return ((u - 1) * pow(u + 1, -1, P25519) % P25519).to_bytes(32, "little")


@pytest.mark.parametrize("crooked", range(7))
@pytest.mark.parametrize("where", ["shared point", "own key"])
def test_a_part_of_small_order_in_what_is_proved_is_refused(crooked, where):
    """Ground until the challenge is 0 modulo 8, as a cheat would: the equations hold, the checks do not."""
    base, other = edwards_multiply(8, reference.BASE), edwards_multiply(8, edwards_decode(_edwards(B)))
    scalar = (int.from_bytes(OURS, "little") & ~7 & (2**255 - 1) | 2**254) // 8
    if edwards_encode(edwards_multiply(scalar, base)) != edwards_encode(edwards_decode(_edwards(A))):
        scalar = -scalar
    scalar %= ORDER
    ours, shared = A, edwards_multiply(scalar, other)
    if where == "shared point":
        shared = edwards_add(shared, SMALL[crooked])
    else:
        ours = u_of(edwards_add(edwards_decode(_edwards(A)), SMALL[crooked]))
    for seed in range(400):
        nonce = int.from_bytes(hashlib.sha512(b"%d" % seed).digest(), "little") % ORDER
        commitments = [edwards_encode(edwards_multiply(nonce, point)) for point in (base, other)]
        challenge = reference.agreement_challenge(CONTEXT, ours, B, edwards_encode(shared), *commitments)
        if (ORDER - challenge) % 8 == 0:  # what the point of small order is multiplied by
            break
    else:
        raise AssertionError("no challenge was found that takes the point of small order away")
    answer = (nonce + challenge * scalar) % ORDER
    forged = edwards_encode(shared) + challenge.to_bytes(32, "little") + answer.to_bytes(32, "little")
    with pytest.raises(PublicKeyError):
        agreed_point(forged, ours, B, CONTEXT)


def test_half_of_all_numbers_are_no_keys_that_can_be_proved_about():
    """Points of the twist agree as well, and an honest client has none: the server refuses them."""
    for i in range(40):
        curve_point(x25519_public(bytes([i]) * 32))
    twist = [key for i in range(2, 40) if on_twist(key := i.to_bytes(32, "little"))]
    assert 10 < len(twist) < 30
    for key in twist[:5]:
        with pytest.raises(PublicKeyError, match="no point of Curve25519"):
            prove_agreement(OURS, A, key, CONTEXT)
        with pytest.raises(PublicKeyError, match="no point of Curve25519"):
            agreed_point(PROOF, A, key, CONTEXT)
    assert on_twist((P25519 - 1).to_bytes(32, "little"))


def test_a_key_of_an_advert_is_lifted_to_the_curve_once(monkeypatch):
    lifted = []

    def counted(public):
        lifted.append(public)
        return curve_point(public)

    monkeypatch.setattr(advert_module, "curve_point", counted)
    monkeypatch.setattr(agreement_proof, "curve_point", counted)
    sealing, masking = SealingKeyPair(bytes([1]) * 32), KeyPair(bytes([2]) * 32)
    owner = sealing.sign("owner", advert_module.owner_body(CONTEXT, 3))
    advert = advert_module.Advert(CONTEXT[:16], sealing.public, masking.public, bytes(32), owner)
    advert_module.check_usable(advert, CONTEXT, 3)
    assert lifted == [sealing.public, masking.public]


@pytest.mark.parametrize("value", [0, 1])
def test_a_key_of_low_order_has_no_proof(value):
    with pytest.raises(PublicKeyError):
        prove_agreement(OURS, A, value.to_bytes(32, "little"), CONTEXT)
    neutral = edwards_encode((0, 1, 1, 0)) + PROOF[32:]
    with pytest.raises(PublicKeyError):
        agreed_point(neutral, A, B, CONTEXT)


def test_scalars_have_one_spelling():
    challenge, answer = (int.from_bytes(PROOF[i : i + 32], "little") for i in (32, 64))
    for scalars in ((challenge + ORDER, answer), (challenge, answer + ORDER)):
        second = PROOF[:32] + b"".join(scalar.to_bytes(32, "little") for scalar in scalars)
        with pytest.raises(PublicKeyError, match="malformed"):
            agreed_point(second, A, B, CONTEXT)
