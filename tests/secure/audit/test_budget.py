"""What many ledgers cost together: composed, shared releases once, nobody left out, unknown keys refused."""

from __future__ import annotations

import html
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from prism_privacy import (
    Accountant,
    Adjacency,
    Ledger,
    LedgerKey,
    MaskRelease,
    MomentRelease,
    RecordGuarantee,
    Spent,
    View,
    spent_table,
)
from prism_secure.cli import main
from prism_secure.config import dump_config, load_config
from prism_secure.data import load
from prism_secure.data.fingerprint import KEY_FILE, keep_fingerprint
from prism_secure.rounds.simulation import run

from .. import fake_run, tiny_data

MASK = MaskRelease(0.25, 0.5, cohort=10, dim=1000)
MOMENTS = MomentRelease.calibrated(epsilon=2.0, delta=1e-5, records=1000, classes=10)
NOTHING = {(view, adjacency): Spent(0.0, 0.0) for view in View for adjacency in Adjacency}


def ledger_folder(
    path: Path,
    *,
    rounds: int = 3,
    release: MaskRelease = MASK,
    record: MomentRelease | None = None,
    guarantee: RecordGuarantee | None = None,
    overrides: tuple[str, ...] = (),
    settings: dict[str, str | bool] | None = None,
    coins: str = "secret",
    clients: int = 10,
    most_rounds: int | None = None,
    config: bool = True,
    data: Path | None = None,
) -> Path:
    """A run folder as far as a budget reads it; `data`: the folder that its `data.folder` is, from here."""
    path.mkdir(parents=True)
    if data is not None:
        (path / "clients").mkdir()
        told = load_config(None, ["data.source=idx", *overrides]).data
        keep_fingerprint(path / "clients", told, load("idx", folder=data), pytest.fail, begun=False)
        overrides = ("data.source=idx", *overrides)
    if config:
        (path / "config.toml").write_text(dump_config(load_config(None, list(overrides))))
    guarantee = guarantee if record is None else RecordGuarantee.of(record, 1e-5)
    accountant = Accountant(delta=1e-5)
    with Ledger.create(
        path / "ledger.jsonl",
        LedgerKey(),
        federation=path.name,
        clients=clients,
        records=1000,
        settings=settings,
    ) as ledger:
        if record is not None and guarantee is not None:
            ledger.append(
                kind="moments",
                round=0,
                release=record,
                delta=1e-5,
                epsilon=NOTHING,
                cohort=10,
                record=guarantee,
            )
        for number in range(1, rounds + 1):
            accountant.spend(release)
            table = spent_table(accountant, release)
            if record is not None and (settings or {}).get("record_release") == "summed":
                table = fake_run.opened_table(record, images=1000, clients=10)
            ledger.append(
                round=number,
                release=release,
                delta=1e-5,
                epsilon=None if coins == "test" else table,
                coins=coins,
                record=guarantee,
                metrics={} if most_rounds is None else {"most_rounds": most_rounds},
            )
    return path


def limit(tmp_path: Path, *, extra: str = "", **values: object) -> Path:
    told = {
        "unit": "client",
        "view": "sum",
        "adjacency": "zero_out",
        "epsilon": 1000.0,
        "delta": 1e-5,
    } | values
    lines = [f"{key} = {json.dumps(value)}" for key, value in told.items() if value is not None]
    path = tmp_path / "budget.toml"
    path.write_text("\n".join(["[[limit]]", *lines, extra]) + "\n")
    return path


def totals(tmp_path: Path, budget: Path, *ledgers: Path, code: int = 0) -> list[dict[str, object]]:
    out = tmp_path / "totals.json"
    assert main(["audit", "budget", "--budget", str(budget), "--json", str(out), *map(str, ledgers)]) == code
    return list(json.loads(out.read_text()))


def test_rounds_of_all_ledgers_compose_as_the_rounds_of_one(tmp_path: Path) -> None:
    folders = [ledger_folder(tmp_path / name, rounds=rounds) for name, rounds in (("a", 3), ("b", 7))]
    accountant = Accountant(delta=1e-5)
    accountant.spend(MASK, rounds=10)
    for view in View:
        for adjacency in Adjacency:
            budget = limit(tmp_path, view=view.value, adjacency=adjacency.value)
            (account,) = totals(tmp_path, budget, *folders)
            assert account["epsilon"] == pytest.approx(accountant.epsilon(view, adjacency))
            assert account["charges"] == 10
            assert account["clients"] == "clients 0 to 9"


