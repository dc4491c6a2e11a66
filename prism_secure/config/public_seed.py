"""Seeds for what is public, derived from the federation's one. On its own: not all who need it need torch."""

from __future__ import annotations

import hashlib

__all__ = ["public_seed"]


def public_seed(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose, derived from the federation's public one; in [0, 2^63).

    It draws weights, latents, partitions: nothing that privacy rests on.
    """
    text = "\0".join(["prism-secure/v1/seed", str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
