"""One client of a secure sum: bytes in, bytes out.

The five methods are the five stages. Each takes the client from one state to the next; each state is a type
of its own (`Ready`, `Advertised`, `Shared`, `Uploaded`, `Confirmed` or `Vouched`, `Finished`), and a method
that does not belong to the present state raises. Any other failure ends the session for this client: its
secrets are overwritten, and the error is raised from a frame that holds none, without the traceback of those
that did.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from prism_crypto.boundary import scrubbed
from prism_crypto.errors import IdentityError, InputError, OutOfOrder, StateError
from prism_crypto.keeping.identity import Identity, Roster, check_client_id
from prism_crypto.keeping.session_counter import SessionNumbers
from prism_crypto.policy import Policy
from prism_crypto.primitives.randomness import Rng, checked_rng
from prism_crypto.primitives.secret import Confidential
from prism_crypto.session import Session
from prism_crypto.stage import Mode, Stage
from prism_crypto.stages.advertise import advertise
from prism_crypto.stages.confirm import confirm
from prism_crypto.stages.party import Party
from prism_crypto.stages.share import share
from prism_crypto.stages.states import (
    Advertised,
    Confirmed,
    Finished,
    Ready,
    Shared,
    Stopped,
    Uploaded,
    Vouched,
)
from prism_crypto.stages.unmask import read_opened, unmask, unmask_unconfirmed
from prism_crypto.stages.upload import upload
from prism_crypto.stages.vouch import unmask_vouched, vouch

__all__ = ["SecureSumClient"]


class _State(Protocol):
    def erase(self) -> None: ...


S = TypeVar("S", bound=_State)
_Outcome: TypeAlias = bytes | BaseException


class _Ended:
    """A client that has aborted, or is in the middle of a step."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def erase(self) -> None:
        """Nothing is left to erase."""


_NEXT: dict[type[Any], Stage] = {
    Ready: Stage.ADVERTISE,
    Advertised: Stage.SHARE,
    Shared: Stage.UPLOAD,
    Uploaded: Stage.CONFIRM,
    Confirmed: Stage.UNMASK,
    Vouched: Stage.UNMASK,
}


