"""Expand a 32-byte seed into a mask and add it to a vector of words.

One seed gives one AES-256-CTR stream (NIST SP 800-38A, section 6.5) with an all-zero initial counter
block, read as little-endian 64-bit words. A zero counter block is sound because a seed is used for one
stream only: the self-mask seed is fresh for every session, and a pair seed comes out of HKDF over the
whole transcript. The stream stops at 2^36 bytes, that is 2^32 blocks, so that the chance of telling it
from random by the absence of repeated blocks stays below 2^-64.

AES-GCM (NIST SP 800-38D) encrypts by the same counter. Under a nonce of zeros its first block is the one of
counter 2, and its longest message ends where the stream does. Where the processor has VAES, OpenSSL computes
it two to three times as quickly as plain CTR, authentication included. So all of a long stream but the first
two blocks comes from GCM, whose tag nobody asks for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from prism_crypto.errors import InputError

SEED_BYTES = 32
"""Length of a seed: the key of one AES-256 stream."""

MAX_STREAM_BYTES = 2**36
"""The longest stream that one seed may give."""

# Keystream, zeros and words, 112 KiB each, stay in a core's second-level cache, and calls are few. Blocks
# below 128 KiB are not mapped and faulted in anew for every seed.
_BUFFER_BYTES = 112 * 1024
_BUFFER_WORDS = _BUFFER_BYTES // 8
_ZEROS = bytes(_BUFFER_BYTES)

_GCM_STARTS_AT = 4
"""The first word of the block of counter 2, with which AES-GCM begins."""

_SHORT_WORDS = 8 * 1024
"""Up to this length a second cipher costs more than it saves."""

_TOGETHER = 64
"""So many streams are open at once: a few kilobytes each."""


def add_keystream(words: NDArray[np.uint64], seed: bytes | bytearray, *, subtract: bool = False) -> None:
    """Add the keystream of ``seed`` to ``words``, in place, modulo 2^64.

    Beside ``words`` it holds one buffer of 112 KiB, which it overwrites with zeros before it returns.

    Args:
        words: the vector to mask, shape (w,), dtype uint64, contiguous and writable.
        seed: 32 bytes, used for this stream and for nothing else.
        subtract: take the stream away instead, which undoes an addition.

    Raises:
        InputError: the seed is not 32 bytes long, ``words`` is not a contiguous, writable vector of uint64,
            or the stream would be longer than 2^36 bytes.

    >>> words = np.arange(3, dtype=np.uint64)
    >>> add_keystream(words, bytes(32))
    >>> [hex(word) for word in words.tolist()]
    ['0x898940a278c095dc', '0x8720849214a248ae', '0xb93645c7fb8a0f55']
    >>> add_keystream(words, bytes(32), subtract=True)
    >>> words.tolist()
    [0, 1, 2]
    """
    add_keystreams(words, [(seed, subtract)])


def add_keystreams(words: NDArray[np.uint64], streams: Sequence[tuple[bytes | bytearray, bool]]) -> None:
    """Add or take away the keystreams of several seeds, in place, modulo 2^64.

    The same as `add_keystream` for each of them, with the vector walked through once for up to 64 seeds,
    so that a piece of it stays in a core's cache under all of them. There is one buffer of 112 KiB still.

    Args:
        words: the vector to mask, shape (w,), dtype uint64, contiguous and writable.
        streams: for each seed of 32 bytes whether to subtract it.

    Raises:
        InputError: as for `add_keystream`; nothing has been added then.
    """
    for seed, _ in streams:
        if len(seed) != SEED_BYTES:
            raise InputError(f"a keystream seed is {SEED_BYTES} bytes, got {len(seed)}")
    if words.dtype != np.uint64 or words.ndim != 1:
        raise InputError(f"expected a vector of uint64, got {words.dtype} of shape {words.shape}")
    if not (words.flags.c_contiguous and words.flags.writeable):
        raise InputError("the words to mask must be contiguous and writable")
    if words.nbytes > MAX_STREAM_BYTES:
        raise InputError(
            f"one seed gives at most {MAX_STREAM_BYTES} bytes of keystream, asked for {words.nbytes}"
        )

    stream = np.empty(_BUFFER_WORDS, dtype="<u8")
    head = words.size if words.size <= _SHORT_WORDS else _GCM_STARTS_AT
    for first in range(0, len(streams), _TOGETHER):
        some = [(algorithms.AES(seed), minus) for seed, minus in streams[first : first + _TOGETHER]]
        _add(words[:head], some, modes.CTR(bytes(16)), stream)
        _add(words[head:], some, modes.GCM(bytes(12)), stream)
    stream.fill(0)


def _add(
    words: NDArray[np.uint64],
    ciphers: Sequence[tuple[algorithms.AES, bool]],
    mode: modes.CTR | modes.GCM,
    stream: NDArray[np.uint64],
) -> None:
    """Add, or subtract, what each cipher gives in one mode, through the buffer ``stream``."""
    if not words.size:
        return
    target = stream.data.cast("B")
    encryptors = [
        (Cipher(cipher, mode).encryptor(), np.subtract if subtract else np.add)
        for cipher, subtract in ciphers
    ]
    for start in range(0, words.size, _BUFFER_WORDS):
        chunk = words[start : start + _BUFFER_WORDS]
        part = stream[: chunk.size]
        zeros = _ZEROS if chunk.size == _BUFFER_WORDS else _ZEROS[: chunk.nbytes]
        for encryptor, combine in encryptors:
            encryptor.update_into(zeros, target)
            combine(chunk, part, out=chunk)
