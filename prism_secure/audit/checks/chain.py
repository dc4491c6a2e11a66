"""Whether the ledger is whole, and by whom it was written."""

from __future__ import annotations

from prism_privacy import LedgerError, LedgerKey, LedgerReport
from prism_secure.audit.checks.file_modes import check_mode
from prism_secure.audit.evidence import Evidence
from prism_secure.audit.findings import Notebook, Unchecked


def chain(evidence: Evidence, notes: Notebook) -> None:
    """Is every line signed, chained to the one before, and the end still there?"""
    ledger = evidence.ledger
    if isinstance(ledger, LedgerError):
        text = f"The ledger does not verify: {ledger}."
        if ledger.line is None:
            notes.finding(text)
        else:
            notes.finding(text, line=ledger.line)
        return
    notes.fact(f"{ledger.lines} lines, head {ledger.head}")
    if ledger.torn_bytes:
        notes.note(
            f"An unfinished last line of {ledger.torn_bytes} bytes was left by a writer that was killed; it "
            "holds no entry."
        )
    if not ledger.end_checked and evidence.head is None:
        raise Unchecked(
            "ledger.jsonl.head is missing, so lines may have been cut off the end; put it back, or name a "
            "head that you wrote down with --head"
        )


def writer(evidence: Evidence, notes: Notebook) -> None:
    """Was the ledger written by this run's key, for this federation?"""
    ledger = _verified(evidence)
    if ledger.federation != evidence.federation:
        notes.finding(
            "The ledger is of another federation than the folder.",
            ledger=ledger.federation,
            folder=evidence.federation,
        )
    if ledger.pinned:
        notes.fact(f"signed by {ledger.public_key}, the key that you gave")
    path = evidence.folder / "ledger.key"
    if not path.exists():
        if not ledger.pinned:
            notes.note(
                f"The ledger names its own key, {ledger.public_key}: whoever rewrote it from its first line "
                "with another key would go unseen. Compare it with the key that the writer gave you (--key).",
            )
        return
    check_mode(notes, path, evidence, 0o600)
    try:
        own = LedgerKey.load(path).public_key.hex()
    except LedgerError as error:
        notes.note(f"ledger.key cannot be used to compare: {error}")
        return
    if own != ledger.public_key:
        notes.finding(
            "The ledger is signed with another key than the one that this run created: it was written anew.",
            signed_by=ledger.public_key,
            run_key=own,
        )
    else:
        notes.fact(f"signed by {own}, the key in the folder")


def _verified(evidence: Evidence) -> LedgerReport:
    if isinstance(evidence.ledger, LedgerError):
        raise Unchecked("the ledger does not verify", expected=True)
    return evidence.ledger
