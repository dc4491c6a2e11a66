"""Epsilon over several runs: nothing is left out, nothing shared is counted twice."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import msgspec
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
from prism_secure.accounting.epsilons import CELLS
from prism_secure.audit.budget import audit_budget
from prism_secure.audit.budget_file import Limit
from prism_secure.audit.spent_ledgers import read_ledgers
from prism_secure.commands.listing import _row
from prism_secure.config import Config, dump_config, load_config
from prism_secure.run_folder.run import Run
from prism_secure.sweep.composition import compose, owners
from prism_secure.wording import format_epsilon

from .. import fake_run, test_measured_told

RELEASE = MomentRelease.calibrated(epsilon=2.0, delta=1e-5, records=1000, classes=10)
SUMMED = MomentRelease(records=10_000, norm=1.0, sigma=1.0, classes=10)


def make(
    folder: Path,
    *overrides: str,
    charged: int | None = None,
    record: bool = False,
    shares: str | None = None,
    stated: float | None = None,
) -> Run:
    """A run that is charged what its configuration costs, by the accountant itself, or else `stated`."""
    config: Config = load_config(
        None, ["federation.rounds=4", "privacy.clip=1.0", "privacy.flip=0.25", *overrides]
    )
    folder.mkdir()
    (folder / "config.toml").write_text(dump_config(config))
    release = MaskRelease(config.privacy.flip, config.privacy.clip, cohort=config.cohort, dim=1000)
    accountant = Accountant(delta=config.privacy.delta)
    accountant.plan(release, rounds=config.federation.rounds)
    rounds = config.federation.rounds if charged is None else charged
    summed = "privacy.record_release=summed" in overrides
    guarantee = RecordGuarantee.of(SUMMED if summed else RELEASE, 1e-5) if record else None
    settings = {} if shares is None else {"record_id": shares}
    settings |= {"record_release": "summed" if summed else "client"} if record else {}
    with Ledger.create(
        folder / "ledger.jsonl", LedgerKey(), federation="f" * 32, clients=10, records=1000, settings=settings
    ) as ledger:
        for number in range(1, rounds + 1):
            accountant.spend(release)
            table = fake_run.opened_table(SUMMED, images=1000, clients=10) if record and summed else None
            table = table if stated is None else dict.fromkeys(CELLS, Spent(0.0, stated))
            ledger.append(
                round=number, release=release, delta=config.privacy.delta,
                epsilon=table or spent_table(accountant, release), record=guarantee,
            )  # fmt: skip
    if charged is None:
        (folder / "DONE").write_text(f"{rounds} of {rounds} rounds\n")
    return Run(folder.name, folder, config)


def alone(rounds: int, **release: float) -> float:
    accountant = Accountant(delta=1e-5)
    accountant.spend(MaskRelease(release.get("flip", 0.25), 1.0, cohort=10, dim=1000), rounds)
    return accountant.epsilon(View.SUM, Adjacency.ZERO_OUT)


def test_rounds_of_several_runs_cost_what_as_many_rounds_of_one_run_cost(tmp_path: Path) -> None:
    runs = [make(tmp_path / name) for name in "ab"]
    total = compose(runs)
    assert total.runs == 2
    assert total.epsilon.sum_zero_out == alone(8)
    assert runs[0].planned is not None
    assert alone(4) == runs[0].planned.sum_zero_out < total.epsilon.sum_zero_out
    assert total.delta == 1e-5


def test_runs_with_different_noise_are_added_in_divergence_not_in_epsilon(tmp_path: Path) -> None:
    runs = [make(tmp_path / "a"), make(tmp_path / "b", "privacy.flip=0.1")]
    total = compose(runs).epsilon.sum_zero_out
    assert max(alone(4), alone(4, flip=0.1)) < total < alone(4) + alone(4, flip=0.1)


def test_run_that_ended_early_or_goes_on_counts_as_it_was_planned(tmp_path: Path) -> None:
    stopped = make(tmp_path / "a", charged=2)
    (tmp_path / "a" / "DONE").write_text("2 of 4 rounds: fid 70 < 80 is reached\n")
    unfinished = make(tmp_path / "b", charged=1)
    assert (stopped.state, unfinished.state) == ("stopped", "unfinished")
    assert compose([stopped]).epsilon.sum_zero_out == alone(4)
    assert _row("a", stopped, "")[5] == format_epsilon(alone(4))
    assert compose([unfinished]).epsilon.sum_zero_out == alone(4)


def test_run_without_noise_makes_the_whole_infinite_and_one_that_never_began_costs_nothing(
    tmp_path: Path,
) -> None:
    runs = [make(tmp_path / "a"), make(tmp_path / "b", "privacy.flip=0")]
    assert math.isinf(compose(runs).epsilon.sum_zero_out)
    waiting = Run("c", tmp_path / "c", runs[0].config)
    assert compose([runs[0], waiting]) == compose([runs[0]])
    assert compose([waiting]).epsilon.sum_zero_out == 0
    for name in ("epsilon.record", "epsilon.sum_zero_out", "epsilon.upload_zero_out"):
        assert math.isnan(waiting.objective(name)), (
            "what charged nothing has no epsilon, infinite ones included"
        )


def test_runs_on_other_data_are_not_put_together_and_other_partitions_of_the_same_are(tmp_path: Path) -> None:
    runs = [
        make(tmp_path / "a"),
        make(tmp_path / "b", "federation.seed=1", "data.partition=shards"),
        make(tmp_path / "c", "data.source=idx", "data.folder=elsewhere"),
        make(tmp_path / "d", "data.source=fashion_mnist", "data.folder=anywhere"),
    ]
    groups = owners(runs)
    assert [[run.name for run in group.runs] for group in groups] == [["a", "b", "d"], ["c"]]


def test_shared_release_of_images_is_counted_once_and_own_ones_are_composed(tmp_path: Path) -> None:
    record = ["privacy.record_epsilon=2.0"]
    shared = [*record, "privacy.record_store=store"]
    one = [make(tmp_path / name, *shared, record=True, shares="1" * 32) for name in ("a", "b")]
    assert compose(one).record_epsilon == pytest.approx(RELEASE.epsilon(1e-5), rel=1e-9)
    assert compose(one).record_releases == 1

    apart = [make(tmp_path / name, *record, record=True) for name in ("c", "d")]
    two = compose(apart)
    assert two.record_releases == 2
    half = msgspec.convert(RELEASE.as_dict() | {"sigma": RELEASE.sigma / math.sqrt(2)}, dict)
    assert two.record_epsilon == pytest.approx(MomentRelease(**half).epsilon(1e-5), rel=1e-6)
    assert two.record_delta == 1e-5
    assert RELEASE.epsilon(1e-5) < two.record_epsilon < 2 * RELEASE.epsilon(1e-5)

    for name, other in (("e", "2" * 32), ("g", None)):
        again = make(tmp_path / name, *shared, record=True, shares=other)
        assert compose([one[0], again]).record_releases == 2, "the same settings, drawn elsewhere or again"
    assert math.isinf(compose([one[0], make(tmp_path / "f")]).record_epsilon), "one run claims nothing"


def test_summed_releases_compose_as_gaussians_and_their_masks_cost_nothing(tmp_path: Path) -> None:
    summed = ["privacy.record_epsilon=2.0", "privacy.record_release=summed", "privacy.record_store=store"]
    one = make(tmp_path / "a", *summed, record=True, shares="1" * 32)
    less = make(tmp_path / "b", *summed, "privacy.flip=0.3", record=True, shares="1" * 32)
    other = make(tmp_path / "c", *summed, "privacy.flip=0.3", record=True, shares="2" * 32)
    whole_client = replace(SUMMED, adjacency="add_remove", sigma=SUMMED.sigma / 1000)
    for runs in ([one], [one, less], [less, one]):
        assert compose(runs).epsilon.sum_zero_out == pytest.approx(whole_client.epsilon(1e-5), rel=1e-6)
    both = compose([one, other])
    twice = replace(whole_client, sigma=whole_client.sigma / math.sqrt(2)).epsilon(1e-5)
    assert both.epsilon.sum_zero_out == pytest.approx(twice, rel=1e-6)
    assert both.epsilon.upload_zero_out > both.epsilon.sum_zero_out
    assert both.delta == 1e-5


def test_a_run_is_never_below_what_its_ledger_states(tmp_path: Path) -> None:
    run = make(tmp_path / "a", stated=100.0)
    assert alone(4) < compose([run]).epsilon.sum_zero_out == 100.0


def test_figures_of_a_sweep_are_those_of_an_audit_of_the_same_folders(tmp_path: Path) -> None:
    """Masks of two kinds, own releases and shared ones, one that was opened."""
    record = "privacy.record_epsilon=2.0"
    runs = [
        make(tmp_path / "a", record, record=True),
        make(tmp_path / "b", record, "privacy.flip=0.1", record=True, shares="1" * 32),
        make(tmp_path / "c", record, record=True, shares="1" * 32),
        make(tmp_path / "d", record, "privacy.record_release=summed", record=True),
    ]
    ledgers = read_ledgers([run.folder for run in runs], (), tmp_path)
    total = compose(runs)
    for view in View:
        for adjacency in Adjacency:
            asked = Limit(unit="client", view=view.value, adjacency=adjacency.value, epsilon=1.0, delta=1e-5)
            (account,) = audit_budget(ledgers, [asked])
            assert account.epsilon == pytest.approx(getattr(total.epsilon, f"{view}_{adjacency}"), rel=1e-12)
            assert math.isfinite(account.epsilon) or view is View.UPLOAD
    (account,) = audit_budget(ledgers, [Limit(unit="record", adjacency="swap", epsilon=1.0, delta=1e-5)])
    assert account.epsilon == pytest.approx(total.record_epsilon, rel=1e-12)
    assert total.record_releases == 3


def test_ledger_that_was_changed_is_not_believed(tmp_path: Path) -> None:
    from prism_secure.errors import RunFolderError

    run = make(tmp_path / "a")
    path = run.folder / "ledger.jsonl"
    path.write_text(path.read_text("utf-8").replace('"cohort":10', '"cohort":99'))
    with pytest.raises(RunFolderError, match="signature"):
        compose([Run(run.name, run.folder, run.config)])


def test_test_coins_claim_nothing(tmp_path: Path) -> None:
    folder = fake_run.make_run(tmp_path / "a", ["federation.rounds=2"], images=False, coins="test")
    run = Run("a", folder, load_config(folder / "config.toml"))
    assert math.isinf(compose([run]).epsilon.sum_zero_out)
    assert math.isinf(run.records[-1].epsilon.sum_zero_out)


@pytest.mark.parametrize("state", ["unfinished", "failed"])
def test_measured_runs_that_go_on_count_with_what_they_have_charged(tmp_path: Path, state: str) -> None:
    """As `audit budget` says, and not as infinite; the page says that more may come."""
    folders = [test_measured_told.run_folder(tmp_path / name, 2) for name in "ab"]
    if state == "failed":
        (folders[0] / "FAILED").write_text("no memory\n")
    runs = [Run.open(folder) for folder in folders]
    assert runs[0].state == state
    total = compose(runs)
    cells = {
        ("client", "sum", "zero_out"): (total.epsilon.sum_zero_out, total.delta),
        ("record", None, "swap"): (total.record_epsilon, total.record_delta),
    }
    for (unit, view, adjacency), (found, delta) in cells.items():
        limit = Limit(unit=unit, view=view, adjacency=adjacency, epsilon=100.0, delta=delta)  # type: ignore[arg-type]
        (account,) = audit_budget(read_ledgers(folders, (), tmp_path), [limit])
        assert math.isfinite(found)
        assert account.epsilon == pytest.approx(found, rel=1e-12)
    assert total.open == 2
    assert compose([runs[0]]).epsilon.sum_zero_out == runs[0].spent.sum_zero_out  # type: ignore[union-attr]


def test_measured_runs_that_results_stopped_have_no_bound_and_finished_ones_are_closed(
    tmp_path: Path,
) -> None:
    folder = test_measured_told.run_folder(tmp_path / "a", 2)
    (folder / "DONE").write_text("2 of 4 rounds: fid 70 < 80 is reached\n")
    assert math.isinf(compose([Run.open(folder)]).epsilon.sum_zero_out)
    whole = compose([Run.open(test_measured_told.run_folder(tmp_path / "b", 4, done=True))])
    assert whole.open == 0
    assert math.isfinite(whole.epsilon.sum_zero_out)
