"""What was released: the small value on which learner, secure sum and accountant agree.

Describing a release is apart from accounting for it, so this module computes radii and nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from prism_privacy import _validate
from prism_privacy.errors import InvalidParameter
from prism_privacy.units import Adjacency

__all__ = ["MaskRelease"]

_SPACES = ("probability", "score")


@dataclass(frozen=True, init=False)
class MaskRelease:
    """One round's mask bits of one client: Ber(p) for p in the box [f, 1−f]^d, clipped around the public p_t.

    flip         f, the box edge: every released bit is Ber(p) with f ≤ p ≤ 1−f. 0 is allowed: ε = inf.
    clip         C. In probability space ‖p − p_t‖₂ ≤ C. In score space Σ(logit p − logit p_t)² ≤ (1−2f)²C²,
                 which follows from ‖s − s_t‖₂/τ ≤ C because s/τ ↦ logit p is (1−2f)-Lipschitz.
                 None: only the box limits p; `dim` is then required.
    cohort       honest clients that every opened sum is guaranteed to hold, the protected one included
                 (minimum survivors less colluders). The default 1 makes SUM as weak as UPLOAD.
    space        "probability" or "score": where the clip acts.
    dim          d, the number of coordinates, where it is known; it caps the radius at (1−2f)√d.
    sum_failure  probability per round that the secure sum itself fails to hide uploads (2⁻⁴⁰ for a Harary
                 graph, 0 for a complete one); SUM pays it out of δ.

    >>> MaskRelease(flip=0.25, clip=1.0, space="probability", cohort=1000).radius(Adjacency.REPLACE_ONE)
    2.0
    >>> MaskRelease(flip=0.25, clip=None, cohort=10, dim=100).radius(Adjacency.ZERO_OUT)
    5.0

    Raises `InvalidParameter` for values outside these ranges.
    """

    flip: float
    clip: float | None
    cohort: int
    space: str
    dim: int | None
    sum_failure: float

    def __init__(
        self,
        flip: float,
        clip: float | None,
        cohort: int = 1,
        space: str = "probability",
        dimension: int | None = None,
        *,
        dim: int | None = None,
        sum_failure: float = 0.0,
    ) -> None:
        if dim is not None and dimension is not None and dim != dimension:
            raise InvalidParameter(f"dim and dimension are one thing, got {dim!r} and {dimension!r}")
        known = dim if dim is not None else dimension
        if space not in _SPACES:
            raise InvalidParameter(f"space must be 'probability' or 'score', got {space!r}")
        if clip is None and known is None:
            raise InvalidParameter("clip=None leaves only the box: dim, the number of coordinates, is needed")
        if clip is None and space == "score":
            raise InvalidParameter("space='score' needs a clip; unclipped releases have space='probability'")
        values: dict[str, object] = {
            "flip": _validate.flip(flip),
            "clip": None if clip is None else _validate.positive("clip", clip),
            "cohort": _validate.count("cohort", cohort),
            "space": space,
            "dim": None if known is None else _validate.count("dim", known),
            "sum_failure": _validate.probability("sum_failure", sum_failure),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def dimension(self) -> int | None:
        """Another name of `dim`."""
        return self.dim

    @property
    def width(self) -> float:
        """1−2f: the length of a side of the box, the most that one coordinate of p can move."""
        return 1.0 - 2.0 * self.flip

    def radius(self, adjacency: Adjacency) -> float:
        """The largest ‖p − p′‖₂ between neighbouring worlds, in probability space.

        A score-space clip is carried over by |p − q| ≤ |logit p − logit q|/4.
        """
        adjacency = _validate.member("adjacency", Adjacency, adjacency)
        box = math.inf if self.dim is None else self.width * math.sqrt(self.dim)
        if self.clip is None:
            return box
        radius = self.clip if self.space == "probability" else self.width * self.clip / 4.0
        return min(2.0 * radius if adjacency is Adjacency.REPLACE_ONE else radius, box)

    def reach(self, adjacency: Adjacency) -> float:
        """The most that one coordinate of p can differ between neighbouring worlds: min(R, 1−2f)."""
        return min(self.radius(adjacency), self.width)

    def as_dict(self) -> dict[str, float | int | str | None]:
        """The fields as JSON-safe values; `MaskRelease(**release.as_dict())` gives the release back."""
        return {
            "flip": self.flip,
            "clip": self.clip,
            "cohort": self.cohort,
            "space": self.space,
            "dim": self.dim,
            "sum_failure": self.sum_failure,
        }
