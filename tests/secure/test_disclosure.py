"""The page for auditors says what the ledger says, all that NIST SP 800-226 asks, and reads no other file."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from prism_privacy import LedgerError, LedgerReport, Unit, View, verify_ledger
from prism_privacy.ledger import attacker
from prism_privacy.ledger.attacker import Certified, certified
from prism_secure.accounting.spending import Spending
from prism_secure.cli import main
from prism_secure.config import load_config
from prism_secure.reporting.disclosure import _percent
from prism_secure.reporting.report import write_report
from prism_secure.wording import format_epsilon, true_alarms

from . import test_measured_persons_told as persons
from .fake_run import PARAMETERS, make_run
from .test_measured_spending import Place
from .test_measured_told import run_folder, text_of

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS = (
    "Unit and neighbouring data sets", "δ: how often may it fail?", "Composition: what is added up?",
    "Trust model: on whom does it count?", "What is not covered", "How to check it",
)  # fmt: skip


def disclosed(folder: Path) -> str:
    assert main(["report", "--disclosure", str(folder)]) == 0
    return text_of(folder / "disclosure.html")


def test_it_answers_every_question_from_the_ledger_alone(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", 4, done=True)
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("ledger.jsonl", "ledger.jsonl.head"):
        (alone / name).write_bytes((run / name).read_bytes())
    text = disclosed(alone)
    assert text == disclosed(run)
    assert [words for words in QUESTIONS if words not in text] == []
    found = certified(verify_ledger(run / "ledger.jsonl"))
    assert [(each.unit.value, each.view) for each in found].count(("record", "upload")) == 1
    assert len(found) == 6
    for each in found:
        rates = " ".join(f"{math.ceil(rate * 1000 - 1e-9) / 10:g}%" for rate in each.rates[1:])
        assert re.search(rf"{format_epsilon(each.epsilon)} 1e-5 \S+ {re.escape(rates)}", text), each
    for words in (
        "8 honest clients in every opened sum, with 1 on the server’s side",
        "All 4 rounds",
        "flip = 0.25",
    ):
        assert words in text, words


def test_a_run_that_goes_on_states_its_plan_and_what_is_spent(tmp_path: Path) -> None:
    text = disclosed(run_folder(tmp_path, 2))
    assert "the run may go on" in text
    assert "the plan that was fixed before round 1" in text
    assert text.count(" to date ") == 6
    assert "This plan is unfinished: rates beside “to date” follow from its (ε, δ) alone" in text
    assert "certified (ε, δ) curve allows" not in text
    whole = disclosed(run_folder(tmp_path / "whole", 4, done=True))
    assert "certified (ε, δ) curve allows" in whole
    assert "This plan is unfinished" not in whole


def test_the_epsilon_comes_before_the_worlds_and_every_cell_names_itself_where_it_is_narrow(
    tmp_path: Path,
) -> None:
    folder = run_folder(tmp_path, 4, done=True)
    text = disclosed(folder)
    assert text.index(" ε δ ") < text.index("neighbouring worlds")
    page = (folder / "disclosure.html").read_text("utf-8")
    rows = re.findall(r'<tr><th scope="row">.*?</tr>', page)
    assert len(rows) == len(certified(verify_ledger(folder / "ledger.jsonl")))
    for row in rows:
        named = re.findall(r'data-of="([^"]+)"', row)
        rates = [f"true positives at {rate} false ones, at most" for rate in ("0.1%", "1%", "10%")]
        assert named == ["ε", "δ", *rates, "neighbouring worlds"]


def test_it_speaks_of_persons_where_a_record_is_one(tmp_path: Path) -> None:
    text = disclosed(persons.run_folder(tmp_path, person=True))
    assert "one person of one client" in text
    assert "one person of one client, with all images of theirs" in text
    assert "image of one client" not in text


@pytest.mark.parametrize("coins", ["test", "secret"])
def test_where_nothing_is_claimed_nothing_is_shown(coins: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["privacy.flip=0"], rounds=1, coins=coins)
    text = disclosed(run)
    if coins == "test":
        assert "None is claimed." in text
        assert "the coins were known" in text
    else:
        assert text.count("inf 1e-5 100% 100% 100%") == 4
        assert "flip = 0 leaves masks without noise" in text
    assert "Nothing is claimed for a single record" in text


def test_a_damaged_ledger_and_a_sweep_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_folder(tmp_path / "run", 2)
    content = (run / "ledger.jsonl").read_text()
    (run / "ledger.jsonl").write_text(content.replace('"cohort":8', '"cohort":9'))
    assert main(["report", "--disclosure", str(run)]) == 4
    assert "its ledger discloses nothing" in capsys.readouterr().err
    assert not (run / "disclosure.html").exists()
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.toml").write_text("")
    assert main(["report", "--disclosure", str(tmp_path / "sweep")]) == 4
    assert "it is a sweep, whose runs are" in capsys.readouterr().err
    plausible = make_run(tmp_path / "plausible", ["privacy.clip=1"], rounds=2)
    assert main(["report", "--disclosure", str(plausible)]) == 4
    assert "its own releases cost" in capsys.readouterr().err


def certified_in(text: str) -> list[str]:
    """What the report's notices say of an attacker with 1% false alarms, client and image."""
    return sorted(
        re.findall(r"(By all that the ledger certifies|From ε and δ alone), an .*? at most (\S+%)", text)
    )