class SecureSumClient(Confidential):
    """One client in one session.

    Args:
        client_id: this client's id.
        session: the session's parameters, as this client knows them: with the hash of the model that it
            loaded itself.
        policy: what this client demands. It is checked by `advertise`, before any byte leaves.
        identity: this client's signing key; needed in active mode.
        roster: the pinned keys of all clients; needed in active mode.
        counter: where session numbers and the rounds of uploads are recorded; needed in active mode.
            `SessionCounter` keeps them in a file. A semi-honest client without one relies on the server also
            for this: that no two sessions differ in its vector alone.
        resends: keep the last reply for `resend`. Without it a client holds no vector after `upload`.
        rng: source of randomness.

    Raises:
        IdentityError: active mode without identity, roster or counter, or with another client's.
        RandomnessError: ``rng`` was not made for secrets.

    A client's randomness is drawn from ``rng`` and cannot be seeded. Its methods raise the errors of
    `prism_crypto.errors`, with ``stage`` and ``peer``; after an error other than `OutOfOrder` or
    `InputError` the client is done.
    """

    def __init__(
        self,
        client_id: int,
        session: Session,
        policy: Policy,
        *,
        identity: Identity | None = None,
        roster: Roster | None = None,
        counter: SessionNumbers | None = None,
        resends: bool = True,
        rng: Rng = os.urandom,
    ) -> None:
        check_client_id(client_id)
        if session.mode is Mode.ACTIVE:
            if identity is None or roster is None or counter is None:
                raise IdentityError(
                    "active mode needs an identity, a pinned roster and a session counter", peer=client_id
                )
            if identity.client_id != client_id or roster.public_key(client_id) != identity.public_key:
                raise IdentityError("the identity is not the one that the roster pins", peer=client_id)
        self.client_id = client_id
        self.session = session
        self._policy = policy
        self._counter = counter
        self._resends = resends
        self._recorded = False
        self._reply: bytes | None = None
        self._state: _State = Ready(Party(client_id, session, identity, roster, checked_rng(rng)))

    def __repr__(self) -> str:
        stage = self.stage
        return f"<SecureSumClient {self.client_id}, {'done' if stage is None else f'before {stage.value}'}>"

    @property
    def stage(self) -> Stage | None:
        """The stage that comes next; None after the last, or after an abort."""
        state = type(self._state)
        if state is Uploaded and self.session.mode is Mode.SEMI_HONEST:
            return Stage.UNMASK
        return _NEXT.get(state)

    def advertise(self) -> bytes:
        """Stage 1: enter the session, and return the advert.

        Raises:
            PolicyError: the session is unsound or below this client's policy.
            StateError: its number is not above all that this client has seen, or its round not above all in
                which an upload of this client has left.
            OutOfOrder: this is not the next stage.
        """
        return self._deliver(self._step(Ready, Stage.ADVERTISE, self._enter))

    def share(self, adverts: bytes) -> bytes:
        """Stage 2: take the adverts, return the sealed shares. Errors: see `stages.share.share`."""
        return self._deliver(self._step(Advertised, Stage.SHARE, partial(share, data=adverts)))

    def upload(self, shares: bytes, values: NDArray[Any]) -> bytes:
        """Stage 3: take the shares, return the masked vector. Errors: see `stages.upload.upload`.

        The session's round is recorded before this returns, or refuses the values; from then on this client
        refuses other sessions of that round, with `StateError`. So a round whose upload has left is never
        repeated: the application goes on with a new round, for which it makes a new input.

        In a hybrid session a dealer may have sent something else than it signed, so that there is no mask
        with it. Then the reply says so, for the server, in place of the vector, and `stage` is None.

        Args:
            shares: the server's message.
            values: this client's integers, shape (d,), any integer dtype or bool, each 0..bound. They are
                checked first: after `InputError` the stage may be tried again, in this session.
        """
        outcome = self._step(Shared, Stage.UPLOAD, partial(self._send, data=shares, values=values))
        del values  # an error is raised from a frame that does not hold the vector
        return self._deliver(outcome)

    def confirm(self, survivors: bytes) -> bytes:
        """Stage 4, active mode only: take the survivor set, return a signature over it.

        On a chosen graph: take the surviving neighbours' vouchers, vouch to those that chose this client.
        Errors: see `stages.confirm.confirm` and `stages.vouch.vouch`. A client does this once a session.
        """
        if self.session.mode is not Mode.ACTIVE:
            raise OutOfOrder("a semi-honest session has no confirm stage", stage=Stage.CONFIRM)
        if self.session.graph == "chosen":
            return self._deliver(self._step(Uploaded, Stage.CONFIRM, partial(vouch, data=survivors)))
        return self._deliver(self._step(Uploaded, Stage.CONFIRM, partial(confirm, data=survivors)))

    def unmask(self, message: bytes) -> bytes:
        """Stage 5: take the confirmations (semi-honest: the survivor set), return shares that open the sum.

        Errors: see `stages.unmask.unmask`. The client does this once; it holds no secret afterwards.
        """
        if self.session.graph == "chosen":
            return self._deliver(self._step(Vouched, Stage.UNMASK, partial(unmask_vouched, data=message)))
        if self.session.mode is Mode.ACTIVE:
            return self._deliver(self._step(Confirmed, Stage.UNMASK, partial(unmask, data=message)))
        return self._deliver(self._step(Uploaded, Stage.UNMASK, partial(unmask_unconfirmed, data=message)))

    def opened(self, message: bytes) -> tuple[NDArray[np.int64], int]:
        """After the end: the opened sum, shape (d,), and how many survived, as the server says.

        Nothing vouches for this message but the server; a client that must not be lied to about the sum
        needs another source.

        Raises:
            OutOfOrder: the client is not at the end.
            MessageError, ContextMismatch, ProtocolError, SumError: the message is no sum of this session.
        """
        state = self._state
        if not isinstance(state, Finished):
            raise self._out_of_order(Stage.UNMASK)
        return read_opened(state, message)

    def resend(self) -> bytes:
        """The last reply, the very same bytes, for a transport that lost it.

        Raises:
            OutOfOrder: there is none, or it was not kept (``resends=False``), or the client has aborted.
        """
        if self._reply is None:
            raise OutOfOrder("there is no reply to send again", stage=self.stage)
        return self._reply

    def abort(self) -> None:
        """Leave the session: overwrite the secrets, refuse whatever comes."""
        state, self._state = self._state, _Ended("has left the session")
        self._reply = None
        state.erase()

    def _enter(self, state: Ready) -> tuple[Advertised, bytes]:
        self._policy.check(self.session, self.client_id, state.party.roster)
        if self._counter is not None:
            try:
                self._counter.advance(self.session.number, self.session.round)
            except StateError as error:
                error.at(Stage.ADVERTISE)
                raise
        return advertise(state)

    def _send(self, state: Shared, data: bytes, values: NDArray[Any]) -> tuple[Uploaded | Stopped, bytes]:
        try:
            after, message = upload(state, data, values)
        except InputError:
            # Whoever hears of it has learned that a value is above the bound, which the server chose: in
            # another session of this round, with another bound, it would learn where the largest one lies.
            self._record_round()
            raise
        if isinstance(after, Stopped):
            return after, message  # the vector has not left: another session of this round may have it
        try:
            self._record_round()
        except BaseException:
            after.erase()
            raise
        return after, message

    def _record_round(self) -> None:
        if self._counter is None or self._recorded:
            return
        try:
            self._counter.uploaded(self.session.round)
        except StateError as error:
            error.at(Stage.UPLOAD)
            raise
        self._recorded = True

    def _step(self, expected: type[S], stage: Stage, action: Callable[[S], tuple[_State, bytes]]) -> _Outcome:
        """Run one stage; return the reply, or the error to raise."""
        state = self._state
        if not isinstance(state, expected):
            return self._out_of_order(stage)
        self._state = _Ended(f"is inside, or was interrupted in, {stage.value}")
        try:
            after, reply = action(state)
        except InputError as error:
            self._state = state
            return scrubbed(error, stage, self.client_id)
        except BaseException as error:
            self._state, self._reply = _Ended(f"aborted at {stage.value}"), None
            state.erase()
            return scrubbed(error, stage)
        self._state = after
        self._reply = reply if self._resends else None
        return reply

    def _out_of_order(self, stage: Stage) -> OutOfOrder:
        state = self._state
        if isinstance(state, _Ended):
            reason = f"this client {state.reason}"
        elif isinstance(state, Stopped):
            reason = f"this client has stopped: {state.reason}"
        elif self.stage is None:
            reason = "this client has finished the session"
        else:
            reason = f"the next stage of this client is {self.stage.value}"
        return OutOfOrder(f"{stage.value} is out of order: {reason}", stage=stage)

    @staticmethod
    def _deliver(outcome: _Outcome) -> bytes:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome
