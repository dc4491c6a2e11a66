"""One client: what it says in a round as randomized bits, and what it keeps on its own machine.

The order of writes is what makes a kill harmless. The packed bits reach the disk before they may be sent,
then the optimizer state. Whoever comes back finds both, and sends those very bytes again; or finds the
old state, and repeats the same deterministic steps with the same coins and arrives at the same bytes (or
trained on a graphics card, at others: of the ones before nothing had left).
(Sending them again is free here because in this process the same clients survive, so a repeated session
opens the same sum; across machines a round whose upload has left is not repeated, see
`prism_crypto.SessionCounter`.)
Bits, coins and uploads never feed the state: a round's coins are used once and forgotten.

What a client says in a round is its behaviour's: `prism_secure.rounds.behaviours`. Here is what is the same
for all: coins, outbox, and the order of writes. What it knows of its images it has from before the first
round: see `prism_secure.rounds.moments`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from prism_privacy import CoinSecret, Outbox, PrivacyError, clip_toward, release_bits
from prism_privacy.masks.coins import CoinStream
from prism_privacy.masks.fixed_point import Computed
from prism_secure.config.invitations import invited
from prism_secure.errors import RunFolderError
from prism_secure.learning.clip_filling import fill_clip
from prism_secure.model.supermask import scores_from_theta, theta_from_scores
from prism_secure.rounds.arrays import packed, read_arrays
from prism_secure.rounds.behaviours.behaviour import Answer, MeasuredAnswer
from prism_secure.rounds.behaviours.choice import behaviour_of
from prism_secure.rounds.behaviours.measure import Measure, MeasuringClient
from prism_secure.rounds.broadcast import Arrays, Broadcast
from prism_secure.rounds.components import Components
from prism_secure.rounds.moments import ClientMoments
from prism_secure.run_folder.folder import saved_round
from prism_secure.storage import write_atomic


class Client:
    """One client with its own folder.

    Args:
        index: its id, 0 to n - 1.
        folder: its private folder: coin secret (0600), its behaviour's state, moments of its images, outbox.
        components: the objects of the configuration, shared by all clients of a process.
        coins: known coins in place of the folder's secret, for tests: what they release has no epsilon.
        may_miss: whether the client may have missed rounds that it was invited to, as on a machine of its own
            it may; it goes on from the state that it has.

    Attributes:
        moments: what it may know of its images.
        side: its part of the behaviour.
    """

    def __init__(
        self,
        index: int,
        folder: Path,
        components: Components,
        *,
        coins: CoinSecret | None = None,
        may_miss: bool = False,
    ) -> None:
        self.index = index
        self.folder = folder
        self._components = components
        self._known_coins = coins
        self._may_miss = may_miss
        self._outbox = Outbox(folder / "outbox")
        self.moments = ClientMoments(folder, index, components)
        self.side = behaviour_of(components).client(index, folder, self.moments)

    def prepare(self, federation: str) -> None:
        """Before round 1: read what is needed of the data; safe to repeat."""
        self.side.prepare(answered=self._has_answered(federation))

    def _has_answered(self, federation: str) -> bool:
        return bool(self._outbox.rounds(federation)) or self._state_path.exists()

    def check(self, federation: str, finished: int, charged: int, *, opened: int = 0) -> None:
        """Refuse unless this client has what it goes on from, with `finished` rounds done and `charged` paid.

        Args:
            opened: the last round whose sum may be known. Who was in it must have answered it: other bits
                would open another sum, and the difference of the two is what one client sent.

        Raises:
            RunFolderError: something is gone, damaged, or of another state: which, and what to do.
        """
        last = saved_round(self._state_path) if self._state_path.exists() else 0
        sent = self._outbox.rounds(federation)
        if (answered := max((last, *sent))) > charged:
            mend = "" if self._may_miss else "; put back the ledger that charged it"
            raise RunFolderError(
                f"client {self.index} has answered round {answered}, after round {charged}, the last "
                f"that may have been charged{mend}"
            )
        done = max(finished, opened)
        rounds = {
            self._invited_before(number + 1) for number in {done, max(done, min(finished + 1, charged))}
        }
        if last not in rounds and not self._may_miss:
            raise RunFolderError(
                f"client {self.index} cannot go on: {self._state_path} "
                f"{f'is after round {last}' if last else 'is gone'}, expected after round "
                f"{' or '.join(map(str, sorted(rounds)))}; put it back"
            )
        if last and last not in sent:
            raise RunFolderError(f"{self.folder / 'outbox'} lacks the upload of round {last}; put it back")
        if not answered and (self._may_miss or not finished):
            return
        release = self._components.record_release
        try:
            if answered:
                self._coins(federation)
            if last == finished + 1:
                self._outbox.stored(federation, last)
            # Across machines an opened release comes with every theta.
            if release is None or not (release.summed and self._may_miss):
                self.side.require()
        except PrivacyError as error:
            raise RunFolderError(f"client {self.index} cannot go on: {error}; put back what it was") from None

    def answer(self, broadcast: Broadcast) -> None:
        """Answer the broadcast and leave this round's packed bits in the outbox; safe to repeat.

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
        answer = self.side.answer(broadcast, state)
        # 1. The upload, from which a repeated round takes its bits.
        if self._sent(broadcast) is None:
            self._outbox.keep(broadcast.federation, broadcast.round, self._payload(answer, broadcast))
        # 2. The state: without it the same answer is made again.
        self._save_state(broadcast.round, answer.state)

    def _payload(self, answer: Answer | MeasuredAnswer, broadcast: Broadcast) -> bytes:
        if self._components.config.measures:
            assert isinstance(answer, MeasuredAnswer)
            return broadcast.digest + np.packbits(self._measured(answer.answers, broadcast)).tobytes()
        assert isinstance(answer, Answer)
        return broadcast.digest + self._upload(torch.as_tensor(answer.scores).detach(), broadcast)

    def _measured(self, answers: NDArray[np.int64], broadcast: Broadcast) -> NDArray[np.uint8]:
        """The bits of a measured round, uint8 (m,), for answers int64 (k,): clip and noise are exact."""
        behaviour = behaviour_of(self._components)
        assert isinstance(behaviour, Measure)
        assert isinstance(self.side, MeasuringClient)
        p = behaviour.probabilities(self.side, answers, broadcast)
        return release_bits(p, self._stream(broadcast))

    def _follows(self, last: int, asked: int) -> bool:
        """Whether a client that answered round `last` is asked for its next one."""
        return last < asked if self._may_miss else last == self._invited_before(asked)

    def _invited_before(self, asked: int) -> int:
        """The last round before `asked` that this client was invited to; 0 if there was none."""
        config = self._components.config
        earlier = (number for number in range(asked - 1, 0, -1) if self.index in invited(config, number))
        return next(earlier, 0)

    def bits(self, broadcast: Broadcast) -> NDArray[np.uint8]:
        """This round's bits as kept in the outbox, uint8 (d,), or as many as are sent: what its secure sum
        adds up."""
        packed, bits = self._kept_upload(broadcast), self._components.sent_bits
        return np.unpackbits(np.frombuffer(packed, np.uint8, count=-(-bits // 8)), count=bits)

    def scores(self, broadcast: Broadcast) -> NDArray[np.int64]:
        """This round's scores of the layers that send them, as the integers that the secure sum adds up."""
        packed, bits = self._kept_upload(broadcast), self._components.sent_bits
        return np.frombuffer(packed, "<u4", offset=-(-bits // 8)).astype(np.int64)

    def forget_upload(self, federation: str, round_number: int) -> None:
        """Delete the bits of a round that is over, keeping the fact that it was answered."""
        self._outbox.settle(federation, round_number)

    def _upload(self, scores: torch.Tensor, broadcast: Broadcast) -> bytes:
        """Packed bits and, of the layers that send them, scores as 32-bit integers."""
        layers, count = self._components.score_layers, self._components.sent_bits
        bits = self._release(scores[:count], broadcast)
        packed = np.packbits(bits).tobytes()
        if layers is None:
            return packed
        tail = theta_from_scores(scores[count:], self._components.config.mask.temperature).numpy()
        tail = np.where(np.isfinite(tail), tail, broadcast.theta[count:])
        return packed + layers.encode(tail).astype("<u4").tobytes()

    def _release(self, scores: torch.Tensor, broadcast: Broadcast) -> NDArray[np.uint8]:
        """Clip and randomize: p = clip(f + (1 - 2f) sigma(s / tau)), bits ~ Ber(p) from secret coins."""
        privacy, tau = self._components.config.privacy, self._components.config.mask.temperature
        theta = broadcast.theta[: len(scores)]
        in_scores = privacy.clip_space == "score"

        def own(piece: slice) -> NDArray[np.float64]:
            """A score that overflowed says nothing: it becomes the public point, here and without a word,
            because an error would tell the server something about this client's data."""
            public = theta[piece]
            values = scores[piece].numpy() if in_scores else theta_from_scores(scores[piece], tau).numpy()
            finite = np.isfinite(values)
            if finite.all():
                return values
            if in_scores:
                public = scores_from_theta(torch.from_numpy(public), tau).numpy()
            return np.where(finite, values, public)

        values = Computed(len(scores), own)
        if self._components.config.training.fill_clip and privacy.clip is not None:
            values = fill_clip(values, theta, flip=privacy.flip, clip=privacy.clip)
        p = clip_toward(
            values,
            theta,
            flip=privacy.flip,
            clip=privacy.clip,
            space="score" if in_scores else "probability",
            temperature=tau if in_scores else None,
            theta_min=privacy.theta_min,
        )
        return release_bits(p, self._stream(broadcast))

    def _stream(self, broadcast: Broadcast) -> CoinStream:
        """This round's coins."""
        secret = self._coins(broadcast.federation)
        return secret.stream(broadcast.federation, broadcast.round, broadcast.digest, "mask")

    def _coins(self, federation: str) -> CoinSecret:
        if self._known_coins is not None:
            return self._known_coins
        path = self.folder / "coins.key"
        if path.exists():
            return CoinSecret.load(path)
        if self._has_answered(federation):
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

    def _load_state(self) -> tuple[int, Arrays | None]:
        if not self._state_path.exists():
            return 0, None
        arrays = read_arrays(self._state_path)
        return int(arrays.pop("round")), arrays

    def _save_state(self, round_number: int, state: Arrays) -> None:
        arrays = {**state, "round": np.array(round_number)}
        write_atomic(self._state_path, packed(arrays), mode=0o600)

    @property
    def _state_path(self) -> Path:
        return self.folder / "state.safetensors"
