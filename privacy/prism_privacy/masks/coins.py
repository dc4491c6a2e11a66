"""The coins that decide which bits leave a client.

Epsilon is a statement about these coins: whoever can guess them reads p off the bits. So they come from
256 bits of operating-system entropy that belong to one client, are kept in a file that only its owner can
read, and never enter a configuration, a report or a ledger. A round's coins are a pseudo-random function
of that secret, which is what lets a client that was killed come back to the very same bits:

    key    = HKDF-SHA256(secret, info = version, usage, federation, round, broadcast hash, purpose)
    stream = AES-256-CTR(key, zero counter), little-endian 32-bit words
    bit i  = [top 24 bits of word i  <  k_i]

Each bit is exactly Bernoulli(k_i / 2^24) when the words are uniform, so all guarantees are computational:
they rest on HKDF-SHA256 and AES-256 being pseudo-random. Coins decide bits and nothing else: no client
state may depend on them, or rounds stop being independent and the composition over rounds is void.

:meth:`CoinSecret.for_test` gives known coins for tests. What was released with them has no epsilon at all.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NoReturn

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from prism_privacy.durable_files import read_secret_file, write_secret_file
from prism_privacy.errors import CoinError, InvalidParameter
from prism_privacy.masks.fixed_point import BITS, SCALE

SECRET_BYTES: Final = 32
HASH_BYTES: Final = 32

_HEADER: Final = "prism-privacy/v1/coins"
_MOST_BYTES: Final = 1 << 36
_CHUNK: Final = 1 << 15
"""Words a chunk: 128 KiB of keystream, which stays in the second-level cache."""


class CoinSecret:
    """One client's 256-bit coin secret. It has no readable content, cannot be pickled or copied.

    >>> CoinSecret.for_test(bytes(32))
    CoinSecret(test)
    """

    __slots__ = ("_is_test", "_secret")

    def __init__(self) -> None:
        """From operating-system entropy, in memory only; :meth:`create` keeps it."""
        self._secret: bytes = os.urandom(SECRET_BYTES)
        self._is_test = False

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> CoinSecret:
        """A new secret, stored at ``path`` with mode 0600 and on disk when this returns.

        Raises:
            CoinError: the file exists (a client that lost track of its coins must not draw others), or
                cannot be kept private.
        """
        secret = cls()
        write_secret_file(Path(path), f"{_HEADER} {secret._secret.hex()}\n".encode("ascii"), CoinError)
        return secret

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CoinSecret:
        """The secret stored at ``path``.

        Raises:
            CoinError: missing, readable by others, or not what :meth:`create` writes.
        """
        words = read_secret_file(Path(path), CoinError).decode("ascii", "replace").split()
        try:
            header, digits = words
            key = bytes.fromhex(digits)
        except ValueError:
            header, key = "", b""
        if header != _HEADER or len(key) != SECRET_BYTES:
            raise CoinError(
                f"{path} does not hold a coin secret: expected '{_HEADER} <64 hexadecimal digits>'"
            )
        secret = cls.__new__(cls)
        secret._secret = key
        secret._is_test = False
        return secret

    @classmethod
    def for_test(cls, key: bytes) -> CoinSecret:
        """A known secret, for tests only: releases made with it claim no epsilon."""
        if not isinstance(key, bytes) or len(key) != SECRET_BYTES:
            raise InvalidParameter(f"a test key must be {SECRET_BYTES} bytes")
        secret = cls.__new__(cls)
        secret._secret = key
        secret._is_test = True
        return secret

    @property
    def is_test(self) -> bool:
        """True if the coins are known to whoever wrote the test, so that no epsilon may be claimed."""
        return self._is_test

    def stream(self, federation: str, round: int, broadcast_hash: bytes, purpose: str) -> CoinStream:
        """The coins of one round for one purpose; the same arguments give the same coins, always.

        Args:
            federation: the federation's name or id, not empty.
            round: the round's number, in [0, 2^64).
            broadcast_hash: SHA-256 of the broadcast model as the client loaded it, 32 bytes.
            purpose: what is drawn, such as ``"mask"``, not empty: different purposes are independent.

        Raises:
            InvalidParameter: an argument that is not of that form.
        """
        for name, text in (("federation", federation), ("purpose", purpose)):
            if not isinstance(text, str) or not text:
                raise InvalidParameter(f"{name} must be a non-empty string, got {text!r}")
        if isinstance(round, bool) or not isinstance(round, int) or not 0 <= round < 1 << 64:
            raise InvalidParameter(f"round must be an integer in [0, 2^64), got {round!r}")
        if not isinstance(broadcast_hash, bytes) or len(broadcast_hash) != HASH_BYTES:
            raise InvalidParameter(f"broadcast_hash must be {HASH_BYTES} bytes (a SHA-256 digest)")
        fields = (federation.encode(), round.to_bytes(8, "big"), broadcast_hash, purpose.encode())
        info = f"{_HEADER}/stream\0".encode() + b"".join(len(f).to_bytes(4, "big") + f for f in fields)
        key = HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(self._secret)
        return CoinStream(key, is_test=self._is_test)

    def __repr__(self) -> str:
        return f"CoinSecret({'test' if self._is_test else 'secret'})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise CoinError("a coin secret cannot be pickled or copied; load it from its file where it is needed")


class CoinStream:
    """An endless stream of uniform 32-bit words, read front to back. Made by :meth:`CoinSecret.stream`."""

    __slots__ = ("_encryptor", "_is_test", "_left")

    def __init__(self, key: bytes, *, is_test: bool) -> None:
        self._encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
        self._is_test = is_test
        self._left = _MOST_BYTES

    @property
    def is_test(self) -> bool:
        """True if the stream comes from a test key."""
        return self._is_test

    def fill(self, buffer: bytearray | memoryview, zeros: bytes) -> None:
        """Overwrite ``buffer`` with the next ``len(zeros)`` bytes; ``zeros`` must be zero bytes.

        Raises:
            CoinError: more than 2^36 bytes were asked of one stream.
        """
        if len(zeros) > self._left:
            raise CoinError(f"a coin stream gives at most {_MOST_BYTES} bytes")
        self._left -= len(zeros)
        self._encryptor.update_into(zeros, buffer)

    def bytes(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        if count < 0:
            raise InvalidParameter(f"count must be >= 0, got {count}")
        buffer = bytearray(count)
        self.fill(buffer, bytes(count))
        return bytes(buffer)

    def __repr__(self) -> str:
        return f"CoinStream({'test' if self._is_test else 'secret'})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise CoinError("a coin stream cannot be pickled or copied")


def release_bits(p: NDArray[np.uint32], coins: CoinStream) -> NDArray[np.uint8]:
    """Draw one bit for each probability: exactly Bernoulli(p / 2^24), independent of each other.

    Args:
        p: probabilities in units of 2^-24, uint32 in [0, 2^24], any shape (what
            :func:`prism_privacy.clip_toward` returns).
        coins: the round's coin stream; 4 bytes are used for each bit, in order.

    Returns:
        0 or 1, uint8, the shape of ``p``. The same p and the same stream give the same bits.

    Raises:
        InvalidParameter: not uint32, or a value above 2^24.
        CoinError: the stream is exhausted.

    >>> coins = CoinSecret.for_test(bytes(32)).stream("docs", 1, bytes(32), "mask")
    >>> release_bits(np.array([0, 2**24], dtype=np.uint32), coins)
    array([0, 1], dtype=uint8)
    """
    if not isinstance(p, np.ndarray) or p.dtype != np.uint32:
        raise InvalidParameter(
            f"p must be a uint32 array in units of 2^-24, got {getattr(p, 'dtype', type(p))}"
        )
    flat = p.reshape(-1)
    if flat.max(initial=0) > SCALE:
        off = np.count_nonzero(flat > SCALE)
        raise InvalidParameter(f"p must lie in [0, 2^24] units, {off} of {flat.size} do not")
    bits = np.empty(flat.size, dtype=np.bool_)
    zeros = memoryview(bytes(4 * min(_CHUNK, flat.size)))
    buffer = bytearray(len(zeros))
    words = np.frombuffer(buffer, dtype="<u4")
    for start in range(0, flat.size, _CHUNK):
        size = min(_CHUNK, flat.size - start)
        coins.fill(buffer, zeros[: 4 * size])  # type: ignore[arg-type]
        draws = words[:size]
        np.right_shift(draws, np.uint32(32 - BITS), out=draws)
        np.less(draws, flat[start : start + size], out=bits[start : start + size])
    return bits.view(np.uint8).reshape(p.shape)
