"""What the commands' parsers have in common."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias

from prism_secure.config import Config, load_config
from prism_secure.config.recipes import DEFAULT, NAMES

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
        choices=NAMES,
        help=f"settings that go together; without --config {DEFAULT}",
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


def chosen_config(options: argparse.Namespace) -> Config:
    """The configuration that the options of `add_config_options` come to.

    Raises:
        ConfigError: see `load_config`.
    """
    recipe = options.recipe or (DEFAULT if options.config is None else None)
    return load_config(options.config, options.overrides, recipe=recipe)
