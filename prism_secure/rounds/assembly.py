"""The end of a round, the same in one process and over Flower: from opened sums to the round's record, and
the metrics that complete it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from prism_crypto import SecureSumResult
from prism_secure.accounting.spending import Spending
from prism_secure.errors import PrismError, public_text
from prism_secure.learning.moment_matching import FeatureMoments
from prism_secure.rounds.broadcast import Broadcast
from prism_secure.rounds.components import Components
from prism_secure.rounds.server import Server
from prism_secure.run_folder.records import Quality, RoundRecord

T_co = TypeVar("T_co", covariant=True)
"""`Quality`, or what waits for it."""


class Evaluate(Protocol[T_co]):
    def __call__(self, mask: NDArray[np.bool_], samples: Path, *, utility: bool) -> T_co:
        """The metrics of a deployed mask, bool (d,), or what waits for them; its grid goes to `samples`."""


@dataclass(frozen=True)
class Clock:
    """When things happened in a round, in seconds of one clock.

    Attributes:
        now: reads it.
        began: the round began.
        uploading: the first upload could reach the server's sum.
        opened: the sums were open.
    """

    now: Callable[[], float]
    began: float
    uploading: float
    opened: float


def close_round(
    components: Components,
    server: Server,
    broadcast: Broadcast,
    sums: Sequence[SecureSumResult],
    *,
    moments: FeatureMoments | None,
    spending: Spending,
    clock: Clock,
) -> RoundRecord:
    """Move theta by what opened, and say what it cost; the record has no metrics yet, see `with_metrics`.

    Args:
        server: about to absorb the round of `broadcast`.
        sums: the sum of the clients' bits and, where the last layers send scores, that of these.
        moments: what opened before round 1, with a summed record-level release.
        spending: has charged the round, or does so now.
    """
    bits = sums[0]
    layers, survivors = components.score_layers, len(bits.survivors)
    score_mean = None if layers is None else layers.mean_theta(sums[1].counts, len(sums[1].survivors))
    planned, before = spending.planned_rounds, server.deployed()
    moved = server.absorb(
        bits.counts, survivors, planned_rounds=planned, score_mean=score_mean, moments=moments
    )
    sent = sum(size > 0 for size in bits.downlink_bytes.values())
    coordinates = sum(len(each.counts) for each in sums)
    return RoundRecord(
        round=server.round,
        survivors=survivors,
        epsilon=spending.charge(server.round),
        record=spending.record,
        bits_per_parameter=sum(each.bits_per_coordinate * len(each.counts) for each in sums) / coordinates,
        uplink_bytes=sum(sum(each.uplink_bytes.values()) for each in sums),
        downlink_bytes=sum(sum(each.downlink_bytes.values()) for each in sums) + sent * broadcast.nbytes,
        step=moved.step,
        seconds=clock.now() - clock.began,
        secure_sum_seconds=clock.opened - clock.uploading,
        changed=server.changed(before),
        server_loss=moved.loss,
    )


def evaluated_if_due(
    server: Server, planned: int, evaluate: Evaluate[T_co], samples: Callable[[int], Path]
) -> T_co | None:
    """What `evaluate` gives for the mask that is deployed now; None after rounds without metrics.

    Args:
        planned: how many rounds there will be.
        samples: where the sample grid of a round goes.
    """
    if not server.is_evaluated(planned):
        return None
    utility = server.evaluates_utility(planned)
    return evaluate(server.deployed(), samples(server.round), utility=utility)


def with_metrics(record: RoundRecord, quality: Callable[[], Quality | None]) -> RoundRecord:
    """A round's record with its metrics; its seconds grow by those that `quality` takes to give them.

    Raises:
        PrismError: what `quality` raises, after the round's number.
    """
    began = time.perf_counter()
    try:
        found = quality()
    except PrismError as error:
        what = f"measuring round {record.round}"
        raise type(error)(f"{what}: {error}", public=f"{what}: {public_text(error)}") from error
    seconds = record.seconds + time.perf_counter() - began
    return msgspec.structs.replace(record, quality=found, seconds=seconds)
