"""`prism-secure generate`: images from a model file alone."""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING

from prism_secure.commands.first_checks import file_of, is_run_folder, require_new_file
from prism_secure.commands.parsing import Commands, add_command
from prism_secure.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from prism_secure.learning.discriminant import Discriminant
    from prism_secure.model.model_file import ModelFile

HELP = """\
Make images from a model file: a grid to look at, or a data set with its card. It needs neither the data nor
the federation that made it, and no other file.
The same file, seed and count give the same images.
"""

EXAMPLES = """\
examples:
  prism-secure generate --model fashion.safetensors --count 100 --out grid.png
  prism-secure generate --model fashion.safetensors --count 60000 --out fashion.parquet
  prism-secure generate --model fashion.safetensors --count 60000 --out fashion.npz
  prism-secure generate --model fashion.safetensors --count 20 --label Sneaker --out sneakers/
  prism-secure generate --model fashion.safetensors --count 20 --label 7 --label 9 --seed 3 --out shoes.png
  prism-secure generate --model runs/first --count 100 --out grid.png         the model of a finished run
  prism-secure generate --model fashion.safetensors --card                    what it says about itself

exit codes: 0 done, 2 impossible request, 4 a run folder's ledger does not vouch for its model, 5 disk,
7 the file is damaged or no model
"""

_MOST_IN_A_GRID = 10_000
_LONGEST = 40
"""Characters of a name that are drawn; a file from a stranger must not decide how wide a grid is."""


def add_to(commands: Commands) -> None:
    parser = add_command(commands, "generate", "images from a model file alone", HELP, EXAMPLES)
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="FILE|RUN_DIR",
        help="from `export`, or a finished run's folder",
    )
    parser.add_argument("--count", type=int, default=100, help="how many images; default 100")
    parser.add_argument(
        "--label",
        action="append",
        metavar="LABEL",
        help="a class, by number or name; may be repeated; default: all in turn",
    )
    parser.add_argument("--seed", type=int, default=0, help="draws the latents; default 0")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR|FILE",
        help="a data set with its card: a new folder (a PNG an image, a folder a class), FILE.npz or "
        "FILE.parquet; or one grid, FILE.png",
    )
    parser.add_argument(
        "--vary-contrast",
        action="store_true",
        help="of a data set: a random contrast for each image, from which classifiers learn more",
    )
    parser.add_argument(
        "--relabel",
        action="store_true",
        help="of a data set: label each image as the released moments classify it, not as the class that it "
        "was asked for; --model must be the folder of a run with features.products",
    )
    parser.add_argument("--card", action="store_true", help="print the model's card and make no images")
    parser.set_defaults(command=_generate)


def _generate(options: argparse.Namespace, command: str) -> int:
    if options.out is None and not options.card:
        raise ConfigError("say where the images go: --out FOLDER, set.npz, set.parquet, or grid.png")
    if options.count < 1:
        raise ConfigError(f"--count must be at least 1, got {options.count}")
    if not 0 <= options.seed < 2**63:
        raise ConfigError(f"--seed must be from 0 to 2^63 - 1, got {options.seed}")
    if options.out is not None and not options.card:
        _check_out(options.out, options.count)
        for flag, given in (("--vary-contrast", options.vary_contrast), ("--relabel", options.relabel)):
            if given and options.out.suffix.lower() == ".png":
                raise ConfigError(f"{flag} is for data sets, and a .png is one grid: name a folder or .npz")
    named = options.model
    if options.relabel and not is_run_folder(named):
        raise ConfigError(f"--relabel needs the folder of a run, where what it released is kept; got {named}")
    options.model = file_of(
        options.model, "model.safetensors", "a model file, nor a run folder", error=ModelError
    )
    from prism_secure.model.model_file import read_model_file  # torch is not imported to say the above

    model = read_model_file(options.model)
    if model.card is None and is_run_folder(named):
        # What `export` would write into the file is still in the folder.
        from prism_secure.run_folder.export import run_card
        from prism_secure.run_folder.history import read_history

        model = dataclasses.replace(model, card=run_card(read_history(named), model))
    if options.card:
        if model.card is None:
            raise ConfigError(f"{options.model} has no card; `prism-secure export` writes one")
        print(model.card.markdown(), end="")
        return 0
    labels = _labels(model, options.label, options.count)
    if options.out.suffix.lower() == ".png":
        _write_grid(model, labels, options)
        return 0
    from prism_secure.model.generated_set import require_packages, write_set

    require_packages(options.out)
    asked = None if labels is None else labels.numpy()
    card = write_set(
        model,
        asked,
        options.out,
        count=options.count,
        seed=options.seed,
        vary_contrast=options.vary_contrast,
        label=_discriminant(named) if options.relabel else None,
    )
    print(f"Data set: {options.out}, {options.count:,} images\nCard: {card}")
    return 0


