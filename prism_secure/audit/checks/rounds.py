"""Rounds on disk against rounds accounted, and how the run ended."""

from __future__ import annotations

import re

from prism_privacy import Outbox
from prism_secure.audit.evidence import Evidence
from prism_secure.audit.findings import Notebook, Unchecked


def rounds(evidence: Evidence, notes: Notebook) -> None:
    """Was everything charged that was released?"""
    if not evidence.charges and not evidence.records:
        raise Unchecked("nothing was charged and no round was finished yet", expected=True)
    charged = len(evidence.charges)
    numbers = {entry.round for entry in evidence.charges}
    aborted = sum(entry.kind == "aborted" for entry in evidence.charges)
    finished = len(evidence.records)
    seen: dict[str, int] = {"metrics.jsonl": finished}
    try:
        seen["the checkpoint"] = evidence.checkpoint[0]
    except Unchecked:
        if finished:
            raise
    grids = [path.stem.removeprefix("round-") for path in (evidence.folder / "samples").glob("round-*.png")]
    seen["samples/"] = max((int(number) for number in grids if number.isdecimal()), default=0)
    for place, count in seen.items():
        if count > len(numbers):
            notes.finding(
                f"{place} has {count} rounds, the ledger charged {len(numbers)}: what was released after "
                "that was never accounted for.",
                on_disk=count,
                charged=len(numbers),
            )
    if not 0 <= finished - seen.get("the checkpoint", finished) <= 1:
        notes.finding(
            "The checkpoint is not that of the last finished round.",
            checkpoint=seen["the checkpoint"],
            metrics=finished,
        )
    _sent(evidence, notes)
    _counted(evidence, notes)
    logged = charged - finished
    if logged > 0:
        notes.note(
            f"{charged} charge{'' if charged == 1 else 's'} for {finished} finished "
            f"round{'' if finished == 1 else 's'}: {logged} for sessions that did not open or "
            f"were cut short ({aborted} of them logged as aborted). They count in epsilon.",
            charged=charged,
            finished=finished,
        )
    if not any(found.severity == "finding" for found in notes.findings):
        lost = sum(record.lost for record in evidence.records)
        of_them = f", {lost} of them lost with nothing opened" if lost else ""
        notes.fact(f"{finished} finished round{'' if finished == 1 else 's'}{of_them}, {charged} charged")


def _counted(evidence: Evidence, notes: Notebook) -> None:
    """Where a round invites only some clients, the ledger says how often anybody was in one so far."""
    if evidence.config.everybody:
        return
    for entry, most in zip(evidence.charges, evidence.participations, strict=True):
        stated = entry.metrics.get("most_rounds")
        if stated != most:
            notes.finding(
                f"Round {entry.round}: the ledger counts {stated} rounds for the client that was in most; by "
                f"the invitations of config.toml it is {most}.",
                ledger=stated,
                invitations=most,
            )
            return
        told = entry.metrics.get("invited")
        if told is not None and told != list(evidence.present(entry)):
            notes.finding(
                f"Round {entry.round}: the ledger charges other clients than config.toml invites.",
                ledger=told,
                invitations=list(evidence.present(entry)),
            )
            return


def _sent(evidence: Evidence, notes: Notebook) -> None:
    """The clients' own outboxes remember every upload that left, also in sessions that never opened."""
    try:
        clients = evidence.clients
    except Unchecked:
        return
    for folder in clients:
        if not (folder / "outbox").is_dir():
            continue
        sent = Outbox(folder / "outbox").rounds(evidence.federation)
        charged = evidence.charges_of(int(folder.name))
        if len(sent) > charged:
            notes.finding(
                f"Client {folder.name} sent {len(sent)} uploads, the ledger charged it {charged}: a session "
                "that did not open was not accounted for.",
                sent=list(sent)[-3:],
                charged=charged,
            )
            return


def ending(evidence: Evidence, notes: Notebook) -> None:
    """Do DONE, FAILED and the budget agree with the rounds?"""
    finished, asked = len(evidence.records), evidence.config.federation.rounds
    if finished > asked:
        notes.finding(
            f"{finished} rounds were finished, and config.toml asks for {asked}.",
            finished=finished,
            asked=asked,
        )
    if evidence.done is not None and evidence.failed is not None:
        notes.finding("DONE and FAILED are both there: a run ends in one way.")
    if evidence.done is not None:
        stated = re.match(r"(\d+) of (\d+) rounds", evidence.done)
        if stated is None or (int(stated[1]), int(stated[2])) != (finished, asked):
            notes.finding(
                "DONE does not say what metrics.jsonl and config.toml say.",
                done=evidence.done.strip(),
                finished=finished,
                asked=asked,
            )
        elif finished < asked and not evidence.config.limits and ":" not in evidence.done:
            notes.finding(
                f"The run calls itself done after {finished} of {asked} rounds, with no budget and no "
                "reason.",
                done=evidence.done.strip(),
            )
        else:
            notes.fact(f"finished: {evidence.done.strip()}")
    elif evidence.failed is not None:
        open_sessions = len(evidence.charges) - finished
        notes.note(
            f"The run stopped: {evidence.failed.strip()} ({open_sessions} charged and unfinished).",
            reason=evidence.failed.strip(),
        )
    else:
        notes.note(f"The run is unfinished: {finished} of {asked} rounds.")
