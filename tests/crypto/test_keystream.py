"""The keystream against AES block by block, and what one seed must never be asked for."""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_crypto.errors import InputError
from prism_crypto.primitives import keystream
from prism_crypto.primitives.keystream import add_keystream

SEEDS = st.binary(min_size=32, max_size=32)


def slow_stream(seed: bytes, words: int) -> list[int]:
    """AES-256 of the counters 0, 1, 2, ... as 128-bit big-endian numbers, one block at a time."""
    cipher = Cipher(algorithms.AES(seed), modes.ECB()).encryptor()
    blocks = b"".join(cipher.update(i.to_bytes(16, "big")) for i in range((words + 1) // 2))
    return [int.from_bytes(blocks[8 * i : 8 * i + 8], "little") for i in range(words)]


@given(seed=SEEDS, values=st.lists(st.integers(0, 2**64 - 1), max_size=70))
def test_words_gain_the_stream_modulo_2_64(seed, values):
    words = np.array(values, dtype=np.uint64)
    add_keystream(words, seed)
    expected = [(a + b) % 2**64 for a, b in zip(values, slow_stream(seed, len(values)), strict=True)]
    assert words.tolist() == expected
    add_keystream(words, seed, subtract=True)
    assert words.tolist() == values


@pytest.mark.parametrize("size", [8191, 8192, 8193, 8196, 14336, 14339, 14340, 14341, 28676, 28677, 30001])
def test_the_stream_goes_on_across_buffers(size):
    words = np.zeros(size, dtype=np.uint64)
    add_keystream(words, b"\x17" * 32)
    assert words.tolist() == slow_stream(b"\x17" * 32, size)


def test_the_first_block_is_the_published_aes_256_of_zeros():
    words = np.zeros(2, dtype="<u8")
    add_keystream(words, bytes(32))
    assert words.tobytes().hex() == "dc95c078a2408989ad48a21492842087"  # NIST AESAVS, all-zero key and text


@given(seed=SEEDS, other=SEEDS)
@settings(max_examples=20)
def test_opposite_signs_cancel_and_other_seeds_do_not(seed, other):
    words = np.zeros(64, dtype=np.uint64)
    add_keystream(words, seed)
    add_keystream(words, other, subtract=True)
    assert words.any() == (seed != other)


def test_a_seed_may_be_a_bytearray_that_is_wiped_afterwards():
    ours, theirs = np.zeros(5, dtype=np.uint64), np.zeros(5, dtype=np.uint64)
    add_keystream(ours, bytearray(b"s" * 32))
    add_keystream(theirs, b"s" * 32)
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("seed", [b"", bytes(16), bytes(31), bytes(33)])
def test_a_seed_of_another_length_is_refused(seed):
    with pytest.raises(InputError, match="32 bytes"):
        add_keystream(np.zeros(2, dtype=np.uint64), seed)


@pytest.mark.parametrize(
    "words",
    [
        np.zeros(4, dtype=np.int64),
        np.zeros(4, dtype=np.uint32),
        np.zeros((2, 2), dtype=np.uint64),
        np.zeros(8, dtype=np.uint64)[::2],
    ],
)
def test_anything_but_a_contiguous_vector_of_words_is_refused(words):
    with pytest.raises(InputError):
        add_keystream(words, bytes(32))


def test_a_read_only_vector_is_refused():
    words = np.zeros(4, dtype=np.uint64)
    words.flags.writeable = False
    with pytest.raises(InputError, match="writable"):
        add_keystream(words, bytes(32))


def test_a_stream_beyond_the_limit_is_refused_before_a_word_changes(monkeypatch):
    assert keystream.MAX_STREAM_BYTES == 2**36
    monkeypatch.setattr(keystream, "MAX_STREAM_BYTES", 32)
    words = np.zeros(5, dtype=np.uint64)
    with pytest.raises(InputError, match="at most 32 bytes"):
        add_keystream(words, bytes(32))
    assert not words.any()
    add_keystream(words[:4], bytes(32))
