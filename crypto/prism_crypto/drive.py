"""A session over any transport that carries a request and brings its response: HTTP, a queue, a socket.

A client asks, the server answers at once: with the message that opens the next stage, or with "wait".

    request = client.join(spec, vector, round=1)          # the client's loop, whole
    while request is not None:
        response = post(request)                          # again with the same bytes if it got lost
        request = client.handle(response)
        if client.waiting:
            sleep(0.5)
    total, parties = client.result

    response = server.handle(peer, request, now)          # the server's, for each request

Neither has a clock, a socket or a thread. Time is an argument, in seconds of any clock that does not go back.
A stage ends when all have answered or its deadline is over; who has been silent until then is out of the
session and hears so. What a client sent it sends again, the same bytes; a server takes them once.

`peer` is the client at the other end *as the transport has authenticated it*: by a certificate, or by a token
that `Admission` gives to whoever has signed a hello.

>>> import tempfile
>>> root, ids = Path(tempfile.mkdtemp()), range(3)
>>> identities = [Identity.generate(i) for i in ids]
>>> roster = Roster({i.client_id: i.public_key for i in identities})
>>> for i in identities:
...     enrol(root / str(i.client_id), i, roster, Policy(min_survivors=3), "demo")
>>> spec = CountSpec(2, bound=9)
>>> session = Session.plan(spec, ids, federation="demo", number=1, round=1, roster=roster)
>>> server, clients = Server(session, 60.0, roster=roster), [Client(root / str(i)) for i in ids]
>>> requests = {i: clients[i].join(spec, np.array([i, 3]), round=1) for i in ids}
>>> while requests:
...     for i, request in list(requests.items()):
...         requests[i] = clients[i].handle(server.handle(i, request, now=0.0))
...         if requests[i] is None:
...             del requests[i]
>>> server.result.counts, clients[0].result
(array([3, 9]), (array([3, 9]), 3))
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from prism_crypto.blame import Blame
from prism_crypto.client import SecureSumClient
from prism_crypto.errors import (
    IdentityError,
    InputError,
    MessageError,
    OutOfOrder,
    PolicyError,
    SecureSumError,
)
from prism_crypto.hello import check_hello, new_challenge
from prism_crypto.keeping.guarded_file import PUBLIC, check_folder, read_text, write_new
from prism_crypto.keeping.identity import Identity, Roster
from prism_crypto.keeping.session_counter import SessionCounter, check_start
from prism_crypto.policy import Policy
from prism_crypto.primitives.randomness import Rng
from prism_crypto.primitives.secret import Confidential
from prism_crypto.server import SecureSumResult, SecureSumServer
from prism_crypto.session import Session
from prism_crypto.spec import CountSpec
from prism_crypto.stage import Stage

__all__ = ["Admission", "Client", "Server", "enrol"]

Vector: TypeAlias = NDArray[Any]

_HEAD: Final = 10
_JOIN, _MESSAGE, _POLL = 1, 2, 3  # what a client asks
_WAIT, _OFFER, _ANSWER, _AGAIN, _GONE = 17, 18, 19, 20, 21  # what a server answers
_STAGES: Final = list(Stage)
_LONGEST_REASON: Final = 2000
_TRIES: Final = 3  # a byte altered on the way costs one; who is refused so often in a stage is told so
_NAME: Final = re.compile(r"[!-~]([ -~]{0,254}[!-~])?")
"""What federation.txt can hold."""


def enrol(
    folder: str | Path,
    identity: Identity,
    roster: Roster,
    policy: Policy,
    federation: str,
    *,
    number: int = 0,
    round: int = 0,
) -> None:
    """Write what one client keeps, once, into a new folder (mode 0700).

    The files are those of `prism-secure identity`: ``identity.json``, ``roster.json``, ``policy.json``,
    ``federation.txt`` and ``sessions``, the counter, which is never put back from a backup.

    Args:
        folder, identity, roster, policy, federation: what is written.
        number, round: above which the federation's sessions and rounds are numbered. 0: from 1. Where numbers
            are a clock's milliseconds, as `prism_secure` has them, its reading a day ago.

    Raises:
        IdentityError: the folder exists or can't be written, the roster does not pin the identity, or the
            federation's name is none.
        StateError: number or round is out of range; nothing is written.
    """
    if not _NAME.fullmatch(federation):
        raise IdentityError(
            f"a federation's name is 1 to 256 ASCII characters, no space around them, not {federation!r}"
        )
    folder, reason = Path(folder), None
    check_start(number, round)
    if identity.client_id not in roster or roster.public_key(identity.client_id) != identity.public_key:
        raise IdentityError("the roster does not pin this identity", peer=identity.client_id)
    try:
        folder.mkdir(mode=0o700, parents=True)
    except OSError as error:
        reason = error.strerror
    if reason is not None:
        raise IdentityError(f"{folder} can't be made: {reason}")
    identity.save(folder / "identity.json")
    policy.save(folder / "policy.json")
    SessionCounter.enrol(folder / "sessions", number=number, round=round)
    write_new(folder / "federation.txt", f"{federation}\n", PUBLIC)
    roster.save(folder / "roster.json")


class Client(Confidential):
    """One client, session after session; what it keeps is in a folder.

    Args:
        folder: see `enrol`.

    Attributes:
        client_id, federation, identity, roster: from the folder.
        waiting: the server has nothing new yet: ask again after a while.
        result: the opened sum (d,) of the last session and how many are in it, as the server says, or None.

    Raises:
        IdentityError, StateError: a file is missing, open to others, or damaged; or others may write to the
            folder.

    What the session holds in secret lives in this object alone: a client that has crashed is out of its
    session, and takes part in the next one.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        check_folder(folder)
        self.identity = Identity.load(folder / "identity.json")
        self.roster = Roster.load(folder / "roster.json")
        self._policy = Policy.load(folder / "policy.json")
        self._counter = SessionCounter(folder / "sessions")
        _ = self._counter.last
        self.federation = read_text(folder / "federation.txt", PUBLIC).strip()
        if not _NAME.fullmatch(self.federation):
            raise IdentityError(f"{folder / 'federation.txt'} does not name a federation")
        self.client_id = self.identity.client_id
        self.waiting = False
        self.result: tuple[NDArray[np.int64], int] | None = None
        self._wanted: _Wanted | None = None
        self._party: SecureSumClient | None = None
        self._sent: Stage | None = None

    def join(
        self,
        spec: CountSpec,
        vector: Vector | Callable[[], Vector],
        *,
        round: int,
        model_hash: bytes = b"",
        binding: bytes = b"",
    ) -> bytes:
        """Ask for the next session; a session that is under way is left.

        Args:
            spec: what is summed: a session of another is refused.
            vector: integers (d,), or what makes them, called once, when it is time to upload.
            round: the round that the vector is for, from 1: a session of another is refused, so that no
                vector is in two sums. 0: rounds are not numbered.
            model_hash, binding: see `Session`.

        Returns:
            The first request.
        """
        if self._party is not None:
            self._party.abort()
        self._party, self._sent, self.result = None, None, None
        self._wanted = _Wanted(spec, vector, round, model_hash, binding)
        return _frame(_JOIN, 0, None)

    def handle(self, response: bytes) -> bytes | None:
        """Take the server's response, return the next request; None at the end, when `result` is there.

        Raises:
            OutOfOrder: nothing was joined, or the server goes on without this client, and says why.
            PolicyError: the session offered is another than was asked for, or below this client's policy.
            SecureSumError: whatever `SecureSumClient` finds. After an error, also an `InputError` about the
                vector, the client is out of the session.
        """
        if self._wanted is None:
            raise OutOfOrder("join comes first")
        kind, number, stage, payload = _read(response)
        self.waiting = kind == _WAIT
        try:
            # One that has come late is of an earlier session.
            if kind == _GONE and self._party is not None and number == self._party.session.number:
                reason = payload[:_LONGEST_REASON].decode(errors="replace")
                raise OutOfOrder(f"the server goes on without this client: {reason}", stage=stage)
            if self._party is None:
                return self._enter(self._wanted, payload) if kind == _OFFER else _frame(_JOIN, 0, None)
            return self._go_on(self._wanted, self._party, kind, number, stage, payload)
        except SecureSumError as error:
            error.at(stage)
            if self._party is not None:
                self._party.abort()
            self._party, self._wanted = None, None
            raise

    def _enter(self, wanted: _Wanted, offer: bytes) -> bytes:
        session = Session.from_offer(offer, model_hash=wanted.model_hash, binding=wanted.binding)
        asked = (self.federation, wanted.round, wanted.spec)
        if (session.federation, session.round, session.spec) != asked:
            raise PolicyError(
                f"this client wants to add to {wanted.spec} in round {wanted.round} of {self.federation!r}; "
                f"the server offers {session.spec} in round {session.round} of {session.federation!r}"
            )
        party = SecureSumClient(
            self.client_id,
            session,
            self._policy,
            identity=self.identity,
            roster=self.roster,
            counter=self._counter,
        )
        advert = party.advertise()
        self._party, self._sent = party, Stage.ADVERTISE
        return _frame(_MESSAGE, session.number, Stage.ADVERTISE, advert)

    def _go_on(
        self,
        wanted: _Wanted,
        party: SecureSumClient,
        kind: int,
        number: int,
        stage: Stage | None,
        payload: bytes,
    ) -> bytes | None:
        sent = self._sent
        ours = number == party.session.number and stage is sent
        if ours and kind == _AGAIN:
            return _frame(_MESSAGE, number, sent, party.resend())
        if not ours or kind != _ANSWER:  # "wait", or a response that has come twice
            return _frame(_POLL, party.session.number, sent)
        if (following := party.stage) is None:
            self.result = party.opened(payload)
            self._wanted, self._party = None, None
            return None
        match following:
            case Stage.SHARE:
                reply = party.share(payload)
            case Stage.UPLOAD:
                reply = party.upload(payload, wanted.vector() if callable(wanted.vector) else wanted.vector)
            case Stage.CONFIRM:
                reply = party.confirm(payload)
            case _:
                reply = party.unmask(payload)
        self._sent = following
        return _frame(_MESSAGE, number, following, reply)


