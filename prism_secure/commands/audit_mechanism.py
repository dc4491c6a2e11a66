"""`prism-secure audit mechanism`: try to refute what a function is said to protect."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prism_secure.commands.first_checks import require_new_file
from prism_secure.commands.parsing import Commands, add_command
from prism_secure.errors import ConfigError

if TYPE_CHECKING:
    from prism_privacy.audit import Finding, MechanismAudit, Progress

HELP = """\
Try to refute what a function f(input, theta, seed) -> bits is said to protect, from its answers alone.

input is the client's 0/1 bits, or its scores with --input scores; theta is public, shape (d,); seed is an
integer below 2^31 that stands for all randomness of one upload: run * 65536 + client * 256 + round.
The claim: the bits are independent, and 1 with probability p = p_t + min(1, C/|q - p_t|) (q - p_t), where
q = f + (1 - 2f) v, p_t = f + (1 - 2f) theta, and v is the input bits, or sigmoid(scores / temperature).

Three layers look for what is wrong with it: lower bounds on epsilon, goodness of fit, and structure (coins,
clip, state). A mechanism that is as claimed is blamed with probability at most 1 - confidence, all tests
together.
"""

EXAMPLES = """\
examples:
  prism-secure audit mechanism mycode.clients:release --flip 0.25
  prism-secure audit mechanism mycode.clients:release --flip 0.25 --clip 1 --input scores --html audit.html
  prism-secure audit mechanism mycode.clients:release --flip 0.1 --epsilon 9.8 --delta 1e-5 --dim 4096

exit codes: 0 clean, 1 finding, 2 could not check
"""


def add_to(commands: Commands) -> None:
    parser = add_command(commands, "mechanism", "a function that is said to be private", HELP, EXAMPLES)
    parser.add_argument(
        "mechanism", metavar="MODULE:CALLABLE", help="the function; modules of this folder are found too"
    )
    claim = parser.add_argument_group("the claim")
    claim.add_argument("--flip", type=float, required=True, metavar="F", help="flip probability, 0 < F < 0.5")
    claim.add_argument("--clip", type=float, metavar="C", help="L2 clip around p_t; default: no clip")
    claim.add_argument(
        "--epsilon", type=float, metavar="E", help="epsilon of one upload; default: what the accountant says"
    )
    claim.add_argument("--delta", type=float, default=1e-5, metavar="D", help="its delta (default 1e-5)")
    claim.add_argument(
        "--adjacency", choices=("zero_out", "replace_one"), default="zero_out",
        help="what epsilon compares with (default zero_out)",
    )  # fmt: skip
    claim.add_argument(
        "--input", choices=("bits", "scores"), default="bits", help="what the function takes (default bits)"
    )
    claim.add_argument(
        "--clip-space", choices=("probability", "score"), default="probability", help="where the clip acts"
    )
    claim.add_argument(
        "--temperature", type=float, default=1.0, metavar="T", help="of the scores (default 1)"
    )
    effort = parser.add_argument_group("the audit")
    effort.add_argument(
        "--dim", type=int, metavar="D", help="bits of an upload (default: enough for all checks)"
    )
    effort.add_argument(
        "--trials", type=int, default=2048, metavar="N", help="calls of one probe (default 2048)"
    )
    effort.add_argument("--confidence", type=float, default=0.99, metavar="P", help="default 0.99")
    effort.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of the auditor's choices (default 0)"
    )
    effort.add_argument("--json", type=Path, metavar="FILE", help="everything, for programs")
    effort.add_argument("--html", type=Path, metavar="FILE", help="one self-contained page, for people")
    parser.set_defaults(command=_audit)


def _audit(options: argparse.Namespace, command: str) -> int:
    for path, option in ((options.json, "--json"), (options.html, "--html")):
        require_new_file(path, option)
    mechanism = load_callable(options.mechanism)
    from prism_privacy import AuditError, InvalidParameter
    from prism_privacy.audit import Claim, audit_mechanism

    try:
        claim = Claim(
            options.flip, options.clip, options.input, options.epsilon, options.delta, options.adjacency,
            options.clip_space, options.temperature,
        )  # fmt: skip
        with _progress() as progress:
            result = audit_mechanism(
                mechanism, claim, dim=options.dim, trials=options.trials, confidence=options.confidence,
                seed=options.seed, progress=progress,
            )  # fmt: skip
    except (AuditError, InvalidParameter) as error:
        raise ConfigError(f"could not check {options.mechanism}: {error}") from error
    print(describe(options.mechanism, result))
    for path, content in ((options.json, _json), (options.html, _html)):
        if path is not None:
            from prism_secure.storage import make_folder, write_atomic

            make_folder(path.parent)
            write_atomic(path, content(options.mechanism, command, result).encode())
            print(f"Report: {path.resolve()}")
    return {"clean": 0, "finding": 1, "could not check": 2}[result.verdict.value]


def load_callable(name: str) -> Callable[..., Any]:
    """The callable that `module:name` names, the current folder first in the search.

    Raises:
        ConfigError: not of that form, no such module or name, the module fails, or not callable.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ConfigError(f"expected MODULE:CALLABLE, such as mycode.clients:release, got {name!r}")
    if module.endswith(".py"):
        dotted = module.removesuffix(".py").removeprefix("./").replace("/", ".")
        raise ConfigError(f"expected MODULE:CALLABLE, got the file {module!r}: write {dotted}:{attribute}")
    if os.getcwd() not in sys.path:  # noqa: PTH109 - sys.path holds strings
        sys.path.insert(0, os.getcwd())  # noqa: PTH109
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:
        raise ConfigError(f"could not import {module!r}: {type(error).__name__}: {error}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{module!r} has no {attribute!r}")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"{name} is not callable, it is a {type(found).__name__}")
    named: Callable[..., Any] = found
    return named


