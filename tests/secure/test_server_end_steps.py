"""`training.end_steps`: after the last round the server trains on, on moments that everybody has seen."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from prism_privacy import verify_ledger
from prism_secure.audit.run_audit import audit_run, summary
from prism_secure.config import Config, load_config
from prism_secure.errors import ConfigError, RoundError
from prism_secure.learning.measured.directions import class_means
from prism_secure.model.generator import draw_latents
from prism_secure.model.supermask import scores_from_theta, training_mask
from prism_secure.rounds.components import Components
from prism_secure.rounds.server import Server
from prism_secure.rounds.simulation import run
from prism_secure.run_folder.folder import read_records

from .tiny_data import TINY, write_data

SUMMED = ["privacy.record_epsilon=2", "privacy.record_release=summed"]


def tiny(data: Path, *settings: str) -> Config:
    return load_config(None, [*TINY, *SUMMED, f"data.folder={data}", *settings])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("end") / "data")


def distance(components: Components, theta: np.ndarray) -> float:
    """Between the class means of generated images and client 0's."""
    trainer, draws = components.trainer, torch.Generator().manual_seed(0)
    latents, labels = draw_latents(200, trainer.architecture, draws)
    scores = scores_from_theta(torch.from_numpy(theta), trainer.temperature)
    mask = training_mask(scores, "hard", temperature=trainer.temperature)
    with torch.no_grad():
        found = class_means(trainer, mask, latents, labels)
    return float((found - components.targets(0).mean).norm())


def test_server_nears_the_moments_after_the_last_round_and_only_then(data: Path) -> None:
    thetas = {}
    for steps in (0, 200):
        components = Components(tiny(data, f"training.end_steps={steps}"))
        server, moments = Server.of(components, "federation"), components.targets(0)
        for number in (1, 2):
            votes = (server.theta > 0.5).astype(np.int64) * 3
            server.absorb(votes, 3, planned_rounds=2, moments=moments)
            thetas[steps, number] = server.theta
    assert np.array_equal(thetas[0, 1], thetas[200, 1])
    before, after = (distance(components, thetas[steps, 2]) for steps in (0, 200))
    assert after < 0.8 * before


@pytest.mark.parametrize("steps", [0, 2])
def test_a_lost_last_round_ends_no_other_way(data: Path, steps: int) -> None:
    components = Components(tiny(data, "federation.rounds=1", f"training.end_steps={steps}"))
    server, moments = Server.of(components, "federation"), components.targets(0)
    before = server.theta
    assert (server.lose(moments).loss is None) is (steps == 0)
    assert server.round == 1
    assert np.array_equal(server.theta, before) is (steps == 0)


def test_moments_that_nobody_hands_over_are_missed(data: Path) -> None:
    components = Components(tiny(data, "federation.rounds=1", "training.end_steps=2"))
    server = Server.of(components, "federation")
    with pytest.raises(RoundError, match="needs the moments that opened before round 1"):
        server.absorb(np.zeros(len(server.theta), np.int64), 3, planned_rounds=1)


def test_a_run_ends_with_it_and_is_charged_as_without(data: Path, tmp_path: Path) -> None:
    spent, masks = [], []
    for steps in (0, 2):
        folder = tmp_path / str(steps)
        run(tiny(data, "federation.rounds=1", f"training.end_steps={steps}"), folder)
        entries = verify_ledger(folder / "ledger.jsonl").entries
        spent.append([(entry.kind, entry.release, entry.epsilon, entry.record) for entry in entries])
        masks.append((folder / "model.safetensors").read_bytes())
        last = read_records(folder)[-1]
        assert last.changed > 0
        assert (last.server_loss is None) is (steps == 0)
    assert spent[0] == spent[1]
    assert masks[0] != masks[1]
    audit = audit_run(folder)
    assert audit.verdict == "clean", summary(audit)
    page = " ".join((folder / "report.html").read_text().split())
    assert "after the last one the server trains 2 steps towards it" in page
    assert "decided together" not in page
    assert f"The server’s loss, {last.server_loss:.3g} after round 1, is what its own training" in page
    assert "computed from opened values, never from a client’s, and so costs no ε" in page


def test_a_run_that_is_killed_after_it_ends_with_the_same_mask(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folders = (
        tiny(data, "federation.rounds=1", "training.end_steps=2"),
        [tmp_path / "0", tmp_path / "1"],
    )
    trained, losses = [], []

    def killed(self: Server, path: Path) -> None:
        trained.append(self.theta)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Server, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            run(config, folders[0])
    killed_loss = read_records(folders[0])[-1].server_loss
    assert killed_loss is not None
    shutil.copytree(folders[0], folders[1])
    for folder in folders:
        run(config, folder)
        server = Server.of(Components(config), "federation")
        server.load(folder / "checkpoint" / "server.safetensors")
        assert server.theta.tobytes() == trained[0].tobytes()
        losses.append(read_records(folder)[-1].server_loss)
    assert losses[0] == losses[1] == killed_loss


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("privacy.record_epsilon=inf", 'must be 0 unless privacy.record_release = "summed"'),
        ("privacy.record_release=client", 'must be 0 unless privacy.record_release = "summed"'),
        ("mask.mode=topk", "must be 0 unless mask.mode = 'hard'"),
    ],
)
def test_where_nothing_opens_or_masks_are_others_it_is_refused(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, ["training.end_steps=5", setting])


def test_measured_rounds_have_steps_of_their_own() -> None:
    with pytest.raises(ConfigError, match=r"training\.end_steps = 5 has no effect with"):
        load_config(None, ["training.end_steps=5"], recipe="cross-device")