class _Wanted(Confidential):
    """The sum that a client wants to be in, and what it adds."""

    def __init__(
        self,
        spec: CountSpec,
        vector: Vector | Callable[[], Vector],
        round: int,
        model_hash: bytes,
        binding: bytes,
    ) -> None:
        self.spec, self.vector, self.round = spec, vector, round
        self.model_hash, self.binding = model_hash, binding


class Server(Confidential):
    """One session at the server. Not thread-safe: hold a lock around its calls.

    Args:
        session: what is summed, with whom; see `Session.plan`.
        deadlines: seconds that a stage may take, for all of them or by stage.
        roster: the clients' keys; needed in active mode.
        rng: see `SecureSumServer`.

    Attributes:
        refused: the last error of each client whose message was refused. It is asked for it again, twice in a
            stage: something on the way may have altered it.
        silent: by stage, the clients that had not answered when it ended.
        error: what ended the session without a sum; None if nothing has.
        ended: when the session ended; None before.

    Raises:
        SecureSumError: see `SecureSumServer`; InputError: a deadline is missing or not above 0.
    """

    def __init__(
        self,
        session: Session,
        deadlines: float | Mapping[Stage, float],
        *,
        roster: Roster | None = None,
        rng: Rng = os.urandom,
    ) -> None:
        self._party = SecureSumServer(session, roster=roster, rng=rng)
        self.session = session
        self._seconds = _checked_deadlines(deadlines)
        self._ends: float | None = None
        self._outbox: tuple[Stage | None, dict[int, bytes]] = (None, {})
        self._taken: set[int] = set()
        self._refusals: Counter[tuple[int, Stage]] = Counter()
        self.refused: dict[int, SecureSumError] = {}
        self.silent: dict[Stage, tuple[int, ...]] = {}
        self.error: SecureSumError | None = None
        self.ended: float | None = None

    @property
    def stage(self) -> Stage | None:
        """The stage that is being collected; None at the end."""
        return self._party.stage

    @property
    def blamed(self) -> dict[int, Blame]:
        """Who has broken the protocol, with evidence; for the ``excluded`` of the next `Session.plan`."""
        return dict(self._party.blamed)

    @property
    def unproved(self) -> dict[int, str]:
        """Against whom there is evidence that convicts nobody; see `SecureSumServer.unproved`."""
        return dict(self._party.unproved)

    @property
    def due(self) -> float | None:
        """When the present stage ends at the latest; None before the first request and at the end."""
        return None if self.stage is None else self._ends

    @property
    def result(self) -> SecureSumResult:
        """The sum.

        Raises:
            OutOfOrder: it is not open yet.
            SecureSumError: it will never be: `error`.
        """
        if self.error is not None:
            raise self.error
        return self._party.result

    def tick(self, now: float) -> None:
        """End the stage if its deadline is over; `handle` does so, too."""
        stage = self.stage
        if stage is None:
            return
        if self._ends is None:
            self._ends = now + self._seconds[stage]
        if self._party.waiting and now < self._ends:
            return
        self.silent[stage] = self._party.waiting
        try:
            self._outbox = (stage, self._party.close())
        except SecureSumError as error:
            self.error, self._outbox = error, (stage, {})
        self._taken.clear()
        self._refusals.clear()
        if (following := self.stage) is not None:
            self._ends = now + self._seconds[following]
        else:
            self.ended = now

    def handle(self, peer: int, request: bytes, now: float) -> bytes:
        """Answer one request of a client.

        Args:
            peer: its sender, as the transport has authenticated it.
            request: the bytes.
            now: the time, in seconds.

        Raises:
            MessageError: no `Client` has written that.
        """
        self.tick(now)
        kind, number, stage, payload = _read(request)
        if kind == _JOIN:
            return self._join(peer)
        if kind not in (_MESSAGE, _POLL) or stage is None:
            raise MessageError("not a request of a client", peer=peer)
        if number != self.session.number:
            return self._gone(stage, f"the session is number {self.session.number}, not {number}", number)
        if peer not in self.session.everyone:
            return self._gone(stage, "it is not among the invited")
        if kind == _MESSAGE and stage is self.stage and peer in self._party.waiting:
            self._take(peer, stage, payload)
            self.tick(now)
        return self._answer(peer, stage)

    def _join(self, peer: int) -> bytes:
        """The offer, to those who are awaited; others may be in the session after this one."""
        if self.stage is Stage.ADVERTISE and peer in self._party.waiting:
            return _frame(_OFFER, self.session.number, None, self.session.offer())
        return _frame(_WAIT, self.session.number, None)

    def _take(self, peer: int, stage: Stage, payload: bytes) -> None:
        try:
            self._party.receive(peer, payload)
        except SecureSumError as error:
            self.refused[peer] = error
            self._refusals[peer, stage] += 1
        else:
            self._taken.add(peer)
            self.refused.pop(peer, None)

    def _answer(self, peer: int, stage: Stage) -> bytes:
        number, (ended, outbox) = self.session.number, self._outbox
        if stage is ended and peer in outbox:
            return _frame(_ANSWER, number, stage, outbox[peer])
        if self.error is not None:
            return self._gone(stage, str(self.error))
        if self.stage is None and stage is Stage.UNMASK:
            return _frame(_ANSWER, number, stage, self._party.opened())
        if stage is self.stage and peer in self._taken:
            return _frame(_WAIT, number, stage)
        again = stage is self.stage and peer in self._party.waiting
        if peer in self.refused and not (again and self._refusals[peer, stage] < _TRIES):
            return self._gone(stage, f"its message was refused: {self.refused[peer]}")
        if again:
            return _frame(_AGAIN, number, stage)
        return self._gone(stage, f"{stage.value} is over")

    def _gone(self, stage: Stage, reason: str, number: int | None = None) -> bytes:
        """The end of the session that the client is in, ours or another."""
        number = self.session.number if number is None else number
        return _frame(_GONE, number, stage, reason.encode()[:_LONGEST_REASON])


