"""Ledgers, budgets and disclosures are verified from this package alone."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from prism_privacy import (
    Accountant,
    Adjacency,
    Ledger,
    LedgerKey,
    LedgerReport,
    MaskRelease,
    MomentRelease,
    RecordGuarantee,
    Spent,
    View,
    spent_table,
    verify_ledger,
)
from prism_privacy.ledger.check import head_path
from prism_privacy.ledger.composition import Charged, ClientTotal, ImageTotal, Opened, charging_one_client
from prism_privacy.verify import compose, main

MASK = MaskRelease(flip=0.25, clip=1.0, cohort=1000)
MOMENTS = MomentRelease.calibrated(epsilon=2.0, delta=1e-5, records=1000, classes=10)


def ledger(path: Path, rounds: int = 2, record: bool = True, coins: str = "secret", **settings: str) -> Path:
    accountant, guarantee = Accountant(1e-5), RecordGuarantee.of(MOMENTS, 1e-5) if record else None
    with Ledger.create(path, LedgerKey(), federation="fed", clients=1000, settings=settings) as kept:
        for number in range(1, rounds + 1):
            accountant.spend(MASK)
            table = None if coins == "test" else spent_table(accountant, MASK)
            kept.append(
                round=number,
                release=MASK,
                delta=1e-5,
                epsilon=table,
                record=guarantee,
                coins=coins,
                colluders=3,
            )
    return path


@pytest.mark.parametrize(("most", "charged"), [(0, 2), (1, 1)])
def test_what_a_ledger_states_counts_where_it_charges_less(tmp_path: Path, most: int, charged: int):
    """Rounds that say that nobody has been in as many: what they state is not taken back by that."""
    accountant = Accountant(1e-5)
    with Ledger.create(tmp_path / "l", LedgerKey(), federation="fed") as kept:
        for number in (1, 2):
            accountant.spend(MASK)
            table = spent_table(accountant, MASK)
            kept.append(round=number, release=MASK, delta=1e-5, epsilon=table, metrics={"most_rounds": most})
    report = verify_ledger(tmp_path / "l")
    assert len(charging_one_client(report.entries)) == charged
    for each in compose([report]):
        assert each.view is not None
        assert each.epsilon == pytest.approx(spent(2, each.view, Adjacency(each.adjacency)))
    for each in compose([report], delta=1e-4):  # of which the ledger states nothing
        assert each.view is not None
        assert each.epsilon < spent(2, each.view, Adjacency(each.adjacency))


def foreign(path: Path, *lines: dict[str, object]) -> LedgerReport:
    """A ledger that another writer might sign: nobody was in more than one round, whatever it states."""
    with Ledger.create(path, LedgerKey(), federation="fed") as kept:
        for number, line in enumerate(lines, 1):
            one_round: dict[str, object] = {"round": number, "release": MASK, "metrics": {"most_rounds": 1}}
            kept.append(**(one_round | line))  # type: ignore[arg-type]
    return verify_ledger(path)


def stating(epsilon: float) -> dict[tuple[View, Adjacency], Spent]:
    return {(view, adjacency): Spent(0.0, epsilon) for view in View for adjacency in Adjacency}


def test_the_floor_is_whatever_any_line_states_at_the_delta_or_a_larger_one(tmp_path: Path) -> None:
    report = foreign(
        tmp_path / "l",
        {"delta": 1e-6, "epsilon": stating(200.0)},
        {"delta": 1e-5, "epsilon": stating(100.0)},
        {"delta": 1e-5, "epsilon": None, "kind": "end", "round": 2},
    )
    for delta, floor in ((1e-7, 200.0), (1e-6, 200.0), (2e-6, 100.0), (1e-5, 100.0)):
        assert {each.epsilon for each in compose([report], delta)} == {floor}
    assert max(each.epsilon for each in compose([report], 1.1e-5)) < 100.0


def test_known_coins_leave_no_bound_even_in_a_round_that_no_client_is_charged_for(tmp_path: Path) -> None:
    charged = {"delta": 1e-5, "epsilon": stating(100.0)}
    report = foreign(tmp_path / "l", charged, charged | {"epsilon": None, "coins": "test"})
    assert len(charging_one_client(report.entries)) == 1
    for each in compose([report]):
        assert math.isinf(each.epsilon)
        assert any("claims no epsilon (test coins)" in note for note in each.notes)


@pytest.mark.parametrize("view", View)
def test_of_two_accounts_of_one_release_the_dearer_one_to_who_looks_counts(view: View) -> None:
    """More images cost more in a sum; fewer shares of the noise cost less in an upload."""
    release = MomentRelease(records=10_000, norm=1.0, sigma=1.0, classes=10)
    record = RecordGuarantee.of(release, 1e-5)
    accounts = [Charged("l", (), True, record, "one", Opened(*each)) for each in ((10, 50), (20, 1))]
    alone = []
    for each in accounts:
        total = ClientTotal(view, Adjacency.ZERO_OUT)
        total.add(each)
        alone.append(total.epsilon(1e-5))
    for order in (accounts, accounts[::-1]):
        total = ClientTotal(view, Adjacency.ZERO_OUT)
        for each in order:
            total.add(each)
        assert total.epsilon(1e-5) == max(alone)
    assert (alone[0] < alone[1]) is (view is View.SUM)


@pytest.mark.parametrize("adjacency", ["swap", "add_remove"])
def test_what_is_stated_of_an_image_counts_for_its_own_adjacency_and_if_its_release_was_seen(
    tmp_path: Path, adjacency: str
) -> None:
    record, total = RecordGuarantee.of(MOMENTS, 1e-5), ImageTotal(adjacency)
    more = foreign(tmp_path / "l", {"delta": 1e-5, "epsilon": None, "record": replace(record, epsilon=50.0)})
    for lines in ((), more.entries):
        total.add(Charged("l", (), True, record, "one", None, lines=lines))
    assert total.releases == 1
    assert total.epsilon(1e-5) == (50.0 if adjacency == "swap" else math.inf)


def spent(rounds: int, view: View = View.SUM, adjacency: Adjacency = Adjacency.REPLACE_ONE) -> float:
    accountant = Accountant(1e-5)
    accountant.spend(MASK, rounds)
    return accountant.epsilon(view, adjacency)


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    return [str(ledger(tmp_path / f"{name}.jsonl", rounds)) for name, rounds in (("a", 2), ("b", 3))]


def test_the_command_loads_neither_torch_nor_the_federation_nor_the_secure_sum(two: list[str]) -> None:
    code = (
        "import sys; from prism_privacy.verify import main; code = main(sys.argv[1:]);"
        "print(*sorted({name.split('.')[0] for name in sys.modules})); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, *two, "--client-epsilon", "100"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *told, loaded = done.stdout.splitlines()
    assert "prism_privacy" in loaded.split()
    assert not {"torch", "torchvision", "prism_secure", "prism_crypto"} & set(loaded.split())
    assert any(line.startswith("kept: everything one client contributes, sum, replace_one") for line in told)


def test_it_runs_as_a_module_and_says_who_signed_and_what_each_was_charged(two: list[str]) -> None:
    command = [sys.executable, "-W", "error", "-m", "prism_privacy.verify", two[0]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = verify_ledger(two[0])
    assert f"signed by {report.public_key}, the key that the file itself names" in done.stdout
    assert f"intact: 2 rounds charged, head {report.head}" in done.stdout
    assert "counting on 1000 honest clients in each opened sum; 3 clients may side with" in done.stdout
    for cell in ("sum, zero_out", "sum, replace_one", "upload, zero_out", "upload, replace_one", "swap"):
        assert f"  {cell}: " in done.stdout
    assert "together, taken" not in done.stdout, "one ledger is composed with nothing"


def test_ledgers_are_composed_as_rounds_of_one_and_one_given_twice_counts_once(
    two: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*two, two[0], "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    found = {(each["unit"], each["view"], each["adjacency"]): each["epsilon"] for each in told["together"]}
    for view in View:
        for adjacency in Adjacency:
            assert found["client", view.value, adjacency.value] == pytest.approx(spent(5, view, adjacency))
    alone = MOMENTS.epsilon(1e-5)
    assert alone < found["record", None, "swap"] < 2 * alone
    assert [each["rounds"] for each in told["ledgers"]] == [2, 3, 2]
    assert told["ledgers"][0]["colluders"] == 3


@pytest.mark.parametrize(
    ("limit", "factor", "code"),
    [("--client-epsilon", 1.001, 0), ("--client-epsilon", 0.999, 1)],
)
def test_a_limit_that_is_passed_together_and_by_no_ledger_alone_is_told(
    two: list[str], limit: str, factor: float, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert spent(3) < 0.999 * spent(5)
    assert main([*two, limit, str(factor * spent(5))]) == code
    assert ("PASSED: " if code else "kept: ") in capsys.readouterr().out


def test_limits_are_for_the_view_the_adjacency_and_the_delta_that_are_named(two: list[str]) -> None:
    upload = spent(5, View.UPLOAD, Adjacency.ZERO_OUT)
    asked = ["--view", "upload", "--adjacency", "zero_out", "--client-epsilon"]
    assert main([*two, *asked, str(1.001 * upload)]) == 0
    assert main([*two, *asked, str(0.999 * upload)]) == 1
    assert main([*two, *asked, str(1.001 * upload), "--delta", "1e-9"]) == 1
    alone = MOMENTS.epsilon(1e-5)
    assert main([two[0], "--image-epsilon", str(1.001 * alone)]) == 0
    assert main([*two, "--image-epsilon", str(1.001 * alone)]) == 1
    assert main([two[0], "--image-epsilon", "9", "--adjacency", "swap"]) == 0
    assert main([two[0], "--image-epsilon", "9", "--adjacency", "add_remove"]) == 2, "nobody speaks of it"


def test_a_release_that_several_ledgers_name_counts_once(tmp_path: Path) -> None:
    shared = [str(ledger(tmp_path / name, record_id="ab")) for name in ("a.jsonl", "b.jsonl")]
    assert main([*shared, "--image-epsilon", str(1.001 * MOMENTS.epsilon(1e-5))]) == 0


def test_what_claims_nothing_keeps_no_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = str(ledger(tmp_path / "known.jsonl", coins="test"))
    assert main([known, "--client-epsilon", "1e9"]) == 1
    silent = str(ledger(tmp_path / "silent.jsonl", record=False))
    assert main([silent, "--image-epsilon", "1e9"]) == 2
    capsys.readouterr()
    assert main([silent, str(ledger(tmp_path / "a.jsonl")), "--image-epsilon", "1e9"]) == 1
    assert "silent.jsonl has no record-level guarantee" in capsys.readouterr().out


def test_a_changed_line_another_key_and_another_head_are_damage(
    two: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    keys = [verify_ledger(path).public_key for path in two]
    assert main([*two, "--key", keys[0], "--key", keys[1]]) == 0
    assert main([*two, "--key", keys[0]]) == 1, "one key is for all"
    heads = [verify_ledger(path).head for path in two]
    assert main([*two, "--head", heads[0], "--head", heads[1]]) == 0
    assert main([*two, "--head", heads[1], "--head", heads[0]]) == 1
    path = Path(two[1])
    path.write_text(path.read_text().replace('"colluders":3', '"colluders":0', 1))
    capsys.readouterr()
    assert main([*two, "--client-epsilon", "1e9"]) == 1
    assert "b.jsonl, line 2: " in capsys.readouterr().err


def test_what_cannot_be_told_has_a_code_of_its_own(
    two: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = verify_ledger(two[0]).head
    head_path(Path(two[0])).unlink()
    assert main([two[0], "--client-epsilon", "1e9"]) == 2
    assert "a.jsonl.head is missing, so lines may have been cut off the end" in capsys.readouterr().err
    assert main([two[0], "--head", head]) == 0
    assert main([str(tmp_path / "nowhere")]) == 2
    assert main([two[1], "--key", "zz"]) == 2
    assert main([*two, "--head", head]) == 2, "which ledger is it of?"
    with Ledger.create(tmp_path / "other.jsonl", LedgerKey(), federation="fed") as other:
        other.append(round=1, release={"mechanism": "unheard of"}, cohort=3, delta=1e-5, epsilon=None)
    assert main([str(tmp_path / "other.jsonl"), "--client-epsilon", "1e9"]) == 2
    assert "other.jsonl: not a mask release" in capsys.readouterr().err
    with Ledger.create(tmp_path / "empty.jsonl", LedgerKey(), federation="fed"):
        pass
    assert main([str(tmp_path / "empty.jsonl")]) == 0
    assert main([str(tmp_path / "empty.jsonl"), "--client-epsilon", "1"]) == 2, "no delta to state it at"
    assert main([str(tmp_path / "empty.jsonl"), "--client-epsilon", "1", "--delta", "1e-5"]) == 0


def test_a_disclosure_holds_the_signed_facts_and_what_they_leave_out(
    two: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([two[0], "--disclosure"]) == 0
    text = capsys.readouterr().out
    report = verify_ledger(two[0])
    for fact in (
        report.public_key,
        report.head,
        "PROTECTED: everything that one client contributes, in all rounds it takes part in",
        "PROTECTED: one record (one image) of one client",
        "delta = 1e-5",
        "sum: an observer of the opened sums alone; replace_one: the client has any other data",
        "upload: an observer of what one client sent",
        "counting on 1000 honest clients in each opened sum; 3 clients may side with the server",
        "swap: one record is replaced by any other, its label included; the number of records is public",
        "fewer honest clients than the 1000 counted on",
        "One image of one client under add_remove",
    ):
        assert fact in text, fact
    assert main([str(ledger(tmp_path / "known.jsonl", record=False, coins="test")), "--disclosure"]) == 0
    text = capsys.readouterr().out
    assert text.count("No epsilon is claimed.") == 2
    assert "the coins were known, so the noise hides nothing" in text
    assert "epsilon to date" not in text


def test_an_infinite_epsilon_is_named_among_what_is_not_covered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare, accountant = MaskRelease(flip=0.0, clip=1.0, cohort=10), Accountant(1e-5)
    accountant.spend(bare)
    with Ledger.create(tmp_path / "bare.jsonl", LedgerKey(), federation="fed") as kept:
        kept.append(round=1, release=bare, delta=1e-5, epsilon=spent_table(accountant, bare))
    assert math.isinf(spent_table(accountant, bare)[View.UPLOAD, Adjacency.ZERO_OUT].to_date)
    assert main([str(tmp_path / "bare.jsonl"), "--disclosure"]) == 0
    because = "epsilon is infinite, because flip = 0 leaves masks without noise."
    assert f"(upload, zero_out): {because}" in capsys.readouterr().out


def opened(path: Path, images: int) -> str:
    """A ledger of moments that were opened over all clients, whose writer states no bound for a client."""
    nothing = Spent(math.inf, math.inf)
    table = {(view, adjacency): nothing for view in View for adjacency in Adjacency}
    record, summed = RecordGuarantee.of(MOMENTS, 1e-5), {"record_release": "summed"}
    with Ledger.create(
        path, LedgerKey(), federation="fed", clients=10, records=images, settings=summed
    ) as kept:
        kept.append(
            kind="moments", round=0, release=MOMENTS, cohort=10, delta=1e-5, epsilon=table, record=record
        )
    return str(path)


def test_an_infinite_epsilon_stands_with_its_cause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare, accountant = MaskRelease(flip=0.0, clip=1.0, cohort=10), Accountant(1e-5)
    accountant.spend(bare)
    with Ledger.create(tmp_path / "bare.jsonl", LedgerKey(), federation="fed") as kept:
        kept.append(round=1, release=bare, delta=1e-5, epsilon=spent_table(accountant, bare))
    cells = [f"({view}, {adjacency})" for view in sorted(View) for adjacency in sorted(Adjacency)]
    for path, causes in (
        (str(tmp_path / "bare.jsonl"), {"flip = 0 leaves masks without noise": cells}),
        (
            opened(tmp_path / "opened.jsonl", 1000),
            {
                "opened moments carry noise for one record, and all that a client has moves": cells[:2],
                "one client's share of the noise on opened moments is too little for all": cells[2:],
            },
        ),
        (
            opened(tmp_path / "one.jsonl", 1),
            {"its writer states none, though these releases have one": cells},
        ),
    ):
        assert main([path]) == 0
        said = capsys.readouterr().out
        for cause, where in causes.items():
            assert f"  {' and '.join(where)} without a bound: {cause}" in said
        assert main([path, path, "--json"]) == 0
        together = json.loads(capsys.readouterr().out)["together"]
        for total in together:
            infinite = total["epsilon"] == "inf"
            assert infinite == any(note.startswith("no bound") for note in total["notes"])
    finite = str(ledger(tmp_path / "finite.jsonl"))
    assert main([finite]) == 0
    assert "without a bound" not in capsys.readouterr().out