def _progress() -> AbstractContextManager[Progress | None]:
    """A bar with the time that is left, on a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    return _Bar(console) if console.is_terminal else nullcontext()


class _Bar(AbstractContextManager["Progress"]):
    def __init__(self, console: Any) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = BarColumn(), MofNCompleteColumn(), TextColumn("calls, left"), TimeRemainingColumn()
        self._bar = Progress(TextColumn("{task.description}"), *columns, console=console, transient=True)
        self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self._advance

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _advance(self, done: int, total: int, probe: str) -> None:
        self._bar.update(self._task, completed=done, total=total, description=probe)


def describe(name: str, result: MechanismAudit) -> str:
    """What to read first, as text: the verdict, each kind of finding once, bounds, what was not checked."""
    claim, error = result.claim, 1.0 - result.confidence
    found = [finding for finding in strongest(result) if not finding.follows]
    follow = [finding for finding in strongest(result) if finding.follows]
    epsilon = claim.epsilon_at(result.dim)
    clip = "no clip" if claim.clip is None else f"C = {claim.clip:g} ({claim.clip_space})"
    lines = [
        f"{name}: {result.verdict.value}" + (f" ({len(found)} kinds)" if len(found) > 1 else ""),
        f"claimed: f = {claim.flip:g}, {clip}, ε = {epsilon:.4g} at δ = {claim.delta:g} for one "
        f"upload of {result.dim:,} bits ({claim.adjacency})",
    ]
    for finding in found:
        lines += [
            "",
            f"{finding.layer.value}: {finding.name}",
            *(f"    {text}" for text in (finding.meaning, finding.evidence, finding.sure)),
        ]
    if follow:
        lines += ["", f"which follows from {follow[0].follows}, and would not be found at that rate:"]
        lines += [f"    {finding.layer.value}: {finding.name}" for finding in follow]
    lines += ["", "ε is at least, whatever the claim says:"]
    lines += [
        f"    {bound.epsilon:<9.4g} of one {bound.unit:<10} (claimed {bound.claimed:.4g} at δ = "
        f"{bound.delta:g}), {bound.confidence:.2%} sure {bound.assumption}"
        for bound in result.bounds
    ]
    lines += [f"\nnot checked: {reason}" for reason in result.unchecked]
    lines += [
        "",
        f"{len(result.checks)} tests and {len(result.bounds)} bounds from {result.calls:,} calls in "
        f"{result.seconds:.1f} s. An honest mechanism is blamed with probability at most {error:.2g}; a "
        f"rate of flips that is off by {result.resolution:.5f} is found 19 times in 20.",
    ]
    return "\n".join(lines)


def strongest(result: MechanismAudit) -> list[Finding]:
    """One finding of each name: the surest."""
    first: dict[tuple[str, str], Finding] = {}
    for finding in result.findings:
        first.setdefault((finding.layer, finding.name), finding)
    return list(first.values())


def _json(name: str, command: str, result: MechanismAudit) -> str:
    page = {"mechanism": name, "command": command, **result.as_dict()}
    return json.dumps(page, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _html(name: str, command: str, result: MechanismAudit) -> str:
    from prism_privacy.audit import format_log_p
    from prism_secure.audit.pages import render

    return render(
        "mechanism.html.jinja",
        name=name,
        command=command,
        result=result,
        findings=strongest(result),
        log_p=format_log_p,
    )
