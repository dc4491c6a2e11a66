"""One client: local steps on its own data, randomized bits, and what it keeps on its own machine.

The order of writes is what makes a kill harmless. The packed bits reach the disk before they may be sent,
then the optimizer state. Whoever comes back finds both, and sends those very bytes again; or finds the
old state, and repeats the same deterministic steps with the same coins and arrives at the same bytes.
(Sending them again is free here because everybody survives in this process, so a repeated session opens the
same sum; across machines a round whose upload has left is not repeated, see `prism_crypto.SessionCounter`.)
Bits, coins and uploads never feed the state: a round's coins are used once and forgotten.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from prism_privacy import CoinSecret, Outbox, clip_toward, release_bits
from prism_secure.config import Privacy
from prism_secure.errors import RunFolderError
from prism_secure.moments import FeatureMoments
from prism_secure.recipe import Recipe, public_seed
from prism_secure.storage import write_atomic
from prism_secure.supermask import scores_from_theta, theta_from_scores
from prism_secure.training import ClientState


@dataclass(frozen=True)
class Broadcast:
    """What the server sends before a round: theta, float64 (d,), in [theta_min, 1 - theta_min]."""

    federation: str
    round: int
    theta: NDArray[np.float64]

    @property
    def digest(self) -> bytes:
        """SHA-256 of theta as this process loaded it; it enters the secure sum's context and all coins."""
        header = f"prism-secure/v1/broadcast\0{self.federation}\0{self.round}\0{len(self.theta)}\0"
        return hashlib.sha256(header.encode() + self.theta.astype("<f8").tobytes()).digest()


class Client:
    """One client with its own folder.

    Args:
        index: its id, 0 to n - 1.
        folder: its private folder: coin secret (0600), optimizer state, moments, outbox.
        recipe: the objects of the configuration, shared by all clients of a process.
    """

    def __init__(self, index: int, folder: Path, recipe: Recipe) -> None:
        self.index = index
        self.folder = folder
        self._recipe = recipe
        self._outbox = Outbox(folder / "outbox")

    def answer(self, broadcast: Broadcast) -> None:
        """Train from the broadcast and leave this round's packed bits in the outbox; safe to repeat.

        Raises:
            RunFolderError: the client's state belongs to another round.
            prism_privacy.PrivacyError: theta is out of range, or coins or outbox cannot be used.
        """
        round_number, state = self._load_state()
        if round_number == broadcast.round and self._sent(broadcast) is not None:
            return
        if round_number != broadcast.round - 1:
            raise RunFolderError(
                f"client {self.index} is asked for round {broadcast.round}, but its state is after round "
                f"{round_number}: {self.folder} does not belong to this checkpoint"
            )
        if broadcast.round > 1:
            self.forget_upload(broadcast.federation, broadcast.round - 1)
        config = self._recipe.config
        result = self._recipe.trainer.train(
            torch.from_numpy(broadcast.theta),
            state,
            self._targets(),
            steps=config.federation.local_steps,
            seed=public_seed(config.federation.seed, "latents", self.index, broadcast.round),
        )
        if self._sent(broadcast) is None:
            bits = self._release(result.scores, broadcast, config.privacy)
            payload = broadcast.digest + np.packbits(bits).tobytes()
            self._outbox.keep(broadcast.federation, broadcast.round, payload)
        self._save_state(broadcast.round, result.state)

    def bits(self, broadcast: Broadcast) -> NDArray[np.uint8]:
        """This round's bits as kept in the outbox, uint8 (d,): what the client's secure sum adds up."""
        packed = self._sent(broadcast)
        if packed is None:
            raise RunFolderError(f"client {self.index} has no upload for round {broadcast.round}")
        return np.unpackbits(np.frombuffer(packed, np.uint8), count=len(broadcast.theta))

    def forget_upload(self, federation: str, round_number: int) -> None:
        """Delete the bits of a round that is over, keeping the fact that it was answered."""
        self._outbox.settle(federation, round_number)

    def _release(self, scores: torch.Tensor, broadcast: Broadcast, privacy: Privacy) -> NDArray[np.uint8]:
        """Clip and randomize: p = clip(f + (1 - 2f) sigma(s / tau)), bits ~ Ber(p) from secret coins."""
        tau = self._recipe.config.mask.temperature
        in_scores = privacy.clip_space == "score"
        public = broadcast.theta
        values = scores.numpy() if in_scores else theta_from_scores(scores, tau).numpy()
        if in_scores:
            public = scores_from_theta(torch.from_numpy(public), tau).numpy()
        # A score that overflowed says nothing: it becomes the public point, here and without a word, because
        # an error would tell the server something about this client's data.
        values = np.where(np.isfinite(values), values, public)
        p = clip_toward(
            values,
            broadcast.theta,
            flip=privacy.flip,
            clip=privacy.clip,
            space="score" if in_scores else "probability",
            temperature=tau if in_scores else None,
            theta_min=privacy.theta_min,
        )
        coins = self._coins().stream(broadcast.federation, broadcast.round, broadcast.digest, "mask")
        return release_bits(p, coins)

    def _coins(self) -> CoinSecret:
        path = self.folder / "coins.key"
        if path.exists():
            return CoinSecret.load(path)
        if (self.folder / "state.safetensors").exists():
            raise RunFolderError(
                f"{path} is gone, and a client that has answered must not draw other coins; put it back"
            )
        return CoinSecret.create(path)

    def _sent(self, broadcast: Broadcast) -> bytes | None:
        """The packed bits that left for this very broadcast, or None."""
        kept = self._outbox.stored(broadcast.federation, broadcast.round)
        if kept is None:
            return None
        digest, packed = kept[: len(broadcast.digest)], kept[len(broadcast.digest) :]
        if digest != broadcast.digest:
            raise RunFolderError(f"client {self.index} answered round {broadcast.round} for another theta")
        return packed

    def _targets(self) -> FeatureMoments:
        """The moments of this client's images, computed once and kept in its folder."""
        path = self.folder / "moments.safetensors"
        if not path.exists():
            found = self._recipe.targets(self.index)
            write_atomic(path, save({name: value.numpy() for name, value in vars(found).items()}), mode=0o600)
        return FeatureMoments(**{name: torch.from_numpy(value) for name, value in _read(path).items()})

    def _load_state(self) -> tuple[int, ClientState]:
        path = self.folder / "state.safetensors"
        if not path.exists():
            return 0, self._recipe.trainer.initial_state()
        arrays = _read(path)
        return int(arrays.pop("round")), ClientState.from_arrays(arrays)

    def _save_state(self, round_number: int, state: ClientState) -> None:
        arrays = {"round": np.array(round_number), **state.to_arrays()}
        write_atomic(self.folder / "state.safetensors", save(arrays), mode=0o600)


def _read(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError, ValueError) as error:
        raise RunFolderError(f"{path} is damaged: {error}") from None
