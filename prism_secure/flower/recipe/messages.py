"""What the server of a recipe sends its clients: the request for moments, and each round's broadcast."""

from __future__ import annotations

import json
from typing import Any, cast
from zipfile import BadZipFile

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from prism_crypto.session import GraphKind
from prism_privacy import NoisySums
from prism_secure.accounting.record_release import RecordRelease
from prism_secure.errors import AgreementError
from prism_secure.flower.secure_aggregation import messages as sum_messages
from prism_secure.rounds.broadcast import Broadcast

_PLAN = "moments asked for"
_OPENED = "moments"
_PUBLIC = "public"


def write_request(release: RecordRelease) -> RecordDict:
    """The request for shares of a summed release, before round 1."""
    return RecordDict({_PLAN: ConfigRecord({"plan": _described(release)})})


def asks_for_moments(content: RecordDict) -> bool:
    """Whether a message is that request."""
    return _PLAN in content


def check_plan(content: RecordDict, release: RecordRelease | None) -> None:
    """Refuse unless the request is for the release that this client's own recipe plans.

    Raises:
        AgreementError: it is for another, or the recipe has none that is summed.
    """
    asked = cast(ConfigRecord, content[_PLAN]).get("plan")
    planned = _described(release) if release is not None and release.summed else "no summed release"
    if asked != planned:
        raise AgreementError(f"the server asks for moments by {asked!s}, which is not what the recipe plans")


def check_session(
    content: RecordDict, *, round: int, dimension: int, bound: int, graph: GraphKind, cohort: int
) -> None:
    """Refuse unless what is asked for belongs to this session: a client uploads once in a round.

    The bound, too: a share of noisy moments that is above a bound of the server's choice is refused, and that
    refusal would tell it about the share. A sparse graph where epsilon's delta has not paid for one, too, and
    a cohort below that which epsilon counts on.

    Raises:
        AgreementError: it is another session.
    """
    session, expected = sum_messages.session_of(content), (round, dimension, bound)
    found = (session.round, session.dimension, session.bound)
    if found != expected:
        described = "round {}, of {} integers up to {}".format
        raise AgreementError(
            f"what the server asks for belongs to a session of {described(*expected)}, not of "
            f"{described(*found)}"
        )
    if session.graph not in ("complete", graph) or session.cohort < cohort:
        described = "a {} graph and {} honest clients in the sum".format
        raise AgreementError(
            f"epsilon of this recipe counts on {described(graph, cohort)}, the session has "
            f"{described(session.graph, session.cohort)}"
        )


def write_broadcast(broadcast: Broadcast, opened: NoisySums | None = None) -> RecordDict:
    """theta, float64 (d,), under the number of its round, and with it what a summed release has opened, and
    what else the round's behaviour sends in the open."""
    content = RecordDict({f"round {broadcast.round}": ArrayRecord({"theta": Array(broadcast.theta)})})
    if broadcast.public:
        content[_PUBLIC] = ArrayRecord(
            {name: Array(np.asarray(array)) for name, array in broadcast.public.items()}
        )
    if opened is not None:
        parts = {name: getattr(opened, name) for name in ("first", "second", "counts")}
        content[_OPENED] = ArrayRecord(
            {name: Array(part) for name, part in parts.items() if part is not None}
        )
    return content


def read_broadcast(federation: str, content: RecordDict, dimension: int) -> Broadcast:
    """The inverse, completed with the federation that this client is enrolled in.

    What it must hold beside theta, the round's behaviour says (`Behaviour.check`).

    Args:
        dimension: d, how long this client's own masks are.

    Raises:
        AgreementError: it is not a broadcast, or is one of another model.
    """
    try:
        (name,) = (name for name in content if name not in (_OPENED, _PUBLIC, sum_messages.RECORD))
        word, number = name.split()
        if word != "round" or set(cast(ArrayRecord, content[name])) != {"theta"}:
            raise ValueError(name)
        theta = _floats(content, name, "theta", (dimension,))
        sent = cast(ArrayRecord, content[_PUBLIC]) if _PUBLIC in content else {}
        public = {key: _numbers(array) for key, array in sent.items()}
        return Broadcast(federation, int(number), theta, public)
    except _UNREADABLE:
        raise AgreementError("the server's message is not a round's broadcast") from None


def read_moments(content: RecordDict, release: RecordRelease) -> NoisySums:
    """The opened moments that came with a round.

    Raises:
        AgreementError: there are none, or not those of this release.
    """
    planned = release.plan.release
    shape = (planned.classes, release.dimension)
    try:
        first = _floats(content, _OPENED, "first", shape)
        second = _floats(content, _OPENED, "second", shape) if planned.second_weight else None
        counts = _floats(content, _OPENED, "counts", shape[:1])
        return NoisySums(planned, first, second, counts)
    except _UNREADABLE:
        raise AgreementError("the server's message does not bring the opened moments") from None


_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, EOFError, OSError, BadZipFile)
"""What Python and NumPy raise at bytes that are not the arrays they should be."""


def _floats(content: RecordDict, record: str, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    array = _numbers(cast(ArrayRecord, content[record])[name])
    if array.dtype != np.float64 or not np.isfinite(array).all() or array.shape != shape:
        raise ValueError(name)
    return array


def _numbers(array: Array) -> NDArray[Any]:
    found = array.numpy()
    if found.dtype.kind not in "iuf":
        raise ValueError(found.dtype)
    return found


def _described(release: RecordRelease) -> str:
    """What two parties must agree on before shares are drawn, in words that can be compared."""
    plan = release.plan
    return json.dumps(
        {
            **plan.release.as_dict(),
            "cohort": plan.cohort,
            "features": plan.dimension,
            "most_records": plan.most_records,
            "bound": plan.bound,
        },
        sort_keys=True,
    )
