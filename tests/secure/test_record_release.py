"""Epsilon for one image: one release, charged before it is made, kept, and all that training ever sees."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from dp_accounting import gaussian_mechanism

from prism_crypto import secure_sum
from prism_privacy import Adjacency, MomentRelease, NoisySums, View, verify_ledger
from prism_privacy.ledger.entry import LedgerEntry
from prism_secure.accounting.epsilons import own_cost
from prism_secure.accounting.record_release import RecordRelease, group_epsilon
from prism_secure.config import Config, load_config
from prism_secure.errors import ConfigError, PrismError, RoundError, RunFolderError
from prism_secure.learning.training import LocalTrainer, _Training
from prism_secure.reporting.progress import Silent
from prism_secure.rounds import assembly, moment_sum
from prism_secure.rounds import simulation as federation
from prism_secure.rounds.client import Client
from prism_secure.rounds.components import Components
from prism_secure.rounds.simulation import run
from prism_secure.run_folder import environment
from prism_secure.run_folder.folder import read_records
from prism_secure.run_folder.records import RoundRecord

from .tiny_data import TINY, outcome, same_secrets, write_data

RECORD = "privacy.record_epsilon=2"
SUMMED = "privacy.record_release=summed"
ALONE = "privacy.record_cohort=1"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def tiny(data: Path, *overrides: str) -> Config:
    distributed = "privacy.record_cohort=0"
    kept = "privacy.record_release=client"
    return load_config(None, [*TINY, f"data.folder={data}", kept, distributed, *overrides])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """An uninterrupted run with a release for each client."""
    folder = tmp_path_factory.mktemp("finished")
    run(tiny(data, RECORD), folder)
    return folder


@pytest.fixture(scope="module")
def summed(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """An uninterrupted run with one release over all clients."""
    folder = tmp_path_factory.mktemp("summed")
    run(tiny(data, RECORD, SUMMED), folder)
    return folder


def entries_of(folder: Path) -> tuple[LedgerEntry, ...]:
    return verify_ledger(folder / "ledger.jsonl").entries


def releases_of(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in folder.glob("clients/*/release.moments")}


# --- one record swapped


def outside_clients(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if path.relative_to(folder).parts[0] != "clients"
    }


def run_over(
    data: Path, target: Path, source: Path | None, overrides: list[str], patch: pytest.MonkeyPatch
) -> None:
    """A run whose clock stands still, with the names, keys and releases of `source`, if there is one."""
    for kept in ("federation.id", "ledger.key", "clients/*/coins.key", "clients/*/release.moments"):
        for path in source.glob(kept) if source else ():
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)
    for module in (federation, assembly):
        patch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    patch.setattr(environment, "describe_environment", lambda: {"cpu": "any"})
    run(tiny(data, *overrides), target, command="prism-secure run")


@pytest.mark.parametrize("mode", ["client", "summed"])
def test_one_record_swapped_changes_no_output_while_the_release_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Every file outside the clients' own folders is the same to the last byte.

    Alike in both runs by construction, and no function of the data: the federation's id, the ledger's key,
    the clients' coins, the clock, and what the machine is called.
    """
    data = tmp_path / "data"
    overrides = [RECORD, f"privacy.record_release={mode}"]
    write_data(data)
    run_over(data, tmp_path / "one", None, overrides, monkeypatch)
    before = (data / "train-labels-idx1-ubyte").read_bytes()
    write_data(data, swap=7)
    assert (data / "train-labels-idx1-ubyte").read_bytes() != before
    (tmp_path / "other").mkdir()
    if mode == "summed":
        (tmp_path / "other" / "checkpoint").mkdir()
        for name in ("moments.began", "moments.json", "checkpoint/release.moments"):
            shutil.copy2(tmp_path / "one" / name, tmp_path / "other" / name)
    run_over(data, tmp_path / "other", tmp_path / "one", overrides, monkeypatch)
    one, other = outside_clients(tmp_path / "one"), outside_clients(tmp_path / "other")
    assert sorted(one) == sorted(other)
    assert {"report.html", "ledger.jsonl", "metrics.jsonl", "model.safetensors", "config.toml"} <= set(one)
    assert [name for name in one if one[name] != other[name]] == []


