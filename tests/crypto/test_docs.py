"""The examples of the documentation run, and its figures are the code's."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import numpy as np
import pytest

from prism_crypto import CountSpec, Identity, Session, secure_sum
from prism_crypto.primitives.chosen_graph import chosen_parameters
from prism_crypto.primitives.graph import harary_degree
from prism_crypto.primitives.keys import SealingKeyPair
from prism_crypto.wire.packing import Packing

PAGE = Path(__file__).parents[2] / "docs" / "secure-sum.md"


def test_the_examples_run_as_printed():
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.attempted > 15
    assert result.failed == 0


def test_the_figures_are_those_of_the_code():
    text = PAGE.read_text()
    for n, bits in ((10, "3.56"), (100, "7.11"), (1000, "10.67")):
        assert f"{Packing(10**6, n).bits_per_coordinate:.2f}" == bits
        assert f"{bits} at n = {n}" in text
    for n, degree in ((100, "24 neighbours at n = 100"), (1000, "46 at 1000"), (10_000, "54 at\n10,000")):
        assert str(harary_degree(n, 0.1, 0.1).degree) in degree
        assert degree in text


def test_the_worked_thresholds_are_right():
    def threshold(colluders):
        from prism_crypto import Roster

        roster = Roster({i: Identity(i, bytes([i + 1]) * 32).public_key for i in range(10)})
        plan = Session.plan(
            CountSpec(1), range(10), federation="f", number=1, roster=roster, colluders=colluders
        )
        return plan.threshold

    assert [threshold(c) for c in (0, 3, 5)] == [7, 7, 8]


def test_the_table_of_chosen_graphs_is_what_the_bounds_give():
    rows = re.findall(
        r"^\| (\d+) colluders, (\d+|nobody) may drop out.*? \| (\d+) \| (\d+) \| (\d+) \|$",
        PAGE.read_text(),
        re.MULTILINE,
    )
    assert len(rows) == 4
    for colluders, gone, *found in rows:
        lost = 0 if gone == "nobody" else int(gone)
        wanted = None if lost else 1000 - int(colluders)
        expected = chosen_parameters(1000, gone=lost, corrupt=int(colluders), cohort=wanted)
        assert [int(x) for x in found] == list(expected)


@pytest.mark.parametrize("mode", ["active", "semi_honest"])
@pytest.mark.parametrize("n", [20, 60])
def test_the_bytes_are_those_of_the_table(n, mode):
    votes = [np.zeros(1000, dtype=np.int64)] * n
    result = secure_sum(votes, mode=mode, graph="complete", simulate=True)
    active, k, t = mode == "active", n - 1, 2 * n // 3 + 1
    up = 8 * result.words + 360 + 138 * k + 410 * active
    down = 100 + (226 + 128 * active) * (k + 1) + 68 * t * active
    assert abs(result.uplink_bytes[1] - up) < 10
    assert abs(result.downlink_bytes[1] - down) < 30
    text = PAGE.read_text()
    assert "| 8·(W+2) + 360 + 138·k (+ 410 active) |" in text
    assert "| 100 + (116 + 102 + 8)·(k+1); active: 100 + (244 + 102 + 8)·(k+1) + 68·t |" in text


def test_the_signatures_are_those_of_the_table(monkeypatch):
    signed = []
    for kind in (Identity, SealingKeyPair):

        def sign(self, what, body, real=kind.sign):
            signed.append(what)
            return real(self, what, body)

        monkeypatch.setattr(kind, "sign", sign)
    secure_sum([np.zeros(3, dtype=np.int64)] * 4)
    assert len(signed) == 4 * 6
    assert "| Ed25519 (active) | 6 signatures, k + t verifications |" in PAGE.read_text()