@pytest.mark.parametrize(("view", "said"), [("sum", True), ("upload", False)])
def test_a_ledger_without_a_secure_sum_is_named(tmp_path: Path, view: str, said: bool) -> None:
    real = ledger_folder(tmp_path / "real")
    simulated = ledger_folder(tmp_path / "simulated", settings={"secure_sum": "not run"})
    (account,) = totals(tmp_path, limit(tmp_path, view=view, epsilon=1e6), real, simulated)
    words = "simulated: the secure sum was not run: epsilon(SUM) is what it would be with one"
    assert (words in account["notes"]) is said
    (account,) = totals(tmp_path, limit(tmp_path, view=view, epsilon=1e6), real)
    assert account["notes"] == []


def test_a_page_says_once_what_is_so_of_several_ledgers_and_leaves_their_names_as_they_are(
    tmp_path: Path,
) -> None:
    more = RecordGuarantee("swap", 5.0, 1e-6, MOMENTS.as_dict())
    told = {"guarantee": more, "settings": {"secure_sum": "not run"}}
    folders = [ledger_folder(tmp_path / name, **told) for name in ("a", "b, c")]
    budget, page = limit(tmp_path, **RECORD), tmp_path / "page.html"
    main(["audit", "budget", "--budget", str(budget), *map(str, folders), "--html", str(page)])
    notes = re.findall("<li>(.*?)</li>", page.read_text("utf-8"))
    assert notes == [
        "a, b, c: a release of another kind; its epsilon and delta are added.",
        "a, b, c: the secure sum was not run: epsilon(SUM) is what it would be with one.",
    ]


def test_more_than_the_limit_is_exit_code_one_and_the_page_says_so(tmp_path: Path) -> None:
    folder = ledger_folder(tmp_path / "a")
    accountant = Accountant(delta=1e-5)
    accountant.spend(MASK, rounds=3)
    spent = accountant.epsilon(View.SUM, Adjacency.ZERO_OUT)
    page = tmp_path / "page.html"
    for epsilon, code, words in ((spent * 0.999, 1, "Over budget"), (spent * 1.001, 0, "Within all limits")):
        budget = limit(tmp_path, epsilon=epsilon)
        assert main(["audit", "budget", "--budget", str(budget), str(folder), "--html", str(page)]) == code
        assert words in page.read_text("utf-8")
    assert "://" not in page.read_text("utf-8")


def test_what_a_ledger_states_is_the_least_even_if_it_says_that_nobody_was_in_many_rounds(
    tmp_path: Path,
) -> None:
    folder, accountant = ledger_folder(tmp_path / "a", rounds=4, most_rounds=2), Accountant(delta=1e-5)
    epsilons = [0.0]
    for _ in range(4):
        accountant.spend(MASK)
        epsilons.append(accountant.epsilon(View.SUM, Adjacency.ZERO_OUT))
    (account,) = totals(tmp_path, limit(tmp_path), folder)
    assert account["charges"] == 2
    assert account["epsilon"] == pytest.approx(epsilons[4])
    assert [point["epsilon"] for point in account["spent"]] == pytest.approx([0.0, epsilons[1], epsilons[4]])
    (account,) = totals(tmp_path, limit(tmp_path, delta=1e-4), folder)  # of which the ledger states nothing
    assert account["epsilon"] < epsilons[2]


def test_clients_that_took_part_in_different_ledgers_have_their_own_totals(tmp_path: Path) -> None:
    """A run of ten clients, and a ledger of client 3 alone, which the budget file names."""
    run = ledger_folder(tmp_path / "run")
    own = ledger_folder(tmp_path / "own", rounds=5, config=False) / "ledger.jsonl"
    owner = '[[ledger]]\npath = "own/ledger.jsonl"\ndata = "fashion_mnist"\nclient = 3\n'
    accounts = totals(tmp_path, limit(tmp_path, extra=owner), run, own)
    assert {account["clients"]: account["charges"] for account in accounts} == {
        "clients 0, 1, 2, 4, 5, 6, 7, 8, …": 3,
        "client 3": 8,
    }
    (only,) = totals(tmp_path, limit(tmp_path, client=3, extra=owner), run, own)
    assert only["charges"] == 8


