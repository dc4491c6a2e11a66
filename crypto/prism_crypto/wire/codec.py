"""Fixed-point numbers as the bounded non-negative integers that a secure sum adds.

The sum itself knows only integers in 0..bound. ``FixedPoint`` says how real numbers become such integers:
clipped to [-clip, clip], shifted to [0, 2·clip] and rounded to a grid of ``levels`` + 1 points. Clipping is
explicit because it changes the answer, and because the clip is what a sensitivity analysis may rely on. The
scale is a public parameter of the session, the same for every client.
"""

from __future__ import annotations

import hashlib
import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_crypto.errors import InputError
from prism_crypto.spec import MAX_TOTAL, CountSpec


def unmasked(values: NDArray[Any]) -> NDArray[Any]:
    """The array; of a masked one its data, if nothing is masked.

    Raises:
        InputError: something is: NumPy would silently take what lies under the mask.
    """
    if not isinstance(values, np.ma.MaskedArray):
        return values
    if np.ma.getmaskarray(values).any():
        raise InputError("a masked array with masked entries: put numbers there, as with array.filled(0)")
    data: NDArray[Any] = values.data
    return data


def whole_numbers(values: NDArray[Any]) -> NDArray[Any]:
    """Integers and booleans as they are; floats that hold whole numbers (0.0, 1.0) as int64.

    Args:
        values: any shape.

    Raises:
        InputError: a float that is no whole number below 2^53 in magnitude; another dtype; or a masked array
            with masked entries, which stand for no number. The message quotes no value.
    """
    values = unmasked(values)
    if values.dtype.kind in "biu":
        return values
    if values.dtype.kind != "f":
        raise InputError(f"expected integers, booleans or whole floats, not {values.dtype}")
    with np.errstate(invalid="ignore", over="ignore"):  # NaN compares false; 2^53 is inf in float16
        whole = (np.abs(values) < 2.0**53) & (values == np.rint(values))
    if not whole.all():
        raise InputError(
            f"{values.dtype} values that are not all whole numbers below 2^53: real ones become integers by "
            "FixedPoint(clip, levels).encode"
        )
    return values.astype(np.int64)


@dataclass(frozen=True)
class FixedPoint:
    """Real numbers in [-clip, clip] on a grid of levels + 1 equally spaced points.

    Args:
        clip: the largest magnitude that is kept, finite and positive.
        levels: the largest encoded integer, 1 ≤ levels < 2^53. The grid's step is 2·clip/levels; an even
            number of levels puts 0 on the grid. It is the ``bound`` of the secure sum.

    Raises:
        InputError: an argument is out of range.

    >>> codec = FixedPoint(clip=1.0, levels=200)
    >>> ours, theirs = codec.encode([0.25, -3.0]), codec.encode([0.5, 0.125])
    >>> ours.tolist(), theirs.tolist()
    ([125, 0], [150, 112])
    >>> codec.decode_sum(ours + theirs, survivors=2).tolist()
    [0.75, -0.88]
    """

    clip: float
    levels: int

    def __post_init__(self) -> None:
        if not (np.isfinite(self.clip) and self.clip > 0):
            raise InputError(f"clip must be a positive finite number, got {self.clip}")
        if not isinstance(self.levels, int | np.integer) or not 1 <= self.levels < 2**53:
            raise InputError(f"levels must be a whole number in 1..2^53-1, got {self.levels}")

    @property
    def name(self) -> str:
        """Clip and levels in few letters, for `CountSpec.codec`."""
        return f"{float(self.clip)!r}/{int(self.levels)}"

    @property
    def step(self) -> float:
        """The distance between neighbouring grid points, 2·clip/levels."""
        return 2 * self.clip / self.levels

    def encode(self, values: NDArray[np.floating[Any]] | list[float]) -> NDArray[np.int64]:
        """Clip to [-clip, clip] and round to the nearest grid point, ties to the even one.

        Args:
            values: real numbers, any shape. Numbers outside [-clip, clip] are clipped, on purpose.

        Returns:
            Integers in 0..levels, the same shape, int64.

        Raises:
            InputError: a value is NaN or infinite: a diverged model must not pass for a clipped one.
        """
        array = np.asarray(values, dtype=np.float64)
        if not np.isfinite(array).all():
            raise InputError(
                f"expected finite numbers, got {np.count_nonzero(~np.isfinite(array))} that are not"
            )
        # Halved first, so that values near the largest float do not overflow.
        fraction = np.clip(array, -self.clip, self.clip) / self.clip * 0.5 + 0.5
        return np.rint(fraction * self.levels).astype(np.int64)

    def decode_sum(self, counts: NDArray[np.integer[Any]], survivors: int) -> NDArray[np.float64]:
        """The sum of the survivors' clipped values, from the sum of their encodings.

        The error is at most survivors·step/2 a coordinate, from rounding, up to float64's own.

        Args:
            counts: opened sums, integers in 0..survivors·levels, any shape.
            survivors: how many encodings were added, at least 1.

        Returns:
            Float64, the same shape, within ±survivors·clip.

        Raises:
            InputError: no survivors, counts that are not integers, or a count out of range.
        """
        if survivors < 1:
            raise InputError(f"survivors must be at least 1, got {survivors}")
        array = np.asarray(counts)
        if array.dtype.kind not in "iu":
            raise InputError(f"expected integer counts, got {array.dtype}")
        most = survivors * self.levels
        if array.size and (int(array.min()) < 0 or int(array.max()) > most):
            raise InputError(f"counts must be in 0..{most}, got {array.min()}..{array.max()}")
        # Centred in integers first: halves of counts near 2^63 would cancel badly in floats.
        doubled_offset = (
            2 * array.astype(object) - most if most >= 2**62 else 2 * array.astype(np.int64) - most
        )
        return np.asarray(doubled_offset, dtype=np.float64) * (self.clip / self.levels)


