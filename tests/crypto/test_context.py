"""Hash inputs have one parse, and no value made for one purpose serves another."""

from __future__ import annotations

import hashlib

from prism_crypto.primitives.context import (
    SIGHTING_BYTES,
    advert_digest,
    context1,
    digest,
    encode_ids,
    label,
    pair_context,
    self_mask_commitment,
    sighting,
    tag,
    u32,
    u64,
    variable,
    view_digest,
)


def test_fields_are_fixed_width_and_big_endian():
    assert u32(258) == b"\x00\x00\x01\x02"
    assert u64(258) == b"\x00\x00\x00\x00\x00\x00\x01\x02"
    assert encode_ids((1, 2**32 - 2)) == b"\x00\x00\x00\x01\xff\xff\xff\xfe"
    assert variable(b"ab") == b"\x00\x00\x00\x02ab"
    assert tag(bytes(range(32))) == bytes(range(16))


def test_a_digest_starts_with_version_and_usage():
    assert label("x") == b"prism-crypto/v2/x\0"
    assert digest("x", b"a", b"b") == hashlib.sha256(b"prism-crypto/v2/x\0ab").digest()
    assert digest("x", b"ab") != digest("y", b"ab")


def test_context1_depends_on_context0_on_the_adverts_and_on_their_number():
    one, two = advert_digest([b"a", b"b"], 2), advert_digest([b"ab"], 1)
    assert one != two
    values = {context1(bytes(32), one), context1(bytes(32), two), context1(b"\1" * 32, one)}
    assert len(values) == 3


def test_a_commitment_binds_context_owner_and_seed():
    base = self_mask_commitment(bytes(32), 1, b"s" * 32)
    assert base == hashlib.sha256(b"prism-crypto/v2/self\0" + bytes(32) + u32(1) + b"s" * 32).digest()
    assert base != self_mask_commitment(b"\1" * 32, 1, b"s" * 32)
    assert base != self_mask_commitment(bytes(32), 2, b"s" * 32)
    assert base != self_mask_commitment(bytes(32), 1, b"t" * 32)


def test_a_view_depends_on_ids_and_adverts_and_is_shown_by_their_hashes():
    seen = {1: b"a", 2: b"b", 3: b"ab"}
    sightings = [sighting(i, advert) for i, advert in seen.items()]
    assert [len(each) for each in sightings] == [SIGHTING_BYTES] * 3
    assert sightings[0] == u32(1) + hashlib.sha256(b"a").digest()
    assert view_digest(sightings) == hashlib.sha256(b"prism-crypto/v2/view\0" + b"".join(sightings)).digest()
    assert view_digest(reversed(sightings)) == view_digest(sightings)
    assert len({view_digest(each) for each in ([], sightings[:1], sightings[:2], sightings)}) == 4
    assert sighting(1, b"b") != sighting(2, b"b")
    context0, (one, two, _) = bytes(32), sightings
    assert pair_context(context0, one, two) == context1(context0, view_digest([one, two]))
    assert pair_context(context0, two, one) == pair_context(context0, one, two)
