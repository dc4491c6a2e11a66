"""What is summed: ranges, and the order of the stages."""

from __future__ import annotations

import pytest

from prism_crypto.errors import InputError
from prism_crypto.spec import MAX_DIMENSION, MAX_TOTAL, CountSpec
from prism_crypto.stage import Stage


def test_stages_are_ordered_as_the_protocol_is():
    assert [stage.number for stage in Stage] == [1, 2, 3, 4, 5]
    assert Stage.ADVERTISE.before(Stage.UNMASK)
    assert not Stage.UPLOAD.before(Stage.UPLOAD)
    assert not Stage.CONFIRM.before(Stage.UPLOAD)


@pytest.mark.parametrize(
    "fields",
    [
        {"dimension": 0},
        {"dimension": MAX_DIMENSION + 1},
        {"dimension": 1, "bound": 0},
        {"dimension": 1, "bound": MAX_TOTAL + 1},
        {"dimension": 1, "codec": "x" * 65},
        {"dimension": 1.0},
        {"dimension": True},
        {"dimension": 1, "codec": None},
        {"dimension": 2, "parts": ()},
        {"dimension": 2, "parts": [(2, 1)]},
        {"dimension": 3, "parts": ((2, 1),)},
        {"dimension": 2, "parts": ((1, 1), (1, 2))},
        {"dimension": 2, "parts": ((1, 1), (1, 0)), "bound": 1},
        {"dimension": 2, "parts": ((2, 1), (0, 1))},
        {"dimension": 2, "parts": ((2, 1.0),)},
        {"dimension": 2, "parts": (2,)},
        {"dimension": 257, "parts": ((1, 1),) * 257},
    ],
)
def test_a_spec_out_of_range_is_refused(fields):
    with pytest.raises(InputError):
        CountSpec(**fields)


def test_a_total_that_overflows_int64_is_refused():
    spec = CountSpec(1, bound=2**62)
    assert spec.largest_total(1) == 2**62
    with pytest.raises(InputError, match="2\\^63"):
        spec.largest_total(2)


@pytest.mark.parametrize(
    "parts", [[], [1], [(1, 1, 1)], [(1, "a")], [(True, 1)], [(0, 1)], [(1, 1), (1, 2)] * 129]
)
def test_parts_out_of_range_are_refused_in_our_words(parts):
    with pytest.raises(InputError):
        CountSpec.of_parts(parts)


def test_parts_of_one_bound_are_no_parts():
    assert CountSpec.of_parts([(3, 7), (4, 7)], codec="x") == CountSpec(7, 7, "x")
    assert CountSpec.of_parts([(1, 1), (1, 2), (1, 1)]).parts == ((1, 1), (1, 2), (1, 1))
