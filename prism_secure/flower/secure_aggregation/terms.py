"""What one sum is of: a client's app and the server's say it each by itself; other sessions are refused.

A client's vector has the values of its arrays, then one number for each metric, then its weight. What has a
bound of its own is packed apart, so that a counter beside a model costs a word and not a wider model.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeAlias

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord
from numpy.typing import NDArray

from prism_crypto import CountSpec, FixedPoint, InputError, WeightedMean
from prism_secure.errors import AgreementError, ConfigError

EXAMPLES = "num-examples"
"""The metric by which Flower's strategies weigh, unless they are told another."""

_CODEC = "flower "

SIGNS = FixedPoint(1.0, 2)
"""-1, 0 and +1, exactly; and bits."""

Codec: TypeAlias = FixedPoint | Literal["signs"] | None
Weight: TypeAlias = str | Literal["uniform"] | None
Metrics: TypeAlias = Mapping[str, int | FixedPoint]


@dataclass(frozen=True)
class Terms:
    """See `prism_secure.flower.secure_sum`, whose arguments these are.

    Raises:
        ConfigError: they contradict each other.
    """

    bound: int | None = 1
    codec: FixedPoint | None = None
    weight: Weight = None
    max_weight: int | FixedPoint | None = None
    metrics: Metrics = field(default_factory=dict)
    signs: bool = False

    @classmethod
    def of(
        cls,
        bound: int | None,
        codec: Codec,
        weight: Weight,
        max_weight: int | FixedPoint | None,
        metrics: Metrics | None,
    ) -> Self:
        """As the public functions are given them."""
        if codec is not None and not isinstance(codec, FixedPoint) and codec != "signs":
            raise ConfigError(f'codec= is a FixedPoint(clip, levels) or "signs", not {codec!r}')
        grid = SIGNS if codec == "signs" else codec
        return cls(bound, grid, weight, max_weight, dict(metrics or {}), signs=codec == "signs")

    def __post_init__(self) -> None:
        weighed = self.weight not in (None, "uniform")
        if self.codec is not None and self.bound != 1:
            raise ConfigError("codec= says how large a number may be: leave out bound")
        if weighed and (self.codec is None or self.max_weight is None):
            raise ConfigError(
                f'weight={self.weight!r} needs codec=FixedPoint(clip, levels), of bits and signs "signs", '
                "and max_weight=, the largest weight of one client"
            )
        if not weighed and self.max_weight is not None:
            raise ConfigError("max_weight= is for weight=, the name of the metric that is the weight")
        if self.bound is None and (weighed or self.metrics):
            raise ConfigError(
                "with bound=None the function's own vector is summed, without weight and metrics"
            )
        for name, bound in self.metrics.items():
            if name == self.weight:
                raise ConfigError(f"{name!r} is the weight: its sum opens anyway, so it is not among metrics")
            if not isinstance(bound, FixedPoint) and not (type(bound) is int and bound > 0):
                raise ConfigError(
                    f"metrics[{name!r}] is the largest count of one client, a whole number, or a FixedPoint "
                    f"for a mean, not {bound!r}"
                )
        if self._mean is not None:
            self._mean.spec(1)

    @property
    def _mean(self) -> WeightedMean | None:
        if self.codec is None or self.max_weight is None:
            return None
        return WeightedMean(self.codec, self.max_weight)

    @property
    def _plain(self) -> bool:
        """Nothing but integers: what every version summed."""
        return self.codec is None and not self.metrics

    @property
    def extra(self) -> int:
        """How many coordinates there are beside those of the arrays."""
        return len(self.metrics) + (self._mean is not None)

    def spec(self, dimension: int) -> CountSpec:
        """What a session sums, for arrays of `dimension` values."""
        assert self.bound is not None
        if self._plain:
            return CountSpec(dimension, self.bound)
        heaviest, parts = 1, []
        if (mean := self._mean) is not None:
            heaviest = mean.spec(1).bound // int(mean.codec.levels)
        largest = self.bound if self.codec is None else heaviest * int(self.codec.levels)
        parts.append((dimension, largest))
        for _, bound in sorted(self.metrics.items()):
            parts.append((1, heaviest * int(bound.levels) if isinstance(bound, FixedPoint) else bound))
        if mean is not None:
            parts.append((1, heaviest))
        weight = None if mean is None else self.weight  # "uniform" is a word of the client's own
        said = (self.bound, _said(self.codec), weight, _said(self.max_weight))
        named = [(name, _said(bound)) for name, bound in sorted(self.metrics.items())]
        return CountSpec.of_parts(
            parts, f"{_CODEC}{hashlib.sha256(repr((said, named)).encode()).hexdigest()[:40]}"
        )

    def check(self, spec: CountSpec) -> None:
        """Refuse a session of other terms.

        A server that may choose the largest value learns where a client's largest one lies, because a vector
        above it is refused; one that may choose the codec has numbers clipped as it likes.

        Raises:
            AgreementError: it is one.
        """
        if self.bound is None:
            return
        if self._plain and spec.bound != self.bound:
            raise AgreementError(f"this client adds integers up to {self.bound}, not up to {spec.bound}")
        if self._plain and (isinstance(spec.parts, tuple) or spec.codec.startswith(_CODEC)):
            raise AgreementError(
                "this client adds integers; the server's codec, weight and metrics are not its app's"
            )
        if not self._plain and (
            spec.dimension <= self.extra or spec != self.spec(spec.dimension - self.extra)
        ):
            raise AgreementError(
                "the server asks for another sum than this client's app: codec, weight, max_weight and "
                "metrics are the same in secure_sum and in SecureSumGrid"
            )

    def vector(self, arrays: ArrayRecord, metrics: MetricRecord) -> NDArray[Any]:
        """What a client adds.

        Raises:
            AgreementError: a metric or the weight is missing, there is a weight that nobody asked for, or an
                array is not of the type that is summed.
            InputError: a value is out of range; it is the application's own, and not for the server to read.
        """
        if (
            self.bound is not None
            and self.weight is None
            and EXAMPLES in metrics
            and EXAMPLES not in self.metrics
        ):
            raise AgreementError(
                f"the reply has the metric {EXAMPLES!r}, by which strategies weigh: say weight={EXAMPLES!r}, "
                'codec= and max_weight= for a weighted mean, or weight="uniform" if all clients count alike'
            )
        for name in [*self.metrics, *([self.weight] if self._mean is not None else [])]:
            if name not in metrics:
                raise AgreementError(
                    f"the reply has no metric {name!r}, which is summed by the terms of this app"
                )
        read = flat_integers if self.codec is None else flat_reals
        flat = [read(name, array) for name, array in arrays.items()]
        values = flat[0] if len(flat) == 1 else np.concatenate(flat)
        if self.signs and not np.isin(values, (-1, 0, 1)).all():
            raise InputError('codec="signs" adds up -1, 0 and +1, and there are other values: numpy.sign(…)')
        if self._plain:
            return values
        weight = 1
        if (mean := self._mean) is not None:
            weight = int(mean.encode([], metrics[self.weight])[-1])  # type: ignore[arg-type, index]
        counted = [
            self._counted(name, bound, metrics[name], weight) for name, bound in sorted(self.metrics.items())
        ]
        if mean is not None:
            counted.append(weight)
        encoded = values if self.codec is None else self.codec.encode(values) * np.int64(weight)
        return np.append(encoded.astype(np.int64, copy=False), np.array(counted, np.int64))

    def _counted(self, name: str, bound: int | FixedPoint, value: Any, weight: int) -> int:
        number = float(value) if isinstance(value, int | float) else math.nan
        if isinstance(bound, FixedPoint):
            return int(bound.encode([number])[0]) * weight
        if not 0 <= number <= bound or number != int(number):
            raise InputError(f"the metric {name!r} must be a whole number in 0..{bound}")
        return int(number)

    def mean(self, counts: NDArray[np.int64], survivors: int) -> tuple[NDArray[np.float64], MetricRecord]:
        """The mean of the arrays' values, and the metrics of the one reply that a strategy sees.

        Raises:
            InputError: the weights add up to 0.
        """
        heads, tail = counts[: len(counts) - self.extra], counts[len(counts) - self.extra :]
        total: int = survivors
        found: dict[str, float] = {EXAMPLES: survivors}
        if (mean := self._mean) is not None:
            _, weight = mean.decode_sum(tail[-1:])
            total = int(tail[-1])
            found[str(self.weight)] = weight
        values = heads / total if self.codec is None else self.codec.decode_sum(heads, total) / total
        for (name, bound), count in zip(sorted(self.metrics.items()), tail.tolist(), strict=False):
            found[name] = count
            if isinstance(bound, FixedPoint):
                found[name] = float(bound.decode_sum(np.array([count]), total)[0]) / total
        return values, MetricRecord({**found})


def flat_integers(name: str, array: Array) -> NDArray[Any]:
    """The values of one array, one-dimensional.

    Raises:
        AgreementError: they are not integers; floats never are, as an error must not depend on their values.
    """
    values = array.numpy().reshape(-1)
    if values.dtype.kind not in "iub":
        raise AgreementError(
            f"only integers can be summed, and {name!r} is {values.dtype}: reply bits as .astype(np.uint8), "
            "and for real numbers give secure_sum and SecureSumGrid one codec=FixedPoint(clip, levels)"
        )
    return values


def flat_reals(name: str, array: Array) -> NDArray[np.float64]:
    """The values of one array, one-dimensional, float64.

    Raises:
        AgreementError: they are not numbers.
    """
    values = array.numpy().reshape(-1)
    if values.dtype.kind not in "iubf":
        raise AgreementError(f"only numbers can be summed, and {name!r} is {values.dtype}")
    return values.astype(np.float64, copy=False)


def _said(bound: int | FixedPoint | None) -> str:
    return bound.name if isinstance(bound, FixedPoint) else str(bound)
