"""The command line: `prism-secure run | report | config | ledger | bench`, with `--help` that teaches."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_type_hints

import msgspec

from prism_secure.config import Config, describe, dump_config, load_config
from prism_secure.errors import ConfigError, PrismError
from prism_secure.wording import format_delta, format_epsilon

INTERRUPTED = 130

RUN_HELP = """\
Train a generator by federated learning of masks, in one process group on this machine.

The run folder keeps everything: config.toml (resolved), ledger.jsonl, metrics.jsonl, samples/, checkpoint/,
model.safetensors and report.html. The same command continues an interrupted run, to the same result; another
configuration for the same folder is refused.
"""

RUN_EXAMPLES = """\
examples:
  prism-secure run --out runs/first                              the default recipe
  prism-secure run --out runs/shards --set data.partition=shards
  prism-secure run --out runs/plain --set privacy.flip=0         no noise: better images, epsilon inf
  prism-secure run --out runs/mine --config mine.toml --set federation.rounds=4

`prism-secure config --explain` prints every setting, its default and what it takes.

exit codes: 0 done, 2 configuration, 3 data or weights, 4 run folder, 5 disk, 6 round failed, 130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (see `prism_secure.errors`)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    options, options.rest = parser.parse_known_args(arguments)
    if options.rest and options.command is not _bench_secure_sum:
        parser.error(f"unrecognized arguments: {shlex.join(options.rest)}")
    try:
        return int(options.command(options, shlex.join(["prism-secure", *arguments])))
    except PrismError as error:
        print(f"prism-secure: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("prism-secure: interrupted; the same command continues where it stopped", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="prism-secure",
        description="Federated learning of binary masks, with a secure sum and a privacy accountant.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = _command(commands, "run", "train, and write a run folder with a report", RUN_HELP, RUN_EXAMPLES)
    run.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the run folder, new or to continue"
    )
    _add_config_options(run)
    run.set_defaults(command=_run)

    report = _command(commands, "report", "write a run folder's report.html again", None, None)
    report.add_argument("run", type=Path, metavar="DIR", help="a run folder, finished or not")
    report.set_defaults(command=_report)

    config = _command(
        commands,
        "config",
        "print the resolved configuration",
        "Print the configuration that `run` would use, as TOML: a recipe to start from. With --explain, what "
        "each setting takes.",
        None,
    )
    config.add_argument("--explain", action="store_true", help="say what each setting takes")
    _add_config_options(config)
    config.set_defaults(command=_config)

    ledger = _command(commands, "ledger", "check a ledger of what was released", None, None)
    verify = _command(
        ledger.add_subparsers(required=True, metavar="COMMAND"),
        "verify",
        "check the chain and the signatures of a ledger",
        "Check that no line of a ledger was changed, removed or reordered, and that its writer signed each. "
        "Exit code 0: intact, 1: not, or not to be told.",
        None,
    )
    verify.add_argument("file", type=Path, metavar="FILE", help="a ledger.jsonl")
    verify.add_argument("--key", metavar="HEX", help="the writer's Ed25519 public key, if you know it")
    verify.add_argument("--head", metavar="HEX", help="a head that you wrote down: it must be on the chain")
    verify.set_defaults(command=_verify)

    bench = _command(commands, "bench", "measure what the parts cost, beside others'", None, None)
    secure_sum = bench.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "secure-sum",
        help="the secure sum, beside Flower's SecAgg+ where flwr is installed",
        add_help=False,  # the benchmark explains its own options
    )
    secure_sum.set_defaults(command=_bench_secure_sum)
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    description: str | None,
    epilog: str | None,
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=summary,
        description=description or summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_config_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="a TOML file; left out: the default recipe"
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one setting; may be repeated",
    )


def _run(options: argparse.Namespace, command: str) -> int:
    config = load_config(options.config, options.overrides)
    from prism_secure.federation import run  # torch is not imported to say that a key is misspelt
    from prism_secure.progress import Display

    with Display() as display:
        report = run(config, options.out, command=command, listener=display)
    print(f"Report: {report.resolve()}")
    return 0


def _report(options: argparse.Namespace, command: str) -> int:
    from prism_secure.report import write_report

    print(f"Report: {write_report(options.run).resolve()}")
    return 0


def _config(options: argparse.Namespace, command: str) -> int:
    config = load_config(options.config, options.overrides)
    if not options.explain:
        print(dump_config(config), end="")
        return 0
    for section, kind in get_type_hints(Config).items():
        print(f"[{section}]  {(kind.__doc__ or '').strip()}")
        values = msgspec.structs.asdict(getattr(config, section))
        for key, hint in get_type_hints(kind).items():
            value = "left out" if values[key] is None else repr(values[key])
            print(f"  {key} = {value}    ({describe(hint)})")
    return 0


def _verify(options: argparse.Namespace, command: str) -> int:
    from prism_privacy import LedgerError, PrivacyError
    from prism_privacy.ledger import verify_ledger

    if not options.file.exists():
        raise ConfigError(f"{options.file}: no such ledger")
    try:
        report = verify_ledger(options.file, options.key, head=options.head)
    except LedgerError as error:
        print(f"prism-secure: {error}", file=sys.stderr)
        return 1
    except PrivacyError as error:
        raise ConfigError(str(error)) from None
    if not report.end_checked and options.head is None:
        print(
            f"prism-secure: {options.file.name}.head is missing, so lines may have been cut off the end; "
            "put it back, or name a head that you wrote down with --head",
            file=sys.stderr,
        )
        return 1
    print(f"intact: {len(report.entries)} rounds charged, head {report.head}")
    if any(entry.coins == "test" for entry in report.entries):
        print("test coins: whoever knows them sees through the noise, so no epsilon is claimed")
    owner = "the key that you gave" if report.pinned else "the key that the file itself names"
    print(f"signed by {report.public_key}, {owner}")
    for (view, adjacency), spent in sorted(
        (report.entries[-1].epsilon or {}).items() if report.entries else ()
    ):
        print(f"epsilon to date, {view.value}, {adjacency.value}: {format_epsilon(spent.to_date)}")
    if report.entries:
        print(
            f"at delta = {format_delta(report.entries[-1].delta)}, for everything that one client contributes"
        )
    return 0


def _bench_secure_sum(options: argparse.Namespace, command: str) -> int:
    from prism_crypto.bench import main as bench

    return bench(options.rest)


if __name__ == "__main__":
    sys.exit(main())