@dataclass(frozen=True)
class WeightedMean:
    """Means whose weights nobody sees: a client adds its weighted values, and beside them its weight.

    Two things open, the weighted sum and the sum of the weights; their quotient is the mean. A client's
    vector is weight · `FixedPoint.encode(values)`, and the weight as one coordinate more, which is packed
    apart (`CountSpec.of_parts`).

    Args:
        codec: how values become integers.
        max_weight: the largest weight of one client. A whole number: weights are whole numbers up to it, such
            as numbers of examples. A `FixedPoint`: weights are real numbers in 0..clip, on its grid.

    Raises:
        InputError: an argument is out of range.

    >>> mean = WeightedMean(FixedPoint(clip=1.0, levels=200), max_weight=1000)
    >>> mean.spec(dimension=2)
    CountSpec(dimension=3, bound=200000, codec='mean 1.0/200 1000', parts=((2, 200000), (1, 1000)))
    >>> ours, theirs = mean.encode([0.5, -0.5], 300), mean.encode([1.0, 0.0], 100)
    >>> mean.decode_sum(ours + theirs)
    (array([ 0.625, -0.375]), 400)
    """

    codec: FixedPoint
    max_weight: int | FixedPoint = 1

    def __post_init__(self) -> None:
        if not isinstance(self.codec, FixedPoint):
            raise InputError(f"codec must be a FixedPoint(clip, levels), not {type(self.codec).__name__}")
        if not isinstance(self.max_weight, FixedPoint) and (
            not isinstance(self.max_weight, int | np.integer) or isinstance(self.max_weight, bool)
        ):
            raise InputError(
                "max_weight must be a whole number, or a FixedPoint for weights that are real numbers, "
                f"not {type(self.max_weight).__name__}"
            )
        if not 1 <= self._largest < 2**53:
            raise InputError(
                f"max_weight must be in 1..2^53-1, a FixedPoint of at least 2 levels, not {self.max_weight}"
            )
        if self._largest * int(self.codec.levels) > MAX_TOTAL:
            raise InputError(
                f"max_weight times levels must be below 2^63, not {self._largest} times {self.codec.levels}"
            )

    @property
    def _largest(self) -> int:
        """The largest weight as the integer that is added."""
        if isinstance(self.max_weight, FixedPoint):
            return int(self.max_weight.levels) // 2
        return int(self.max_weight)

    def spec(self, dimension: int) -> CountSpec:
        """What is summed for values of ``dimension`` coordinates; codec and largest weight are bound by it.

        Raises:
            InputError: out of range.
        """
        largest, bound = self._largest, self._largest * int(self.codec.levels)
        weights = self.max_weight.name if isinstance(self.max_weight, FixedPoint) else str(largest)
        name = f"mean {self.codec.name} {weights}"
        if len(name) > 64:  # of numbers with many digits
            name = f"mean {hashlib.sha256(name.encode()).hexdigest()[:40]}"
        return CountSpec.of_parts([(dimension, bound), (1, largest)], codec=name)

    def encode(self, values: NDArray[np.floating[Any]] | list[float], weight: float) -> NDArray[np.int64]:
        """One client's vector.

        Args:
            values: real numbers (d,), clipped as `FixedPoint.encode` does.
            weight: this client's, in 0..max_weight.

        Returns:
            Integers (d + 1,), int64.

        Raises:
            InputError: a value or the weight is not finite, or the weight is out of range.
        """
        counted = self._weight(weight)
        encoded = self.codec.encode(values).reshape(-1)
        return np.append(encoded * np.int64(counted), np.int64(counted))

    def _weight(self, weight: float) -> int:
        if isinstance(self.max_weight, FixedPoint):
            most, step, kind = float(self.max_weight.clip), self.max_weight.step, "number"
        else:
            most, step, kind = float(self._largest), 1.0, "whole number"
        number = math.nan
        with suppress(TypeError, ValueError, OverflowError):
            number = float(weight)
        if not 0 <= number <= most or (kind == "whole number" and number != round(number)):
            raise InputError(f"a weight must be a {kind} in 0..{most:.17g} (max_weight)")  # quotes no value
        return min(round(number / step), self._largest)

    def decode_sum(self, counts: NDArray[np.integer[Any]]) -> tuple[NDArray[np.float64], float]:
        """The weighted mean (d,), float64, and the sum of the weights, from opened sums (d + 1,).

        The error is at most half a step of the codec, up to float64's own.

        Raises:
            InputError: the weights add up to 0, which is the mean of nothing, or the counts are no such sums.
        """
        array = np.asarray(counts)
        total = int(array[-1])
        if total < 1:
            raise InputError("the weights add up to 0: there is no mean")
        mean = self.codec.decode_sum(array[:-1], survivors=total) / total
        return mean, total * self.max_weight.step if isinstance(self.max_weight, FixedPoint) else total
