"""`prism-secure config`: the resolved configuration, a recipe to start from."""

from __future__ import annotations

import argparse
import textwrap
from typing import get_type_hints

import msgspec

from prism_secure.commands.parsing import Commands, add_command, add_config_options
from prism_secure.config import Config, describe, dump_config, load_config, meanings


def add_to(commands: Commands) -> None:
    parser = add_command(
        commands,
        "config",
        "print the resolved configuration",
        "Print the configuration that `run` would use, as TOML: a recipe to start from. With --explain, what "
        "each setting means and takes.",
    )
    parser.add_argument("--explain", action="store_true", help="say what each setting means and takes")
    add_config_options(parser)
    parser.set_defaults(command=_config)


def _config(options: argparse.Namespace, command: str) -> int:
    config = load_config(options.config, options.overrides)
    if not options.explain:
        print(dump_config(config), end="")
        return 0
    for section, kind in get_type_hints(Config).items():
        print(f"[{section}]\n{_wrapped(kind.__doc__ or '', '# ')}")
        values = msgspec.structs.asdict(getattr(config, section))
        for key, hint in get_type_hints(kind).items():
            value = "left out" if values[key] is None else repr(values[key])
            print(f"  {key} = {value}    ({describe(hint)})")
            print(_wrapped(meanings()[section, key], "      "))
        print()
    return 0


def _wrapped(text: str, indent: str) -> str:
    return textwrap.fill(" ".join(text.split()), 100, initial_indent=indent, subsequent_indent=indent)
