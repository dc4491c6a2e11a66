"""The source of randomness: an argument everywhere, the operating system by default.

There is no seed anywhere in the protocol. A test that wants the same bytes twice passes its own callable,
for example the output of a hash in counter mode; a statistical generator is refused by type, because
masks drawn from one can be predicted from its output.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from prism_crypto.errors import RandomnessError

__all__ = ["Rng", "checked_rng", "draw", "uniform_below"]

Rng: TypeAlias = Callable[[int], bytes]
"""``rng(count)`` returns exactly ``count`` fresh bytes; ``os.urandom`` is one."""

_STATISTICAL = (np.random.Generator, np.random.RandomState, np.random.BitGenerator)


def checked_rng(rng: Rng) -> Rng:
    """Return ``rng`` unless it is, or is a method of, a generator that was not made for secrets.

    Raises:
        RandomnessError: for NumPy generators and ``random.Random`` (``random.SystemRandom`` is accepted),
            and for anything that can't be called.

    >>> import os
    >>> checked_rng(os.urandom) is os.urandom
    True
    >>> checked_rng(np.random.default_rng(7).bytes)
    Traceback (most recent call last):
    ...
    prism_crypto.errors.RandomnessError: numpy's Generator is no source of secrets; pass os.urandom
    """
    owner = getattr(rng, "__self__", rng)
    if isinstance(owner, _STATISTICAL):
        raise RandomnessError(f"numpy's {type(owner).__name__} is no source of secrets; pass os.urandom")
    if isinstance(owner, random.Random) and not isinstance(owner, random.SystemRandom):
        raise RandomnessError("random.Random is no source of secrets; pass os.urandom")
    if not callable(rng):
        raise RandomnessError(f"rng must be a callable that returns bytes, not {type(rng).__name__}")
    return rng


def draw(rng: Rng, count: int) -> bytes:
    """Draw ``count`` bytes.

    Raises:
        RandomnessError: if ``rng`` returns anything but ``count`` bytes.
    """
    value = rng(count)
    if not isinstance(value, bytes) or len(value) != count:
        raise RandomnessError(f"rng was asked for {count} bytes and returned something else")
    return value


def uniform_below(count: int, rng: Rng) -> int:
    """A uniform integer in 0..count-1, 1 ≤ count ≤ 2^64, by rejection sampling.

    Raises:
        RandomnessError: if ``rng`` returns anything but the bytes asked for.
    """
    limit = 2**64 // count * count
    while (value := int.from_bytes(draw(rng, 8))) >= limit:
        pass
    return value % count