class Admission(Confidential):
    """Tokens for clients that have signed a hello: who shows one is that client, on a channel with TLS.

    For transports without client certificates. A client asks for a challenge, signs it (`say_hello`) for the
    channel that it has dialled, and shows the token with each request. It rests on the channel: without TLS,
    whose certificate the client knows, a token is anybody's who has read it.

    Args:
        roster, federation: the server's own.
        channel: what clients call it, for example its address.

    >>> from prism_crypto.hello import say_hello
    >>> identity = Identity.generate(3)
    >>> door = Admission(Roster({3: identity.public_key}), "demo", "https://localhost:8443")
    >>> challenge = door.challenge(3)
    >>> token = door.token(3, say_hello(identity, "demo", challenge, "https://localhost:8443"))
    >>> door.owner(token)
    3
    """

    def __init__(self, roster: Roster, federation: str, channel: str) -> None:
        self._roster = roster
        self._federation = federation
        self._channel = channel
        self._challenges: dict[int, bytes] = {}
        self._owners: dict[bytes, int] = {}

    def challenge(self, client_id: int) -> bytes:
        """What this client is to sign, the same until it has.

        Who has no key can ask for it, and can neither answer it nor make it void.

        Raises:
            IdentityError: the roster does not know the client.
        """
        self._roster.public_key(client_id)
        return self._challenges.setdefault(client_id, new_challenge())

    def token(self, client_id: int, signature: bytes) -> str:
        """A new token, for the answer to the challenge; that is used up, an older token of this client void.

        Raises:
            SignatureError: the answer is not this client's. The challenge stays open.
            IdentityError: the client was asked nothing.
        """
        challenge = self._challenges.get(client_id)
        if challenge is None:
            raise IdentityError("no challenge is open for this client", peer=client_id)
        check_hello(self._roster, client_id, signature, self._federation, challenge, self._channel)
        del self._challenges[client_id]
        token = secrets.token_hex(32)
        self._owners = {key: owner for key, owner in self._owners.items() if owner != client_id}
        self._owners[_key(token)] = client_id
        return token

    def owner(self, token: str | None) -> int:
        """Whose token this is.

        Raises:
            IdentityError: nobody's, or there is none.
        """
        if not isinstance(token, str):
            raise IdentityError("there is no token")
        owner = self._owners.get(_key(token))
        if owner is None:
            raise IdentityError("this token is nobody's")
        return owner


