"""What `from prism_privacy import …` gives, and that releases describe themselves."""

from __future__ import annotations

import inspect
import json
import math
import pkgutil
import subprocess
import sys

import pytest

import prism_privacy
from prism_privacy import Adjacency, InvalidParameter, MaskRelease, PrivacyError, Unit, View, errors


def test_every_public_name_exists_once_and_has_a_docstring() -> None:
    assert sorted(set(prism_privacy.__all__)) == sorted(prism_privacy.__all__)
    for name in prism_privacy.__all__:
        assert inspect.getdoc(getattr(prism_privacy, name)), name


@pytest.mark.parametrize(
    "modules",
    [
        ["prism_privacy"],
        ["prism_privacy.audit"],
        [module.name for module in pkgutil.walk_packages(prism_privacy.__path__, "prism_privacy.")],
    ],
    ids=["the package", "its auditors", "every module"],
)
def test_an_import_loads_neither_scipy_nor_dp_accounting(modules: list[str]) -> None:
    """They take most of a second, which every command line and every worker would pay."""
    code = f"import sys, {', '.join(modules)}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "numpy" in loaded.stdout.split()
    assert not {"scipy", "dp_accounting"} & set(loaded.stdout.split())


def test_names_that_other_code_relies_on_are_public() -> None:
    contract = {
        *("MaskRelease", "MomentRelease", "Accountant", "View", "Adjacency", "Unit", "Budget"),
        *(
            "BudgetExceeded",
            "Ledger",
            "RandomizedResponse",
            "clip_toward",
            "release_bits",
            "debias",
            "calibrate",
        ),
    }
    assert contract <= set(prism_privacy.__all__)


def test_every_error_is_one_of_this_package_and_drawn_in_the_tree() -> None:
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), PrivacyError)
        assert name in (errors.__doc__ or "")
    assert issubclass(InvalidParameter, ValueError)


def test_enums_are_plain_words() -> None:
    assert json.dumps([*View, *Adjacency, *Unit]) == (
        '["upload", "sum", "zero_out", "replace_one", "client", "record"]'
    )


def test_a_release_survives_json() -> None:
    for release in (
        MaskRelease(flip=0.25, clip=1.0, space="probability", cohort=1000),
        MaskRelease(0.1, None, 3, dim=7, sum_failure=2**-40),
        MaskRelease(0.1, 2.0, 3, "score"),
    ):
        assert MaskRelease(**json.loads(json.dumps(release.as_dict()))) == release


@pytest.mark.parametrize(
    ("release", "zero_out", "replace_one"),
    [
        (MaskRelease(0.25, 1.0, 10), 1.0, 2.0),
        (MaskRelease(0.25, 1.0, 10, dim=1), 0.5, 0.5),
        (MaskRelease(0.25, 1.0, 10, dim=9), 1.0, 1.5),
        (MaskRelease(0.25, None, 10, dimension=9), 1.5, 1.5),
        (MaskRelease(0.25, 1.0, 10, "score"), 0.125, 0.25),
    ],
)
def test_radii_follow_the_clip_the_adjacency_and_the_box(
    release: MaskRelease, zero_out: float, replace_one: float
) -> None:
    assert release.radius(Adjacency.ZERO_OUT) == pytest.approx(zero_out)
    assert release.radius(Adjacency.REPLACE_ONE) == pytest.approx(replace_one)
    assert release.reach(Adjacency.REPLACE_ONE) == min(release.radius(Adjacency.REPLACE_ONE), 0.5)
    assert release.dimension == release.dim


@pytest.mark.parametrize(
    "wrong",
    [
        {"flip": 0.5},
        {"clip": 0.0},
        {"clip": math.inf},
        {"clip": None},
        {"clip": None, "space": "score", "dim": 4},
        {"cohort": 0},
        {"space": "logit"},
        {"dim": 0},
        {"dim": 3, "dimension": 4},
        {"sum_failure": 1.5},
    ],
)
def test_a_release_that_no_accountant_can_accept_is_refused(wrong: dict[str, object]) -> None:
    fine: dict[str, object] = {"flip": 0.25, "clip": 1.0, "cohort": 10}
    with pytest.raises(InvalidParameter):
        MaskRelease(**{**fine, **wrong})  # type: ignore[arg-type]
