"""What is kept of each round, in `metrics.jsonl`: one JSON object a line."""

from __future__ import annotations

import msgspec

from prism_privacy.ledger.entry import from_json_safe, json_safe
from prism_secure.accounting.epsilons import Epsilons, RecordEpsilon


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """Metrics of the deployed mask against held-out images; see `prism_secure.quality.metrics`."""

    fid: float
    kid: float
    precision: float
    recall: float
    density: float
    coverage: float
    label_accuracy: float | None = None
    """Share of class-conditional samples that the metric's classifier puts in their class."""
    inception_score: float | None = None
    """exp of the mean divergence of one image's classes from all images', by the metric's classifier."""
    sliced_wasserstein: float | None = None
    """Mean distance of the features' one-dimensional projections; None in older records."""
    copies: float | None = None
    """Share of generated images that are nearer to an image of the clients than to any of as many held-out
    ones; None unless both are declared public."""
    gen2real: float | None = None
    """Accuracy on held-out images of a classifier trained on generated ones; see `quality.utility`."""
    gen2real_ceiling: float | None = None
    """`gen2real` after training on as many of the clients' images; None unless these are declared public."""
    features: str | None = None
    """SHA-256 of the weights of a network of the user's own that measured all but `gen2real`; None where the
    package names the weights. Figures of different ones do not compare."""


class RoundRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One finished round; `round` counts from 1."""

    round: int
    survivors: int
    epsilon: Epsilons
    record: RecordEpsilon | None = None
    """None where nothing is claimed for a single image."""
    bits_per_parameter: float
    """Bits of a client's upload message per mask bit, measured on its bytes."""
    uplink_bytes: int
    """All messages of all clients to the server."""
    downlink_bytes: int
    """The broadcast of theta and all messages of the secure sum to all clients."""
    step: float
    """The mean weight that the server gave this round's mean mask (MADA's lambda); 1 in measured rounds."""
    seconds: float
    """From the broadcast until the sums were absorbed, and what was waited for the metrics."""
    secure_sum_seconds: float
    quality: Quality | None = None
    """None in rounds that are not evaluated, and in the last one as long as its metrics are computed."""
    changed: int | None = None
    """Bits of the deployed mask that differ from those before the round; None in records that do not say."""
    server_loss: float | None = None
    """What the server's own training minimises, its mean over the steps after this round: how far generated
    moments are, squared, from those that opened answers tell of (measured rounds; as these tell more, more is
    compared, so it need not fall) or from the one opened sum (one shot). A function of opened, noisy values
    and public ones, so it costs no epsilon; never a client's loss. None where the server does not train, and
    in older records."""

    @property
    def lost(self) -> bool:
        """Whether it opened nothing: charged, because uploads may have left."""
        return self.survivors == self.uplink_bytes == 0


msgspec.json.Decoder(RoundRecord)  # prepared at import: not by two threads at once


class MomentSession(msgspec.Struct, frozen=True, kw_only=True):
    """What opening a summed record-level release took: all messages of all clients, and the opened sums that
    were sent back. Kept in `moments.json`."""

    survivors: int
    uplink_bytes: int
    downlink_bytes: int


def encode(record: RoundRecord) -> bytes:
    """One JSON line without its newline; infinities are written "inf"."""
    return msgspec.json.encode(json_safe(msgspec.to_builtins(record), nan=True))


def decode(line: bytes) -> RoundRecord:
    """The inverse of `encode`.

    >>> decode(b'{"round": 1}')
    Traceback (most recent call last):
    ...
    msgspec.ValidationError: Object missing required field `survivors`
    """
    return msgspec.convert(from_json_safe(msgspec.json.decode(line)), RoundRecord)
