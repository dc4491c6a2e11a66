"""The command line: reads the arguments, runs one command, turns errors into one line and an exit code."""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from prism_secure.commands import (
    audit,
    bench,
    compare,
    config,
    demo,
    doctor,
    export,
    generate,
    identity,
    init,
    ledger,
    listing,
    report,
    run,
    sweep,
)
from prism_secure.errors import PrismError, StorageError

COMMANDS = (
    demo,
    run,
    sweep,
    report,
    compare,
    listing,
    export,
    generate,
    audit,
    config,
    ledger,
    identity,
    bench,
    init,
    doctor,
)
"""In the order of `--help`."""

atexit.register(gc.freeze)
"""Else the interpreter searches all that torch and its kin are made of for garbage before it ends: 0.2 s."""

INTERRUPTED = 130
TERMINATED = 143
"""128 + SIGTERM, as a shell has it."""
UNREAD = 141
"""Nobody reads the output any longer: 128 + SIGPIPE, as a shell has it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (see `prism_secure.errors`)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = command_parser()
    options, rest = parser.parse_known_args(arguments)
    options.rest = rest
    if options.rest and not options.takes_rest:
        parser.error(f"unrecognized arguments: {shlex.join(options.rest)}")
    try:
        with _told_to_end():
            code = int(options.command(options, shlex.join(["prism-secure", *arguments])))
        if sys.stdout is not None:  # closed by whoever started us
            sys.stdout.flush()  # here, and not at exit, a reader that is gone can be told from an error
        return code
    except BrokenPipeError:  # `| head` has seen enough
        _drop_output()
        return UNREAD
    except OSError as error:
        if not _output_is_refused():
            raise
        print(f"prism-secure: the output cannot be written: {error.strerror}", file=sys.stderr)
        _drop_output()
        return StorageError.exit_code
    except PrismError as error:
        print(f"prism-secure: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as error:
        ended, code = (
            ("terminated", TERMINATED) if isinstance(error, _Terminated) else ("interrupted", INTERRUPTED)
        )
        then = "continues where it stopped" if options.continues else "starts again from the beginning"
        print(f"prism-secure: {ended}; the same command {then}", file=sys.stderr)
        return code


def _output_is_refused() -> bool:
    """Whether standard output takes no more, as on a full disk: tried with a line's end."""
    try:
        sys.stdout.flush()
        os.write(sys.stdout.fileno(), b"\n")
    except (AttributeError, ValueError):  # closed by whoever started us, or no file at all
        return False
    except OSError:
        return True
    return False


def _drop_output() -> None:
    """The interpreter flushes once more at its exit: into nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Terminated(KeyboardInterrupt):
    """SIGTERM. It unwinds what Ctrl-C does, or the workers' semaphores would be left behind."""


@contextmanager
def _told_to_end() -> Iterator[None]:
    """Turn SIGTERM into an exception, unless somebody else has taken it."""

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not cut the unwinding short
        raise _Terminated

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class _Parser(argparse.ArgumentParser):
    """Answers a missing command with the list of commands, where argparse only says that one is required."""

    def error(self, message: str) -> NoReturn:
        if message.endswith(("are required: COMMAND", "are required: SUBJECT")):
            self.print_help(sys.stderr)
            self.exit(2, f"\n{self.prog}: name one of these commands; `{self.prog} NAME --help` says more\n")
        super().error(message)


def command_parser() -> argparse.ArgumentParser:
    """Of every command; the reference is made from it."""
    parser = _Parser(
        prog="prism-secure",
        description="Federated generative models with secure aggregation and differential privacy.",
    )
    parser.set_defaults(takes_rest=False, continues=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add_to(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
