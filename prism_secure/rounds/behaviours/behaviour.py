"""The interface of a behaviour: both sides of what happens in a round between broadcast and opened sum.

`federation.behaviour = "package.module:name"` names one of one's own: something that is called with the run's
`Components` and gives a `Behaviour`. The round calls it in this order:

    server  `public`    what goes out beside theta; it enters the broadcast's digest, and so all coins
    client  `answer`    from broadcast and the client's own state to the scores it wants, and its next state
            (the round)  clip, randomized bits from secret coins, outbox, secure sum
    server  `absorb`    theta moves by the opened counts

`measure` alone answers numbers, a `MeasuredAnswer`; `prism_secure.rounds.client` draws their bits with
`Measure.probabilities`, whose clip is its own.

So whatever a behaviour does, no more of a client leaves than its clip and its coins let through, and that is
what the ledger charges. What it costs a single image nothing says: beside a record-level release only
behaviours may stand that read nothing else of the images (`KEEP_TO_THE_RELEASE`). Three things it must keep
to, because nothing can check them:

    a client's state follows from its data, broadcasts and its earlier state, never from coins or uploads
    `answer` is a function of its arguments: a round that was cut short is repeated, to the same bits
    how long `answer` takes and whether it fails does not depend on the data
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from prism_secure.errors import AgreementError
from prism_secure.learning.aggregation import Step
from prism_secure.rounds.broadcast import NOTHING, Arrays, Broadcast

if TYPE_CHECKING:
    from prism_secure.learning.moment_matching import FeatureMoments
    from prism_secure.rounds.moments import ClientMoments


@dataclass(frozen=True)
class Answer:
    """What a client says in a round, before clip and coins, and what it keeps for its next one.

    Attributes:
        scores: float (d,), where it wants the scores s = tau logit(theta) to be.
        state: arrays by name that come back with the next broadcast; not called "round".
    """

    scores: Tensor
    state: Arrays = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class MeasuredAnswer:
    """What a client of measured rounds says, before the exact clip and its coins: numbers, not scores.

    Attributes:
        answers: int64 (k,), its clipped answers to the round's questions.
        state: as of an `Answer`; measured rounds keep nothing.
    """

    answers: NDArray[np.int64]
    state: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class Opened:
    """What a round's secure sum tells the server.

    Attributes:
        counts: int64 (k,), the sum of the survivors' bits; k is d, or less where `score_mean` has the rest.
        survivors: how many clients are in it.
        progress: how far the run is: 0 in the first round, 1 in the last.
        score_mean: theta bar of the last d - k coordinates, where these send scores (`mask.score_layers`).
        moments: what opened before round 1, with a summed record-level release.
    """

    counts: NDArray[np.int64]
    survivors: int
    progress: float
    score_mean: NDArray[np.float64] | None = None
    moments: FeatureMoments | None = None


class ClientSide(Protocol):
    """One client's part; what it keeps beside its state lies in its own folder."""

    def prepare(self, *, answered: bool) -> None:
        """Before the first round: read what is needed of the data; safe to repeat.

        Args:
            answered: whether this client has answered a round already.
        """

    def require(self) -> None:
        """Refuse to go on, by `RunFolderError`, where what the client has prepared is gone."""

    def answer(self, broadcast: Broadcast, state: Arrays | None) -> Answer | MeasuredAnswer:
        """This round's answer.

        Args:
            broadcast: what the server sent.
            state: that of the last answer; None before the first.
        """
        ...


class ServerSide(Protocol):
    """The server's part; what it keeps between rounds is in `saved`."""

    def public(self, round_number: int, theta: NDArray[np.float64]) -> Arrays:
        """What the clients of a round are sent beside theta; the same whenever it is asked again."""
        return NOTHING

    def absorb(self, broadcast: Broadcast, opened: Opened) -> Step:
        """theta after a round, and the mean step towards what was opened."""
        ...

    def lost(self, broadcast: Broadcast, moments: FeatureMoments | None) -> Step | None:
        """theta after a round that opened nothing; None leaves it as it is. `moments` as in `Opened`."""
        return None

    def saved(self) -> Arrays:
        """What the checkpoint must hold beside theta, arrays by name; not called "round" or "theta"."""
        return NOTHING

    def load(self, saved: Arrays) -> None:
        """Go on from what `saved` gave.

        Raises:
            KeyError, ValueError: it is not that.
        """


class Behaviour(Protocol):
    """Makes the two sides; one object a process, which holds nothing that a result depends on."""

    def client(self, index: int, folder: Path, moments: ClientMoments) -> ClientSide:
        """The part of client `index`.

        Args:
            index: its id, 0 to n - 1.
            folder: its private folder.
            moments: what it may know of its images: their moments, exact or released once with noise.
        """
        ...

    def server(self) -> ServerSide:
        """The server's part, before round 1."""
        ...

    def check(self, broadcast: Broadcast) -> None:
        """Refuse what no server of this behaviour sends beside theta. Asked across machines, where the server
        may be anybody's, before the round is charged and before data are read.

        Raises:
            AgreementError: it is not one of its broadcasts.
        """
        if broadcast.public:
            raise AgreementError(f"expected theta alone, got {', '.join(sorted(broadcast.public))} beside it")

    def together(self, broadcast: Broadcast, clients: Sequence[ClientSide]) -> None:
        """Where one process simulates many: compute at once what these will answer next, one by one.

        It may change how long they take, and no result.
        """
        ...
