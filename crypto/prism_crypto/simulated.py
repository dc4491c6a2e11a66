"""A sum that is added up in the clear, at the price of one that was not: for sweeps. It protects nobody.

Nobody agrees on a key and no word is masked. What a session *would* have taken is known beforehand: while
nobody drops out, no size depends on what a message says, so each message is encoded once, with zeros in its
fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_crypto.errors import InputError
from prism_crypto.keeping.identity import SIGNATURE_BYTES
from prism_crypto.primitives.context import DIGEST_BYTES, tag
from prism_crypto.primitives.keys import KEY_BYTES, VOUCHER_BYTES
from prism_crypto.server import SecureSumResult
from prism_crypto.session import Session
from prism_crypto.stage import Mode, Stage
from prism_crypto.stages.advert import advert_bytes
from prism_crypto.stages.upload import packed
from prism_crypto.wire.messages import (
    ID_BYTES,
    VERSION,
    AdvertMessage,
    AdvertsMessage,
    ConfirmationsMessage,
    ConfirmMessage,
    Message,
    ShareMessage,
    SharesMessage,
    SurvivorsMessage,
    UnmaskMessage,
    UploadMessage,
    VouchedConfirmationsMessage,
    VouchedConfirmMessage,
    VouchedSurvivorsMessage,
    VouchedUploadMessage,
    encode,
)

__all__ = ["message_bytes", "simulated_sum"]


def simulated_sum(session: Session, vectors: Iterator[NDArray[Any]]) -> SecureSumResult:
    """The exact sum over all invited clients, and the sizes of a session of theirs in which nobody drops.

    Args:
        session: the parameters; its ``invited`` must hold the ids.
        vectors: one for each client, in the order of their ids; each is let go before the next.

    Raises:
        InputError: a vector is not of the session's shape, or a value is out of range; ``peer`` is its owner.
    """
    ids = session.invited.ids or ()
    total = np.zeros(session.packing.length, dtype=np.uint64)
    for client_id in ids:
        vector = next(vectors)
        try:
            total += packed(vector, session)
        except InputError as error:
            error.at(Stage.UPLOAD, client_id)
            raise
    sent, received = message_bytes(session)
    return SecureSumResult(
        counts=session.packing.unpack(total, survivors=len(ids), bound=session.spec.bound),
        survivors=ids,
        uplink_bytes=dict.fromkeys(ids, sum(sent.values())),
        downlink_bytes=dict.fromkeys(ids, sum(received.values())),
        bits_per_coordinate=8 * sent[Stage.UPLOAD] / session.spec.dimension,
        words=session.packing.length,
    )


def message_bytes(session: Session) -> tuple[dict[Stage, int], dict[Stage, int]]:
    """Bytes of the messages that each client sends, and is sent, while nobody drops: all clients' are alike.

    (On a chosen graph a client has more neighbours or fewer: the sizes are those of an average one.)

    Returns:
        By stage: the client's message of that stage; the server's that answers it, where there is one.
    """
    n, others, active = session.invited.count, session.degree, session.mode is Mode.ACTIVE
    if session.graph == "chosen":
        return _chosen_bytes(session)
    sparse, name = session.graph == "harary", tag(session.context0)  # ctx1's tag is as long as that of ctx0
    advert, everybody = advert_bytes(session), others + 1
    words = memoryview(bytes(8 * (session.packing.length)))
    ids, sealed = bytes(everybody * ID_BYTES), bytes(everybody * (ID_BYTES + session.dealt_bytes))
    signature = bytes(SIGNATURE_BYTES if active else 0)
    digest, adverts = (DIGEST_BYTES, others) if sparse else (0, everybody)
    sent: dict[Stage, Message] = {
        Stage.ADVERTISE: AdvertMessage(VERSION, name, bytes(advert)),
        Stage.SHARE: ShareMessage(VERSION, name, sealed, signature),
        Stage.UPLOAD: UploadMessage(VERSION, name, words, b"", signature),
        Stage.UNMASK: UnmaskMessage(
            VERSION, name, bytes(everybody * (ID_BYTES + KEY_BYTES)), b"", b"", signature
        ),
    }
    received: dict[Stage, Message] = {
        Stage.ADVERTISE: AdvertsMessage(VERSION, name, bytes(digest), bytes(adverts * (ID_BYTES + advert))),
        Stage.SHARE: SharesMessage(VERSION, name, n, ids, sealed),
        Stage.UPLOAD: SurvivorsMessage(VERSION, name, n, ids),
    }
    if active:
        sent[Stage.CONFIRM] = ConfirmMessage(VERSION, name, signature)
        signatures = bytes(session.confirmations * (ID_BYTES + SIGNATURE_BYTES))
        received[Stage.CONFIRM] = ConfirmationsMessage(VERSION, name, signatures, b"")
    return _sizes(sent), _sizes(received)


def _chosen_bytes(session: Session) -> tuple[dict[Stage, int], dict[Stage, int]]:
    """For a client that was chosen as often as it chose, and by others: every client is, on average."""
    n, chosen, name = session.invited.count, session.degree, tag(session.context0)
    near, said, signature = 2 * chosen, ID_BYTES + VOUCHER_BYTES, bytes(SIGNATURE_BYTES)
    advert, sealed = advert_bytes(session), bytes(chosen * (ID_BYTES + session.dealt_bytes))
    words, keys = memoryview(bytes(8 * session.packing.length)), bytes(chosen * (ID_BYTES + KEY_BYTES))
    sent: dict[Stage, Message] = {
        Stage.ADVERTISE: AdvertMessage(VERSION, name, bytes(advert)),
        Stage.SHARE: ShareMessage(VERSION, name, sealed, signature),
        Stage.UPLOAD: VouchedUploadMessage(VERSION, name, words, b"", bytes(near * said), signature),
        Stage.CONFIRM: VouchedConfirmMessage(VERSION, name, bytes(chosen * said), signature),
        Stage.UNMASK: UnmaskMessage(VERSION, name, keys, b"", b"", signature),
    }
    received: dict[Stage, Message] = {
        Stage.ADVERTISE: AdvertsMessage(VERSION, name, b"", bytes((near + 1) * (ID_BYTES + advert))),
        Stage.SHARE: SharesMessage(VERSION, name, n, bytes((near + 1) * ID_BYTES), sealed),
        Stage.UPLOAD: VouchedSurvivorsMessage(VERSION, name, n, bytes(near * said)),
        Stage.CONFIRM: VouchedConfirmationsMessage(VERSION, name, bytes(chosen * said), b"", b""),
    }
    return _sizes(sent), _sizes(received)


def _sizes(messages: dict[Stage, Message]) -> dict[Stage, int]:
    return {stage: len(encode(message)) for stage, message in messages.items()}
