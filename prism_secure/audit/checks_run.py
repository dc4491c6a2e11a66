"""Rounds on disk against rounds accounted, how the run ended, and the model that it left."""

from __future__ import annotations

import hashlib
import re

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from prism_privacy import Outbox
from prism_secure.audit.evidence import Evidence
from prism_secure.audit.findings import Notebook, Unchecked
from prism_secure.recipe import public_seed

_MODEL = "prism-secure/v1/model"


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
                "that "
                "was never accounted for.",
                on_disk=count,
                charged=len(numbers),
            )
    if not 0 <= finished - seen.get("the checkpoint", finished) <= 1:
        notes.finding(
            "The checkpoint is not that of the last finished round.",
            checkpoint=seen["the checkpoint"],
            metrics=finished,
        )
    _sent(evidence, notes, charged)
    logged = charged - finished
    if logged > 0:
        notes.note(
            f"{charged} charges for {finished} finished rounds: {logged} for sessions that did not open or "
            "were "
            f"cut short ({aborted} of them logged as aborted). They count in epsilon.",
            charged=charged,
            finished=finished,
        )
    if not any(found.severity == "finding" for found in notes.findings):
        notes.fact(f"{finished} finished rounds, {charged} charged")


def _sent(evidence: Evidence, notes: Notebook, charged: int) -> None:
    """The clients' own outboxes remember every upload that left, also in sessions that never opened."""
    try:
        clients = evidence.clients
    except Unchecked:
        return
    for folder in clients:
        if not (folder / "outbox").is_dir():
            continue
        sent = Outbox(folder / "outbox").rounds(evidence.federation)
        if len(sent) > charged:
            notes.finding(
                f"Client {folder.name} sent {len(sent)} uploads, the ledger charged {charged}: a session "
                "that "
                "did not open was not accounted for.",
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
        elif finished < asked and evidence.config.budget.epsilon is None and ":" not in evidence.done:
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


def model(evidence: Evidence, notes: Notebook) -> None:
    """Is model.safetensors the mask that the last round's theta deploys?"""
    path = evidence.folder / "model.safetensors"
    if not path.exists():
        raise Unchecked("there is no model.safetensors yet", expected=evidence.done is None)
    round_number, theta = evidence.checkpoint
    try:
        with safe_open(path, framework="np") as file:
            header = msgspec.json.decode((file.metadata() or {})[_MODEL])
            packed, seed, weights = file.get_tensor("mask"), header["seed"], header["weights"]
    except (OSError, SafetensorError, KeyError, TypeError, msgspec.MsgspecError) as error:
        notes.finding(f"model.safetensors is not a model of this kind: {error!r}.")
        return
    config = evidence.config
    if round_number != len(evidence.records):
        notes.finding(
            "The checkpoint is not of the last round, so the model cannot be of it.",
            checkpoint=round_number,
            finished=len(evidence.records),
        )
    if not np.isfinite(theta).all() or (np.abs(theta - 0.5) > 0.5 - config.privacy.theta_min + 1e-12).any():
        notes.finding("theta in the checkpoint leaves [theta_min, 1 - theta_min].")
        return
    expected = np.packbits(_deployed(evidence, theta))
    have, want = _sha256(packed), _sha256(expected)
    if have != want:
        unlike = int(np.unpackbits(packed ^ expected).sum()) if packed.shape == expected.shape else None
        notes.finding(
            "model.safetensors does not hold the mask that the last round's theta deploys.",
            model_sha256=have,
            recomputed_sha256=want,
            different_bits=unlike,
        )
    else:
        notes.fact(f"mask of {weights} bits after round {round_number}, SHA-256 {have}")
    wanted_seed = public_seed(config.federation.seed, "weights")
    if (seed, weights) != (wanted_seed, len(theta)):
        notes.finding(
            "model.safetensors names other frozen weights than the run's seed draws.",
            model={"seed": seed, "weights": weights},
            run={"seed": wanted_seed, "weights": len(theta)},
        )


def _deployed(evidence: Evidence, theta: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The mask that theta deploys, from its definition; only a Bernoulli mask needs torch's own draws."""
    mask = evidence.config.mask
    if mask.mode == "hard":
        return np.asarray(theta > 0.5)
    if mask.mode == "topk":
        kept = np.argsort(-theta, kind="stable")[: int(mask.density * len(theta))]
        return np.isin(np.arange(len(theta)), kept)
    seed = public_seed(evidence.config.federation.seed, "deployed")
    draws = torch.rand(len(theta), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return np.asarray(draws.numpy() < theta)


def _sha256(packed: NDArray[np.generic]) -> str:
    return hashlib.sha256(packed.tobytes()).hexdigest()
