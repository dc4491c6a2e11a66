"""All parties of a secure sum in one process, for simulation and tests.

Every client and the server run the real protocol and exchange the real bytes. But they share one memory:
**this protects nobody**. Protection begins where the parties are apart, each with `SecureSumClient` or
`SecureSumServer` behind a transport of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from prism_crypto.client import SecureSumClient
from prism_crypto.errors import InputError
from prism_crypto.keeping.identity import Identity, Roster
from prism_crypto.keeping.session_counter import MemoryCounter
from prism_crypto.policy import Policy
from prism_crypto.primitives.randomness import Rng, checked_rng
from prism_crypto.server import SecureSumResult, SecureSumServer
from prism_crypto.session import GraphKind, Session, Suite
from prism_crypto.simulated import simulated_sum
from prism_crypto.spec import CountSpec
from prism_crypto.stage import Mode, Stage
from prism_crypto.wire.codec import whole_numbers

__all__ = ["Inputs", "SessionContext", "secure_sum"]

Vector: TypeAlias = NDArray[Any]
Inputs: TypeAlias = Sequence[Vector | Callable[[], Vector]] | Vector | Iterable[Vector | Callable[[], Vector]]
"""One vector of shape (d,) for each client, or a callable that makes it, or an iterable of these."""


@dataclass(frozen=True)
class SessionContext:
    """What an application binds into a session beside the sum's own parameters.

    Attributes:
        federation, number, round, model_hash, binding: see `Session`.
    """

    federation: str = "simulation"
    number: int = 1
    round: int = 0
    model_hash: bytes = b""
    binding: bytes = b""


def secure_sum(
    inputs: Inputs,
    bound: int | Sequence[tuple[int, int]] = 1,
    threshold: int | None = None,
    drop: Mapping[int, Stage] | None = None,
    mode: Mode | str = Mode.ACTIVE,
    *,
    context: SessionContext | None = None,
    min_survivors: int | None = None,
    min_cohort: int | None = None,
    colluders: int | None = None,
    graph: GraphKind | Literal["auto"] = "auto",
    dropout: float = 0.1,
    codec: str = "integers",
    suite: Suite = "x25519",
    clients: int | None = None,
    identities: Sequence[Identity] | None = None,
    rng: Rng = os.urandom,
    timings: MutableMapping[str, float] | None = None,
    simulate: bool = False,
) -> SecureSumResult:
    """Sum the clients' vectors by the real protocol, every party in this process. It protects nobody.

    Vectors are asked for one at a time, in the order of the clients, when a client uploads, and are let go
    before the next: peak memory is O(d + n·k) for k neighbours a client.

    Args:
        inputs: one vector for each client 0..n-1: shape (d,), integers, booleans or floats that are whole
            numbers, values 0..bound. Or callables that return them, or an iterable (then give ``clients``,
            unless it has a length).
        bound: the largest value of one client in one coordinate; or length and bound of each part of the
            vector, see `CountSpec.of_parts`.
        threshold: t; by default see `Session.plan`.
        drop: for clients that drop out, the first stage whose message does not arrive. A client that drops at
            upload or before is not in the sum; at confirm or unmask it is. (A semi-honest session has no
            confirm: dropping there means dropping at unmask.)
        mode: ``"active"`` or ``"semi_honest"``.
        context: what the application binds into the session.
        min_survivors, min_cohort, colluders, graph, dropout: see `Session.plan`.
        suite: how clients agree on keys; see `Session.plan`.
        codec: name of how the integers are read, bound into the session.
        clients: number of clients, where ``inputs`` has no length.
        identities: signing keys of clients 0..n-1 for active mode; by default new ones.
        rng: source of randomness.
        timings: filled with seconds of CPU time by ``"client.<stage>"`` (all clients together) and
            ``"server.<stage>"``; the making of the inputs is not in them.
        simulate: add up in the clear instead, which is quick: no keys, no masks, nobody drops out. Parameters
            and vectors are checked all the same; the result is that of the protocol, its sizes to the byte.

    Returns:
        The sum, its survivors and what it cost.

    Raises:
        InputError: a vector or an argument is out of range.
        PolicyError: the parameters are not sound together.
        ThresholdError: too few clients are left; nothing opens.

    >>> bits = [np.array([1, 0, 1]), np.array([1, 1, 0]), np.array([0, 1, 0]), np.array([1, 1, 1])]
    >>> result = secure_sum(bits, drop={2: Stage.UPLOAD})
    >>> result.counts.tolist(), result.survivors
    ([3, 2, 2], (0, 1, 3))
    """
    rng = checked_rng(rng)
    gone = _checked_drop(drop or {})
    turns = _Turns(inputs, clients)
    count = turns.count
    if unknown := [client_id for client_id in gone if not 0 <= client_id < count]:
        raise InputError(f"drop names client {unknown[0]}; there are clients 0..{count - 1}")
    if simulate and gone:
        raise InputError("simulate adds up all clients' vectors: nobody can drop out; leave out drop")
    uploading = (i for i in range(count) if not _dropped(gone.get(i), Stage.UPLOAD))
    dimension = turns.look(next(uploading, 0)).size
    where = context or SessionContext()
    if mode not in list(Mode):
        raise InputError(f"mode must be one of {', '.join(Mode)}, not {mode!r}")
    mode = Mode(mode)
    signers = _signers(count, identities, rng) if mode is Mode.ACTIVE else None
    roster = None if signers is None else Roster({i: key.public_key for i, key in enumerate(signers)})
    session = Session.plan(
        _spec(dimension, bound, codec),
        range(count),
        federation=where.federation,
        number=where.number,
        round=where.round,
        mode=mode,
        threshold=threshold,
        min_survivors=min_survivors,
        min_cohort=min_cohort,
        colluders=colluders,
        graph=graph,
        dropout=dropout,
        roster=roster,
        suite=suite,
        model_hash=where.model_hash,
        binding=where.binding,
    )
    # On a chosen graph survivors are the server's word; what a client can demand is the guaranteed cohort.
    surely = session.min_cohort + session.colluders if session.graph == "chosen" else session.min_survivors
    policy = Policy(
        min_survivors=max(2, surely),
        min_cohort=session.min_cohort,
        colluders=session.colluders,
        threshold=session.threshold,
        mode=mode,
        suite=suite,
    )
    # In a Harary graph a client knows the number of the others, not their ids.
    seen = Session.from_offer(session.offer(), model_hash=where.model_hash, binding=where.binding)
    if simulate:
        policy.check(seen, 0, roster)
        result = simulated_sum(session, map(turns.take, range(count)))
        turns.end()
        return result
    server = SecureSumServer(session, roster=roster, rng=rng)
    parties = [
        SecureSumClient(
            client_id,
            seen,
            policy,
            identity=None if signers is None else signers[client_id],
            roster=roster,
            counter=MemoryCounter(where.number - 1),
            resends=False,
            rng=rng,
        )
        for client_id in range(count)
    ]
    return _run(server, parties, turns, gone, _Clock(timings))


def _spec(dimension: int, bound: int | Sequence[tuple[int, int]], codec: str) -> CountSpec:
    if isinstance(bound, int) or not isinstance(bound, Sequence):
        return CountSpec(dimension=dimension, bound=bound, codec=codec)
    spec = CountSpec.of_parts(bound, codec)
    if spec.dimension != dimension:
        raise InputError(f"bound has parts of {spec.dimension} coordinates, the vectors {dimension}")
    return spec


def _run(
    server: SecureSumServer,
    parties: list[SecureSumClient],
    turns: _Turns,
    gone: dict[int, Stage],
    clock: _Clock,
) -> SecureSumResult:
    inbox: dict[int, bytes] = dict.fromkeys(range(len(parties)), b"")
    while (stage := server.stage) is not None:
        for client_id, party in enumerate(parties):
            message = inbox.pop(client_id, None)
            if message is None or _dropped(gone.get(client_id), stage):
                continue
            vector = turns.take(client_id) if stage is Stage.UPLOAD else None
            with clock.during(f"client.{stage.value}"):
                try:
                    reply = _answer(party, stage, message, vector)
                except InputError as error:
                    error.at(stage, client_id)
                    raise
            del vector
            with clock.during(f"server.{stage.value}"):
                server.receive(client_id, reply)
        with clock.during(f"server.{stage.value}"):
            inbox = server.close()
        if stage is Stage.UPLOAD:
            turns.end()
    return server.result


def _answer(party: SecureSumClient, stage: Stage, message: bytes, vector: Vector | None) -> bytes:
    match stage:
        case Stage.ADVERTISE:
            return party.advertise()
        case Stage.SHARE:
            return party.share(message)
        case Stage.UPLOAD:
            assert vector is not None
            return party.upload(message, vector)
        case Stage.CONFIRM:
            return party.confirm(message)
        case Stage.UNMASK:
            return party.unmask(message)


def _dropped(at: Stage | None, stage: Stage) -> bool:
    return at is not None and not stage.before(at)


class _Clock:
    """Adds up seconds by name, if anybody wants them: CPU time, which other processes do not disturb."""

    def __init__(self, timings: MutableMapping[str, float] | None) -> None:
        self._timings = timings

    @contextmanager
    def during(self, name: str) -> Iterator[None]:
        if self._timings is None:
            yield
            return
        start = time.thread_time()
        yield
        self._timings[name] = self._timings.get(name, 0.0) + time.thread_time() - start


def _checked_drop(drop: Mapping[int, Stage]) -> dict[int, Stage]:
    if not isinstance(drop, Mapping):
        raise InputError(f"drop maps client ids to stages, as in {{3: Stage.UPLOAD}}; got {drop!r}")
    checked = {}
    for client_id, stage in drop.items():
        if not isinstance(client_id, int | np.integer) or isinstance(client_id, bool):
            raise InputError(f"drop maps client ids, integers, to stages; {client_id!r} is none")
        if stage not in list(Stage):
            raise InputError(f"drop maps client ids to stages ({', '.join(Stage)}); {stage!r} is none")
        checked[int(client_id)] = Stage(stage)
    return checked


class _Turns:
    """The clients' vectors, each made when its turn comes, none made for clients that do not upload."""

    def __init__(self, inputs: Inputs, clients: int | None) -> None:
        iterable = isinstance(inputs, Iterable) and getattr(inputs, "shape", None) != ()
        if isinstance(inputs, Mapping) or not iterable:
            kind = type(inputs).__name__
            raise InputError(f"expected a vector for each client, in a list in their order, not in {kind}")
        if clients is not None and (not isinstance(clients, int | np.integer) or isinstance(clients, bool)):
            raise InputError(f"clients must be int, not {type(clients).__name__}")
        length = len(inputs) if isinstance(inputs, Sized) else None
        self.count = (length or 0) if clients is None else int(clients)
        if self.count < 1 or length not in (None, self.count):
            raise InputError(
                f"expected a vector for each client; there are {'?' if length is None else length}, "
                f"clients is {clients}"
            )
        self._items = iter(inputs)
        self._next = 0
        self._ahead: Vector | None = None

    def look(self, client_id: int) -> Vector:
        """The vector of this client, which stays its for the next `take`."""
        self._ahead = self.take(client_id)
        self._next = client_id
        return self._ahead

    def take(self, client_id: int) -> Vector:
        """The vector of this client; those before it are gone."""
        if self._ahead is not None and self._next == client_id:
            vector, self._ahead = self._ahead, None
            self._next += 1
            return vector
        missing = object()
        item: Any = missing
        while self._next <= client_id:
            item = next(self._items, missing)
            if item is missing:
                raise InputError(
                    f"inputs ended after {self._next} vectors, {self.count} clients need one each"
                )
            self._next += 1
        return _vector(item() if callable(item) else item, client_id)

    def end(self) -> None:
        """Refuse what is left over, after the turns of all clients.

        Raises:
            InputError: there are more vectors than clients.
        """
        missing = object()
        while self._next < self.count and next(self._items, missing) is not missing:
            self._next += 1  # of a client that dropped out
        if self._next == self.count and next(self._items, missing) is not missing:
            raise InputError(f"inputs has more than {self.count} vectors, one for each of the clients")


