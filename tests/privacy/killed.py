"""Runs something in forked children, each killed with SIGKILL in the middle of it; a program of its own.

    python killed.py MODULE FUNCTION KILLS ARGUMENTS...

FUNCTION(*ARGUMENTS) is called in a child. What it writes to descriptor 1 is what it has acknowledged; the
k-th child is killed after 1 + 3k such lines. Everything the children wrote is printed, child by child, each
followed by a line "killed". The parent imports once and forks, because importing is slow.
"""

import importlib
import os
import signal
import sys


def main() -> None:
    module, function, kills, *arguments = sys.argv[1:]
    target = getattr(importlib.import_module(module), function)
    for kill in range(int(kills)):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            os.dup2(writer, 1)
            target(*arguments)
            os._exit(1)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            lines = [pipe.readline() for _ in range(1 + 3 * kill)]
            os.kill(child, signal.SIGKILL)
            lines += pipe.readlines()
        os.waitpid(child, 0)
        sys.stdout.buffer.write(b"".join(line for line in lines if line.endswith(b"\n")) + b"killed\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