def test_runs_that_deal_the_same_images_out_differently_are_charged_to_every_client(tmp_path: Path) -> None:
    folders = [
        ledger_folder(tmp_path / "a"),
        ledger_folder(tmp_path / "b", overrides=("federation.seed=1",)),
    ]
    (account,) = totals(tmp_path, limit(tmp_path), *folders)
    assert account["charges"] == 6
    assert account["clients"] == "every client"
    assert account["notes"]


def test_other_data_has_its_own_total(tmp_path: Path) -> None:
    digits = ("data.source=mnist", "data.folder=anywhere")
    folders = [ledger_folder(tmp_path / "a"), ledger_folder(tmp_path / "b", overrides=digits)]
    accounts = totals(tmp_path, limit(tmp_path), *folders)
    assert [account["data"] for account in accounts] == ["fashion_mnist", "mnist"]
    (account,) = totals(tmp_path, limit(tmp_path, data="mnist"), *folders)
    assert account["ledgers"] == ["b"]


def test_data_that_share_images_are_one_data_set_and_folders_of_one_name_are_two(tmp_path: Path) -> None:
    full = ("data.source=fashion_mnist", "data.folder=anywhere")
    folders = [ledger_folder(tmp_path / "a"), ledger_folder(tmp_path / "b", overrides=full)]
    for data in (None, "fashion_mnist", "fashion_mnist_12k"):
        (account,) = totals(tmp_path, limit(tmp_path, data=data), *folders)
        assert (account["charges"], account["clients"]) == (6, "every client")
    own = [
        ledger_folder(tmp_path / name, overrides=("data.source=images", f"data.folder=/{name}/scans"))
        for name in ("c", "d")
    ]
    accounts = totals(tmp_path, limit(tmp_path), *own)
    assert [account["data"] for account in accounts] == ["images in scans (c)", "images in scans (d)"]
    for name in ("/c/scans", "images in /c/scans"):
        (account,) = totals(tmp_path, limit(tmp_path, data=name), *own)
        assert account["ledgers"] == ["c"]


def spent(rounds: int) -> float:
    accountant = Accountant(delta=1e-5)
    accountant.spend(MASK, rounds=rounds)
    return accountant.epsilon(View.SUM, Adjacency.ZERO_OUT)


