"""Broken if a seal that its dealer made to open under two keys loses a sum, or gets somebody else blamed.

AES-GCM does not commit to its key. A dealer that cheats solves one linear equation for a block of the
ciphertext, and the tag holds under a second key too (Dodis, Grubbs, Ristenpart and Woodage, CRYPTO 2018). Its
confederate may then choose what it opens. Neither value is on the dealer's polynomial.
"""

from __future__ import annotations

import os
from functools import partial

import pytest
from chosen import rehearsed
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from forgery import records, signed, take_apart
from liars import Liar
from rehearsal import Rehearsal

from prism_crypto import Stage, verify_evidence
from prism_crypto.primitives.keys import _sealed_for, seal_keys
from prism_crypto.stages.evidence import open_share

DEALER, HOLDER = 4, 7
GRAPHS = ["complete", "chosen"]
_R = 0xE1 << 120


def times(x: int, y: int) -> int:
    """In GF(2^128), bits as GCM orders them (SP 800-38D, section 6.3)."""
    product = 0
    for i in range(127, -1, -1):
        if y >> i & 1:
            product ^= x
        x = (x >> 1) ^ (_R if x & 1 else 0)
    return product


def power(x: int, exponent: int) -> int:
    result = 1 << 127
    while exponent:
        if exponent & 1:
            result = times(result, x)
        x, exponent = times(x, x), exponent >> 1
    return result


class Under:
    """AES-GCM with a zero nonce under one key: hash key, mask of the tag, keystream."""

    def __init__(self, key: bytes) -> None:
        aes = Cipher(algorithms.AES(key), modes.ECB())
        one = [aes.encryptor().update(bytes(12) + i.to_bytes(4)) for i in range(5)]
        self.hash_key = int.from_bytes(aes.encryptor().update(bytes(16)))
        self.mask, self.stream = int.from_bytes(one[1]), b"".join(one[2:])[:33]

    def tag(self, about: bytes, content: bytes) -> int:
        padded = [text + bytes(-len(text) % 16) for text in (about, content)]
        data = b"".join(padded) + (8 * len(about)).to_bytes(8) + (8 * len(content)).to_bytes(8)
        value = 0
        for i in range(0, len(data), 16):
            value = times(value ^ int.from_bytes(data[i : i + 16]), self.hash_key)
        return value ^ self.mask


def two_faced(first: bytes, about: bytes) -> tuple[bytes, bytes]:
    """A seal that opens to shares under the first key and a second one, and that key."""
    one, two = Under(first), Under(second := os.urandom(32))
    while one.stream[0] != two.stream[0]:  # the first byte of a share is 0 under both
        two = Under(second := os.urandom(32))
    content = bytearray(bytes(33)[:1] + os.urandom(32))
    content[0] = one.stream[0]
    content[16:32] = bytes(16)
    # The block's power of the hash key is 3: the last of the content and the lengths come after it.
    difference = one.tag(about, bytes(content)) ^ two.tag(about, bytes(content))
    both = power(one.hash_key, 3) ^ power(two.hash_key, 3)
    content[16:32] = times(difference, power(both, 2**128 - 2)).to_bytes(16)
    assert one.tag(about, bytes(content)) == two.tag(about, bytes(content))
    return bytes(content) + one.tag(about, bytes(content)).to_bytes(16), second


@pytest.mark.parametrize("room", [partial(Rehearsal, range(10)), partial(rehearsed, "chosen")], ids=GRAPHS)
@pytest.mark.parametrize("gives", ["its own key", "the second key"])
@pytest.mark.parametrize("which", [0, 1], ids=["seed", "mask key"])
def test_whichever_of_two_keys_is_given_the_dealer_is_blamed_and_nobody_else(which, gives, room):
    room = room()
    liar, second, received, context = Liar(DEALER, "", None, room), b"", b"", b""

    def deal(message: bytes) -> bytes:
        nonlocal second
        neighbour = room.clients[DEALER]._state.neighbours[HOLDER]
        ends, keys = (DEALER, HOLDER), (room.clients[DEALER]._state.sealing.public, neighbour.sealing_key)
        between = neighbour.context
        first = seal_keys(neighbour.agreed, between, ends, keys)[which]
        seal, second = two_faced(first, _sealed_for(between, ends))
        assert open_share(first, between, ends, seal) != open_share(second, between, ends, seal)

        def change(cut: dict[int, bytes]) -> None:
            cut[HOLDER] = seal + cut[HOLDER][49:] if which == 0 else cut[HOLDER][:49] + seal

        liar.state = room.clients[DEALER]._state
        return liar.dealing(message, change)

    def lie(stage, sender, receiver, message):
        nonlocal received, context
        if (stage, sender) == (Stage.SHARE, DEALER):
            return deal(message)
        if (stage, receiver) == (Stage.UPLOAD, HOLDER):
            received, context = take_apart(message)[2][2], room.clients[HOLDER]._state.context
        if (stage, sender) == (Stage.UNMASK, HOLDER) and gives == "the second key":
            change = records(which, 32, lambda cut: cut.update({DEALER: second}))
            return signed(context, HOLDER, change, received)(message)
        return message

    room.play(intercept=lie, drop={DEALER: Stage.UPLOAD} if which else {})
    assert set(room.server.blamed) == {DEALER}
    blame = room.server.blamed[DEALER]
    assert blame.stage is Stage.SHARE
    assert verify_evidence(blame.evidence, room.roster) == blame
    result = room.server.result
    assert result.counts.tolist() == room.expected(result.survivors)
