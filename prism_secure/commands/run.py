"""`prism-secure run`: train, and write a run folder with a report."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from prism_secure.commands.first_checks import require_run_out
from prism_secure.commands.parsing import Commands, add_command, add_config_options, chosen_config

HELP = """\
Train a generator by federated learning of masks, in one process group on this machine.

The run folder keeps everything: config.toml (resolved), ledger.jsonl, metrics.jsonl, samples/, checkpoint/,
model.safetensors and report.html. The same command continues an interrupted run, to the same result; another
configuration for the same folder is refused. Data, weights, settings and the folder are checked before
anything is drawn or charged: a refusal before round 1 leaves no folder, and what a begun run lacks is named.
"""

EXAMPLES = """\
examples:
  prism-secure run --out runs/first                              a thousand clients, measured rounds
  prism-secure run --out runs/tight --set measured.epsilon=1
  prism-secure run --out runs/silo --recipe cross-silo           ten clients; one image is protected
  prism-secure run --out runs/once --recipe one-shot             one noisy sum of moments
  prism-secure run --out runs/prism --recipe prism               PRISM as published: no epsilon
  prism-secure run --out runs/mine --config mine.toml --set federation.rounds=4

`prism-secure config --explain` prints every setting, its default and what it takes.

exit codes: 0 done, 2 configuration, 3 data or weights, 4 run folder, 5 disk, 6 round failed, 130 interrupted,
143 terminated
"""


def add_to(commands: Commands) -> None:
    parser = add_command(commands, "run", "train, and write a run folder with a report", HELP, EXAMPLES)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the run folder, new or to continue"
    )
    parser.add_argument(
        "--track",
        metavar="TRACKER",
        action="append",
        default=[],
        help="also log to tensorboard, wandb or mlflow, if it is installed, or to a module:function of your "
        "own (prism_secure.reporting.trackers shows one); may be repeated",
    )
    add_config_options(parser)
    parser.set_defaults(command=_run, continues=True)


def _run(options: argparse.Namespace, command: str) -> int:
    config, told = chosen_config(options)
    require_run_out(options.out, config)
    from prism_secure.reporting.progress import Display
    from prism_secure.reporting.trackers import Together, tracker
    from prism_secure.rounds.simulation import run  # torch is not imported to say that a key is misspelt

    with contextlib.ExitStack() as open_listeners:
        trackers = [
            open_listeners.enter_context(tracker(kind, options.out, config)) for kind in options.track
        ]
        display = open_listeners.enter_context(Display(record=config.record))
        if told:
            display.note(told)
        finished = run(config, options.out, command=command, listener=Together([display, *trackers]))
    print(f"Report: {finished.report.resolve()}")
    return 0
