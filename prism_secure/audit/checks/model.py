"""Whether the model that a run left is the one that its rounds made."""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from prism_secure.audit.evidence import Evidence
from prism_secure.audit.findings import Notebook, Unchecked
from prism_secure.config.public_seed import public_seed

_MODEL = "prism-secure/v1/model"


def model(evidence: Evidence, notes: Notebook) -> None:
    """Is model.safetensors the model that was signed, and whose mask the last round's theta deploys?"""
    path = evidence.folder / "model.safetensors"
    if not path.exists():
        raise Unchecked("there is no model.safetensors yet", expected=evidence.done is None)
    try:
        with safe_open(path, framework="np") as file:
            header = msgspec.json.decode((file.metadata() or {})[_MODEL])
            packed, seed, weights = file.get_tensor("mask"), header["seed"], header["weights"]
            architecture = header["architecture"]
    except (OSError, SafetensorError, KeyError, TypeError, RecursionError, msgspec.MsgspecError) as error:
        notes.finding(f"model.safetensors is not a model of this kind: {error!r}.")
        return
    have = {"mask_sha256": _sha256(packed), "seed": seed, "architecture": architecture}
    ends = [entry for entry in evidence.entries if entry.kind == "end"]
    stated = ends[-1].metrics if ends else {}
    signed = {name: stated.get(name) for name in have if name in stated or (ends and name == "mask_sha256")}
    unseen = "whoever exchanged the checkpoint and the model for matching ones would go unseen"
    if not ends and evidence.done is None:
        notes.note(f"The run is not over yet, so no signed line says which model was deployed: {unseen}.")
    for name, value in signed.items():
        if value != have[name]:
            notes.finding(
                f"model.safetensors has another {name} than the ledger's last line names.",
                model=have[name],
                signed=value,
            )
    _check_deployed(evidence, notes, packed, seed, weights)
    if len(signed) < len(have) and evidence.done is not None:
        raise Unchecked(
            "the run is over, but no signed line says which model was deployed, its mask, seed and "
            "architecture: an older program made it, or an older copy of the ledger was put back; "
            f"{unseen}"
        )


def _check_deployed(
    evidence: Evidence, notes: Notebook, packed: NDArray[np.uint8], seed: int, weights: int
) -> None:
    """The checkpoint's theta deploys this mask, of weights that the run's seed draws."""
    have = _sha256(packed)
    config, (round_number, theta) = evidence.config, evidence.checkpoint
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
    want = _sha256(expected)
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
    if mask.mode in ("hard", "annealed"):
        return np.asarray(theta > 0.5)
    if mask.mode == "topk":
        kept = np.argsort(-theta, kind="stable")[: int(mask.density * len(theta))]
        return np.isin(np.arange(len(theta)), kept)
    seed = public_seed(evidence.config.federation.seed, "deployed")
    draws = torch.rand(len(theta), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return np.asarray(draws.numpy() < theta)


def _sha256(packed: NDArray[np.generic]) -> str:
    return hashlib.sha256(packed.tobytes()).hexdigest()
