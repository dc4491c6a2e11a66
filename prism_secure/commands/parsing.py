"""What the commands' parsers have in common."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from prism_secure.config import Config, config_upon, read_toml, stands_on
from prism_secure.config.recipes import DEFAULT, NAMES
from prism_secure.errors import did_you_mean

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(
    commands: Commands,
    name: str,
    summary: str,
    description: str | None = None,
    epilog: str | None = None,
) -> argparse.ArgumentParser:
    """A command's parser: `summary` in the list of commands, `description` and `epilog` in its own help."""
    return commands.add_parser(
        name,
        help=summary,
        description=description or summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """`--recipe NAME`, `--config FILE` and `--set SECTION.KEY=VALUE`; `chosen_config` reads them."""
    parser.add_argument(
        "--recipe",
        type=recipe_name,
        metavar="NAME",
        help=f"settings that go together: {', '.join(NAMES)}; without --config {DEFAULT}",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="a TOML file, on --recipe, on the recipe that it names, or on the defaults of all settings",
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one setting; may be repeated",
    )


def chosen_config(options: argparse.Namespace) -> tuple[Config, str]:
    """The configuration that the options of `add_config_options` come to, and what it stands on, in a line.

    The line is "" where a file sets everything. The file is read once: it may be a pipe.

    Raises:
        ConfigError: see `load_config`.
    """
    path, recipe = options.config, options.recipe or (DEFAULT if options.config is None else None)
    tables = read_toml(path) if path is not None else {}
    told = stands_on(tables, recipe, where=path)
    return config_upon(tables, options.overrides, recipe, path), told


def recipe_name(text: str, names: Sequence[str] = NAMES) -> str:
    """The type of an option that names a recipe.

    Raises:
        argparse.ArgumentTypeError: no recipe has that name; the nearest one is offered.
    """
    if text not in names:
        hint = did_you_mean(text, names, otherwise=f"there are {', '.join(names)}")
        raise argparse.ArgumentTypeError(f"no recipe is called {text!r}; {hint}")
    return text
