"""What a mechanism is said to be: the claim that an audit tries to refute."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from prism_privacy import _validate
from prism_privacy.accounting.accountant import Accountant
from prism_privacy.errors import InvalidParameter
from prism_privacy.masks.release import MaskRelease
from prism_privacy.units import Adjacency, View

__all__ = ["Claim", "InputKind"]

InputKind = Literal["bits", "scores"]
Space = Literal["probability", "score"]


@dataclass(frozen=True)
class Claim:
    """A claimed law for the bits of one upload, and the (ε, δ) that is said to follow.

    With v = the input bits, or v = σ(scores/temperature): p̃ = f + (1−2f)v, p_t = f + (1−2f)θ, and the bits
    are independent Ber(p) with p = p_t + min(1, C/‖p̃−p_t‖₂)(p̃−p_t).

    flip         f, 0 < f < 1/2
    clip         C > 0; None: p = p̃
    input        "bits": the client's 0/1 bits; "scores": its scores, any floats
    epsilon      ε of one upload, seen bare; None: what this package's accountant says for flip, clip and the
                 audited number of coordinates, so that only the law is on trial
    delta        δ of that ε
    adjacency    what ε compares with: "zero_out" (the client sends coins of p_t) or "replace_one"
    clip_space   "probability" (above) or "score": ‖s−s_t‖₂/temperature ≤ C with s_t = temperature·logit θ
    temperature  τ of the scores

    >>> round(Claim(flip=0.25, clip=1.0).epsilon_at(dim=1024), 1)
    13.0

    Raises `InvalidParameter` for values outside these ranges.
    """

    flip: float
    clip: float | None = None
    input: InputKind = "bits"
    epsilon: float | None = None
    delta: float = 1e-5
    adjacency: Adjacency = Adjacency.ZERO_OUT
    clip_space: Space = "probability"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        flip = _validate.flip(self.flip)
        if flip == 0.0:
            raise InvalidParameter("flip must be > 0: a mechanism without flips claims no privacy to audit")
        clip = None if self.clip is None else _validate.positive("clip", self.clip)
        if self.input not in get_args(InputKind):
            raise InvalidParameter(f"input must be 'bits' or 'scores', got {self.input!r}")
        if self.clip_space not in get_args(Space):
            raise InvalidParameter(f"clip_space must be 'probability' or 'score', got {self.clip_space!r}")
        if self.clip_space == "score" and (self.input != "scores" or clip is None):
            raise InvalidParameter("clip_space='score' needs input='scores' and a clip")
        epsilon = None if self.epsilon is None else _validate.positive("epsilon", self.epsilon)
        for name, value in (
            ("flip", flip),
            ("clip", clip),
            ("epsilon", epsilon),
            ("delta", _validate.delta(self.delta)),
            ("adjacency", _validate.member("adjacency", Adjacency, self.adjacency)),
            ("temperature", _validate.positive("temperature", self.temperature)),
        ):
            object.__setattr__(self, name, value)

    @property
    def width(self) -> float:
        """1−2f: the length of a side of the box."""
        return 1.0 - 2.0 * self.flip

    def radius(self) -> float:
        """The claimed most of ‖p−p_t‖₂; `inf` without a clip."""
        if self.clip is None:
            return math.inf
        return self.clip if self.clip_space == "probability" else self.width * self.clip / 4.0

    def epsilon_at(self, dim: int) -> float:
        """The claimed ε of one upload of `dim` bits: `epsilon`, or the accountant's."""
        if self.epsilon is not None:
            return self.epsilon
        accountant = Accountant(self.delta)
        accountant.spend(MaskRelease(self.flip, self.clip, space=self.clip_space, dim=dim))
        return accountant.epsilon(View.UPLOAD, self.adjacency)

    def smallest_dim(self) -> int:
        """A number of coordinates that lets every check see something: the default of an audit.

        Two honest uploads of the same client must differ (or shared coins could not be told from luck), which
        needs d·log(1/(1−2f(1−f))) ≥ 40; and the box must reach twice as far as the clip, (1−2f)√d ≥ 4C.
        """
        differ = 40.0 / -math.log1p(-2.0 * self.flip * (1.0 - self.flip))
        bind = (4.0 * self.radius() / self.width) ** 2 if self.clip is not None else 0.0
        return max(1024, 64 * math.ceil(max(differ, bind) / 64))
