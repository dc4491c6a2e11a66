"""Canaries in one run: the bound holds for mechanisms whose epsilon is known, and refutes broken ones."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats

from prism_privacy import Adjacency, RowDirections, View, quantise_features
from prism_privacy.audit.lower_bounds import one_run_log_p
from prism_privacy.measured import answers, public_round
from prism_privacy.measured.embedding import HadamardEmbedding
from prism_secure.audit import one_run as one_run_module
from prism_secure.audit.one_run import Canaries, Claim, _Evidence, bound, one_run
from prism_secure.audit.played_rounds import PlayedRounds
from prism_secure.cli import main
from prism_secure.config import Config, load_config
from prism_secure.errors import RunFolderError
from prism_secure.rounds.components import Components
from prism_secure.rounds.simulation import run
from prism_secure.run_folder.history import read_history
from prism_secure.run_folder.one_run_record import read_one_run

from .. import tiny_data
from .planted_in_measured_rounds import (
    Plant,
    no_record_clip,
    own_count_for_the_public_one,
)

DELTA = 1e-5


def settings(data: Path, *overrides: str) -> Config:
    """A hundred clients: fifty canary clients, and fifty that hold canary images."""
    return load_config(
        None,
        [
            *tiny_data.TINY,
            f"data.folder={data}",
            "federation.clients=100",
            "federation.rounds=3",
            "federation.behaviour=measure",
            "federation.local_steps=32",  # the default: nobody reads it
            "privacy.record_epsilon=inf",
            "privacy.flip=0.25",
            "metrics.every=3",
            "measured.epsilon=1",
            "measured.directions=128",
            "measured.coordinates=2048",
            "measured.records=4",
            "measured.steps=1",
            "measured.end_steps=1",
            *overrides,
        ],
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_data.write_data(tmp_path_factory.mktemp("data") / "images", train=100)


def claim_of(config: Config) -> Claim:
    plan = Components(config).plan
    return Claim(plan.rounds, plan.epsilon(View.SUM, Adjacency.ZERO_OUT), plan.image_epsilon(View.SUM))


@pytest.mark.parametrize("epsilon", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("delta", [0.0, 1e-3, 0.02])
@pytest.mark.parametrize(("canaries", "guesses"), [(6, 6), (9, 9), (9, 4)])
def test_no_private_mechanism_is_refuted_more_often_than_the_theorem_says(
    epsilon: float, delta: float, canaries: int, guesses: int
) -> None:
    """Every outcome of a mechanism that tells each coin with probability delta, and else randomizes it.

    Which coins it tells is one event for all canaries in one variant, and one for each in the other.
    """
    rate = math.exp(epsilon) / (1 + math.exp(epsilon))
    alone = delta + (1 - delta) * rate
    for least in range(guesses + 1):
        claimed = math.exp(one_run_log_p(canaries, guesses, least, epsilon, delta))
        together = each = 0.0
        for outcome in itertools.product((0, 1), repeat=guesses):
            if sum(outcome) >= least:
                each += math.prod(alone if right else 1 - alone for right in outcome)
                together += (1 - delta) * math.prod(rate if right else 1 - rate for right in outcome)
        assert each <= claimed + 1e-12
        assert together + delta <= claimed + 1e-12 or least == 0


def gaussian_epsilon(mu: float) -> float:
    """Epsilon of one Gaussian canary of distance mu at DELTA, by its definition (Balle and Wang 2018)."""

    def above(epsilon: float) -> float:
        ahead, behind = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
        return float(stats.norm.cdf(ahead) - math.exp(epsilon) * stats.norm.cdf(behind)) - DELTA

    return float(optimize.brentq(above, 1e-6, 50))


@pytest.mark.parametrize("mu", [0.25, 2.0])
def test_the_bound_on_gaussian_canaries_is_below_their_epsilon(mu: float) -> None:
    """95% confidence: of 100 audits of 300 canaries at most 13 are wrong (p = 0.0005 for more)."""
    draw, epsilon = np.random.default_rng(0), gaussian_epsilon(mu)
    wrong, found = 0, []
    for _ in range(100):
        truth = draw.integers(0, 2, 300).astype(bool)
        scores = np.where(truth, mu / 2, -mu / 2) + draw.standard_normal(300)
        found.append(bound(truth, scores, DELTA, 0.05)[2])
        wrong += found[-1] > epsilon
    assert wrong <= 13
    assert mu < 1 or np.median(found) > 0.1 * epsilon


def test_guesses_that_know_nothing_show_nothing_and_those_that_know_all_show_much() -> None:
    truth = np.arange(400) % 2 == 0
    assert bound(truth, np.random.default_rng(0).standard_normal(400), DELTA, 0.05)[2] < 0.2
    guesses, right, epsilon = bound(truth, np.where(truth, 1.0, -1.0), DELTA, 0.05)
    assert (guesses, right) == (400, 400)
    assert epsilon > 4


def test_measured_rounds_as_they_are_stay_below_what_they_claim(data: Path) -> None:
    config = settings(data)
    claim = claim_of(config)
    assert 0.9 < claim.client <= 1.0
    found = one_run(config, claim)
    assert [(each.unit, each.adjacency, each.canaries) for each in found.found] == [
        ("client", "zero_out", 50),
        ("record", "swap", 50),
    ]
    assert not found.refuted
    first = Claim(1, claim.client, claim.image)
    assert one_run(config, first) == one_run(config, first) != one_run(config, first, seed=1)


@pytest.mark.parametrize("overrides", [[], ["privacy.colluders=7"], ["measured.unit=image"]])
def test_canary_clients_are_computed_together_to_the_bits_of_each_alone(
    overrides: list[str], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E is widened for each call, which takes longer than all else of a client."""
    config = settings(data, "federation.rounds=2", "metrics.every=2", *overrides)
    claim, found, calls = claim_of(config), [], []
    guesses, embed = _Evidence.guesses, HadamardEmbedding.embed

    def kept(evidence: _Evidence) -> tuple[Any, ...]:
        told = guesses(evidence)
        found.append([*told, *evidence._seen, *evidence._moves])
        return told

    monkeypatch.setattr(_Evidence, "guesses", kept)
    monkeypatch.setattr(HadamardEmbedding, "embed", lambda *given: calls.append(1) or embed(*given))
    one_run(config, claim)
    together = len(calls)
    monkeypatch.setattr(one_run_module, "_CELLS", 1)
    one_run(config, claim)
    assert together <= 2 * claim.rounds, "one for the clients of a round, one for its canaries"
    assert len(calls) - together > 40 * claim.rounds
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)


