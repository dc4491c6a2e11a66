"""prism-secure's own recipe app, one client of which breaks the protocol while a file says so."""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from prism_crypto.primitives.keys import SEAL_OVERHEAD, seal
from prism_crypto.stages import share
from prism_secure.flower import client_app, client_folder, secure_sum

LIAR = 2
app = ClientApp()


def _lies(context: Context) -> bytes:
    """In the clients' process: the liar seals garbage for all others, and signs that."""
    lies = client_folder(context).parent / "lies"

    def sealed(key: bytes, between: bytes, ends: tuple[int, int], plain: bytes) -> bytes:
        lying = ends[0] == LIAR != ends[1] and lies.exists()
        return bytes(len(plain) + SEAL_OVERHEAD) if lying else seal(key, between, ends, plain)

    share.seal = sealed
    return client_app._binding(context)


@secure_sum(app, bound=None, binding=_lies)
def train(message: Message, context: Context) -> Message:
    return client_app.train(message, context)
