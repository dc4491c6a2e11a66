"""What a measured round releases, and how far its bits can move: for a client, and for one record.

One round, in real numbers: each record i answers r_i = V[y_i]^T (phi_i - m[y_i]), clipped to ||r_i|| <=
c; the client's answer a = (1/N) sum r_i is clipped to ||a|| <= A, with N public; its bits are Ber(p) with
p = p_t + (C/A) E a, put into the box [f, 1 - f] and into the ball of radius C around the quantised p_t.

**Theorem.** Let m be the number of coordinates, s >= 1 at least the largest singular value of E.

*Client.* ||p - p_t|| <= C whatever V, m, E and the data are: ``zero_out`` has the radius C,
``replace_one`` 2C.

*Record.* If one record of a client is replaced by any other, its label included, p moves by at most

    R = min(2C, (C/A) s 2c/N + slack),    slack = 2^-24 sqrt(m) + 2^-30 s C,

and by at most min(2C, (C/A) s c/N + slack) if one is added or removed. A *person* with several records
counts as one record where one clip c acts on the sum of that person's responses.

*Proof.* Client: the integers k - k_t satisfy sum (k - k_t)^2 <= floor((C 2^24)^2), which is checked in
integers, and k_t is public. Two points of that ball are at most 2C apart, hence the 2C in both lines.

Record, in units in which c is 2^30, A is 2^40 and p is 2^24. The other records' clipped responses are the
same integers in both worlds, as each is a function of one record alone
(:mod:`prism_privacy.measured.integers`), and sum r^2 <= 2^60 is checked in integers for each, so the
exact sums S, S' differ by at most 2 2^30 (added or removed: 2^30), that is 2c/N (c/N) as answers. Then,
each line for two worlds:

1. The projection on ||a|| <= A is 1-Lipschitz. It is computed to 2^-48 A in each world and rounded toward
   zero to A 2^-40, and |trunc x - trunc x'| < |x - x'| + 1: at most (sqrt(k) 2^-40 + 2^-47) A more.
   The gains that lead to the answer, and c where it is a multiple of A, are rounded a few times each: one
   factor of 1 +- 2^-49 for both worlds, on a difference of at most 2 A: at most 2^-48 A more.
2. sqrt(m) E a is exact, ||E(a - a')|| <= s ||a - a'||. Multiplying by the factor C / (A sqrt(m)) and
   rounding the product to binary64: 2^-49 s C for both worlds.
3. The box is a product of intervals with integer ends around k_t, so going into it is exact and
   1-Lipschitz. As the box holds the centre, it brings no vector further from it.
4. Going into the ball. With s = 1 every vector has length at most C (1 + 2^-47) by now, so the integer
   check passes at once or after one retreat by the factor 1 - 2^-39: 2^-37 C for both worlds. (With another
   E, s > 1, the ball binds, and has to be the projection, which is 1-Lipschitz, to that error.)
5. Rounding each coordinate toward k_t: less than one unit more each, sqrt(m) units, 2^-24 sqrt(m).

With k <= 2^12 the terms in C add up to less than (2^-34 + 2^-47 + 2^-48 + 2^-49 + 2^-37) s C < 2^-33 s C.
QED

Not needed, and not claimed: that V is orthonormal, that m is near the data, that N is the number of
records (with more records than N, each still moves c/N; but N must be *public*: with the private number
in its place the scale itself would tell, and a client of few records would move further than R). Clips
are public numbers fixed before the round; no rule may look at private norms. They may follow what was
opened before, as everything public may, through a filter.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import get_args

from prism_privacy import _validate
from prism_privacy.errors import InvalidParameter
from prism_privacy.masks.fixed_point import BITS, SCALE
from prism_privacy.masks.release import MaskRelease
from prism_privacy.measured.embedding import MOST_COORDINATES
from prism_privacy.measured.integers import ANSWER_BITS, MOST_DIRECTIONS, RESPONSE_BITS
from prism_privacy.moments.release import RecordAdjacency
from prism_privacy.units import Unit

_CLIPS = (2.0**-64, 2.0**64)
_ROUND_UP = 1.0 + 2.0**-50


@dataclass(frozen=True)
class MeasuredRelease:
    """One measured round of one client: what its bits may depend on, and how much.

    Attributes:
        flip: f, the edge of the box.
        clip: C: ||p - p_t||_2 <= C.
        client_clip: A: ||a||_2 <= A, in units of the responses; or 1, where A is the unit of both clips, as
            in a plan whose rounds say how long A is.
        record_clip: c: ||r_i||_2 <= c for each record.
        records: N, by which the sum of responses is divided: a public number, the same for all clients or
            agreed for each, never the private count.
        coordinates: m, how many bits leave.
        directions: k, how many numbers they carry.
        cohort: honest clients guaranteed in the opened sum, the target included. It assumes no colluder
            unless they are subtracted here.
        sum_failure: probability a round that the secure sum fails to hide uploads.
        sigma_max: s, at least the largest singular value of E: 1 for :class:`HadamardEmbedding`.

    Raises:
        InvalidParameter: a value out of range.

    >>> release = MeasuredRelease(flip=0.25, clip=1.0, client_clip=0.1, record_clip=0.3, records=10,
    ...                           coordinates=1024, directions=64, cohort=1000)
    >>> round(release.record_radius("swap"), 4), round(release.record_radius("add_remove"), 4)
    (0.6, 0.3)
    >>> release.release(Unit.CLIENT).clip
    1.0
    """

    flip: float
    clip: float
    client_clip: float
    record_clip: float
    records: int
    coordinates: int
    directions: int
    cohort: int = 1
    sum_failure: float = 0.0
    sigma_max: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "flip", _validate.flip(self.flip))
        for name in ("clip", "client_clip", "record_clip"):
            value = _validate.positive(name, getattr(self, name))
            if not _CLIPS[0] <= value <= _CLIPS[1]:
                raise InvalidParameter(f"{name} must lie in [2^-64, 2^64], got {value!r}")
            object.__setattr__(self, name, value)
        for name in ("records", "coordinates", "directions", "cohort"):
            object.__setattr__(self, name, _validate.count(name, getattr(self, name)))
        if self.coordinates > MOST_COORDINATES:
            raise InvalidParameter(f"coordinates must be at most {MOST_COORDINATES}, got {self.coordinates}")
        if self.directions > min(self.coordinates, MOST_DIRECTIONS):
            raise InvalidParameter(
                f"directions must be at most the coordinates and {MOST_DIRECTIONS}, got {self.directions}"
            )
        object.__setattr__(self, "sum_failure", _validate.probability("sum_failure", self.sum_failure))
        if not 1.0 <= _validate.real("sigma_max", self.sigma_max) < math.inf:
            raise InvalidParameter(f"sigma_max must be finite and at least 1, got {self.sigma_max!r}")
        object.__setattr__(self, "sigma_max", float(self.sigma_max))

    @property
    def slack(self) -> float:
        """What roundings add to a record's radius; proof at the top of the module."""
        return 2.0**-BITS * math.sqrt(self.coordinates) + 2.0**-30 * self.sigma_max * self.clip

    def record_radius(self, adjacency: RecordAdjacency = "swap") -> float:
        """The most that p moves if one record is swapped (its label included), or added or removed."""
        if adjacency not in get_args(RecordAdjacency):
            raise InvalidParameter(f"record adjacency must be 'swap' or 'add_remove', got {adjacency!r}")
        moved = (2.0 if adjacency == "swap" else 1.0) * self.record_clip / self.records
        radius = self.clip / self.client_clip * self.sigma_max * moved + self.slack
        return min(2.0 * self.clip, radius * _ROUND_UP)

    def release(self, unit: Unit, adjacency: RecordAdjacency = "swap") -> MaskRelease:
        """What the accountant is told for one unit.

        ``Unit.CLIENT``: clip C; its epsilons stand under ``ZERO_OUT`` and ``REPLACE_ONE``.
        ``Unit.RECORD``: the clip is the record's whole radius R, so its epsilon stands under ``ZERO_OUT``
        (the name of the column, not of the adjacency: that is ``adjacency``, "swap" or "add_remove").
        """
        unit = _validate.member("unit", Unit, unit)
        clip = self.clip if unit is Unit.CLIENT else self.record_radius(adjacency)
        return MaskRelease(self.flip, clip, self.cohort, dim=self.coordinates, sum_failure=self.sum_failure)

    def scaled(self, factor: float) -> MeasuredRelease:
        """The same round with ``factor`` times the clip C: every radius scales along."""
        return replace(self, clip=self.clip * factor)

    @property
    def record_gain(self) -> float:
        """From a response in units of 2^-30 to units of c 2^-30."""
        return 1.0 / self.record_clip

    @property
    def answer_gain(self) -> float:
        """From a sum of responses in units of c 2^-30 to an answer in units of A 2^-40."""
        return self.record_clip * 2.0 ** (ANSWER_BITS - RESPONSE_BITS) / (self.client_clip * self.records)

    @property
    def move_gain(self) -> float:
        """From sqrt(m) E a, in units of A 2^-40, to a move of p in units of 2^-24."""
        return self.clip * (SCALE * 2.0**-ANSWER_BITS) / math.sqrt(self.coordinates)

    def as_dict(self) -> dict[str, float | int]:
        """The fields as JSON-safe values; ``MeasuredRelease(**release.as_dict())`` gives the release back."""
        return asdict(self)
