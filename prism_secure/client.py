"""One client: local steps on its own data, randomized bits, and what it keeps on its own machine.

The order of writes is what makes a kill harmless. The packed bits reach the disk before they may be sent,
then the optimizer state. Whoever comes back finds both, and sends those very bytes again; or finds the
old state, and repeats the same deterministic steps with the same coins and arrives at the same bytes (or
trained on a graphics card, at others: of the ones before nothing had left).
(Sending them again is free here because everybody survives in this process, so a repeated session opens the
same sum; across machines a round whose upload has left is not repeated, see `prism_crypto.SessionCounter`.)
Bits, coins and uploads never feed the state: a round's coins are used once and forgotten.

With a record-level claim the images are read once, before the first round, for one noisy release of their
moments (`prism_secure.record_release`). It is stored before anything is computed from it, and from then on it
is all there is: a client whose release is gone draws no other, but stops.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from prism_privacy import (
    CoinSecret,
    NoisySums,
    Outbox,
    clip_toward,
    moments_once,
    release_bits,
)
from prism_privacy.durable_files import locked_directory
from prism_privacy.moments_store import load_moments
from prism_secure.clip_filling import fill_clip
from prism_secure.config import Privacy
from prism_secure.errors import RunFolderError
from prism_secure.invitations import invited
from prism_secure.mada import progress
from prism_secure.moments import FeatureMoments
from prism_secure.public_seed import public_seed
from prism_secure.recipe import Recipe
from prism_secure.record_release import RecordRelease
from prism_secure.storage import as_storage_error, make_private_folder, write_atomic
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
        folder: its private folder: coin secret (0600), optimizer state, moments of its images, outbox.
        recipe: the objects of the configuration, shared by all clients of a process.
        coins: known coins in place of the folder's secret, for tests: what they release has no epsilon.
        may_miss: whether the client may have missed rounds that it was invited to, as on a machine of its own
            it may; it goes on from the state that it has.
    """

    def __init__(
        self,
        index: int,
        folder: Path,
        recipe: Recipe,
        *,
        coins: CoinSecret | None = None,
        may_miss: bool = False,
    ) -> None:
        self.index = index
        self.folder = folder
        self._recipe = recipe
        self._known_coins = coins
        self._may_miss = may_miss
        self._outbox = Outbox(folder / "outbox")

    def prepare(self, federation: str) -> None:
        """Before round 1: read from the images all that training needs of them; safe to repeat.

        Raises:
            RunFolderError: what was read is gone, though this client has answered a round.
            prism_privacy.PrivacyError: the release is damaged, or another one is stored in its place.
        """
        release = self._recipe.record_release
        if release is None:
            self._exact_moments()
        elif self._released(release) is not None:
            self._mark_drawn(release)
        else:
            if self._outbox.rounds(federation) or (self.folder / "state.safetensors").exists():
                raise RunFolderError(self._gone(release))
            if release.summed:
                self._make_share(release)
            else:
                self._draw(release)

    def require_release(self) -> None:
        """Nothing, if this client has what it trains from.

        Raises:
            RunFolderError: it is gone.
        """
        release = self._recipe.record_release
        if release is not None and self._released(release) is None:
            raise RunFolderError(self._gone(release))

    @property
    def has_share(self) -> bool:
        """Whether its share of a summed release is drawn and kept, as it is until the sum has come back."""
        return self._share_path.exists()

    def share(self) -> NDArray[np.int64]:
        """With a summed release: what this client adds to it, int64 (size,). **Private** until summed."""
        if not self._share_path.exists():
            raise RunFolderError(
                f"client {self.index} gave its share of the noisy moments before, and a second one would "
                "cost epsilon on top; put checkpoint/release.moments, the sum of the first, back"
            )
        return np.asarray(_read(self._share_path)["share"])

    def receive(self, opened: NoisySums) -> None:
        """Keep the opened sum of all clients' shares as what this client trains from; its share can go."""
        release = self._recipe.record_release
        assert release is not None
        self._keep(release, lambda: opened)
        self._share_path.unlink(missing_ok=True)

    def answer(self, broadcast: Broadcast) -> None:
        """Train from the broadcast and leave this round's packed bits in the outbox; safe to repeat.

        Raises:
            RunFolderError: the client's state belongs to another round.
            prism_privacy.PrivacyError: theta is out of range, or coins or outbox cannot be used.
        """
        round_number, state = self._load_state()
        if round_number == broadcast.round and self._sent(broadcast) is not None:
            return
        if not self._follows(round_number, broadcast.round):
            raise RunFolderError(
                f"client {self.index} is asked for round {broadcast.round}, but its state is after round "
                f"{round_number}: {self.folder} does not belong to this checkpoint"
            )
        if round_number:
            self.forget_upload(broadcast.federation, round_number)
        config = self._recipe.config
        group = config.latent_group(self.index)
        result = self._recipe.trainer.train(
            torch.from_numpy(broadcast.theta),
            state,
            self.targets(),
            steps=config.federation.local_steps,
            seed=public_seed(config.federation.seed, "latents", group, broadcast.round),
            progress=progress(broadcast.round - 1, config.federation.rounds),
            shared=config.training.latent_groups > 0,
        )
        if self._sent(broadcast) is None:
            payload = broadcast.digest + self._upload(result.scores, broadcast)
            self._outbox.keep(broadcast.federation, broadcast.round, payload)
        self._save_state(broadcast.round, result.state)

    def _follows(self, last: int, asked: int) -> bool:
        """Whether a client that answered round `last` is asked for its next one."""
        if self._may_miss:
            return last < asked
        config = self._recipe.config
        earlier = (number for number in range(asked - 1, 0, -1) if self.index in invited(config, number))
        return last == next(earlier, 0)

    def bits(self, broadcast: Broadcast) -> NDArray[np.uint8]:
        """This round's bits as kept in the outbox, uint8 (d,): what the client's secure sum adds up."""
        packed, bits = self._kept_upload(broadcast), self._bits(broadcast)
        return np.unpackbits(np.frombuffer(packed, np.uint8, count=-(-bits // 8)), count=bits)

    def scores(self, broadcast: Broadcast) -> NDArray[np.int64]:
        """This round's scores of the layers that send them, as the integers that the secure sum adds up."""
        packed, bits = self._kept_upload(broadcast), self._bits(broadcast)
        return np.frombuffer(packed, "<u4", offset=-(-bits // 8)).astype(np.int64)

    def forget_upload(self, federation: str, round_number: int) -> None:
        """Delete the bits of a round that is over, keeping the fact that it was answered."""
        self._outbox.settle(federation, round_number)

    def _bits(self, broadcast: Broadcast) -> int:
        """How many coordinates send bits: all, or those before the layers that send scores."""
        layers = self._recipe.score_layers
        return len(broadcast.theta) if layers is None else layers.start

    def _upload(self, scores: torch.Tensor, broadcast: Broadcast) -> bytes:
        """Packed bits and, of the layers that send them, scores as 32-bit integers."""
        layers, count = self._recipe.score_layers, self._bits(broadcast)
        bits = self._release(scores[:count], broadcast, broadcast.theta[:count], self._recipe.config.privacy)
        packed = np.packbits(bits).tobytes()
        if layers is None:
            return packed
        tail = theta_from_scores(scores[count:], self._recipe.config.mask.temperature).numpy()
        tail = np.where(np.isfinite(tail), tail, broadcast.theta[count:])
        return packed + layers.encode(tail).astype("<u4").tobytes()

    def _release(
        self, scores: torch.Tensor, broadcast: Broadcast, theta: NDArray[np.float64], privacy: Privacy
    ) -> NDArray[np.uint8]:
        """Clip and randomize: p = clip(f + (1 - 2f) sigma(s / tau)), bits ~ Ber(p) from secret coins."""
        tau = self._recipe.config.mask.temperature
        in_scores = privacy.clip_space == "score"
        public = theta
        values = scores.numpy() if in_scores else theta_from_scores(scores, tau).numpy()
        if in_scores:
            public = scores_from_theta(torch.from_numpy(public), tau).numpy()
        # A score that overflowed says nothing: it becomes the public point, here and without a word, because
        # an error would tell the server something about this client's data.
        values = np.where(np.isfinite(values), values, public)
        if self._recipe.config.training.fill_clip and privacy.clip is not None:
            values = fill_clip(values, public, flip=privacy.flip, clip=privacy.clip)
        p = clip_toward(
            values,
            theta,
            flip=privacy.flip,
            clip=privacy.clip,
            space="score" if in_scores else "probability",
            temperature=tau if in_scores else None,
            theta_min=privacy.theta_min,
        )
        coins = self._coins().stream(broadcast.federation, broadcast.round, broadcast.digest, "mask")
        return release_bits(p, coins)

    def _coins(self) -> CoinSecret:
        if self._known_coins is not None:
            return self._known_coins
        path = self.folder / "coins.key"
        if path.exists():
            return CoinSecret.load(path)
        if (self.folder / "state.safetensors").exists():
            raise RunFolderError(
                f"{path} is gone, and a client that has answered must not draw other coins; put it back"
            )
        return CoinSecret.create(path)

    def _kept_upload(self, broadcast: Broadcast) -> bytes:
        packed = self._sent(broadcast)
        if packed is None:
            raise RunFolderError(f"client {self.index} has no upload for round {broadcast.round}")
        return packed

    def _sent(self, broadcast: Broadcast) -> bytes | None:
        """The packed upload that left for this very broadcast, or None."""
        kept = self._outbox.stored(broadcast.federation, broadcast.round)
        if kept is None:
            return None
        digest, packed = kept[: len(broadcast.digest)], kept[len(broadcast.digest) :]
        if digest != broadcast.digest:
            raise RunFolderError(f"client {self.index} answered round {broadcast.round} for another theta")
        return packed

    def targets(self) -> FeatureMoments:
        """What this client's images should look like, as far as its training may know."""
        release = self._recipe.record_release
        if release is None:
            return self._exact_moments()
        released = self._released(release)
        if released is None:
            raise RunFolderError(self._gone(release))
        return FeatureMoments.of_release(release.as_opened(released))

    def _exact_moments(self) -> FeatureMoments:
        """The moments of this client's images, computed once and kept in its folder."""
        path = self.folder / "moments.safetensors"
        if not path.exists():
            found = self._recipe.targets(self.index)
            write_atomic(path, save({name: value.numpy() for name, value in vars(found).items()}), mode=0o600)
        return FeatureMoments(**{name: torch.from_numpy(value) for name, value in _read(path).items()})

    def _released(self, release: RecordRelease) -> NoisySums | None:
        """The release that was kept, or None."""
        path = release.file(self.index, self.folder)
        return load_moments(path, release.of(self.index), release.context(self._whose(release)))

    def _keep(self, release: RecordRelease, make: Callable[[], NoisySums]) -> None:
        path = release.file(self.index, self.folder)
        make_private_folder(path.parent)
        with as_storage_error(path):
            moments_once(path, release.of(self.index), release.context(self._whose(release)), make)

    def _draw(self, release: RecordRelease) -> None:
        """Make this client's own release, once: a mark beside it stays where somebody deletes it."""

        def first() -> NoisySums:
            if self._drawn_mark(release).exists():
                raise RunFolderError(self._gone(release))
            return release.make(self.index, *self._recipe.features(self.index))

        self._keep(release, first)
        self._mark_drawn(release)

    def _drawn_mark(self, release: RecordRelease) -> Path:
        path = release.file(self.index, self.folder)
        return path.with_name(f".{path.stem}.drawn")

    def _mark_drawn(self, release: RecordRelease) -> None:
        """Also for a release that a kill, or an earlier version, left without its mark."""
        if not release.summed and not self._drawn_mark(release).exists():
            write_atomic(self._drawn_mark(release), b"", mode=0o600)

    def _whose(self, release: RecordRelease) -> int | None:
        return None if release.summed else self.index

    def _make_share(self, release: RecordRelease) -> None:
        """Draw the share of a summed release, once: two shares of the same images would be two releases.

        Runs that share a store share it, too: whichever of them gets to open the sum opens the same.
        """
        path, opened = self._share_path, release.opened_file(self.folder)
        make_private_folder(path.parent)
        with as_storage_error(path), locked_directory(path.parent):
            if not path.exists() and not opened.exists():
                share = release.share(*self._recipe.features(self.index))
                write_atomic(path, save({"share": share}), mode=0o600)

    @property
    def _share_path(self) -> Path:
        release = self._recipe.record_release
        assert release is not None
        return release.share_file(self.index, self.folder)

    def _gone(self, release: RecordRelease) -> str:
        return (
            f"{release.file(self.index, self.folder)} is gone: client {self.index} trains from this release "
            "of its images alone, and a second one would cost epsilon on top of the first; put it back"
        )

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
