"""What the server sends before a round, and the digest that binds all of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from prism_secure.errors import AgreementError

Arrays = Mapping[str, NDArray[np.generic]]
NOTHING: Arrays = MappingProxyType({})


@dataclass(frozen=True)
class Broadcast:
    """theta, float64 (d,), in [theta_min, 1 - theta_min], and what else a behaviour sends in the open.

    Attributes:
        federation, round: whose, and which; rounds count from 1.
        theta: where everybody starts from.
        public: arrays of numbers by name that clients go by beside theta; they must not change afterwards.
    """

    federation: str
    round: int
    theta: NDArray[np.float64]
    public: Arrays = field(default_factory=dict)

    def __post_init__(self) -> None:
        # The digest has the length of theta alone: two of other shapes would say the same bytes.
        theta: object = self.theta
        if not isinstance(theta, np.ndarray) or theta.dtype != np.float64 or theta.ndim != 1:
            kind = f"{theta.dtype} {theta.shape}" if isinstance(theta, np.ndarray) else type(theta).__name__
            raise AgreementError(f"theta must be float64 of the shape (d,), got {kind}")
        others = [name for name, array in self.public.items() if not isinstance(array, np.ndarray)]
        if others:
            raise AgreementError(f"a broadcast holds arrays, got something else as {', '.join(others)}")

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of all of it as this process loaded it; it enters the secure sum's context and all coins.

        Whatever a client goes by must be in it: the same coins under another question would show, bit by
        bit, which way its answer moved.
        """
        header = f"prism-secure/v1/broadcast\0{self.federation}\0{self.round}\0{len(self.theta)}\0"
        found = hashlib.sha256(header.encode() + self.theta.astype("<f8").tobytes())
        for name in sorted(self.public):
            array = np.asarray(self.public[name])
            # Little-endian and in C order, so that every machine hashes the same bytes.
            words = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"))
            part = f"\0public\0{len(name)}\0{name}\0{words.dtype.str}\0{array.shape}\0{words.nbytes}\0"
            found.update(part.encode() + words.tobytes())
        return found.digest()

    def __reduce__(self) -> tuple[object, ...]:
        # Another process hashes what it has received, and not what this one had.
        return Broadcast, (self.federation, self.round, self.theta, dict(self.public))

    @property
    def nbytes(self) -> int:
        """Bytes of what one client is sent, framing aside."""
        return self.theta.nbytes + sum(np.asarray(array).nbytes for array in self.public.values())
