"""What a sweep compares its points by, each with a name and a direction.

An epsilon is the *planned* one: the guarantee of the plan that was fixed before the first round, whether or
not the run ended earlier.
"""

from __future__ import annotations

from typing import Literal

from prism_secure.errors import ConfigError, did_you_mean

Direction = Literal["minimize", "maximize"]

DIRECTIONS: dict[str, Direction] = {
    "epsilon.sum_zero_out": "minimize",
    "epsilon.sum_replace_one": "minimize",
    "epsilon.upload_zero_out": "minimize",
    "epsilon.upload_replace_one": "minimize",
    "epsilon.record": "minimize",
    "recall": "maximize",
    "coverage": "maximize",
    "gen2real": "maximize",
    "fid": "minimize",
    "kid": "minimize",
    "sliced_wasserstein": "minimize",
    "precision": "maximize",
    "density": "maximize",
    "label_accuracy": "maximize",
    "bits_per_parameter": "minimize",
    "uplink_bytes": "minimize",
    "seconds": "minimize",
}
"""Quality is that of the last evaluated round; bytes and seconds are of all rounds together."""

TITLES = {
    "fid": "FID",
    "recall": "recall",
    "coverage": "coverage",
    "gen2real": "gen2real",
    "kid": "KID",
    "sliced_wasserstein": "sliced Wasserstein distance",
    "precision": "precision",
    "density": "density",
    "label_accuracy": "label accuracy",
}
"""What a page calls the metrics of images."""


def falls(name: str) -> bool:
    """Whether an objective is better where it is smaller."""
    return DIRECTIONS[name] == "minimize"


def titled(name: str) -> str:
    """A metric of images with its direction, as it stands beside an axis.

    >>> titled("kid")
    'KID (lower is better)'
    """
    return f"{TITLES[name]} ({'lower' if falls(name) else 'higher'} is better)"


def direction(name: str) -> Direction:
    """Which way an objective is better.

    >>> direction("coverage")
    'maximize'

    Raises:
        ConfigError: no such objective; the nearest one is offered.
    """
    if name not in DIRECTIONS:
        hint = did_you_mean(name, DIRECTIONS, cutoff=0.4)
        raise ConfigError(f"sweep.objectives: unknown objective {name!r}; {hint}")
    return DIRECTIONS[name]
