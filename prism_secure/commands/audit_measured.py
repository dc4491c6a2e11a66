"""`prism-secure audit measured`: the client of measured rounds, as a black box."""

from __future__ import annotations

import argparse

from prism_secure.commands.parsing import Commands, add_command

HELP = """\
Ask this program's client of measured rounds what only an auditor would ask, and hold what it answers against
the definition, computed by other code. The client is real, its images are made up: no run is needed, and
nobody's images are read.

  answers   records far outside the clip, too many, of one class, alone: the answer is that of the definition
  moves     one image, replaced, moves the bits no further than epsilon is for
  bits      they are drawn with these probabilities
  coins     another round, client, theta or question has other coins
  public    with the same sums, images change nothing of what is asked, printed or kept

A correct client is blamed with probability at most 1%, all statistical tests together.
"""

EXAMPLES = """\
examples:
  prism-secure audit measured

exit codes: 0 clean, 1 finding
"""


def add_to(commands: Commands) -> None:
    parser = add_command(
        commands, "measured", "the client of measured rounds, against its definition", HELP, EXAMPLES
    )
    parser.set_defaults(command=_measured)


def _measured(options: argparse.Namespace, command: str) -> int:
    from prism_secure.audit.measured_client import audit_measured_client
    from prism_secure.audit.run_audit import told

    answers = audit_measured_client()
    for line in told(answers):
        print(line)
    found = sum(answer.outcome == "finding" for answer in answers)
    print(f"{found} of {len(answers)} checks have findings" if found else "clean: as the definition has it")
    return 1 if found else 0