def _vector(made: Any, client_id: int) -> Vector:
    """One client's input as integers of shape (d,)."""
    if not isinstance(made, np.ndarray):
        kind = f"{type(made).__module__}.{type(made).__qualname__}".removeprefix("builtins.")
        mend = "tensor.detach().cpu().numpy()" if hasattr(made, "detach") else "numpy.asarray(…)"
        if isinstance(made, Mapping | list | tuple):
            mend += "; prism_secure.plug_in.secure_counts takes layers"
        raise InputError(
            f"the vector of client {client_id} must be a NumPy array of shape (d,), not {kind}: {mend}"
        )
    if made.ndim != 1 or not made.size:
        raise InputError(
            f"the vector of client {client_id} must be a NumPy array of shape (d,), d at least 1, "
            f"not of shape {made.shape}: array.reshape(-1)"
        )
    try:
        return whole_numbers(made)
    except InputError as error:
        refused = error.message
    raise InputError(f"the vector of client {client_id}: {refused}")


def _signers(count: int, identities: Sequence[Identity] | None, rng: Rng) -> Sequence[Identity]:
    if identities is None:
        return [Identity.generate(client_id, rng) for client_id in range(count)]
    if [identity.client_id for identity in identities] != list(range(count)):
        raise InputError(f"identities must be those of clients 0..{count - 1}, in order")
    return identities
