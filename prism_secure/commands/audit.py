"""`prism-secure audit`: look for what is wrong with a run, a mechanism, or what was spent in total."""

from __future__ import annotations

import argparse
from pathlib import Path

from prism_secure.commands import audit_measured, audit_mechanism, audit_one_run
from prism_secure.commands.first_checks import require_file, require_new_file, require_run
from prism_secure.commands.parsing import Commands, add_command
from prism_secure.errors import ConfigError

RUN_HELP = """\
Check a run folder for somebody who does not trust the trainer: the ledger's chain and signatures; every
epsilon, computed again by independent code; settings, cohorts, survivors and rounds against each
other; the model against the last round; and, where the clients' private folders are there, their coins.

Nothing in the folder is changed, except that audit.json is written into it.
"""

RUN_EXAMPLES = """\
examples:
  prism-secure audit run runs/first
  prism-secure audit run runs/first --key 5f1c...   the key that the ledger's writer gave you
  prism-secure audit run runs/first --html audit.html --json audit.json

exit codes: 0 clean, 1 at least one finding, 2 something that should be there could not be checked
"""


BUDGET_HELP = """\
Add up what many runs over the same owners' data spent, and compare it with limits. Releases are composed over
all ledgers as over the rounds of one; no epsilons are added where the curves behind them are known.

The budget file, as many [[limit]] as there are limits:

  [[limit]]
  unit = "client"            # or "record"
  view = "sum"               # or "upload"; none for a record
  adjacency = "zero_out"     # or "replace_one"; for a record "swap" or "add_remove"
  epsilon = 8.0
  delta = 1e-5
  data = "fashion_mnist"     # left out: each data set
  client = 3                 # left out: each client

  [[ledger]]                 # whose data a ledger is about that lies in no run folder
  path = "hospital-a/ledger.jsonl"
  data = "hospital-a"
  client = 0
"""

BUDGET_EXAMPLES = """\
examples:
  prism-secure audit budget --budget budget.toml runs/*
  prism-secure audit budget --budget budget.toml runs/a hospital-a/ledger.jsonl --html budget.html

exit codes: 0 within all limits, 1 over, 2 could not check, or OPEN: over if ledgers have the same images, and
nothing decides whether they do
"""


MEMBERSHIP_HELP = """\
Draw what epsilon(SUM) and epsilon(UPLOAD) mean: how well the best attacker tells whether a client put
anything of its own into the rounds, and how many bits of its mask it recovers, from the opened sums and from
uploads, beside the most that the certified epsilon leaves it. Worlds are simulated from the settings; no run
is needed.
"""

MEMBERSHIP_EXAMPLES = """\
examples:
  prism-secure audit membership --flip 0.25 --clip 1 --cohort 100 --rounds 20 --out membership.html
  prism-secure audit membership --flip 0.25 --clip 1 --cohort 10 --out membership.png
"""


def add_to(commands: Commands) -> None:
    parser = add_command(commands, "audit", "look for what is wrong with a run or a mechanism")
    audits = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(audits)
    audit_mechanism.add_to(audits)
    audit_measured.add_to(audits)
    audit_one_run.add_to(audits)
    _add_budget(audits)
    _add_membership(audits)


def _add_run(audits: Commands) -> None:
    parser = add_command(
        audits, "run", "check a run folder: ledger, epsilons, cohorts, model", RUN_HELP, RUN_EXAMPLES
    )
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="a run folder, finished or not")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report as one page")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON")
    parser.add_argument("--key", metavar="HEX", help="the ledger writer's Ed25519 public key, if you know it")
    parser.add_argument("--head", metavar="HEX", help="a head that you wrote down: it must be on the chain")
    parser.add_argument(
        "--no-replay", action="store_true", help="do not repeat a client's first round (seconds of training)"
    )
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace, command: str) -> int:
    require_run(options.run, error=ConfigError)  # exit code 2: could not check
    _require_new_files(options)
    from prism_secure.audit.pages import write_run_page
    from prism_secure.audit.run_audit import audit_run, summary, write_json

    audit = audit_run(options.run, key=options.key, head=options.head, replay=not options.no_replay)
    for line in summary(audit):
        print(line)
    write_json(audit, options.run / "audit.json")
    if options.json:
        write_json(audit, options.json)
    if options.html:
        write_run_page(audit, options.html)
        print(f"Report: {options.html.resolve()}")
    return audit.exit_code


def _require_new_files(options: argparse.Namespace) -> None:
    """The report's files can be written: said, and their folders made, before the audit takes its time."""
    from prism_secure.storage import make_folder

    for path, option in ((options.json, "--json"), (options.html, "--html")):
        require_new_file(path, option)
        if path is not None:
            make_folder(path.parent)


