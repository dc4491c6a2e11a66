"""What a ledger alone advises against an infinite epsilon is true: the advised settings are tried."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from prism_privacy import (
    Accountant,
    Ledger,
    LedgerKey,
    MaskRelease,
    MomentRelease,
    RecordGuarantee,
    Spent,
    spent_table,
    verify_ledger,
)
from prism_secure.accounting.epsilons import CELLS
from prism_secure.accounting.plan import epsilons_of
from prism_secure.accounting.signed import why_infinite_as_signed
from prism_secure.cli import main
from prism_secure.config import load_config

DIM = 114_824
MOMENTS = MomentRelease.calibrated(epsilon=2.0, delta=1e-5, records=10_000, classes=10)
NOTHING = {cell: Spent(math.inf, math.inf) for cell in CELLS}


def ledger(
    path: Path, mask: MaskRelease | None, rounds: int = 10, images: int | None = None, end: bool = True
) -> Path:
    """`images`: as many a client, whose moments were opened before the rounds."""
    record = None if images is None else RecordGuarantee.of(MOMENTS, 1e-5)
    cohort = 10 if mask is None else mask.cohort
    accountant = Accountant(1e-5)
    with Ledger.create(
        path,
        LedgerKey(),
        federation="fed",
        clients=cohort,
        records=images,
        settings={} if images is None else {"record_release": "summed"},
    ) as kept:
        if images is not None:
            kept.append(
                kind="moments", round=0, release=MOMENTS, cohort=cohort, delta=1e-5, epsilon=NOTHING,
                record=record,
            )  # fmt: skip
        for number in range(1, (0 if mask is None else rounds) + 1):
            assert mask is not None
            accountant.spend(mask)
            table = spent_table(accountant, mask) if images is None else NOTHING
            kept.append(round=number, release=mask, delta=1e-5, epsilon=table, record=record)
        if end and mask is not None:
            kept.append(kind="end", round=rounds, release=mask, delta=1e-5, epsilon=table, record=record)
    return path


def advised(said: str) -> dict[str, object]:
    (line,) = [line for line in said.splitlines() if "would make" in line]
    advice = line.rpartition("; ")[2].partition(" would make")[0]
    settings = dict(pair.split("=") for pair in re.findall(r"[a-z_.]+=[\w.]+", advice))
    return {name: value if value.isalpha() else float(value) for name, value in settings.items()}


UNCLIPPED = MaskRelease(0.1, None, cohort=10, dim=DIM)


@pytest.mark.parametrize(
    ("mask", "images", "settings", "config"),
    [
        (UNCLIPPED, 1000, {"privacy.record_release": "client", "privacy.clip": 0.3}, []),
        (
            MaskRelease(0.1, 0.5, cohort=10, dim=DIM),
            1000,
            {"privacy.record_release": "client"},
            ["privacy.clip=0.5"],
        ),
        (
            MaskRelease(0.0, None, cohort=10, dim=DIM),
            None,
            {"privacy.flip": 0.1, "privacy.clip": 0.3},
            ["privacy.record_epsilon=inf", "privacy.flip=0"],
        ),
        (
            MaskRelease(0.0, 0.25, cohort=50, dim=DIM),
            None,
            {"privacy.flip": 0.1},
            ["privacy.record_epsilon=inf", "privacy.flip=0", "privacy.clip=0.25", "federation.clients=50"],
        ),
    ],
)
def test_what_a_ledger_advises_was_tried_and_its_figures_are_those(
    mask: MaskRelease,
    images: int | None,
    settings: dict[str, object],
    config: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`record_release=client` alone leaves unclipped masks, whose epsilon is in the hundred thousands."""
    path = ledger(tmp_path / "ledger.jsonl", mask, images=images)
    assert main(["ledger", "verify", str(path)]) == 0
    said = capsys.readouterr().out
    assert advised(said) == settings
    after = epsilons_of(load_config(None, config), settings, DIM, images)
    told = [float(figure) for figure in re.findall(r"would make them ([\d.]+) and ([\d.]+)", said)[0]]
    assert told == pytest.approx([after[CELLS[2]], after[CELLS[0]]], rel=0.01)
    assert max(told) <= 100
    for dropped in settings if len(settings) > 1 else ():
        rest = {name: value for name, value in settings.items() if name != dropped}
        assert (
            max(epsilons_of(load_config(None, config), rest, DIM, images)[cell] for cell in CELLS[::2]) > 100
        )


@pytest.mark.parametrize(
    ("mask", "end"),
    [(UNCLIPPED, False), (None, False), (MaskRelease(0.1, None, 2, dim=DIM), True)],
)
def test_a_ledger_that_does_not_say_all_advises_without_figures_what_is_enough_all_the_same(
    mask: MaskRelease | None, end: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """More rounds may follow; before the first nobody knows how long a mask is; two clients are no recipe."""
    path = ledger(tmp_path / "ledger.jsonl", mask, rounds=2, images=1000, end=end)
    assert main(["ledger", "verify", str(path)]) == 0
    said = capsys.readouterr().out
    settings = advised(said)
    assert settings["privacy.record_release"] == "client"
    assert said.rstrip().endswith("would make them finite")
    for dimension in (1, DIM, 1 << 28):
        after = epsilons_of(load_config(None, ["federation.rounds=2"]), settings, dimension, 1000)
        assert all(after[cell] <= 100 for cell in CELLS[::2])


def test_a_finite_ledger_and_one_that_is_no_recipe_advise_nothing(tmp_path: Path) -> None:
    finite = verify_ledger(ledger(tmp_path / "finite", MaskRelease(0.1, 1.0, cohort=10)))
    assert why_infinite_as_signed([], finite, None) == ()
    other = verify_ledger(ledger(tmp_path / "other", UNCLIPPED, images=1000))
    entries = tuple(replace(entry, release={"flip": 0.7}) for entry in other.entries)
    assert why_infinite_as_signed(["SUM"], other, None) != ()
    assert why_infinite_as_signed(["SUM"], replace(other, entries=entries), None) == ()
