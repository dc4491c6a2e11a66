"""The process that holds a client's part of a session from its first stage to its last.

Flower starts a new process for each message, and a client's part of the secure sum must not be written
down or copied between two of them: its secrets would be on a disk, and a server that sends one stage twice
would find two clients instead of one that refuses. So the first message starts this process, the
*client process*, beside Flower's, and the processes of all further messages hand it what came and send on
what it answers, over a Unix socket that only this user can open.

It also trains. Flower handles one message of a node at a time, so the training that the first message asks
for goes on here while the advert and the shares travel.

It serves one client (in a simulation: the clients of one of its workers), keeps what training has loaded
for the next round, and ends with the SuperNode that it belongs to, or after an hour in which nobody has
asked for anything.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

from flwr.app import ArrayRecord, Context, Message, MetricRecord
from flwr.common.serde import context_from_proto, context_to_proto
from flwr.proto.message_pb2 import Context as ContextProto
from numpy.typing import NDArray

from prism_crypto import (
    InputError,
    MessageError,
    OutOfOrder,
    PolicyError,
    SecureSumClient,
    SecureSumError,
    Session,
    Stage,
)
from prism_secure.errors import AgreementError
from prism_secure.flower.secure_aggregation import messages as sum_messages
from prism_secure.flower.secure_aggregation.client import Insisted, Train, insisted_on
from prism_secure.flower.secure_aggregation.terms import Terms
from prism_secure.flower.secure_aggregation.wire import (
    Begin,
    Reply,
    Request,
    Step,
    receive_request,
    send,
    together,
)
from prism_secure.run_folder.enrolment import Enrolment

IDLE_SECONDS = 3600.0


Vector: TypeAlias = NDArray[Any]


class _Client:
    """One client in this process, and the session that it is in."""

    def __init__(self, folder: Path) -> None:
        self.lock = threading.Lock()
        self.folder = folder
        self.part: SecureSumClient | None = None
        self.trained: Future[tuple[Vector, bytes]] | None = None

    def begin(self, request: Begin, arrays: list[bytes], trainer: ThreadPoolExecutor) -> Reply:
        message = together(request.message, arrays)
        context = context_from_proto(ContextProto.FromString(request.context))
        with _applications():
            train, insisted = _trainer(request)
            binding = insisted.binding(context)
            enrolment = Enrolment.load(self.folder)
        self.leave()
        sum_messages.check_run_config(message.content, context.run_config)
        session = Session.from_offer(
            sum_messages.unpacked(message.content),
            model_hash=sum_messages.digest(message.content),
            binding=sum_messages.agreement(context.run_id, context.run_config, binding),
        )
        if session.federation != enrolment.federation:
            raise PolicyError(
                f"this client is enrolled in {enrolment.federation!r}, not in {session.federation!r}",
                stage=Stage.ADVERTISE,
            )
        insisted.terms.check(session.spec)
        part = SecureSumClient(
            enrolment.identity.client_id,
            session,
            enrolment.policy,
            identity=enrolment.identity,
            roster=enrolment.roster,
            counter=enrolment.counter,
            resends=False,
        )
        advert = part.advertise()
        sum_messages.as_agreed(message, session)
        self.part = part
        self.trained = trainer.submit(
            _vector, train, message, context, session.spec.dimension, insisted.terms
        )
        return Reply(part.client_id, advert)

    def step(self, request: Step) -> Reply:
        part = self.part
        if part is None:
            raise OutOfOrder(f"this client is in no session, so it can't {request.stage.value}")
        match request.stage:
            case Stage.SHARE:
                return Reply(part.client_id, part.share(request.message))
            case Stage.UPLOAD:
                assert self.trained is not None
                vector, context = self.trained.result()
                self.trained = None
                return Reply(part.client_id, part.upload(request.message, vector), context)
            case Stage.CONFIRM:
                return Reply(part.client_id, part.confirm(request.message))
            case Stage.UNMASK:
                return Reply(part.client_id, part.unmask(request.message))
            case Stage.ADVERTISE:
                raise MessageError("the first stage has no step")

    def leave(self) -> None:
        if self.part is not None:
            self.part.abort()
        if self.trained is not None:
            self.trained.cancel()
        self.part = self.trained = None


class ClientProcess:
    """Answers requests until it is told to end, or nobody needs it any more.

    Args:
        parent: process id of whoever starts Flower's processes; this one ends with it.
    """

    def __init__(self, parent: int) -> None:
        self._parent = parent
        self._clients: dict[str, _Client] = {}
        self._lock = threading.Lock()
        self._trainer = ThreadPoolExecutor(1)  # one at a time: a client's folder has one writer
        self._busy = 0
        self._last = time.monotonic()

    def serve(self, listener: socket.socket) -> None:
        """Answer each connection in a thread of its own, for ever."""
        threading.Thread(target=self._watch, args=(listener,), daemon=True).start()
        while True:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def answer(self, request: Request, arrays: list[bytes]) -> Reply:
        """One request, answered; an error becomes a text, and that leaves: the server is sent it.

        Texts of the secure sum and of `AgreementError` are about the session. All others may hold data of
        the application, or names of files: they stay in this process's log, and only their type leaves.
        """
        with self._lock:
            part = self._clients.setdefault(request.folder, _Client(Path(request.folder)))
            self._busy += 1
        try:
            with part.lock:
                try:
                    if isinstance(request, Begin):
                        return part.begin(request, arrays, self._trainer)
                    return part.step(request)
                except (SecureSumError, AgreementError) as error:
                    if not isinstance(error, InputError):
                        part.leave()
                    return Reply(error=f"{type(error).__name__}: {error}")
                except Exception as error:
                    traceback.print_exc()
                    part.leave()
                    kind = type(error.__cause__ if isinstance(error, _ApplicationFailed) else error).__name__
                    return Reply(error=f"the client's own code raised {kind}: its log says more")
        finally:
            with self._lock:
                self._busy -= 1
                self._last = time.monotonic()

    def _converse(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, EOFError):
            send(connection, self.answer(*receive_request(connection)))

    def _watch(self, listener: socket.socket) -> None:
        while _alive(self._parent) and (self._busy or time.monotonic() - self._last < IDLE_SECONDS):
            time.sleep(1)
        with contextlib.suppress(OSError):
            Path(listener.getsockname()).unlink()
        os._exit(0)  # whatever is still training, nobody waits for it


class _ApplicationFailed(Exception):
    """Around an error of the secure sum that the application's own code raised: it is the application's."""


@contextlib.contextmanager
def _applications() -> Iterator[None]:
    try:
        yield
    except SecureSumError as error:
        raise _ApplicationFailed from error


def _trainer(request: Begin) -> tuple[Train, Insisted]:
    """The function that trains and the terms it was registered with, imported as the application's own."""
    sys.path[:0] = [entry for entry in request.path if entry not in sys.path]
    module, _, name = request.train.partition(":")
    train: Any = importlib.import_module(module)
    for part in name.split("."):
        train = getattr(train, part)
    return train, insisted_on(request.train)


def _vector(
    train: Train, message: Message, context: Context, dimension: int, terms: Terms
) -> tuple[Vector, bytes]:
    """Train; the integers that the reply adds, and the context afterwards."""
    with _applications():
        reply = train(message, context)
    found = [record for record in reply.content.values() if isinstance(record, ArrayRecord)]
    if len(found) != 1:
        raise InputError(f"the reply must hold one ArrayRecord to be summed, not {len(found)}")
    metrics = [record for record in reply.content.values() if isinstance(record, MetricRecord)]
    with _applications():  # what is wrong with a value is not for the server to read
        vector = terms.vector(found[0], metrics[0] if metrics else MetricRecord())
    if len(vector) != dimension:
        raise InputError(f"the session sums {dimension} integers, the reply holds {len(vector)}")
    return vector, context_to_proto(context).SerializeToString()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def main() -> None:
    """Listen at the socket and serve for the parent that the arguments name.

    The process that was started ends as soon as somebody can connect, and its child serves: so it is nobody's
    child, and whoever starts it waits for no longer than that.
    """
    faulthandler.enable()  # a crash says where, in the log
    address, parent = sys.argv[1], int(sys.argv[2])
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    if os.fork():
        os._exit(0)
    ClientProcess(parent).serve(listener)