def test_without_a_release_the_same_swap_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the equality above would say nothing."""
    data = tmp_path / "data"
    overrides = ["privacy.record_epsilon=inf", "privacy.flip=0"]
    write_data(data)
    run_over(data, tmp_path / "one", None, overrides, monkeypatch)
    write_data(data, swap=7)
    (tmp_path / "other").mkdir()
    run_over(data, tmp_path / "other", tmp_path / "one", overrides, monkeypatch)
    one, other = outside_clients(tmp_path / "one"), outside_clients(tmp_path / "other")
    assert {name for name in one if one[name] != other.get(name)} >= {"model.safetensors", "metrics.jsonl"}


def test_no_image_is_read_once_the_release_is_kept(
    finished: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for gone in ("DONE", "checkpoint", "ledger.jsonl", "ledger.jsonl.head", "metrics.jsonl"):
        path = folder / gone
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in [*folder.glob("clients/*/outbox"), *folder.glob("clients/*/state.safetensors")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    def looked(*_: object) -> None:
        raise AssertionError("a client's images were read")

    monkeypatch.setattr(Components, "_images", looked)
    run(tiny(data, RECORD), folder)
    assert (folder / "model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()


# --- charged once, made once, kept


def test_the_release_is_the_ledgers_first_entry_and_in_every_line(finished: Path) -> None:
    first, *rounds, end = entries_of(finished)
    assert end.kind == "end"
    assert (first.kind, first.round, [entry.round for entry in rounds]) == ("moments", 0, [1, 2])
    release = MomentRelease(**first.release)
    assert (release.adjacency, release.records, release.classes) == ("swap", 20, 10)
    for entry in (first, *rounds, end):
        assert entry.record is not None
        assert 1.99 < entry.record.epsilon == release.epsilon(1e-5) <= 2.0
    # It stays with the client, so it costs nothing of the epsilon against an observer of uploads or sums.
    assert all(spent.to_date == 0.0 < spent.planned for spent in first.epsilon.values())
    for record in read_records(finished):
        assert record.record is not None
        assert record.record.epsilon == first.record.epsilon
        assert record.record.unit == "one image of one client"
        assert record.epsilon.unit == "everything one client contributes"


def test_delta_that_gives_images_away_is_warned_of(data: Path, tmp_path: Path) -> None:
    run(tiny(data, RECORD, "privacy.delta=0.05", "federation.rounds=1"), tmp_path / "run")
    report = verify_ledger(tmp_path / "run" / "ledger.jsonl")
    assert any("1/records" in warning for warning in report.warnings)


def test_a_kill_on_the_way_to_the_store_makes_no_second_release(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    honest = RecordRelease.make

    def counted(self: RecordRelease, client: int, *images: np.ndarray) -> NoisySums:
        if client == 1 and 1 not in made:
            made.append(client)
            raise KeyboardInterrupt
        made.append(client)
        return honest(self, client, *images)

    monkeypatch.setattr(federation, "check_components", lambda _: None)  # its rehearsal makes one, too
    monkeypatch.setattr(RecordRelease, "make", counted)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(tiny(data, RECORD), folder)
    assert [entry.kind for entry in entries_of(folder)] == ["moments"]
    kept = releases_of(folder)
    assert list(kept) == ["00"]
    run(tiny(data, RECORD), folder)
    assert made == [0, 1, 1, 2]
    assert releases_of(folder)["00"] == kept["00"]
    assert [entry.kind for entry in entries_of(folder)] == ["moments", "round", "round", "end"]


class Impatient(Silent):
    """Interrupts a run after its first round."""

    def round_finished(self, record: RoundRecord) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize(("harm", "message"), [("gone", "put it back"), ("damaged", "is damaged")])
@pytest.mark.parametrize("when", ["in round 1", "after round 1"])
def test_a_release_that_is_lost_after_it_was_used_is_not_made_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str, message: str, when: str
) -> None:
    folder, config = tmp_path / "run", tiny(data, RECORD)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if when == "in round 1":
            patch.setattr(federation, "open_securely", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(config, folder, listener=Impatient())
    for state in folder.glob("clients/*/state.safetensors") if when == "in round 1" else ():
        state.unlink()  # as if killed between the upload and the state, before any upload could leave
        (folder / "checkpoint" / "uploading").write_text("0\n")
    release = folder / "clients" / "01" / "release.moments"
    if harm == "gone":
        release.unlink()
    else:
        release.write_bytes(release.read_bytes()[:-1])
    with pytest.raises(PrismError, match=message):
        run(config, folder)
    assert release.exists() == (harm == "damaged")
    assert len(entries_of(folder)) <= 3


def test_a_run_that_began_without_a_claim_does_not_get_one(data: Path, tmp_path: Path) -> None:
    for name, claim in (("plain", "inf"), ("claim", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "federation.id").write_text("one")
        with pytest.raises(KeyboardInterrupt):
            run(tiny(data, f"privacy.record_epsilon={claim}"), tmp_path / name, listener=Impatient())
    with pytest.raises(RunFolderError, match="another configuration"):
        run(tiny(data, RECORD), tmp_path / "plain")
    for name in ("ledger.jsonl", "ledger.jsonl.head", "ledger.key"):
        shutil.copy2(tmp_path / "plain" / name, tmp_path / "claim" / name)
    with pytest.raises(RunFolderError, match="of another record-level release"):
        run(tiny(data, RECORD), tmp_path / "claim")


# --- runs that share releases


def test_runs_over_the_same_images_share_one_release_and_only_the_very_same(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[float] = []
    honest = RecordRelease.make

    def counted(self: RecordRelease, client: int, *images: np.ndarray) -> NoisySums:
        made.append(self.of(client).sigma)
        return honest(self, client, *images)

    monkeypatch.setattr(federation, "check_components", lambda _: None)  # its rehearsal makes one, too
    monkeypatch.setattr(RecordRelease, "make", counted)
    store = tmp_path / "store"
    shared = [f"privacy.record_store={store}", "federation.rounds=1"]
    run(tiny(data, RECORD, *shared), tmp_path / "one")
    run(tiny(data, RECORD, *shared, "privacy.flip=0.3"), tmp_path / "two")
    assert len(made) == 3
    (images,) = store.iterdir()
    (one,) = images.iterdir()
    run(tiny(data, "privacy.record_epsilon=1", *shared), tmp_path / "three")
    assert len(made) == 6
    # Releases of the same images lie side by side: who adds up what they cost together finds them.
    (other,) = set(images.iterdir()) - {one}
    assert {path.name for path in one.iterdir() if not path.name.startswith(".")} == {
        "release.id",
        *(f"client-0{client}.moments" for client in range(3)),
    }
    assert all(path.stat().st_mode & 0o077 == 0 for path in one.glob("*.moments"))
    (other / "client-00.moments").write_bytes((one / "client-00.moments").read_bytes())
    with pytest.raises(RoundError, match="holds another release"):
        run(tiny(data, "privacy.record_epsilon=1", *shared), tmp_path / "four")


def release_id(folder: Path) -> str | None:
    return verify_ledger(folder / "ledger.jsonl").settings.get("record_id")


def test_ledgers_name_the_release_that_runs_share_and_one_made_again_by_another_name(
    data: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    config = tiny(data, RECORD, f"privacy.record_store={store}", "federation.rounds=1")
    for name in ("one", "two"):
        run(config, tmp_path / name)
    assert release_id(tmp_path / "one") == release_id(tmp_path / "two")
    assert re.fullmatch("[0-9a-f]{32}", release_id(tmp_path / "one") or "")
    shutil.rmtree(store)
    run(config, tmp_path / "three")
    assert release_id(tmp_path / "three") != release_id(tmp_path / "one")


def test_run_of_its_own_release_names_none(finished: Path) -> None:
    assert release_id(finished) is None


def test_run_does_not_go_on_from_a_release_that_it_was_not_charged_for(data: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    config = tiny(data, RECORD, f"privacy.record_store={store}")
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "one", listener=Impatient())
    store.rename(tmp_path / "kept")
    with pytest.raises(RunFolderError, match="put it back"):
        run(config, tmp_path / "one")
    assert not store.exists(), "asking for it draws none"
    run(tiny(data, RECORD, f"privacy.record_store={store}", "federation.rounds=1"), tmp_path / "two")
    with pytest.raises(RunFolderError, match="put it back"):
        run(config, tmp_path / "one")
    shutil.rmtree(store)
    (tmp_path / "kept").rename(store)
    run(config, tmp_path / "one")


def test_one_file_that_is_gone_from_a_store_is_not_drawn_again_under_the_old_id(
    data: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    config = tiny(data, RECORD, f"privacy.record_store={store}", "federation.rounds=1")
    run(config, tmp_path / "one")
    (path,) = store.rglob("client-01.moments")
    (mark,) = store.rglob(".client-01.drawn")
    mark.unlink()  # as a kill leaves it, between the release and its mark
    run(config, tmp_path / "one more")
    kept = path.read_bytes()
    path.unlink()
    with pytest.raises(RunFolderError, match=r"client-01\.moments is gone"):
        run(config, tmp_path / "two")
    assert not path.exists()
    path.write_bytes(kept)
    run(config, tmp_path / "two")


def test_run_that_lost_its_clients_in_round_one_draws_no_other_releases(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uploads that follow from the first releases may have left; the signed ledger says so."""
    folder, config = tmp_path / "run", tiny(data, RECORD)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(federation, "open_securely", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(config, folder)
    mark = folder / "checkpoint" / "uploading"
    kept = mark.read_bytes()
    for name in ("clients", "checkpoint"):
        shutil.rmtree(folder / name)
    with pytest.raises(RunFolderError, match=r"checkpoint/uploading is gone"):
        run(config, folder)
    mark.parent.mkdir(exist_ok=True)
    mark.write_bytes(kept)
    with pytest.raises(RunFolderError, match=r"client 0 cannot go on: .*state\.safetensors is gone"):
        run(config, folder)
    assert not releases_of(folder)


# --- what a release over all clients costs a client


def test_a_summed_release_opens_one_sum_that_every_client_trains_from(summed: Path) -> None:
    opened = (summed / "checkpoint" / "release.moments").read_bytes()
    assert set(releases_of(summed).values()) == {opened}
    assert not list(summed.glob("clients/*/share*"))
    took = json.loads((summed / "moments.json").read_text())
    assert took["survivors"] == 3
    assert took["uplink_bytes"] > 3 * 8_010 * 3  # bytes of a packed coordinate: at least three


def test_an_opened_sum_that_is_lost_is_not_opened_again_from_other_shares(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, config = tmp_path / "run", tiny(data, RECORD, SUMMED)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(federation, "open_securely", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(config, folder)
    kept = releases_of(folder)
    (folder / "checkpoint" / "release.moments").unlink()
    with pytest.raises(RunFolderError, match=r"put checkpoint/release\.moments"):
        run(config, folder)
    assert releases_of(folder) == kept


def test_opened_moments_are_charged_to_the_client_and_rounds_add_nothing(data: Path, summed: Path) -> None:
    """By an independent formula: the Gaussian mechanism at the sensitivity of a client's 20 images."""
    first, *rounds, _ = entries_of(summed)
    release = MomentRelease(**first.release)
    v2, w2 = release.second_weight**2, release.count_weight**2
    removed = 20 * math.sqrt(1 + v2 + w2)
    found = first.epsilon[View.SUM, Adjacency.ZERO_OUT]
    exact = gaussian_mechanism.get_epsilon_gaussian(release.noise / removed, 1e-5)
    assert exact <= found.to_date <= exact * (1 + 1e-6) + 1e-6
    assert first.epsilon[View.UPLOAD, Adjacency.REPLACE_ONE].to_date == math.inf
    for entry in rounds:
        assert {cell: spent.to_date for cell, spent in entry.epsilon.items()} == {
            cell: spent.to_date for cell, spent in first.epsilon.items()
        }
        cost = entry.epsilon[View.SUM, Adjacency.ZERO_OUT]
        assert 0 < cost.round < math.inf, "alone, as it always said"
        assert cost.added == own_cost(cost) == 0.0
        assert own_cost(replace(cost, added=None)) == 0.0, "in ledgers of before"


def test_guarantee_for_an_image_names_its_view_in_ledger_and_metrics(finished: Path, summed: Path) -> None:
    for folder, view, cohort in ((summed, View.SUM, 3), (finished, View.UPLOAD, None)):
        for entry in entries_of(folder):
            assert entry.record is not None
            assert (entry.record.view, entry.record.cohort) == (view, cohort)
        for record in read_records(folder):
            assert record.record is not None
            assert (record.record.view, record.record.cohort) == (view.value, cohort)
            assert record.changed is not None


def test_images_too_few_for_the_noise_are_told_before_any_is_read(
    data: Path, summed: Path, tmp_path: Path
) -> None:
    notes: list[str] = []

    class Heard(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    run(tiny(data, RECORD, SUMMED, "federation.rounds=1"), tmp_path / "run", listener=Heard())
    drowned = next(index for index, note in enumerate(notes) if "noise will drown the images" in note)
    assert drowned < next(
        index for index, note in enumerate(notes) if note.startswith("measuring features of")
    )
    assert "Too few images for so much noise" in (summed / "report.html").read_text("utf-8")
    notes.clear()
    run(tiny(data, "privacy.record_epsilon=inf", "federation.rounds=1"), tmp_path / "exact", listener=Heard())
    assert not any("drown" in note for note in notes)


def test_ledger_begun_without_views_goes_on_without_them(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, guarantee = tiny(data, RECORD, SUMMED), RecordRelease.guarantee.func
    old = cached_property(lambda self: replace(guarantee(self), view=None, cohort=None))
    old.__set_name__(RecordRelease, "guarantee")
    with monkeypatch.context() as before:
        before.setattr(RecordRelease, "guarantee", old)
        before.setattr(federation.Server, "save", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "run")
    assert [entry.record.view for entry in entries_of(tmp_path / "run")] == [None, None]
    run(config, tmp_path / "run")
    assert {entry.record.view for entry in entries_of(tmp_path / "run")} == {None}
    assert "while all 3 clients are honest" in (tmp_path / "run" / "report.html").read_text("utf-8")


def test_a_budget_at_client_level_sees_the_opened_moments(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="admits no round"):
        run(tiny(data, RECORD, SUMMED, "budget.epsilon=5"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_less_noise_is_summed_than_each_client_would_draw(data: Path) -> None:
    alone = Components(tiny(data, RECORD)).record_release
    together = Components(tiny(data, RECORD, SUMMED)).record_release
    assert alone is not None
    assert together is not None
    assert together.plan.release.noise == pytest.approx(alone.of(0).noise)  # over three times the images
    assert together.plan.cohort == 3
    share = together.plan.share_noise[0] / together.plan.release.lattice_noise[0]
    assert share == pytest.approx(1 / math.sqrt(3), rel=1e-3)


def test_with_a_cohort_of_one_every_share_holds_all_of_the_noise(data: Path, tmp_path: Path) -> None:
    config = tiny(data, RECORD, SUMMED, ALONE, "federation.rounds=1")
    release = Components(config).record_release
    assert release is not None
    assert release.plan.share_noise == release.plan.release.lattice_noise
    for adjacency in Adjacency:  # so its client is as safe from who sees the share as from who sees the sum
        assert release.client_epsilon(View.UPLOAD, adjacency) == release.client_epsilon(View.SUM, adjacency)
    run(config, tmp_path / "run")
    client = Client(0, tmp_path / "run" / "clients" / "00", Components(config))
    opened = client.moments._released(release)
    assert opened is not None
    # What is trained from knows that three clients' noise is in the sum.
    assert release.as_opened(opened).release.noise == pytest.approx(math.sqrt(3) * release.plan.release.noise)
    assert entries_of(tmp_path / "run")[0].cohort == 1


def test_the_noise_of_an_opened_sum_is_that_of_all_survivors(data: Path, tmp_path: Path) -> None:
    """Measured: what opens, less the clients' exact sums, has the spread that is counted on, and no less."""
    config = tiny(data, RECORD, SUMMED, ALONE)
    recipe = Components(config)
    release = recipe.record_release
    assert release is not None
    exact = sum(np.asarray(recipe.features(client)[0], dtype=np.float64).sum(0) for client in range(3))
    shares = [release.plan.share(*recipe.features(client)) for client in range(3)]
    opened = release.plan.open(np.sum(shares, axis=0), survivors=3)
    noise = opened.first.sum(0) - exact  # over ten classes and three clients
    expected = release.plan.release.noise * math.sqrt(3 * 10)
    assert 0.9 * expected < noise.std() < 1.1 * expected  # 800 features: 0.9 and 1.1 are four deviations


def test_colluders_do_not_count_among_those_who_add_noise(data: Path) -> None:
    overrides = [RECORD, SUMMED, "secure_sum.mode=semi_honest", "privacy.colluders=1"]
    release = Components(tiny(data, *overrides)).record_release
    assert release is not None
    assert release.plan.cohort == 2


@pytest.mark.parametrize("mode", ["client", "summed"])
def test_a_generator_without_classes_trains_from_one_row_of_moments(
    data: Path, tmp_path: Path, mode: str
) -> None:
    config = tiny(data, RECORD, f"privacy.record_release={mode}", "model.conditional=false")
    run(config, tmp_path / "run")
    client = Client(0, tmp_path / "run" / "clients" / "00", Components(config))
    target = client.moments.targets()
    assert target.mean.shape == (1, 800)
    assert float(target.present) == 1.0
    assert entries_of(tmp_path / "run")[0].record is not None


def test_a_second_run_over_an_opened_sum_reads_no_image(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = [f"privacy.record_store={tmp_path / 'store'}", "federation.rounds=1"]
    run(tiny(data, RECORD, SUMMED, *shared), tmp_path / "one")

    def looked(*_: object) -> None:
        raise AssertionError("a client's images were read")

    monkeypatch.setattr(Components, "_images", looked)
    run(tiny(data, RECORD, SUMMED, *shared, "privacy.flip=0.3"), tmp_path / "two")
    assert releases_of(tmp_path / "one") == releases_of(tmp_path / "two")


# --- side paths


def test_run_killed_while_it_opens_a_sum_leaves_the_next_one_the_same_sum(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    config = tiny(data, RECORD, SUMMED, f"privacy.record_store={store}", "federation.rounds=1")
    opened = []

    with monkeypatch.context() as patch:
        patch.setattr(moment_sum, "secure_sum", lambda *a, **k: opened.append(secure_sum(*a, **k)) or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(config, tmp_path / "killed")
    with monkeypatch.context() as patch:
        patch.setattr(
            moment_sum, "secure_sum", lambda *a, **k: opened.append(secure_sum(*a, **k)) or opened[-1]
        )
        run(config, tmp_path / "next")
    assert np.array_equal(opened[0].counts, opened[1].counts)
    run(config, tmp_path / "killed")
    assert not list(store.rglob("share-*")), "shares go once their sum is kept"

    (path,) = store.rglob("all.moments")
    path.unlink()
    with pytest.raises(RunFolderError, match="neither what it opened nor all shares are left"):
        run(config, tmp_path / "third")


def test_what_a_client_matches_is_divided_by_noisy_counts_and_shows_noisy_classes(
    data: Path, finished: Path
) -> None:
    client = Client(0, finished / "clients" / "00", Components(tiny(data, RECORD)))
    target = client.moments.targets()
    release = client._components.record_release
    assert release is not None
    sums = client.moments._released(release)
    assert sums is not None
    assert sums.counts is not None
    true = np.bincount(client._components.features(0)[1], minlength=10)
    assert not np.any(sums.counts == true)
    shown = target.present.numpy() > 0
    noise = release.of(0).noise / release.of(0).count_weight
    assert np.array_equal(shown, sums.counts > max(0.5, 3 * noise))
    assert np.all((target.counts.numpy() > 0) == shown)


def test_steps_and_their_randomness_do_not_depend_on_how_many_images_there_are(data: Path) -> None:
    """Local training is told the same number of steps and the same public seed, whatever a client holds."""
    recipe = Components(tiny(data, RECORD, "data.partition=dirichlet", "data.dirichlet_alpha=0.3"))
    sizes = recipe.partition.sizes
    assert len(set(sizes)) > 1
    release = recipe.record_release
    assert release is not None
    assert {round(release.of(client).noise, 6) for client in range(3)} == {round(release.of(0).noise, 6)}


def test_names_of_what_is_kept_say_nothing_about_the_images(data: Path, tmp_path: Path) -> None:
    other = write_data(tmp_path / "data", swap=3)
    names = []
    for folder in (data, other):
        config = tiny(folder, RECORD, f"privacy.record_store={tmp_path / 'store'}")
        release = Components(config).record_release
        assert release is not None
        context = json.loads(release.context(1))
        context["data"].pop("folder")
        names.append((context, release.file(1, tmp_path).name))
    assert names[0] == names[1]


def test_groups_of_images_cost_what_the_gaussian_mechanism_says() -> None:
    release = MomentRelease.calibrated(epsilon=1.0, delta=1e-5, records=500, classes=10)
    for images in (1, 2, 7):
        exact = gaussian_mechanism.get_epsilon_gaussian(release.noise / (images * release.sensitivity), 1e-5)
        assert exact <= group_epsilon(release, images, 1e-5) <= exact * (1 + 1e-6) + 1e-6


@pytest.mark.parametrize("workers", [1, 2])
def test_clients_that_train_alike_train_once_and_to_the_same_bits(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    store = f"privacy.record_store={tmp_path / 'store'}"
    groups = [RECORD, SUMMED, "training.latent_groups=2", "federation.clients=4", store]
    config = tiny(data, *groups, f"federation.workers={workers}")
    assert config.trains_alike
    trained, generate = [], LocalTrainer._shared_batch
    monkeypatch.setattr(
        LocalTrainer, "_shared_batch", lambda *given: trained.append(given[-1]) or generate(*given)
    )
    run(config, tmp_path / "once")
    if workers == 1:  # others train elsewhere; the rehearsal is one more
        assert len(trained) == 1 + 2 * config.federation.rounds
    monkeypatch.setattr(_Training, "equals", lambda *_: False)
    each = same_secrets(tmp_path / "once", tmp_path / "each")
    run(tiny(data, *groups, "federation.workers=1"), each)
    assert outcome(tmp_path / "once") == outcome(each)


@pytest.mark.parametrize(
    "settings",
    [
        ["privacy.record_release=client"],
        ["training.latent_groups=0"],
        ["privacy.record_epsilon=inf"],
        ["federation.client_fraction=0.75", "secure_sum.min_survivors=3"],
    ],
)
def test_clients_whose_targets_latents_or_histories_differ_are_spread_over_all_workers(
    data: Path, settings: list[str]
) -> None:
    alike = [RECORD, SUMMED, "federation.clients=4", "training.latent_groups=2"]
    assert tiny(data, *alike).trains_alike
    assert not tiny(data, *alike, *settings).trains_alike
