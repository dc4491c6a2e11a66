"""One noisy release of feature moments: the record-level guarantee, and how sensitive the moments are.

A client's records are feature vectors phi (norm at most 1 after scaling) with class labels. It releases
once

    [ S1 ; v S2 ; w n ],   S1[c] = sum of phi,   S2[c] = sum of phi o phi,   n[c] = number of records,

over the records of class c, stacked for **all** classes, absent ones included, plus Gaussian noise of one
standard deviation on every coordinate. Everything computed from it afterwards is post-processing.

**Sensitivities** (squared L2 norm of the change). Let u = phi - phi', s = phi + phi', U = |u|^2.

*On the sphere.* If |phi| = |phi'| = 1 then u and s are orthogonal and |s|^2 = 4 - U. For orthonormal a, b
the numbers t_i = a_i b_i sum to 0 and their absolute values to at most 1, so positive and negative parts
are at most 1/2 each, every |t_i| <= 1/2 and sum t_i^2 <= 1/2. Hence |phi o phi - phi' o phi'|^2 = sum
u_i^2 s_i^2 <= U (4 - U) / 2.
*In the ball.* Append the coordinate sqrt(1 - |phi|^2): both vectors are on the sphere, S1 and S2 only
gain coordinates, so the bounds below hold for norms of at most 1.

``swap``, the record keeps its label: U + v^2 U (4 - U) / 2, largest over U in [0, 4]: at U = 2 + 1/v^2 if
v^2 >= 1/2, which gives (1 + 2 v^2)^2 / (2 v^2), else at U = 4, which gives 4.
``swap`` across labels: S1 and S2 each change in two classes, by at most 1 and v^2 a class (|phi o phi| <=
|phi|^2), and two counts by w: 2 + 2 v^2 + 2 w^2.
``add_remove``: 1 + v^2 + w^2.

With v = 1, w = 1/2: swap 4.5 either way, add_remove 2.25 = 1.5^2.

*Non-negative features* (after a ReLU, say). Inner products are then >= 0, the appended coordinate
included, so U <= 2 on the sphere. U + v^2 U (4 - U)/2 rises up to U = 2 + 1/v^2 > 2, so its largest value
is 2 + 2 v^2, reached by phi = e1, phi' = e2. It is less than 2 + 2 v^2 + 2 w^2, so with several classes a
smaller w pays, and without second moments (v = 0, w = 1/2) swap is 2.5 instead of 4.

**Noise** is discrete Gaussian on a lattice that holds the quantised sums (see `noisy_sums`);
`prism_privacy.moments.discrete_gaussian` proves that the analytic epsilon of the Gaussian mechanism applies.

Clients hold different records, so one record is in one client's release and epsilon is the largest over the
clients, not their sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

from prism_privacy import _validate
from prism_privacy.errors import InvalidParameter
from prism_privacy.moments.discrete_gaussian import LARGEST, SMOOTHING, gaussian_epsilon, gaussian_multiplier
from prism_privacy.units import Unit

RecordAdjacency = Literal["swap", "add_remove"]

UNIT_BITS: Final = 20
"""Scaled features and counts are integers in units of 2^-20, squares in units of 2^-40."""
MOST_RECORDS: Final = 1 << 22
"""Sums of squares of that many records stay below 2^62."""

ADJACENCY_WORDS: Final[dict[str, str]] = {
    "swap": "one record is replaced by any other, its label included; the number of records is public",
    "add_remove": "one record is added or removed; the number of records is not public",
}


@dataclass(frozen=True)
class MomentRelease:
    """What a moment release is, for one client.

    Attributes:
        records: N. The number of records under ``swap``; under ``add_remove`` a public number that only
            scales sigma.
        norm: every feature vector is scaled down to this L2 norm if it is longer; in units of the features.
        sigma: standard deviation of the noise on a coordinate of S1 / N, in units of the features. On the
            sums of scaled features it is sigma N / norm.
        adjacency: ``"swap"`` or ``"add_remove"``.
        classes: how many classes are stacked; 1: no labels.
        second_weight: v; 0: no second moments are released. The noise on S2 is 1/v times that on S1.
        count_weight: w, > 0; the noise on a count is 1/w times that on S1. Without labels and under
            ``swap`` no counts are released.
        nonnegative: the features are promised to be >= 0; what is not is refused at release.

    Raises:
        InvalidParameter: a value out of range.

    >>> release = MomentRelease(records=1000, norm=1.0, sigma=0.002, adjacency="swap")
    >>> round(release.sensitivity**2, 6), release.noise
    (4.5, 2.0)
    >>> round(release.epsilon(1e-5), 2)
    4.69
    """

    records: int
    norm: float
    sigma: float
    adjacency: RecordAdjacency = "swap"
    classes: int = 1
    second_weight: float = 1.0
    count_weight: float = 0.5
    nonnegative: bool = False

    def __post_init__(self) -> None:
        if _validate.count("records", self.records) > MOST_RECORDS:
            raise InvalidParameter(f"records must be at most {MOST_RECORDS}, got {self.records}")
        if self.adjacency not in get_args(RecordAdjacency):
            raise InvalidParameter(f"adjacency must be 'swap' or 'add_remove', got {self.adjacency!r}")
        _validate.count("classes", self.classes)
        if not isinstance(self.nonnegative, bool):
            raise InvalidParameter(f"nonnegative must be True or False, got {self.nonnegative!r}")
        object.__setattr__(self, "norm", _validate.positive("norm", self.norm))
        object.__setattr__(self, "count_weight", _validate.positive("count_weight", self.count_weight))
        for name in ("sigma", "second_weight"):
            value = _validate.real(name, getattr(self, name))
            if not 0.0 <= value < math.inf:
                raise InvalidParameter(f"{name} must be finite and >= 0, got {value!r}")
            object.__setattr__(self, name, value)
        if self.sigma and max(self.lattice_noise) > LARGEST:
            raise InvalidParameter(
                "the noise does not fit 64-bit sums: sigma is too large or second_weight too small"
            )

    @classmethod
    def calibrated(
        cls,
        *,
        epsilon: float,
        delta: float,
        records: int,
        norm: float = 1.0,
        adjacency: RecordAdjacency = "swap",
        classes: int = 1,
        second_weight: float = 1.0,
        count_weight: float = 0.5,
        nonnegative: bool = False,
    ) -> MomentRelease:
        """The release with the least noise whose epsilon at ``delta`` is at most ``epsilon``.

        Above 10^11 or so the lattice on which noise is drawn sets the noise, and epsilon stays below.

        >>> release = MomentRelease.calibrated(epsilon=2.0, delta=1e-5, records=1000, classes=10)
        >>> 1.9999 < release.epsilon(1e-5) <= 2.0
        True
        """
        target = _validate.positive("epsilon", epsilon)
        at = _validate.delta(delta)

        def release(sigma: float) -> MomentRelease:
            return cls(records, norm, sigma, adjacency, classes, second_weight, count_weight, nonnegative)

        multiplier = gaussian_multiplier(target, at)
        unit = release(0.0).sensitivity * norm / records
        room = 1e-9
        while True:
            found = release(multiplier * unit * (1.0 + room))
            if found.epsilon(at) <= target:
                return found
            room *= 2.0

    @property
    def releases_counts(self) -> bool:
        """Whether counts are among what is released: not where the number of records is public anyway."""
        return self.classes > 1 or self.adjacency == "add_remove"

    @property
    def sensitivity(self) -> float:
        """The largest L2 change of [S1; v S2; w n] for scaled features; proofs at the top of the module."""
        v2, w2 = self.second_weight**2, self.count_weight**2
        if self.adjacency == "add_remove":
            squared = 1.0 + v2 + w2
        else:
            if self.nonnegative:
                squared = 2.0 + 2.0 * v2
            else:
                squared = (1.0 + 2.0 * v2) ** 2 / (2.0 * v2) if v2 >= 0.5 else 4.0
            if self.classes > 1:
                squared = max(squared, 2.0 + 2.0 * v2 + 2.0 * w2)
        return math.sqrt(squared) * (1.0 + 2.0**-50)

    @property
    def noise(self) -> float:
        """Standard deviation on the sums of scaled features: sigma N / norm."""
        return self.sigma * self.records / self.norm

    @property
    def lattice_noise(self) -> tuple[int, ...]:
        """Parameters of the discrete Gaussians on S1, S2 and n (what is released of them), in lattice units.

        They are rounded up, so there is never less noise than is accounted for.
        """
        parts = [self.noise * 2.0**UNIT_BITS]
        if self.second_weight:
            parts.append(self.noise / self.second_weight * 4.0**UNIT_BITS)
        if self.releases_counts:
            parts.append(self.noise / self.count_weight * 2.0**UNIT_BITS)
        if not all(map(math.isfinite, parts)):
            raise InvalidParameter("the noise is not finite: sigma is too large or a weight too small")
        return tuple(map(math.ceil, parts))

    def epsilon(self, delta: float) -> float:
        """Record-level epsilon of this release at ``delta``; ``inf`` where there is no noise to speak of.

        Raises:
            InvalidParameter: delta outside (0, 1).
        """
        return gaussian_epsilon(self.multiplier, _validate.delta(delta))

    @property
    def multiplier(self) -> float:
        """The noise in units of how far one record moves the release: a little less than it is, for being
        discrete; 0.0 where that leaves none.
        """
        least = min(self.lattice_noise)
        if least <= SMOOTHING:
            return 0.0
        lost = math.sqrt(1.0 - (SMOOTHING / least) ** 2) * (1.0 - 2.0**-50)
        return self.noise / self.sensitivity * lost

    @property
    def unit(self) -> Unit:
        """A record: one image of one client."""
        return Unit.RECORD

    def as_dict(self) -> dict[str, float | int | str | None]:
        """The fields as JSON-safe values; ``MomentRelease(**release.as_dict())`` gives the release back."""
        return {
            "records": self.records,
            "norm": self.norm,
            "sigma": self.sigma,
            "adjacency": self.adjacency,
            "classes": self.classes,
            "second_weight": self.second_weight,
            "count_weight": self.count_weight,
            "nonnegative": self.nonnegative,
        }
