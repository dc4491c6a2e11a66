"""The survivor set U3: what the server says of it, and what a client believes."""

from __future__ import annotations

from prism_crypto.errors import MessageError, ProtocolError
from prism_crypto.primitives.context import encode_ids, tag
from prism_crypto.stage import Stage
from prism_crypto.stages.gathering import Hall
from prism_crypto.stages.states import Uploaded
from prism_crypto.wire.messages import (
    FRAME_BYTES,
    ID_BYTES,
    VERSION,
    SurvivorsMessage,
    decode,
    decode_ids,
    encode,
)

__all__ = ["read_survivors", "survivor_messages"]


def survivor_messages(
    hall: Hall, context: bytes, sharers: tuple[int, ...], survivors: tuple[int, ...]
) -> dict[int, bytes]:
    """Server: for each survivor, how many they are, and which (of its neighbours, in a sparse graph)."""
    count = len(survivors)
    if hall.session.graph == "complete":
        message = encode(SurvivorsMessage(VERSION, tag(context), count, encode_ids(survivors)))
        return dict.fromkeys(survivors, message)
    members, outbound = frozenset(survivors), {}
    for client_id in survivors:
        near = sorted([client_id, *hall.topology.neighbours(client_id, members)])
        outbound[client_id] = encode(SurvivorsMessage(VERSION, tag(context), count, encode_ids(near)))
    return outbound


def read_survivors(state: Uploaded, data: bytes, stage: Stage) -> tuple[int, ...]:
    """Client: the survivors as far as it knows them, if it may be one among them.

    Raises:
        MessageError, ContextMismatch: the message is not one of this session.
        ProtocolError: this client is not in U3, or somebody is who is not in U2.
        ThresholdError: U3 is smaller than the threshold or the minimum of survivors.
    """
    party = state.party
    limit = FRAME_BYTES + ID_BYTES * len(state.sharers)
    message = decode(SurvivorsMessage, data, state.context, limit=limit, stage=stage)
    survivors = decode_ids(message.survivors, stage=stage)
    sharers = frozenset(state.sharers)
    for peer in survivors:
        if peer not in sharers:
            raise ProtocolError(
                "said to have survived, but did not share with this client", stage=stage, peer=peer
            )
    if party.client_id not in survivors:
        raise ProtocolError("this client uploaded, and is left out", stage=stage)
    if not party.sparse and message.count != len(survivors):
        raise MessageError(
            f"{message.count} clients are said to survive, {len(survivors)} listed", stage=stage
        )
    party.check_quorum(message.count, len(survivors), stage, "survived")
    return survivors