def _key(token: str) -> bytes:
    """Looked up by hash, so that the time it takes says nothing of other tokens."""
    return hashlib.sha256(token.encode(errors="replace")).digest()


def _checked_deadlines(deadlines: float | Mapping[Stage, float]) -> dict[Stage, float]:
    given = dict(deadlines) if isinstance(deadlines, Mapping) else dict.fromkeys(Stage, deadlines)
    for stage in Stage:
        if not isinstance(given.get(stage), int | float) or not given[stage] > 0:
            raise InputError(f"deadlines need seconds above 0 for each stage; {stage.value} has none")
    return {stage: float(given[stage]) for stage in Stage}


def _frame(kind: int, number: int, stage: Stage | None, payload: bytes = b"") -> bytes:
    """Kind 1, stage 1 (0: none), session number 8, then the message."""
    return bytes([kind, 0 if stage is None else stage.number]) + number.to_bytes(8) + payload


def _read(data: bytes) -> tuple[int, int, Stage | None, bytes]:
    if len(data) < _HEAD or data[1] > len(_STAGES):
        raise MessageError("not a message of prism_crypto.drive")
    stage = _STAGES[data[1] - 1] if data[1] else None
    return data[0], int.from_bytes(data[2:_HEAD]), stage, data[_HEAD:]
