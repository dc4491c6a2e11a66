"""The auditor's own law of the bits, against its definition and against the product's fixed point."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.special import expit, logit

from prism_privacy import Adjacency, InvalidParameter, MaskRelease, clip_toward
from prism_privacy.audit import Claim
from prism_privacy.audit.law import released_probabilities

RNG = np.random.default_rng(3)
THETA = RNG.uniform(0.1, 0.9, 200)


@pytest.mark.parametrize("clip", [None, 0.3, 2.0, 50.0])
@pytest.mark.parametrize("flip", [0.01, 0.25, 0.4])
def test_product_and_auditor_agree_to_the_grid(flip: float, clip: float | None) -> None:
    bits = RNG.integers(0, 2, 200)
    scores = RNG.normal(0.0, 3.0, 200)
    for kind, values, probabilities in (
        ("bits", bits, bits.astype(float)),
        ("scores", scores, expit(scores)),
    ):
        product = clip_toward(probabilities, THETA, flip=flip, clip=clip) / 2**24
        law = released_probabilities(Claim(flip, clip, kind), values, THETA)  # type: ignore[arg-type]
        assert np.abs(product - law).max() < 2.0**-23


@pytest.mark.parametrize("clip", [0.5, 4.0])
def test_product_and_auditor_agree_about_the_clip_in_score_space(clip: float) -> None:
    scores = 0.1 * logit(THETA) + RNG.normal(0.0, 0.3, 200)
    product = clip_toward(scores, THETA, flip=0.2, clip=clip, space="score", temperature=0.1) / 2**24
    claim = Claim(0.2, clip, "scores", clip_space="score", temperature=0.1)
    assert np.abs(product - released_probabilities(claim, scores, THETA)).max() < 2.0**-22


def test_the_law_of_bits_is_its_definition_in_rational_numbers() -> None:
    flip, clip = Fraction(1, 5), Fraction(1, 4)
    bits, theta = [1, 0, 0, 1], [Fraction(1, 5), Fraction(1, 2), Fraction(7, 10), Fraction(1, 10)]
    wanted = [flip + (1 - 2 * flip) * bit for bit in bits]
    public = [flip + (1 - 2 * flip) * t for t in theta]
    square = sum((q - p) ** 2 for q, p in zip(wanted, public, strict=True))
    assert square > clip**2
    expected = [
        float(p) + float(q - p) * float(clip) / math.sqrt(square) for q, p in zip(wanted, public, strict=True)
    ]
    law = released_probabilities(Claim(0.2, 0.25), np.array(bits), np.array([float(t) for t in theta]))
    assert law == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    "wrong",
    [
        {"flip": 0.0},
        {"flip": 0.5},
        {"flip": 0.2, "clip": 0.0},
        {"flip": 0.2, "epsilon": 0.0},
        {"flip": 0.2, "epsilon": math.inf},
        {"flip": 0.2, "delta": 0.0},
        {"flip": 0.2, "input": "logits"},
        {"flip": 0.2, "adjacency": "add_remove"},
        {"flip": 0.2, "clip": 1.0, "clip_space": "score"},
        {"flip": 0.2, "input": "scores", "clip_space": "score"},
        {"flip": 0.2, "temperature": 0.0},
    ],
)
def test_a_claim_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidParameter, match=next(reversed(wrong))):
        Claim(**wrong)  # type: ignore[arg-type]


def test_the_claimed_radius_is_the_accountants() -> None:
    for claim in (Claim(0.2, 1.5), Claim(0.2, 1.5, "scores", clip_space="score")):
        release = MaskRelease(0.2, 1.5, space=claim.clip_space, dim=10**6)
        assert claim.radius() == release.radius(Adjacency.ZERO_OUT)
    assert Claim(0.2).radius() == math.inf
    assert Claim(0.2, epsilon=3.0).epsilon_at(100) == 3.0
    assert Claim(0.2, 1.0, adjacency="replace_one").epsilon_at(100) > Claim(0.2, 1.0).epsilon_at(100)  # type: ignore[arg-type]
