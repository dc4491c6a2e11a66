"""What the server keeps of the first two stages until the sum is open."""

from __future__ import annotations

from dataclasses import dataclass

from prism_crypto.stages.contexts import Contexts

__all__ = ["Transcript"]


@dataclass(frozen=True, slots=True, repr=False)
class Transcript:
    """Who said what up to the upload: constant from then on.

    Attributes:
        contexts: ctx1.
        adverts: the adverts of all that advertised.
        sharers: U2, the clients that shared.
        dealt: for each of them its signature and the records (receiver, pair of sealed shares) under it.
        received: for each of them the records (dealer, pair of sealed shares) that it was sent.
    """

    contexts: Contexts
    adverts: dict[int, bytes]
    sharers: tuple[int, ...]
    dealt: dict[int, tuple[bytes, bytes]]
    received: dict[int, bytes]
