"""What a run of measured rounds tells of one image: console, report, list, ledger verify, model card."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import msgspec
import pytest

from prism_privacy import Adjacency, Unit, View, verify_ledger
from prism_secure.accounting.plan import Plan
from prism_secure.accounting.spending import Spending
from prism_secure.audit.checks.client_epsilon import metrics_agree
from prism_secure.audit.evidence import Evidence
from prism_secure.audit.findings import Notebook
from prism_secure.cli import main
from prism_secure.config import dump_config, load_config
from prism_secure.errors import RunFolderError
from prism_secure.reporting.progress import describe_round
from prism_secure.reporting.report import write_report
from prism_secure.reporting.trackers import values
from prism_secure.run_folder.export import _check_settings, _privacy
from prism_secure.run_folder.history import read_history
from prism_secure.run_folder.records import decode, encode
from prism_secure.wording import format_epsilon

from .fake_run import PARAMETERS, make_run, record_of
from .test_measured_spending import SETTINGS, SIZES, Place
from .test_model_file import CARD

WIDE = [*SETTINGS, "secure_sum.min_survivors=9", "privacy.colluders=1"]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan(load_config(None, WIDE), PARAMETERS, sizes=SIZES)


def run_folder(folder: Path, rounds: int, done: bool = False) -> Path:
    """A run folder after measured rounds: their ledger is real, their quality is not."""
    config = load_config(None, WIDE)
    make_run(folder, WIDE, rounds=0, ledger=False, done=False)
    (folder / "federation.id").write_text("fed\n")
    with Spending(config, Place(folder), PARAMETERS, 0, sizes=SIZES) as spent:
        for number in range(1, rounds + 1):
            epsilon = spent.charge(number)
            record = msgspec.structs.replace(record_of(config, number), epsilon=epsilon, record=spent.record)
            with (folder / "metrics.jsonl").open("ab") as file:
                file.write(encode(record) + b"\n")
    if done:
        (folder / "DONE").write_text("4 of 4 rounds\n")
    return folder


def text_of(page: Path) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page.read_text("utf-8"))).split())


def test_metrics_and_console_say_what_an_image_has_spent_in_both_views(tmp_path: Path) -> None:
    history = read_history(run_folder(tmp_path, 3))
    assert history.ledger is not None
    for record, entry in zip(history.records, history.ledger.entries, strict=True):
        assert entry.record is not None
        assert entry.record.spent is not None
        seen = {view: entry.record.spent[view].to_date for view in View}
        assert record.record is not None
        assert (record.record.epsilon, record.record.upload) == (seen[View.SUM], seen[View.UPLOAD])
        assert decode(encode(record)) == record
        both = f"{format_epsilon(seen[View.SUM])}/{format_epsilon(seen[View.UPLOAD])}"
        assert both in describe_round(record, 4)
        tracked = values(record, history.config)
        assert (tracked["epsilon/image"], tracked["epsilon/image_upload"]) == (
            seen[View.SUM],
            seen[View.UPLOAD],
        )
    assert history.image_view is not None
    assert history.image_view.words == (
        "against an observer of the opened sums, while 8 honest clients stay in every opened sum"
    )


@pytest.mark.parametrize("records", [2, 1, 0])
def test_list_takes_all_epsilons_of_an_interrupted_run_from_its_ledgers_last_charge(
    records: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(tmp_path, 2)
    lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_bytes(b"".join(lines[:records]))
    last = verify_ledger(folder / "ledger.jsonl").entries[-1]
    assert last.record is not None
    assert last.record.spent is not None
    cells = (
        *(last.spent(view, Adjacency.ZERO_OUT) for view in (View.SUM, View.UPLOAD)),
        last.record.spent[View.SUM],
    )
    assert main(["list", str(tmp_path)]) == 0
    row = capsys.readouterr().out.splitlines()[1].split()
    assert row[1:3] == ["unfinished", f"{records}/4"]
    assert row[-3:] == [format_epsilon(cell.to_date) for cell in cells]


def test_report_says_that_it_grows_what_it_is_and_what_was_planned(tmp_path: Path, plan: Plan) -> None:
    folder = run_folder(tmp_path, 3)
    text = text_of(write_report(folder))
    record = read_history(folder).record_guarantee
    assert record is not None
    assert record.spent is not None
    to_date = format_epsilon(record.spent[View.SUM].to_date)
    upload = format_epsilon(record.spent[View.UPLOAD].to_date)
    assert (
        f"to date it is {to_date} against an observer of the sums, and "
        f"{upload} against an observer of the uploads" in text
    )
    assert f"{format_epsilon(plan.image_epsilon(View.SUM))} is what was planned for all of them" in text
    assert "while 8 honest clients stay in every opened sum" in text
    assert "ε(one image), UPLOAD" in text
    # Where the run goes on, no figure of its first lines is a mixture of what is spent and what is planned.
    assert f"ε for one image of one client is {to_date} , to date," in text
    assert f"ε(one image) {to_date} one image of one client, replaced by any other; to date" in text
    assert f"ε(one image) = {to_date} is" in text
    client = format_epsilon(plan.epsilon(View.SUM, Adjacency.ZERO_OUT))
    assert f"all planned rounds together come to ε(SUM) = {client}" in text
    assert "all planned rounds together" not in text_of(write_report(run_folder(tmp_path / "whole", 4, True)))
    grown = re.search(r"ε\(SUM\) grows from (\S+) to (\S+);", text)
    assert grown
    assert float(grown[1]) < float(grown[2])
    assert "throughout" not in text
    for untrue in (
        "does not grow",
        "before the first round each client put noise",
        "after the moments",
        "noisy summary",
    ):
        assert untrue not in text.lower(), untrue


def test_no_infinity_stands_on_the_page_of_a_finite_run(tmp_path: Path) -> None:
    text = text_of(write_report(run_folder(tmp_path, 2)))
    assert "record_epsilon none: no moments are released" in text
    assert [before for before, _ in re.findall(r"(\S+) (\binf\b|∞)", text)] == ["and"]  # "inf is none"


def test_nothing_of_a_measured_report_speaks_of_masks_clips_or_votes(tmp_path: Path) -> None:
    """The deployed mask is one; what clients send is not."""
    text = text_of(write_report(run_folder(tmp_path, 4, done=True)))
    told = text[text.index("What the numbers mean ε and δ") : text.index("Ledger 4 entries")]
    assert len(told) > 2000
    assert "What a client sends a round for its answers" in told
    found = re.findall(r"\b(?:masks|mean mask|clip\w*|votes|flipped|unclipped)\b", told)
    assert found == []
    rows = text[text.index("Settings Recipe") :]
    for never in ("local_steps", "lambda_start", "record_cohort", "clip_space", "unclipped", "[aggregation]"):
        assert never not in rows
    assert "Recipe cross-device (a thousand clients of ten images, measured rounds) is the nearest" in rows


def test_report_counts_the_bits_that_carry_answers_and_what_a_client_receives(tmp_path: Path) -> None:
    """Of a mask of 242,000 weights 256 coordinates are summed."""
    text = text_of(write_report(run_folder(tmp_path, 2)))
    for words in (
        "as 256 bits that are mostly chance (each is 1 with a probability between 0.25 and 0.75)",
        "the same 16 public questions about its images",
        "114 B sent by a client for its answers of one round, measured",
        "This run’s masked upload measured 3.56 114 B 1.00",
        "computed 3.46 111 B 0.97",
        "The 256 bits in the clear (nothing hidden) computed 1.00 32 B 0.28",
        "Float32 weights of the same network, as FedAvg sends them computed – 968 kB",
        "What a client receives: θ and the round’s questions, messages of the secure sum measured – 971 kB",
        "Bits a coordinate",
    ):
        assert words in text, words
    for untrue in ("a parameter", "108 kB", "server’s step", "bit flipped"):
        assert untrue not in text, untrue


@pytest.mark.parametrize(("unit", "first"), [("client", "Everything one client"), ("image", "One image of")])
def test_what_is_protected_stands_first(tmp_path: Path, unit: str, first: str) -> None:
    folder = run_folder(tmp_path, 2)
    config = folder / "config.toml"
    config.write_text(config.read_text().replace('unit = "client"', f'unit = "{unit}"'))
    text = text_of(write_report(folder))
    notices = {name: text.index(f"{name} {title}") for name, title in (
        ("Everything one client contributes", "ε(SUM) ="), ("One image of one client", "ε(one image) ="),
    )}  # fmt: skip
    assert min(notices, key=notices.__getitem__).startswith(first)
    assert "of the clients that put anything of their own into the sums" in text


@pytest.mark.parametrize("unit", ["client", "image"])
def test_the_first_figure_says_in_plain_words_what_taking_part_can_reveal(tmp_path: Path, unit: str) -> None:
    """By the numbers that the notices have."""
    folder = run_folder(tmp_path, 2)
    config = folder / "config.toml"
    config.write_text(config.read_text().replace('unit = "client"', f'unit = "{unit}"'))
    page = write_report(folder)
    caption = page.read_text("utf-8").partition('<figure class="curves">')[2].partition("</strong>")[0]
    of_clients, of_images = (
        re.findall(rf"false-positive rate detects at most ([\d.]+)% of the {whom}", text_of(page))
        for whom in ("clients that put", "images that a client really had")
    )
    attacker = "from all that was opened, an attacker who wrongly suspects 1 in 100"
    of_client = of_clients[0]
    told = [
        f"What taking part can reveal: {attacker} clients that put in nothing of their own finds at most "
        f"{of_client} in 100 that did."
    ]
    if unit == "image":
        told.insert(
            0,
            f"What one image can reveal: {attacker} images that no client had finds at most {of_images[0]} "
            "in 100 that one had.",
        )
    assert caption.partition("<figcaption><strong>")[2] == " ".join(told)


def test_nothing_infinite_is_spoken_of_before_the_tables_where_all_is_finite(tmp_path: Path) -> None:
    page, _, tables = (
        write_report(run_folder(tmp_path / "finite", 2))
        .read_text("utf-8")
        .partition('<section aria-labelledby="privacy">')
    )
    assert tables
    assert not re.search(r"∞|\binf\b", page)
    told = text_of(write_report(make_run(tmp_path / "endless", ["privacy.flip=0"], rounds=2)))
    assert "and ε = ∞ is none" in told
    assert "What taking part can reveal: anything, as far as this bound goes." in told


def test_a_thousand_clients_are_written_as_such(tmp_path: Path) -> None:
    settings = [
        "federation.clients=2000", "federation.behaviour=measure", "privacy.record_epsilon=inf",
        "privacy.colluders=1000", "secure_sum.mode=semi_honest", "measured.directions=1024",
        "privacy.record_release=summed",
    ]  # fmt: skip
    folder = make_run(tmp_path, settings, rounds=0, ledger=False, done=False)
    config = read_history(folder).config
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(encode(record_of(config, 1)) + b"\n")
    text = text_of(write_report(folder)).partition("Settings Recipe")[0]
    text = text[text.index("report of one run") :]
    for words in (
        "of 2,000 clients",
        "2,000 of 2,000",
        "1,000 honest clients",
        "the same 1,024 public questions",
    ):
        assert words in text, words
    assert not re.findall(r"(?<![\d.,])(?:2000|2001|1000|1024)(?![\d.,])", text)


def test_ledger_verify_and_list_tell_an_image_to_date(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], plan: Plan
) -> None:
    folder = run_folder(tmp_path / "run", 2)
    record = read_history(folder).record_guarantee
    assert record is not None
    assert record.spent is not None
    assert main(["ledger", "verify", str(folder / "ledger.jsonl")]) == 0
    told = capsys.readouterr().out
    for view in View:
        spent, planned = record.spent[view].to_date, plan.image_epsilon(view)
        assert f"{view.value}, swap: {format_epsilon(spent)} (planned: {format_epsilon(planned)})" in told
    assert "sum counts on 8 honest clients" in told
    assert main(["list", str(tmp_path)]) == 0
    assert format_epsilon(record.spent[View.SUM].to_date) in capsys.readouterr().out


def test_config_epsilon_tells_both_units_in_both_views(capsys: pytest.CaptureFixture[str]) -> None:
    settings = [argument for each in (*WIDE, "training.end_steps=0") for argument in ("--set", each)]
    assert main(["config", "--epsilon", "--recipe", "one-shot", *settings]) == 0
    told = capsys.readouterr().out
    counted = Plan(load_config(None, WIDE), PARAMETERS, sizes=(1000,) * 10)
    for view in View:
        assert re.search(
            rf"ε\({view.name}\) +{re.escape(format_epsilon(counted.image_epsilon(view)))}\n", told
        )
    assert "ε(SUM) counts on 8 honest clients of 10, 1 colludes, 1 may drop out; ε(UPLOAD) on nobody" in told
    _, _, heads, *rows = told[told.index("by round: ") :].splitlines()
    assert " ".join(heads.split()) == "round C R of an image client: SUM UPLOAD image: SUM UPLOAD"
    for row, number in zip(rows, (1, 2, 4), strict=True):
        assert len(row) == len(heads) <= 80
        release = counted.measured[number - 1]
        assert row.split() == [
            str(number),
            *(f"{moves:.3g}" for moves in (release.clip, release.record_radius())),
            *(
                format_epsilon(counted.account(unit, number).epsilon(view, Adjacency.ZERO_OUT))
                for unit in (Unit.CLIENT, Unit.RECORD)
                for view in (View.SUM, View.UPLOAD)
            ),
        ]
    assert "256 mask bits of each that carry 16 numbers" in told
    assert counted.measured[0].records == 1000


def test_audit_compares_what_metrics_say_of_an_image_with_what_was_signed(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, 3)

    def findings() -> list[str]:
        notes = Notebook()
        metrics_agree(Evidence(folder), notes)
        return [found.text for found in notes.findings]

    assert findings() == []
    lines = (folder / "metrics.jsonl").read_bytes().splitlines()
    last = decode(lines[-1])
    assert last.record is not None
    for name in ("epsilon", "upload"):
        less = msgspec.structs.replace(last.record, **{name: getattr(last.record, name) / 2})
        changed = encode(msgspec.structs.replace(last, record=less))
        (folder / "metrics.jsonl").write_bytes(b"\n".join([*lines[:-1], changed]) + b"\n")
        assert findings() == ["Round 3: metrics.jsonl and the ledger differ in what one record has spent."]


def test_model_card_states_the_plan_for_an_image_and_on_whom_it_counts(tmp_path: Path, plan: Plan) -> None:
    history = read_history(run_folder(tmp_path, 4))
    assert history.ledger is not None
    _check_settings(history, history.ledger)
    privacy = _privacy(history, history.ledger, "ab" * 32)
    assert privacy.record == pytest.approx(plan.image_epsilon(View.SUM))
    assert privacy.measured_cohort == 8
    text = msgspec.structs.replace(CARD, privacy=privacy).markdown()
    assert "while 8 clients were honest" in text
    assert "holds while 8 of the clients in each sum were honest" in text
    upload = format_epsilon(plan.image_epsilon(View.UPLOAD))
    row = (
        "| the same | an observer of its client's uploads in the clear (UPLOAD) | is replaced by any other |"
    )
    assert f"{row} {upload} |" in text
    assert "With fewer of them" not in text
    assert "noisy moments" not in text
    assert "noisy summary" not in text


@pytest.mark.parametrize(
    "other",
    ["measured.directions=8", "privacy.flip=0.3", "federation.behaviour=mine:answer", "privacy.colluders=0"],
)
def test_model_card_of_another_configuration_is_refused(tmp_path: Path, other: str) -> None:
    folder = run_folder(tmp_path, 4)
    (folder / "config.toml").write_text(dump_config(load_config(None, [*WIDE, other])))
    history = read_history(folder)
    assert history.ledger is not None
    with pytest.raises(RunFolderError, match=r"config\.toml and the signed ledger disagree on"):
        _check_settings(history, history.ledger)
