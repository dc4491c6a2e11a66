"""`prism-secure init`: a recipe with every setting explained."""

from __future__ import annotations

import argparse
import functools
import json
import textwrap
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import tomli_w

from prism_secure.commands.first_checks import require_new_file
from prism_secure.commands.parsing import Commands, add_command, recipe_name
from prism_secure.config import Config, describe, load_config, meanings
from prism_secure.config.recipes import DEFAULT, NAMES, SWEEPS
from prism_secure.config.recipes import text as about
from prism_secure.config.schema import FILE, TITLE, schema
from prism_secure.errors import ConfigError
from prism_secure.storage import make_folder, write_atomic
from prism_secure.sweep.objectives import DIRECTIONS

HELP = """\
Write a recipe: every setting with its value, what it means and what it takes, and a table [sweep],
commented out. What you delete keeps the value that the named recipe gives it. The recipes sweep-... ask a
question each, in few lines, with a table [sweep] that is ready to go. Beside the file a JSON Schema, by which
editors complete and check it (also: `prism-secure config --schema`).
"""

SCHEMA = """\
#:schema ./{file}
"""
"""Where editors find what a setting means and takes (the directive is Taplo's and Even Better TOML's)."""
START = """\
# A recipe for `prism-secure run --config FILE --out DIR`, and, with the table [sweep] at the end, for
# `prism-secure sweep FILE --out DIR`. What you delete keeps the value it has in the recipe named here:
recipe = "{name}"
"""

SWEEP = """\
# A sweep varies settings, and makes one run for each point and seed. Uncomment what you use.
#
#[sweep]
# How points are chosen: "grid" (every combination), "random", or a search of the front of all
# objectives with Optuna's "tpe" or "nsga2".
#method = "grid"
# How many points, for "random", "tpe" and "nsga2" alone.
#points = 24
# Each point is run once for each seed.
#seeds = [0, 1, 2]
{objectives}
#objectives = ["{cost}", "fid"]
# End a run after the round in which this holds; its planned epsilon stays.
#until = "fid<80"
# "dominated": end a run that a finished point beats in FID by `margin`, at no larger epsilon; or "none".
#pruning = "dominated"
#margin = 0.2
#
# For "grid": lists; "none" for a setting that may have no value.
#[sweep.grid]
#{varied} = {values}
#secure_sum.min_survivors = ["none", {survivors}]
#
# For the others: lists, or ranges, with `log = true` or `step`.
#[sweep.search]
#{varied} = {{low = {low}, high = {high}, log = true}}
#training.learning_rate = {{low = 0.01, high = 0.1, log = true}}
#model.width = [8, 16]
"""


def add_to(commands: Commands) -> None:
    parser = add_command(commands, "init", "write a recipe with every setting explained", HELP)
    parser.add_argument(
        "file", type=Path, nargs="?", default=Path("recipe.toml"), metavar="FILE", help="default: recipe.toml"
    )
    parser.add_argument(
        "--recipe",
        type=functools.partial(recipe_name, names=(*NAMES, *SWEEPS)),
        default=DEFAULT,
        metavar="NAME",
        help=f"which one of {', '.join(NAMES)}; or a sweep: {', '.join(SWEEPS)}; default: {DEFAULT}",
    )
    parser.set_defaults(command=_init)


def _init(options: argparse.Namespace, command: str) -> int:
    if options.file.exists():
        raise ConfigError(f"{options.file} exists already and is not overwritten; name another file")
    require_new_file(options.file, "FILE")
    beside = options.file.parent / FILE
    if beside.exists() and TITLE not in beside.read_text("utf-8", errors="replace"):
        raise ConfigError(f"{beside} exists already and is somebody else's; name a file in another folder")
    make_folder(options.file.parent)
    sweeps = options.recipe in SWEEPS
    text = SCHEMA.format(file=FILE) + about(options.recipe) if sweeps else recipe(options.recipe)
    write_atomic(options.file, text.encode())
    write_atomic(beside, f"{json.dumps(schema(), indent=2, ensure_ascii=False)}\n".encode())
    print(f"Wrote {options.file}, and {FILE} beside it, by which editors complete and check it.")
    name = options.recipe.removeprefix("sweep-")
    again = (
        f"sweep {options.file} --out sweeps/{name}"
        if sweeps
        else f"run --config {options.file} --out runs/first"
    )
    print(f"Then: prism-secure {again}")
    return 0


def recipe(name: str = DEFAULT) -> str:
    """The file's text."""
    config, told = load_config(recipe=name), about(name).strip().splitlines()
    head = [line for line in told[: told.index("")] if line.startswith("#")]
    parts = [SCHEMA.format(file=FILE) + "\n".join(head) + "\n", START.format(name=name)]
    for section, kind in get_type_hints(Config).items():
        lines = [f"[{section}]", *_comment(kind.__doc__ or "")]
        values = msgspec.to_builtins(getattr(config, section))
        for key, hint in get_type_hints(kind).items():
            takes = (
                ""
                if values[key] is not None and hint in (int, float, str, bool)
                else (f" ({describe(hint)})")
            )
            lines += ["", *_comment(f"{meanings()[section, key]}{takes}")]
            lines.append(f"#{key} =" if values[key] is None else f"{key} = {_toml(values[key])}")
        parts.append("\n".join(lines) + "\n")
    if config.measures or config.record_level:
        varied = "measured.epsilon" if config.measures else "privacy.record_epsilon"
        cost = "epsilon.sum_zero_out" if config.measures else "epsilon.record"
        values, low, high = [1.0, 2.0, 10.0], 0.5, 10.0
    else:  # where nothing is claimed, what can be varied is the noise of the masks
        varied, cost = "privacy.flip", "epsilon.sum_zero_out"
        values, low, high = [0.0, 0.05, 0.1], 0.01, 0.2
    survivors = config.federation.clients * 4 // 5
    objectives = _comment(
        f"What a search improves; an epsilon is the planned one. Any of {', '.join(DIRECTIONS)}."
    )
    sweep = SWEEP.format(
        varied=varied,
        cost=cost,
        values=values,
        low=low,
        high=high,
        survivors=survivors,
        objectives="\n".join(objectives),
    )
    return "\n".join([*parts, sweep])


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()), 100, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
    )


def _toml(value: Any) -> str:
    return tomli_w.dumps({"x": value}, multiline_strings=False).partition("= ")[2].strip().replace("\n", "")