def test_the_report_says_the_rate_that_the_disclosure_says(tmp_path: Path) -> None:
    run = run_folder(tmp_path, 4, done=True)
    found = certified(verify_ledger(run / "ledger.jsonl"))
    central = [each for each in found if each.view == "sum" and each.adjacency in ("zero_out", "swap")]
    rates = [f"{math.ceil(each.rates[1] * 1000 - 1e-9) / 10:g}%" for each in central]
    assert len(rates) == 2
    text = text_of(write_report(run))
    assert certified_in(text) == sorted(("By all that the ledger certifies", rate) for rate in rates)
    alone = [math.ceil(1000 * true_alarms(each.epsilon, each.delta) - 1e-9) / 10 for each in central]
    assert all(f"from ε and δ alone it would be {rate:g}%" in text for rate in alone)


@pytest.mark.parametrize("spoilt", ["unfinished", "understated"])
def test_a_report_that_has_no_certified_rate_says_what_its_rate_follows_from(
    spoilt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_folder(tmp_path, 2 if spoilt == "unfinished" else 4, done=spoilt != "unfinished")
    if spoilt == "understated":
        monkeypatch.setattr(attacker, "certified", refuse)
    assert [source for source, _ in certified_in(text_of(write_report(run)))] == ["From ε and δ alone"] * 2


def test_rates_in_the_documents_are_those_of_the_default_recipe(tmp_path: Path) -> None:
    config = load_config(recipe="cross-device")
    clients, each = config.federation.clients, 10
    with Spending(config, Place(tmp_path), PARAMETERS, 0, sizes=[each] * clients) as spent:
        for number in range(1, config.federation.rounds + 1):
            spent.charge(number)
    found = certified(verify_ledger(tmp_path / "ledger.jsonl"))
    [told] = [
        one for one in found if (one.unit, one.view, one.adjacency) == (Unit.CLIENT, View.SUM, "zero_out")
    ]
    least, one, ten = map(_percent, told.rates)
    alone = _percent(true_alarms(told.epsilon, told.delta))
    pages = {
        "README.md": (f"true-positive rate of at most {one},", f"from ε and δ alone it is {alone}."),
        "docs/get-started.md": (f"detects at most {one} of the clients", f"alone it would be {alone})"),
        "docs/concepts.md": (f"detects at most {alone} of", f"certifies less, {one}, and {ten} with 10%"),
        "docs/audit.md": (f"that is {least}, {one} and {ten}.",),
        "docs/images/one-client.svg": (f"at most {alone} hits",),
    }
    for page, words in pages.items():
        text = " ".join((ROOT / page).read_text("utf-8").split())
        assert [each for each in words if each not in text] == [], page


def refuse(report: LedgerReport) -> list[Certified]:
    raise LedgerError("the ledger states less than its own releases cost")


def test_pages_compare_worlds_by_the_client_s_data_and_not_by_its_taking_part(tmp_path: Path) -> None:
    text = disclosed(run_folder(tmp_path, 4, done=True))
    assert "in place of its answer the client sends random bits that do not depend on its data" in text
    assert "that a client takes part is public" in text
    concepts = (ROOT / "docs/concepts.md").read_text("utf-8")
    picture = (ROOT / "docs/images/one-client.svg").read_text("utf-8")
    assert "What one client's data reveals" in concepts
    assert "The client takes part in both, which is public" in concepts
    assert picture.count(">with its data<") == 2
    assert "the client</text>" not in picture
    page = (ROOT / "prism_secure/audit/membership.html.jinja").read_text("utf-8")
    assert "data in a world without them" in page
