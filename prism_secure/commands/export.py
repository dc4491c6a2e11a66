"""`prism-secure export`: the model of a run as one file, with a card that says what it is."""

from __future__ import annotations

import argparse
from pathlib import Path

from prism_secure.commands.first_checks import require_new_file, require_run
from prism_secure.commands.parsing import Commands, add_command
from prism_secure.errors import ConfigError

HELP = """\
Write the model of a finished run as one file: the network's sizes, the seed of its weights, one bit for each,
and a card with data, epsilon by unit and view, quality, licences and how it was made. `prism-secure generate`
needs nothing but this file. The card is written as Markdown beside it, too.
"""

EXAMPLES = """\
examples:
  prism-secure export runs/default --out fashion.safetensors
  prism-secure export runs/mine --out mine.safetensors --licence CC-BY-4.0 --data-name "chest X-rays"
  prism-secure export runs/default --out fashion.safetensors --onnx fashion.onnx     for other runtimes

exit codes: 0 done, 2 options, 4 no run folder, or without a model yet, or its ledger is not whole or foreign,
5 disk, 7 the run's model is damaged
"""


def add_to(commands: Commands) -> None:
    parser = add_command(commands, "export", "a run's model as one file, with a model card", HELP, EXAMPLES)
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="the folder of a finished run")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the model, *.safetensors")
    parser.add_argument(
        "--card", type=Path, metavar="FILE", help="the card as Markdown; default: beside the model, *.md"
    )
    parser.add_argument(
        "--licence", default="not stated", metavar="TEXT", help="what others may do with the model"
    )
    parser.add_argument(
        "--data-name", metavar="TEXT", help="what the images are; default: what the source is called"
    )
    parser.add_argument(
        "--data-licence", metavar="TEXT", help="of the data; default: that of the source where it is known"
    )
    parser.add_argument(
        "--onnx", type=Path, metavar="FILE", help="write the network as ONNX, too: dense weights, no seed"
    )
    parser.set_defaults(command=_export)


def _export(options: argparse.Namespace, command: str) -> int:
    require_run(options.run)
    for path, option in ((options.out, "--out"), (options.card, "--card"), (options.onnx, "--onnx")):
        require_new_file(path, option)
    if options.out.suffix in (".onnx", ".png"):
        raise ConfigError(f"--out is the model, *.safetensors, got {options.out}")
    from prism_secure.model.model_card import size_words
    from prism_secure.run_folder.export import export_run
    from prism_secure.storage import make_folder, write_atomic

    if options.onnx is not None:  # before anything is written
        from prism_secure.model.onnx_export import require_packages

        require_packages()
    card = options.card or options.out.with_suffix(".md")
    paths = [path for path in (options.out, card, options.onnx) if path is not None]
    if len({path.resolve() for path in paths}) < len(paths):
        raise ConfigError(f"model, card and ONNX need a file each, got {', '.join(map(str, paths))}")
    for path in paths:
        make_folder(path.parent)
    model = export_run(
        options.run,
        options.out,
        licence=options.licence,
        data_name=options.data_name,
        data_licence=options.data_licence,
    )
    assert model.card is not None
    write_atomic(card, model.card.markdown().encode())
    print(f"Model: {options.out}, {size_words(options.out.stat().st_size, model.stored, len(model.mask))}")
    print(f"Card: {card}")
    if options.onnx is not None:
        from prism_secure.model.onnx_export import write_onnx

        write_onnx(options.onnx, model.generator(), model.card)
        print(f"ONNX: {options.onnx}")
    return 0