def test_canary_features_are_made_once(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(data)
    asked = PlayedRounds(Components(config), tmp_path, b"x").checked_round().directions
    assert isinstance(asked, RowDirections)
    canaries = Canaries(Components(config).plan.measured, 100, asked, images=50, seed=3)
    assert canaries.features(4)[0] is canaries.features(4)[0]
    given, _ = canaries.given(1)
    given[:] = 0
    assert np.all(np.abs(canaries.features(1)[0]) == 1), "what a client has is its own copy"


def no_client_clip(patch: pytest.MonkeyPatch) -> None:
    """Neither ||a|| <= A nor the ball around p_t."""

    def unclipped(release: Any, rows: Any, owners: Any, clients: int) -> Any:
        sums = public_round_sums(rows, owners, clients)
        return np.trunc(sums * release.answer_gain).astype(np.int64)

    public_round_sums = answers.sums_by
    patch.setattr(public_round, "client_answers", unclipped)
    patch.setattr(answers, "squared_limit", lambda clip: 1 << 62)


def test_a_client_without_a_clip_is_refuted(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(data)
    claim = claim_of(config)
    no_client_clip(monkeypatch)
    found = {each.unit: each for each in one_run(config, claim).found}
    assert found["client"].refuted
    assert found["client"].epsilon > 1.1


@pytest.mark.parametrize("bug", [None, no_record_clip, own_count_for_the_public_one])
def test_an_image_that_moves_further_than_it_may_is_refuted(
    bug: Plant | None, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One canary image in each of fifty clients, of 64 that each could have."""
    small = ["measured.unit=image", "measured.epsilon=0.5", "measured.records=64"]
    config = settings(data, *small, "federation.rounds=1", "metrics.every=1")
    claim = claim_of(config)
    if bug is not None:
        bug(monkeypatch)
    found = {each.unit: each for each in one_run(config, claim, images=50).found}
    assert found["record"].canaries == 50
    assert found["record"].refuted == (bug is not None)


@pytest.fixture(scope="module")
def of_persons(data: Path) -> list[str]:
    """A person for each client; fifty canary persons, of 64 images that a client could have."""
    (data / "train-persons.txt").write_text("".join(f"{number}\n" for number in range(100)))
    small = ["measured.unit=image", "measured.epsilon=0.5", "measured.records=64", "measured.record_clip=4"]
    return ["data.person=file", *small, "federation.rounds=1", "metrics.every=1"]


@pytest.mark.parametrize("bug", [False, True])
def test_a_person_whose_images_are_clipped_one_by_one_is_refuted(
    bug: bool, data: Path, of_persons: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(data, *of_persons)
    claim = claim_of(config)
    if bug:
        monkeypatch.setattr(
            public_round, "sum_persons", lambda responses, owners, persons: (responses, owners)
        )
    found = {each.unit: each for each in one_run(config, claim, images=50).found}
    assert found["record"].canaries == 50
    assert found["record"].refuted is bug
    assert not found["client"].refuted


def test_a_canary_person_has_several_images_and_reaches_the_clip(
    data: Path, of_persons: list[str], tmp_path: Path
) -> None:
    config = settings(data, *of_persons)
    asked = PlayedRounds(Components(config), tmp_path, b"x").checked_round()
    assert isinstance(asked.directions, RowDirections)
    plan = Components(config).plan.measured
    canaries = Canaries(plan, 100, asked.directions, images=200, seed=3, persons=True)

    def length(index: int, of: slice) -> float:
        (features, labels), whose = canaries.given(index), canaries.whose(index)
        assert len(features) == len(labels) == len(whose)
        answer = asked.answers(quantise_features(features[of]), labels[of], persons=whose[of])
        return float(np.linalg.norm(asked.real(answer)))

    whole = next(index for index, is_in in canaries.client_is_in.items() if is_in)
    assert len(set(canaries.whose(whole).tolist())) == canaries.copies
    assert length(whole, slice(None)) == pytest.approx(asked.release.client_clip, rel=1e-3)
    first = slice(canaries.alike)  # of several images, all alike
    assert canaries.whose(1).tolist() == [n for n in range(canaries.images) for _ in range(canaries.alike)]
    assert canaries.alike > 1 == len(np.unique(canaries.given(1)[0][first], axis=0))
    assert length(1, first) == pytest.approx(asked.release.record_clip / asked.release.records, rel=1e-3)


def test_canaries_are_in_by_fair_coins_and_hold_what_their_adjacency_says(data: Path, tmp_path: Path) -> None:
    config = settings(data)
    asked = PlayedRounds(Components(config), tmp_path, b"x").checked_round().directions
    assert isinstance(asked, RowDirections)
    canaries = Canaries(Components(config).plan.measured, 2000, asked, images=500, seed=3)
    assert 430 < sum(canaries.client_is_in.values()) < 570
    images = np.concatenate(list(canaries.image_is_in.values()))
    assert 0.4 < images.mean() < 0.6
    for index, inside in list(canaries.client_is_in.items())[:10]:
        features, labels = canaries.given(index)
        assert len(features) == len(labels) == (canaries.copies if inside else 0)
        assert len(np.unique(features, axis=0)) <= 1
    for index, inside in list(canaries.image_is_in.items())[:10]:
        features, labels = canaries.given(index)
        own, own_labels = canaries.features(index)
        assert np.array_equal(features, np.where(inside, 1, -1)[:, None] * own)
        assert np.array_equal(labels, own_labels)


def test_colluders_and_dropouts_hide_nobody(data: Path, tmp_path: Path) -> None:
    config = settings(data, "federation.clients=10", "privacy.colluders=2", "secure_sum.min_survivors=9")
    rounds = PlayedRounds(Components(config), tmp_path, b"x")
    seen = rounds.next()
    assert seen.honest == tuple(range(7)) == tuple(range(config.cohort))
    bits = [rounds.clients[index].bits(seen.broadcast) for index in seen.honest]
    assert np.array_equal(seen.counts, np.sum(bits, axis=0, dtype=np.int64))


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one-run") / "run"
    run(settings(data, "secure_sum.simulate=true"), out)
    return out


def test_the_command_writes_what_it_found_and_the_report_shows_it(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(Components, "_images", lambda self, client: pytest.fail("an image was read"))
        assert main(["audit", "one-run", str(finished)]) == 0
    told = capsys.readouterr()
    assert told.out.count("ok  ") == 2
    assert told.err == "".join(f"{done} of 3 rounds played\n" for done in range(4))
    after = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    assert {path: after[path] for path in before} == before
    assert [path.name for path in after if path not in before] == ["one-run.json"]
    kept = read_one_run(finished)
    assert kept is not None
    history = read_history(finished)
    assert history.to_date is not None
    assert history.record_guarantee is not None
    assert [each.claimed for each in kept.found] == [
        history.to_date.sum_zero_out,
        history.record_guarantee.epsilon,
    ]
    assert main(["report", str(finished)]) == 0
    page = (finished / "report.html").read_text("utf-8")
    assert "An audit sent 50 canary clients and 50 canary images" in page
    assert "with confidence 95%" in page


def test_what_was_shown_stands_beside_epsilon(finished: Path) -> None:
    path = finished / "one-run.json"
    kept = {"rounds": 3, "delta": 1e-5, "seed": 0, "confidence": 0.95, "found": []}
    for unit, adjacency, epsilon in (("client", "zero_out", 0.4512), ("record", "swap", 0.3)):
        guessed = {"canaries": 20, "guesses": 20, "right": 18, "epsilon": epsilon, "claimed": 1.0}
        kept["found"].append({"unit": unit, "adjacency": adjacency, **guessed})  # type: ignore[attr-defined]
    path.write_text(json.dumps(kept))
    shown = [(each.unit, each.view, each.epsilon) for each in read_history(finished).lower_bounds]
    assert shown == [("client", "sum", 0.4512), ("record", "sum", 0.3)]
    assert main(["report", str(finished)]) == 0
    page = (finished / "report.html").read_text("utf-8")
    assert '≥ 0.451</small> <small class="floor">95% sure' in page
    path.write_text(json.dumps(kept)[:-20])
    with pytest.raises(RunFolderError, match=r"one-run.json is damaged: .*audit one-run` write it again"):
        read_history(finished)
    path.unlink()
    assert read_history(finished).one_run is None


def test_a_claim_that_is_refuted_ends_with_1(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_client_clip(monkeypatch)
    assert main(["audit", "one-run", str(finished)]) == 1
    assert "REFUTED  client, zero_out: epsilon >= " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("measured", "reason"), [(False, "its rounds are not measured"), (True, "there is no ledger.jsonl")]
)
def test_what_claims_nothing_that_canaries_could_refute_is_one_line(
    data: Path, tmp_path: Path, measured: bool, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from prism_secure.config import dump_config

    trains = load_config(None, [*tiny_data.TINY, f"data.folder={data}"])
    (tmp_path / "config.toml").write_text(dump_config(settings(data) if measured else trains))
    assert main(["audit", "one-run", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert reason in told
    assert told.count("\n") == 1
    for option in (["--seed", "-1"], ["--images", "0"]):
        assert main(["audit", "one-run", str(tmp_path), *option]) == 2
        assert f"{option[0]} must be at least" in capsys.readouterr().err
