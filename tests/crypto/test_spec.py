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