def test_two_runs_on_one_folder_are_over_budget_wherever_the_auditor_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real ones; one names its folder relatively, and one of the places has a folder of that name, too."""
    settings = [
        *tiny_data.TINY,
        "privacy.record_epsilon=inf",
        "privacy.record_release=client",
        "privacy.clip=1",
    ]
    data = tiny_data.write_data(tmp_path / "data")
    (tmp_path / "elsewhere" / "data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for name, folder in (("a", "data"), ("b", data)):
        run(load_config(None, [*settings, f"data.folder={folder}", "federation.rounds=1"]), tmp_path / name)
    both = [tmp_path / "a", tmp_path / "b"]
    (one,) = totals(tmp_path, limit(tmp_path), both[0])
    budget = limit(tmp_path, epsilon=1.2 * one["epsilon"])
    for place in ("", "elsewhere"):
        monkeypatch.chdir(tmp_path / place)
        (account,) = totals(tmp_path, budget, *both, code=1)
        assert (account["charges"], account["data"]) == (2, "idx in data")
        assert str(tmp_path) not in (tmp_path / "totals.json").read_text()


@pytest.mark.parametrize("how", ["link", "moved", "nested"])
def test_one_folder_by_another_name_is_one_data_set(tmp_path: Path, how: str) -> None:
    """Through a link; moved away with its key; one that holds the other."""
    first, data = tmp_path / "data", tmp_path / "other"
    if how == "nested":
        first = data / "part"
        data.mkdir()
        tiny_data.write_data(data)
    tiny_data.write_data(first)
    folders = [ledger_folder(tmp_path / "a", overrides=(f"data.folder={first}",), data=first)]
    if how == "link":
        data.symlink_to(first)
    elif how == "moved":
        shutil.move(first, data)
    folders.append(ledger_folder(tmp_path / "b", overrides=(f"data.folder={data}",), data=data))
    (account,) = totals(tmp_path, limit(tmp_path), *folders)
    assert (account["charges"], account["undecided"]) == (6, [])
    assert account["epsilon"] == pytest.approx(spent(6))


@pytest.mark.parametrize(
    "how", ["copied without the key", "without the private part", "bare ledger", "an owner"]
)
def test_what_nothing_decides_is_never_ok(
    tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """If it does not matter, a note says it; if it does, could not check; and the budget file can say it."""
    data, copy = tiny_data.write_data(tmp_path / "data"), tmp_path / "copy"
    overrides, extra = (f"data.folder={data}",), ""
    a = ledger_folder(tmp_path / "a", overrides=overrides, data=data)
    if how == "copied without the key":
        shutil.copytree(data, copy, ignore=shutil.ignore_patterns(KEY_FILE))
        b = ledger_folder(tmp_path / "b", overrides=(f"data.folder={copy}",), data=copy)
    elif how == "without the private part":
        b = ledger_folder(tmp_path / "b", overrides=("data.source=idx", "data.folder=data"))
    else:
        b = ledger_folder(tmp_path / "b", config=False) / "ledger.jsonl"
        if how == "an owner":
            extra = '[[ledger]]\npath = "b/ledger.jsonl"\ndata = "hospital-b"\n'
    accounts = totals(tmp_path, limit(tmp_path, epsilon=1.01 * spent(6), extra=extra), a, b)
    assert [account["charges"] for account in accounts] == [3, 3]
    assert capsys.readouterr().out.count("undecided whether") == 1, "one pair, whichever side it is seen from"
    page, budget = tmp_path / "page.html", limit(tmp_path, epsilon=0.99 * spent(6), extra=extra)
    assert main(["audit", "budget", "--budget", str(budget), "--html", str(page), str(a), str(b)]) == 2
    out = capsys.readouterr().out
    assert out.count("  OPEN  ") == 2
    assert "   ok  " not in out
    assert "Not decided." in page.read_text("utf-8")
    assert "Within all limits" not in page.read_text("utf-8")
    assert str(data) not in page.read_text("utf-8")
    totals(tmp_path, limit(tmp_path, epsilon=0.99 * spent(3), extra=extra), a, b, code=1)
    owners = "".join(
        f'[[ledger]]\npath = "{path.relative_to(tmp_path)}"\ndata = "hospital-{number}"\n'
        for number, path in enumerate((a, b))
    )
    accounts = totals(tmp_path, limit(tmp_path, epsilon=0.99 * spent(6), extra=owners), a, b)
    assert [account["undecided"] for account in accounts] == [[], []]


def test_ledger_of_a_client_on_its_own_machine_is_about_the_data_that_lie_beside_it(tmp_path: Path) -> None:
    data = tiny_data.write_data(tmp_path / "data")
    overrides = (f"data.folder={data}",)
    folders = [ledger_folder(tmp_path / "a", overrides=overrides, data=data)]
    own = ledger_folder(tmp_path / "b", overrides=overrides, data=data, config=False)
    (own / "clients" / "data.json").rename(own / "data.json")
    folders += [own, ledger_folder(tmp_path / "c", overrides=overrides, data=data, config=False)]
    (account,) = totals(tmp_path, limit(tmp_path), *folders)
    assert account["charges"] == 9


def test_server_of_clients_with_data_of_their_own_does_not_say_whose_they_are(tmp_path: Path) -> None:
    """Its configuration names the public images that it measures with."""
    server = ledger_folder(tmp_path / "a", settings={"own_data": True})
    accounts = totals(tmp_path, limit(tmp_path), server, ledger_folder(tmp_path / "b"))
    assert [account["data"] for account in accounts] == ["data that no ledger names", "fashion_mnist"]
    assert [account["undecided"] for account in accounts] == [["b"], ["a"]]


def test_damaged_record_of_the_data_could_not_be_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ledger_folder(tmp_path / "a")
    (folder / "clients").mkdir()
    for content in (b"", b"{}", b"\xff"):
        (folder / "clients" / "data.json").write_bytes(content)
        assert main(["audit", "budget", "--budget", str(limit(tmp_path)), str(folder)]) == 2
        error = capsys.readouterr().err
        assert "data.json is damaged" in error
        assert error.count("\n") == 1


def test_ledgers_that_name_no_data_count_together(tmp_path: Path) -> None:
    """Two bare files: nothing shows that they are about different people."""
    files = [ledger_folder(tmp_path / name, config=False) / "ledger.jsonl" for name in ("a", "b")]
    (account,) = totals(tmp_path, limit(tmp_path), *files)
    assert account["charges"] == 6


def test_one_ledger_given_twice_is_charged_once(tmp_path: Path) -> None:
    folder = ledger_folder(tmp_path / "a")
    (account,) = totals(tmp_path, limit(tmp_path), folder, folder / "ledger.jsonl")
    assert account["charges"] == 3


def test_test_coins_leave_no_bound(tmp_path: Path) -> None:
    folders = [ledger_folder(tmp_path / "a"), ledger_folder(tmp_path / "b", coins="test")]
    (account,) = totals(tmp_path, limit(tmp_path), *folders, code=1)
    assert account["epsilon"] == "inf"


RECORD = {"unit": "record", "view": None, "adjacency": "swap"}


@pytest.mark.parametrize("with_config", [True, False])
def test_inf_stands_beside_its_cause_and_what_makes_it_finite(
    with_config: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the ledgers that make it so each is told; b is finite, and is not."""
    bare = MaskRelease(0.0, 0.3, cohort=10, dim=1000)
    exact = ("privacy.record_epsilon=inf", "privacy.flip=0", "privacy.clip=0.3")
    folders = [
        ledger_folder(tmp_path / "a", release=bare, overrides=exact, config=with_config),
        ledger_folder(tmp_path / "b", config=with_config),
        ledger_folder(
            tmp_path / "c", record=MOMENTS, settings={"record_release": "summed"}, config=with_config
        ),
    ]
    page = tmp_path / "page.html"
    told = {
        "sum": {
            "in a, ε(SUM) and ε(UPLOAD) are inf: privacy.flip = 0 leaves the masks without noise; privacy",
            "in c, ε(SUM) and ε(UPLOAD) are inf: the sum of noisy moments that opens before round 1 carries",
        },
        "record": {
            "no bound: a has no record-level guarantee",
            "no bound: b has no record-level guarantee",
            "in a, ε(image) is inf: clients train from exact moments of their images "
            "(privacy.record_epsilon = inf); privacy.record_epsilon=2 would make it 2.00",
            "in b, ε(image) is inf: clients train from exact moments of their images "
            "(privacy.record_epsilon = inf); privacy.record_epsilon=2 would make it 2.00",
        },
    }
    for name, limits in (("sum", {}), ("record", RECORD)):
        budget = limit(tmp_path, **limits)
        (account,) = totals(tmp_path, budget, *folders, code=1)
        assert account["epsilon"] == "inf"
        assert len(account["notes"]) == len(told[name])
        assert all(any(note.startswith(why) for why in told[name]) for note in account["notes"])
        capsys.readouterr()
        assert (
            main(["audit", "budget", "--budget", str(budget), *map(str, folders), "--html", str(page)]) == 1
        )
        said, shown = capsys.readouterr().out, html.unescape(page.read_text("utf-8"))
        for note in account["notes"]:
            assert note in said
            assert note[1:] in shown