def _add_budget(audits: Commands) -> None:
    parser = add_command(
        audits, "budget", "add up what many runs spent, against limits", BUDGET_HELP, BUDGET_EXAMPLES
    )
    parser.add_argument(
        "ledgers", type=Path, nargs="+", metavar="RUN_DIR|LEDGER", help="run folders or ledgers"
    )
    parser.add_argument("--budget", type=Path, required=True, metavar="FILE", help="the limits, as TOML")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report as one page")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the totals as JSON")
    parser.set_defaults(command=_budget)


def _budget(options: argparse.Namespace, command: str) -> int:
    require_file(options.budget, "a budget file")
    from prism_secure.audit.budget_file import load_budget

    budget = load_budget(options.budget)
    for path in options.ledgers:
        if not path.is_file():
            require_run(path, error=ConfigError)
    _require_new_files(options)
    import msgspec

    from prism_privacy.ledger.entry import json_safe
    from prism_secure.audit.budget import audit_budget
    from prism_secure.audit.pages import write_budget_page
    from prism_secure.audit.spent_ledgers import read_ledgers
    from prism_secure.errors import RunFolderError
    from prism_secure.storage import write_atomic
    from prism_secure.wording import format_delta, format_epsilon

    try:
        ledgers = read_ledgers(options.ledgers, budget.ledger, options.budget.parent)
        accounts = audit_budget(ledgers, budget.limit)
    except RunFolderError as error:
        raise ConfigError(str(error)) from None  # exit code 2: could not check
    for account in accounts:
        limit, many = (
            account.limit,
            f"{len(account.ledgers)} ledger{'' if len(account.ledgers) == 1 else 's'}",
        )
        # A record's release is made once, however many rounds follow from it.
        charges = f"{account.charges} charge{'' if account.charges == 1 else 's'} in {many}"
        if_same = account.epsilon_if_same
        verdict = "OVER" if account.over else "OPEN" if account.open else "ok"
        print(
            f"{verdict:>6}  {account.data}, {account.clients}: {limit.words}: "
            f"epsilon {format_epsilon(account.epsilon)} of {format_epsilon(limit.epsilon)} at delta = "
            f"{format_delta(limit.delta)}, {charges if limit.unit == 'client' else f'in {many}'}"
            + (
                ""
                if if_same is None
                else f"; {format_epsilon(if_same)} if undecided ledgers have the same images"
            )
        )
    for note in dict.fromkeys(note for account in accounts for note in account.notes):
        print(f"        {note}")
    if options.json:
        told = json_safe(
            [
                msgspec.to_builtins(account) | {"over": account.over, "open": account.open}
                for account in accounts
            ],
            nan=True,
        )
        write_atomic(options.json, msgspec.json.format(msgspec.json.encode(told)) + b"\n")
    if options.html:
        write_budget_page(accounts, ledgers, options.html)
        print(f"Report: {options.html.resolve()}")
    over, undecided = (any(getattr(account, name) for account in accounts) for name in ("over", "open"))
    return 1 if over else 2 if undecided else 0


def _add_membership(audits: Commands) -> None:
    parser = add_command(
        audits, "membership", "draw how well a client can be told apart", MEMBERSHIP_HELP, MEMBERSHIP_EXAMPLES
    )
    parser.add_argument(
        "--flip", type=float, required=True, metavar="F", help="flip probability, from 1e-15 to below 0.5"
    )
    parser.add_argument("--clip", type=float, required=True, metavar="C", help="L2 clip of the probabilities")
    parser.add_argument("--cohort", type=int, required=True, metavar="N", help="honest clients in every sum")
    parser.add_argument("--rounds", type=int, default=1, metavar="T", help="rounds (default 1)")
    parser.add_argument(
        "--theta", type=float, default=0.5, metavar="P", help="the public point, in (0, 1) (default 0.5)"
    )
    parser.add_argument("--delta", type=float, default=1e-5, metavar="D", help="where epsilon is stated")
    parser.add_argument("--worlds", type=int, default=100_000, metavar="W", help="worlds of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation; nothing private is in it")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a .html, .png or .svg file")
    parser.set_defaults(command=_membership)


def _membership(options: argparse.Namespace, command: str) -> int:
    if options.out.suffix not in (".html", ".png", ".svg"):
        raise ConfigError(f"--out must end in .html, .png or .svg, got {options.out}")
    require_new_file(options.out, "--out")
    if options.worlds < 1000:
        raise ConfigError(f"--worlds must be at least 1000, got {options.worlds}")
    from prism_privacy import PrivacyError
    from prism_privacy.audit.membership import Membership
    from prism_secure.audit.membership_page import attack, write_membership
    from prism_secure.storage import make_folder

    make_folder(options.out.parent)
    try:
        worlds = Membership(options.flip, options.clip, options.cohort, options.rounds, options.theta)
        found = attack(worlds, count=options.worlds, seed=options.seed, delta=options.delta)
    except PrivacyError as error:
        raise ConfigError(str(error)) from None
    write_membership(found, options.out, command)
    print(f"Picture: {options.out.resolve()}")
    return 0
