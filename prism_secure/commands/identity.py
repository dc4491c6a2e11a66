"""`prism-secure identity create|enroll|list`: keys, rosters and policies of a federation across machines."""

from __future__ import annotations

import argparse
from pathlib import Path

from prism_secure.commands.parsing import Commands, add_command

ENROLL = """\
Pin the members of a federation and what this client demands, and start its count of sessions.

MEMBER is a line ID:PUBLIC-KEY, as `identity create` prints it, or a file of such lines (member.txt). They
must reach each client by a way that the server does not control: a server that chooses the keys can invent
clients. All parties compare the roster's digest that this command prints, by telephone for instance.
"""

EXAMPLES = """\
examples:
  prism-secure identity create north --id 0
  prism-secure identity enroll north --federation trial-1 --min-survivors 3 north.txt east.txt south.txt
  prism-secure identity enroll server --federation trial-1 --server north.txt east.txt south.txt
  prism-secure identity list north
"""


def add_to(commands: Commands) -> None:
    parser = add_command(
        commands, "identity", "create, enroll and list the clients of a federation", epilog=EXAMPLES
    )
    actions = parser.add_subparsers(required=True, metavar="COMMAND")
    create = add_command(
        actions, "create", "make a client's key; prints the line that the others need to enroll it"
    )
    _add_folder(create)
    create.add_argument("--id", type=int, required=True, metavar="N", help="its number, its own for ever")
    create.set_defaults(command=_create)
    enroll = add_command(
        actions, "enroll", "pin the federation's members and this client's policy", ENROLL, EXAMPLES
    )
    _add_folder(enroll)
    enroll.add_argument("members", nargs="+", metavar="MEMBER", help="ID:PUBLIC-KEY, or a file of such lines")
    enroll.add_argument("--federation", required=True, metavar="NAME", help="the federation's name")
    enroll.add_argument(
        "--server", action="store_true", help="enroll the server, which has no key and no policy"
    )
    enroll.add_argument(
        "--min-survivors",
        type=int,
        metavar="N",
        help="fewest clients whose sum may open; default: all members",
    )
    enroll.add_argument(
        "--colluders", type=int, default=0, metavar="N", help="clients assumed to side with the server"
    )
    enroll.add_argument(
        "--semi-honest",
        action="store_true",
        help="also take part in sessions against a server that only listens",
    )
    enroll.add_argument(
        "--hybrid-keys",
        action="store_true",
        help="take part only in sessions whose keys rest on ML-KEM-768 too (secure_sum.suite)",
    )
    enroll.set_defaults(command=_enroll)
    show = add_command(actions, "list", "show a folder's members, policy and count of sessions")
    _add_folder(show)
    show.set_defaults(command=_list)


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the client's (or server's) own folder")


def _create(options: argparse.Namespace, command: str) -> int:
    from prism_secure.run_folder.enrolment import create_identity

    print(create_identity(options.folder, options.id))
    return 0


def _enroll(options: argparse.Namespace, command: str) -> int:
    from prism_crypto import InputError, Mode, Policy
    from prism_secure.errors import ConfigError
    from prism_secure.run_folder.enrolment import enroll, read_members

    roster = read_members(options.members)
    survivors = len(roster) if options.min_survivors is None else options.min_survivors
    try:
        policy = Policy(
            min_survivors=survivors,
            min_cohort=survivors - options.colluders,
            colluders=options.colluders,
            mode=Mode.SEMI_HONEST if options.semi_honest else Mode.ACTIVE,
            numbered_rounds=True,
            suite="x25519+ml-kem-768" if options.hybrid_keys else "x25519",
        )
    except InputError as error:
        raise ConfigError(f"no policy: {error}") from None
    enroll(options.folder, options.federation, roster, None if options.server else policy)
    print(f"{options.folder}: enrolled in {options.federation}, {len(roster)} members")
    print(f"roster {roster.hash.hex()}")
    return 0


def _list(options: argparse.Namespace, command: str) -> int:
    from prism_secure.run_folder.enrolment import Enrolment, read_membership

    federation, roster = read_membership(options.folder)
    enrolment = Enrolment.load(options.folder) if (options.folder / "identity.json").exists() else None
    print(f"federation {federation}\nroster {roster.hash.hex()}")
    for client in roster.ids:
        own = enrolment is not None and client == enrolment.identity.client_id
        print(f"{client}:{roster.public_key(client).hex()}{'  (this client)' if own else ''}")
    if enrolment is not None:
        policy = enrolment.policy
        print(
            f"policy: {policy.mode.value}, min_survivors {policy.min_survivors}, min_cohort "
            f"{policy.min_cohort}, colluders {policy.colluders}"
        )
        print(f"last session {enrolment.counter.last}, last upload in round {enrolment.counter.last_round}")
    return 0