def test_what_is_infinite_only_together_says_so_and_needs_no_setting(tmp_path: Path) -> None:
    """Each fits its delta; together they take more than the limit's."""
    more = RecordGuarantee("swap", 5.0, 1e-5, MOMENTS.as_dict())
    folders = [ledger_folder(tmp_path / name, guarantee=more) for name in ("a", "b")]
    (account,) = totals(tmp_path, limit(tmp_path, **RECORD), *folders, code=1)
    assert account["epsilon"] == "inf"
    assert "no bound: delta = 1e-5 is used up by what each of them takes of it" in account["notes"]


def test_record_releases_compose_as_gaussians_and_not_by_adding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two equal releases are one with half the variance: 3.0 instead of 4 here."""
    folders = [ledger_folder(tmp_path / name, record=MOMENTS) for name in ("a", "b")]
    (account,) = totals(tmp_path, limit(tmp_path, **RECORD), *folders)
    said = capsys.readouterr().out
    assert "in 2 ledgers" in said
    assert "charges" not in said, "a record's release is made once, whatever the rounds"
    both = replace(MOMENTS, sigma=MOMENTS.sigma / math.sqrt(2)).epsilon(1e-5)
    assert account["epsilon"] == pytest.approx(both, rel=1e-6)
    assert account["epsilon"] < 2 * MOMENTS.epsilon(1e-5) * 0.8


def test_record_release_that_runs_share_counts_once_and_another_does_not(tmp_path: Path) -> None:
    shared = ("privacy.record_epsilon=2.0", "privacy.record_store=kept")

    def folder(name: str, settings: dict[str, str] | None) -> Path:
        return ledger_folder(tmp_path / name, record=MOMENTS, overrides=shared, settings=settings)

    same = [folder(name, {"record_id": "1" * 32}) for name in ("a", "b")]
    (account,) = totals(tmp_path, limit(tmp_path, **RECORD), *same)
    assert account["epsilon"] == MOMENTS.epsilon(1e-5)
    for name, settings in (("c", {"record_id": "2" * 32}), ("d", None)):
        # the same settings, drawn on another machine, or in a store that was made again, or nobody knows
        (account,) = totals(tmp_path, limit(tmp_path, **RECORD), *same, folder(name, settings))
        assert account["epsilon"] > 1.3 * MOMENTS.epsilon(1e-5)


def test_limit_that_is_just_what_a_release_claims_is_kept(tmp_path: Path) -> None:
    folder = ledger_folder(tmp_path / "a", record=MOMENTS)
    epsilon = MOMENTS.epsilon(1e-5)
    totals(tmp_path, limit(tmp_path, **RECORD | {"epsilon": epsilon}), folder)
    totals(tmp_path, limit(tmp_path, **RECORD | {"epsilon": math.nextafter(epsilon, 0)}), folder, code=1)


@pytest.mark.parametrize(("made", "asked"), [("swap", "add_remove"), ("add_remove", "swap")])
def test_release_says_nothing_of_another_adjacency(tmp_path: Path, made: str, asked: str) -> None:
    """Under swap how many records there are is public: one more or less shows."""
    folder = ledger_folder(tmp_path / "a", record=replace(MOMENTS, adjacency=made))
    (account,) = totals(tmp_path, limit(tmp_path, **RECORD | {"adjacency": asked}), folder, code=1)
    assert account["epsilon"] == "inf"
    assert any(f"speaks of {made}, not {asked}" in note for note in account["notes"])


def test_run_without_a_record_guarantee_leaves_records_without_a_bound(tmp_path: Path) -> None:
    folders = [ledger_folder(tmp_path / "a", record=MOMENTS), ledger_folder(tmp_path / "b")]
    (account,) = totals(tmp_path, limit(tmp_path, **RECORD), *folders, code=1)
    assert account["epsilon"] == "inf"
    assert any("b has no record-level guarantee" in note for note in account["notes"])


def test_summed_release_is_charged_to_the_client_in_place_of_its_masks(tmp_path: Path) -> None:
    """All records of a client change together; the masks are made from what was opened."""
    release = MomentRelease(records=10_000, norm=1.0, sigma=1.0, classes=10)
    folder = ledger_folder(tmp_path / "a", record=release, settings={"record_release": "summed"})
    (account,) = totals(tmp_path, limit(tmp_path, epsilon=1e6), folder)
    group = replace(release, adjacency="add_remove", sigma=release.sigma / 1000).epsilon(1e-5)
    assert account["epsilon"] == pytest.approx(group, rel=1e-6)
    plain = ledger_folder(tmp_path / "b")
    (account,) = totals(tmp_path, limit(tmp_path, epsilon=1e6), folder, plain)
    accountant = Accountant(delta=1e-5)
    accountant.spend(MASK, rounds=3)
    masks = accountant.epsilon(View.SUM, Adjacency.ZERO_OUT)
    assert max(group, masks) < account["epsilon"] < group + masks


def test_release_of_another_kind_adds_its_epsilon_and_its_delta(tmp_path: Path) -> None:
    """DP-SGD beside moments, say, or a guarantee that is of more than the release it names."""
    moments = ledger_folder(tmp_path / "a", record=MOMENTS)
    more = RecordGuarantee("swap", 5.0, 1e-5, MOMENTS.as_dict())
    other = ledger_folder(tmp_path / "b", guarantee=more)
    (account,) = totals(tmp_path, limit(tmp_path, **RECORD), other)
    assert account["epsilon"] == 5.0
    (account,) = totals(tmp_path, limit(tmp_path, **RECORD | {"delta": 2e-5}), moments, other)
    assert account["epsilon"] == pytest.approx(5.0 + MOMENTS.epsilon(1e-5))
    (account,) = totals(tmp_path, limit(tmp_path, **RECORD), moments, other, code=1)
    assert account["epsilon"] == "inf", "no delta is left for the moments"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epsilom": 1.0}, "epsilom"),
        ({"view": None}, "needs its view"),
        ({"unit": "record"}, "adjacency of a record"),
        ({"unit": "record", "adjacency": "swap"}, "has no view"),
        ({"epsilon": 0.0}, "positive"),
        ({"delta": 1.0}, "delta"),
        ({"data": "mnist"}, "'fashion_mnist'"),
        ({"client": 99}, "client 99"),
    ],
)
def test_budget_file_that_is_wrong_is_one_clear_line(
    tmp_path: Path, change: dict[str, object], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ledger_folder(tmp_path / "a")
    assert main(["audit", "budget", "--budget", str(limit(tmp_path, **change)), str(folder)]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_ledger_that_does_not_verify_could_not_be_checked(tmp_path: Path) -> None:
    folder = ledger_folder(tmp_path / "a")
    budget = limit(tmp_path)
    (folder / "ledger.jsonl.head").unlink()
    assert main(["audit", "budget", "--budget", str(budget), str(folder)]) == 2
    ledger = folder / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().replace(b'"flip":0.25', b'"flip":0.45', 1))
    assert main(["audit", "budget", "--budget", str(budget), str(folder)]) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[limit]]\nepsilonn = 8.0\n", "unknown 'epsilonn' in [[limit]]; did you mean 'epsilon'?"),
        ("[[limits]]\nepsilon = 8.0\n", "unknown [[limits]]; did you mean 'limit'?"),
        ('[[ledger]]\nowner = "x"\n', "unknown 'owner' in [[ledger]]; valid: path, data, client"),
        (
            '[[limit]]\nunit = "client"\nview = "sum"\nepsilon = 8.0\ndelta = 1e-5\n',
            "[[limit]] number 1 lacks adjacency, which must be 'zero_out' | 'replace_one' | ",
        ),
        ("[[limit]]\nepsilon = 8.0\n", "[[limit]] number 1 lacks unit, which must be 'client' | 'record'"),
        ('[[ledger]]\npath = "x"\n', "[[ledger]] number 1 lacks data, which must be text"),
        ("limit = 3\n", "budget.toml: limit must be a list of tables, got 3"),
        ("limit = [3]\n", "budget.toml: limit must be a list of tables, got [3]"),
        (
            '[[limit]]\nunit = "client"\nview = "sum"\nadjacency = "swap"\nepsilon = "8"\ndelta = 1e-5\n',
            "budget.toml: limit[0].epsilon must be a number, got '8'",
        ),
    ],
)
def test_a_misspelt_key_is_answered_with_the_nearest_right_one(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    budget = tmp_path / "budget.toml"
    budget.write_text(text)
    assert main(["audit", "budget", "--budget", str(budget), str(tmp_path)]) == 2
    assert words in capsys.readouterr().err