def _discriminant(folder: Path) -> Discriminant:
    """Labels by the moments that a run opened."""
    from prism_secure.rounds.components import Components
    from prism_secure.rounds.moments import discriminant_of
    from prism_secure.run_folder.folder import read_config

    return discriminant_of(Components(read_config(folder)), folder)


def _check_out(out: Path, count: int) -> None:
    """Refuse what is neither one PNG nor a folder that can be filled."""
    kind = out.suffix.lower()
    if kind == ".png":
        if count > _MOST_IN_A_GRID:
            raise ConfigError(
                f"a grid takes at most {_MOST_IN_A_GRID:,} images, got {count:,}: name a folder"
            )
        require_new_file(out, "--out")
    elif kind in (".npz", ".parquet"):
        require_new_file(out, "--out")
    elif kind and not out.exists():
        raise ConfigError(
            f"--out must be a folder, a .npz, a .parquet or a .png, got {out}: a new folder's name has no "
            "suffix"
        )
    elif out.exists() and not out.is_dir():
        raise ConfigError(f"{out} exists and is not a folder: name a new folder, or a file of a known suffix")
    elif out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"{out} holds files already: name a new or an empty folder")


def _labels(model: ModelFile, asked: list[str] | None, count: int) -> Tensor | None:
    """The labels to ask for (count,), the given ones in turn; None for an unconditional model."""
    import torch

    from prism_secure.model.model_card import plain

    classes, names = model.architecture.classes, model.card.data.classes if model.card else ()
    if not classes and asked:
        raise ConfigError("this model is unconditional: it takes no --label")
    if not classes:
        return None
    numbers = {name.casefold(): number for number, name in enumerate(names)}
    numbers |= {name: number for number, name in enumerate(names)}
    chosen = []
    for word in asked or map(str, range(classes)):
        label = int(word) if word.isdecimal() else numbers.get(word, numbers.get(word.casefold(), -1))
        if not 0 <= label < classes:
            known = ", ".join(f"{number} {plain(name)}" for number, name in enumerate(names))
            expected = f"a label from 0 to {classes - 1}{known and f' ({known})'}"
            raise ConfigError(f"expected {expected}, got {word!r}")
        chosen.append(label)
    return torch.tensor(chosen)[torch.arange(count) % len(chosen)]


def _write_grid(model: ModelFile, labels: Tensor | None, options: argparse.Namespace) -> None:
    from prism_secure.model.model_card import plain
    from prism_secure.quality.samples import encode_png, sample_grid
    from prism_secure.storage import make_folder, write_atomic

    images, _ = model.generator().generate(options.count, labels=labels, seed=options.seed)
    rows = 0 if labels is None else len(set(labels.tolist()))
    grid = sample_grid(
        images.numpy(),
        labels.numpy() if labels is not None and rows > 1 else None,  # one class fills rows like none
        names=[plain(name)[:_LONGEST] for name in model.card.data.classes] if model.card else (),
        columns=math.ceil(options.count / rows) if rows > 1 else 10,
    )
    make_folder(options.out.parent)
    write_atomic(options.out, encode_png(grid))
    print(f"Grid: {options.out}, {options.count} images")
